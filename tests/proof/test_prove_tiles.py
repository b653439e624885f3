"""`prove` by tiles: the same bytes as from the whole tree, which is hashed once to check it, and no forged file proves anything."""

from __future__ import annotations

import pytest

from tests.forged import FORGERIES, forged, without_tiles
from tests.proof.conftest import Stage


def test_a_file_from_before_there_were_tiles_gives_the_same_proof(stage: Stage, good: bytes) -> None:
    with forged(stage.pair.city.home, "B1", without_tiles):
        assert stage.prove("A-3") == good


def test_a_tree_is_hashed_to_be_checked_and_not_again_for_its_paths(
    stage: Stage, good: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.merkle.inclusion_path", None)
    assert stage.prove("A-3") == good


@pytest.mark.parametrize("words", [("A-3",), ("A-3", "--batch", "B1"), ("A-1", "--batch", "B1"), ("A-1",)])
@pytest.mark.parametrize("name", FORGERIES)
def test_from_a_forged_file_nothing_is_proved(stage: Stage, name: str, words: tuple[str, ...]) -> None:
    change, _ = FORGERIES[name]
    # Hashing everything they see first whether the entries are those of the root.
    code = "store.entries_tiles" if name == "a tile" else "store.entries_root"
    with forged(stage.pair.city.home, "B1", change):
        ran = stage.pair.city.run("prove", "permits", *words, "--out", str(stage.folder / "forged.json"), "--json")
        assert ran.code == 2
        assert ran.json["error"]["code"] == code
        assert not (stage.folder / "forged.json").exists()
    assert stage.prove("A-3")


@pytest.mark.parametrize("name", FORGERIES)
def test_a_reconciliation_and_fsck_find_it_too(stage: Stage, name: str) -> None:
    change, code = FORGERIES[name]
    # Hashing everything they see first whether the entries are those of the root.
    expected = "store.entries_tiles" if name == "a tile" else "store.entries_root"
    with forged(stage.pair.city.home, "B1", change):
        ran = stage.pair.city.run("reconcile", "permits", "--json")
        assert (ran.code, ran.json["error"]["code"]) == (2, expected), code
        told = stage.pair.city.run("fsck", "--json")
        assert told.code == 1
        assert expected in {remark["code"] for remark in told.json["damage"]}
    assert stage.pair.city.run("fsck").code == 0
