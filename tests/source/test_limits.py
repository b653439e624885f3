"""A source is read no faster and no longer than the operator allows, and tells about how many rows it has."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ledger.catalog import Catalog
from ledger.errors import SourceError
from ledger.kernel.chunk import Chunk
from ledger.pace import Pace
from ledger.source.files import open_file
from ledger.source.paced import PacedSource
from ledger.source.table import open_table
from tests.databases import Database

TABLE = "CREATE TABLE fines (no TEXT, holder TEXT, fee TEXT, decided TEXT)"
ENDLESS = (
    "CREATE VIEW endless AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
    "SELECT max(x) || '' AS no, 'a' AS holder, '1' AS fee, '2024-01-01' AS decided FROM n"
)
"""Never gives a row, and never ends."""


class Clock:
    """Time that passes only where the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


@pytest.mark.parametrize(
    ("chunk", "busy"),
    [
        (chunk, busy)
        for chunk in (1, 7, 999, 1000, 1001, 16_384, 100_000)
        for busy in (0.0, 0.0005, 0.9, 5.0)
        if busy < chunk / 1000
    ],
)
def test_the_average_is_held_to_a_few_per_cent_whatever_the_chunks_are(chunk: int, busy: float) -> None:
    rate = 1000
    clock = Clock()
    pace = Pace(rate, clock, clock.wait)
    pace.begin()
    began, rows = clock.now, 0
    while rows < 400_000:
        clock.now += busy
        pace.spend(chunk)
        rows += chunk
    assert rows / (clock.now - began) == pytest.approx(rate, rel=0.03)


def test_uneven_chunks_and_a_slow_consumer_never_pass_the_rate_by_more_than_a_second_and_a_chunk() -> None:
    rate, clock = 500, Clock()
    pace = Pace(rate, clock, clock.wait)
    pace.begin()
    read: list[tuple[float, int]] = [(clock.now, 0)]
    for turn in range(400):
        clock.now += 30.0 if turn % 40 == 20 else 0.01
        rows = (turn * 7919) % 900 + 1
        pace.spend(rows)
        read.append((clock.now, read[-1][1] + rows))
    for first, (then, before) in enumerate(read):
        for at, total in read[first + 1 :]:
            assert total - before <= rate * (at - then) + rate + 900
    assert max(later - now for (now, _), (later, _) in pairwise(read)) <= 32.0


def test_a_reader_slower_than_the_limit_is_not_made_to_wait() -> None:
    clock = Clock()
    pace = Pace(1000, clock, lambda seconds: pytest.fail(f"waited {seconds} s"))
    pace.begin()
    for _ in range(50):
        clock.now += 2.0
        pace.spend(1000)


def test_two_readings_of_one_job_count_together(fines: Catalog, database: Callable[..., str]) -> None:
    rows = [(str(n), "a", "1", "2024-01-01") for n in range(1000)]
    clock = Clock()
    pace = Pace(100, clock, clock.wait)
    with open_table(database(TABLE, rows=rows), "fines", fines) as source:
        paced = PacedSource(source, "fines", pace, None)
        for _ in range(2):
            assert sum(len(chunk) for chunk in paced.scan()) == 1000
    assert clock.now - 1000.0 == pytest.approx(20.0)


def test_a_statement_that_gives_nothing_is_ended_on_sqlite(fines: Catalog, database: Callable[..., str]) -> None:
    began = time.monotonic()
    with (
        pytest.raises(SourceError) as caught,
        open_table(database(TABLE, ENDLESS), "endless", fines, timeout_seconds=1) as source,
    ):
        list(source.scan())
    assert 1 <= time.monotonic() - began < 8
    check_told(caught.value, "endless", 1)


def test_a_scan_within_its_time_is_left_alone_and_the_next_has_its_own(
    fines: Catalog, database: Callable[..., str]
) -> None:
    rows = [(str(n), "a", "1", "2024-01-01") for n in range(600)]
    with open_table(database(TABLE, rows=rows), "fines", fines, timeout_seconds=1) as source:
        for _ in range(2):
            assert sum(len(chunk) for chunk in source.scan()) == 600
            time.sleep(0.7)


def test_a_statement_that_gives_nothing_is_ended_on_postgres(fines: Catalog, postgres18: Database) -> None:
    postgres18.run(
        "CREATE VIEW slow AS SELECT '1' AS no, 'a' AS holder, 1.00 AS fee, now()::date AS decided, (pg_sleep(60))::text AS z"
    )
    began = time.monotonic()
    with (
        pytest.raises(SourceError) as caught,
        open_table(postgres18.url, "slow", fines, timeout_seconds=1, columns={"holder": "z"}) as source,
    ):
        list(source.scan())
    assert 1 <= time.monotonic() - began < 15
    check_told(caught.value, "slow", 1)
    assert not active(postgres18)


def test_a_role_s_own_time_out_is_told_as_such(fines: Catalog, postgres18: Database) -> None:
    postgres18.run(
        "CREATE VIEW slow AS SELECT '1' AS no, pg_sleep(60)::text AS holder, 1.00 AS fee, now()::date AS decided",
        f'ALTER DATABASE "{postgres18.name}" SET statement_timeout = 500',
    )
    with pytest.raises(SourceError) as caught, open_table(postgres18.url, "slow", fines) as source:
        list(source.scan())
    assert caught.value.code == "source.timeout"
    assert "timeout_seconds" not in caught.value.en
    assert "statement_timeout" in caught.value.en


