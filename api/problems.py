"""Errors as problem details (RFC 9457): the ledger's own words, a stable `code`, and the one place that knows HTTP's numbers."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from api.words import Language, language, pick
from ledger.errors import ChainError, InputError, LedgerError, NotBuiltError, SourceError, StoreError
from ledger.tokens import TokenError

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 5

_log = logging.getLogger("duizhang.api")

_TITLES: Mapping[int, tuple[str, str]] = {
    400: ("请求有误", "Bad request"),
    401: ("未认证", "Not authenticated"),
    403: ("无权限", "Not allowed"),
    404: ("不存在", "Not found"),
    405: ("方法不适用", "Method not allowed"),
    408: ("请求过慢", "Request too slow"),
    409: ("状态不符", "Conflicts with the present state"),
    413: ("请求过大", "Request too large"),
    415: ("内容类型不支持", "Unsupported media type"),
    422: ("内容不合规", "Content not acceptable"),
    429: ("请求过多", "Too many requests"),
    500: ("内部错误", "Internal error"),
    501: ("尚不支持", "Not built yet"),
    503: ("暂不可用", "Not available now"),
}
_BY_CODE: Mapping[str, int] = {
    "catalog.unknown": 404,
    "chain.no_party": 404,
    "counterpart.nothing": 404,
    "dispute.unknown": 404,
    "dispute.no_registry": 503,
    "workspace.busy": 409,
    "counterpart.self": 404,
    "statement.open": 409,
    "finding.unknown": 404,
    "finding.settled": 409,
    "prove.unknown_key": 404,
    "prove.no_batch": 404,
    "prove.withdrawn": 409,
    "prove.entries_unknown": 409,
    "prove.erased": 409,
    "prove.not_archived": 409,
    "prove.not_confirmed": 409,
    "source.unconfigured": 409,
    "store.conflict": 409,
    "reconciliation.queue_full": 429,
}
# What the operator of this server has to mend, whatever the request says.
_OURS = (
    "config.",
    "workspace.",
    "key.no_exchange_key",
    "key.wrong",
    "source.columns",
    "account.",
    "trust.",
    "catalog.",
)


class Violation(BaseModel):
    """One part of a request that has not the form it should have."""

    where: str = Field(examples=["body.catalog"])
    message: str = Field(examples=["Field required"])


class Problem(BaseModel):
    """Why there is no answer (RFC 9457)."""

    type: str = Field(examples=["urn:duizhang:problem:catalog.unknown"])
    title: str = Field(examples=["不存在"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["没有目录“permits”；现有：registration"])
    code: str = Field(description="the command line's code", examples=["catalog.unknown"])
    where: str = Field(description="the place at fault, empty if there is none", examples=[""])
    errors: list[Violation] | None = Field(None, description="of a malformed request: each part at fault")


class ApiError(LedgerError):
    """An error that only HTTP knows, with its status and headers."""

    def __init__(
        self, status: int, code: str, zh: str, en: str, where: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(code, zh, en, where)
        self.status = status
        self.headers = dict(headers or {})


def status_of(error: LedgerError) -> int:
    """The HTTP status of an error; 500 for a kind nobody thought of."""
    if isinstance(error, ApiError):
        return error.status
    if error.code in _BY_CODE:
        return _BY_CODE[error.code]
    if isinstance(error, TokenError):
        return 401
    if isinstance(error, NotBuiltError):
        return 501
    if isinstance(error, ChainError | StoreError | SourceError):
        return 503
    if isinstance(error, InputError):
        return 503 if error.code.startswith(_OURS) else 422
    return 500


def status_of_refusal(code: str) -> int:
    """The HTTP status of an error of which only the command line's code is known, when a job of its own did the work."""
    return _BY_CODE.get(code, 503 if code.startswith((*_OURS, "store.", "chain.", "key.")) else 409)


def respond(error: LedgerError, chosen: Language, errors: Sequence[Mapping[str, str]] | None = None) -> Response:
    """The response for an error."""
    status = status_of(error)
    headers = dict(error.headers) if isinstance(error, ApiError) else {}
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="duizhang", error="invalid_token"'
    if status == 503:
        headers.setdefault("Retry-After", str(RETRY_SECONDS))
    zh, en = _TITLES.get(status, (HTTPStatus(status).phrase,) * 2)
    detail, where = pick(chosen, error.zh, error.en), error.where
    if status >= 500 and where:
        # Files and addresses of the server are its operator's matter: they stand in its log and in `doctor`.
        detail, where = detail.replace(where, "…"), ""
    document: dict[str, Any] = {
        "type": f"urn:duizhang:problem:{error.code}",
        "title": pick(chosen, zh, en),
        "status": status,
        "detail": detail,
        "code": error.code,
        "where": where,
    }
    if errors is not None:
        document["errors"] = list(errors)
    # A lone surrogate out of a URL becomes a mark rather than an error about the error.
    body = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
    return Response(body, status, headers, media_type=MEDIA_TYPE)


def internal() -> LedgerError:
    """What is said of a fault of ours: nothing of what is inside."""
    return LedgerError(
        "internal",
        "程序内部错误，已记入服务日志；请告知管理员",
        "internal error, noted in the server's log; tell its operator",
    )


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: these statuses, each as problem details."""
    schema = {"$ref": "#/components/schemas/Problem"}
    told: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        it: dict[str, Any] = {
            "description": f"{_TITLES[status][0]} / {_TITLES[status][1]}",
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        if status in (429, 503):
            it["headers"] = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
        if status == 401:
            it["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
        told[status] = it
    return told


def install(app: FastAPI) -> None:
    """Make the application answer every error this way."""
    app.add_exception_handler(LedgerError, _ledger_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)


def _language(request: Request) -> Language:
    return language(request.headers.get("accept-language"))


async def _ledger_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, LedgerError)  # noqa: S101  registered for it
    if status_of(error) == 500:
        _log.error("unexpected error %s", error.code)
        error = internal()
    return respond(error, _language(request))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  registered for it
    # Where and why only: the value itself may be personal.
    errors = [
        {"where": ".".join(str(part) for part in it["loc"])[:200], "message": str(it["msg"])} for it in error.errors()
    ]
    first = errors[0] if errors else {"where": "", "message": ""}
    told = ApiError(
        422,
        "request.invalid",
        f"请求不合规：{first['where']}：{first['message']}",
        f"the request is not acceptable: {first['where']}: {first['message']}",
        first["where"],
    )
    return respond(told, _language(request), errors)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  registered for it
    zh, en = _TITLES.get(error.status_code, (HTTPStatus(error.status_code).phrase,) * 2)
    if error.status_code == 404:
        zh, en = "没有这个地址；/openapi.json 列出全部", "there is nothing at this address; /openapi.json lists all"
    if error.status_code == 400:
        # What FastAPI says of a body it cannot decode.
        zh, en = "请求正文不是 UTF-8 的 JSON", "the body is not JSON in UTF-8"
    headers = dict(error.headers or {})
    if error.status_code == 405:
        # Of several routes of one path, Starlette names the methods of the first only.
        headers["Allow"] = ", ".join(_methods(request.app, request.scope))
    told = ApiError(error.status_code, f"http.{error.status_code}", zh, en, headers=headers)
    return respond(told, _language(request))


def _methods(app: FastAPI, scope: Scope) -> list[str]:
    """The methods that some route has for the path asked for."""
    path = scope["path"]
    return sorted(
        {
            method.upper()
            for template, operations in app.openapi()["paths"].items()
            if re.fullmatch(re.sub(r"\{[a-z_]+\}", "[^/]+", template), path)
            for method in operations
        }
    )
