"""The difference sketch (差异摘要): an invertible digest of a batch's entries, for the other party only (formats F6).

A cell holds a count, the XOR of entries and the XOR of their checks; each entry stands in four cells, one a quarter. The sketch of
one set minus that of another holds only what differs, and is peeled: a cell with one entry left gives it away, which lays others
bare. What peels is a claim like any other until `certify` has shown that it makes the anchored root.

Whoever has the exchange key can build a sketch that does not peel, or peels to entries that nobody has. He cannot make the root
match. So an uncertified result is only ever shown as partial.
"""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ledger import merkle
from ledger.errors import InputError
from ledger.kernel import native
from ledger.kernel.sorting import TAG, EntryIndex, duplicate_tags, sort_entries
from ledger.keys import ENTRY_SIZE, ExchangeKey, hkdf

CELL_SIZE = 72
MIN_CELLS, MAX_CELLS = 4, 1800
DEFAULT_CELLS = 256
_QUARTERS = 4
_WORDS = ENTRY_SIZE // 8
# So many entries at a time, with all that is computed of them, stay in the processor's cache.
_BLOCK = 1 << 14
_HASHED = struct.Struct(f"{1 + ENTRY_SIZE}s")
_CELL = np.dtype([("count", ">i4"), ("entries", "V64"), ("checks", ">u4")])

Entries = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Sketch:
    """Cells 0…m−1: `counts` int64 (m,), `entries` the XOR of entries as uint64 (m,8) in memory order, `checks` uint32 (m,)."""

    counts: npt.NDArray[np.int64]
    entries: npt.NDArray[np.uint64]
    checks: npt.NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.counts)

    def encode(self) -> bytes:
        """The sketch in clear: 72 bytes a cell, no header."""
        cells = np.zeros(len(self), _CELL)
        cells["count"] = self.counts
        cells["entries"] = np.ascontiguousarray(self.entries).view(np.uint8).view("V64").reshape(-1)
        cells["checks"] = self.checks
        return cells.tobytes()

    def minus(self, other: Sketch) -> Sketch:
        """The sketch of what differs; ValueError unless both have the same number of cells."""
        if len(self) != len(other):
            raise ValueError(f"a sketch of {len(self)} cells less one of {len(other)}")
        return Sketch(self.counts - other.counts, self.entries ^ other.entries, self.checks ^ other.checks)


@dataclass(frozen=True)
class Peeled:
    """What a difference gave away, (n,64) each, sorted; `complete` if nothing is left in it. Not yet certified."""

    only_ours: Entries
    only_theirs: Entries
    complete: bool


@dataclass(frozen=True)
class Difference:
    """Two batches against each other. `certified`: the list is complete, shown by the other side's anchored root.

    `only_ours` and `only_theirs` are entries (n,64), sorted; `differs` pairs of them with one key tag, ours first, sorted by key tag
    (n,2,64), which stand in both lists too. Not certified, it may be incomplete and `only_theirs` and `differs` may be untrue.
    """

    only_ours: Entries
    only_theirs: Entries
    differs: Entries
    certified: bool


def build(entries: Entries, cells: int) -> Sketch:
    """The sketch of `entries` (n,64), in any order, in `cells` cells; InputError `sketch.cells`."""
    check_cells(cells)
    quarter = cells // _QUARTERS
    counts = np.zeros((_QUARTERS, quarter), np.int64)
    # The words of the entries and, in the last column, the checks.
    sums = np.zeros((_QUARTERS, quarter, _WORDS + 1), np.uint64)
    for start in range(0, len(entries), _BLOCK):
        block = np.ascontiguousarray(entries[start : start + _BLOCK])
        words = np.ascontiguousarray(_hashed(0, block)[:, :20]).view(">u4").astype(np.uint32)
        rows = np.empty((len(block), _WORDS + 1), np.uint64)
        rows[:, :_WORDS] = block.view(np.uint64)
        rows[:, _WORDS] = words[:, _QUARTERS]
        for j in range(_QUARTERS):
            places = (words[:, j] % np.uint32(quarter)).astype(np.uint16)
            # With the entries of one cell side by side, a cell is one run.
            order = np.argsort(places, kind="stable")
            lengths = np.bincount(places, minlength=quarter)
            used = np.flatnonzero(lengths)
            starts = (np.cumsum(lengths) - lengths)[used]
            sums[j, used] ^= np.bitwise_xor.reduceat(rows[order], starts, axis=0)
            counts[j] += lengths
    flat = sums.reshape(cells, _WORDS + 1)
    return Sketch(counts.reshape(cells), flat[:, :_WORDS].copy(), flat[:, _WORDS].astype(np.uint32))


