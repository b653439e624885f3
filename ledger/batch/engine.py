"""Where all rows of a source are worked on: here, chunk by chunk, or by a source that does it itself (`source.spread`). The same answers.

Use cases that read a whole source go through these three functions and do not know which it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ledger import sketch as sketches
from ledger.batch.build import BadRow, Builder, row_versions
from ledger.batch.column import batch_mask
from ledger.batch.intake import bad_rows
from ledger.catalog import Catalog
from ledger.errors import SourceError
from ledger.kernel.chunk import Chunk
from ledger.kernel.entries import Kernel, Result
from ledger.keys import CatalogKeys
from ledger.progress import watched
from ledger.source.source import Source
from ledger.source.spread import Spread

Bytes2D = npt.NDArray[np.uint8]
Keep = Callable[[Chunk, Result, npt.NDArray[np.int64]], None]


class Expecting(Protocol):
    """What a comparison of rows with a ledger has to offer; `reconcile.compare.Comparer` does."""

    def expected(self) -> tuple[npt.NDArray[np.int64], Bytes2D, npt.NDArray[np.bool_]]:
        """Keys of which one row with the live commitment simply matches, their tails (n, 48), and of which of them a row version is news."""

    def add_matched(self, keys: npt.NDArray[np.int64]) -> None:
        """Take in one row for each of these keys, that simply matches."""

    def add(
        self,
        total: int,
        numbers: npt.NDArray[np.int64],
        result: Result,
        *,
        row_versions: npt.NDArray[np.int64] | None = None,
        claimed: npt.NDArray[np.bool_] | None = None,
    ) -> npt.NDArray[np.int64]:
        """Take in the rows of a chunk; the places in `result` of those that may be anchored."""


def size_and_root(
    table: Source, catalog: Catalog, keys: CatalogKeys, cells: int | None
) -> tuple[int, str, bytes | None]:
    """Size, root (hex) and, where `cells` are asked for, the sketch of all rows as one batch. InputError `file.bad_rows`,
    `batch.duplicate_key`, `batch.tag_collision`."""
    builder = Builder(catalog, keys)
    if isinstance(table, Spread):
        tree = table.tree(keys, cells)
        if tree.bad:
            raise bad_rows([BadRow(number, why, None) for number, why in tree.bad], table.where)
        if tree.repeated:
            # To name the keys, the rows are read here.
            raise builder.duplicates([list(group) for group in tree.repeated], table.where, table.scan())
        return tree.size, tree.root.hex(), tree.sketch
    builder.add_all(watched("读取数据源", "reading the source", table.scan(), table.about_rows))
    if builder.bad:
        raise bad_rows(builder.bad, table.where)
    built = builder.finish(table.where, table.scan)
    return built.size, built.root, None if cells is None else sketches.build(built.entries, cells).encode()


def compare_rows(
    table: Source, kernel: Kernel, comparer: Expecting, batch: str | None, keep: Keep | None = None
) -> None:
    """Give `comparer` every row of the source; rows that carry the batch number `batch` claim to be of its scope. `keep` is told which rows
    may be anchored."""

    def compare(chunk: Chunk, result: Result) -> None:
        claimed = None if batch is None else batch_mask(chunk, batch)
        places = comparer.add(len(chunk), chunk.numbers, result, row_versions=row_versions(chunk), claimed=claimed)
        if keep is not None:
            keep(chunk, result, places)

    if not isinstance(table, Spread):
        for chunk, result in kernel.run_all(
            watched("比对数据源", "comparing the source", table.scan(), table.about_rows)
        ):
            compare(chunk, result)
        return
    keys, tails, fresh = comparer.expected()
    unlike = table.unlike(kernel.keys, tails, fresh)
    comparer.add_matched(keys[unlike.matched])
    seen = 0
    if unlike.rows:
        for chunk, result in table.rows_of(kernel.keys, unlike.tags, refused=True):
            seen += len(chunk)
            compare(chunk, result)
    if seen != unlike.rows:
        raise SourceError(
            "source.changed",
            f"再次读取有差异的行时得到 {seen} 行，应为 {unlike.rows} 行：数据源发生了变化；请重新执行",
            f"the rows that differ were {unlike.rows} and are {seen} when read again: the source changed; run it again",
            table.where,
        )


def rows_among(table: Source, kernel: Kernel, tags: Bytes2D) -> Iterator[tuple[Chunk, Result]]:
    """At least the rows that carry one of `tags` (n, 16)."""
    if isinstance(table, Spread):
        yield from table.rows_of(kernel.keys, tags, refused=False)
    else:
        chunks = watched("读取要上链的行", "reading what is to be anchored", table.scan(), table.about_rows)
        yield from kernel.run_all(chunks)
