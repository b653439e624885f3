"""What a source hands to the kernel: a bounded number of rows, as columns of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ledger.record import Unreadable


@dataclass(frozen=True)
class Delivered:
    """The rows of a file as they were delivered, every column, in the file's order; for the archive and the quarantine.

    Rows that do not fit the columns (too short, too long, bytes that are not text) stand in `odd`, by index, cell by
    cell; there, bytes that could not be decoded are surrogates (`surrogateescape`).
    """

    columns: Sequence[Any]
    odd: Mapping[int, Sequence[str]] = field(default_factory=dict)

    def row(self, index: int) -> list[str]:
        """The cells of one row."""
        odd = self.odd.get(index)
        return list(odd) if odd is not None else [column[index].as_py() for column in self.columns]

    def rows(self, indices: Sequence[int] | NDArray[np.int64]) -> list[list[str]]:
        """The cells of the rows named, in the order named; quicker than asking for each."""
        wanted = np.asarray(indices, np.int64)
        cells = [column.take(pa.array(wanted)).to_pylist() for column in self.columns]
        rows = [list(row) for row in zip(*cells, strict=True)] if cells else [[] for _ in wanted]
        if self.odd:
            for position, index in enumerate(wanted.tolist()):
                if index in self.odd:
                    rows[position] = list(self.odd[index])
        return rows


@dataclass(frozen=True)
class Chunk:
    """Some rows of a source, a column at a time; row i is the i-th element of every column.

    fields       declared field name -> pa.string() array: the values as text, "written as text" of F2 done, normal
                 form not
    numbers      int64: a file's physical line on which the row starts, a table's ordinal, both from 1
    refused      rows that could not be read, by index, with the reason; the columns hold null where nothing could be
                 read
    withdrawals  rows that withdraw a record, by index, with their reason (one of record.REASONS): key fields count,
                 others do not
    extra        other columns that were asked for, as text in normal form (`batch`: the batch column's)
    raw          the rows as delivered, of a file; None for a table
    """

    fields: Mapping[str, Any]
    numbers: NDArray[np.int64]
    refused: Mapping[int, Unreadable] = field(default_factory=dict)
    withdrawals: Mapping[int, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    raw: Delivered | None = None

    def __len__(self) -> int:
        return len(self.numbers)
