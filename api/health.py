"""`GET /health` for whoever watches the service, `GET /v1/status` for the operator."""

from __future__ import annotations

import threading
import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Response, Security
from pydantic import BaseModel, Field

from api.office import Say, Speaker, TheOffice
from api.problems import documented
from api.reconciliations import Failure
from api.security import Caller, needs
from ledger.health import Health as Looked
from ledger.health import State, read_health
from ledger.status import Notice as Told
from ledger.status import read_status

router = APIRouter()

FRESH_SECONDS = 2.0
"""Anybody may ask: store and chain are looked at once in this time, however many do."""


class Check(BaseModel):
    """One thing that was looked at."""

    name: Literal["store", "chain", "anchor_age", "claims"]
    state: State
    code: str
    message: str


class Health(BaseModel):
    """`failing` (503): store or chain cannot be read, or nothing was confirmed for too long. `degraded` (200): look at the checks."""

    status: State
    checks: list[Check]
    last_anchor_at: str | None
    anchor_age_seconds: int | None
    max_anchor_age_seconds: int


class Notice(BaseModel):
    """Something for the operator."""

    code: str
    message: str
    where: str


class Status(BaseModel):
    """What `duizhang status --json` says, without the batches (`/v1/batches`)."""

    party: str
    chain: dict[str, Any]
    last_anchor: dict[str, Any] | None
    pending: list[Notice]
    attention: list[Notice]
    refused: list[Notice]
    error: Failure | None = Field(description="why the chain could not be read; the rest is then what the store knows")


_guard = threading.Lock()
_looked: tuple[float, Looked] | None = None


@router.get(
    "/health",
    tags=["service"],
    response_model=Health,
    responses={503: {"model": Health, "description": "failing"}, **documented(500)},
    summary="Is it still proving anything?",
)
def health(office: TheOffice, say: Say, response: Response) -> Health:
    """Public. Fails on staleness, not on the death of a process."""
    global _looked  # noqa: PLW0603  one look for all who ask at once
    with _guard:
        if _looked is None or time.monotonic() - _looked[0] > FRESH_SECONDS:
            desk = office.desk
            _looked = (time.monotonic(), read_health(desk.workspace, desk.store, memory=desk.memory)[0])
        it = _looked[1]
    if it.state == "failing":
        response.status_code = 503
        response.headers["Retry-After"] = "30"
    return Health(
        status=it.state,
        checks=[Check(name=c.name, state=c.state, code=c.code, message=say(c.zh, c.en)) for c in it.checks],
        last_anchor_at=it.last_anchor_at,
        anchor_age_seconds=it.anchor_age_seconds,
        max_anchor_age_seconds=it.max_anchor_age_seconds,
    )


@router.get(
    "/v1/status", tags=["service"], response_model=Status, responses=documented(401, 403, 500, 503), summary="Status"
)
def status(office: TheOffice, say: Say, caller: Annotated[Caller, Security(needs("read"))]) -> Status:
    """What is anchored, pending and overdue."""
    it = read_status(office.desk.workspace)
    # Where the chain's files lie is nobody's business over HTTP.
    chain = {name: value for name, value in it.chain.items() if name not in ("home", "rpc")}
    failed = it.error
    return Status(
        party=it.party,
        chain=chain,
        last_anchor=None if it.last_anchor is None else dict(it.last_anchor),
        pending=[_notice(n, say) for n in it.pending],
        attention=[_notice(n, say) for n in it.attention],
        refused=[_notice(n, say) for n in it.refused],
        error=None
        if failed is None
        else Failure(code=failed.code, message=say(failed.zh, failed.en), where=failed.where),
    )


def _notice(it: Told, say: Speaker) -> Notice:
    return Notice(code=it.code, message=say(it.zh, it.en), where=it.where)
