"""`demo`: the whole story in one run, in the terminal; exit 0 only if everything came out as it must."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ledger.cli.speech import error_json, message, print_json, say
from ledger.errors import LedgerError, NotBuiltError

ROWS_VARIABLE = "DUIZHANG_DEMO_ROWS"


def run(args: argparse.Namespace) -> int:
    """Tell the story in a folder of its own; `--keep DIR` leaves it there. Exit 0, or 2 where an expectation broke."""
    from ledger.cli import main
    from ledger.demo import rows, story
    from ledger.demo.database import PostgresDatabase, SqliteDatabase
    from ledger.demo.stage import Stage, outcome
    from ledger.workspace import known_catalogs, pick_catalog

    if args.data is not None:
        raise NotBuiltError("demo --data")
    catalog = pick_catalog(known_catalogs(None), story.CATALOG).catalog
    named = os.environ.get(ROWS_VARIABLE)
    if named:
        registrations = rows.read_rows(Path(named), catalog)
        origin = (f"数据：{named} 的前 {len(registrations)} 行。", f"Rows: the first {len(registrations)} of {named}.")
    else:
        registrations = rows.generate()
        origin = (
            f"数据：程序生成的虚构企业，代码校验位有效（真实数据可用环境变量 {ROWS_VARIABLE} 指定 CSV）。",
            f"Rows: made-up companies with valid codes (real ones from a CSV: set {ROWS_VARIABLE}).",
        )
    stage = Stage(main, say("zh", "en"), silent=args.json)
    facts: dict[str, object] = {"ok": True, "rows": named or "generated"}
    keep = None if args.keep is None else Path(args.keep)
    database = SqliteDatabase() if args.database is None else PostgresDatabase(args.database)
    with story.workplace(keep) as folder:
        facts["folder"] = str(folder) if keep else None
        try:
            if isinstance(database, PostgresDatabase):
                database.make()
            story.tell(stage, catalog, registrations, origin, database, keep=keep is not None)
        except LedgerError as error:
            if not args.json:
                raise
            facts |= {"ok": False, **error_json(error.code, message(error), error.where)}
        finally:
            if keep is None:
                database.remove()
    if args.json:
        print_json(outcome(stage, facts))
    return 0 if facts["ok"] else 2
