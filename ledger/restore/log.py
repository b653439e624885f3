"""Restores on record, for the brief: each is told once. Of one that was killed, the night's reconciliation says what it wrote."""

from __future__ import annotations

import json
from collections.abc import Iterable

from sqlalchemy import select

from ledger.batch.book import now
from ledger.store import models
from ledger.store.db import Store


def untold(store: Store) -> list[models.Restore]:
    """Restores that no brief has told of, oldest first."""
    with store.read() as session:
        return list(
            session.scalars(select(models.Restore).where(models.Restore.told_at.is_(None)).order_by(models.Restore.id))
        )


def told(store: Store, restores: Iterable[models.Restore]) -> None:
    """A brief with these was written."""
    with store.write() as session:
        for restore in restores:
            session.get_one(models.Restore, restore.id).told_at = now()


def restore_json(row: models.Restore) -> dict[str, object]:
    """A restore in the words of the brief; never a value."""
    return {
        "catalog": row.catalog_id,
        "by": row.approved_by,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "state": row.state,
        **json.loads(row.document),
    }
