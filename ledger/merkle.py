"""The tree over a batch's entries: RFC 9162 section 2.1 (formats F5).

In go entries and integers, out come 32-byte hashes. Leaf SHA-256(00 ‖ entry), node SHA-256(01 ‖ left ‖ right), the
empty tree SHA-256 of nothing; the left part of a split is the largest power of two below the size, and no node is ever
duplicated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from ledger.errors import InputError, LedgerError

HASH_SIZE = 32
TILE = 1024
"""Entries under one tile, the root of a subtree that a path can begin with instead of the whole tree.

A power of two, so that the tree over all entries is the tree over its tiles. A path then takes the entries of one tile and all tiles: of a
million entries a thousand of each, which is least in all; and tiles are one 2000th of the bytes of the entries they stand beside.
"""
EMPTY_ROOT = hashlib.sha256(b"").digest()


class EvidenceError(LedgerError):
    """The evidence was read and contradicts what it is said to prove: a finding against it, not a malformed input."""


def leaf_hash(entry: bytes) -> bytes:
    """The hash of a leaf; `entry` may have any length here, RFC 9162 says nothing about it."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node over two hashes of 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_of(entries: Iterable[bytes]) -> tuple[int, bytes]:
    """Size and root of the tree over `entries` in the order given, which is not checked (`check_order` does).

    Reads them once and remembers one hash per level of the tree.
    """
    return _folded(leaf_hash(entry) for entry in entries)


def _folded(hashes: Iterable[bytes]) -> tuple[int, bytes]:
    """How many there are, and the root of the tree whose lowest nodes they are."""
    size = 0
    subtrees: list[bytes] = []
    for each in hashes:
        hashed = each
        # Each 1 at the end of the size so far is a complete subtree as large as the one growing on its right.
        carry = size
        while carry & 1:
            hashed = node_hash(subtrees.pop(), hashed)
            carry >>= 1
        subtrees.append(hashed)
        size += 1
    if not subtrees:
        return 0, EMPTY_ROOT
    root = subtrees.pop()
    while subtrees:
        root = node_hash(subtrees.pop(), root)
    return size, root


def check_order(entries: Iterable[bytes]) -> None:
    """Returns only if `entries` may be a batch: 64 bytes each, strictly ascending, no key tag twice (F5).

    Remembers the key tags. InputError `tree.entry_size`, `tree.order` or `tree.key_tag_twice`.
    """
    for _ in _in_order(entries):
        pass


def root_of_batch(entries: Iterable[bytes]) -> tuple[int, bytes]:
    """Size and root of a batch, read once: `check_order` and `root_of` in one pass."""
    return root_of(_in_order(entries))


def _in_order(entries: Iterable[bytes]) -> Iterator[bytes]:
    last = b""
    key_tags: set[bytes] = set()
    for number, entry in enumerate(entries):
        if len(entry) != 64:
            raise InputError(
                "tree.entry_size",
                f"第 {number} 个条目有 {len(entry)} 字节，应为 64",
                f"entry {number} has {len(entry)} bytes, not 64",
            )
        if entry <= last:
            raise InputError(
                "tree.order",
                f"第 {number} 个条目没有严格递增，批次作废",
                f"entry {number} is not above the one before it; the entries of a batch ascend strictly",
            )
        if entry[16:32] in key_tags:
            raise InputError(
                "tree.key_tag_twice",
                f"第 {number} 个条目的主键标签 {entry[16:32].hex()} 已出现过，批次作废",
                f"entry {number} repeats the key tag {entry[16:32].hex()}; a batch has one entry per record key",
            )
        key_tags.add(entry[16:32])
        last = entry
        yield entry


def inclusion_path(entries: Sequence[bytes], index: int) -> list[bytes]:
    """The path of leaf `index`, from the leaf's sibling up to the root's child (RFC 9162 section 2.1.3.1).

    Hashes every entry once. IndexError unless 0 <= index < len(entries).
    """
    if not 0 <= index < len(entries):
        raise IndexError(f"leaf {index} of {len(entries)}")
    path: list[bytes] = []
    low, high = 0, len(entries)
    while high - low > 1:
        middle = low + _left_size(high - low)
        if index < middle:
            path.append(root_of(entries[at] for at in range(middle, high))[1])
            high = middle
        else:
            path.append(root_of(entries[at] for at in range(low, middle))[1])
            low = middle
    return path[::-1]


def inclusion_paths(entries: Iterable[bytes], indices: Sequence[int]) -> tuple[int, bytes, list[list[bytes]]]:
    """Size, root, and the path of each of `indices` (as `inclusion_path` gives it), hashing every entry once.

    Remembers one level of the tree at a time, 32 bytes a node. IndexError for an index that is not below the size.
    """
    return _paths([leaf_hash(entry) for entry in entries], indices)


