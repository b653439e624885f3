"""Real servers: `duizhang serve` in processes of their own, on a real workspace and chain."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.conftest import Pair, Party, paired, permit, withdrawn


def pytest_configure(config: pytest.Config) -> None:
    """The mark of what CI runs for a minute."""
    config.addinivalue_line("markers", "load: everything at once, for DUIZHANG_LOAD_SECONDS")


@dataclass
class Server:
    """One running `duizhang serve`."""

    party: Party
    process: subprocess.Popen[str]
    url: str
    log: Path

    def client(self, *scopes: str, token: str | None = None, **options: Any) -> httpx.Client:
        """A client with a token of these scopes (none: without a token)."""
        text = token or (self.token(*scopes) if scopes else None)
        headers = {"Authorization": f"Bearer {text}"} if text else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, **options)

    def token(self, *scopes: str) -> str:
        """A new token."""
        words = [word for scope in scopes for word in ("--scope", scope)]
        return str(self.party.ok("token", "create", "测试", *words)["token"])

    def stop(self) -> int:
        """Tell it to end, and wait."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)

    def kill(self, *, everything: bool = False) -> None:
        """kill -9 of the main process; with `everything`, of its workers and their children as well."""
        main = psutil.Process(self.process.pid)
        victims = [main, *main.children(recursive=True)] if everything else [main]
        for victim in victims:
            victim.kill()
        self.process.wait(10)


def start(party: Party, *, workers: int = 2, env: Mapping[str, str] | None = None) -> Server:
    """Start a server and wait until it answers."""
    log = party.home.parent / f"serve-{time.monotonic_ns()}.log"
    command = [
        sys.executable,
        "-m",
        "ledger.cli",
        "-C",
        str(party.home),
        "serve",
        "--port",
        "0",
        "--workers",
        str(workers),
        "--json",
    ]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, **(env or {})}
        )
    assert process.stdout is not None
    lines: list[str] = []
    while not lines or lines[-1].strip() != "}":
        line = process.stdout.readline()
        assert line, log.read_text()
        lines.append(line)
    server = Server(party, process, json.loads("".join(lines))["url"], log)
    until(lambda: answers(server.url), 60)
    return server


@contextmanager
def serving(party: Party, *, workers: int = 2, env: Mapping[str, str] | None = None) -> Iterator[Server]:
    """A server while the block lasts; afterwards nothing of it is left."""
    server = start(party, workers=workers, env=env)
    family = psutil.Process(server.process.pid).children(recursive=True)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            family = psutil.Process(server.process.pid).children(recursive=True)
            try:
                server.stop()
            except subprocess.TimeoutExpired:
                server.process.kill()
        for left in family:
            # The node is the workspace's, not the server's.
            if left.is_running() and "anvil" not in left.name():
                left.kill()
        server.process.stdout.close()  # type: ignore[union-attr]


def answers(url: str) -> bool:
    """True if a server answers there."""
    try:
        httpx.get(f"{url}/openapi.json", timeout=10)
    except httpx.HTTPError:
        return False
    return True


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait for something and return it."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.1)
    return value


def finished(client: httpx.Client, run_id: str, seconds: float = 90) -> Any:
    """The reconciliation once it came to an end."""

    def look() -> Any:
        try:
            told = client.get(f"/v1/reconciliations/{run_id}").json()
        except httpx.TransportError:
            return None  # the worker at the other end was killed
        return told if told["state"] in ("finished", "failed", "interrupted") else None

    return until(look, seconds)


def damage(pair: Pair) -> None:
    """Three batches, the last of which withdraws and has the number of a formula; then rows altered, missing, from nowhere."""
    pair.deliver("B1", [permit(n) for n in range(6)])
    pair.deliver("B2", [permit(n, holder="乙公司") for n in range(2)])
    file = pair.file("B3.csv", [permit(7), withdrawn(5)])
    pair.province.ok("send", "permits", file, "--batch", "=B3", "--to", "guangzhou")
    pair.city.ok("receive", "permits", file, "--batch", "=B3", "--from", "guangdong", "--load")
    pair.sql("UPDATE permits SET fee = '99.00' WHERE no = 'A-2'")
    pair.sql("UPDATE permits SET fee = '99.00' WHERE no = 'A-7'")
    pair.sql("DELETE FROM permits WHERE no = 'A-3'")
    pair.sql(
        "INSERT INTO permits VALUES (?, ?, ?, ?, ?)", "=cmd|calc", "914400101234500099", "=1+1", "2022-03-04", "1.00"
    )


@pytest.fixture(scope="module")
def damaged(_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both workspaces with differences, shared by the tests of a module, which only read them."""
    with paired(_template, tmp_path_factory.mktemp("damaged")) as pair:
        damage(pair)
        yield pair


@pytest.fixture(scope="module")
def server(damaged: Pair) -> Iterator[Server]:
    """A server of two workers on it."""
    with serving(damaged.city) as running:
        yield running


@pytest.fixture(scope="module")
def reader(server: Server) -> Iterator[httpx.Client]:
    """A client with a token that may read."""
    with server.client("read") as client:
        yield client


@pytest.fixture(scope="module")
def worker(server: Server) -> Iterator[httpx.Client]:
    """A client that may read and reconcile."""
    with server.client("read", "reconcile") as client:
        yield client


@pytest.fixture(scope="module")
def run(worker: httpx.Client) -> Any:
    """A reconciliation that was asked for over HTTP and finished."""
    asked = worker.post("/v1/reconciliations", json={"catalog": "permits"})
    assert asked.status_code == 202, asked.text
    return finished(worker, asked.json()["id"])
