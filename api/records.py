"""`/v1/catalogs/{id}/records`: one record with its history, and its proof file.

KEY is written as on the command line: the bare value of a one-field key, else a JSON object. In the path it is percent-encoded, a
slash as `%2F`; where something on the way decodes that (many proxies do), use `?key=`.
"""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import unquote

from fastapi import APIRouter, Path, Query, Response, Security
from pydantic import BaseModel, Field

from api.catalogs import CatalogId
from api.office import Office, Say, Speaker, TheOffice
from api.problems import documented
from api.security import Caller, needs
from ledger.chain.view import time_utc
from ledger.lookup import Found, InStream, SeenVersion, look_up
from ledger.prove import prove

router = APIRouter(prefix="/v1/catalogs/{id}", tags=["records"])

Reader = Annotated[Caller, Security(needs("read"))]
InPath = Annotated[
    str, Path(min_length=1, max_length=4000, description="KEY, percent-encoded", examples=["91440000190326633X"])
]
InQuery = Annotated[str, Query(min_length=1, max_length=4000, description="KEY", examples=["91440000190326633X"])]
Values = Annotated[bool, Query(description="open the archive and show the values, personal ones masked")]
Number = Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$", description="number of the batch")]

State = Literal["live", "withdrawn", "unknown"]


class Anchored(BaseModel):
    """Where the batch was last anchored, and by whom."""

    party: str
    revision: int
    block: int
    time: str


class Version(BaseModel):
    """One version of the record, or a withdrawal, in one batch."""

    batch: str
    batch_id: str
    index: int = Field(description="place among the batch's sorted entries, from 0")
    commitment: str
    withdrawn: bool
    reason: str | None = Field(description="of a withdrawal, with `values`")
    values: dict[str, str | None] | None = Field(description="only with `values`, and where they are archived")
    anchors: list[Anchored] = Field(description="the sender's last anchor, then the receiver's")


class RecordInStream(BaseModel):
    """What one stream says of the record."""

    sender: str
    receiver: str
    state: State
    versions: list[Version] = Field(description="oldest first")
    not_known: list[str] = Field(description="announced batches whose entries are not known here")
    erased: bool = Field(description="its plaintext was erased here: no version can be shown or proved")


class Unread(BaseModel):
    """A stream that could not be looked at."""

    sender: str
    receiver: str
    code: str
    message: str


class Record(BaseModel):
    """A record as the ledger knows it. `unknown` is certain only if `complete`."""

    catalog: str
    key: dict[str, str] = Field(description="in normal form, personal fields masked")
    state: State
    complete: bool = Field(description="false if something could not be looked at")
    streams: list[RecordInStream]
    unread: list[Unread]
    as_of_block: int
    as_of_time: str


_RECORD = documented(401, 403, 404, 422, 500, 501, 503)
_PROOF = {
    200: {
        "content": {"application/json": {"schema": {"type": "object"}}},
        "headers": {"Content-Disposition": {"schema": {"type": "string"}}},
        "description": "the exact bytes of the proof file",
    },
    **documented(401, 403, 404, 409, 422, 500, 501, 503),
}


@router.get("/records", response_model=Record, responses=_RECORD, summary="One record (KEY as parameter)")
def by_parameter(
    id: CatalogId, key: InQuery, office: TheOffice, say: Say, caller: Reader, values: Values = False
) -> Record:
    """Live, withdrawn or unknown, with every version."""
    return _look_up(office, say, id, key, values=values)


@router.get("/proof", response_class=Response, responses=_PROOF, summary="Its proof file (KEY as parameter)")
def proof_by_parameter(
    id: CatalogId, key: InQuery, office: TheOffice, caller: Reader, batch: Number = None
) -> Response:
    """The live version's, or that of `batch`. It holds the record in clear: keep it as such."""
    return _prove(office, id, key, batch)


@router.get("/records/{key}", response_model=Record, responses=_RECORD, summary="One record")
def by_path(id: CatalogId, key: InPath, office: TheOffice, say: Say, caller: Reader, values: Values = False) -> Record:
    """Live, withdrawn or unknown, with every version."""
    return _look_up(office, say, id, unquote(key), values=values)


@router.get("/records/{key}/proof", response_class=Response, responses=_PROOF, summary="Its proof file")
def proof_by_path(id: CatalogId, key: InPath, office: TheOffice, caller: Reader, batch: Number = None) -> Response:
    """The live version's, or that of `batch`. It holds the record in clear: keep it as such."""
    return _prove(office, id, unquote(key), batch)


def _look_up(office: Office, say: Speaker, catalog_id: str, key: str, *, values: bool) -> Record:
    catalog = office.desk.workspace.catalog(catalog_id)
    with office.desk.job() as job:
        found = look_up(job, catalog, key, values=values)
    return _told(catalog_id, found, say)


def _prove(office: Office, catalog_id: str, key: str, batch: str | None) -> Response:
    catalog = office.desk.workspace.catalog(catalog_id)
    with office.desk.job() as job:
        proved = prove(job, catalog, [key], batch=batch)[0]
    name = f"{catalog_id}-{proved.key_tag.hex()[:12]}.proof.json"
    return Response(
        proved.data, media_type="application/json", headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )


def _told(catalog_id: str, found: Found, say: Speaker) -> Record:
    return Record(
        catalog=catalog_id,
        key=dict(found.key),
        state=found.state,
        complete=found.complete,
        streams=[_stream(it) for it in found.streams],
        unread=[
            Unread(sender=s.sender, receiver=s.receiver, code=error.code, message=say(error.zh, error.en))
            for s, error in found.unread
        ],
        as_of_block=found.block,
        as_of_time=time_utc(found.time),
    )


def _stream(it: InStream) -> RecordInStream:
    return RecordInStream(
        sender=it.stream.sender,
        receiver=it.stream.receiver,
        state=it.state,
        versions=[_version(version) for version in it.versions],
        not_known=list(it.open),
        erased=it.erased,
    )


def _version(it: SeenVersion) -> Version:
    last = [claims[-1] for claims in (it.batch.sent, it.batch.received) if claims]
    return Version(
        batch=it.batch.descriptor.batch,
        batch_id=it.batch.batch_id,
        index=it.index,
        commitment=it.commitment,
        withdrawn=it.withdrawn,
        reason=it.reason,
        values=None if it.values is None else dict(it.values),
        anchors=[Anchored(party=a.party, revision=a.revision, block=a.block, time=time_utc(a.time)) for a in last],
    )
