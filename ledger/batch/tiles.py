"""Paths from the tiles that an entry file keeps (docs/formats/entries.md): the entries of one tile are hashed, not the tree.

Tiles count once they fold to the root on record, and a tile's entries once they give the tile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ledger import merkle
from ledger.batch.history import Bytes2D
from ledger.errors import StoreError
from ledger.kernel import native
from ledger.store.entryfile import Entries


def tree_of(entries: Bytes2D) -> tuple[Bytes2D, str]:
    """The tiles of the tree over sorted entries, and its root in hex; each entry is hashed once."""
    tiles = native.subroots(entries)
    return tiles, _root(tiles)


def with_tiles(entries: Entries, size: int, root: str, where: str, *, by_tiles: bool = False) -> Entries:
    """The same entries with the tiles of their tree, whose size and root are those given.

    Every entry is hashed, and tiles that the file has must be those of the entries. With `by_tiles` the file's tiles need only fold to
    the root: its entries are taken for those of that root as the store's SHA-256 vouches for, until `check` or `paths` looks at them.
    A file without tiles is hashed all the same. StoreError `store.entries_root`, `store.entries_tiles`.
    """
    told = entries.tiles
    if told is not None and by_tiles and len(entries.entries) == size:
        if _root(told) != root:
            raise _wrong_tiles(where, "they do not fold to the root on record")
        return entries
    tiles, found = tree_of(entries.entries)
    if len(entries.entries) != size or found != root:
        raise StoreError(
            "store.entries_root",
            f"条目文件 {where} 的根与台账记录不符；请运行 duizhang fsck",
            "the entry file's root is not the one on record; run duizhang fsck",
            where,
        )
    if told is not None and not np.array_equal(told, tiles):
        raise _wrong_tiles(
            where, f"tile {int(np.flatnonzero((told != tiles).any(axis=1))[0])} is not that of its entries"
        )
    return replace(entries, tiles=tiles)


def paths(entries: Entries, indices: Sequence[int], where: str) -> list[list[bytes]]:
    """The path of each of `indices` in the tree over entries that `with_tiles` gave; StoreError `store.entries_tiles` if the entries of a
    tile that is needed do not give it."""
    if entries.tiles is None:
        raise ValueError("with_tiles gives entries with tiles")

    def under(number: int) -> Iterator[bytes]:
        part = entries.entries[number * merkle.TILE : (number + 1) * merkle.TILE]
        return (row.tobytes() for row in part)

    try:
        return merkle.paths_by_tiles([tile.tobytes() for tile in entries.tiles], under, indices)
    except merkle.EvidenceError as error:
        raise _wrong_tiles(where, error.en) from error


def check(entries: Entries, index: int, where: str) -> None:
    """Returns only if the entry at `index` is under the root: the entries of its tile give the tile. StoreError `store.entries_tiles`."""
    if entries.tiles is None:
        raise ValueError("with_tiles gives entries with tiles")
    number = index // merkle.TILE
    part = entries.entries[number * merkle.TILE : (number + 1) * merkle.TILE]
    if not np.array_equal(native.subroots(part)[0], entries.tiles[number]):
        raise _wrong_tiles(where, f"the entries under tile {number} do not give it")


def _root(tiles: Bytes2D) -> str:
    return merkle.root_of_tiles(tile.tobytes() for tile in tiles).hex()


def _wrong_tiles(where: str, why: str) -> StoreError:
    return StoreError(
        "store.entries_tiles",
        f"条目文件 {where} 中的树块与其条目或台账记录的根不符：文件已损坏；请运行 duizhang fsck，并从备份恢复该文件",
        f"the tiles in the entry file are not those of its entries under the root on record ({why}): the file is damaged; run duizhang fsck "
        "and put it back from a backup",
        where,
    )
