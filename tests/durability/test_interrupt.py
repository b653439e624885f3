"""Ctrl-C and SIGTERM at random moments of every long command: it ends within seconds with 2, and the next run is as if nothing had been.

The number of rounds is a tenth of DUIZHANG_KILL_ROUNDS, at least 1; the seed is DUIZHANG_KILL_SEED.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ledger.chain.node import nodes_of
from ledger.reconcile import runs
from ledger.reconcile.scope import Scope
from ledger.workspace import Workspace
from tests.conftest import CATALOG, FIELDS, Pair, permit
from tests.databases import Database
from tests.durability.test_kill import ROUNDS, SEED

ROWS = 1500
ENDS_SECONDS = 2.0
"""What is promised on an idle machine; a busy one gets three times as much."""
NOTHING: Mapping[str, str] = {}
COLUMNS = ", ".join(f"{name} text" for name in FIELDS)


@dataclass
class City:
    """The pair, and how to change the tables that the city's two sources read."""

    pair: Pair
    postgres: Database | None

    def insert(self, table: str, numbers: range) -> None:
        """Rows that land behind the ledger's back."""
        rows = [tuple(permit(n).values()) for n in numbers]
        if self.postgres is not None:
            self.postgres.fill(table, rows)
            return
        with contextlib.closing(sqlite3.connect(self.pair.database)) as connection, connection:
            connection.executemany(f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?)", rows)

    def still_read(self) -> list[tuple[Any, ...]]:
        """What the server still does for somebody who is gone."""
        return [] if self.postgres is None else running(self.postgres)


def running(database: Database) -> list[tuple[Any, ...]]:
    return database.run(
        "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'"
    )


@pytest.fixture(params=["sqlite", "postgresql"])
def city(request: pytest.FixtureRequest, pair: Pair) -> City:
    """Permits come from the province, seals are the city's own; reading either takes a second or two."""
    database: Database | None = request.getfixturevalue("postgres18") if request.param == "postgresql" else None
    home = pair.city.home
    (home / "catalogs" / "seals.toml").write_text(CATALOG.replace('"permits"', '"seals"'), encoding="utf-8")
    url = f"sqlite:///{pair.database}" if database is None else database.url
    if database is None:
        pair.sql(f"CREATE TABLE seals ({COLUMNS})")
    else:
        database.run(f"CREATE TABLE permits ({COLUMNS})", f"CREATE TABLE seals ({COLUMNS})")
    config = home / "duizhang.toml"
    slow = f"limit_rate = {ROWS}\n"
    text = re.sub(r'url = "sqlite:///[^"]*city\.db"', f'url = "{url}"', config.read_text(encoding="utf-8")) + slow
    config.write_text(
        f'{text}\n[source.seals]\nurl = "{url}"\ntable = "seals"\norigin = "own"\n{slow}', encoding="utf-8"
    )
    return City(pair, database)


