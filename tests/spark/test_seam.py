"""What comes back from the executors is enough: findings, counts and balance are those of reading every row here.

No Spark: the executors' own functions run in this process, the join is written out in plain Python. `test_cluster.py` does it for real.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.batch.engine import compare_rows, size_and_root
from ledger.batch.history import History
from ledger.errors import LedgerError, SourceError
from ledger.kernel.chunk import Chunk
from ledger.kernel.entries import Kernel, Result
from ledger.kernel.sorting import TAG
from ledger.reconcile.compare import Comparer, Comparison
from ledger.source.parquettable import ParquetTable
from ledger.source.spread import Spread, Tree, Unlike, numbers_first
from ledger.source.table import open_table
from ledger.spark import work
from ledger.spark.files import FileSplits, file_splits
from ledger.spark.source import SparkSource
from tests.spark.rows import catalog, catalog_keys, rows, write_parquet

KEYS = catalog_keys()


@dataclass
class Imitation:
    """`SparkSource` without Spark."""

    table: ParquetTable
    splits: FileSplits
    patch: pytest.MonkeyPatch
    lose: bool = False

    @property
    def where(self) -> str:
        return self.table.where

    @property
    def ignored(self) -> Any:
        return self.table.ignored

    notes = ()

    def about_rows(self) -> int:
        return self.table.rows

    def scan(self) -> Iterator[Chunk]:
        return self.table.scan()

    def run(self, function: work.Work) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for split in range(len(self.splits)):
            self.patch.setattr(work, "_partition", lambda split=split: split)
            ids = pa.RecordBatch.from_arrays([pa.array([split], pa.int64())], ["id"])
            for batch in function([ids]):
                found += batch.to_pylist()
        for it in found:
            if it["kind"] == work.ERROR:
                raise work.error_of(it["note"])
        assert sum(it["number"] for it in found if it["kind"] == work.TALLY) == self.splits.total
        return [it for it in found if it["kind"] != work.TALLY]

    def tree(self, keys: Any, cells: int | None) -> Tree:
        found = self.run(work.scan(self.splits, keys, work.code_digest(), reasons=True))
        bad = [(it["number"], work.unreadable_of(it["note"])) for it in found if it["kind"] != work.ENTRY]
        groups: dict[bytes, list[int]] = {}
        for it in found:
            if it["kind"] == work.ENTRY:
                groups.setdefault(it["tag"], []).append(it["number"])
        repeated = numbers_first([numbers for numbers in groups.values() if len(numbers) > 1])
        if bad or repeated:
            return Tree(0, b"", None, tuple(bad), repeated)
        raise AssertionError("only refusals are asked for here")

    def unlike(self, keys: Any, tails: Any, fresh: Any) -> Unlike:
        found = self.run(work.scan(self.splits, keys, work.code_digest(), reasons=False))
        by_tag: dict[bytes, list[dict[str, Any]]] = {}
        for it in found:
            if it["tag"] is not None:
                by_tag.setdefault(it["tag"], []).append(it)
        ledger = {tail[:16].tobytes(): (at, tail[16:].tobytes()) for at, tail in enumerate(tails)}
        matched = np.zeros(len(tails), np.bool_)
        for tag, group in by_tag.items():
            at, commitment = ledger.get(tag, (-1, b""))
            one = group[0]
            if len(group) == 1 and at >= 0 and one["kind"] == work.ENTRY and one["entry"][32:] == commitment:
                matched[at] = not (fresh[at] and one["versioned"])
        rest = [tag for tag in by_tag if tag not in ledger or not matched[ledger[tag][0]]]
        keyless = sum(it["tag"] is None for it in found)
        count = sum(len(by_tag[tag]) for tag in rest) + keyless
        return Unlike(matched, np.frombuffer(b"".join(rest), np.uint8).reshape(-1, 16), count, len(found))

    def rows_of(self, keys: Any, tags: Any, *, refused: bool) -> Iterator[tuple[Chunk, Result]]:
        found = self.run(work.pick(self.splits, keys, work.code_digest(), tags.tobytes(), refused=refused))
        wide = work.schema_of(work.picked(keys.catalog))
        table = pa.Table.from_pylist(found[1:] if self.lose else found, schema=wide)
        # The driver's own way from what was sent to chunk and result.
        driver = SparkSource.__new__(SparkSource)
        driver._table, driver._starts = self.table, np.zeros(len(self.splits), np.int64)
        tally = pa.Table.from_pylist([{"kind": work.TALLY, "split": 0, "number": 0}], schema=wide)
        told = pa.concat_tables([table, *[tally] * len(self.splits)])
        chunk, result = driver._whole(told, self.splits, keys.catalog)
        if len(chunk):
            yield chunk, result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("seam")


def opened(folder: Path, found: list[dict[str, Any]], *, version: bool = True) -> Any:
    write_parquet(folder / "permits", found, files=2, group=9)
    return open_table(
        f"parquet:///{folder}", "permits", catalog(), batch_column="batch", row_version_column="version" if version else None
    )  # fmt: skip


def history(
    found: list[dict[str, Any]], folder: Path, chance: random.Random, *, versions: bool
) -> tuple[History, list[int]]:
    """A ledger in which some rows are as they are, some were otherwise, some were withdrawn, some are gone; and which versions were accepted."""
    with opened(folder, found) as table:
        kernel = Kernel(catalog(), KEYS)
        entries = np.concatenate([np.zeros((0, 64), np.uint8), *(kernel.run(chunk).entries for chunk in table.scan())])
    entries = np.unique(entries.view("V64").reshape(-1)).view(np.uint8).reshape(-1, 64)
    first: dict[bytes, np.ndarray] = {}
    for entry in entries:
        first.setdefault(entry[TAG].tobytes(), entry)
    known = [entry.copy() for entry in first.values() if chance.random() < 0.8]
    later = []
    for entry in known:
        seen = chance.random()
        if seen < 0.25:
            changed = entry.copy()
            changed[40] ^= 1
            later.append((changed, seen < 0.08))
    for number in range(chance.randint(0, 6)):
        known.append(np.frombuffer(random.Random(number).randbytes(64), np.uint8))
    size = (len(known), len(later))
    old = (np.array(known, np.uint8).reshape(-1, 64), np.zeros(size[0], np.bool_))
    new = (np.array([it for it, _ in later], np.uint8).reshape(-1, 64), np.array([gone for _, gone in later], np.bool_))
    told = None
    if versions:
        told = [np.array([chance.choice([-(2**63), 0, 10]) for _ in range(count)], np.int64) for count in size]
    made = History([old, new], told or ())
    return made, [key for key in range(len(made)) if made.live[key] and chance.random() < 0.1]


def outcome(
    table: Any, made: History, accepted: list[int], seed: int, *, batch: str | None, scoped: bool, erased: bool
) -> Comparison:
    chance = random.Random(seed)
    tags = frozenset(made.tag(key) for key in range(len(made)) if chance.random() < 0.05) if erased else frozenset()
    scope = np.array([chance.random() < 0.5 for _ in range(len(made))], np.bool_) if scoped else None
    comparer = Comparer(
        catalog(), "own" if seed % 2 else "delivery", made, ["B1", "B2"], lambda _: None, accepted=accepted, removed=1, scope=scope,
        show_values=seed % 3 == 0, erased=tags,
    )  # fmt: skip
    compare_rows(table, Kernel(catalog(), KEYS), comparer, batch)
    found = comparer.finish()
    assert found.counts.balanced
    return found


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6), count=st.integers(0, 60), version=st.booleans(), scoped=st.booleans(), erased=st.booleans(),
    batch=st.sampled_from([None, "B1"]),
)  # fmt: skip
def test_the_same_findings_counts_and_lists(
    folder: Path, seed: int, count: int, version: bool, scoped: bool, erased: bool, batch: str | None
) -> None:
    found = rows(count, seed, dirty=True)
    made, accepted = history(found, folder, random.Random(seed), versions=version)
    more = {"batch": batch, "scoped": scoped, "erased": erased}
    with opened(folder, found, version=version) as table, pytest.MonkeyPatch.context() as patch:
        there = Imitation(table, file_splits(table, 2), patch)
        assert isinstance(there, Spread)
        assert not isinstance(table, Spread)
        one, other = (outcome(it, made, accepted, seed, **more) for it in (table, there))
    assert one.counts == other.counts
    assert [it.as_json() for it in one.findings] == [it.as_json() for it in other.findings]
    assert list(one.newly_seen_keys) == list(other.newly_seen_keys)
    for name in ("accepted", "updated_keys", "rows_outside", "keys_outside", "erased"):
        assert getattr(one, name) == getattr(other, name), name
    for name in ("newly_seen", "updated", "unversioned"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 60))
def test_a_batch_that_is_refused_is_refused_in_the_same_words(folder: Path, seed: int, count: int) -> None:
    with opened(folder, rows(count, seed, dirty=True)) as table, pytest.MonkeyPatch.context() as patch:
        words = []
        for it in (table, Imitation(table, file_splits(table, 2), patch)):
            try:
                size_and_root(it, catalog(), KEYS, None)
                words.append(None)
            except LedgerError as error:
                words.append((error.code, error.zh, error.en, error.where))
            except AssertionError:
                words.append(None)
    assert words[0] == words[1]


def test_a_row_lost_on_the_way_is_no_answer(folder: Path) -> None:
    found = rows(40, 7, dirty=True)
    made, accepted = history(found, folder, random.Random(7), versions=False)
    with opened(folder, found) as table, pytest.MonkeyPatch.context() as patch:
        there = Imitation(table, file_splits(table, 2), patch, lose=True)
        with pytest.raises(SourceError, match="changed"):
            outcome(there, made, accepted, 7, batch=None, scoped=False, erased=False)


def test_an_executor_with_other_code_is_refused(folder: Path) -> None:
    with opened(folder, rows(9, 1, dirty=False)) as table, pytest.MonkeyPatch.context() as patch:
        there = Imitation(table, file_splits(table, 2), patch)
        with pytest.raises(SourceError, match="another duizhang") as told:
            there.run(work.scan(there.splits, KEYS, "0" * 64, reasons=False))
    assert told.value.code == "spark.version"


def test_the_parts_of_a_table_are_all_its_rows_once(folder: Path) -> None:
    for count in (0, 1, 8, 9, 10, 100):
        with opened(folder, rows(count, count, dirty=False)) as table:
            everything = [int(number) for chunk in table.scan() for number in chunk.numbers]
            assert everything == list(range(1, count + 1))
            for parallel in (1, 2, 5, 100):
                splits = file_splits(table, parallel)
                parts = [
                    splits.chunks(it, [pa.RecordBatch.from_arrays([pa.array([it])], ["id"])])
                    for it in range(len(splits))
                ]
                assert [int(number) for part in parts for chunk in part for number in chunk.numbers] == everything
                assert splits.total == count
