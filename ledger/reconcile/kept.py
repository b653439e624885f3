"""Rows of a read that may be anchored, kept as they pass, so that the table need not be read again to seal them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ledger.kernel.chunk import Chunk
from ledger.kernel.entries import Result

KEPT_ROWS = 1 << 16
"""So many rows that do not match are a night's; of more, the first sealing of a table, the memory would grow with the table: about 500 bytes
a row."""


class Kept:
    """Rows as they were compared. `pairs` are chunks, and the kernel's results, of nothing but these rows; None once there were more than
    KEPT_ROWS: then they must be read again."""

    def __init__(self) -> None:
        self.pairs: list[tuple[Chunk, Result]] | None = []
        self._rows = 0

    def add(self, chunk: Chunk, result: Result, places: npt.NDArray[np.int64]) -> None:
        """Keep the rows of a table's `chunk` that stand at `places` of its `result`."""
        if not len(places) or self.pairs is None:
            return
        self._rows += len(places)
        if self._rows > KEPT_ROWS:
            self.pairs = None
            return
        made = result.part(np.sort(places))
        wanted = pa.array(made.rows)
        fields = {name: column.take(wanted) for name, column in chunk.fields.items()}
        extra = {name: column.take(wanted) for name, column in chunk.extra.items()}
        numbers = np.arange(len(made.rows), dtype=np.int64)
        self.pairs.append(
            (Chunk(fields, chunk.numbers[made.rows], extra=extra), Result(made.catalog, numbers, made.entries, fields))
        )
