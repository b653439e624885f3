"""What is sealed is kept from the one reading it was compared in; of too many rows, and of a read of several versions, it is read again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

import numpy as np
import pytest

from ledger import sealing
from ledger.batch.job import Job, open_job
from ledger.kernel.chunk import Chunk
from ledger.reconcile import kept
from ledger.reconcile.source import Reading, read_and_compare
from ledger.source.sqlite import SqliteSource
from ledger.workspace import Workspace
from tests.conftest import Pair, permit

Scans = Callable[[], int]


@pytest.fixture
def versioned(own: Pair) -> Pair:
    """An own source of sixty rows under row version 10, anchored; then some of everything happened to it."""
    own.sql("ALTER TABLE permits ADD COLUMN v INTEGER")
    with (own.city.home / "duizhang.toml").open("a", encoding="utf-8") as config:
        config.write('row_version_column = "v"\n')
    for number in range(1, 61):
        add(own, permit(number), 10 if number % 5 else None)
    own.city.ok("anchor", "permits")
    own.sql("UPDATE permits SET holder = '新名', v = 11 WHERE no IN ('A-1', 'A-2', 'A-9')")  # updated
    own.sql("UPDATE permits SET holder = '改名' WHERE no IN ('A-3', 'A-4')")  # altered
    own.sql("UPDATE permits SET v = 12 WHERE no IN ('A-5', 'A-10', 'A-15')")  # anchored before their version was known
    own.sql("DELETE FROM permits WHERE no = 'A-6'")
    for number in range(70, 80):
        add(own, permit(number), number)  # newly seen
    for _ in range(2):
        add(own, permit(90), 1)  # twice
    add(own, permit(7), 11)  # a known one twice, the second under a higher version
    add(own, {**permit(91), "decided_on": "某日"}, 1)  # unreadable
    return own


def add(own: Pair, row: dict[str, str], version: int | None) -> None:
    own.sql("INSERT INTO permits VALUES (?, ?, ?, ?, ?, ?)", *row.values(), version)


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> Scans:
    """How often a table was read, from front to back, since this was asked last. A chunk is a few rows."""
    seen = [0]
    real = SqliteSource.scan

    def scan(self: SqliteSource) -> Iterator[Chunk]:
        seen[0] += 1
        return real(self)

    def asked() -> int:
        count, seen[0] = seen[0], 0
        return count

    monkeypatch.setattr(SqliteSource, "scan", scan)
    return asked


@contextmanager
def job_of(own: Pair) -> Iterator[Job]:
    workspace = Workspace(own.city.home)
    with (
        workspace.locked("anchor"),
        closing(workspace.open_store("create")) as store,
        open_job(workspace, store) as job,
    ):
        yield job


def drafted(job: Job, reading: Reading) -> list[dict[str, bytes]]:
    """What would be anchored of a reading: entries, root, row versions, frames of the archive."""
    found = reading.comparison
    corrected = np.concatenate([found.updated, found.unversioned])
    numbers = (("sealed", found.newly_seen), ("correction", corrected))
    wanted = [(sealing._descriptor(job, reading.catalog, kind), rows) for kind, rows in numbers]
    with ExitStack() as stack:
        drafts = sealing._drafts(job, reading, wanted, stack)
        return [
            {
                "entries": it.built.entries.tobytes(),
                "root": it.built.root.encode(),
                "versions": b"" if it.built.row_versions is None else it.built.row_versions.tobytes(),
                "frames": it.built.frames.tobytes(),
            }
            for it in drafts
        ]


def test_what_is_kept_is_what_would_be_read_again(versioned: Pair, scans: Scans) -> None:
    with job_of(versioned) as job, read_and_compare(job, job.workspace.catalog("permits"), keep=True) as reading:
        assert scans() == 1
        as_kept = drafted(job, reading)
        assert scans() == 0
        assert reading.kept is not None
        reading.kept.pairs = None
        again = drafted(job, reading)
        assert scans() == 1
    assert as_kept == again
    assert [len(it["entries"]) // 64 for it in as_kept] == [10, 6]
    assert all(len(it["versions"]) for it in as_kept)


@pytest.mark.parametrize("most", [0, 1, 9, 1 << 16])
def test_a_night_reads_the_table_once_unless_there_is_too_much_of_it(
    versioned: Pair, scans: Scans, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "KEPT_ROWS", most)
    ran = versioned.city.run("nightly", "--json")
    assert ran.code == 1
    assert scans() == (1 if most > 9 else 2)
    assert [it["anchor"]["size"] for it in (*ran.json["sealed"], *ran.json["corrected"])] == [10, 6]
    # Whatever way they came: they match now, and the archive opens them.
    told = versioned.city.run("reconcile", "permits", "--json").json
    assert (told["counts"]["matched"], told["newly_seen"], told["updated"]) == (66, [], [])
    assert versioned.city.run("fsck").code == 0
    versioned.city.ok("prove", "permits", "A-75", "--out", str(versioned.folder / "p.json"))


def test_a_change_is_accepted_from_what_was_kept(versioned: Pair, scans: Scans) -> None:
    versioned.city.ok("accept", "permits", "A-3", "A-4", "--reason", "更名", "--by", "张三")
    assert scans() == 1
    told = versioned.city.run("reconcile", "permits", "--json").json
    assert told["counts"]["accepted"] == 2
    assert versioned.city.run("fsck").code == 0


def test_rows_that_were_accepted_are_not_kept_again_every_night(versioned: Pair) -> None:
    versioned.city.ok("accept", "permits", "A-3", "A-4", "--reason", "更名", "--by", "张三")
    versioned.city.run("anchor", "permits")
    with job_of(versioned) as job, read_and_compare(job, job.workspace.catalog("permits"), keep=True) as reading:
        assert reading.report.counts.accepted == 2
        assert reading.kept is not None
        # What nobody may anchor yet: the two rows of one unknown key.
        assert sum(len(chunk) for chunk, _ in reading.kept.pairs or []) == 2


def test_a_plain_reconciliation_keeps_nothing(versioned: Pair) -> None:
    with job_of(versioned) as job, read_and_compare(job, job.workspace.catalog("permits")) as reading:
        assert reading.kept is None
