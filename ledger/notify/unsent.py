"""Notices that did not get through, for `status`: reads the store only, and loads nothing that sends."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from ledger.errors import LedgerError
from ledger.store import models

UNCONFIGURED = "notify.unconfigured"
"""Why a notice ended whose channel was taken out of the settings: nobody waits for it."""


def unsent(session: Session) -> list[models.Notice]:
    """Those that wait, and those given up after the last one that was sent on their channel; the oldest first."""
    rows = list(session.scalars(select(models.Notice).order_by(models.Notice.created_at, models.Notice.id)))
    return [row for row in rows if row.state == "waiting" or (row.state == "failed" and _still_matters(row, rows))]


def last_error(row: models.Notice) -> LedgerError | None:
    """Why the last try failed; None if there was none."""
    if row.error is None:
        return None
    told = json.loads(row.error)
    return LedgerError(told["code"], told["zh"], told["en"], told["where"])


def _still_matters(row: models.Notice, rows: Sequence[models.Notice]) -> bool:
    error = last_error(row)
    if error is not None and error.code == UNCONFIGURED:
        return False
    # The channel works again, and the brief of that night told that this one was given up.
    return not any(it.state == "sent" and it.channel == row.channel and it.created_at > row.created_at for it in rows)
