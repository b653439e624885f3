"""What is anchored, pending and overdue: the store's view and the chain's, side by side. Reads only.

Takes no lock and finishes nothing, so it works while a nightly runs. If the chain cannot be read, what the store knows is
shown all the same, with the reason; what the other side says is then unknown (None), never assumed.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import func, select

from ledger.anchor.claims import OPEN
from ledger.anchor.link import open_link
from ledger.anchor.outbox import UNFINISHED
from ledger.batch.book import Book
from ledger.batch.job import Job, read_registry
from ledger.batch.stream import AnnouncedBatch, StreamId, Streams
from ledger.between import overdue
from ledger.chain.local import LocalChain
from ledger.chain.registry import AnchorRecord, RegistryView
from ledger.chain.view import time_utc
from ledger.delivery.due import due_withdrawals, shown_due
from ledger.descriptor import parse_descriptor
from ledger.errors import LedgerError
from ledger.notify.unsent import last_error, unsent
from ledger.store import models
from ledger.store.db import Store
from ledger.workspace import Workspace

_SHOWN_DUE = 20
OVERDUE = timedelta(days=1)
"""An open claim older than this waits for more than the next nightly job."""

State = Literal[
    "pending",  # ours, not on chain yet
    "anchored",  # our own, nobody receives it
    "awaiting",  # sent by us, the receiver has anchored nothing
    "announced",  # sent to us, we have anchored nothing
    "unannounced",  # the receiver anchored, the sender has not
    "roots_equal",  # both sides anchored the same size and root
    "roots_differ",
    "refused",  # on chain, but readers do not count it
    "unknown",  # the chain could not be read, or does not show what it should: see fsck
]


@dataclass(frozen=True)
class Side:
    """What one party last anchored about a batch."""

    revision: int
    size: int
    root: str
    block: int
    time: str

    @classmethod
    def of(cls, records: Sequence[AnchorRecord]) -> Side | None:
        """The last of a party's anchors of one batch; None without any."""
        if not records:
            return None
        last = records[-1]
        return cls(last.revision, last.size, last.root, last.block, time_utc(last.time))


@dataclass(frozen=True)
class BatchState:
    """One batch of a stream; `size` and `root` are the sender's, else what we hold or mean to anchor."""

    number: str
    batch_id: str
    kind: str
    period: str
    size: int | None
    root: str | None
    ours: Side | None
    theirs: Side | None
    state: State
    announced_late: bool = False
    revised_after_receipt: bool = False
    superseded: bool = False  # a snapshot that its sender left behind with another
    settled_by: str | None = (
        None  # roots that differ: a snapshot that folds this batch and of which both sides hold the same
    )


@dataclass(frozen=True)
class StreamState:
    """A stream in which this party is a side; `receiver` is empty for its own source."""

    catalog: str
    sender: str
    receiver: str
    batches: tuple[BatchState, ...]


@dataclass(frozen=True)
class Notice:
    """Something for the operator: a code, the same sentence twice, and what it is about."""

    code: str
    zh: str
    en: str
    where: str


@dataclass(frozen=True)
class Status:
    """The whole answer. `error` is why the chain could not be read, None if it was."""

    party: str
    streams: tuple[StreamState, ...]
    pending: tuple[Notice, ...]
    attention: tuple[Notice, ...]
    refused: tuple[Notice, ...]
    last_anchor: Mapping[str, Any] | None
    chain: Mapping[str, Any]
    error: LedgerError | None = None

    @property
    def exit_code(self) -> int:
        """0, or 2 if the chain could not be read."""
        return 0 if self.error is None else 2


@dataclass
class _Known:
    """What the store holds about batches and work that is not finished."""

    batches: dict[str, models.Batch] = field(default_factory=dict)
    claims: dict[str, list[models.Claim]] = field(default_factory=dict)
    sets: dict[int, models.EntrySet] = field(default_factory=dict)
    unfinished: list[models.Transaction] = field(default_factory=list)
    interrupted: list[models.Run] = field(default_factory=list)
    findings: Counter[tuple[str, str]] = field(default_factory=Counter)
    proposals: list[models.Proposal] = field(default_factory=list)
    restores: list[models.Restore] = field(default_factory=list)
    notices: list[models.Notice] = field(default_factory=list)
    reconciling: list[models.Reconciliation] = field(default_factory=list)
    erasures: list[models.Erasure] = field(default_factory=list)
    chain: models.Chain | None = None


