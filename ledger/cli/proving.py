"""`prove` and `trust export`."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ledger.cli.speech import compact, note, print_bytes, print_json, say, visible
from ledger.cli.workspace import reading
from ledger.errors import InputError, LedgerError
from ledger.record import MASK

if TYPE_CHECKING:
    from ledger.catalog import Catalog
    from ledger.prove import Proved

_STEM = 40  # characters of a key in a file name


def run(args: argparse.Namespace) -> int:
    """Run `prove` or `trust export`."""
    return _prove(args) if args.command == "prove" else _export(args)


def _prove(args: argparse.Namespace) -> int:
    from ledger.prove import prove
    from ledger.store.files import write_atomic

    if args.subject is not None:
        return _prove_subject(args)
    if args.counterpart is not None:
        raise InputError("usage", "--with 只与 --subject 同用", "--with goes with --subject", "--with")
    if not args.key:
        raise InputError("prove.no_key", "请给出要证明的主键 KEY", "name the KEY of the record to prove", "KEY")
    if len(args.key) > 1 and args.out is None:
        raise InputError(
            "prove.out_needed",
            "多个主键时须用 --out 指明目录，每个主键一个文件",
            "several keys need --out with a folder: one file a key is written there",
            "--out",
        )
    with reading(args) as job:
        proved = prove(job, job.workspace.catalog(args.catalog), args.key, batch=args.batch)
    for zh, en in dict.fromkeys(told for it in proved for told in it.notes):
        note(zh, en)
    if args.out is None:
        print_bytes(proved[0].data)
        return 0
    if len(args.key) > 1:
        _tell(args, proved, write_proofs(Path(args.out), proved))
    else:
        path = Path(args.out)
        write_atomic(path, proved[0].data, overwrite=False)
        _tell(args, proved, [path])
    return 0


def _prove_subject(args: argparse.Namespace) -> int:
    from ledger.absence import prove_subject
    from ledger.store.files import write_atomic

    if args.key:
        raise InputError("usage", "--subject 不与 KEY 同用", "--subject does not go with KEY", "--subject")
    with reading(args) as job:
        catalog = job.workspace.catalog(args.catalog)
        made = prove_subject(job, catalog, args.subject, party=args.counterpart, batch=args.batch)
    for zh, en in made.notes:
        note(zh, en)
    if args.out is None:
        print_bytes(made.data)
        return 0
    write_atomic(Path(args.out), made.data, overwrite=False)
    told = {
        "subject": made.subject,
        "records": len(made.records),
        "file": args.out,
        "snapshot": made.snapshot.descriptor.batch,
        "batch_id": made.snapshot.batch_id,
        "without_subject": made.unnamed,
        "anchored_by": list(made.vouching),
    }
    if args.json:
        print_json(told)
        return 0
    count = len(made.records)
    parties_zh, parties_en = "、".join(made.vouching), ", ".join(made.vouching)
    number = made.snapshot.descriptor.batch
    print(
        say(
            f"已出具：{made.subject} 在快照 {number} 中{f'共 {count} 条记录，全部列出' if count else '没有任何记录'}，上链方 {parties_zh} → {args.out}",
            f"proof written: {made.subject} has {f'{count} record(s), all shown,' if count else 'no record'} in snapshot {number}, anchored by "
            f"{parties_en} → {args.out}",
        )
    )
    return 0


def _tell(args: argparse.Namespace, proved: Sequence[Proved], paths: Sequence[Path]) -> None:
    files = [
        {
            "key": shown_key(it.proof.catalog, it.key),
            "file": str(path),
            "batch": it.proof.descriptor.batch,
            "batch_id": it.batch.announced.batch_id,
            "index": it.proof.index,
            "size": it.batch.entry_set.size,
            "kind": it.opened.kind,
            "anchored_by": [hint.party for hint in it.proof.anchors],
        }
        for it, path in zip(proved, paths, strict=True)
    ]
    if args.json:
        print_json({"files": files})
        return
    for told, it in zip(files, proved, strict=True):
        key = visible(compact(shown_key(it.proof.catalog, it.key)))
        what = say("撤回", "withdrawal") if it.opened.kind == "withdrawal" else say("记录", "record")
        parties = say("、", ", ").join(hint.party for hint in it.proof.anchors)
        print(
            say(
                f"已出具：{what} {key}，批次 {told['batch']} 第 {told['index']} 条（从 0 起，共 {told['size']} 条），"
                f"上链方 {parties} → {told['file']}",
                f"proof written: {what} {key}, batch {told['batch']}, index {told['index']} of {told['size']}, "
                f"anchored by {parties} → {told['file']}",
            )
        )


def _export(args: argparse.Namespace) -> int:
    from ledger.proof import dump_trust
    from ledger.prove import export_trust
    from ledger.store.files import write_atomic

    with reading(args) as job:
        trust = export_trust(job)
    data = dump_trust(trust)
    if args.out is None:
        print_bytes(data)
        return 0
    # For others to read: it holds nothing that the chain does not show to everybody.
    write_atomic(Path(args.out), data, 0o644, overwrite=False)
    if args.json:
        print_json({"file": args.out, "chain_id": trust.chain_id, "contract": trust.contract, "parties": trust.parties})
    else:
        print(
            say(
                f"信任文件：{args.out}（链 {trust.chain_id}，合约 {trust.contract}，参与方 {'、'.join(trust.parties)}）",
                f"trust file: {args.out} (chain {trust.chain_id}, contract {trust.contract}, parties {', '.join(trust.parties)})",
            )
        )
        note(
            "请经可靠渠道交给审计人，不要与存证文件一同传递",
            "hand it to the auditor over a way he trusts, not together with a proof file",
        )
    return 0


def write_proofs(folder: Path, proved: Sequence[Proved]) -> list[Path]:
    """One file a key (0600) in `folder`, which is made if it is not there; an existing file is kept and nothing written."""
    from ledger.store.files import os_errors, write_atomic

    paths = [folder / file_name(it) for it in proved]
    with os_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    written: list[Path] = []
    try:
        for path, it in zip(paths, proved, strict=True):
            write_atomic(path, it.data, overwrite=False)
            written.append(path)
    except LedgerError:
        for path in written:
            with contextlib.suppress(OSError):
                path.unlink()
        raise
    return paths


def file_name(proved: Proved) -> str:
    """A name that no key can bend: catalog, batch, the key as far as it is harmless and not personal, part of its tag."""
    catalog = proved.proof.catalog
    plain = "" if _personal_key(catalog) else "-".join(proved.key.values())
    parts = (catalog.id, proved.proof.descriptor.batch, plain)
    stem = "-".join(_harmless(part) for part in parts if part)
    return f"{stem}-{proved.key_tag.hex()[:12]}.proof.json"


def shown_key(catalog: Catalog, key: Mapping[str, str]) -> dict[str, str]:
    """The key for output: personal fields masked."""
    return {name: MASK if catalog.by_name[name].personal else value for name, value in key.items()}


def _harmless(text: str) -> str:
    kept = "".join(char if char.isascii() and char.isalnum() else "_" for char in text[:_STEM])
    return kept or "_"


def _personal_key(catalog: Catalog) -> bool:
    return any(catalog.by_name[name].personal for name in catalog.key)
