"""`kill -9` of the nightly job, of the chain, of both, at random moments (design section 6).

Whatever is killed, the next run goes on: no confirmed anchor is lost, nothing is anchored twice, no restart is refused. The number of
rounds is DUIZHANG_KILL_ROUNDS (5 in scripts/test, 50 in .ci/run), the seed DUIZHANG_KILL_SEED.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ledger.chain.node import nodes_of
from tests.conftest import CATALOG, FIELDS, Pair, permit

ROUNDS = int(os.environ.get("DUIZHANG_KILL_ROUNDS", "5"))
SEED = int(os.environ.get("DUIZHANG_KILL_SEED", "20260131"))


@pytest.fixture
def busy(pair: Pair) -> Pair:
    """The pair with a second catalog at the city, whose table is a source of its own."""
    (pair.city.home / "catalogs" / "seals.toml").write_text(CATALOG.replace('"permits"', '"seals"'), encoding="utf-8")
    with sqlite3.connect(pair.database) as connection:
        connection.execute(f"CREATE TABLE seals ({', '.join(f'{name} TEXT' for name in FIELDS)})")
    connection.close()
    with (pair.city.home / "duizhang.toml").open("a", encoding="utf-8") as config:
        config.write(f'\n[source.seals]\nurl = "sqlite:///{pair.database}"\ntable = "seals"\norigin = "own"\n')
    return pair


def arrive(pair: Pair, number: int) -> None:
    """A new delivery is announced, its file lies in the inbox, its rows have landed; and the city has three new rows of its own."""
    rows = [permit(100 * number + n) for n in range(4)]
    path = Path(pair.file(f"R{number}.csv", rows))
    pair.province.ok("send", "permits", str(path), "--batch", f"R{number}", "--to", "guangzhou")
    inbox = pair.city.home / "inbox" / "guangdong" / "permits"
    inbox.mkdir(parents=True, exist_ok=True)
    (inbox / path.name).write_bytes(path.read_bytes())
    for row in rows:
        pair.sql("INSERT INTO permits VALUES (?, ?, ?, ?, ?)", *row.values())
    for n in range(3):
        pair.sql("INSERT INTO seals VALUES (?, ?, ?, ?, ?)", *permit(100 * number + n).values())


def nightly(pair: Pair) -> subprocess.Popen[bytes]:
    """A nightly job in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "ledger.cli", "-C", str(pair.city.home), "nightly", "--json"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def kill_chain(pair: Pair) -> None:
    """Kill the node without warning."""
    for node in nodes_of(pair.province.home / "chain"):
        os.kill(node.pid, signal.SIGKILL)


@pytest.mark.timeout(60 + 40 * ROUNDS)
def test_nothing_is_lost_or_doubled_by_killing_the_job_or_the_chain(busy: Pair) -> None:
    chance = random.Random(SEED)
    began = time.monotonic()
    assert busy.city.run("nightly").code == 0
    usual = time.monotonic() - began + 1.0
    for number in range(1, ROUNDS + 1):
        arrive(busy, number)
        for _ in range(chance.randint(1, 2)):
            job = nightly(busy)
            victims = chance.choice(("job", "chain", "both"))
            time.sleep(chance.uniform(0.2, usual))
            if victims != "job":
                kill_chain(busy)
            if victims != "chain":
                job.kill()
            job.wait()
        told = busy.city.run("nightly", "--json")
        assert told.code == 0, (number, told.out)
        checked = busy.city.run("fsck", "--json")
        assert checked.code == 0, (number, checked.out)
    assert anchored_once(busy) == ROUNDS


def anchored_once(pair: Pair) -> int:
    """How many deliveries are anchored by both sides with equal roots in one revision; own rows stand in exactly one batch each."""
    told = pair.city.ok("reconcile", "permits")
    assert told["counts"]["matched"] == told["counts"]["source"] == 4 * ROUNDS
    for batch in told["batches"]:
        assert batch["root"] == batch["held_root"], batch
        assert (batch["revision"], batch["held_revision"]) == (1, 1), batch
    sealed = pair.city.ok("reconcile", "seals")
    assert sealed["counts"]["matched"] == sum(batch["size"] for batch in sealed["batches"]) == 3 * ROUNDS
    return len(told["batches"])