def parse(data: bytes, size: int, where: str = "") -> Sketch:
    """The sketch in clear `data` of a batch of anchored `size`; InputError `sketch.malformed` for what no batch of that size gives."""
    cells = len(data) // CELL_SIZE
    if len(data) % CELL_SIZE or not is_cells(cells):
        raise _malformed(f"{len(data)} 字节", f"{len(data)} bytes", where)
    read = np.frombuffer(data, _CELL)
    counts = read["count"].astype(np.int64)
    if (counts < 0).any():
        raise _malformed("计数为负", "a count is negative", where)
    sums = counts.reshape(_QUARTERS, -1).sum(axis=1)
    if (sums != size).any():
        raise _malformed(
            f"各段计数之和为 {sums.tolist()}，应为 {size}", f"the quarters count {sums.tolist()}, not {size}", where
        )
    words = np.frombuffer(read["entries"].tobytes(), np.uint64).reshape(-1, _WORDS)
    return Sketch(counts, words.copy(), read["checks"].astype(np.uint32))


def encrypt(data: bytes, key: ExchangeKey, batch_id: bytes, root: bytes) -> bytes:
    """The sketch `data` as it stands on chain, or what stands there in clear: AES-256-CTR is its own inverse.

    The key stream belongs to the exchange key, the batch, and the root of the revision that carries the sketch.
    """
    cells = len(data) // CELL_SIZE
    if len(batch_id) != merkle.HASH_SIZE or len(root) != merkle.HASH_SIZE:
        raise ValueError("batch id and root have 32 bytes each")
    secret = hkdf(key.secret, b"duizhang/1/sketch" + batch_id + root + cells.to_bytes(4, "big"))
    stream = Cipher(algorithms.AES(secret), modes.CTR(bytes(16))).encryptor()
    return stream.update(data) + stream.finalize()


