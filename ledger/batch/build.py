"""From chunks of rows to the sorted entries of one batch, and their archive (formats F3-F5).

Rows go in as they are read; out come arrays of about 80 bytes an entry. The archive, if one is wanted, is written as the rows
pass, so no row is held.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ledger.batch.history import History
from ledger.batch.tiles import tree_of
from ledger.catalog import Catalog
from ledger.errors import InputError
from ledger.kernel import native
from ledger.kernel.chunk import Chunk
from ledger.kernel.entries import Kernel, Result
from ledger.kernel.sorting import TAG, EntryIndex, duplicate_tags, sort_entries
from ledger.kernel.stages import Stages
from ledger.keys import CatalogKeys
from ledger.record import Unreadable, withdrawal
from ledger.record import shown as shown_value
from ledger.store.archive import ArchiveWriter
from ledger.store.entryfile import NO_FRAME, NO_VERSION, versions_of

_ROOT_BLOCK = 1 << 16
_SHOWN_GROUPS = 20


@dataclass(frozen=True)
class BadRow:
    """A row without an entry: its line or row number, the reason, and its cells as delivered (files only)."""

    number: int
    unreadable: Unreadable
    cells: Sequence[str] | None


@dataclass(frozen=True)
class Built:
    """The entries of one batch, strictly ascending; `withdrawn`, `frames` and `row_versions` (None where the rows were read without)
    run along. `root` is 64 hex digits; `tiles` are those of its tree, None where they were not kept."""

    entries: npt.NDArray[np.uint8]
    withdrawn: npt.NDArray[np.bool_]
    frames: npt.NDArray[np.uint32]
    size: int
    root: str
    row_versions: npt.NDArray[np.int64] | None = None
    tiles: npt.NDArray[np.uint8] | None = None


class Builder:
    """Takes in chunks with `add`, gives the batch with `finish`.

    `earlier` is the fold of the stream before this batch: a withdrawal takes its subject tag from there and is a bad row where
    the key has no earlier version, or its latest is itself a withdrawal (F4). Bad rows are gathered in `bad`, in the order read;
    whether they stop the batch is the caller's to say.
    """

    def __init__(
        self,
        catalog: Catalog,
        keys: CatalogKeys,
        earlier: History | None = None,
        archive: ArchiveWriter | None = None,
        stages: Stages | None = None,
    ) -> None:
        self._catalog = catalog
        self._keys = keys
        self._kernel = Kernel(catalog, keys, stages)
        self._earlier = earlier
        self._archive = archive
        self._entries: list[npt.NDArray[np.uint8]] = []
        self._withdrawn: list[npt.NDArray[np.bool_]] = []
        self._frames: list[npt.NDArray[np.uint32]] = []
        self._numbers: list[npt.NDArray[np.int64]] = []
        self._versions: list[npt.NDArray[np.int64]] = []
        self.bad: list[BadRow] = []
        self.rows = 0

    @property
    def kernel(self) -> Kernel:
        """The kernel that made the entries (its stages can be read)."""
        return self._kernel

    def add(self, chunk: Chunk) -> None:
        """Take in the rows of `chunk`."""
        self.add_all([chunk])

    def add_all(self, chunks: Iterable[Chunk], keep: Callable[[Chunk], npt.NDArray[np.bool_]] | None = None) -> None:
        """Take in the rows of all `chunks`; with `keep`, which gives a mask over a chunk's rows, only those, and no withdrawals."""
        for chunk, result in self._kernel.run_all(chunks):
            self.add_result(chunk, result if keep is None else result_of(result, keep(chunk)))
            if chunk.withdrawals and keep is None:
                self.rows += len(chunk.withdrawals)
                self._add_withdrawals(chunk)

    def add_result(self, chunk: Chunk, result: Result) -> None:
        """Take in the rows of `chunk` that the kernel's `result` names."""
        self.rows += len(result.rows) + len(result.refused)
        self._gather_bad(chunk, result.refused)
        self._append(chunk, result.rows, result.entries, lambda: result.canonical, withdrawn=False)

    def add_entries(self, entries: npt.NDArray[np.uint8], withdrawn: npt.NDArray[np.bool_]) -> None:
        """Take in finished entries that are archived elsewhere."""
        self._entries.append(entries)
        self._withdrawn.append(withdrawn)
        self._frames.append(np.full(len(entries), NO_FRAME, np.uint32))
        self._numbers.append(np.zeros(len(entries), np.int64))
        self._versions.append(np.full(len(entries), NO_VERSION))

    def add_opened(self, entries: npt.NDArray[np.uint8], canonical: Sequence[bytes]) -> None:
        """Take in finished entries of records with their canonical bytes, which are archived here once more."""
        self._append(
            None, np.zeros(len(entries), np.int64), entries, lambda: pa.array(canonical, pa.binary()), withdrawn=False
        )

    def add_withdrawal(self, tag: bytes, canonical: bytes, subject_tag: bytes) -> None:
        """Take in one withdrawal that was decided by name (an own source), not read from a file."""
        entry = self._keys.entry(subject_tag, tag, self._keys.commit(canonical)[2])
        self._append(None, np.zeros(1, np.int64), _matrix([entry], 64), lambda: pa.array([canonical]), withdrawn=True)

    def _add_withdrawals(self, chunk: Chunk) -> None:
        found = self._kernel.keys_of(chunk)
        self._gather_bad(chunk, found.refused)
        kept: list[int] = []
        entries: list[bytes] = []
        canonical: list[bytes] = []
        names = self._catalog.key
        for at, row in enumerate(found.rows.tolist()):
            tag = found.key_tags[at].tobytes()
            subject_tag = self.earlier_subject(tag)
            if subject_tag is None:
                self._gather_bad(chunk, {row: _NO_EARLIER})
                continue
            key = {name: found.values[name][at].as_py() for name in names}
            data = withdrawal(self._catalog, key, chunk.withdrawals[row])
            kept.append(row)
            canonical.append(data)
            entries.append(self._keys.entry(subject_tag, tag, self._keys.commit(data)[2]))
        rows = np.array(kept, np.int64)
        self._append(chunk, rows, _matrix(entries, 64), lambda: pa.array(canonical, pa.binary()), withdrawn=True)

    def earlier_subject(self, tag: bytes) -> bytes | None:
        """The subject tag of the latest earlier version of a key; None if there is none or it is a withdrawal."""
        key = self._earlier.find(tag) if self._earlier is not None else -1
        if self._earlier is None or key < 0:
            return None
        latest = self._earlier.latest(key)
        return None if latest.withdrawn else latest.subject_tag

    def _append(
        self,
        chunk: Chunk | None,
        rows: npt.NDArray[np.int64],
        entries: npt.NDArray[np.uint8],
        canonical: Callable[[], pa.BinaryArray],
        *,
        withdrawn: bool,
    ) -> None:
        if not len(rows):
            return
        frames = np.full(len(rows), NO_FRAME, np.uint32)
        if self._archive is not None:
            raw = None
            if chunk is not None and chunk.raw is not None:
                raw = [raw_row(cells) for cells in chunk.raw.rows(rows)]
            frames = self._archive.append(np.ascontiguousarray(entries[:, TAG]), canonical(), raw)
        self._entries.append(entries)
        self._withdrawn.append(np.full(len(rows), withdrawn))
        self._frames.append(frames)
        self._numbers.append(chunk.numbers[rows] if chunk is not None else np.zeros(len(rows), np.int64))
        versions = None if chunk is None else row_versions(chunk)
        self._versions.append(np.full(len(rows), NO_VERSION) if versions is None else versions[rows])

    def _gather_bad(self, chunk: Chunk, refused: Mapping[int, Unreadable]) -> None:
        for row, unreadable in refused.items():
            self.bad.append(BadRow(int(chunk.numbers[row]), unreadable, chunk.raw.row(row) if chunk.raw else None))

    def drop_repeated(self) -> None:
        """Leave out all rows of a key that occurs twice: what a receiver found so cannot be stated as held."""
        entries = np.concatenate(self._entries) if self._entries else np.zeros((0, 64), np.uint8)
        keep = np.ones(len(entries), np.bool_)
        for group in duplicate_tags(entries):
            keep[group] = False
        if keep.all():
            return
        self._entries = [entries[keep]]
        self._withdrawn = [np.concatenate(self._withdrawn)[keep]]
        self._frames = [np.concatenate(self._frames)[keep]]
        self._numbers = [np.concatenate(self._numbers)[keep]]
        self._versions = [np.concatenate(self._versions)[keep]]

    def finish(self, where: str = "", reread: Callable[[], Iterable[Chunk]] | None = None) -> Built:
        """The batch; InputError `batch.duplicate_key` if a key occurs twice (F5: refused, never merged).

        `reread` gives the same chunks again, so that the refusal can name the keys, and tell a repeated key from two keys with one
        tag (`batch.tag_collision`).
        """
        entries = np.concatenate(self._entries) if self._entries else np.zeros((0, 64), np.uint8)
        self._entries.clear()
        withdrawn = np.concatenate(self._withdrawn) if self._withdrawn else np.zeros(0, np.bool_)
        frames = np.concatenate(self._frames) if self._frames else np.zeros(0, np.uint32)
        groups = duplicate_tags(entries)
        if groups:
            numbers = np.concatenate(self._numbers)
            found = [sorted(numbers[group].tolist()) for group in groups]
            raise self.duplicates(found, where, reread() if reread is not None else ())
        self._numbers.clear()
        versions = np.concatenate(self._versions) if self._versions else np.zeros(0, np.int64)
        self._versions.clear()
        order = sort_entries(entries)
        entries = entries[order]
        tiles, root = tree_of(entries)
        known = versions[order] if (versions != NO_VERSION).any() else None
        return Built(entries, withdrawn[order], frames[order], len(entries), root, known, tiles)

    def duplicates(self, groups: list[list[int]], where: str, chunks: Iterable[Chunk]) -> InputError:
        """The refusal of a batch in which the rows of each group (their numbers) have one key tag; see `finish`."""
        wanted = np.array(sorted(number for group in groups for number in group), np.int64)
        keys: dict[int, bytes] = {}
        for chunk in chunks:
            found = self._kernel.keys_of(chunk, np.flatnonzero(np.isin(chunk.numbers, wanted)))
            numbers = chunk.numbers[found.rows].tolist()
            keys.update(zip(numbers, found.record_keys.to_pylist(), strict=True))
        shown = []
        for group in groups[:_SHOWN_GROUPS]:
            named = {keys[number] for number in group if number in keys}
            lines = ", ".join(str(number) for number in group)
            if len(named) > 1:
                return InputError(
                    "batch.tag_collision",
                    f"第 {lines} 行主键不同而标签相同，整批拒收",
                    f"lines {lines} carry different keys with one key tag; the whole batch is refused",
                    where,
                )
            shown.append(f"{lines} ({self._shown_key(next(iter(named)))})" if named else lines)
        listed = "; ".join(shown) + ("; …" if len(groups) > _SHOWN_GROUPS else "")
        return InputError(
            "batch.duplicate_key",
            f"{len(groups)} 个主键出现多次，整批拒收（不合并）。所在行：{listed}",
            f"{len(groups)} key(s) occur more than once; the whole batch is refused, never merged. Lines: {listed}",
            where,
        )

    def _shown_key(self, record_key: bytes) -> str:
        values: dict[str, str] = json.loads(record_key)["key"]
        return " ".join(shown_value(self._catalog.by_name[name], value) for name, value in values.items())


