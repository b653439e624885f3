"""A reconciliation that was asked for is done, whatever is killed on the way."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.api.conftest import Server, finished, serving, until
from tests.conftest import CATALOG, Pair, permit

SLOW_ROWS = 8_000
"""Rows of nobody that keep a reconciliation busy for a few seconds."""


@pytest.fixture
def busy(pair: Pair) -> Pair:
    """A city whose source takes a while to compare."""
    pair.deliver("B1", [permit(n) for n in range(5)])
    pair.sql(
        "WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
        "INSERT INTO permits SELECT 'S-' || i, '91440010012345' || i, '某', '2022-03-04', '1.00' FROM n",
        1000 + SLOW_ROWS,
    )
    return pair


def ask(client: httpx.Client, catalog: str = "permits") -> str:
    got = client.post("/v1/reconciliations", json={"catalog": catalog})
    assert got.status_code == 202, got.text
    return str(got.json()["id"])


def running(client: httpx.Client, run_id: str) -> Any:
    """Wait until it runs, and return it."""

    def look() -> Any:
        told = client.get(f"/v1/reconciliations/{run_id}").json()
        assert told["state"] in ("queued", "running"), told
        return told if told["state"] == "running" else None

    return until(look, 30)


def children_of(server: Server) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(server.process.pid).children(recursive=True)
        if "run-reconciliation" in child.cmdline()
    ]


def test_a_server_told_to_end_gives_its_run_back_and_the_next_one_does_it(busy: Pair) -> None:
    with serving(busy.city) as server, server.client("read", "reconcile") as client:
        token = client.headers["authorization"].removeprefix("Bearer ")
        run_id = ask(client)
        running(client, run_id)
        (child,) = until(lambda: children_of(server), 10)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 30
        assert not child.is_running()
    with serving(busy.city) as server, server.client(token=token) as client:
        told = finished(client, run_id)
        assert (told["state"], told["attempts"]) == ("finished", 1), told
        assert told["counts"]["unanchored"] == SLOW_ROWS + 1


def test_kill_9_of_everything_loses_no_run(busy: Pair) -> None:
    with serving(busy.city) as server, server.client("read", "reconcile") as client:
        token = client.headers["authorization"].removeprefix("Bearer ")
        first = ask(client)
        running(client, first)
        second = client.post("/v1/reconciliations", json={"catalog": "permits", "batch": "B1"}).json()["id"]
        server.kill(everything=True)
    with serving(busy.city) as server, server.client(token=token) as client:
        told = finished(client, first)
        assert (told["state"], told["attempts"]) == ("finished", 2)
        assert finished(client, second)["verdict"] == "matched_in_scope"


def test_kill_9_of_a_worker_leaves_its_run_alone(busy: Pair) -> None:
    with serving(busy.city) as server, server.client("read", "reconcile") as client:
        run_id = ask(client)
        running(client, run_id)
        (child,) = until(lambda: children_of(server), 10)
        psutil.Process(child.ppid()).kill()
        told = finished(client, run_id)
        assert (told["state"], told["attempts"]) == ("finished", 1)


def test_kill_9_of_the_child_is_noticed_and_begun_again_once(busy: Pair) -> None:
    with serving(busy.city) as server, server.client("read", "reconcile") as client:
        run_id = ask(client)
        for _ in range(2):
            running(client, run_id)
            (child,) = until(lambda: children_of(server), 10)
            child.kill()
            until(lambda killed=child: not killed.is_running(), 10)
            time.sleep(1)
        told = finished(client, run_id)
        assert (told["state"], told["error"]["code"]) == ("interrupted", "reconciliation.interrupted")
        none = client.get(f"/v1/reconciliations/{run_id}/findings")
        assert (none.status_code, none.json()["code"]) == (409, "reconciliation.not_finished")


def test_kill_9_of_the_main_process_ends_its_workers(busy: Pair) -> None:
    with serving(busy.city) as server:
        workers = psutil.Process(server.process.pid).children(recursive=True)
        server.kill()

        def gone() -> bool:
            left = [it for it in workers if it.is_running() and it.status() != psutil.STATUS_ZOMBIE]
            return not [it for it in left if "anvil" not in it.name()]

        until(gone, 30)


def test_two_of_one_catalog_run_one_after_the_other_and_two_catalogs_at_once(busy: Pair) -> None:
    home = busy.city.home
    (home / "catalogs" / "others.toml").write_text(CATALOG.replace('"permits"', '"others"'), encoding="utf-8")
    text = (home / "duizhang.toml").read_text(encoding="utf-8")
    source = text[text.index("[source.permits]") :].replace("[source.permits]", "[source.others]")
    (home / "duizhang.toml").write_text(f"{text}\n{source}", encoding="utf-8")
    with serving(busy.city) as server, server.client("read", "reconcile") as client:
        first = ask(client)
        running(client, first)
        again = client.post("/v1/reconciliations", json={"catalog": "permits"}).json()["id"]
        assert again != first
        # Asked for twice while it waits is asked for once.
        assert ask(client) == again
        other = ask(client, "others")
        both = False
        while True:
            listed = client.get("/v1/reconciliations").json()["items"]
            states = {it["id"]: it["state"] for it in listed}
            assert sum(it["state"] == "running" and it["catalog"] == "permits" for it in listed) <= 1
            both |= states[first] == states[other] == "running"
            if {states[first], states[again], states[other]} <= {"finished", "failed", "interrupted"}:
                break
            time.sleep(0.1)
        assert both
        one, two = (client.get(f"/v1/reconciliations/{run_id}").json() for run_id in (first, again))
        assert one["finished_at"] <= two["started_at"]
        assert one["counts"] == two["counts"]


def test_an_event_stream_ends_when_the_server_ends(busy: Pair) -> None:
    with serving(busy.city, workers=1) as server, server.client("read", "reconcile") as client:
        run_id = ask(client)
        running(client, run_id)
        with client.stream("GET", f"/v1/reconciliations/{run_id}/events") as stream:
            lines = stream.iter_lines()
            next(lines)
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            assert "event: final" not in list(lines)
        assert server.process.wait(30) == 0
        assert time.monotonic() - began < 14


def test_pages_lose_nothing_while_more_arrives(pair: Pair) -> None:
    for number in range(4):
        pair.deliver(f"B{number}", [permit(number)])
    with serving(pair.city, workers=2) as server, server.client("read") as client:
        seen = []
        cursor: str | None = None
        arrived = 10
        while True:
            page = client.get("/v1/batches", params={"limit": 1} | ({"cursor": cursor} if cursor else {})).json()
            seen += [it["number"] for it in page["items"]]
            cursor = page["next"]
            if cursor is None:
                break
            record = f"/v1/catalogs/permits/records/A-{arrived}"
            # Both workers have the stream open as it was.
            for _ in range(6):
                assert client.get(record, headers={"Connection": "close"}).json()["state"] == "unknown"
            pair.deliver(f"B{arrived}", [permit(arrived)])
            for _ in range(6):
                assert client.get(record, headers={"Connection": "close"}).json()["state"] == "live"
            arrived += 1
        assert seen == ["B3", "B2", "B1", "B0"]
        newest = client.get("/v1/batches").json()["items"]
        assert newest[0]["number"] == f"B{arrived - 1}"


@pytest.fixture
def held_port() -> Iterator[int]:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield int(taken.getsockname()[1])


def test_a_port_in_use_or_no_workspace_ends_with_2_and_says_so(pair: Pair, held_port: int, tmp_path: Path) -> None:
    ran = pair.city.run("serve", "--port", str(held_port), "--json")
    assert (ran.code, ran.json["error"]["code"]) == (2, "serve.address")
    (tmp_path / "empty").mkdir()
    from tests.conftest import Party

    ran = Party(tmp_path / "empty").run("serve", "--port", "0", "--json")
    assert (ran.code, ran.json["error"]["code"]) == (2, "workspace.missing")
