"""`catalog list`, `catalog show`, `catalog check`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledger.cli.speech import error_json, message, print_json, say, table
from ledger.errors import InputError, LedgerError, NotBuiltError

if TYPE_CHECKING:
    from ledger.advice import Advice
    from ledger.catalog import Catalog
    from ledger.workspace import KnownCatalog


def run(args: argparse.Namespace) -> int:
    """Run one of the actions; `check` ends with 2 if a catalog is not valid, advice changes nothing."""
    if args.action == "new":
        raise NotBuiltError("duizhang catalog new")
    return {"list": _list, "show": _show, "check": _check}[args.action](args)


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