def read_status(workspace: Workspace, moment: datetime | None = None) -> Status:
    """Everything there is to know now (`moment`, default the present). Raises only what keeps the store from being read."""
    moment = moment or datetime.now(UTC)
    store = workspace.open_store("read")
    try:
        known = _read_store(store)
        view: RegistryView | None = None
        streams: Streams | None = None
        failed: LedgerError | None = None
        due: tuple[Notice, ...] = ()
        try:
            with open_link(workspace, store) as link:
                view, streams = read_registry(link)
                job = Job(workspace, store, link, Book(workspace, store), view, streams)
                due = (*_due(job), *_overdue(job))
        except LedgerError as error:
            failed = error
    finally:
        store.close()
    states = _streams(workspace.party, known, streams)
    return Status(
        party=workspace.party,
        streams=states,
        pending=(*_pending(known), *_unfinished(known)),
        attention=(*_attention(workspace.party, states, known, moment), *due, *_worked(known)),
        refused=() if streams is None else _refused(streams),
        last_anchor=_last_anchor(workspace.party, known, view),
        chain=_chain(workspace, known, view),
        error=failed,
    )


def _read_store(store: Store) -> _Known:
    known = _Known()
    with store.read() as session:
        known.batches = {row.id: row for row in session.scalars(select(models.Batch).order_by(models.Batch.created_at))}
        for claim in session.scalars(select(models.Claim).order_by(models.Claim.id)):
            known.claims.setdefault(claim.batch_id, []).append(claim)
        known.sets = {row.id: row for row in session.scalars(select(models.EntrySet))}
        known.unfinished = list(
            session.scalars(select(models.Transaction).where(models.Transaction.state.in_(UNFINISHED)))
        )
        known.interrupted = list(session.scalars(select(models.Run).where(models.Run.finished_at.is_(None))))
        known.proposals = list(session.scalars(select(models.Proposal).where(models.Proposal.decided_at.is_(None))))
        known.restores = list(
            session.scalars(
                select(models.Restore).where(models.Restore.state == "intent", models.Restore.told_at.is_(None))
            )
        )
        known.notices = unsent(session)
        known.reconciling = list(
            session.scalars(select(models.Reconciliation).where(models.Reconciliation.state.in_(("queued", "running"))))
        )
        known.erasures = list(session.scalars(select(models.Erasure).where(models.Erasure.state == "intent")))
        counted = select(models.Tracked.catalog_id, models.Tracked.state, func.count()).group_by(
            models.Tracked.catalog_id, models.Tracked.state
        )
        known.findings = Counter({(catalog, state): count for catalog, state, count in session.execute(counted)})
        known.chain = session.get(models.Chain, 1)
    return known


# ---- streams ----


def read_states(party: str, store: Store, streams: Streams) -> tuple[StreamState, ...]:
    """Every stream of `party`, as one reading of the chain and the store show it."""
    return _streams(party, _read_store(store), streams)


def _streams(party: str, known: _Known, streams: Streams | None) -> tuple[StreamState, ...]:
    found: dict[StreamId, list[BatchState]] = {}
    if streams is not None:
        for stream, batches in streams.by_id.items():
            if party in (stream.sender, stream.receiver):
                states = [_on_chain(party, batch, streams) for batch in batches]
                found[stream] = _settled(states, batches, streams)
    for batch in known.batches.values():
        if streams is not None and batch.id in streams.by_batch:
            continue
        stream = StreamId(batch.catalog_id, batch.sender_party, batch.receiver_party)
        refused = streams is not None and any(it.batch_id == batch.id for it in streams.refused)
        found.setdefault(stream, []).append(_in_store(known, batch, refused=refused))
    return tuple(
        StreamState(stream.catalog_id, stream.sender, stream.receiver, tuple(batches))
        for stream, batches in sorted(found.items(), key=lambda item: item[0])
    )


def _settled(states: list[BatchState], batches: Sequence[AnnouncedBatch], streams: Streams) -> list[BatchState]:
    """With `settled_by`: whatever a batch left different, a later snapshot that both hold alike says that it is so no more."""
    alike = [
        it for it, state in zip(batches, states, strict=True) if it.upto is not None and state.state == "roots_equal"
    ]
    reached = [(streams.reach(it), it.descriptor.batch) for it in alike]
    places = {it.batch_id: place for place, it in enumerate(streams.batches(batches[0].stream), 1)} if batches else {}
    found: list[BatchState] = []
    for state in states:
        by = next((name for reach, name in reached if 0 < places.get(state.batch_id, reach + 1) <= reach), None)
        found.append(replace(state, settled_by=by) if state.state == "roots_differ" and by is not None else state)
    return found


