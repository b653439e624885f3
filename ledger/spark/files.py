"""Parquet files in parts: row groups, read in the executors by the same reader as locally, so that every value is the same text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ledger.kernel.chunk import Chunk
from ledger.source.parquettable import ParquetTable
from ledger.spark.work import Batches

ROWS = 1 << 18
"""A part has at least so many rows, unless there are cores that would have none."""


@dataclass(frozen=True)
class Part:
    """Row groups of one file, and the number of their first row in the table, from 1."""

    member: int
    groups: tuple[int, ...]
    first: int


@dataclass(frozen=True)
class FileSplits:
    """The parts of a table of Parquet files; `numbers` says which of them all these are. The files must be in the same place for every
    executor."""

    table: ParquetTable
    parts: tuple[Part, ...]
    numbers: tuple[int, ...]
    global_numbers = True

    def __len__(self) -> int:
        return len(self.parts)

    @property
    def total(self) -> int:
        """The rows there must be."""
        return self.table.rows

    def only(self, wanted: list[int]) -> FileSplits:
        """Some of the parts."""
        return FileSplits(self.table, tuple(self.parts[it] for it in wanted), tuple(self.numbers[it] for it in wanted))

    def frame(self, spark: Any) -> Any:
        """One task a part; the rows are read in `chunks`."""
        return spark.range(0, len(self.parts), 1, max(1, len(self.parts)))

    def chunks(self, split: int, batches: Batches) -> Iterator[Chunk]:
        """The rows of one part, numbered as in the table."""
        for batch in batches:
            for at in batch.column(0).to_pylist():
                part = self.parts[at]
                yield from self.table.part(self.table.members[part.member], part.groups, part.first)


def file_splits(table: ParquetTable, parallel: int) -> FileSplits:
    """The table in parts for so many tasks at once."""
    least = max(1, min(ROWS, table.rows // max(1, 2 * parallel)))
    parts: list[Part] = []
    first = 1
    for number, member in enumerate(table.members):
        groups: list[int] = []
        begin, rows = first, 0
        for group, size in enumerate(member.groups):
            groups.append(group)
            rows += size
            first += size
            if rows >= least:
                parts.append(Part(number, tuple(groups), begin))
                groups, begin, rows = [], first, 0
        if groups:
            parts.append(Part(number, tuple(groups), begin))
    parts = parts or [Part(0, (), 1)]
    return FileSplits(table, tuple(parts), tuple(range(len(parts))))
