"""Tiles beside entries count only if they fold to the root on record, and entries only if they give their tile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ledger import merkle
from ledger.batch import tiles
from ledger.errors import StoreError
from ledger.kernel import native
from ledger.store.entryfile import Entries
from tests.store.conftest import make_entries

SIZE = 2500


@pytest.fixture(scope="module")
def good() -> Entries:
    entries = make_entries(SIZE)
    return Entries(entries, np.zeros(SIZE, np.bool_), np.zeros(SIZE, np.uint32), tiles=native.subroots(entries))


def root(entries: Entries) -> str:
    return merkle.root_of(row.tobytes() for row in entries.entries)[1].hex()


def refused(action: Callable[[], object]) -> str:
    with pytest.raises(StoreError) as error:
        action()
    assert error.value.where == "file"
    return error.value.code


def test_the_tree_is_that_of_the_reference(good: Entries) -> None:
    found, told = tiles.tree_of(good.entries)
    assert (found == good.tiles).all()
    assert told == root(good)


@pytest.mark.parametrize("by_tiles", [False, True])
@pytest.mark.parametrize("older", [False, True])
def test_good_entries_come_with_their_tiles(good: Entries, by_tiles: bool, older: bool) -> None:
    given = replace(good, tiles=None) if older else good
    found = tiles.with_tiles(given, SIZE, root(good), "file", by_tiles=by_tiles)
    np.testing.assert_array_equal(found.tiles, good.tiles)
    indices = [0, 1023, 1024, SIZE - 1, 7, 7]
    rows = [row.tobytes() for row in good.entries]
    assert tiles.paths(found, indices, "file") == [merkle.inclusion_path(rows, at) for at in indices]
    for index in indices:
        tiles.check(found, index, "file")


def test_by_tiles_nothing_but_the_tiles_is_hashed(good: Entries, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[int] = []
    real = native.subroots
    monkeypatch.setattr(native, "subroots", lambda part: hashed.append(len(part)) or real(part))
    found = tiles.with_tiles(good, SIZE, root(good), "file", by_tiles=True)
    assert hashed == []
    tiles.check(found, 2400, "file")
    assert hashed == [SIZE - 2048]
    tiles.with_tiles(replace(good, tiles=None), SIZE, root(good), "file", by_tiles=True)
    assert hashed[1:] == [SIZE]


def flipped(array: np.ndarray, row: int) -> np.ndarray:
    changed = array.copy()
    changed[row, -1] ^= 1
    return changed


@pytest.mark.parametrize("by_tiles", [False, True])
@pytest.mark.parametrize("row", [0, 1, 2])
def test_a_tampered_or_stale_tile_is_damage_by_name(good: Entries, row: int, by_tiles: bool) -> None:
    assert good.tiles is not None
    stale = native.subroots(make_entries(SIZE, seed=9))
    swapped = good.tiles[[1, 0, 2]]
    for wrong in (flipped(good.tiles, row), stale, swapped):
        given = replace(good, tiles=wrong)
        found = refused(lambda given=given: tiles.with_tiles(given, SIZE, root(good), "file", by_tiles=by_tiles))
        assert found == "store.entries_tiles"


@pytest.mark.parametrize("older", [False, True])
def test_wrong_entries_are_found_by_the_root(good: Entries, older: bool) -> None:
    given = replace(good, entries=flipped(good.entries, 5), tiles=None if older else good.tiles)
    assert refused(lambda: tiles.with_tiles(given, SIZE, root(good), "file")) == "store.entries_root"
    assert refused(lambda: tiles.with_tiles(good, SIZE + 1, root(good), "file", by_tiles=True)) == "store.entries_root"


@pytest.mark.parametrize("row", [0, 1023, 1024, 2048, SIZE - 1])
def test_by_tiles_a_wrong_entry_is_found_when_its_tile_is_used(good: Entries, row: int) -> None:
    given = replace(good, entries=flipped(good.entries, row))
    found = tiles.with_tiles(given, SIZE, root(good), "file", by_tiles=True)
    beside = min(row // 1024 * 1024 + 30, SIZE - 1)
    for index in (row, beside):
        assert refused(lambda index=index: tiles.check(found, index, "file")) == "store.entries_tiles"
        assert refused(lambda index=index: tiles.paths(found, [index], "file")) == "store.entries_tiles"
    tiles.check(found, (row + 1024) % 2048, "file")


def test_tiles_that_belong_to_forged_entries_do_not_fold_to_the_root(good: Entries) -> None:
    forged = flipped(good.entries, 3)
    given = replace(good, entries=forged, tiles=native.subroots(forged))
    assert refused(lambda: tiles.with_tiles(given, SIZE, root(good), "file", by_tiles=True)) == "store.entries_tiles"
    assert refused(lambda: tiles.with_tiles(given, SIZE, root(good), "file")) == "store.entries_root"


def test_entries_nobody_looked_at_give_no_path(good: Entries) -> None:
    unseen = replace(good, tiles=None)
    for action in (lambda: tiles.paths(unseen, [0], "file"), lambda: tiles.check(unseen, 0, "file")):
        with pytest.raises(ValueError, match="with_tiles"):
            action()


def test_no_entries_have_no_tiles_and_the_root_of_nothing() -> None:
    none = Entries(np.zeros((0, 64), np.uint8), np.zeros(0, np.bool_), np.zeros(0, np.uint32))
    assert len(tiles.with_tiles(none, 0, merkle.EMPTY_ROOT.hex(), "file", by_tiles=True).tiles) == 0  # type: ignore[arg-type]