def _on_chain(party: str, batch: AnnouncedBatch, streams: Streams) -> BatchState:
    sent, received = Side.of(batch.sent), Side.of(batch.received)
    sending = party == batch.stream.sender
    ours, theirs = (sent, received) if sending else (received, sent)
    shown = sent or received
    state: State
    if not batch.stream.receiver:
        state = "anchored"
    elif sent is None:
        state = "unannounced"
    elif received is None:
        state = "awaiting" if sending else "announced"
    else:
        state = "roots_equal" if (sent.size, sent.root) == (received.size, received.root) else "roots_differ"
    told = batch.descriptor
    return BatchState(
        told.batch,
        batch.batch_id,
        told.kind,
        told.period,
        None if shown is None else shown.size,
        None if shown is None else shown.root,
        ours,
        theirs,
        state,
        batch.announced_late,
        batch.revised_after_receipt,
        told.kind == "snapshot" and bool(streams.superseding(batch, batch.stream.sender)),
    )


def _in_store(known: _Known, batch: models.Batch, *, refused: bool) -> BatchState:
    """A batch that no stream on chain shows: not anchored yet, refused, or the chain could not be read."""
    claims = known.claims.get(batch.id, [])
    last = known.sets.get(claims[-1].entry_set_id) if claims else None
    confirmed = [claim for claim in claims if claim.state == "confirmed"]
    ours = None
    if confirmed:
        claim = confirmed[-1]
        held = known.sets[claim.entry_set_id]
        ours = Side(claim.revision or 0, held.size, held.root, claim.block_number or 0, claim.chain_time or "")
    return BatchState(
        batch.number,
        batch.id,
        batch.kind,
        batch.period,
        None if last is None else last.size,
        None if last is None else last.root,
        ours,
        None,
        "refused" if refused else "pending" if any(claim.state in OPEN for claim in claims) else "unknown",
    )


# ---- what is open, what wants attention ----


def _pending(known: _Known) -> Iterable[Notice]:
    for claim in _open_claims(known):
        yield Notice(
            "claim.open",
            f"待上链（{claim.state}，{claim.created_at} 起）；下一次作业会办完",
            f"to be anchored ({claim.state}, since {claim.created_at}); the next job finishes it",
            _name(known, claim.batch_id),
        )
    for row in known.unfinished:
        yield Notice(
            "outbox.unfinished",
            f"{row.purpose} 交易尚未确认（{row.state}，{row.created_at} 起）",
            f"this {row.purpose} transaction is not confirmed ({row.state}, since {row.created_at})",
            f"0x{row.hash}",
        )
    for run in known.interrupted:
        yield Notice(
            "run.unfinished",
            f"{run.command}（{run.started_at} 开始）正在运行，或曾被中断",
            f"{run.command}, started {run.started_at}, is running or was interrupted",
            f"run {run.id}",
        )


def _unfinished(known: _Known) -> Iterable[Notice]:
    """Work of people and of the API that waits."""
    for run in known.reconciling:
        yield Notice(
            "reconciliation.open",
            f"对账已于 {run.created_at} 由 {run.requested_by} 发起，{'正在运行' if run.state == 'running' else '排队中'}",
            f"a reconciliation asked for by {run.requested_by} at {run.created_at} is {run.state}",
            f"{run.catalog_id} {run.id}",
        )
    for erasure in known.erasures:
        yield Notice(
            "erasure.open",
            f"{erasure.approved_by} 于 {erasure.created_at} 删除的记录原文尚未清理完；下一次作业会办完",
            f"the record erased by {erasure.approved_by} at {erasure.created_at} is not cleared away yet; the next job finishes it",
            f"{erasure.catalog_id} {erasure.key_tag}",
        )
    for proposal in known.proposals:
        yield Notice(
            "consent.proposed",
            f"{proposal.proposed_by} 于 {proposal.created_at} 提出 {proposal.action}，等待第二人执行同一命令",
            f"{proposal.proposed_by} asked for {proposal.action} at {proposal.created_at}; a second person must run the same command",
            f"{proposal.catalog_id} {proposal.key_tag}",
        )
    for notice in known.notices:
        if notice.state == "waiting":
            error = last_error(notice)
            yield Notice(
                "notice.unsent",
                f"{notice.created_at} 的通知未送达（已试 {notice.attempts} 次）：{error.zh if error else '-'}；下次夜间作业再试",
                f"the notice of {notice.created_at} was not delivered ({notice.attempts} tries): {error.en if error else '-'}; "
                "the next nightly tries again",
                notice.channel,
            )


