"""`catalog list`, `catalog show`, `catalog check`, `catalog new`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledger.cli.speech import error_json, message, print_bytes, print_json, say, table, visible
from ledger.errors import InputError, LedgerError

if TYPE_CHECKING:
    from ledger.advice import Advice
    from ledger.catalog import Catalog
    from ledger.drafting.draft import Drafted
    from ledger.drafting.sample import Origin
    from ledger.workspace import KnownCatalog


def run(args: argparse.Namespace) -> int:
    """Run one of the actions; `check` ends with 2 if a catalog is not valid, advice changes nothing."""
    return {"list": _list, "show": _show, "check": _check, "new": _new}[args.action](args)


def _folder(args: argparse.Namespace) -> Path | None:
    """The workspace's catalogs/; None outside a workspace, where only the built-in ones are known."""
    named = args.workspace or os.environ.get("DUIZHANG_HOME")
    root = Path(named or ".")
    if (root / "duizhang.toml").exists():
        return root / "catalogs"
    if named is not None:
        raise InputError(
            "workspace.missing",
            "这里不是工作区（没有 duizhang.toml）",
            "not a workspace (no duizhang.toml)",
            str(root),
        )
    return None


# ---- list, show ----


def _list(args: argparse.Namespace) -> int:
    from ledger.workspace import known_catalogs

    known = known_catalogs(_folder(args))
    if args.json:
        print_json({"catalogs": [_summary(it) for it in known.values()]})
        return 0
    headers = (
        say("目录", "catalog"),
        say("名称", "title"),
        say("字段", "fields"),
        say("主键", "key"),
        say("摘要", "digest"),
        say("来自", "from"),
    )
    rows = [
        (
            it.catalog.name,
            it.catalog.title or "-",
            len(it.catalog.fields),
            " ".join(it.catalog.key),
            it.catalog.digest.hex()[:16],
            say("内置", "built in") if it.built_in else str(it.path),
        )
        for it in known.values()
    ]
    print(table(headers, rows))
    return 0


def _summary(known: KnownCatalog) -> dict[str, object]:
    catalog = known.catalog
    return {
        "id": catalog.id,
        "version": catalog.version,
        "title": catalog.title,
        "fields": len(catalog.fields),
        "key": list(catalog.key),
        "digest": catalog.digest.hex(),
        "built_in": known.built_in,
        "file": str(known.path),
    }


def _show(args: argparse.Namespace) -> int:
    from ledger.workspace import known_catalogs, pick_catalog

    known = pick_catalog(known_catalogs(_folder(args)), args.catalog)
    catalog = known.catalog
    if args.json:
        print_json({**_summary(known), **_complete(catalog)})
        return 0
    origin = say("内置", "built in") if known.built_in else str(known.path)
    print(f"{catalog.name}  {catalog.title or ''}".rstrip())
    print(say(f"主键：{' '.join(catalog.key)}", f"key: {' '.join(catalog.key)}"))
    subject = catalog.subject
    if subject is None:
        print(say("主体：无", "subject: none"))
    else:
        shown = f"{subject.field}, {subject.visibility}"
        shown += f", {subject.public_pattern}" if subject.public_pattern is not None else ""
        print(say(f"主体：{shown}", f"subject: {shown}"))
    print(say(f"时区：{catalog.utc_offset}", f"utc_offset: {catalog.utc_offset}"))
    archive = (say("是", "yes"), say("否", "no"))[not catalog.archive]
    print(say(f"归档：{archive}", f"archive: {archive}"))
    print(say(f"摘要：{catalog.digest.hex()}", f"digest: {catalog.digest.hex()}"))
    print(say(f"来自：{origin}", f"from: {origin}"))
    print()
    headers = (
        say("字段", "field"),
        say("名称", "title"),
        say("类型", "type"),
        say("个人信息", "personal"),
        say("其他规则（本版本只展示，不检查）", "other rules"),
    )
    rows = []
    for field in catalog.fields:
        type_ = field.type if field.scale is None else f"{field.type}({field.scale})"
        rules = " ".join(f"{name}={value}" for name, value in field.rules.items())
        name = f"{field.name} *" if field.name in catalog.key else field.name
        rows.append((name, field.title or "-", type_, say("是", "yes") if field.personal else "-", rules))
    print(table(headers, rows))
    return 0


