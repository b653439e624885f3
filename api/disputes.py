"""`/v1/disputes` and attestations: what two parties put on chain about each other's anchors.

Reading is done here; what goes on chain is done by the command line in a process of its own, under the workspace's lock, exactly as an
operator would: 409 while another job holds it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path as File
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Security
from pydantic import BaseModel, ConfigDict, Field

from api.office import Office, Say, Speaker, TheOffice
from api.problems import ApiError, documented, status_of_refusal
from api.security import Caller, needs
from ledger.chain.view import time_utc
from ledger.dispute.cases import case_of, cases
from ledger.dispute.desk import dispute_registry

router = APIRouter(prefix="/v1", tags=["disputes"])

Number = Annotated[int, Path(ge=1, le=2**53, examples=[1])]
Reader = Annotated[Caller, Security(needs("read"))]
Admin = Annotated[Caller, Security(needs("admin"))]
_READ = documented(401, 403, 404, 422, 500, 503)
_WRITE = documented(400, 401, 403, 404, 409, 415, 422, 500, 503)
_SECONDS = 600

PartyName = Annotated[str, Field(max_length=32, pattern=r"^[a-z][a-z0-9_-]{0,31}$", examples=["guangzhou"])]
Text = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Attestation(BaseModel):
    """One party's attestation of a statement."""

    party: str
    counterparty: str
    statement: str = Field(description="SHA-256 of the statement")
    position: int
    block: int
    time: str


class Attestations(BaseModel):
    """All of them, oldest first."""

    items: list[Attestation]


class Disputes(BaseModel):
    """Disputes with their whole history, as `dispute show --json` tells it."""

    items: list[dict[str, Any]]


class Statement(BaseModel):
    """What is to be attested."""

    model_config = ConfigDict(extra="forbid")
    counterparty: PartyName
    batch: Text | None = Field(default=None, examples=["B1"])


class Opening(BaseModel):
    """A dispute to open: all open differences of the batch, or those of these keys or key tags."""

    model_config = ConfigDict(extra="forbid")
    catalog: Text = Field(examples=["registration"])
    counterparty: PartyName
    batch: Text = Field(examples=["B1"])
    keys: list[Text] = Field(default_factory=list, max_length=1000)


class Answer(BaseModel):
    """An answer; `batch` is the number of the correction batch for `resend`."""

    model_config = ConfigDict(extra="forbid")
    answer: Literal["concede", "reject", "resend"]
    batch: Text | None = Field(default=None, examples=["C1"])


class Closing(BaseModel):
    """The end of a dispute; `batch` is the settling batch's number for `settled`."""

    model_config = ConfigDict(extra="forbid")
    outcome: Literal["settled", "withdrawn", "accepted"]
    batch: Text | None = Field(default=None, examples=["C1"])


@router.get("/disputes", response_model=Disputes, responses=_READ, summary="List disputes")
def listed(
    office: TheOffice, caller: Reader, closed: Annotated[bool, Query(description="closed ones too")] = True
) -> Disputes:
    """Every dispute on the chain, oldest first, shown to be all there are."""
    with office.desk.job() as job:
        return Disputes(items=[it.as_json() for it in cases(job, closed=closed)])


@router.get("/disputes/{number}", response_model=dict[str, Any], responses=_READ, summary="One dispute")
def one(number: Number, office: TheOffice, caller: Reader) -> dict[str, Any]:
    """Its whole history."""
    with office.desk.job() as job:
        return case_of(job, dispute_registry(job).view(), number).as_json()


@router.get("/attestations", response_model=Attestations, responses=_READ, summary="List attestations")
def attested(office: TheOffice, caller: Reader) -> Attestations:
    """Every statement that a party attested."""
    with office.desk.job() as job:
        found = dispute_registry(job).view().attestations
    return Attestations(
        items=[
            Attestation(
                party=it.party,
                counterparty=it.counterparty,
                statement=it.statement,
                position=it.position,
                block=it.block,
                time=time_utc(it.time),
            )
            for it in found
        ]
    )


