"""A reconciliation beside a night: what is anchored and lands while the source is being opened is no difference."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from ledger.reconcile import lawful, runs
from ledger.reconcile.scope import Scope
from ledger.store import models
from ledger.workspace import Workspace
from tests.conftest import Pair, permit


def perform(pair: Pair) -> models.Reconciliation:
    workspace = Workspace(pair.city.home)
    with closing(workspace.open_store("update")) as store:
        run_id = runs.enqueue(store, "permits", Scope(), "api").id
        assert runs.claim(store, "w") is not None
        runs.perform(workspace, run_id, "w")
        row = runs.get(store, run_id)
    assert row is not None
    return row


def deliver_when_opened(monkeypatch: pytest.MonkeyPatch, pair: Pair, times: int) -> list[str]:
    """Whenever the source is opened, a delivery was sent and has landed just before, `times` times."""
    honest = Workspace.open_source
    delivered: list[str] = []

    @contextmanager
    def open_late(self: Workspace, catalog: Any) -> Iterator[Any]:
        if len(delivered) < times:
            number = f"L{len(delivered)}"
            delivered.append(number)
            monkeypatch.setattr(Workspace, "open_source", honest)
            pair.deliver(number, [permit(100 + len(delivered))])
            monkeypatch.setattr(Workspace, "open_source", open_late)
        with honest(self, catalog) as table:
            yield table

    monkeypatch.setattr(Workspace, "open_source", open_late)
    return delivered


def test_a_delivery_in_between_is_no_difference(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.deliver("B1", [permit(1)])
    delivered = deliver_when_opened(monkeypatch, pair, 2)
    row = perform(pair)
    assert delivered == ["L0", "L1"]
    assert (row.state, row.verdict) == ("finished", "matched"), (row.report, row.error)
    assert json.loads(row.report or "")["counts"]["matched"] == 3


def test_a_stream_that_never_stands_still_is_an_error(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lawful, "SETTLING_TRIES", 2)
    pair.deliver("B1", [permit(1)])
    deliver_when_opened(monkeypatch, pair, 3)
    row = perform(pair)
    assert row.state == "failed"
    assert json.loads(row.error or "")["code"] == "reconcile.moving"
