"""A reading that fails half-way, wherever it fails, gives exit 2 and no verdict: not on screen, not on record, not in a brief."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from ledger.errors import SourceError
from ledger.kernel.chunk import Chunk
from ledger.kernel.entries import Kernel, Result
from ledger.source.sqlite import SqliteSource
from ledger.store import models
from ledger.workspace import Workspace
from tests.conftest import Pair, permit

CHUNKS = 3
"""The first chunk of a table has 256 rows, the second twice as many."""
ROWS = 256 + 512 + 10


@pytest.fixture
def filled(pair: Pair) -> Pair:
    """A delivery of several chunks that has landed and matches; the runs on record up to here are counted away."""
    pair.deliver("B1", [permit(n) for n in range(ROWS)])
    assert pair.city.reconcile()[0] == 0
    return pair


def rule(at: int) -> SourceError:
    return SourceError("source.lost", f"第 {at} 块断开", f"lost at chunk {at}", "city.db:permits")


def break_reader(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """The source is lost instead of its chunk number `at`; CHUNKS is after the last, where the end would be told."""
    whole = SqliteSource.scan

    def scan(self: SqliteSource) -> Iterator[Chunk]:
        for number, chunk in enumerate(whole(self)):
            if number == at:
                raise rule(at)
            yield chunk
        if at == CHUNKS:
            raise rule(at)

    monkeypatch.setattr(SqliteSource, "scan", scan)


def break_kernel(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """The same in a thread that works on a chunk."""
    whole = Kernel.run
    seen: set[int] = set()

    def run(self: Kernel, chunk: Chunk) -> Result:
        if int(chunk.numbers[0]) == (1, 257, 769)[at]:
            seen.add(threading.get_ident())
            assert threading.current_thread() is not threading.main_thread()
            raise rule(at)
        return whole(self, chunk)

    monkeypatch.setattr(Kernel, "run", run)


BROKEN: list[tuple[str, Callable[[pytest.MonkeyPatch, int], None], int]] = [
    *((f"reader-{at}", break_reader, at) for at in range(CHUNKS + 1)),
    *((f"kernel-{at}", break_kernel, at) for at in range(CHUNKS)),
]


@pytest.mark.parametrize(("how", "at"), [it[1:] for it in BROKEN], ids=[it[0] for it in BROKEN])
def test_nothing_says_matched_where_a_part_could_not_be_read(
    filled: Pair, monkeypatch: pytest.MonkeyPatch, how: Callable[[pytest.MonkeyPatch, int], None], at: int
) -> None:
    city = filled.city
    before = on_record(filled)
    how(monkeypatch, at)
    for words in (("reconcile", "permits"), ("reconcile", "permits", "--batch", "B1"), ("digest", "permits")):
        ran = city.run(*words, "--json")
        assert (ran.code, ran.json["error"]["code"]) == (2, "source.lost"), ran
        assert "matched" not in ran.out + ran.err
        plain = city.run(*words)
        assert plain.code == 2
        assert plain.out == ""
    assert on_record(filled) == before
    ran = city.run("nightly", "--json")
    assert ran.code == 2
    assert ran.json["reconciled"] == []
    assert [it["error"]["code"] for it in ran.json["failures"]] == ["source.lost"]
    # What the two parties anchored was compared too, and matches: that says nothing of the source.
    rest = {member: value for member, value in ran.json.items() if member != "compared"}
    assert "matched" not in json.dumps(rest)
    (text,) = (city.home / "briefs").glob("*.txt")
    assert "一致" not in text.read_text(encoding="utf-8")
    assert on_record(filled) == before
    monkeypatch.undo()
    assert city.reconcile()[0] == 0


@pytest.mark.parametrize(("how", "at"), [it[1:] for it in BROKEN], ids=[it[0] for it in BROKEN])
def test_nothing_of_an_own_source_is_sealed_that_was_read_in_part(
    own: Pair, monkeypatch: pytest.MonkeyPatch, how: Callable[[pytest.MonkeyPatch, int], None], at: int
) -> None:
    with closing(sqlite3.connect(own.database)) as connection, connection:
        rows = [tuple(permit(n).values()) for n in range(ROWS)]
        connection.executemany("INSERT INTO permits VALUES (?, ?, ?, ?, ?)", rows)
    with monkeypatch.context() as broken:
        how(broken, at)
        ran = own.city.run("anchor", "permits", "--json")
    assert (ran.code, ran.json["error"]["code"]) == (2, "source.lost")
    assert own.city.ok("fsck")
    assert not list((own.city.home / "entries").glob("*.parquet"))
    assert own.city.ok("anchor", "permits")["anchored"][0]["anchor"]["size"] == ROWS


def test_a_landing_that_was_read_in_part_is_not_anchored(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [permit(n) for n in range(ROWS)]
    path = pair.file("B1.csv", rows)
    pair.province.ok("send", "permits", path, "--batch", "B1", "--to", "guangzhou")
    with closing(sqlite3.connect(pair.database)) as connection, connection:
        connection.executemany("INSERT INTO permits VALUES (?, ?, ?, ?, ?)", [tuple(row.values()) for row in rows])
    words = ("receive", "permits", path, "--batch", "B1", "--from", "guangdong")
    for at in range(CHUNKS + 1):
        with monkeypatch.context() as broken:
            break_reader(broken, at)
            ran = pair.city.run(*words, "--json")
        assert (ran.code, ran.json["error"]["code"]) == (2, "source.lost")
    got = pair.city.ok(*words)
    assert (got["verdict"], got["anchor"]["revision"], got["anchor"]["size"]) == ("matched", 1, ROWS)


def on_record(pair: Pair) -> list[tuple[str, str | None]]:
    """State and verdict of every reconciliation on record."""
    with closing(Workspace(pair.city.home).open_store("read")) as store, store.read() as session:
        rows = session.query(models.Reconciliation).order_by(models.Reconciliation.id)
        return [(row.state, row.verdict) for row in rows]


# ---- the same data, another order, other threads, other hashes ----

_PROGRAM = (
    "import sys, ledger.kernel.ahead as ahead\n"
    "ahead.WORKERS = int(sys.argv.pop(1))\n"
    "ahead.in_order.__defaults__ = (ahead.WORKERS,)\n"
    "from ledger.cli import main\n"
    "sys.exit(main())\n"
)


def test_output_depends_on_the_data_alone(filled: Pair) -> None:
    """Not on the physical order of the rows, the number of threads, or the order of Python's sets."""
    pair = filled
    pair.sql("UPDATE permits SET holder = '乙公司' WHERE no IN ('A-3', 'A-300', 'A-777')")
    pair.sql("DELETE FROM permits WHERE no IN ('A-8', 'A-9', 'A-700')")
    pair.sql("INSERT INTO permits SELECT * FROM permits WHERE no = 'A-11'")
    pair.sql("INSERT INTO permits SELECT no || 'x', uscc, holder, decided_on, fee FROM permits WHERE no LIKE 'A-5__'")
    pair.sql("UPDATE permits SET fee = 'much' WHERE no IN ('A-20', 'A-21')")
    outputs = set()
    for order, workers, seed in (("rowid", 1, 0), ("no DESC", 2, 1), ("holder, fee DESC", 4, 2), ("random()", 4, 3)):
        pair.sql(f"CREATE TABLE other AS SELECT * FROM permits ORDER BY {order}")
        pair.sql("DROP TABLE permits")
        pair.sql("ALTER TABLE other RENAME TO permits")
        ran = subprocess.run(
            [sys.executable, "-c", _PROGRAM, str(workers), "-C", str(pair.city.home), "reconcile", "permits", "--json"],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONHASHSEED": str(seed)},
        )
        assert ran.returncode == 1, ran
        told = json.loads(ran.stdout)
        # New are findings that were never told before: that is another question than what the data say.
        for finding in told["findings"]:
            finding.pop("state", None)
        for member in ("block", "time", "position"):
            told["against"].pop(member)
        told.pop("states", None)
        outputs.add(json.dumps(told, ensure_ascii=False))
    assert len(outputs) == 1, outputs
