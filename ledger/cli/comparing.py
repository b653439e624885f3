"""`reconcile --with PARTY`: batch by batch against what the other party anchored."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ledger.cli.speech import compact, note, print_json, say, table, visible
from ledger.cli.verdicts import verdict_words
from ledger.cli.workspace import reading
from ledger.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ledger.chain.registry import AnchorRecord
    from ledger.counterpart.findings import BatchComparison, PartyComparison, PartyFinding, PartyKind


def run(args: argparse.Namespace) -> int:
    """Compare, print, end with the verdict's code. Nothing is written."""
    from ledger.counterpart.compare import compare_with

    for given, option in ((args.since, "--since"), (args.until, "--until"), (args.out, "--out")):
        if given is not None:
            raise InputError("usage", f"{option} 不与 --with 同用", f"{option} does not go with --with", option)
    if args.format not in (None, "table", "json"):
        raise InputError(
            "usage", "--with 只支持 table 与 json", "--with prints a table or JSON", f"--format {args.format}"
        )
    with reading(args) as job:
        catalog = job.workspace.catalog(args.catalog)
        found = compare_with(job, catalog, args.counterpart, number=args.batch)
    if args.json or args.format == "json":
        print_json(found.as_json())
    else:
        tell(found)
    return found.verdict.exit_code


def tell(found: PartyComparison, *, brief: bool = False) -> None:
    """Verdict first, then each batch, then the differences. In a `brief` only batches that are not equal."""
    print(
        say(
            f"与 {found.them} 核对 {found.catalog}：{verdict_words(found.verdict)}",
            f"{found.catalog} with {found.them}: {verdict_words(found.verdict)}",
        )
    )
    against = found.against
    print(
        say(
            f"依据：链 {against['chain_id']}，合约 {against['contract']}，区块 {against['block']}",
            f"against: chain {against['chain_id']}, contract {against['contract']}, block {against['block']}",
        )
    )
    shown = [it for it in found.batches if not brief or str(it.verdict) != "matched"]
    if shown:
        print(table(_head(), [_line(it) for it in shown]))
    for it in shown:
        if it.findings:
            print()
            print(
                say(f"批次 {it.batch.descriptor.batch} 的差异：", f"differences of batch {it.batch.descriptor.batch}:")
            )
            print(findings_table(it.findings))
        for zh, en in it.notes:
            note(f"{it.batch.descriptor.batch}：{zh}", f"{it.batch.descriptor.batch}: {en}")
    for zh, en in found.notes:
        note(zh, en)
    disputable = [it.batch.descriptor.batch for it in shown if it.certified and any(f.open for f in it.findings)]
    if disputable and not brief:
        catalog, number = found.catalog.partition("/")[0], disputable[0]
        note(
            f"仅对方有的记录由对方点名；可就未了结的差异提出争议：duizhang dispute open {catalog} --with {found.them} --batch {number}",
            f"what only the other side has, the other side names; open differences can be disputed: duizhang dispute open {catalog} "
            f"--with {found.them} --batch {number}",
        )


def findings_table(findings: Sequence[PartyFinding]) -> str:
    """The differences of a batch, one a line."""
    head = [say("类型", "kind"), say("主键", "key"), say("本方", "ours"), say("对方", "theirs"), say("状态", "state")]
    return table(head, [_finding(it) for it in findings])


def kind_words(kind: PartyKind) -> str:
    """A kind for a person."""
    words = {
        "only_theirs": "仅对方有",
        "only_ours": "仅本方有",
        "differs": "内容不同",
        "not_withdrawn": "应撤未撤",
    }
    return say(words[kind], str(kind))


def _head() -> list[str]:
    return [
        say("批次", "batch"),
        say("方向", "from → to"),
        say("本方", "ours"),
        say("对方", "theirs"),
        say("结论", "verdict"),
    ]


def _line(it: BatchComparison) -> list[str]:
    stream = it.batch.stream
    left = sum(finding.open for finding in it.findings)
    words = verdict_words(it.verdict)
    if it.findings:
        words += say(f" {len(it.findings)} 处，未了结 {left}", f" {len(it.findings)}, {left} open")
    return [
        visible(it.batch.descriptor.batch),
        f"{stream.sender} → {stream.receiver}",
        _anchor(it.ours),
        _anchor(it.theirs),
        words,
    ]


def _anchor(record: AnchorRecord | None) -> str:
    if record is None:
        return say("未上链", "not anchored")
    return say(f"{record.size} 条 r{record.revision}", f"{record.size} r{record.revision}") + f" {record.root[:12]}…"


def _finding(it: PartyFinding) -> list[str]:
    state = say("未了结", "open")
    if it.settled_by is not None:
        state = say(f"由 {it.settled_by} 了结", f"settled by {it.settled_by}")
    elif it.erased:
        state = say("本方已删除原文", "erased here")
    name = f"[{it.key_tag}]" if it.key is None else visible(compact(it.key))
    short = [f"{value[:12]}…" if value is not None else "-" for value in (it.ours, it.theirs)]
    return [kind_words(it.kind), name, *short, state]
