"""`GET /metrics`: Prometheus text. What store and chain say is read when asked; requests are counted by every worker together.

Under `duizhang serve` prometheus_client runs in its multiprocess mode (a folder of its own, made at start), so any worker answers
for all; an application made without that folder counts for itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Security
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from starlette.responses import Response

from api.office import TheOffice
from api.problems import documented
from api.security import Caller, needs
from ledger.errors import LedgerError
from ledger.health import Figures, Health, read_figures, read_health

router = APIRouter(tags=["service"])

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)


class Requests:
    """Counts requests by method, route template and status."""

    def __init__(self) -> None:
        self._own = CollectorRegistry()
        self._count = Counter(
            "duizhang_http_requests", "HTTP requests", ["method", "route", "status"], registry=self._own
        )
        self._seconds = Histogram(
            "duizhang_http_request_seconds", "Time of HTTP requests", ["route"], buckets=_BUCKETS, registry=self._own
        )

    def note(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request; status 0 if the client went away."""
        known = method if method in ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH") else "other"
        self._count.labels(known, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def registry(self) -> CollectorRegistry:
        """The counts of all workers, or those of this process if it is alone."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return self._own
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return registry


class _Figures(Collector):
    def __init__(self, health: Health, block: int | None, figures: Figures | None) -> None:
        self._health = health
        self._block = block
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("duizhang_check", "1 if the check is ok, else 0", labels=["check", "state"])
        for check in self._health.checks:
            up.add_metric([check.name, check.state], float(check.state == "ok"))
        yield up
        if self._health.anchor_age_seconds is not None:
            yield _gauge(
                "duizhang_last_anchor_age_seconds", "Age of the last confirmed anchor", self._health.anchor_age_seconds
            )
        yield _gauge("duizhang_max_anchor_age_seconds", "When that is too old", self._health.max_anchor_age_seconds)
        if self._block is not None:
            yield _gauge("duizhang_chain_block", "Newest block read", self._block)
        if self._figures is not None:
            yield from self._stored(self._figures)

    def _stored(self, it: Figures) -> Iterator[Metric]:
        yield _gauge("duizhang_claims_confirmed", "Anchors of this party that were confirmed", it.confirmed_claims)
        yield _gauge("duizhang_claims_open", "Claims that wait to be anchored", it.open_claims)
        yield _gauge("duizhang_transactions_unfinished", "Transactions not yet confirmed", it.unfinished_transactions)
        yield _gauge("duizhang_notices_unsent", "Notices not delivered yet", it.unsent_notices)
        runs = GaugeMetricFamily("duizhang_reconciliations", "Reconciliations on record", labels=["catalog", "state"])
        for (catalog, state), number in sorted(it.reconciliations.items()):
            runs.add_metric([catalog, state], number)
        yield runs
        last = GaugeMetricFamily(
            "duizhang_last_reconciled_timestamp_seconds", "When a catalog was last reconciled", labels=["catalog"]
        )
        for catalog, at in sorted(it.last_reconciled_at.items()):
            last.add_metric([catalog], datetime.fromisoformat(at).timestamp())
        yield last
        found = GaugeMetricFamily(
            "duizhang_findings", "Findings by how they stand", labels=["catalog", "kind", "state"]
        )
        for (catalog, kind, state), number in sorted(it.findings.items()):
            found.add_metric([catalog, kind, state], number)
        yield found


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **documented(401, 403, 500, 503)},
)
def metrics(office: TheOffice, caller: Annotated[Caller, Security(needs("read"))]) -> Response:
    """Figures of store and chain as they are now, and requests since the start."""
    desk = office.desk
    health, view = read_health(desk.workspace, desk.store, memory=desk.memory)
    figures: Figures | None
    try:
        figures = read_figures(desk.store)
    except LedgerError:
        figures = None  # duizhang_check{check="store"} tells
    registry = CollectorRegistry()
    registry.register(_Figures(health, None if view is None else view.block, figures))
    text = generate_latest(registry) + generate_latest(office.requests.registry())
    return Response(text, media_type=MEDIA_TYPE)


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_text, value=value)
