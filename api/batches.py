"""`/v1/streams`, `/v1/batches`, `/v1/anchors`: what the chain and this ledger say was sent and held."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

from fastapi import APIRouter, Path, Security
from pydantic import BaseModel, Field

from api.office import TheOffice
from api.paging import Cursor, Limit, Page, Word, page, read
from api.problems import ApiError, documented
from api.security import Caller, needs
from ledger import listing
from ledger.chain.registry import AnchorRecord
from ledger.chain.view import time_utc
from ledger.status import Side, State

router = APIRouter(prefix="/v1", tags=["batches"])

Reader = Annotated[Caller, Security(needs("read"))]


class Stream(BaseModel):
    """The batches of one catalog from one sender to one receiver (empty: an own source)."""

    catalog: str
    sender: str
    receiver: str
    batches: int
    states: dict[str, int] = Field(description="batches by state")


class Streams(BaseModel):
    """Every stream that this party is a side of, as of `block`."""

    block: int
    time: str
    items: list[Stream]


class LastAnchor(BaseModel):
    """What one side last anchored about a batch."""

    revision: int
    size: int
    root: str
    block: int
    time: str


class Batch(BaseModel):
    """A batch in a list."""

    id: str
    number: str
    catalog: str
    sender: str
    receiver: str
    kind: str
    period: str
    size: int | None
    root: str | None
    ours: LastAnchor | None
    theirs: LastAnchor | None
    state: State
    announced_late: bool
    revised_after_receipt: bool
    superseded: bool = Field(description="a snapshot that its sender left behind with another")
    settled_by: str | None = Field(
        default=None, description="roots that differ: the number of a later snapshot that both sides hold alike"
    )


class Anchor(BaseModel):
    """One anchor: a claim of `party` that the batch has this size and root."""

    party: str
    batch_id: str
    batch: str | None = Field(description="its number; null where readers do not count the batch")
    catalog: str | None
    revision: int
    sequence: int
    position: int
    size: int
    root: str
    block: int
    time: str


class Descriptor(BaseModel):
    """What the batch is; the hash of this is its id."""

    batch: str
    catalog: str
    catalog_digest: str
    key_id: str
    kind: str
    period: str
    receiver: str
    sender: str
    suite: str


class Refusal(BaseModel):
    """Why readers do not count what was anchored."""

    code: str
    zh: str
    en: str


class WholeBatch(Batch):
    """A batch with every revision of both sides."""

    descriptor: Descriptor
    sent: list[Anchor] = Field(description="the sender's anchors, oldest first")
    received: list[Anchor] = Field(description="the receiver's anchors, oldest first")
    refused: Refusal | None
    as_of_block: int
    as_of_time: str


@router.get("/streams", response_model=Streams, responses=documented(401, 403, 500, 503), summary="Streams")
def streams(office: TheOffice, caller: Reader) -> Streams:
    """How the batches of each stand."""
    with office.desk.job() as job:
        items = [
            Stream(
                catalog=it.catalog,
                sender=it.sender,
                receiver=it.receiver,
                batches=len(it.batches),
                states=dict(Counter(str(batch.state) for batch in it.batches)),
            )
            for it in listing.streams(job)
        ]
        return Streams(block=job.view.block, time=time_utc(job.view.time), items=items)


@router.get(
    "/batches",
    response_model=Page[Batch],
    responses=documented(401, 403, 422, 500, 503),
    summary="Batches, newest first",
)
def batches(
    office: TheOffice,
    caller: Reader,
    catalog: Word | None = None,
    sender: Word | None = None,
    receiver: Word | None = None,
    state: State | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[Batch]:
    """Those this party is a side of; what is not on chain yet comes first."""
    before = None
    if cursor is not None:
        place, at, batch_id = read(cursor, int, str, str)
        before = (int(place), str(at), str(batch_id))
    with office.desk.job() as job:
        found = listing.batches(
            job, catalog=catalog, sender=sender, receiver=receiver, state=state, before=before, limit=limit + 1
        )
    return page([_batch(it) for it in found], limit, [it.cursor for it in found])


@router.get(
    "/batches/{batch_id}",
    response_model=WholeBatch,
    responses=documented(401, 403, 404, 422, 500, 503),
    summary="One batch",
)
def one(batch_id: Annotated[str, Path(pattern="^[0-9a-f]{64}$")], office: TheOffice, caller: Reader) -> WholeBatch:
    """Its descriptor, and each anchor of sender and receiver."""
    with office.desk.job() as job:
        found = listing.batch(job, batch_id)
        if found is None:
            raise ApiError(
                404,
                "batch.unknown",
                "本方没有参与这个批次，或链上没有它",
                "no batch of this id, or none that this party is a side of",
                "batch_id",
            )
        on_chain = found.announced
        number, catalog = found.listed.batch.number, found.listed.stream.catalog
        return WholeBatch(
            **_batch(found.listed).model_dump(),
            descriptor=Descriptor(**vars(found.descriptor)),
            sent=[_anchor(it, number, catalog) for it in (on_chain.sent if on_chain else ())],
            received=[_anchor(it, number, catalog) for it in (on_chain.received if on_chain else ())],
            refused=None
            if found.refused is None
            else Refusal(code=found.refused.code, zh=found.refused.zh, en=found.refused.en),
            as_of_block=job.view.block,
            as_of_time=time_utc(job.view.time),
        )


@router.get(
    "/anchors",
    response_model=Page[Anchor],
    responses=documented(401, 403, 422, 500, 503),
    summary="Anchors, newest first",
)
def anchors(
    office: TheOffice, caller: Reader, party: Word | None = None, cursor: Cursor = None, limit: Limit = 100
) -> Page[Anchor]:
    """Every party's anchors on this chain."""
    before = None if cursor is None else int(read(cursor, int)[0])
    with office.desk.job() as job:
        found = listing.anchors(job, party=party, before=before, limit=limit + 1)
    items = [
        _anchor(record, None, None)
        if batch is None
        else _anchor(record, batch.descriptor.batch, batch.stream.catalog_id)
        for record, batch in found
    ]
    return page(items, limit, [(record.position,) for record, _ in found])


def _batch(it: listing.Listed) -> Batch:
    batch = it.batch
    return Batch(
        id=batch.batch_id,
        number=batch.number,
        catalog=it.stream.catalog,
        sender=it.stream.sender,
        receiver=it.stream.receiver,
        kind=batch.kind,
        period=batch.period,
        size=batch.size,
        root=batch.root,
        ours=_side(batch.ours),
        theirs=_side(batch.theirs),
        state=batch.state,
        announced_late=batch.announced_late,
        revised_after_receipt=batch.revised_after_receipt,
        superseded=batch.superseded,
        settled_by=batch.settled_by,
    )


def _side(side: Side | None) -> LastAnchor | None:
    return None if side is None else LastAnchor(**vars(side))


def _anchor(it: AnchorRecord, number: str | None, catalog: str | None) -> Anchor:
    return Anchor(
        party=it.party,
        batch_id=it.batch_id,
        batch=number,
        catalog=catalog,
        revision=it.revision,
        sequence=it.sequence,
        position=it.position,
        size=it.size,
        root=it.root,
        block=it.block,
        time=time_utc(it.time),
    )
