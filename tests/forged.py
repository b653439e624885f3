"""An entry file changed behind the ledger's back together with the SHA-256 that the store has of it: what only the anchored root can tell."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from ledger.kernel import native
from ledger.store.entryfile import Entries, read_entries, write_entries

Change = Callable[[Entries], Entries]


@contextmanager
def forged(home: Path, number: str, change: Change, role: str = "lawful") -> Iterator[None]:
    """The entry file of a batch is another inside, and what it was afterwards."""
    chosen = "SELECT s.id, entries_file, entries_sha256 FROM entry_set s JOIN batch b ON b.id = s.batch_id WHERE role = ? AND number = ?"
    with closing(sqlite3.connect(home / "store" / "ledger.db", isolation_level=None)) as store:
        row, name, digest = store.execute(chosen, (role, number)).fetchone()
        path = home / name
        before = path.read_bytes()
        entries = change(read_entries(path, digest))
        path.unlink()
        told = write_entries(
            path, entries.entries, entries.withdrawn, entries.frames, entries.row_versions, entries.tiles
        )
        store.execute("UPDATE entry_set SET entries_sha256 = ? WHERE id = ?", (told, row))
        try:
            yield
        finally:
            path.write_bytes(before)
            store.execute("UPDATE entry_set SET entries_sha256 = ? WHERE id = ?", (digest, row))


def without_tiles(entries: Entries) -> Entries:
    """As a version wrote it that knew no tiles."""
    assert entries.tiles is not None
    return replace(entries, tiles=None)


def tile_flipped(entries: Entries) -> Entries:
    """One bit of the first tile."""
    assert entries.tiles is not None
    tiles = entries.tiles.copy()
    tiles[0, 0] ^= 1
    return replace(entries, tiles=tiles)


def entry_flipped(entries: Entries) -> Entries:
    """One bit of the commitment of each entry, tiles as they were: they are stale."""
    changed = np.array(entries.entries)
    changed[:, 63] ^= 1
    return replace(entries, entries=changed)


def with_its_tiles(change: Change) -> Change:
    """The same with the tiles that the forged entries have."""

    def both(entries: Entries) -> Entries:
        changed = change(entries)
        return replace(changed, tiles=native.subroots(changed.entries))

    return both


def old_style(change: Change) -> Change:
    """The same in a file without tiles."""
    return lambda entries: replace(change(entries), tiles=None)


FORGERIES = {
    "a tile": (tile_flipped, "store.entries_tiles"),
    "entries, with the tiles they had": (entry_flipped, "store.entries_tiles"),
    "entries, with tiles made for them": (with_its_tiles(entry_flipped), "store.entries_tiles"),
    "entries, without tiles": (old_style(entry_flipped), "store.entries_root"),
}
"""Each with the code of the error that a proof from the file must end with."""
