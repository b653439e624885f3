"""`/v1/reconciliations`: ask for one, watch it, read its findings."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Response, Security
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import StreamingResponse

from api.office import Office, Say, Speaker, TheOffice
from api.paging import DAY, Cursor, Limit, Page, Word, page, read
from api.problems import ApiError, documented
from api.security import Caller, needs
from ledger.errors import LedgerError
from ledger.reconcile import runs, sheet
from ledger.reconcile.scope import parse_scope
from ledger.store import models
from ledger.tokens import check

router = APIRouter(prefix="/v1/reconciliations", tags=["reconciliations"])

RETRY_SECONDS = 2
POLL_SECONDS = 0.5
KEEP_ALIVE_SECONDS = 15.0
_FINAL = ("finished", "failed", "interrupted")
_AT_ONCE = 1000

Reader = Annotated[Caller, Security(needs("read"))]
RunId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", examples=["3f2504e04f8941d39a0c0305e82c3301"])]
Kind = Literal["duplicate", "unreadable", "not_withdrawn", "stale", "altered", "missing", "unanchored"]
Standing = Literal["new", "open", "assigned", "explained"]


_EVENT = {
    "type": "object",
    "description": "one event",
    "properties": {
        "id": {"type": "string"},
        "event": {"enum": ["progress", "final"]},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": "#/components/schemas/Reconciliation"},
        },
    },
    "required": ["id", "event", "data"],
}


class Wanted(BaseModel):
    """What to reconcile: a catalog's whole source, or the part of one batch or of some days."""

    model_config = ConfigDict(extra="forbid")
    catalog: str = Field(min_length=1, max_length=100, examples=["registration"])
    batch: str | None = Field(
        None, max_length=200, description="only keys whose live version this batch carries", examples=[None]
    )
    since: str | None = Field(None, pattern=DAY, description="YYYY-MM-DD", examples=[None])
    until: str | None = Field(None, pattern=DAY, description="YYYY-MM-DD", examples=[None])


class Progress(BaseModel):
    """How far it is."""

    rows: int = Field(description="source rows compared so far")


class Failure(BaseModel):
    """What stopped it, in the words of the command line."""

    code: str
    message: str
    where: str


class Note(BaseModel):
    """A remark that weakens or limits the answer."""

    zh: str
    en: str


class Reconciliation(BaseModel):
    """One reconciliation; the members after `attempts` are null until it is finished, `error` unless it came to none."""

    id: str
    catalog: str
    scope: dict[str, str] = Field(description="empty for the whole source")
    state: models.ReconciliationState
    requested_by: str
    created_at: str
    started_at: str | None
    finished_at: str | None
    progress: Progress
    attempts: int
    verdict: Literal["matched", "matched_in_scope", "differences", "differences_partial", "undetermined"] | None
    exit_code: int | None
    counts: dict[str, int] | None
    states: dict[str, int] | None = Field(description="findings by how they stood")
    against: dict[str, Any] | None = Field(description="chain, contract, block, source")
    batches: list[dict[str, Any]] | None
    notes: list[Note] | None
    error: Failure | None


class Finding(BaseModel):
    """One difference, as `reconcile --json` tells it; members that do not apply are left out."""

    model_config = ConfigDict(extra="allow")
    ordinal: int = Field(description="place in the report, from 0")
    kind: Kind
    key: dict[str, str] | None = Field(description="personal fields masked; null where only the tag is known")
    expected: Any = Field(None, description="commitment")
    observed: Any = Field(None, description="commitment")
    batch: str | None = None
    state: Standing | None = None


@router.post(
    "",
    status_code=202,
    response_model=Reconciliation,
    responses={
        202: {
            "headers": {
                "Location": {"description": "where to look", "schema": {"type": "string"}},
                "Retry-After": {"description": "seconds", "schema": {"type": "integer"}},
            }
        },
        **documented(400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 500, 503),
    },
    summary="Ask for a reconciliation",
)
def ask(
    wanted: Wanted,
    response: Response,
    office: TheOffice,
    say: Say,
    caller: Annotated[Caller, Security(needs("reconcile"))],
) -> Reconciliation:
    """It waits in a queue and is done by a process of its own. One that waits already for the same catalog and scope is returned."""
    workspace = office.desk.workspace
    catalog = workspace.catalog(wanted.catalog)
    workspace.source(catalog)
    scope = parse_scope(wanted.batch, wanted.since, wanted.until)
    row = runs.enqueue(office.desk.store, catalog.id, scope, caller.name)
    response.headers["Location"] = f"/v1/reconciliations/{row.id}"
    response.headers["Retry-After"] = str(RETRY_SECONDS)
    return told(row, say)


