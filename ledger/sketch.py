"""The difference sketch (差异摘要): an invertible digest of a batch's entries, for the other party only (formats F6).

A cell holds a count, the XOR of entries and the XOR of their checks; each entry stands in four cells, one a quarter. The sketch of
one set minus that of another holds only what differs, and is peeled: a cell with one entry left gives it away, which lays others
bare. What peels is a claim like any other until `certify` has shown that it makes the anchored root.

Whoever has the exchange key can build a sketch that does not peel, or peels to entries that nobody has. He cannot make the root
match. So an uncertified result is only ever shown as partial.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ledger import merkle
from ledger.errors import InputError
from ledger.kernel.sorting import TAG, EntryIndex, duplicate_tags, sort_entries
from ledger.keys import ENTRY_SIZE, ExchangeKey, hkdf

CELL_SIZE = 72
MIN_CELLS, MAX_CELLS = 4, 1800
DEFAULT_CELLS = 256
_QUARTERS = 4
_HASH_BLOCK = 1 << 16
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


def build(entries: Entries, cells: int, leaves: Entries | None = None) -> Sketch:
    """The sketch of `entries` (n,64) in `cells` cells; InputError `sketch.cells`. `leaves` are their leaf hashes, if they are at hand."""
    check_cells(cells)
    hashes = leaf_hashes(entries) if leaves is None else leaves
    places, checks = _places(hashes, cells)
    words = np.ascontiguousarray(entries).view(np.uint64)
    counts = np.zeros(cells, np.int64)
    sums = np.zeros((cells, ENTRY_SIZE // 8), np.uint64)
    check_sums = np.zeros(cells, np.uint32)
    columns = [np.ascontiguousarray(words[:, word]) for word in range(words.shape[1])]
    for quarter in range(_QUARTERS):
        place = np.ascontiguousarray(places[:, quarter])
        counts += np.bincount(place, minlength=cells)
        for word, column in enumerate(columns):
            line = np.zeros(cells, np.uint64)
            np.bitwise_xor.at(line, place, column)
            sums[:, word] ^= line
        np.bitwise_xor.at(check_sums, place, checks)
    return Sketch(counts, sums, check_sums)


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
    words = np.frombuffer(read["entries"].tobytes(), np.uint64).reshape(-1, ENTRY_SIZE // 8)
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
    leaves = leaf_hashes(entries) if cells < DEFAULT_CELLS else None
    while cells < DEFAULT_CELLS:
        peeled = peel(build(entries, cells, leaves))
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


def leaf_hashes(entries: Entries) -> Entries:
    """The leaf hash of each entry (formats F5), (n,32)."""
    sha256 = hashlib.sha256
    parts: list[bytes] = []
    for start in range(0, len(entries), _HASH_BLOCK):
        block = entries[start : start + _HASH_BLOCK]
        marked = np.zeros((len(block), 1 + ENTRY_SIZE), np.uint8)
        marked[:, 1:] = block
        data = marked.tobytes()
        parts.append(b"".join([sha256(data[at : at + 65]).digest() for at in range(0, len(data), 65)]))
    return np.frombuffer(b"".join(parts), np.uint8).reshape(-1, merkle.HASH_SIZE)


def peel(difference: Sketch) -> Peeled:
    """Take the entries out of a difference, round by round, until no cell gives one away.

    Ends for every input: an entry that comes twice, or with both signs, or the one after m of them, stops it, and the round that stops
    adds nothing.
    """
    counts, sums, checks = difference.counts.copy(), difference.entries.copy(), difference.checks.copy()
    cells = len(counts)
    places_of = _finder(cells)
    found: dict[bytes, int] = {}
    while True:
        fresh: dict[bytes, int] = {}
        for cell in np.flatnonzero(np.abs(counts) == 1).tolist():
            entry = sums[cell].tobytes()
            places, check = places_of(entry)
            if check != checks[cell] or cell not in places:
                continue
            sign = int(counts[cell])
            if entry in found or fresh.get(entry, sign) != sign:
                return _peeled(found, complete=False)
            fresh[entry] = sign
        if not fresh:
            break
        if len(found) + len(fresh) > cells:
            return _peeled(found, complete=False)
        for entry, sign in fresh.items():
            places, check = places_of(entry)
            words = np.frombuffer(entry, np.uint64)
            for cell in places:
                counts[cell] -= sign
                sums[cell] ^= words
                checks[cell] ^= np.uint32(check)
        found |= fresh
    return _peeled(found, complete=not (counts.any() or sums.any() or checks.any()))


def certify(ours: Entries, peeled: Peeled, size: int, root: bytes) -> Difference:
    """What was peeled, certified if it turns `ours` (strictly ascending) into entries of the other side's anchored `size` and `root`."""
    differs = _pairs(peeled.only_ours, peeled.only_theirs)
    theirs = apply_difference(ours, peeled.only_ours, peeled.only_theirs) if peeled.complete else None
    certified = (
        theirs is not None
        and len(theirs) == size
        and not duplicate_tags(ours)
        and not duplicate_tags(theirs)
        and merkle.root_of(_bytes_of(theirs)) == (size, root)
    )
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
    """The other side's entries, sorted; None if `only_ours` are not all ours or one of `only_theirs` is."""
    mine = _as_set(ours)
    gone = np.isin(mine, _as_set(only_ours))
    if int(gone.sum()) != len(only_ours) or np.isin(_as_set(only_theirs), mine).any():
        return None
    theirs = np.concatenate([ours[~gone], only_theirs])
    return theirs[sort_entries(theirs)]


def _places(hashes: Entries, cells: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
    """The four cells of each leaf hash, (n,4), and its check, (n,)."""
    words = np.ascontiguousarray(hashes[:, :20]).view(">u4").astype(np.uint32)
    quarter = cells // _QUARTERS
    places = (words[:, :_QUARTERS] % np.uint32(quarter)).astype(np.int64)
    return places + np.arange(_QUARTERS) * quarter, np.ascontiguousarray(words[:, _QUARTERS])


def _finder(cells: int) -> Callable[[bytes], tuple[tuple[int, ...], int]]:
    """Cells and check of an entry, remembered: a cell that does not peel is looked at again in every round."""
    quarter = cells // _QUARTERS
    known: dict[bytes, tuple[tuple[int, ...], int]] = {}

    def places_of(entry: bytes) -> tuple[tuple[int, ...], int]:
        if entry not in known:
            leaf = merkle.leaf_hash(entry)
            words = [int.from_bytes(leaf[at : at + 4], "big") for at in range(0, 20, 4)]
            places = tuple(j * quarter + words[j] % quarter for j in range(_QUARTERS))
            known[entry] = places, words[_QUARTERS]
        return known[entry]

    return places_of


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


def _bytes_of(entries: Entries) -> list[bytes]:
    data = entries.tobytes()
    return [data[at : at + ENTRY_SIZE] for at in range(0, len(data), ENTRY_SIZE)]


def _malformed(zh: str, en: str, where: str) -> InputError:
    return InputError("sketch.malformed", f"差异摘要格式不合规：{zh}", f"the sketch is malformed: {en}", where)