@router.post(
    "/catalogs/{id}/attestations", response_model=dict[str, Any], responses=_WRITE, summary="Attest the statement"
)
def attest(
    id: Annotated[str, Path(max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$", examples=["registration"])],
    wanted: Statement,
    office: TheOffice,
    say: Say,
    caller: Admin,
) -> dict[str, Any]:
    """Derive the statement with the counterparty and put its hash on chain."""
    batch = [] if wanted.batch is None else [f"--batch={wanted.batch}"]
    return _run(office, say, "attest", f"--with={wanted.counterparty}", *batch, "--", id)


@router.post("/disputes", response_model=dict[str, Any], responses=_WRITE, summary="Open a dispute", status_code=201)
def open_one(wanted: Opening, office: TheOffice, say: Say, caller: Admin) -> dict[str, Any]:
    """On the certified, open differences of one batch."""
    return _run(
        office,
        say,
        "dispute",
        "open",
        f"--with={wanted.counterparty}",
        f"--batch={wanted.batch}",
        "--",
        wanted.catalog,
        *wanted.keys,
    )


@router.post("/disputes/{number}/answers", response_model=dict[str, Any], responses=_WRITE, summary="Answer")
def answer(number: Number, wanted: Answer, office: TheOffice, say: Say, caller: Admin) -> dict[str, Any]:
    """As the respondent. For `resend` the rows for the exchange channel come back as `csv`."""
    _batch_iff(wanted.batch, wanted=wanted.answer == "resend")
    if wanted.batch is None:
        return _run(office, say, "dispute", "answer", f"--{wanted.answer}", "--", str(number))
    with TemporaryDirectory(prefix="duizhang-resend-") as folder:
        out = File(folder) / "resent.csv"
        told = _run(office, say, "dispute", "answer", f"--resend={wanted.batch}", f"--out={out}", "--", str(number))
        return {**told, "csv": out.read_text(encoding="utf-8") if out.exists() else None}


@router.post("/disputes/{number}/closing", response_model=dict[str, Any], responses=_WRITE, summary="Close")
def close(number: Number, wanted: Closing, office: TheOffice, say: Say, caller: Admin) -> dict[str, Any]:
    """As the opener, once."""
    _batch_iff(wanted.batch, wanted=wanted.outcome == "settled")
    how = f"--settled-by={wanted.batch}" if wanted.batch is not None else f"--{wanted.outcome}"
    return _run(office, say, "dispute", "close", how, "--", str(number))


def _batch_iff(batch: str | None, *, wanted: bool) -> None:
    if (batch is not None) != wanted:
        raise ApiError(
            422,
            "dispute.batch",
            "batch 须且仅须在 resend 或 settled 时给出",
            "batch goes with resend and settled, and with nothing else",
            "body.batch",
        )


def _run(office: Office, say: Speaker, *words: str) -> dict[str, Any]:
    """Run one command line of this workspace; its JSON, or its error with the status that fits."""
    root = office.desk.workspace.root.resolve()
    command = [sys.executable, "-m", "ledger.cli", "-C", str(root), "--json", f"--lang={say.language}", *words]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        told: dict[str, Any] = json.loads(ran.stdout)
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise ApiError(
            503,
            "dispute.unknown_outcome",
            "命令没有给出结果，可能已生效；请先查询再重试",
            "the command gave no answer and may have taken effect: look before you try again",
        ) from error
    refused = told.get("error")
    if ran.returncode == 2 and isinstance(refused, dict):
        # Files of the server are its operator's matter.
        code, text, where = (str(refused.get(it, "")).replace(str(root), "…") for it in ("code", "message", "where"))
        raise ApiError(status_of_refusal(code), code, text, text, "" if where.startswith(("…", "--")) else where)
    return told