@router.get(
    "", response_model=Page[Reconciliation], responses=documented(401, 403, 422, 500, 503), summary="List, newest first"
)
def list_them(
    office: TheOffice,
    say: Say,
    caller: Reader,
    catalog: Word | None = None,
    state: models.ReconciliationState | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[Reconciliation]:
    """Also those of the command line and the night. The oldest are pruned (`[api] keep_reconciliations` a catalog)."""
    before = None
    if cursor is not None:
        at, run_id = read(cursor, str, str)
        before = (str(at), str(run_id))
    rows = runs.listed(office.desk.store, catalog_id=catalog, state=state, before=before, limit=limit + 1)
    return page([told(row, say) for row in rows], limit, [(row.created_at, row.id) for row in rows])


@router.get(
    "/{id}",
    response_model=Reconciliation,
    responses=documented(401, 403, 404, 422, 500, 503),
    summary="One reconciliation",
)
def one(id: RunId, office: TheOffice, say: Say, caller: Reader) -> Reconciliation:
    """State, progress, verdict, counts."""
    return told(_row(office, id), say)


@router.get(
    "/{id}/events",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {"text/event-stream": {"schema": _EVENT}},
            "description": "`progress` events, then one `final`",
        },
        204: {"description": "the final event was already given (`Last-Event-ID`)"},
        **documented(401, 403, 404, 422, 500, 503),
    },
    summary="Watch one reconciliation (server-sent events)",
)
async def events(
    id: RunId,
    request: Request,
    office: TheOffice,
    say: Say,
    caller: Reader,
    last_event_id: Annotated[str | None, Header(max_length=200)] = None,
) -> Response:
    """Each event's data is the reconciliation as JSON. The stream ends by itself after `final`; after a break, send `Last-Event-ID`."""
    row = await run_in_threadpool(_row, office, id)
    if row.state in _FINAL and last_event_id == _event_id(row):
        return Response(status_code=204)
    text = request.headers["authorization"].partition(" ")[2].strip()
    return StreamingResponse(_events(office, say, row, text, last_event_id), media_type="text/event-stream")


@router.get(
    "/{id}/findings",
    response_model=Page[Finding],
    response_model_exclude_unset=True,
    responses=documented(401, 403, 404, 409, 422, 500, 503),
    summary="Its findings, in the report's order",
)
def findings(
    id: RunId,
    office: TheOffice,
    caller: Reader,
    kind: Kind | None = None,
    state: Standing | None = None,
    batch: Word | None = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[Finding]:
    """Filtered by kind, by how a finding stood then, and by the batch that carries the expected version."""
    _finished(office, id)
    after = -1 if cursor is None else int(read(cursor, int)[0])
    rows = runs.found(office.desk.store, id, kind=kind, state=state, batch=batch, after=after, limit=limit + 1)
    items = [Finding(ordinal=row.ordinal, **json.loads(row.document)) for row in rows]
    return page(items, limit, [(row.ordinal,) for row in rows])


_FORMATS = {
    "csv": "text/csv; charset=utf-8",
    "jsonl": "application/jsonl",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}


@router.get(
    "/{id}/findings/export",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {name.partition(";")[0]: {"schema": {"type": "string"}} for name in _FORMATS.values()},
            "headers": {"Content-Disposition": {"schema": {"type": "string"}}},
        },
        **documented(401, 403, 404, 409, 422, 500, 503),
    },
    summary="All its findings as a file",
)
def export(
    id: RunId,
    office: TheOffice,
    caller: Reader,
    format: Annotated[Literal["csv", "jsonl", "xlsx"], Query(description="kind of file")] = "csv",
) -> Response:
    """Cells that a spreadsheet would run as a formula are text."""
    row = _finished(office, id)
    found = _all_found(office, id)
    headers = {"Content-Disposition": f'attachment; filename="{row.catalog_id}-{id[:12]}.{format}"'}
    chunks: Iterator[bytes]
    if format == "xlsx":
        chunks = _workbook(found)
    else:
        lines = sheet.csv_lines(found) if format == "csv" else sheet.json_lines(found)
        chunks = (line.encode("utf-8", "replace") for line in lines)
    return StreamingResponse(chunks, headers=headers, media_type=_FORMATS[format])


