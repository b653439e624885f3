"""`/v1/findings`: differences as people work them, across reconciliations."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Security
from pydantic import BaseModel, ConfigDict, Field

from api.office import TheOffice
from api.paging import DAY, Cursor, Limit, Page, Word, page, read
from api.problems import documented
from api.reconciliations import Kind
from api.security import Caller, needs
from ledger.reconcile import tracking
from ledger.store import models

router = APIRouter(prefix="/v1/findings", tags=["findings"])

Standing = Literal["new", "open", "assigned", "explained", "settled"]
Worker = Annotated[Caller, Security(needs("reconcile"))]
Number = Annotated[int, Path(ge=1, le=2**31 - 1)]
Text = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f\x7f]*$")]


class TrackedFinding(BaseModel):
    """One finding: named by catalog, key and kind, so that it outlives the reconciliation that saw it first."""

    id: int
    catalog: str
    kind: Kind
    key: dict[str, str] | None = Field(description="personal fields masked; null where only the tag is known")
    key_tag: str
    batch: str | None
    state: Standing
    assigned_to: str | None
    explained_until: str | None
    reason: str | None
    changed_by: str | None
    changed_at: str | None
    first_seen_at: str
    last_seen_at: str
    settled_at: str | None
    settled_by: str | None


class Assignment(BaseModel):
    """Who is to work it."""

    model_config = ConfigDict(extra="forbid")
    to: Text = Field(examples=["李四"])
    by: Text | None = Field(
        None, description="the person behind the token; the token's name is recorded in any case", examples=[None]
    )


class Explanation(BaseModel):
    """Why it is there, and until when that holds (the day included)."""

    model_config = ConfigDict(extra="forbid")
    until: str = Field(pattern=DAY, description="YYYY-MM-DD, not past, at most 366 days away", examples=["2099-12-31"])
    reason: Text = Field(examples=["数据源正在迁移"])
    by: Text | None = Field(
        None, description="the person behind the token; the token's name is recorded in any case", examples=[None]
    )


@router.get("", response_model=Page[TrackedFinding], responses=documented(401, 403, 422, 500, 503), summary="List")
def list_them(
    office: TheOffice,
    caller: Annotated[Caller, Security(needs("read"))],
    catalog: Word | None = None,
    kind: Annotated[list[Kind] | None, Query(max_length=20)] = None,
    state: Annotated[list[Standing] | None, Query(max_length=20)] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[TrackedFinding]:
    """By number; all that are not settled, unless states are named (repeat the parameter for several)."""
    after = 0 if cursor is None else int(read(cursor, int)[0])
    # Past what a number of a row can be, some databases refuse to compare.
    after = max(0, min(after, 2**31 - 1))
    rows = tracking.listed(
        office.desk.store, catalog_id=catalog, kinds=kind or (), states=state or (), after=after, limit=limit + 1
    )
    return page([_told(row) for row in rows], limit, [(row.id,) for row in rows])


@router.post(
    "/{id}/assign",
    response_model=TrackedFinding,
    responses=documented(400, 401, 403, 404, 408, 409, 413, 415, 422, 500, 503),
    summary="Give it to somebody",
)
def assign(id: Number, given: Assignment, office: TheOffice, caller: Worker) -> TrackedFinding:
    """A settled finding cannot be assigned (409)."""
    return _told(tracking.assign(office.desk.store, [id], to=given.to, by=_by(caller, given.by))[0])


@router.post(
    "/{id}/explain",
    response_model=TrackedFinding,
    responses=documented(400, 401, 403, 404, 408, 409, 413, 415, 422, 500, 503),
    summary="Say why it is there",
)
def explain(id: Number, given: Explanation, office: TheOffice, caller: Worker) -> TrackedFinding:
    """It still counts; it is only no news until the day is over."""
    by = _by(caller, given.by)
    return _told(tracking.explain(office.desk.store, [id], until=given.until, reason=given.reason, by=by)[0])


def _told(row: models.Tracked) -> TrackedFinding:
    return TrackedFinding.model_validate(tracking.tracked_json(row))


def _by(caller: Caller, person: str | None) -> str:
    """Who says so: always the token, whose name the caller cannot choose."""
    return caller.name if person is None else f"{caller.name}: {person}"