def _complete(catalog: Catalog) -> dict[str, object]:
    """All that a catalog says; `declaration` is the text whose SHA-256 is the digest."""
    subject = catalog.subject
    return {
        "name": catalog.name,
        "utc_offset": catalog.utc_offset,
        "archive": catalog.archive,
        "subject": None
        if subject is None
        else {
            "field": subject.field,
            "visibility": subject.visibility,
            "public_pattern": subject.public_pattern,
        },
        "declaration": catalog.declaration.decode(),
        "fields": [
            {
                "name": field.name,
                "title": field.title,
                "type": field.type,
                "scale": field.scale,
                "key": field.name in catalog.key,
                "personal": field.personal,
                "rules": _plain(field.rules),
            }
            for field in catalog.fields
        ],
        "other": _plain(catalog.extra),
    }


def _plain(value: Any) -> Any:
    """TOML's dates and times have no form in JSON: they are written as text."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, str | int | float | bool) else str(value)


# ---- check ----


def _check(args: argparse.Namespace) -> int:
    from ledger.advice import advise
    from ledger.workspace import read_catalog

    paths = _files(args)
    single = args.catalog is not None
    checked: list[tuple[Path, Catalog | None, list[Advice], LedgerError | None]] = []
    seen: dict[tuple[str, Path], Path] = {}
    for path in paths:
        try:
            catalog = read_catalog(path)
            first = seen.setdefault((catalog.id, path.parent), path)
            if first is not path:
                raise _repeated(catalog.id, first, path)
            checked.append((path, catalog, advise(catalog), None))
        except LedgerError as error:
            if single:
                raise
            checked.append((path, None, [], error))
    errors = [error for _, _, _, error in checked if error is not None]
    if args.json:
        answer: dict[str, object] = {"catalogs": [_verdict(*it) for it in checked]}
        if errors:
            answer |= error_json(errors[0].code, message(errors[0]), errors[0].where)
        print_json(answer)
    else:
        for told in checked:
            _tell(*told)
    return 2 if errors else 0


def _files(args: argparse.Namespace) -> list[Path]:
    """The file named, the file of the catalog named, or all files: built in, then the workspace's."""
    from ledger.workspace import known_catalogs, pick_catalog

    built_in = Path(str(resources.files("ledger") / "catalogs"))
    if args.catalog is None:
        folder = _folder(args)
        own = sorted(folder.glob("*.toml")) if folder is not None else []
        return [*sorted(built_in.glob("*.toml")), *own]
    path = Path(args.catalog)
    if path.suffix == ".toml" or os.sep in args.catalog or path.is_file():
        return [path]
    return [pick_catalog(known_catalogs(_folder(args)), args.catalog).path]


def _repeated(catalog_id: str, first: Path, second: Path) -> InputError:
    return InputError(
        "catalog.id_repeated",
        f"目录 id {catalog_id} 在 {first.name} 与 {second.name} 中重复",
        f"catalog id {catalog_id} stands in both {first.name} and {second.name}",
        str(second),
    )


def _verdict(path: Path, catalog: Catalog | None, advice: list[Advice], error: LedgerError | None) -> dict[str, object]:
    told: dict[str, object] = {
        "file": str(path),
        "catalog": None if catalog is None else catalog.name,
        "digest": None if catalog is None else catalog.digest.hex(),
        "valid": error is None,
        "advice": [{"code": it.code, "field": it.field or None, "message": say(it.zh, it.en)} for it in advice],
    }
    if error is not None:
        told |= error_json(error.code, message(error), error.where)
    return told


def _tell(path: Path, catalog: Catalog | None, advice: list[Advice], error: LedgerError | None) -> None:
    if error is not None or catalog is None:
        shown = "" if error is None else f"[{error.code}] {message(error)}"
        print(say(f"{path}: 不合规 {shown}", f"{path}: not valid {shown}"))
        return
    digest = catalog.digest.hex()[:16]
    print(say(f"{catalog.name}（{path}）：合规，摘要 {digest}…", f"{catalog.name} ({path}): valid, digest {digest}…"))
    for it in advice:
        print(say(f"  建议 [{it.code}] {it.zh}", f"  advice [{it.code}] {it.en}"))


# ---- new ----


def _new(args: argparse.Namespace) -> int:
    from ledger.catalog import parse_catalog
    from ledger.drafting.draft import draft
    from ledger.drafting.toml import toml_of
    from ledger.store.files import write_atomic

    out = _out(args)
    if out is not None and out.exists():
        raise InputError("draft.exists", "文件已存在，不予覆盖", "the file exists and is not overwritten", str(out))
    drafted = draft(args.id, _origin(args))
    text = toml_of(drafted)
    # What is handed over passes `catalog check`, whatever the headings were.
    parse_catalog(text.encode(), str(out or "-"))
    if out is not None:
        write_atomic(out, text.encode(), 0o644, overwrite=False)
    if args.json:
        print_json(_drafted_json(drafted, out) | ({"toml": text} if out is None else {}))
    elif out is None:
        print_bytes(text.encode())
    else:
        _tell_draft(drafted, out)
    return 0


