"""The tree (F5): against a second implementation, against published cases, and every good proof attacked by name."""

from __future__ import annotations

import json
import os
import runpy
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from ledger import merkle
from ledger.errors import InputError
from ledger.merkle import (
    EMPTY_ROOT,
    EvidenceError,
    check_order,
    inclusion_path,
    leaf_hash,
    node_hash,
    paths_by_tiles,
    root_from_path,
    root_of,
    root_of_batch,
    root_of_tiles,
    tiles_of,
    verify_inclusion,
)

FOLDER = Path(__file__).parents[1] / "vectors" / "merkle"
NAIVE: dict[str, Any] = runpy.run_path(str(FOLDER / "make_cases.py"))


def entries(count: int) -> list[bytes]:
    return [number.to_bytes(64, "big") for number in range(count)]


# --- vectors ---


def check_case(case: dict[str, Any], name: str) -> None:
    # A missing proof, root or leaf is written as null by the Go encoder.
    proof = [b64decode(part) for part in case["proof"] or []]
    leaf, root = b64decode(case["leafHash"] or ""), b64decode(case["root"] or "")
    try:
        verify_inclusion(leaf, case["leafIdx"], case["treeSize"], proof, root)
        refused = False
    except (InputError, EvidenceError):
        refused = True
    assert refused is case["wantErr"], f"{name}: {case['desc']}"


def test_our_own_inclusion_cases() -> None:
    cases = json.loads((FOLDER / "inclusion.json").read_text(encoding="utf-8"))
    assert len(cases) > 200
    assert {case["wantErr"] for case in cases} == {True, False}
    for case in cases:
        check_case(case, "inclusion.json")


def test_the_cases_are_what_their_maker_makes() -> None:
    assert (FOLDER / "inclusion.json").read_text(encoding="utf-8") == NAIVE["made"]()


def test_the_inclusion_cases_of_transparency_dev() -> None:
    """`DUIZHANG_MERKLE_CASES` names a checkout of transparency-dev/merkle, its testdata, or testdata/inclusion."""
    named = os.environ.get("DUIZHANG_MERKLE_CASES")
    if not named:
        pytest.skip("DUIZHANG_MERKLE_CASES is not set: the cases of transparency-dev/merkle were not run, only our own")
    cases = list(inclusion_cases(Path(named)))
    assert cases, f"DUIZHANG_MERKLE_CASES={named} holds no inclusion case"
    for name, case in cases:
        check_case(case, name)


def inclusion_cases(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for file in sorted(folder.rglob("*.json")):
        loaded = json.loads(file.read_text(encoding="utf-8"))
        for case in loaded if isinstance(loaded, list) else [loaded]:
            # Consistency cases live in the same testdata; they have size1 and size2. Some inclusion cases spell the
            # index leafIndex.
            if isinstance(case, dict) and "treeSize" in case:
                index = case["leafIdx"] if "leafIdx" in case else case["leafIndex"]
                yield str(file.relative_to(folder)), {**case, "leafIdx": index}


def test_the_reader_of_published_cases_finds_and_judges_them(tmp_path: Path) -> None:
    good = json.loads((FOLDER / "inclusion.json").read_text(encoding="utf-8"))[0]
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "happy-path.json").write_text(json.dumps(good))
    (tmp_path / "consistency.json").write_text('{"size1": 1, "size2": 2}')
    renamed = {"leafIndex" if name == "leafIdx" else name: value for name, value in good.items()}
    (tmp_path / "additional.json").write_text(json.dumps(renamed))
    cases = list(inclusion_cases(tmp_path))
    assert len(cases) == 2
    for name, case in cases:
        check_case(case, name)
        with pytest.raises(AssertionError):
            check_case({**case, "wantErr": True}, name)


def test_the_eight_leaf_tree_of_transparency_dev() -> None:
    """The reference tree that Certificate Transparency logs have been tested with since RFC 6962."""
    leaves = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ]
    data = [bytes.fromhex(leaf) for leaf in leaves]
    assert [root_of(data[: size + 1])[1].hex() for size in range(8)] == roots


# --- the tree ---


def test_leaves_and_nodes_are_told_apart_by_their_prefix() -> None:
    assert leaf_hash(b"x") == sha256(b"\x00x").digest()
    assert node_hash(b"l" * 32, b"r" * 32) == sha256(b"\x01" + b"l" * 32 + b"r" * 32).digest()
    assert sha256(b"").digest() == EMPTY_ROOT
    # Second preimage: a 64-byte entry made of two hashes is not the node over them.
    left, right = (leaf_hash(entry) for entry in entries(2))
    assert root_of([left + right])[1] != root_of(entries(2))[1]


