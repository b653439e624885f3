"""A source whose rows are worked on where they are read, by many processes; what comes back is small."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ledger.kernel.chunk import Chunk
from ledger.kernel.entries import Result
from ledger.keys import CatalogKeys
from ledger.record import Unreadable
from ledger.source.source import Source

Bytes2D = NDArray[np.uint8]


@dataclass(frozen=True)
class Tree:
    """All rows as one batch: `size`, `root` and, where asked for, the sketch in clear; these count only if `bad` (rows without an entry, by
    number) and `repeated` (numbers of the rows of each key tag that occurs twice, by the first of them) are empty."""

    size: int
    root: bytes
    sketch: bytes | None
    bad: tuple[tuple[int, Unreadable], ...]
    repeated: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Unlike:
    """What a join with the ledger leaves.

    matched  a mask over the ledger's tags: exactly one row carries the tag, it is readable and its commitment is the ledger's
    tags     (n, 16): the tags of all other rows, each once
    rows     how many rows those are, rows whose key cannot be read included
    total    how many rows the source has
    """

    matched: NDArray[np.bool_]
    tags: Bytes2D
    rows: int
    total: int


@runtime_checkable
class Spread(Source, Protocol):
    """A `Source` that also answers for all its rows at once. Every answer is about the same state of the source as `scan`."""

    def tree(self, keys: CatalogKeys, cells: int | None) -> Tree:
        """Size and root, and with `cells` the sketch, of all rows as one batch."""

    def unlike(self, keys: CatalogKeys, tails: Bytes2D, fresh: NDArray[np.bool_]) -> Unlike:
        """Join the rows with the ledger: `tails` (n, 48) are tag and commitment, no tag twice; of those marked `fresh` a row that has a row
        version does not count as matched."""

    def rows_of(self, keys: CatalogKeys, tags: Bytes2D, *, refused: bool) -> Iterator[tuple[Chunk, Result]]:
        """The rows that carry one of `tags`, and, if `refused`, those whose key cannot be read, in the order of their numbers.

        Of the chunk `raw` is not there.
        """


def numbers_first(repeated: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """Groups of row numbers, each ascending, by their first."""
    return tuple(sorted(tuple(sorted(group)) for group in repeated))
