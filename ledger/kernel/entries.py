"""Rows into entries (formats F2-F4), a chunk at a time: in one compiled pass where that can be, else a column at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ledger.catalog import Catalog
from ledger.kernel import canonical, native
from ledger.kernel.ahead import in_order
from ledger.kernel.chunk import Chunk
from ledger.kernel.columns import Normaliser
from ledger.kernel.onepass import DONE, ODD, SKIPPED, one_pass
from ledger.kernel.sorting import ENTRY_BYTES
from ledger.kernel.stages import Stages
from ledger.kernel.text import Mask
from ledger.keys import TAG_SIZE, CatalogKeys
from ledger.record import Unreadable, normal_row


@dataclass(frozen=True)
class Result:
    """What became of a chunk's rows; its withdrawals are in neither `rows` nor `refused`.

    rows          int64, ascending: the rows (indices into the chunk) that have an entry
    entries       (n, 64) uint8, along with `rows`
    refused       unreadable rows, by index: the source's and the kernel's
    refused_keys  (key tag, record key) of those of them whose key fields can all be read

    `values` (declared field name -> pa.string(): normal forms), `record_keys` and `canonical` (pa.binary()) run along with `rows` as well.
    They are made when they are first asked for: of a row that matches nobody needs them. `part` before asking is cheap.
    """

    catalog: Catalog
    rows: NDArray[np.int64]
    entries: NDArray[np.uint8]
    fields: Mapping[str, Any] = field(repr=False)  # the chunk's
    refused: Mapping[int, Unreadable] = field(default_factory=dict)
    refused_keys: Mapping[int, tuple[bytes, bytes]] = field(default_factory=dict)

    @cached_property
    def values(self) -> dict[str, Any]:
        """Normal forms."""
        columns = (
            _taken(self.fields, self.rows) if len(self.rows) != len(self.fields[self.catalog.key[0]]) else self.fields
        )
        return {
            name: Normaliser(self.catalog.by_name[name], self.catalog).run(columns[name])[0]
            for name in self.catalog.by_name
        }

    @cached_property
    def record_keys(self) -> Any:
        """Record keys."""
        return canonical.record_keys(self.catalog, self.values)

    @cached_property
    def canonical(self) -> Any:
        """Canonical bytes."""
        return canonical.records(self.catalog, self.values)

    def part(self, kept: NDArray[np.int64]) -> Result:
        """Some of the rows that have an entry, by their places in `rows`, ascending; no refused ones."""
        return Result(self.catalog, self.rows[kept], self.entries[kept], self.fields)


@dataclass(frozen=True)
class KeyResult:
    """The keys of some rows: `values`, `record_keys` (pa.binary()) and `key_tags` ((n, 16) uint8) run along with
    `rows`."""

    rows: NDArray[np.int64]
    values: Mapping[str, Any]
    record_keys: Any
    key_tags: NDArray[np.uint8]
    refused: Mapping[int, Unreadable] = field(default_factory=dict)


class Kernel:
    """Turns chunks of one catalog into entries under one exchange key. Holds bounded caches only; not for two
    threads."""

    def __init__(self, catalog: Catalog, keys: CatalogKeys, stages: Stages | None = None) -> None:
        self.catalog = catalog
        self.keys = keys
        self.stages = stages or Stages()
        self._normalisers = {f.name: Normaliser(f, catalog) for f in catalog.fields}
        self._one_pass = one_pass(catalog, keys)

    def run(self, chunk: Chunk) -> Result:
        """Every row of `chunk` but its withdrawals: its entry, or why it has none."""
        entries = np.empty((len(chunk), ENTRY_BYTES), np.uint8)
        state = np.full(len(chunk), DONE, np.uint8)
        state[[*chunk.refused, *chunk.withdrawals]] = SKIPPED
        with self.stages.time("one pass"):
            if self._one_pass is None or not self._one_pass.run(chunk.fields, state, entries):
                state[state == DONE] = ODD
        refused = dict(chunk.refused)
        odd = np.flatnonzero(state == ODD)
        if len(odd):
            self._by_columns(chunk, odd, entries, refused)
            state[[*refused]] = SKIPPED
        rows = np.flatnonzero(state != SKIPPED).astype(np.int64, copy=False)
        kept = entries if len(rows) == len(chunk) else entries[rows]
        return Result(self.catalog, rows, kept, chunk.fields, refused, self._readable_keys(chunk, sorted(refused)))

    def _by_columns(
        self, chunk: Chunk, odd: NDArray[np.int64], entries: NDArray[np.uint8], refused: dict[int, Unreadable]
    ) -> None:
        """Fill in the entries of the rows `odd`, or why they have none, a column at a time."""
        with self.stages.time("canonicalise"):
            given = chunk.fields if len(odd) == len(chunk) else _taken(chunk.fields, odd)
            columns, bad = self._normalise(given, list(self.catalog.by_name))
            for name in self.catalog.key:
                bad |= _nulls(columns[name])
            for row in odd[bad].tolist():
                refused[row] = self._reason(chunk, row)
            values = columns if not bad.any() else _taken(columns, np.flatnonzero(~bad))
            record_keys = canonical.record_keys(self.catalog, values)
            records = canonical.records(self.catalog, values)
        with self.stages.time("hash"):
            entries[odd[~bad]] = self._entries(records, record_keys, values)

    def run_all(self, chunks: Iterable[Chunk]) -> Iterator[tuple[Chunk, Result]]:
        """`run` of each chunk, in order, in as many threads as there are processors, while the next are being read."""
        return in_order(lambda: type(self)(self.catalog, self.keys, self.stages).run, chunks)

    def keys_of(self, chunk: Chunk, rows: Sequence[int] | NDArray[np.int64] | None = None) -> KeyResult:
        """The keys of the rows named (default: the chunk's withdrawals), other fields unseen; refused rows stay
        refused."""
        wanted = np.asarray(sorted(chunk.withdrawals) if rows is None else rows, np.int64)
        refused = {row: chunk.refused[row] for row in wanted.tolist() if row in chunk.refused}
        names = list(self.catalog.key)
        columns, bad = self._normalise(_taken({name: chunk.fields[name] for name in names}, wanted), names)
        for name in self.catalog.key:
            bad |= _nulls(columns[name])
        for position in np.flatnonzero(bad).tolist():
            row = int(wanted[position])
            refused.setdefault(row, self._reason(chunk, row, key_only=True))
        bad |= np.isin(wanted, list(refused))
        kept = np.flatnonzero(~bad)
        values = _taken(columns, kept)
        record_keys = canonical.record_keys(self.catalog, values)
        tags = native.tags(self.keys.key, record_keys)
        return KeyResult(wanted[kept], values, record_keys, tags, refused)

    def subject_tags(self, values: Any) -> NDArray[np.uint8]:
        """The subject tags of a pa.string() array of subjects in normal form, (n, 16); zeros where null or
        undeclared."""
        size = len(values)
        if self.catalog.subject is None:
            return np.zeros((size, TAG_SIZE), np.uint8)
        coded = values.dictionary_encode()
        subjects = coded.dictionary.cast(pa.binary())
        table = np.zeros((len(subjects) + 1, TAG_SIZE), np.uint8)
        if self.catalog.subject.visibility != "public" or self.catalog.subject.public_pattern is None:
            # All alike: no need to look at each.
            public = np.full(len(subjects), self.catalog.subject.visibility == "public")
        else:
            public = np.fromiter(map(self.catalog.is_public, coded.dictionary.to_pylist()), np.bool_, len(subjects))
        # The last row stays zero: F4's tag of a record without a subject.
        for chosen, key in ((public, self.keys.public_subject), (~public, self.keys.subject)):
            places = np.flatnonzero(chosen)
            table[places] = native.tags(key, subjects.take(pa.array(places)))
        return np.asarray(table[coded.indices.fill_null(len(subjects)).to_numpy()])

    def _normalise(self, fields: Mapping[str, Any], names: list[str]) -> tuple[dict[str, Any], Mask]:
        columns: dict[str, Any] = {}
        bad = np.zeros(len(fields[names[0]]), np.bool_)
        for name in names:
            columns[name], refused = self._normalisers[name].run(fields[name])
            if refused is not None:
                bad |= refused
        return columns, bad

    def _reason(self, chunk: Chunk, row: int, *, key_only: bool = False) -> Unreadable:
        """Why the reference cannot read a row that the columns could not."""
        names = self.catalog.key if key_only else tuple(self.catalog.by_name)
        values = {name: chunk.fields[name][row].as_py() for name in names}
        if key_only:
            values = {**dict.fromkeys(self.catalog.by_name), **values}
        found = normal_row(self.catalog, values)
        if isinstance(found, Unreadable):
            return found
        raise AssertionError(f"{self.catalog.name}: kernel and reference disagree on row {int(chunk.numbers[row])}")

    def _entries(self, records: Any, record_keys: Any, values: Mapping[str, Any]) -> NDArray[np.uint8]:
        entries = np.empty((len(records), ENTRY_BYTES), np.uint8)
        subject = self.catalog.subject
        entries[:, :16] = self.subject_tags(values[subject.field]) if subject else 0
        entries[:, 16:32] = native.tags(self.keys.key, record_keys)
        entries[:, 32:] = native.commitments(self.keys.commitment, records)
        return entries

    def _readable_keys(self, chunk: Chunk, rows: list[int]) -> dict[int, tuple[bytes, bytes]]:
        if not rows:
            return {}
        names = list(self.catalog.key)
        values, bad = self._normalise(
            _taken({name: chunk.fields[name] for name in names}, np.asarray(rows, np.int64)), names
        )
        for array in values.values():
            bad |= _nulls(array)
        keys = canonical.record_keys(self.catalog, _taken(values, np.flatnonzero(~bad)))
        kept = [row for row, left in zip(rows, bad.tolist(), strict=True) if not left]
        tags = native.tags(self.keys.key, keys)
        return {row: (tag.tobytes(), key) for row, tag, key in zip(kept, tags, _listed(keys), strict=True)}


def _listed(array: Any) -> list[bytes]:
    return array.to_pylist()  # type: ignore[no-any-return]


def _nulls(array: Any) -> Mask:
    return np.asarray(array.is_null().to_numpy(zero_copy_only=False), np.bool_)


def _taken(columns: Mapping[str, Any], rows: NDArray[np.int64]) -> dict[str, Any]:
    wanted = pa.array(rows)
    return {name: column.take(wanted) for name, column in columns.items()}