def add_among(builder: Builder, chunks: Iterable[Chunk], entries: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Give `builder` the rows that are among `entries` (of which no two share a tag), each once; which of them were found."""
    index = EntryIndex(entries)
    found = np.zeros(len(entries), np.bool_)
    for chunk, result in builder.kernel.run_all(chunks):
        at = index.lookup(np.ascontiguousarray(result.entries[:, TAG]))
        same = at >= 0
        same[same] = (entries[at[same]] == result.entries[same]).all(axis=1) & ~found[at[same]]
        rows = np.flatnonzero(same)
        # The same row twice in one chunk is taken once as well.
        _, first = np.unique(at[rows], return_index=True)
        rows = rows[first]
        found[at[rows]] = True
        mask = np.zeros(len(chunk), np.bool_)
        mask[result.rows[rows]] = True
        builder.add_result(chunk, result_of(result, mask))
    return found


def row_versions(chunk: Chunk) -> npt.NDArray[np.int64] | None:
    """The row version of each row of `chunk`, `NO_VERSION` where it has none; None if the source was read without."""
    column = chunk.extra.get("row_version")
    return None if column is None else versions_of(column)


def result_of(result: Result, keep: npt.NDArray[np.bool_]) -> Result:
    """The part of a kernel's result that concerns the rows of the mask `keep`."""
    return replace(
        result.part(np.flatnonzero(keep[result.rows])),
        refused={row: why for row, why in result.refused.items() if keep[row]},
        refused_keys={row: key for row, key in result.refused_keys.items() if keep[row]},
    )


def entry_bytes(entries: npt.NDArray[np.uint8]) -> Iterator[bytes]:
    """The rows of (n, 64) as bytes, one after another, a block copied at a time."""
    for start in range(0, len(entries), _ROOT_BLOCK):
        block = entries[start : start + _ROOT_BLOCK].tobytes()
        for at in range(0, len(block), 64):
            yield block[at : at + 64]


def root_hex(entries: npt.NDArray[np.uint8]) -> str:
    """The RFC 9162 root of sorted entries, in hex."""
    return native.root(entries).hex()


def raw_row(cells: Sequence[str]) -> bytes:
    """A delivered row as the archive keeps it: a JSON list of its cells; undecodable bytes stay what they were."""
    return json.dumps(list(cells), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogateescape")


NO_EARLIER = "withdrawal.no_earlier_version"
_NO_EARLIER = Unreadable(
    field="",
    value="",
    code=NO_EARLIER,
    zh="撤回的记录在本数据流中没有更早的有效版本",
    en="withdraws a record of which the stream has no earlier live version (formats F4)",
)


def _matrix(parts: Sequence[bytes], width: int) -> npt.NDArray[np.uint8]:
    return np.frombuffer(b"".join(parts), np.uint8).reshape(-1, width)