def _out(args: argparse.Namespace) -> Path | None:
    """Where the draft goes; None for standard output."""
    from ledger.catalog import CATALOG_ID
    from ledger.workspace import known_catalogs

    if args.out == "-":
        return None
    if args.out is not None:
        return Path(args.out)
    folder = _folder(args)
    if folder is None:
        raise InputError(
            "draft.out",
            "不在工作区内：请用 --out 指明写到哪里（- 为标准输出）",
            "not in a workspace: say with --out where to write (- is standard output)",
            "--out",
        )
    if not CATALOG_ID.fullmatch(args.id):
        # It would become a path.
        return None
    path = folder / f"{args.id}.toml"
    known = known_catalogs(folder).get(args.id)
    if known is not None and not path.exists():
        raise InputError(
            "draft.id_taken",
            f"已有目录 {args.id}（{known.path}）；请换一个 id",
            f"there is a catalog {args.id} already ({known.path}); take another id",
            "ID",
        )
    return path


def _origin(args: argparse.Namespace) -> Origin:
    """The file, the table, or the table of `[source.ID]`."""
    from ledger.config import load_config
    from ledger.drafting.sample import FileOrigin, TableOrigin
    from ledger.source.files import ReadOptions

    if args.file is not None and (args.url is not None or args.table is not None):
        raise InputError(
            "draft.origin", "--file 与 --url/--table 只能用其一", "--file or --url with --table, not both", "--file"
        )
    if (args.url is None) != (args.table is None):
        raise InputError("draft.origin", "--url 与 --table 须同时给出", "--url and --table go together", "--url")
    if args.file is not None:
        options = ReadOptions(encoding=args.encoding, sheet=args.sheet, header_row=args.header_row)
        return FileOrigin(Path(args.file), options)
    if args.url is not None:
        return TableOrigin(args.url, args.table, None, {}, ())
    folder = _folder(args)
    source = None if folder is None else load_config(folder.parent / "duizhang.toml").sources.get(args.id)
    if folder is None or source is None:
        raise InputError(
            "draft.origin",
            f"请给出 --file，或 --url 与 --table，或在 duizhang.toml 中配置 [source.{args.id}]",
            f"say --file, or --url and --table, or configure [source.{args.id}] in duizhang.toml",
            "--file",
        )
    without = [name for name in (source.batch_column, source.row_version_column) if name is not None]
    return TableOrigin(source.url, source.table, folder.parent, source.columns, without)


def _drafted_json(drafted: Drafted, out: Path | None) -> dict[str, object]:
    return {
        "catalog": drafted.catalog.id,
        "file": None if out is None else str(out),
        "rows": drafted.rows,
        "unreadable": drafted.unreadable,
        "key": list(drafted.catalog.key),
        "key_from": drafted.key_from,
        "subject": None if drafted.catalog.subject is None else drafted.catalog.subject.field,
        "fields": [
            {"name": it.name, "title": it.title, "type": it.type, "scale": it.scale, "personal": it.personal}
            for it in drafted.catalog.fields
        ],
        "left_out": [{"column": name, "reason": reason} for name, reason in drafted.left_out],
    }


def _tell_draft(drafted: Drafted, out: Path) -> None:
    catalog = drafted.catalog
    key = " ".join(catalog.key)
    print(
        say(
            f"草稿已写入 {out}：{len(catalog.fields)} 个字段，主键 {key}，据 {drafted.rows} 行样本",
            f"draft written to {out}: {len(catalog.fields)} fields, key {key}, from {drafted.rows} rows",
        )
    )
    if drafted.key_from == "none":
        print(say("主键未经证实，请务必核对", "the key is not borne out by the sample: check it"))
    personal = " ".join(field.name for field in catalog.fields if field.personal)
    if personal:
        print(say(f"拟标为个人信息：{personal}", f"proposed as personal: {personal}"))
    for name, _ in drafted.left_out:
        print(say(f"未采用的列：{visible(name)}", f"column left out: {visible(name)}"))
    if drafted.unreadable:
        print(say(f"样本中 {drafted.unreadable} 行无法读取", f"{drafted.unreadable} rows of the sample cannot be read"))
    print(say(f"逐项核对后：duizhang catalog check {out}", f"check every line, then: duizhang catalog check {out}"))
