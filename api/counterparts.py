"""`/v1/catalogs/{id}/counterparts/{party}`: what we and another party anchored of the same batches, and the statement both can sign."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response, Security
from pydantic import BaseModel, Field

from api.catalogs import CatalogId
from api.office import Say, Speaker, TheOffice
from api.problems import documented
from api.security import Caller, needs
from ledger.chain.view import time_utc
from ledger.counterpart.compare import compare_with
from ledger.counterpart.findings import BatchComparison, PartyComparison, PartyFinding
from ledger.counterpart.statement import statement, statement_hash

router = APIRouter(prefix="/v1/catalogs/{id}/counterparts/{party}", tags=["counterparts"])

PartyName = Annotated[str, Path(max_length=32, pattern=r"^[a-z][a-z0-9_-]{0,31}$", examples=["guangzhou"])]
Number = Annotated[str | None, Query(max_length=200, description="only this batch", examples=["B1"])]
Reader = Annotated[Caller, Security(needs("read"))]
_ERRORS = documented(401, 403, 404, 409, 422, 500, 503)


class Anchor(BaseModel):
    """One side's last anchor of a batch."""

    party: str
    revision: int
    size: int
    root: str
    block: int
    time: str


class Difference(BaseModel):
    """One difference about one key of one batch."""

    kind: Literal["only_theirs", "only_ours", "differs", "not_withdrawn"]
    key: dict[str, str] | None = Field(description="personal values masked; null where only the tag is known")
    key_tag: str
    ours: str | None = Field(description="commitment")
    theirs: str | None = Field(description="commitment")
    settled_by: str | None = Field(description="number of the later batch that carries the key and matches")
    erased: bool = Field(description="its plaintext was removed here")


class Compared(BaseModel):
    """One batch."""

    batch: str
    batch_id: str
    kind: str
    sender: str
    receiver: str
    verdict: Literal["matched", "differences", "differences_partial", "undetermined"]
    certified: bool = Field(description="the list is complete, shown by the other side's anchored root")
    announced_late: bool
    revised_after_receipt: bool
    ours: Anchor | None
    theirs: Anchor | None
    findings: list[Difference]
    notes: list[str]


class Comparison(BaseModel):
    """All batches between the two; its verdict is that of what is still open."""

    catalog: str
    us: str
    counterpart: str = Field(serialization_alias="with")
    verdict: Literal["matched", "differences", "differences_partial", "undetermined"]
    as_of_block: int
    as_of_time: str
    batches: list[Compared]


@router.get("", response_model=Comparison, responses=_ERRORS, summary="Compare with another party")
def compare(
    id: CatalogId, party: PartyName, office: TheOffice, say: Say, caller: Reader, batch: Number = None
) -> Comparison:
    """Batch by batch, from the chain and this side's own store alone."""
    return _told(_compared(office, id, party, batch), say)


@router.get(
    "/statement",
    response_class=Response,
    responses={200: {"content": {"application/json": {}}, "description": "RFC 8785 bytes"}, **_ERRORS},
    summary="The statement",
)
def state(id: CatalogId, party: PartyName, office: TheOffice, caller: Reader, batch: Number = None) -> Response:
    """Byte for byte what the other party derives; its SHA-256, in `X-Statement-Hash`, is what is attested."""
    data = statement(_compared(office, id, party, batch))
    return Response(data, media_type="application/json", headers={"X-Statement-Hash": statement_hash(data)})


def _compared(office: Any, catalog_id: str, party: str, batch: str | None) -> PartyComparison:
    catalog = office.desk.workspace.catalog(catalog_id)
    with office.desk.job() as job:
        return compare_with(job, catalog, party, number=batch)


def _told(it: PartyComparison, say: Speaker) -> Comparison:
    block, time = it.against["block"], it.against["time"]
    return Comparison(
        catalog=it.catalog,
        us=it.us,
        counterpart=it.them,
        verdict=str(it.verdict),  # type: ignore[arg-type]
        as_of_block=int(str(block)),
        as_of_time=time_utc(int(str(time))),
        batches=[_batch(batch, say) for batch in it.batches],
    )


def _batch(it: BatchComparison, say: Speaker) -> Compared:
    told = it.as_json()
    return Compared.model_validate(
        {
            **told,
            "ours": _anchor(told["ours"]),
            "theirs": _anchor(told["theirs"]),
            "findings": [_difference(finding) for finding in it.findings],
            "notes": [say(zh, en) for zh, en in it.notes],
        }
    )


def _anchor(told: Any) -> dict[str, Any] | None:
    return None if told is None else {**told, "time": time_utc(told["time"])}


def _difference(it: PartyFinding) -> Difference:
    return Difference.model_validate(it.as_json())
