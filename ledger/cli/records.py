"""`digest`: size and root of a file or of the configured source; nothing is written."""

from __future__ import annotations

import argparse
from pathlib import Path

from ledger.cli.speech import note, print_json, say
from ledger.cli.workspace import here


def run(args: argparse.Namespace) -> int:
    """Print size and root; exit 1 if rows were set aside."""
    from ledger.batch.digest import digest
    from ledger.batch.intake import FileOptions
    from ledger.workspace import OWN

    workspace = here(args)
    catalog = workspace.catalog(args.catalog)
    file = None
    if args.file is not None:
        quarantine = None if args.quarantine is None else Path(args.quarantine)
        file = FileOptions(
            Path(args.file), args.encoding, args.operation_column, quarantine, args.sheet, args.header_row
        )
    result = digest(workspace, catalog, file, args.key or OWN, cells=args.cells)
    if args.json:
        print_json(
            {
                "catalog": catalog.name,
                "size": result.size,
                "root": result.root,
                "sketch": None if result.sketch is None else result.sketch.hex(),
                "set_aside": result.set_aside,
                "ignored_columns": list(result.ignored),
                "notes": [say(zh, en) for zh, en in result.notes],
            }
        )
    else:
        print(say(f"目录 {catalog.name}  条数 {result.size}", f"catalog {catalog.name}  size {result.size}"))
        print(say(f"根 {result.root}", f"root {result.root}"))
        if result.sketch is not None:
            print(say(f"差异摘要（明文）{result.sketch.hex()}", f"sketch (in clear) {result.sketch.hex()}"))
        for zh, en in result.notes:
            note(zh, en)
        tell_left_out(result.set_aside, result.ignored)
    return 1 if result.set_aside else 0


def tell_left_out(set_aside: int, ignored: tuple[str, ...]) -> None:
    """Say on standard error what was not taken in: quarantined rows, columns that the catalog does not declare."""
    if ignored:
        named = ", ".join(ignored)
        note(f"未采用的列（目录未声明）：{named}", f"columns ignored (not in the catalog): {named}")
    if set_aside:
        note(f"{set_aside} 行不合规，已隔离", f"{set_aside} row(s) were set aside")
