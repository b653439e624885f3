"""On a real cluster: sizes, roots, sketches, findings and refusals are those of the local engine, and what goes wrong is no answer."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from ledger.batch.engine import size_and_root
from ledger.errors import LedgerError, SourceError
from ledger.source.table import open_table
from ledger.spark import jdbc
from ledger.spark.source import SparkSource, spread
from tests.databases import Database
from tests.spark.conftest import Cluster
from tests.spark.rows import catalog, catalog_keys, rows, typed, write_parquet
from tests.spark.slow import Odd
from tests.spark.test_seam import history, outcome

pytestmark = pytest.mark.spark
KEYS = catalog_keys()
TEXT = "no text, uscc text, holder text, decided_on text, fee text, batch text, version bigint"
TYPED = (
    "no varchar(60), uscc char(18), holder text, decided_on date, fee numeric, batch varchar(10), version timestamptz"
)
OTHERS = (
    "INSERT INTO permits VALUES ('T-1', '9144', 'a', 'infinity', 1, NULL, 'infinity')",
    "INSERT INTO permits VALUES ('T-2', NULL, 'b', '0044-03-15 BC', 1, 'b1', NULL)",
    "INSERT INTO permits VALUES ('T-3', '', 'c', '9999-12-31', 'NaN', 'b1', '2022-01-01 00:00:00.5+08')",
    "INSERT INTO permits VALUES ('T-4', '９１', NULL, '0001-01-01', 1e3, '', 'epoch')",
    "INSERT INTO permits VALUES (NULL, 'x', 'y', NULL, -0.00, 'B2', NULL)",
    "INSERT INTO permits VALUES ('T-1', 'x', 'y', NULL, 0.005, 'B2', NULL)",
)


@contextmanager
def opened(url: str, cluster: Cluster) -> Iterator[tuple[Any, SparkSource]]:
    with open_table(url, "permits", catalog(), batch_column="batch", row_version_column="version") as table:
        there = spread(table, catalog(), cluster.config, cluster.root)
        assert isinstance(there, SparkSource)
        yield table, there


def digest(table: Any, cells: int | None = None) -> Any:
    """Size, root and sketch, or the refusal."""
    try:
        return size_and_root(table, catalog(), KEYS, cells)
    except LedgerError as error:
        return error.code, error.zh, error.en, error.where


def compared(one: Any, other: Any, folder: Path, found: list[dict[str, Any]], seed: int) -> None:
    made, accepted = history(found, folder / "past", random.Random(seed), versions=True)
    more: Any = {"batch": "B1", "scoped": False, "erased": True}
    a, b = (outcome(it, made, accepted, seed, **more) for it in (one, other))
    assert a.counts == b.counts
    assert [it.as_json() for it in a.findings] == [it.as_json() for it in b.findings]
    assert a.newly_seen.tobytes() == b.newly_seen.tobytes()
    assert a.updated.tobytes() == b.updated.tobytes()
    assert a.unversioned.tobytes() == b.unversioned.tobytes()
    assert (a.accepted, list(a.newly_seen_keys), a.updated_keys) == (
        b.accepted,
        list(b.newly_seen_keys),
        b.updated_keys,
    )


def table_of(database: Database, columns: str, found: list[dict[str, Any]]) -> str:
    database.run(f"CREATE TABLE permits ({columns})")
    database.fill("permits", typed(found))
    return database.url


def test_parquet_in_two_processes_is_the_local_root_and_sketch(cluster: Cluster, tmp_path: Path) -> None:
    # No subject anywhere, so that all entries begin with the same 16 zeros: told apart by these alone, one task would have them all.
    found = [{**it, "uscc": None} for it in rows(3000, 1, dirty=False)]
    write_parquet(tmp_path / "permits", found, group=400)
    with opened(f"parquet:///{tmp_path}", cluster) as (here, there):
        assert digest(here, 64) == digest(there, 64)
        assert sum(there.sorted) == 3000
        assert max(there.sorted) < 2500
        assert len(there.sorted) == 2
        assert len(there.processes) >= 2
        assert str(os.getpid()) not in {it.split()[1] for it in there.processes}
        compared(here, there, tmp_path, found, 2)


def test_parquet_with_everything_that_goes_wrong(cluster: Cluster, tmp_path: Path) -> None:
    found = rows(500, 3, dirty=True)
    write_parquet(tmp_path / "permits", found, group=90)
    with opened(f"parquet:///{tmp_path}", cluster) as (here, there):
        refused = digest(here)
        assert refused[0] == "file.bad_rows"
        assert refused == digest(there)
        compared(here, there, tmp_path, found, 5)


def test_repeated_keys_are_refused_in_the_same_words(cluster: Cluster, tmp_path: Path) -> None:
    found = rows(300, 4, dirty=False)
    write_parquet(tmp_path / "permits", [*found, found[7], found[70], found[7]], group=90)
    with opened(f"parquet:///{tmp_path}", cluster) as (here, there):
        refused = digest(here)
        assert refused[0] == "batch.duplicate_key"
        assert refused == digest(there)


def test_no_rows_at_all(cluster: Cluster, tmp_path: Path) -> None:
    write_parquet(tmp_path / "permits", [])
    with opened(f"parquet:///{tmp_path}", cluster) as (here, there):
        assert digest(here, 8) == digest(there, 8)
        assert digest(here)[0] == 0


def test_jdbc_is_the_local_root_whatever_is_written_meanwhile(
    cluster: Cluster, postgres18: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = rows(1500, 6, dirty=False)
    url = table_of(postgres18, TEXT, found)
    with opened(url, cluster) as (here, there):
        before = digest(here, 32)
        assert before[0] == 1500
        postgres18.run(
            "UPDATE permits SET fee = '1' WHERE version % 2 = 0",
            "DELETE FROM permits WHERE version % 5 = 0",
            "INSERT INTO permits (no) SELECT 'N-' || n FROM generate_series(1, 700) n",
        )
        assert digest(there, 32) == before
        assert len(there.processes) >= 2
        compared(here, there, tmp_path, found, 8)
    # The rows of another moment are not taken for these: without the import nothing is concluded.
    monkeypatch.setattr(jdbc, "_SESSION", tuple(it for it in jdbc._SESSION if "SNAPSHOT" not in it))
    with opened(url, cluster) as (here, there):
        assert digest(here)[0] != 1500
        postgres18.run("DELETE FROM permits WHERE no = 'N-1'")
        told = digest(there)
        assert told[0] == "spark.unbalanced", told


def test_jdbc_of_typed_columns(cluster: Cluster, postgres18: Database, tmp_path: Path) -> None:
    found = [{**it, "version": None, "uscc": (it["uscc"] or "")[:18]} for it in rows(300, 9, dirty=False)]
    url = table_of(postgres18, TYPED, found)
    with opened(url, cluster) as (here, there):
        assert digest(here, 16) == digest(there, 16)
    postgres18.run(*OTHERS, "UPDATE permits SET version = '2024-02-29 12:00:00+00' WHERE no LIKE '%7%'")
    with opened(url, cluster) as (here, there):
        refused = digest(here)
        assert refused[0] == "file.bad_rows"
        assert refused == digest(there)
        compared(here, there, tmp_path, found, 11)


def test_jdbc_of_a_partitioned_table_and_a_view(cluster: Cluster, postgres18: Database) -> None:
    found = rows(200, 12, dirty=False)
    postgres18.run(
        f"CREATE TABLE whole ({TEXT}) PARTITION BY HASH (no)",
        *(f"CREATE TABLE part{at} PARTITION OF whole FOR VALUES WITH (MODULUS 3, REMAINDER {at})" for at in range(3)),
    )
    postgres18.fill("whole", typed(found))
    for create in (
        "ALTER TABLE whole RENAME TO permits",
        "ALTER TABLE permits RENAME TO whole; CREATE VIEW permits AS SELECT * FROM whole",
    ):
        postgres18.run(create)
        with opened(postgres18.url, cluster) as (here, there):
            assert digest(here) == digest(there)


def test_what_jdbc_would_do_otherwise_is_refused(cluster: Cluster, postgres18: Database) -> None:
    url = table_of(postgres18, TEXT, rows(20, 17, dirty=False))
    with opened(f"{url}?options=-csearch_path%3Dpublic", cluster) as (_, there):
        told = digest(there)
        assert told[0] == "spark.url"
        assert "options" in told[2]
    with opened(f"{url}?sslmode=disable&application_name=x&connect_timeout=9", cluster) as (here, there):
        assert digest(there) == digest(here)
    # What cannot be had over encryption is not had without.
    with opened(f"{url}?sslmode=prefer", cluster) as (_, there):
        there._splits.options["sslmode"] = "require"  # type: ignore[index, union-attr]
        assert digest(there)[0] == "spark.failed"


def test_what_a_database_quotes_of_a_row_is_told_nowhere(cluster: Cluster, postgres18: Database) -> None:
    table_of(postgres18, TEXT, [{**it, "holder": "秘密者"} for it in rows(20, 18, dirty=False)])
    postgres18.run(
        "ALTER TABLE permits RENAME TO kept",
        "CREATE VIEW permits AS SELECT no, uscc, (holder::int)::text AS holder, decided_on, fee, batch, version FROM kept",
    )
    with opened(postgres18.url, cluster) as (_, there):
        told = digest(there)
    assert told[0] == "spark.failed"
    assert "秘密者" not in "".join(told)
    assert "秘密者" not in (cluster.root / "spark.log").read_text(encoding="utf-8", errors="replace")


def test_an_executor_killed_on_the_way_changes_nothing(cluster: Cluster, tmp_path: Path) -> None:
    write_parquet(tmp_path / "permits", rows(1200, 13, dirty=False), group=150)
    marks = tmp_path / "marks"
    marks.mkdir()
    with opened(f"parquet:///{tmp_path}", cluster) as (here, there):
        there.__dict__["_splits"] = Odd(there._splits, marks=marks, seconds=1.0)  # type: ignore[arg-type]
        told: list[Any] = []
        job = threading.Thread(target=lambda: told.append(digest(there)))
        job.start()
        _until(lambda: len(list(marks.iterdir())) >= 2)
        # The one that is at work: the parent of a process that has begun a part.
        pid = int(next(marks.iterdir()).name.split("-")[1])
        executor = next(it for it in cluster.executors() if pid in {child.pid for child in it.children(recursive=True)})
        executor.kill()
        assert job.is_alive()
        job.join(600)
        assert told == [digest(here)]
        begun = [int(mark.name.split("-")[0]) for mark in marks.iterdir()]
        assert len(begun) > len(set(begun)), "no part was done again"


def test_a_part_that_cannot_be_read_ends_the_job(cluster: Cluster, tmp_path: Path) -> None:
    write_parquet(tmp_path / "permits", rows(400, 14, dirty=False), group=50)
    with opened(f"parquet:///{tmp_path}", cluster) as (_, there):
        whole = there._splits
        there.__dict__["_splits"] = Odd(whole, die=True)  # type: ignore[arg-type]
        told = digest(there)
        assert told[0] == "spark.failed", told
        there.__dict__["_splits"] = Odd(whole, drop=True)  # type: ignore[arg-type]
        told = digest(there)
        assert told[0] == "spark.unbalanced", told
        with pytest.raises(SourceError, match="add up"):
            compared(there, there, tmp_path, [], 1)


def test_a_file_that_is_replaced_is_told_as_locally(cluster: Cluster, tmp_path: Path) -> None:
    write_parquet(tmp_path / "permits", rows(100, 15, dirty=False))
    with opened(f"parquet:///{tmp_path}", cluster) as (here, there):
        write_parquet(tmp_path / "permits", rows(100, 16, dirty=False))
        told = digest(there)
        assert told[0] == "source.changed"
        assert told == digest(here)


def _until(done: Any, seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, [it.cmdline()[:1] for it in psutil.Process().children(recursive=True)]
        time.sleep(0.05)
