"""A source under Spark: the local reader's own consistent read, and beside it the same rows worked on by executors.

Plaintext never enters a shuffle: what is sorted and joined are entries and tags. Rows that differ are then read once more, where they are, and
only those come to the driver whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property, reduce
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ledger import sketch as sketches
from ledger.catalog import Catalog
from ledger.config import KernelConfig
from ledger.errors import SourceError
from ledger.kernel.chunk import Chunk
from ledger.kernel.entries import Result
from ledger.keys import CatalogKeys
from ledger.source.parquettable import ParquetTable
from ledger.source.postgres import PostgresSource
from ledger.source.source import Source
from ledger.source.spread import Bytes2D, Tree, Unlike, numbers_first
from ledger.source.values import BATCH, ROW_VERSION
from ledger.spark import subtree, work
from ledger.spark.files import FileSplits, file_splits
from ledger.spark.jdbc import JdbcSplits, jdbc_splits
from ledger.spark.session import check_installed, guarded, session

PARTITION_ROWS = 1 << 20
"""Entries that one task sorts and hashes: 64 MiB."""
PICKED_SPLITS = 4
"""Parts a core from which rows come to the driver at once."""

Splits = FileSplits | JdbcSplits


class SparkSource:
    """See `source.spread.Spread`; `scan` and what it says of itself are the local reader's."""

    def __init__(
        self, table: ParquetTable | PostgresSource, catalog: Catalog, config: KernelConfig, root: Path
    ) -> None:
        self._table = table
        self._catalog = catalog
        self._config = config
        self._root = root
        self._starts: NDArray[np.int64] | None = None
        self.processes: frozenset[str] = frozenset()
        """Host and number of the processes that read."""
        self.sorted: tuple[int, ...] = ()
        """How many entries each task of the last `tree` sorted and hashed."""

    @property
    def where(self) -> str:
        """As the local reader has it."""
        return self._table.where

    @property
    def ignored(self) -> Sequence[str]:
        """As the local reader has it."""
        return self._table.ignored

    @property
    def notes(self) -> Sequence[tuple[str, str]]:
        """As the local reader has it."""
        return self._table.notes

    def about_rows(self) -> int | None:
        """As the local reader has it."""
        return self._table.about_rows()

    def scan(self) -> Iterator[Chunk]:
        """All rows, read here, in this process."""
        return self._table.scan()

    def tree(self, keys: CatalogKeys, cells: int | None) -> Tree:
        """See `Spread.tree`."""
        with guarded(self.where):
            rows = self._scanned(keys, reasons=True)
            try:
                bad = self._bad(self._aside(rows))
                repeated = () if bad else self._repeated(rows)
                if bad or repeated:
                    return Tree(0, b"", None, bad, repeated)
                return self._tree(rows, self._splits.total, cells)
            finally:
                _forget(rows)

    def unlike(self, keys: CatalogKeys, tails: Bytes2D, fresh: NDArray[np.bool_]) -> Unlike:
        """See `Spread.unlike`."""
        with guarded(self.where):
            rows = self._scanned(keys, reasons=False)
            try:
                keyless = sum(it["kind"] == work.KEYLESS for it in self._aside(rows))
                left = self._joined(rows, tails, fresh)
            finally:
                _forget(rows)
        own = left.filter(left.column("number").is_valid())
        tags = np.unique(work.fixed(own.column("tag"), 16).view("V16").reshape(-1))
        matched = np.ones(len(tails), np.bool_)
        matched[left.column("at").drop_null().to_numpy()] = False
        total = self._splits.total
        found = len(own) + keyless
        if int(matched.sum()) + found != total:
            raise self._unbalanced(f"{int(matched.sum())} + {found}", total)
        return Unlike(matched, tags.view(np.uint8).reshape(-1, 16), found, total)

    def rows_of(self, keys: CatalogKeys, tags: Bytes2D, *, refused: bool) -> Iterator[tuple[Chunk, Result]]:
        """See `Spread.rows_of`."""
        if not len(tags) and not refused:
            return
        with guarded(self.where):
            if self._starts is None:
                rows = self._scanned(keys, reasons=False)
                self._aside(rows)
                _forget(rows)
            step = PICKED_SPLITS * self._parallel
            for begin in range(0, len(self._splits), step):
                part = self._splits.only(list(range(begin, min(begin + step, len(self._splits)))))
                run = work.pick(part, keys, work.code_digest(), tags.tobytes(), refused=refused)
                found = part.frame(self._spark).mapInArrow(run, work.picked(keys.catalog)).toArrow()
                chunk, result = self._whole(found, part, keys.catalog)
                if len(chunk):
                    yield chunk, result

    @property
    def _spark(self) -> Any:
        return session(self._config, self._root)

    @cached_property
    def _parallel(self) -> int:
        return int(self._config.partitions or self._spark.sparkContext.defaultParallelism)

    @cached_property
    def _splits(self) -> Splits:
        if isinstance(self._table, ParquetTable):
            return file_splits(self._table, self._parallel)
        return jdbc_splits(self._table, list(self._catalog.by_name), self._parallel)

    @property
    def _tasks(self) -> int:
        return max(self._parallel, -(-self._splits.total // PARTITION_ROWS))

    def _scanned(self, keys: CatalogKeys, *, reasons: bool) -> Any:
        from pyspark import StorageLevel  # noqa: PLC0415

        # The tasks of each shuffle: Spark's own 200 are too many for a small source and too few for a large one.
        self._spark.conf.set("spark.sql.shuffle.partitions", str(self._tasks))
        run = work.scan(self._splits, keys, work.code_digest(), reasons=reasons)
        frame = self._splits.frame(self._spark).mapInArrow(run, work.SCANNED)
        return frame.persist(StorageLevel.MEMORY_AND_DISK)

    def _aside(self, rows: Any) -> list[dict[str, Any]]:
        """What is not an entry; SourceError `spark.unbalanced` unless each part of the source was read, once, and all of it."""
        found: list[dict[str, Any]] = rows.filter(f"kind <> {work.ENTRY}").toArrow().to_pylist()
        for it in found:
            if it["kind"] == work.ERROR:
                raise work.error_of(it["note"])
        tallies = {it["split"]: int(it["number"]) for it in found if it["kind"] == work.TALLY}
        count = sum(it["kind"] == work.TALLY for it in found)
        self.processes = frozenset(it["note"] for it in found if it["kind"] == work.TALLY)
        total = sum(tallies.values())
        parts = len(self._splits)
        if count != parts or set(tallies) != set(range(parts)) or total != self._splits.total:
            raise self._unbalanced(f"{total} ({count}/{parts})", self._splits.total)
        counts = np.array([tallies[split] for split in range(parts)], np.int64)
        self._starts = np.zeros(parts, np.int64) if self._splits.global_numbers else np.cumsum(counts) - counts
        return found

    def _bad(self, aside: list[dict[str, Any]]) -> tuple[tuple[int, Any], ...]:
        wrong = [it for it in aside if it["kind"] in (work.KEYED, work.KEYLESS)]
        return tuple(sorted((self._number(it), work.unreadable_of(it["note"])) for it in wrong)) if wrong else ()

    def _number(self, row: dict[str, Any]) -> int:
        if self._starts is None:
            raise AssertionError("numbers are known once the parts were counted")
        return int(self._starts[row["split"]]) + int(row["number"])

    def _repeated(self, rows: Any) -> tuple[tuple[int, ...], ...]:
        tagged = rows.filter(f"kind = {work.ENTRY}").select("tag", "split", "number")
        twice = tagged.groupBy("tag").count().filter("count > 1").select("tag")
        groups: dict[bytes, list[int]] = {}
        for row in tagged.join(twice, "tag", "left_semi").toArrow().to_pylist():
            groups.setdefault(row["tag"], []).append(self._number(row))
        return numbers_first(list(groups.values()))

    def _tree(self, rows: Any, size: int, cells: int | None) -> Tree:
        from pyspark import StorageLevel  # noqa: PLC0415

        entries = rows.filter(f"kind = {work.ENTRY}").select("entry")
        # Bounds come from a sample of whole entries: half of them may begin with the same 16 zeros.
        ordered = entries.repartitionByRange(self._tasks, "entry").sortWithinPartitions("entry")
        ordered = ordered.persist(StorageLevel.MEMORY_AND_DISK)
        try:
            parts = ordered.mapInArrow(work.count, work.COUNTED).toArrow().to_pylist()
            parts = sorted(parts, key=lambda it: int(it["part"]))
            full = [it for it in parts if it["count"]]
            apart = all(a["last"] < b["first"] for a, b in pairwise(full))
            if [it["part"] for it in parts] != list(range(len(parts))) or sum(it["count"] for it in parts) != size or not apart:  # fmt: skip
                raise self._unbalanced(str([it["count"] for it in parts]), size)
            counts = [int(it["count"]) for it in parts]
            self.sorted = tuple(counts)
            starts = [sum(counts[:at]) for at in range(len(counts))]
            built = ordered.mapInArrow(work.build(starts, cells), work.BUILT).toArrow().to_pylist()
        finally:
            _forget(ordered)
        built = sorted(built, key=lambda it: int(it["part"]))
        if [int(it["count"]) for it in built] != counts:
            raise self._unbalanced(str([it["count"] for it in built]), size)
        nodes = [node for it in built for node in work.nodes_of(it["nodes"])]
        sketch = None
        if cells is not None:
            nothing = sketches.build(np.zeros((0, 64), np.uint8), cells)
            sketch = reduce(_added, map(work.sketch_of, built), nothing).encode()
        return Tree(size, subtree.root_of(nodes, size), sketch, (), ())

    def _joined(self, rows: Any, tails: Bytes2D, fresh: NDArray[np.bool_]) -> Any:
        """All rows with a key, and all tags of the ledger, that do not match: (tag, number of the row, place in `tails`)."""
        from pyspark.sql import Window  # noqa: PLC0415
        from pyspark.sql import functions as f  # noqa: PLC0415

        ledger = self._spark.createDataFrame(
            pa.table(
                {
                    "tag": work.binary(tails[:, :16]), "anchored": work.binary(tails[:, 16:]),
                    "fresh": pa.array(fresh), "at": pa.array(np.arange(len(tails), dtype=np.int64)),
                }
            )
        )  # fmt: skip
        keyed = rows.filter(f.col("kind").isin(work.ENTRY, work.KEYED)).withColumn(
            "times", f.count("*").over(Window.partitionBy("tag"))
        )
        joined = keyed.join(ledger, "tag", "full_outer")
        same = (
            (f.col("times") == 1)
            & (f.col("kind") == work.ENTRY)
            & (f.substring("entry", 33, 32) == f.col("anchored"))
            & ~(f.col("fresh") & f.col("versioned"))
        )
        return joined.filter(~f.coalesce(same, f.lit(False))).select("tag", "number", "at").toArrow()

    def _whole(self, found: Any, part: Splits, catalog: Catalog) -> tuple[Chunk, Result]:
        kinds = found.column("kind").to_numpy()
        for note in found.filter(pa.array(kinds == work.ERROR)).column("note").to_pylist():
            raise work.error_of(note)
        told = int((kinds == work.TALLY).sum())
        if told != len(part):
            raise self._unbalanced(f"{told} parts", len(part))
        found = found.filter(pa.array(kinds != work.TALLY))
        if self._starts is None:
            raise AssertionError("numbers are known once the parts were counted")
        # A part of a part counts from 0: its number in the source is told by `numbers`.
        places = np.array(part.numbers, np.int64)[found.column("split").to_numpy()]
        numbers = self._starts[places] + found.column("number").to_numpy()
        order = np.argsort(numbers, kind="stable")
        found, numbers = found.take(pa.array(order)).combine_chunks(), numbers[order]
        kinds = found.column("kind").to_numpy()
        good = np.flatnonzero(kinds == work.ENTRY)
        wanted = pa.array(good)
        bad = np.flatnonzero(kinds != work.ENTRY).tolist()
        notes, tags, own = (found.column(name) for name in ("note", "tag", "record_key"))
        extra = {}
        if self._table.layout.batch_column is not None:
            extra[BATCH] = _array(found.column("batch"))
        if self._table.layout.version_column is not None:
            extra[ROW_VERSION] = _array(found.column("version"))
        fields = {name: _array(found.column(work.place(at))) for at, name in enumerate(catalog.by_name)}
        result = Result(
            catalog,
            good,
            work.fixed(found.column("entry").take(wanted), 64),
            fields,
            {row: work.unreadable_of(notes[row].as_py()) for row in bad},
            {row: (tags[row].as_py(), own[row].as_py()) for row in bad if kinds[row] == work.KEYED},
        )
        return Chunk(fields, numbers, result.refused, extra=extra), result

    def _unbalanced(self, found: str, wanted: int) -> SourceError:
        return SourceError(
            "spark.unbalanced",
            f"各分区合计 {found}，应为 {wanted}：有分区未读、读了两次，或不是同一时刻的数据；没有结论，请重新运行",
            f"the parts add up to {found}, not {wanted}: one was not read, read twice, or read at another moment; nothing was concluded, run "
            "again",
            self.where,
        )


def spread(table: Source, catalog: Catalog, config: KernelConfig, root: Path) -> Source:
    """The open `table` as a source under Spark. InputError `spark.missing`; SourceError `spark.source` for a database Spark does not read."""
    check_installed(config)
    if not isinstance(table, ParquetTable | PostgresSource):
        raise SourceError(
            "spark.source",
            "engine = \"spark\" 只读取 PostgreSQL（JDBC）和 Parquet；其他数据库请用 [kernel] engine = \"local\"",
            'engine = "spark" reads PostgreSQL (by JDBC) and Parquet only; for other databases set [kernel] engine = "local"',
            table.where,
        )  # fmt: skip
    return SparkSource(table, catalog, config, root)


def _forget(frame: Any) -> None:
    """Give back what was kept of it; if that fails, what made it fail has its own error."""
    with suppress(Exception):
        frame.unpersist()


def _array(column: Any) -> Any:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _added(one: sketches.Sketch, other: sketches.Sketch) -> sketches.Sketch:
    return sketches.Sketch(one.counts + other.counts, one.entries ^ other.entries, one.checks ^ other.checks)
