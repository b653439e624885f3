"""Claims: what this party says about its batches, from the intent to the confirmed anchor.

`anchor_open` is the one function that anchors and the one that resumes: every job runs it first and last.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from ledger.anchor.link import Link
from ledger.anchor.outbox import settle, store_signed, unfinished
from ledger.chain.account import load_account
from ledger.chain.identity import Block
from ledger.chain.registry import AnchorRecord, RegistryView
from ledger.chain.transactions import Claim, encode_anchor, packed
from ledger.chain.view import time_utc
from ledger.errors import ChainError
from ledger.store import models
from ledger.store.db import Store
from ledger.workspace import Workspace

OPEN: tuple[models.ClaimState, ...] = ("intent", "sent")


def propose(session: Session, entry_set: models.EntrySet, *, known_revisions: int, sketch: bytes | None = None) -> None:
    """Record the intent to anchor `entry_set`, unless our last confirmed claim about its batch is just that.

    `sketch` goes on chain with it as it is: encrypted for the other party (`counterpart.sketches.sketch_for`).
    """
    last = session.scalar(
        select(models.Claim)
        .where(models.Claim.batch_id == entry_set.batch_id, models.Claim.state == "confirmed")
        .order_by(models.Claim.revision.desc())
        .limit(1)
    )
    if last is not None and last.entry_set_id == entry_set.id and last.revision == known_revisions:
        return
    session.add(
        models.Claim(
            batch_id=entry_set.batch_id,
            entry_set_id=entry_set.id,
            known_revisions=known_revisions,
            sketch=sketch,
            state="intent",
            created_at=_now(),
        )
    )


def anchor_open(workspace: Workspace, store: Store, link: Link) -> int:
    """Finish what an earlier run began, then anchor every open claim; returns how many claims were confirmed.

    The order of effects of design section 6. Wherever this stops, running it again goes on from there: nothing is anchored
    twice (the contract takes equal values as no-op), nothing confirmed is lost.
    """
    with store.read() as session:
        begun = bool(unfinished(session))
    confirmed = finish(store, link) if begun else 0
    while True:
        view = link.registry.view()
        with store.read() as session:
            waiting = _open_claims(session)
            sets = {claim.id: session.get_one(models.EntrySet, claim.entry_set_id) for claim in waiting}
            batches = {claim.id: session.get_one(models.Batch, claim.batch_id) for claim in waiting}
        fresh = [c for c in waiting if not _on_chain(view, workspace.party, c, sets[c.id])]
        if len(fresh) < len(waiting):
            # An equal anchor is there already (our store is older than the chain): confirmed like any other.
            confirmed += finish(store, link)
        if not fresh:
            _check_none_open(store, link)
            return confirmed
        _check_known(store, view, workspace.party, fresh, batches)
        wanted = {
            claim.id: Claim(
                batches[claim.id].descriptor.encode(),
                claim.known_revisions,
                sets[claim.id].size,
                sets[claim.id].root,
                claim.sketch or b"",
            )
            for claim in fresh
        }
        account = load_account(workspace.keystore, workspace.password_file)
        by_claim = {id(value): key for key, value in wanted.items()}
        chain = workspace.config.chain
        for group in packed(
            link.rpc,
            str(account.address).lower(),
            link.identity.contract,
            list(wanted.values()),
            most_claims=chain.most_claims,
            most_bytes=chain.most_bytes,
            most_gas=chain.most_gas,
        ):
            with store.write() as session:
                row = store_signed(
                    session, link, account, "anchor", encode_anchor(group), to=link.identity.contract, moment=_now()
                )
                for value in group:
                    session.get_one(models.Claim, by_claim[id(value)]).transaction_id = row.id
            confirmed += finish(store, link)


def _check_none_open(store: Store, link: Link) -> None:
    with store.read() as session:
        waiting = _open_claims(session)
    if waiting:
        raise ChainError(
            "chain.pending",
            f"{len(waiting)} 项上链尚未达到终局条件 {link.finality}；下次运行会继续",
            f"{len(waiting)} anchor(s) are on chain but not yet final under {link.finality}; the next run goes on",
            link.rpc.where,
        )


def finish(store: Store, link: Link) -> int:
    """Settle stored transactions and record what the contract then shows, all in one transaction of the store."""
    with store.read() as session:
        if not unfinished(session) and not _open_claims(session):
            return 0
    final = settle(store, link, _now)
    confirmed = 0
    with store.read() as session:
        claimed = bool(_open_claims(session))
    view = link.registry.view() if claimed else None
    with store.write() as session:
        done = {row.id for row in final.transactions}
        for row in final.transactions:
            stored = session.get_one(models.Transaction, row.id)
            stored.state, stored.updated_at = "confirmed", _now()
        if view is not None:
            confirmed = _record(session, view, done, final.height)
        remember(session, final.remembered)
    return confirmed


def _record(session: Session, view: RegistryView, done: set[int], height: int) -> int:
    """Bring every open claim up to what the contract shows; returns how many are confirmed by it."""
    confirmed = 0
    for claim in _open_claims(session):
        entry_set = session.get_one(models.EntrySet, claim.entry_set_id)
        batch = session.get_one(models.Batch, claim.batch_id)
        party = batch.sender_party if entry_set.role == "lawful" else batch.receiver_party
        record = _match(view, party, claim, entry_set)
        if record is not None and record.block <= height:
            _confirm(claim, record)
            confirmed += 1
        elif (
            record is None
            and claim.transaction_id is not None
            and (claim.transaction_id in done or _replaced(session, claim))
        ):
            # Its transaction failed or lost its nonce: the claim stands, under a new transaction.
            claim.state, claim.transaction_id = "intent", None
        elif claim.transaction_id is not None:
            claim.state = "sent"
    return confirmed


def remember(session: Session, block: Block) -> None:
    """Remember a final block; never an older one than before. Before the contract is deployed there is nothing to keep it in."""
    row = session.get(models.Chain, 1)
    if row is not None and block.number >= row.block_number:
        row.block_number, row.block_hash, row.updated_at = block.number, block.hash, _now()


def _open_claims(session: Session) -> list[models.Claim]:
    return list(session.scalars(select(models.Claim).where(models.Claim.state.in_(OPEN)).order_by(models.Claim.id)))


def _match(view: RegistryView, party: str, claim: models.Claim, entry_set: models.EntrySet) -> AnchorRecord | None:
    """The anchor that fulfils the claim: the last revision, if it has just these values."""
    record = view.last(claim.batch_id, party)
    if record is None or (record.size, record.root) != (entry_set.size, entry_set.root):
        return None
    return record


def _on_chain(view: RegistryView, party: str, claim: models.Claim, entry_set: models.EntrySet) -> bool:
    return _match(view, party, claim, entry_set) is not None


def _check_known(
    store: Store, view: RegistryView, party: str, claims: Sequence[models.Claim], batches: dict[int, models.Batch]
) -> None:
    for claim in claims:
        actual = len(view.revisions(claim.batch_id, party))
        if actual == claim.known_revisions:
            continue
        # Set aside, so that one such claim does not stop all others for ever.
        with store.write() as session:
            session.get_one(models.Claim, claim.id).state = "overtaken"
        number = batches[claim.id].number
        raise ChainError(
            "chain.overtaken",
            f"批次 {number} 链上已有 {actual} 个版次，本台账只知道 {claim.known_revisions} 个：台账是旧备份，或账户被他处使用；请运行 fsck",
            f"batch {number} has {actual} revisions on chain, this store knows {claim.known_revisions}: the store is an old "
            "backup, or the account is used elsewhere; run fsck",
        )


def _replaced(session: Session, claim: models.Claim) -> bool:
    return session.get_one(models.Transaction, claim.transaction_id).state == "replaced"


def _confirm(claim: models.Claim, record: AnchorRecord) -> None:
    claim.state = "confirmed"
    claim.revision, claim.sequence, claim.position = record.revision, record.sequence, record.position
    claim.block_number, claim.chain_time = record.block, time_utc(record.time)
    claim.confirmed_at = _now()


def _now() -> str:
    return models.utc_text(datetime.now(UTC))
