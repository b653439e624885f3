"""Records that were erased here: their plaintext is gone for good, their commitments stay anchored (design section 4).

Named by key tag. What is told here is the store's own word: nothing on chain says that a record was erased, and nothing becomes lawful
by it.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from ledger.batch.stream import StreamId
from ledger.errors import StoreError
from ledger.store import models
from ledger.store.db import Store
from ledger.store.files import os_errors, sync_folder
from ledger.workspace import Workspace


def erased_tags(session: Session, stream: StreamId) -> frozenset[bytes]:
    """Key tags of the records of `stream` that were erased here, of whatever series."""
    row = models.Erasure
    chosen = select(row.key_tag).where(
        row.catalog_id == stream.catalog_id,
        row.sender_party == stream.sender,
        row.receiver_party == stream.receiver,
    )
    return frozenset(bytes.fromhex(tag) for tag in session.scalars(chosen))


def erased_of_catalog(session: Session, catalog_id: str) -> frozenset[bytes]:
    """The same of every stream of a catalog: no archive of it may ever hold their records again."""
    chosen = select(models.Erasure.key_tag).where(models.Erasure.catalog_id == catalog_id)
    return frozenset(bytes.fromhex(tag) for tag in session.scalars(chosen))


def finish_erasures(workspace: Workspace, store: Store) -> None:
    """Do what is left of erasures that were recorded: remove the files that held the plaintext, clear the store of what it no longer
    says. Does nothing if there are none; needs the workspace's lock.

    Wherever it stops, calling it again goes on. StoreError `store.in_use` while somebody still reads an older state: the records
    stay erased, and the next run tries again.
    """
    with store.read() as session:
        begun = list(session.scalars(select(models.Erasure).where(models.Erasure.state == "intent")))
        if not begun:
            return
        named = set(session.scalars(select(models.EntrySet.entries_file)))
        named |= set(
            session.scalars(select(models.EntrySet.archive_file).where(models.EntrySet.archive_file.is_not(None)))
        )
    old = {name for row in begun for name in json.loads(row.files)}
    folders = (workspace.entries_folder, workspace.archive_folder)
    for name in sorted(old):
        path = workspace.root / name
        # The list is our own store's; a name in it that no erasure writes is not followed.
        if name in named or path.parent not in folders:
            raise StoreError(
                "store.erasure_file",
                f"待删除的文件 {name} 仍被条目集使用，或不在 entries/、archive/ 中：未删除；请运行 duizhang fsck",
                f"{name} is to be removed, yet an entry set names it or it lies elsewhere: not removed; run duizhang fsck",
                str(path),
            )
    for name in sorted(old):
        with os_errors(workspace.root / name):
            (workspace.root / name).unlink(missing_ok=True)
    if old:
        for folder in folders:
            with os_errors(folder):
                sync_folder(folder)
    # The old files' keys were in the store, and what it said of the records.
    store.forget()
    moment = models.utc_text(datetime.now(UTC))
    with store.write() as session:
        for row in session.scalars(select(models.Erasure).where(models.Erasure.id.in_([it.id for it in begun]))):
            row.state, row.finished_at = "done", moment
