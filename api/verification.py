"""`POST /v1/verify`: what this server says about a proof file. A convenience: an auditor verifies with his own trust file and node."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Security
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from api.office import Office, Say, Speaker, TheOffice
from api.problems import ApiError, documented
from api.security import Caller, known_caller
from ledger.chain.registry import AnchorRecord
from ledger.chain.view import time_utc
from ledger.prove import export_trust
from ledger.verdict import Evidence, SubjectEvidence, Verification, title
from ledger.verify import verify

router = APIRouter(prefix="/v1", tags=["verification"])

_TYPES = ("application/json", "application/octet-stream")


class Step(BaseModel):
    """One step, as `docs/verify.md` numbers them."""

    number: int
    name: str
    title: str
    result: Literal["pass", "fail", "not_done"]
    detail: str
    code: str | None = None


class Voucher(BaseModel):
    """A party whose anchor the entry verifies against."""

    party: str
    revision: int
    sequence: int
    size: int
    root: str
    block: int
    time: str


class Proved(BaseModel):
    """What was proved: this record (or withdrawal) stands in this batch. Values are those of the file that was sent."""

    batch: str
    batch_id: str
    catalog: str
    kind: str
    sender: str
    receiver: str
    record_kind: Literal["record", "withdrawal"] | None = Field(description="null for a proof about a subject")
    values: dict[str, str | None]
    reason: str | None
    subject: str | None = Field(default=None, description="of a proof about a subject: its code")
    records: list[dict[str, str | None]] | None = Field(
        default=None, description="all records on the subject in the snapshot"
    )
    without_subject: int | None = Field(default=None, description="records of the snapshot that name no subject")
    superseded: dict[str, str] | None = Field(
        default=None, description="party to the later snapshot that took this one's place"
    )
    left_behind: int | None = Field(
        default=None, description="records that the stream's bridges did not carry, which the snapshot does not cover"
    )


class Why(BaseModel):
    """Why nothing could be told."""

    code: str
    message: str


class Answer(BaseModel):
    """The verdict with its steps."""

    verdict: Literal["proved", "contradicted", "undetermined"]
    sentence: str
    steps: list[Step]
    vouched_by: list[Voucher]
    proved: Proved | None
    as_of_block: int | None
    as_of_time: str | None
    development_chain: bool | None = Field(description="null if the node does not say what it is")
    error: Why | None
    caution: str = Field(description="what this answer is worth")


@router.post(
    "/verify",
    response_model=Answer,
    responses=documented(400, 401, 408, 413, 415, 422, 429, 500, 503),
    summary="Check a proof file",
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "the exact bytes of a proof file",
            "content": {
                "application/json": {"schema": {}},
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        },
        "security": [{}, {"token": []}],
    },
)
async def check(
    request: Request, office: TheOffice, say: Say, caller: Annotated[Caller | None, Security(known_caller)]
) -> Answer:
    """Public and limited per address; a token with scope `verify` is not limited."""
    if caller is None or not caller.may("verify"):
        office.limiter.pass_or_refuse(None if request.client is None else request.client.host)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _TYPES:
        raise ApiError(
            415,
            "request.media_type",
            f"请求正文须为存证文件原样字节，Content-Type 为 {' 或 '.join(_TYPES)}",
            f"the body is the exact bytes of a proof file; Content-Type is {' or '.join(_TYPES)}",
            "Content-Type",
        )
    data = await request.body()
    if not data:
        raise ApiError(422, "verify.empty", "请求正文为空", "the body is empty", "body")
    return await run_in_threadpool(_check, office, say, data)


def _check(office: Office, say: Speaker, data: bytes) -> Answer:
    with office.desk.job() as job:
        trust = export_trust(job)
        return _told(verify(data, trust, job.link.url), say)


def _told(result: Verification, say: Speaker) -> Answer:
    evidence = result.evidence
    return Answer(
        verdict=result.verdict,
        sentence=say(result.zh, result.en),
        steps=[
            Step(
                number=it.number,
                name=it.name,
                title=say(*title(it.name)),
                result=it.result,
                detail=say(it.zh, it.en),
                code=it.code or None,
            )
            for it in result.steps
        ],
        vouched_by=[] if evidence is None else [_voucher(it) for it in evidence.anchors],
        proved=None if evidence is None else _proved(evidence),
        as_of_block=None if evidence is None else evidence.block,
        as_of_time=None if evidence is None else time_utc(evidence.time),
        development_chain=None if evidence is None else evidence.development,
        error=None
        if result.error is None
        else Why(code=result.error.code, message=say(result.error.zh, result.error.en)),
        caution=say(
            "这是本服务的答复，用的是本方的信任数据和链节点，只图方便，并非独立核验；审计人请用自己的信任文件和节点运行 duizhang verify。",
            "This is this server's answer, with its own trust data and node: a convenience, not an independent verification. An "
            "auditor runs duizhang verify with a trust file and a node of his own.",
        ),
    )


def _voucher(it: AnchorRecord) -> Voucher:
    return Voucher(
        party=it.party,
        revision=it.revision,
        sequence=it.sequence,
        size=it.size,
        root=it.root,
        block=it.block,
        time=time_utc(it.time),
    )


def _proved(it: Evidence | SubjectEvidence) -> Proved:
    descriptor, stream = it.proof.descriptor, it.batch.stream
    if isinstance(it, SubjectEvidence):
        return Proved(
            batch=descriptor.batch,
            batch_id=it.batch.batch_id,
            catalog=descriptor.catalog,
            kind=descriptor.kind,
            sender=stream.sender,
            receiver=stream.receiver,
            record_kind=None,
            values={},
            reason=None,
            subject=it.proof.subject,
            records=[dict(opened.values) for opened in it.opened],
            without_subject=it.unnamed,
            superseded=dict(it.superseded),
            left_behind=it.left_behind,
        )
    return Proved(
        batch=descriptor.batch,
        batch_id=it.batch.batch_id,
        catalog=descriptor.catalog,
        kind=descriptor.kind,
        sender=stream.sender,
        receiver=stream.receiver,
        record_kind=it.opened.kind,
        values=dict(it.opened.values),
        reason=it.opened.reason,
    )
