"""Is this workspace still proving anything? The age of the last confirmed anchor, and whether store and chain can be read.

The answer is public: it names no path, address, party or batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from sqlalchemy import func, select

from ledger.anchor.claims import OPEN
from ledger.anchor.link import open_link
from ledger.anchor.outbox import UNFINISHED
from ledger.chain.history import Memory
from ledger.chain.registry import RegistryView
from ledger.errors import LedgerError
from ledger.store import models
from ledger.store.db import Store
from ledger.workspace import Workspace

OVERDUE = timedelta(days=1)
"""A claim open for longer has outlived a nightly job."""

State = Literal["ok", "degraded", "failing"]
_WORST = ("ok", "degraded", "failing")


@dataclass(frozen=True)
class Check:
    """One thing looked at; `code` is that of the error or rule, empty if fine."""

    name: Literal["store", "chain", "anchor_age", "claims"]
    state: State
    code: str
    zh: str
    en: str


@dataclass(frozen=True)
class Health:
    """`failing`: store or chain cannot be read or trusted, or nothing was confirmed for too long. `degraded`: nothing was ever
    confirmed, or a claim waits for more than a day. Ages in seconds."""

    checks: tuple[Check, ...]
    last_anchor_at: str | None
    anchor_age_seconds: int | None
    max_anchor_age_seconds: int

    @property
    def state(self) -> State:
        """The worst of the checks."""
        return max((check.state for check in self.checks), key=_WORST.index)


@dataclass(frozen=True)
class Figures:
    """What the store counts: for those who watch over time."""

    confirmed_claims: int
    open_claims: int
    unfinished_transactions: int
    reconciliations: Mapping[tuple[str, str], int]
    last_reconciled_at: Mapping[str, str]
    findings: Mapping[tuple[str, str, str], int]
    unsent_notices: int


@dataclass(frozen=True)
class _Claims:
    confirmed: int
    last_at: str | None
    oldest_open: str | None


def read_health(
    workspace: Workspace, store: Store, moment: datetime | None = None, memory: Memory | None = None
) -> tuple[Health, RegistryView | None]:
    """Look now; never raises a LedgerError. Also what was read of the registry, None if it was not.

    `memory` is what the process saw of the registry's events before.
    """
    moment = moment or datetime.now(UTC)
    limit = timedelta(hours=workspace.config.api.max_anchor_age_hours)
    try:
        claims = _read_claims(store)
    except LedgerError as error:
        failed = (
            _bad("store", error.code, "台账库无法读取", "the store cannot be read"),
            _bad("chain", "not_checked", "未检查", "not checked"),
            _bad("anchor_age", "not_checked", "未检查", "not checked"),
        )
        return Health(failed, None, None, int(limit.total_seconds())), None
    view, chain = _chain(workspace, store, claims, memory)
    age = None if claims.last_at is None else moment - datetime.fromisoformat(claims.last_at)
    checks = (Check("store", "ok", "", "可读", "readable"), chain, _age(age, limit), _waiting(claims, moment))
    seconds = None if age is None else max(0, int(age.total_seconds()))
    return Health(checks, claims.last_at, seconds, int(limit.total_seconds())), view


def read_figures(store: Store) -> Figures:
    """The store's counts, of one moment. StoreError if it cannot be read."""
    claim, run, finding = models.Claim, models.Reconciliation, models.Tracked
    with store.read() as session:

        def count(chosen: object) -> int:
            return int(session.scalar(chosen) or 0)  # type: ignore[call-overload]

        by_state = select(run.catalog_id, run.state, func.count()).group_by(run.catalog_id, run.state)
        last = select(run.catalog_id, func.max(run.finished_at)).where(run.state == "finished").group_by(run.catalog_id)
        kinds = select(finding.catalog_id, finding.kind, finding.state, func.count()).group_by(
            finding.catalog_id, finding.kind, finding.state
        )
        return Figures(
            count(select(func.count()).select_from(claim).where(claim.state == "confirmed")),
            count(select(func.count()).select_from(claim).where(claim.state.in_(OPEN))),
            count(select(func.count()).select_from(models.Transaction).where(models.Transaction.state.in_(UNFINISHED))),
            {(catalog, state): number for catalog, state, number in session.execute(by_state)},
            {catalog: at or "" for catalog, at in session.execute(last)},
            {(catalog, kind, state): number for catalog, kind, state, number in session.execute(kinds)},
            count(select(func.count()).select_from(models.Notice).where(models.Notice.state != "sent")),
        )


def _read_claims(store: Store) -> _Claims:
    claim = models.Claim
    with store.read() as session:
        confirmed, last = session.execute(
            select(func.count(), func.max(claim.confirmed_at)).where(claim.state == "confirmed")
        ).one()
        oldest = session.scalar(select(func.min(claim.created_at)).where(claim.state.in_(OPEN)))
    return _Claims(int(confirmed), last, oldest)


def _chain(
    workspace: Workspace, store: Store, claims: _Claims, memory: Memory | None
) -> tuple[RegistryView | None, Check]:
    try:
        with open_link(workspace, store, memory) as link:
            view = link.registry.view()
    except LedgerError as error:
        return None, _bad("chain", error.code, "链无法读取或不可信", "the chain cannot be read or relied on")
    if len(view.anchors.get(workspace.party, ())) < claims.confirmed:
        return view, _bad(
            "chain",
            "chain.behind",
            "链上的存证少于台账已确认的",
            "the chain holds fewer of our anchors than were confirmed",
        )
    return view, Check("chain", "ok", "", "可读", "readable")


def _age(age: timedelta | None, limit: timedelta) -> Check:
    if age is None:
        return Check("anchor_age", "degraded", "anchor.none", "尚无已确认的上链", "nothing is confirmed yet")
    if age > limit:
        return _bad(
            "anchor_age",
            "anchor.stale",
            f"最近一次确认的上链已超过 {limit.total_seconds() / 3600:.0f} 小时",
            f"the last confirmed anchor is more than {limit.total_seconds() / 3600:.0f} hours old",
        )
    if age < -timedelta(minutes=10):
        return _bad(
            "anchor_age",
            "anchor.future",
            "最近一次确认在未来：时钟有误",
            "the last anchor was confirmed in the future: a clock is wrong",
        )
    return Check("anchor_age", "ok", "", "按时", "in time")


def _waiting(claims: _Claims, moment: datetime) -> Check:
    if claims.oldest_open is not None and claims.oldest_open < models.utc_text(moment - OVERDUE):
        return Check(
            "claims",
            "degraded",
            "overdue.claim",
            "有待上链内容超过一天",
            "something waits to be anchored for more than a day",
        )
    return Check("claims", "ok", "", "无逾期", "nothing overdue")


def _bad(name: Literal["store", "chain", "anchor_age"], code: str, zh: str, en: str) -> Check:
    return Check(name, "failing", code, zh, en)