def _paths(hashes: list[bytes], indices: Sequence[int]) -> tuple[int, bytes, list[list[bytes]]]:
    """The same of the tree whose lowest nodes are `hashes`."""
    level = hashes
    size = len(level)
    for index in indices:
        if not 0 <= index < size:
            raise IndexError(f"leaf {index} of {size}")
    if not size:
        return 0, EMPTY_ROOT, []
    paths: list[list[bytes]] = [[] for _ in indices]
    places = list(indices)
    while len(level) > 1:
        for number, place in enumerate(places):
            # The last node of an odd level has no sibling: it goes up as it is.
            if place ^ 1 < len(level):
                paths[number].append(level[place ^ 1])
            places[number] = place >> 1
        above = [node_hash(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
        level = above + level[len(level) - 1 :] if len(level) & 1 else above
    return size, level[0], paths


def tiles_of(entries: Iterable[bytes]) -> list[bytes]:
    """The tiles of a tree, from the left: the root over each TILE entries, the last over what remains."""
    left = iter(entries)
    tiles = []
    while part := list(islice(left, TILE)):
        tiles.append(root_of(part)[1])
    return tiles


def root_of_tiles(tiles: Iterable[bytes]) -> bytes:
    """The root of the tree that has these tiles."""
    return _folded(tiles)[1]


def paths_by_tiles(
    tiles: Sequence[bytes], under: Callable[[int], Iterable[bytes]], indices: Sequence[int]
) -> list[list[bytes]]:
    """The path of each of `indices` (as `inclusion_path` gives it), from the tiles of the tree and the entries of those tiles that they stand
    under: `under` gives those of a tile by its number, and is asked once.

    EvidenceError `path.tile` if a tile is not the root over its entries. IndexError for an index that the tree does not have.
    """
    wanted: dict[int, list[int]] = {}
    for at, index in enumerate(indices):
        wanted.setdefault(index // TILE, []).append(at)
    paths: list[list[bytes]] = [[] for _ in indices]
    numbers = list(wanted)
    above = _paths(list(tiles), numbers)[2]
    for number, upper in zip(numbers, above, strict=True):
        places = [indices[at] % TILE for at in wanted[number]]
        _, root, lower = inclusion_paths(under(number), places)
        if root != tiles[number]:
            raise EvidenceError(
                "path.tile",
                f"第 {number} 块的根是 {tiles[number].hex()}，其条目得出的是 {root.hex()}",
                f"the entries under tile {number} have the root {root.hex()}, not {tiles[number].hex()}",
            )
        for at, path in zip(wanted[number], lower, strict=True):
            paths[at] = path + upper
    return paths


def _left_size(size: int) -> int:
    """The largest power of two below `size`, which is at least 2."""
    return 1 << (size - 1).bit_length() - 1


def root_from_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root that leaf hash `leaf` at `index` of `size` leaves gives by `path` (RFC 9162 section 2.1.3.2).

    `size` comes from the anchor, never from the proof: one path fits several (index, size) pairs. InputError
    `path.index` unless 0 <= index < size, `path.hash_size` unless every hash has 32 bytes, `path.length` unless the
    path has exactly the number of hashes that this index and size need.
    """
    if not 0 <= index < size:
        raise InputError(
            "path.index", f"序号 {index} 不在条数 {size} 之内", f"index {index} is not below the size {size}"
        )
    if len(leaf) != HASH_SIZE or any(len(hashed) != HASH_SIZE for hashed in path):
        raise InputError("path.hash_size", "路径中的哈希须为 32 字节", "a hash of the path does not have 32 bytes")
    # Steps 1 to 5 of RFC 9162 section 2.1.3.2, with its names: fn the index, sn the last index, r the hash so far.
    fn, sn, r = index, size - 1, leaf
    for p in path:
        if sn == 0:
            raise _wrong_length(index, size, len(path))
        if fn & 1 or fn == sn:
            r = node_hash(p, r)
            while not fn & 1 and fn != 0:
                fn >>= 1
                sn >>= 1
        else:
            r = node_hash(r, p)
        fn >>= 1
        sn >>= 1
    if sn != 0:
        raise _wrong_length(index, size, len(path))
    return r


def _wrong_length(index: int, size: int, length: int) -> InputError:
    return InputError(
        "path.length",
        f"路径有 {length} 个哈希，与序号 {index}、条数 {size} 不符",
        f"a path of {length} hashes does not fit index {index} of {size}",
    )


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Returns only if `path` leads from leaf hash `leaf` at `index` to the anchored `size` and `root`.

    InputError as `root_from_path`; EvidenceError `path.root` if it leads to another root.
    """
    computed = root_from_path(leaf, index, size, path)
    if computed != root:
        raise EvidenceError(
            "path.root",
            f"路径得出的根是 {computed.hex()}，上链的根是 {root.hex()}",
            f"the path leads to root {computed.hex()}, anchored is {root.hex()}",
        )