def test_the_last_leaf_is_never_duplicated() -> None:
    a, b, c = entries(3)
    assert root_of([a, b, c])[1] != root_of([a, b, c, c])[1]


def test_root_and_paths_equal_the_recursion_of_the_rfc_for_every_size_and_index() -> None:
    leaves = [leaf_hash(entry) for entry in entries(70)]
    for size in range(71):
        size_, root = root_of(iter(entries(size)))
        assert (size_, root) == (size, NAIVE["tree"](leaves[:size]))
        for index in range(size):
            path = inclusion_path(entries(size), index)
            assert path == NAIVE["path"](index, leaves[:size])
            verify_inclusion(leaves[index], index, size, path, root)


def test_a_path_is_only_made_for_a_leaf_that_is_there() -> None:
    for index, size in ((0, 0), (3, 3), (-1, 3)):
        with pytest.raises(IndexError):
            inclusion_path(entries(size), index)


# --- tiles ---


class Naive:
    """The recursion of RFC 9162 over any stretch of leaves, each stretch hashed once."""

    def __init__(self, data: Sequence[bytes]) -> None:
        self.leaves = [leaf_hash(entry) for entry in data]
        self.tree = cache(self._tree)

    def _tree(self, low: int, high: int) -> bytes:
        if high - low == 1:
            return self.leaves[low]
        middle = low + self._split(high - low)
        return node_hash(self.tree(low, middle), self.tree(middle, high))

    def path(self, index: int, low: int, high: int) -> list[bytes]:
        if high - low == 1:
            return []
        middle = low + self._split(high - low)
        if index < middle:
            return [*self.path(index, low, middle), self.tree(middle, high)]
        return [*self.path(index, middle, high), self.tree(low, middle)]

    @staticmethod
    def _split(size: int) -> int:
        return next(1 << k for k in range(64) if size <= 2 << k)


def part_of(data: Sequence[bytes]) -> Callable[[int], Sequence[bytes]]:
    return lambda number: data[number * merkle.TILE : (number + 1) * merkle.TILE]


def test_the_judge_of_the_tiles_is_the_recursion_of_the_rfc() -> None:
    judge = Naive(entries(70))
    for size in (1, 2, 3, 7, 64, 65, 70):
        assert judge.tree(0, size) == NAIVE["tree"](judge.leaves[:size])
        assert [judge.path(at, 0, size) for at in range(size)] == [
            NAIVE["path"](at, judge.leaves[:size]) for at in range(size)
        ]


@pytest.mark.parametrize("tile", [1, 2, 16, 64])
def test_by_tiles_every_path_is_that_of_the_whole_tree(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merkle, "TILE", tile)
    data = entries(300)
    judge = Naive(data)
    for size in range(1, 301):
        tiles = tiles_of(iter(data[:size]))
        assert tiles == [judge.tree(low, min(low + tile, size)) for low in range(0, size, tile)]
        assert root_of_tiles(tiles) == judge.tree(0, size)
        paths = paths_by_tiles(tiles, part_of(data[:size]), range(size))
        assert paths == [judge.path(at, 0, size) for at in range(size)]
    assert tiles_of([]) == []
    assert root_of_tiles([]) == EMPTY_ROOT