def _worked(known: _Known) -> Iterable[Notice]:
    """Findings that are not settled, a line a catalog, and restores nobody knows the end of."""
    for catalog in sorted({catalog for (catalog, state) in known.findings if state != "settled"}):
        new, assigned, explained = (known.findings[catalog, state] for state in ("new", "assigned", "explained"))
        yield Notice(
            "findings.open",
            f"有 {new + assigned + explained} 处差异：待处理 {new}，已分派 {assigned}，已说明 {explained}；finding list 可列出",
            f"{new + assigned + explained} findings: {new} open, {assigned} assigned, {explained} explained; finding list shows them",
            catalog,
        )
    for lost in known.notices:
        if lost.state == "failed":
            yield Notice(
                "notice.given_up",
                f"{lost.created_at} 的通知未能送达，已放弃；请检查 [notify]，当时的结果见当日简报",
                f"the notice of {lost.created_at} was given up; look at [notify], the outcome is in that day's brief",
                lost.channel,
            )
    for restore in known.restores:
        yield Notice(
            "restore.unfinished",
            f"{restore.approved_by} 于 {restore.started_at} 的恢复未记录结果：请先对账，确认实际写入了什么",
            f"the restore by {restore.approved_by} at {restore.started_at} has no outcome on record: reconcile to see what was written",
            restore.catalog_id,
        )


def _attention(party: str, streams: Iterable[StreamState], known: _Known, moment: datetime) -> Iterable[Notice]:
    for stream in streams:
        for batch in stream.batches:
            where = f"{stream.catalog} {batch.number}"
            if batch.superseded or batch.settled_by is not None:
                # Another snapshot says more, or that it is settled; what differs in this one stays on record and wants nothing.
                continue
            if batch.kind == "snapshot" and stream.receiver == party:
                yield from _snapshot_attention(stream, batch, where)
            elif batch.state == "announced":
                yield Notice(
                    "overdue.receive",
                    f"{stream.sender} 已宣告 {batch.size} 条，本方尚未接收",
                    f"{stream.sender} announced {batch.size} entries, not received here",
                    where,
                )
            elif batch.state == "roots_differ" and stream.receiver == party:
                yield Notice(
                    "overdue.differs",
                    f"接收仍为暂定：本方的根与 {stream.sender} 的不同",
                    f"the receive is provisional: our root is not {stream.sender}'s",
                    where,
                )
            elif batch.state == "roots_differ":
                yield Notice(
                    "sent.differs",
                    f"{stream.receiver} 所登记的根与本方不同",
                    f"{stream.receiver}'s root is not ours",
                    where,
                )
    limit = models.utc_text(moment - OVERDUE)
    for claim in _open_claims(known):
        # UTC text of one form sorts as the times do.
        if claim.created_at < limit:
            yield Notice(
                "overdue.claim",
                f"自 {claim.created_at} 起待上链，已超过一天",
                f"to be anchored since {claim.created_at}, more than a day ago",
                _name(known, claim.batch_id),
            )


def _snapshot_attention(stream: StreamState, batch: BatchState, where: str) -> Iterable[Notice]:
    if batch.state == "announced":
        yield Notice(
            "overdue.snapshot",
            f"{stream.sender} 已宣告快照（{batch.size} 条），本方尚未表态；夜间作业会办，或执行 snapshot {stream.catalog} --from {stream.sender}",
            f"{stream.sender} announced a snapshot of {batch.size} entries, not answered here; the night does, or snapshot {stream.catalog} "
            f"--from {stream.sender}",
            where,
        )
    elif batch.state == "roots_differ":
        yield Notice(
            "snapshot.differs",
            f"本方持有的与 {stream.sender} 的快照不同；reconcile {stream.catalog} --with {stream.sender} --batch {batch.number} 可逐条列出",
            f"what we hold is not {stream.sender}'s snapshot; reconcile {stream.catalog} --with {stream.sender} --batch {batch.number} "
            "names each difference",
            where,
        )


