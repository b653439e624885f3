"""Notices on record: stored before they are sent, tried again by the next night under the same id, given up in the end.

    waiting ──> sent
       └──────> failed (given up, or its channel is no longer configured)

Hold the workspace's lock: two jobs at once would send twice. What is killed between sending and recording is sent once more.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import sleep
from typing import Any

from sqlalchemy import select

from ledger.config import MailConfig, NotifyConfig, WebhookConfig
from ledger.errors import LedgerError
from ledger.notify import mail, webhook
from ledger.notify.notsent import NotSent
from ledger.notify.outcome import subject_of, text_of
from ledger.notify.unsent import UNCONFIGURED
from ledger.store import models
from ledger.store.db import Store
from ledger.workspace import Workspace

TRIES = 3
"""Tries of one notice in one run."""
WAITS_SECONDS = (2.0, 8.0)
"""Between them; longer if the other side asks for it."""
MOST_WAIT_SECONDS = 30.0
"""Who asks to be left alone for longer is tried again by the next night."""
MAX_AGE = timedelta(days=7)
MAX_ATTEMPTS = 30
"""A notice is given up when it is older or was tried more often: by then the briefs have told more than it would."""


@dataclass(frozen=True)
class Told:
    """What became of one notice in this run; `error` is why it waits or was given up."""

    id: str
    channel: str
    state: models.NoticeState
    error: LedgerError | None = None


def add_notices(store: Store, config: NotifyConfig, document: Mapping[str, Any], moment: datetime) -> list[str]:
    """Store one notice for each configured channel, in one transaction; returns their ids."""
    ids = []
    with store.write() as session:
        for channel in channels(config):
            body = document if channel == "webhook" else {"document": document, "remaining": None}
            row = models.Notice(
                id=uuid.uuid4().hex,
                channel=channel,
                body=json.dumps(body, ensure_ascii=False),
                state="waiting",
                attempts=0,
                created_at=models.utc_text(moment),
            )
            session.add(row)
            ids.append(row.id)
    return ids


def channels(config: NotifyConfig) -> tuple[models.Channel, ...]:
    """The channels that are configured."""
    both: tuple[tuple[models.Channel, object], ...] = (("webhook", config.webhook), ("mail", config.mail))
    return tuple(name for name, settings in both if settings is not None)


def overdue(store: Store, config: NotifyConfig, moment: datetime) -> list[tuple[str, LedgerError]]:
    """What the next `send_waiting` will give up, for the brief: (what, why). Changes nothing."""
    return [(_name(row), _given_up(row)) for row in _waiting(store) if _too_old(row, moment) and _held(row, config)]


def send_waiting(workspace: Workspace, store: Store) -> list[Told]:
    """Send every notice that waits, the oldest first; each outcome is on record before the next is tried.

    A channel that nobody answers on is left alone until the next run. Raises StoreError only.
    """
    config = workspace.config.notify
    told: list[Told] = []
    silent: dict[str, LedgerError] = {}
    moment = datetime.now(UTC)
    for row in _waiting(store):
        if not _held(row, config):
            error = LedgerError(
                UNCONFIGURED, "该渠道已不在配置中，通知作废", "this channel is no longer configured", row.channel
            )
            _record(store, row.id, "failed", error)
            told.append(Told(row.id, row.channel, "failed", error))
        elif _too_old(row, moment):
            _record(store, row.id, "failed", _given_up(row))
            told.append(Told(row.id, row.channel, "failed", _given_up(row)))
        elif row.channel in silent:
            told.append(Told(row.id, row.channel, "waiting", silent[row.channel]))
        else:
            failed = _send(workspace, store, row)
            told.append(Told(row.id, row.channel, "sent" if failed is None else "waiting", failed))
            if failed is not None and _speaks_for_all(failed):
                silent[row.channel] = failed
    return told


def _send(workspace: Workspace, store: Store, row: models.Notice) -> LedgerError | None:
    """Try one notice, at most TRIES times; None once it was sent, else the last error."""
    failed: LedgerError | None = None
    for number in range(TRIES):
        with store.write() as session:
            row = session.get_one(models.Notice, row.id)
            row.attempts += 1
        try:
            _send_once(workspace, row)
        except LedgerError as error:
            failed = error
            _record(store, row.id, "waiting", error)
        else:
            _record(store, row.id, "sent", None)
            return None
        if not isinstance(failed, NotSent) or not failed.again or number == TRIES - 1:
            break
        wait = max(WAITS_SECONDS[number], failed.after_seconds or 0.0)
        if wait > MOST_WAIT_SECONDS:
            break
        sleep(wait)
    return failed


def _send_once(workspace: Workspace, row: models.Notice) -> None:
    """One try, with the settings of now: where a notice goes is never remembered."""
    config = workspace.config.notify
    settings = config.webhook if row.channel == "webhook" else config.mail
    if isinstance(settings, WebhookConfig):
        secret = webhook.read_secret(workspace.root / settings.secret_file)
        webhook.post(settings, config.hosts, secret, row.id, row.body.encode())
    elif isinstance(settings, MailConfig):
        held = json.loads(row.body)
        recipients = settings.recipients
        if held["remaining"] is not None:
            # The others have it; who was refused and is no longer configured does not want it.
            recipients = tuple(name for name in recipients if name in held["remaining"])
        if not recipients:
            return
        password = None
        if settings.password_file is not None:
            password = mail.read_password(workspace.root / settings.password_file)
        created = datetime.fromisoformat(row.created_at)
        document = held["document"]
        message = mail.compose(settings, row.id, created, subject_of(document), text_of(document))
        mail.send(settings, config.hosts, password, message, recipients)


def _record(store: Store, notice_id: str, state: models.NoticeState, error: LedgerError | None) -> None:
    with store.write() as session:
        row = session.get_one(models.Notice, notice_id)
        row.state = state
        row.error = None if error is None else json.dumps(_error_json(error), ensure_ascii=False)
        if state == "sent":
            row.sent_at = models.utc_text(datetime.now(UTC))
        if isinstance(error, NotSent) and error.remaining and row.channel == "mail":
            row.body = json.dumps({**json.loads(row.body), "remaining": error.remaining}, ensure_ascii=False)


def _error_json(error: LedgerError) -> dict[str, str]:
    return {"code": error.code, "zh": error.zh, "en": error.en, "where": error.where}


def _waiting(store: Store) -> Sequence[models.Notice]:
    with store.read() as session:
        return list(
            session.scalars(
                select(models.Notice)
                .where(models.Notice.state == "waiting")
                .order_by(models.Notice.created_at, models.Notice.id)
            )
        )


def _held(row: models.Notice, config: NotifyConfig) -> bool:
    return row.channel in channels(config)


def _too_old(row: models.Notice, moment: datetime) -> bool:
    return row.attempts >= MAX_ATTEMPTS or row.created_at < models.utc_text(moment - MAX_AGE)


def _speaks_for_all(error: LedgerError) -> bool:
    """Whether the channel's other notices would fail in the same way; an answer to this one says nothing about them."""
    return not isinstance(error, NotSent) or error.code not in ("notify.refused", "notify.recipients") or error.again


def _name(row: models.Notice) -> str:
    return f"notice {row.channel} {row.created_at}"


def _given_up(row: models.Notice) -> LedgerError:
    last = json.loads(row.error)["code"] if row.error else "-"
    return LedgerError(
        "notify.given_up",
        f"{row.created_at} 的通知试了 {row.attempts} 次仍未送出，不再发送（最后一次：{last}）；当时的结果见当日简报",
        f"the notice of {row.created_at} was tried {row.attempts} times and is given up (last: {last}); its brief has the outcome",
        row.channel,
    )