def cut_off(
    pair: Pair, number: signal.Signals, seconds: float, *words: str, environment: Mapping[str, str] = NOTHING
) -> tuple[int, str]:
    """Run a command of the city and send it a signal after so long; its exit code and standard output."""
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    job = subprocess.Popen(
        [sys.executable, "-m", "ledger.cli", "-C", str(pair.city.home), *words, "--json", "--lang", "en"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    time.sleep(seconds)
    job.send_signal(number)
    told = time.monotonic()
    out, err = job.communicate(timeout=60)
    took = time.monotonic() - told
    assert took < ENDS_SECONDS * (3 if load > 1 else 1), (words, took)
    assert "Traceback" not in err, err
    return job.returncode, out


def check_interrupted(code: int, out: str, usual: int) -> bool:
    """True if the command was cut off; else it had come to its usual end before."""
    if code == usual and "error" not in json.loads(out):
        return False
    assert code == 2, (code, out)
    error = json.loads(out)["error"]
    assert error["code"] == "interrupted", error
    assert "matched" not in out
    return True


@pytest.mark.timeout(200 + 150 * ROUNDS)
def test_a_command_that_was_cut_off_ends_soon_and_the_next_one_gives_what_it_would_have_given(city: City) -> None:
    chance = random.Random(SEED)
    pair, home = city.pair, city.pair.city
    usual, cut = 6.0, 0

    def interrupted(*words: str, code: int = 0) -> None:
        nonlocal usual, cut
        for _ in range(2):
            number = chance.choice((signal.SIGINT, signal.SIGTERM))
            if check_interrupted(*cut_off(pair, number, chance.uniform(0.8, usual), *words), code):
                cut += 1
            assert not city.still_read()
            # The lock is free, and what it holds is sound: at once, with nothing in between that could mend it.
            checked = home.run("fsck", "--json")
            assert checked.code == 0, (words, checked.out)

    for turn in range(1, max(1, ROUNDS // 10) + 1):
        numbers = range(turn * ROWS, (turn + 1) * ROWS)
        path = pair.file(f"R{turn}.csv", [permit(n) for n in numbers])
        pair.province.ok("send", "permits", path, "--batch", f"R{turn}", "--to", "guangzhou")
        city.insert("permits", numbers)
        city.insert("seals", range(turn * ROWS, turn * ROWS + 40))
        digested = home.ok("digest", "permits", "--limit-rate", "1000000")
        interrupted("digest", "permits")
        assert home.ok("digest", "permits", "--limit-rate", "1000000") == digested

        interrupted("receive", "permits", path, "--batch", f"R{turn}", "--from", "guangdong")
        received = home.ok("receive", "permits", path, "--batch", f"R{turn}", "--from", "guangdong")
        assert (received["verdict"], received["anchor"]["size"], received["anchor"]["revision"]) == ("matched", ROWS, 1)

        interrupted("anchor", "seals")
        home.ok("anchor", "seals")
        began = time.monotonic()
        expected = home.ok("reconcile", "permits")
        usual = time.monotonic() - began + 1.5
        interrupted("reconcile", "permits")
        again = home.ok("reconcile", "permits")
        assert (again["counts"], again["findings"]) == (expected["counts"], [])
        interrupted("nightly")
        assert home.run("nightly", "--json").code == 0
    assert cut, "no command was still running when its signal came"
    turns = max(1, ROUNDS // 10)
    for catalog, size in (("permits", ROWS), ("seals", 40)):
        told = home.ok("reconcile", catalog)
        assert told["counts"]["matched"] == told["counts"]["source"] == sum(it["size"] for it in told["batches"])
        assert told["counts"]["matched"] == size * turns
        assert {it["revision"] for it in told["batches"]} == {1}
    assert nodes_of(pair.province.home / "chain"), "the chain's node did not survive"


@pytest.fixture
def stuck(city: City) -> City:
    """The city's source is a view that never gives a row."""
    if city.postgres is None:
        city.pair.sql(
            "CREATE VIEW endless AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
            "SELECT max(x) || '' AS no, '' AS uscc, '' AS holder, '' AS decided_on, '' AS fee FROM n"
        )
    else:
        city.postgres.run(
            "CREATE VIEW endless AS SELECT pg_sleep(3600)::text AS no, '' AS uscc, '' AS holder, '' AS decided_on, '' AS fee"
        )
    config = city.pair.city.home / "duizhang.toml"
    config.write_text(
        config.read_text(encoding="utf-8").replace('table = "permits"', 'view = "endless"'), encoding="utf-8"
    )
    return city


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_read_that_gives_nothing_is_ended_and_the_server_told(stuck: City, number: signal.Signals) -> None:
    code, out = cut_off(stuck.pair, number, 4.0, "digest", "permits")
    assert check_interrupted(code, out, -1)
    assert not stuck.still_read()


def test_a_queued_reconciliation_that_was_cut_off_has_no_outcome_and_is_done_again(stuck: City) -> None:
    home = stuck.pair.city.home
    with contextlib.closing(Workspace(home).open_store("update")) as store:
        run_id = runs.enqueue(store, "permits", Scope(), "api").id
        assert runs.claim(store, "w") is not None
        code, _ = cut_off(
            stuck.pair, signal.SIGTERM, 5.0, "run-reconciliation", run_id, environment={"DUIZHANG_WORKER": "w"}
        )
        assert code == 2
        row = runs.get(store, run_id)
        assert row is not None
        assert (row.state, row.verdict, row.error) == ("running", None, None), row.error
        runs.release(store, run_id, "w", told_to_stop=True)
        row = runs.get(store, run_id)
        assert row is not None
        assert (row.state, row.attempts) == ("queued", 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_main_thread_that_hears_nothing_is_ended_all_the_same(tmp_path: Path, number: signal.Signals) -> None:
    """A library that does not come back: here the busy wait of SQLite, deep in C."""
    code = (
        "import sys, sqlite3, ledger.cli, types\n"
        "def run(args):\n"
        "    print('ready', file=sys.stderr, flush=True)\n"
        f"    sqlite3.connect({str(tmp_path / 'held.db')!r}, timeout=600).execute('BEGIN IMMEDIATE')\n"
        "sys.modules['ledger.cli.status'] = types.SimpleNamespace(run=run)\n"
        "sys.argv = ['duizhang', 'status', '--json', '--lang', 'en']\n"
        "sys.exit(ledger.cli.main())\n"
    )
    with contextlib.closing(sqlite3.connect(tmp_path / "held.db", isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        job = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert job.stderr is not None
        assert job.stderr.readline() == "ready\n"
        time.sleep(0.3)
        job.send_signal(number)
        told = time.monotonic()
        out, err = job.communicate(timeout=30)
        assert time.monotonic() - told < ENDS_SECONDS + 1
    assert (job.returncode, json.loads(out)["error"]["code"], err) == (2, "interrupted", "")