def test_a_statement_that_gives_nothing_is_ended_on_mariadb(fines: Catalog, mariadb: Database) -> None:
    mariadb.run(
        "CREATE VIEW slow AS SELECT '1' AS no, 'a' AS holder, 1.00 AS fee, DATE(NOW() + INTERVAL SLEEP(60) SECOND) AS decided"
    )
    began = time.monotonic()
    with (
        pytest.raises(SourceError) as caught,
        open_table(mariadb.url, "slow", fines, timeout_seconds=1) as source,
    ):
        list(source.scan())
    assert 1 <= time.monotonic() - began < 15
    check_told(caught.value, "slow", 1)


def check_told(error: SourceError, table: str, seconds: int) -> None:
    assert error.code == "source.timeout"
    assert error.where.endswith(table)
    for text in (error.zh, error.en):
        assert f"[source.fines] timeout_seconds = {seconds}" in text
        assert "limit_rate" in text


def active(database: Database) -> list[tuple[object, ...]]:
    return database.run(
        "SELECT query FROM pg_stat_activity WHERE state <> 'idle' AND pid <> pg_backend_pid() AND backend_type = 'client backend' "
        "AND datname = current_database()"
    )


class Slow:
    """A source of any kind of database that takes its time between chunks."""

    where, ignored, notes = "anysql:fines", (), ()

    def __init__(self, chunks: Sequence[Chunk], seconds: float) -> None:
        self.chunks, self.seconds = chunks, seconds

    def about_rows(self) -> int | None:
        return None

    def scan(self) -> Iterator[Chunk]:
        for chunk in self.chunks:
            time.sleep(self.seconds)
            yield chunk


def test_where_the_database_ends_nothing_the_reading_ends_between_two_chunks(
    fines: Catalog, database: Callable[..., str]
) -> None:
    rows = [(str(n), "a", "1", "2024-01-01") for n in range(10)]
    with open_table(database(TABLE, rows=rows), "fines", fines) as source:
        (chunk,) = source.scan()
    reading = PacedSource(Slow([chunk] * 9, 0.4), "fines", None, 1).scan()
    next(reading)
    with pytest.raises(SourceError) as caught:
        list(reading)
    check_told(caught.value, "fines", 1)


def test_about_how_many_rows(
    fines: Catalog,
    database: Callable[..., str],
    write: Callable[[bytes | str], Path],
    tmp_path: Path,
    postgres18: Database,
) -> None:
    rows = [(f"{n:05}", "公司", "1.00", "2024-01-01") for n in range(5000)]
    url = database(
        TABLE,
        "CREATE VIEW seen AS SELECT * FROM fines",
        "CREATE TABLE odd (no TEXT PRIMARY KEY, holder TEXT, fee TEXT, decided TEXT) WITHOUT ROWID",
        "CREATE TABLE flakes (no TEXT, holder TEXT, fee TEXT, decided TEXT, id INTEGER PRIMARY KEY)",
        "INSERT INTO flakes VALUES ('1', 'a', '1', '2024-01-01', 1), ('2', 'a', '1', '2024-01-01', 1767225600000000)",
        rows=rows,
    )
    for table, about in (("fines", 5000), ("seen", None), ("odd", None), ("flakes", None)):
        with open_table(url, table, fines) as source:
            assert source.about_rows() == about, table
            assert sum(len(chunk) for chunk in source.scan()) == {"fines": 5000, "seen": 5000, "flakes": 2}.get(
                table, 0
            )
    text = "no,holder,fee,decided\n" + "".join(",".join(row) + "\n" for row in rows)
    with open_file(write(text), fines) as file:
        assert file.about_rows() == pytest.approx(5000, rel=0.01)
        assert sum(len(chunk) for chunk in file.scan()) == 5000
    packed = tmp_path / "fines.parquet"
    names = ("no", "holder", "fee", "decided")
    pq.write_table(pa.table({name: [row[at] for row in rows] for at, name in enumerate(names)}), packed)
    with open_file(packed, fines) as file:
        assert file.about_rows() == 5000
        assert sum(len(chunk) for chunk in file.scan()) == 5000
    postgres18.run(
        "CREATE TABLE fines (no text, holder text, fee numeric(9,2), decided date)",
        "INSERT INTO fines SELECT n::text, 'a', 1, '2024-01-01' FROM generate_series(1, 5000) n",
        "ANALYZE fines",
        "CREATE VIEW seen AS SELECT * FROM fines",
    )
    for table in ("fines", "seen"):
        with open_table(postgres18.url, table, fines) as source:
            assert source.about_rows() == pytest.approx(5000, rel=0.1)
            assert sum(len(chunk) for chunk in source.scan()) == 5000


def test_about_how_many_rows_of_mariadb(fines: Catalog, mariadb: Database) -> None:
    mariadb.run(
        "CREATE TABLE fines (no varchar(20), holder text, fee decimal(9,2), decided date)",
        "INSERT INTO fines SELECT seq, 'a', 1, '2024-01-01' FROM seq_1_to_5000",
        "ANALYZE TABLE fines",
    )
    with open_table(mariadb.url, "fines", fines) as source:
        assert source.about_rows() == pytest.approx(5000, rel=0.2)
        assert sum(len(chunk) for chunk in source.scan()) == 5000
