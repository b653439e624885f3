"""Rows that no batch knows, kept as columns: when an own source is sealed for the first time that is every row there is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ledger.kernel.entries import Result
from ledger.kernel.sorting import TAG, order_of, words_of
from ledger.record import Unreadable


@dataclass(frozen=True)
class Sighting:
    """What is kept of a row that does not simply match."""

    number: int
    record_key: bytes
    commitment: bytes | None
    canonical: bytes | None
    unreadable: Unreadable | None


@dataclass(frozen=True)
class Strangers:
    """Readable rows: `numbers` (n,), `tails` (n,48: key tag and commitment), `record_keys` (n, large_binary), in the order they were read;
    `canonical` (n, large_binary), None where nobody wants to see values."""

    numbers: npt.NDArray[np.int64]
    tails: npt.NDArray[np.uint8]
    record_keys: Any
    canonical: Any | None

    def __len__(self) -> int:
        return len(self.numbers)

    def sighting(self, at: int) -> Sighting:
        """One of them."""
        canonical = None if self.canonical is None else self.canonical[at].as_py()
        return Sighting(
            int(self.numbers[at]), self.record_keys[at].as_py(), self.tails[at, 16:].tobytes(), canonical, None
        )

    def part(self, places: npt.NDArray[np.int64]) -> Strangers:
        """Some of them."""
        wanted = pa.array(places)
        return Strangers(
            self.numbers[places],
            self.tails[places],
            self.record_keys.take(wanted),
            None if self.canonical is None else self.canonical.take(wanted),
        )

    def groups(self) -> tuple[npt.NDArray[np.int64], list[npt.NDArray[np.int64]]]:
        """The places of those whose key stands once, in the order of their tags; and the places of each key that stands several times."""
        tags = self.tails[:, :16]
        order = order_of(tags)
        words = words_of(tags[order])
        first = np.ones(len(order), np.bool_)
        first[1:] = np.any(words[1:] != words[:-1], axis=1)
        starts = np.flatnonzero(first)
        sizes = np.diff(np.append(starts, len(order)))
        several = np.flatnonzero(sizes > 1)
        return order[starts[sizes == 1]], [order[starts[at] : starts[at] + sizes[at]] for at in several]


def tails_of(tags: npt.NDArray[np.uint8], sightings: Sequence[Sighting]) -> npt.NDArray[np.uint8]:
    """Tag and commitment (n,48) of rows that were read; `tags` run along with `sightings`."""
    found = np.frombuffer(b"".join(it.commitment or b"" for it in sightings), np.uint8).reshape(-1, 32)
    return np.concatenate([tags, found], axis=1)


class Gathering:
    """Takes in strangers chunk after chunk."""

    def __init__(self, *, show_values: bool) -> None:
        self._show_values = show_values
        self._parts: list[Strangers] = []

    def add(self, rows: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64], result: Result) -> None:
        """The rows at these places of a result; `numbers` are those of the chunk's rows."""
        part = result.part(rows)
        tails = np.ascontiguousarray(part.entries[:, TAG.start :])
        canonical = part.canonical.cast(pa.large_binary()) if self._show_values else None
        self._parts.append(Strangers(numbers[part.rows], tails, part.record_keys.cast(pa.large_binary()), canonical))

    def finish(self) -> Strangers:
        """All of them; what was gathered is given up."""
        parts, self._parts = self._parts, []
        empty = pa.array([], pa.large_binary())
        return Strangers(
            np.concatenate([np.zeros(0, np.int64), *(it.numbers for it in parts)]),
            np.concatenate([np.zeros((0, 48), np.uint8), *(it.tails for it in parts)]),
            pa.concat_arrays([empty, *(it.record_keys for it in parts)]),
            pa.concat_arrays([empty, *(it.canonical for it in parts)]) if self._show_values else None,
        )


class ShownKeys(Sequence[Mapping[str, str]]):
    """Keys to show, in the order of their record keys, masked by `show`: made as they are asked for."""

    def __init__(self, record_keys: Any, show: Callable[[Mapping[str, str]], Mapping[str, str]]) -> None:
        self._record_keys = record_keys
        self._show = show

    def __len__(self) -> int:
        return len(self._record_keys)

    @cached_property
    def _sorted(self) -> Any:
        return self._record_keys.take(pc.sort_indices(self._record_keys))

    def __iter__(self) -> Iterator[Mapping[str, str]]:
        for key in self._sorted:
            yield self._show(json.loads(key.as_py())["key"])

    @overload
    def __getitem__(self, at: int) -> Mapping[str, str]: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Mapping[str, str]]: ...
    def __getitem__(self, at: int | slice) -> Mapping[str, str] | Sequence[Mapping[str, str]]:
        if isinstance(at, slice):
            return [self[place] for place in range(*at.indices(len(self)))]
        return self._show(json.loads(self._sorted[at].as_py())["key"])