def _due(job: Job) -> Iterable[Notice]:
    """Withdrawals that the receivers of our deliveries were not sent yet; a line a catalog and party."""
    for catalog_id in sorted({stream.catalog_id for stream in job.streams.by_id if stream.sender == job.party}):
        try:
            dues = due_withdrawals(job, job.workspace.catalog(catalog_id))
        except LedgerError as error:
            yield Notice("due.unknown", f"应发的撤回未能核对：{error.zh}", f"withdrawals due: {error.en}", catalog_id)
            continue
        for party, found in itertools.groupby(dues.found, key=lambda it: it.party):
            listed = list(found)
            names = [shown_due(it) for it in listed[:_SHOWN_DUE]]
            more = " …" if len(listed) > _SHOWN_DUE else ""
            yield Notice(
                "due.withdraw",
                f"有 {len(listed)} 条记录本方已撤回或删除，应向 {party} 发送撤回：{'、'.join(names)}{more}",
                f"{len(listed)} record(s) were withdrawn or erased here; send the withdrawals to {party}: {', '.join(names)}{more}",
                catalog_id,
            )
        for zh, en in dues.notes:
            yield Notice("due.unknown", zh, en, catalog_id)


def _overdue(job: Job) -> Iterable[Notice]:
    """What others, or we, should have done by now."""
    try:
        yield from (Notice(f"overdue.{it.kind}", it.zh, it.en, it.what) for it in overdue(job))
    except LedgerError as error:
        yield Notice(
            "overdue.unknown", f"期限未能计算：{error.zh}", f"deadlines could not be counted: {error.en}", error.where
        )


def _refused(streams: Streams) -> tuple[Notice, ...]:
    return tuple(
        Notice(
            it.code, f"{it.party} 上链的批次不计：{it.zh}", f"{it.party}'s batch does not count: {it.en}", it.batch_id
        )
        for it in streams.refused
    )


def _open_claims(known: _Known) -> list[models.Claim]:
    return [claim for claims in known.claims.values() for claim in claims if claim.state in OPEN]


def _name(known: _Known, batch_id: str) -> str:
    batch = known.batches.get(batch_id)
    return batch_id[:16] if batch is None else f"{batch.catalog_id} {batch.number}"


# ---- last anchor, chain ----


def _last_anchor(party: str, known: _Known, view: RegistryView | None) -> Mapping[str, Any] | None:
    """Our last confirmed anchor as the store recorded it, and how many of ours the chain holds."""
    confirmed = [claim for claims in known.claims.values() for claim in claims if claim.state == "confirmed"]
    if not confirmed:
        return None
    last = max(confirmed, key=lambda claim: claim.sequence or 0)
    batch = known.batches.get(last.batch_id)
    return {
        "batch": None if batch is None else parse_descriptor(batch.descriptor.encode()).batch,
        "catalog": None if batch is None else batch.catalog_id,
        "revision": last.revision,
        "sequence": last.sequence,
        "block": last.block_number,
        "chain_time": last.chain_time,
        "confirmed_at": last.confirmed_at,
        "confirmed": len(confirmed),
        "on_chain": None if view is None else len(view.anchors.get(party, ())),
    }


def _chain(workspace: Workspace, known: _Known, view: RegistryView | None) -> Mapping[str, Any]:
    config = workspace.config.chain
    facts: dict[str, Any] = {
        "embedded": config.embedded,
        "chain_id": None if known.chain is None else known.chain.chain_id,
        "contract": config.contract,
        "account": config.account,
        "finality": config.finality,
        "read_at_block": None if view is None else view.block,
        "remembered_block": None if known.chain is None else known.chain.block_number,
    }
    if config.embedded:
        local = LocalChain(workspace.chain_home).status()
        facts |= {
            "home": str(local.home),
            "running": local.url is not None,
            "rpc": local.url,
            "block": local.block,
            "saved_block": local.saved_block,
            "saved_at": None
            if local.saved_at_utc is None
            else models.utc_text(datetime.fromtimestamp(local.saved_at_utc, UTC)),
        }
    return facts


def batch_json(batch: BatchState) -> dict[str, Any]:
    """A batch as plain values."""
    return asdict(batch)