def told(row: models.Reconciliation, say: Speaker) -> Reconciliation:
    """A row in the words of the API."""
    report = json.loads(row.report) if row.report is not None else {}
    error = None
    if row.error is not None:
        it = json.loads(row.error)
        error = Failure(code=it["code"], message=say(it["zh"], it["en"]), where=it["where"])
    return Reconciliation.model_validate(
        {
            "id": row.id,
            "catalog": row.catalog_id,
            "scope": json.loads(row.scope),
            "state": row.state,
            "requested_by": row.requested_by,
            "created_at": row.created_at,
            "started_at": row.started_at,
            "finished_at": row.finished_at,
            "progress": Progress(rows=row.progress_rows),
            "attempts": row.attempts,
            "verdict": row.verdict,
            "exit_code": row.exit_code,
            "error": error,
        }
        | {name: report.get(name) for name in ("counts", "states", "against", "batches", "notes")}
    )


def _row(office: Office, run_id: str) -> models.Reconciliation:
    row = runs.get(office.desk.store, run_id)
    if row is None:
        raise ApiError(
            404,
            "reconciliation.unknown",
            "没有这次对账，或已被清理（[api] keep_reconciliations）",
            "there is no such reconciliation, or it was pruned ([api] keep_reconciliations)",
            "id",
        )
    return row


def _finished(office: Office, run_id: str) -> models.Reconciliation:
    row = _row(office, run_id)
    if row.state != "finished":
        raise ApiError(
            409,
            "reconciliation.not_finished",
            f"该对账状态为 {row.state}，没有差异清单",
            f"this reconciliation is {row.state}: there is no list of findings",
            "id",
        )
    return row


def _all_found(office: Office, run_id: str) -> Iterator[dict[str, object]]:
    after = -1
    while rows := runs.found(office.desk.store, run_id, after=after, limit=_AT_ONCE):
        for row in rows:
            yield json.loads(row.document)
        after = rows[-1].ordinal
    # Pruned meanwhile: the file would look whole and not be.
    _finished(office, run_id)


def _workbook(found: Iterator[dict[str, object]]) -> Iterator[bytes]:
    with tempfile.TemporaryFile() as file:
        sheet.write_xlsx(found, file)
        file.seek(0)
        while data := file.read(1 << 16):
            yield data


def _event_id(row: models.Reconciliation) -> str:
    return f"{row.attempts}.{row.progress_rows}.{row.state}"


def _event(row: models.Reconciliation, say: Speaker) -> bytes:
    name = "final" if row.state in _FINAL else "progress"
    data = told(row, say).model_dump_json()
    return f"id: {_event_id(row)}\nevent: {name}\ndata: {data}\n\n".encode("utf-8", "replace")


async def _events(
    office: Office, say: Speaker, row: models.Reconciliation | None, text: str, given: str | None
) -> AsyncIterator[bytes]:
    yield f"retry: {RETRY_SECONDS * 1000}\n\n".encode()
    quiet = 0.0
    while row is not None:
        if _event_id(row) != given:
            given, quiet = _event_id(row), 0.0
            yield _event(row, say)
        if row.state in _FINAL or office.stopping.is_set():
            # Told to end: the client comes back with Last-Event-ID, to this server's successor.
            return
        await asyncio.sleep(POLL_SECONDS)
        quiet += POLL_SECONDS
        if quiet >= KEEP_ALIVE_SECONDS:
            quiet = 0.0
            yield b": still here\n\n"
        try:
            # A token that was revoked meanwhile sees no more.
            await run_in_threadpool(check, office.desk.store, text)
            row = await run_in_threadpool(runs.get, office.desk.store, row.id)
        except LedgerError:
            return