def default_cells(entries: Entries) -> int:
    """How many cells a sender chooses: enough for its own entries to peel from nothing, at most 256."""
    size = len(entries)
    # The next multiple of 4 that is at least 1.5 size + 24, in whole numbers.
    cells = min(DEFAULT_CELLS, -(-(3 * size + 48) // 8) * 4)
    while cells < DEFAULT_CELLS:
        peeled = peel(build(entries, cells))
        if peeled.complete and len(peeled.only_ours) == size:
            return cells
        cells += 4
    return cells


def is_cells(cells: int) -> bool:
    """True for a number of cells that a sketch may have."""
    return MIN_CELLS <= cells <= MAX_CELLS and cells % _QUARTERS == 0


def check_cells(cells: int, where: str = "") -> None:
    """InputError `sketch.cells` unless a sketch may have so many cells."""
    if not is_cells(cells):
        raise InputError(
            "sketch.cells",
            f"差异摘要的单元数 {cells} 须为 {MIN_CELLS}–{MAX_CELLS} 之间 4 的倍数",
            f"a sketch has a multiple of 4 cells from {MIN_CELLS} to {MAX_CELLS}, not {cells}",
            where,
        )


def peel(difference: Sketch) -> Peeled:
    """Take the entries out of a difference, round by round, until no cell gives one away.

    Ends for every input, having looked into m cells and again into the four of each entry it took out, of which there are at most m. An
    entry that comes twice, or with both signs, or the one after m of them, stops it, and the round that stops adds nothing.
    """
    counts, sums, checks = difference.counts.copy(), difference.entries.copy(), difference.checks.copy()
    cells = len(counts)
    found: dict[bytes, int] = {}
    # A cell that gave nothing away gives nothing away until an entry is taken out of it.
    changed: Sequence[int] = range(cells)
    while True:
        fresh: dict[bytes, _Cells] = {}
        for cell in changed:
            sign = int(counts[cell])
            if sign not in (1, -1):
                continue
            entry = sums[cell].tobytes()
            it = _cells_of(entry, cells, sign)
            if it.check != checks[cell] or cell not in it.places:
                continue
            if entry in found or fresh.get(entry, it) != it:
                return _peeled(found, complete=False)
            fresh[entry] = it
        if not fresh:
            break
        if len(found) + len(fresh) > cells:
            return _peeled(found, complete=False)
        for entry, it in fresh.items():
            places = list(it.places)
            counts[places] -= it.sign
            sums[places] ^= np.frombuffer(entry, np.uint64)
            checks[places] ^= np.uint32(it.check)
            found[entry] = it.sign
        changed = sorted({cell for it in fresh.values() for cell in it.places})
    return _peeled(found, complete=not (counts.any() or sums.any() or checks.any()))


def certify(ours: Entries, peeled: Peeled, size: int, root: bytes) -> Difference:
    """What was peeled, certified if it turns `ours` (strictly ascending) into entries of the other side's anchored `size` and `root`."""
    differs = _pairs(peeled.only_ours, peeled.only_theirs)
    theirs = apply_difference(ours, peeled.only_ours, peeled.only_theirs) if peeled.complete else None
    certified = theirs is not None and len(theirs) == size and native.root(theirs) == root
    return Difference(peeled.only_ours, peeled.only_theirs, differs, certified)


def decode(ours: Entries, theirs: Sketch, size: int, root: bytes) -> Difference:
    """Our entries (strictly ascending) against the other side's sketch, size and root: peeled, and certified if that can be."""
    return certify(ours, peel(build(ours, len(theirs)).minus(theirs)), size, root)


def compare(ours: Entries, theirs: Entries) -> Difference:
    """The difference of two batches that are both known, each strictly ascending with one entry a key tag."""
    mine, other = _as_set(ours), _as_set(theirs)
    only_ours = ours[~np.isin(mine, other, assume_unique=True)]
    only_theirs = theirs[~np.isin(other, mine, assume_unique=True)]
    return Difference(only_ours, only_theirs, _pairs(only_ours, only_theirs), certified=True)


def apply_difference(ours: Entries, only_ours: Entries, only_theirs: Entries) -> Entries | None:
    """`ours` (strictly ascending) without `only_ours`, with `only_theirs`: the other side's entries, ascending.

    None unless `only_ours` are all ours, none of `only_theirs` is, and no key tag occurs twice, here or there.
    """
    if duplicate_tags(ours) or duplicate_tags(only_ours) or duplicate_tags(only_theirs):
        return None
    index = EntryIndex(ours)
    gone = index.lookup(np.ascontiguousarray(only_ours[:, TAG]))
    if (gone < 0).any() or (ours[gone] != only_ours).any():
        return None
    met = index.lookup(np.ascontiguousarray(only_theirs[:, TAG]))
    known = met >= 0
    if not np.isin(met[known], gone).all() or (ours[met[known]] == only_theirs[known]).all(axis=1).any():
        return None
    kept = np.delete(ours, gone, axis=0)
    added = only_theirs[sort_entries(only_theirs)]
    before = [bisect_left(range(len(kept)), it.tobytes(), key=lambda row: kept[row].tobytes()) for it in added]
    return np.insert(kept, before, added, axis=0)


def _hashed(mark: int, rows: Entries) -> Entries:
    """SHA-256 of `mark` and each row of 64 bytes, (n,32): of entries the leaves (mark 0), of pairs of hashes the nodes (1) of F5."""
    sha256 = hashlib.sha256
    parts: list[bytes] = []
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        marked = np.full((len(block), 1 + ENTRY_SIZE), mark, np.uint8)
        marked[:, 1:] = block
        parts.append(b"".join([sha256(it).digest() for (it,) in _HASHED.iter_unpack(marked.tobytes())]))
    return np.frombuffer(b"".join(parts), np.uint8).reshape(-1, merkle.HASH_SIZE)


@dataclass(frozen=True)
class _Cells:
    """Where an entry stands, what it adds to the checks, and with which sign it came."""

    places: tuple[int, ...]
    check: int
    sign: int


def _cells_of(entry: bytes, cells: int, sign: int) -> _Cells:
    quarter = cells // _QUARTERS
    words = struct.unpack_from(">5I", merkle.leaf_hash(entry))
    return _Cells(tuple(j * quarter + words[j] % quarter for j in range(_QUARTERS)), words[_QUARTERS], sign)


def _peeled(found: dict[bytes, int], *, complete: bool) -> Peeled:
    def signed(sign: int) -> Entries:
        chosen = sorted(entry for entry, its in found.items() if its == sign)
        return np.frombuffer(b"".join(chosen), np.uint8).reshape(-1, ENTRY_SIZE)

    return Peeled(signed(1), signed(-1), complete)


def _pairs(only_ours: Entries, only_theirs: Entries) -> Entries:
    """(n,2,64): ours and theirs of one key tag, sorted by it. Where a key tag comes twice on a side there are no pairs of it to tell."""
    ours, theirs = _single(only_ours), _single(only_theirs)
    if not len(ours) or not len(theirs):
        return np.zeros((0, 2, ENTRY_SIZE), np.uint8)
    at = EntryIndex(theirs).lookup(np.ascontiguousarray(ours[:, TAG]))
    pairs = np.stack([ours[at >= 0], theirs[at[at >= 0]]], axis=1)
    order = sorted(range(len(pairs)), key=lambda row: pairs[row, 0, TAG].tobytes())
    return pairs[order]


def _single(entries: Entries) -> Entries:
    keep = np.ones(len(entries), np.bool_)
    for group in duplicate_tags(entries):
        keep[group] = False
    return entries[keep]


def _as_set(entries: Entries) -> npt.NDArray[np.void]:
    return np.ascontiguousarray(entries).view("V64").reshape(-1)


def _malformed(zh: str, en: str, where: str) -> InputError:
    return InputError("sketch.malformed", f"差异摘要格式不合规：{zh}", f"the sketch is malformed: {en}", where)
