"""The application: `api.app:create_app` for uvicorn, which finds its workspace by DUIZHANG_HOME."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.openapi.utils import get_openapi

from api import (
    batches,
    catalogs,
    counterparts,
    disputes,
    findings,
    health,
    metrics,
    reconciliations,
    records,
    verification,
)
from api.bodies import BODY_SECONDS, BodyLimit
from api.gate import Gate
from api.limits import Limiter
from api.metrics import Requests
from api.office import Office
from api.problems import ApiError, Problem, Violation, install
from api.runner import Runner
from ledger.desk import Desk
from ledger.workspace import Workspace

VERSION = "1"
WORKERS = "DUIZHANG_WORKERS"
PARENT = "DUIZHANG_SERVER"
BODY = "DUIZHANG_BODY_SECONDS"


def create_app() -> FastAPI:
    """An application for the workspace of DUIZHANG_HOME; raises the workspace's own errors, so that a wrong one never serves."""
    workspace = Workspace(Path(os.environ.get("DUIZHANG_HOME") or "."))
    settings = workspace.config.api
    workers = int(os.environ.get(WORKERS, "1"))
    requests = Requests()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        office = Office(Desk(workspace), Limiter(settings.verify_per_minute, workers), requests)
        app.state.office = office
        _heed_signals(office)
        parent = os.environ.get(PARENT)
        runner = Runner(office.desk, int(parent) if parent and int(parent) != os.getpid() else None)
        runner.start()
        try:
            yield
        finally:
            office.stopping.set()
            runner.stop()
            office.later.shutdown(wait=True, cancel_futures=True)
            office.desk.close()

    app = FastAPI(
        title="duizhang 对账",
        version=VERSION,
        description=__doc__ and _DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(_json_only)],
        # Spans would carry addresses, which hold keys of records.
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
    )
    install(app)
    for module in (
        reconciliations,
        findings,
        catalogs,
        counterparts,
        disputes,
        records,
        batches,
        verification,
        health,
        metrics,
    ):
        app.include_router(module.router)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes, seconds=float(os.environ.get(BODY, BODY_SECONDS)))
    app.add_middleware(Gate, requests=requests)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


_DESCRIPTION = (
    "对账接口：数据源对链上存证。Reconciliation of a source against what was anchored. "
    "Errors are problem details (RFC 9457) in the language of `Accept-Language` (zh, en)."
)


def _json_only(request: Request) -> None:
    """415 for a body that is not JSON, said before its form is judged; `/v1/verify` has its own rule."""
    if request.method != "POST" or request.url.path == "/v1/verify":
        return
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(
            415,
            "request.media_type",
            "请求正文须为 JSON（Content-Type: application/json）",
            "the body must be JSON (Content-Type: application/json)",
            "Content-Type",
        )


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = document["components"]["schemas"]
        for model in (Problem, Violation):
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schema.pop("$defs", None)
            schemas[model.__name__] = schema
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        app.openapi_schema = document
    return app.openapi_schema


def _heed_signals(office: Office) -> None:
    """Streams of events must know at once that the server ends: uvicorn waits for them before it tells the application."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)
        if not callable(before):
            continue

        def heed(number: int, frame: FrameType | None, before: Any = before) -> None:
            office.stopping.set()
            before(number, frame)

        signal.signal(number, heed)