@pytest.mark.parametrize("size", [1, 1023, 1024, 1025, 2047, 2048, 2049, 3071, 3072, 3073, 5000])
def test_around_the_borders_of_tiles_as_they_are(size: int) -> None:
    data = entries(size)
    judge = Naive(data)
    tiles = tiles_of(data)
    assert len(tiles) == -(-size // 1024)
    assert root_of_tiles(tiles) == root_of(data)[1] == judge.tree(0, size)
    borders = {0, size - 1, *(at + step for at in range(0, size, 1024) for step in (-1, 0, 1))}
    for index in sorted(at for at in borders if 0 <= at < size):
        asked: list[int] = []

        def under(number: int, asked: list[int] = asked) -> Sequence[bytes]:
            asked.append(number)
            return part_of(data)(number)

        (path,) = paths_by_tiles(tiles, under, [index])
        assert path == judge.path(index, 0, size)
        verify_inclusion(leaf_hash(data[index]), index, size, path, root_of(data)[1])
        assert asked == [index // 1024], "the entries of one tile are looked at, no others"


TILED = entries(2500)
GOOD_TILES = tiles_of(TILED)
WRONG_TILES = {
    "the first bit of a tile": [bytes([GOOD_TILES[0][0] ^ 128]) + GOOD_TILES[0][1:], *GOOD_TILES[1:]],
    "the last bit of the last": [*GOOD_TILES[:2], GOOD_TILES[2][:31] + bytes([GOOD_TILES[2][31] ^ 1])],
    "two exchanged": [GOOD_TILES[1], GOOD_TILES[0], GOOD_TILES[2]],
    "one twice": [GOOD_TILES[0], GOOD_TILES[0], GOOD_TILES[2]],
    "one missing": GOOD_TILES[:2],
    "one more": [*GOOD_TILES, GOOD_TILES[2]],
    "those of another batch": tiles_of(entries(2501)[1:]),
    "none": [],
}


@pytest.mark.parametrize("name", WRONG_TILES)
def test_wrong_tiles_do_not_fold_to_the_root(name: str) -> None:
    assert root_of_tiles(GOOD_TILES) == root_of(TILED)[1]
    assert root_of_tiles(WRONG_TILES[name]) != root_of(TILED)[1]


@pytest.mark.parametrize("index", [0, 1023, 1024, 2047, 2048, 2499])
def test_entries_that_do_not_give_their_tile_have_no_path(index: int) -> None:
    number = index // 1024
    for at in (number * 1024, min(number * 1024 + 1023, 2499)):
        forged = [*TILED]
        forged[at] = bytes(64) if at else b"\1" * 64
        with pytest.raises(EvidenceError) as refused:
            paths_by_tiles(GOOD_TILES, part_of(forged), [index])
        assert refused.value.code == "path.tile"
        # Of another tile nothing is asked.
        paths_by_tiles(GOOD_TILES, part_of(forged), [(index + 1024) % 2048 if number < 2 else 0])


@pytest.mark.parametrize("index", [-1, 2500, 3071, 3072, 1 << 40])
def test_by_tiles_too_a_path_is_only_made_for_a_leaf_that_is_there(index: int) -> None:
    with pytest.raises(IndexError):
        paths_by_tiles(GOOD_TILES, part_of(TILED), [index])


# --- attacks on a good proof, each with the rule that refuses it ---

SIZE, INDEX = 13, 9
TREE = entries(SIZE)
ROOT = root_of(TREE)[1]
LEAF = leaf_hash(TREE[INDEX])
PATH = inclusion_path(TREE, INDEX)


@pytest.mark.parametrize(
    ("code", "leaf", "index", "size", "path", "root"),
    [
        pytest.param("path.root", LEAF, INDEX - 1, SIZE, PATH, ROOT, id="index one less"),
        pytest.param("path.root", LEAF, INDEX + 1, SIZE, PATH, ROOT, id="index one more"),
        pytest.param("path.index", LEAF, SIZE, SIZE, PATH, ROOT, id="index equal to size"),
        pytest.param("path.index", LEAF, -1, SIZE, PATH, ROOT, id="index below zero"),
        pytest.param("path.index", LEAF, INDEX + 2**64, SIZE, PATH, ROOT, id="index past 64 bits"),
        pytest.param("path.index", LEAF, 0, 0, [], EMPTY_ROOT, id="leaf of an empty batch"),
        pytest.param("path.length", LEAF, INDEX, INDEX + 1, PATH, ROOT, id="smallest size that holds the index"),
        pytest.param("path.length", LEAF, INDEX, SIZE * 2, PATH, ROOT, id="size doubled"),
        pytest.param("path.index", LEAF, INDEX, SIZE // 2, PATH, ROOT, id="size halved"),
        pytest.param("path.length", LEAF, INDEX, SIZE, PATH[:-1], ROOT, id="path without its end"),
        pytest.param("path.length", LEAF, INDEX, SIZE, PATH[1:], ROOT, id="path without its start"),
        pytest.param("path.length", LEAF, INDEX, SIZE, [], ROOT, id="no path"),
        pytest.param("path.length", LEAF, INDEX, SIZE, [*PATH, ROOT], ROOT, id="path and root"),
        pytest.param("path.length", LEAF, INDEX, SIZE, [LEAF, *PATH], ROOT, id="leaf and path"),
        pytest.param("path.length", LEAF, INDEX, SIZE, [*PATH, PATH[-1]], ROOT, id="last hash twice"),
        pytest.param("path.root", LEAF, INDEX, SIZE, [PATH[0], PATH[0], *PATH[2:]], ROOT, id="first hash for second"),
        pytest.param("path.root", LEAF, INDEX, SIZE, PATH[::-1], ROOT, id="path turned round"),
        pytest.param("path.root", LEAF, INDEX, SIZE, [PATH[1], PATH[0], *PATH[2:]], ROOT, id="two hashes swapped"),
        pytest.param("path.hash_size", LEAF, INDEX, SIZE, [*PATH[:-1], PATH[-1] + b"\0"], ROOT, id="trailing byte"),
        pytest.param("path.hash_size", LEAF, INDEX, SIZE, [*PATH[:-1], PATH[-1][:-1]], ROOT, id="hash cut off"),
        pytest.param("path.hash_size", LEAF, INDEX, SIZE, [*PATH, b""], ROOT, id="empty hash"),
        pytest.param("path.hash_size", LEAF, INDEX, SIZE, [PATH[0] + PATH[1], *PATH[2:]], ROOT, id="two hashes in one"),
        pytest.param("path.hash_size", LEAF[:-1], INDEX, SIZE, PATH, ROOT, id="leaf cut off"),
        pytest.param("path.hash_size", TREE[INDEX], INDEX, SIZE, PATH, ROOT, id="entry in place of its hash"),
        pytest.param("path.root", leaf_hash(TREE[INDEX + 1]), INDEX, SIZE, PATH, ROOT, id="other leaf"),
        pytest.param("path.root", node_hash(PATH[0], LEAF), INDEX, SIZE, PATH, ROOT, id="inner node as leaf"),
        pytest.param("path.root", sha256(TREE[INDEX]).digest(), INDEX, SIZE, PATH, ROOT, id="leaf without prefix"),
        pytest.param("path.root", LEAF, INDEX, SIZE, PATH, root_of(TREE[:-1])[1], id="root of another batch"),
        pytest.param("path.root", LEAF, INDEX, SIZE, PATH, EMPTY_ROOT, id="empty root"),
        pytest.param("path.root", LEAF, INDEX, SIZE, PATH, b"", id="no root"),
        pytest.param("path.root", LEAF, INDEX, SIZE, PATH, ROOT + b"\0", id="root with a trailing byte"),
    ],
)
def test_an_attack_is_refused(code: str, leaf: bytes, index: int, size: int, path: list[bytes], root: bytes) -> None:
    verify_inclusion(LEAF, INDEX, SIZE, PATH, ROOT)
    with pytest.raises((InputError, EvidenceError)) as caught:
        verify_inclusion(leaf, index, size, path, root)
    assert caught.value.code == code
    assert isinstance(caught.value, EvidenceError) is (code == "path.root")


def test_every_flipped_bit_of_leaf_and_path_is_refused() -> None:
    for place in range(-1, len(PATH)):
        for bit in range(256):
            hashes = [LEAF, *PATH]
            hashes[place + 1] = (int.from_bytes(hashes[place + 1], "big") ^ (1 << bit)).to_bytes(32, "big")
            with pytest.raises(EvidenceError):
                verify_inclusion(hashes[0], INDEX, SIZE, hashes[1:], ROOT)


def test_an_inner_node_cannot_pass_for_a_leaf_of_a_smaller_tree_of_the_same_batch() -> None:
    # It verifies as a hash, for nothing in it says how deep it sat: so the leaf hash is always computed from 64 bytes of
    # entry, and the size always comes from the anchor.
    inner = node_hash(PATH[0], LEAF)
    assert root_from_path(inner, INDEX >> 1, (SIZE + 1) >> 1, PATH[1:]) == ROOT
    with pytest.raises(InputError) as caught:
        verify_inclusion(inner, INDEX >> 1, SIZE, PATH[1:], ROOT)
    assert caught.value.code == "path.length"


# --- order within a batch ---


def entry(subject: int, key: int, commitment: int) -> bytes:
    return bytes([subject]) * 16 + bytes([key]) * 16 + bytes([commitment]) * 32


@pytest.mark.parametrize(
    ("code", "batch"),
    [
        ("tree.order", [entry(1, 2, 3), entry(1, 2, 3)]),
        ("tree.order", [entry(1, 2, 3), entry(1, 1, 3)]),
        ("tree.order", [entry(0, 1, 1), entry(0, 3, 1), entry(0, 2, 1)]),
        ("tree.key_tag_twice", [entry(1, 2, 3), entry(1, 2, 4)]),
        ("tree.key_tag_twice", [entry(1, 2, 3), entry(1, 3, 3), entry(2, 2, 3)]),
        ("tree.entry_size", [entry(1, 2, 3)[:-1]]),
        ("tree.entry_size", [entry(1, 2, 3) + b"\0"]),
        ("tree.entry_size", [b""]),
    ],
)
@pytest.mark.parametrize("check", [check_order, root_of_batch])
def test_a_batch_out_of_order_is_refused(check: Callable[[list[bytes]], object], code: str, batch: list[bytes]) -> None:
    with pytest.raises(InputError) as caught:
        check(batch)
    assert caught.value.code == code


def test_a_batch_in_order_has_its_root() -> None:
    batch = [entry(0, 0, 0), entry(0, 1, 0), entry(1, 2, 9), entry(1, 3, 1)]
    check_order(batch)
    assert root_of_batch(iter(batch)) == root_of(batch)
    assert root_of_batch([]) == (0, EMPTY_ROOT)
