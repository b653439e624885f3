"""fsck: is the store whole in itself, and is it what the chain says (design section 3)? Touches no source, mends nothing.

    report.py    numbered checks, what they found, the verdict
    tables.py    the database's own checks, every row's invariants, batches and descriptors, the outbox
    files.py     key files, entry files, leftovers
    archives.py  each archived record against its entry
    snapshots.py our snapshots against the batches they fold
    anchors.py   claims and anchors, both ways

Runs under the workspace's lock and finishes nothing: what a killed job left open is reported as pending.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from ledger.batch.book import Book
from ledger.errors import LedgerError
from ledger.fsck.anchors import check_anchors, open_chain
from ledger.fsck.files import check_counterparties, check_keys, check_leftovers, check_sets
from ledger.fsck.report import Report
from ledger.fsck.tables import check_batches, check_database, check_outbox
from ledger.store.files import WorkspaceLock
from ledger.workspace import Workspace

__all__ = ["Report", "fsck"]


def _is_empty(path: Path) -> bool:
    """True for a database without a single table: an older version has some, so this one lost them."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            return not connection.execute("SELECT name FROM sqlite_master").fetchall()
    except sqlite3.Error:
        return False


def fsck(workspace: Workspace) -> Report:
    """Every check, whatever the others found.

    Raises only if another job holds the workspace (StoreError `workspace.busy`), or one of another workspace the store
    (`store.busy`).
    """
    report = Report(workspace.party)
    # Not `workspace.locked`, which sweeps: fsck leaves everything as it is.
    with WorkspaceLock(workspace.root / "lock", "fsck"):
        keys = check_keys(report, workspace)
        opening = report.open("store", "台账库可打开，版本相符", "the store opens and is of this version")
        try:
            store = workspace.open_store("read")
        except LedgerError as error:
            if error.code == "store.older" and _is_empty(Path(error.where)):
                opening.broken(
                    "store.empty", "台账库是空的：内容已丢失", "the store is empty: its content is lost", error.where
                )
            else:
                opening.take(error)
            return report
        with closing(store), store.alone():
            opening.seen(store.where, store.where)
            check_database(report, store)
            tables = check_batches(report, store)
            check_counterparties(keys, workspace, tables)
            check_sets(report, workspace, Book(workspace, store), tables)
            check_leftovers(report, workspace, tables)
            check_outbox(report, store, tables)
            with open_chain(report, workspace, store) as reading:
                check_anchors(report, workspace, tables, reading)
    return report
