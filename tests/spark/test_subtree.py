"""The tree in parts: the same root as `merkle.root_of`, however the leaves are parted; nothing is taken on trust."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from ledger import merkle
from ledger.spark import work
from ledger.spark.subtree import Node, blocks, cover, root_of

SIZES = [*range(1, 36), 63, 64, 65, 127, 128, 129, 1000]


def entries(count: int) -> np.ndarray:
    found = {random.Random(at).randbytes(64) for at in range(count)}
    return np.frombuffer(b"".join(sorted(found)), np.uint8).reshape(-1, 64)


def parted(rows: np.ndarray, cuts: list[int]) -> list[Node]:
    bounds = [0, *cuts, len(rows)]
    return [node for begin, end in pairwise(bounds) for node in cover(rows[begin:end], begin)]


@pytest.mark.parametrize("size", SIZES)
def test_any_parts_make_the_root(size: int) -> None:
    rows = entries(size)
    expected = merkle.root_of([row.tobytes() for row in rows])[1]
    chance = random.Random(size)
    assert root_of(parted(rows, []), size) == expected
    assert root_of(parted(rows, list(range(1, size))), size) == expected
    for _ in range(10):
        cuts = sorted(chance.choices(range(size + 1), k=chance.randint(0, 6)))
        assert root_of(parted(rows, cuts), size) == expected


def test_the_empty_tree() -> None:
    assert root_of([], 0) == merkle.EMPTY_ROOT
    assert cover(entries(1)[:0], 17) == []


def test_blocks_are_aligned_few_and_without_gap() -> None:
    for first in (0, 1, 5, 8, 1023, 1 << 33):
        for count in (0, 1, 2, 3, 7, 8, 9, 1000):
            found = list(blocks(first, count))
            assert sum(1 << level for _, level in found) == count
            assert all(start % (1 << level) == 0 for start, level in found)
            assert [start for start, _ in found] == [
                first + sum(1 << lv for _, lv in found[:at]) for at in range(len(found))
            ]
            assert len(found) <= 2 * max(1, count.bit_length())


ATTACKS = {
    "a node left out": lambda nodes: nodes[:1] + nodes[2:],
    "the last left out": lambda nodes: nodes[:-1],
    "a node twice": lambda nodes: [*nodes[:2], nodes[1], *nodes[2:]],
    "two exchanged": lambda nodes: [nodes[1], nodes[0], *nodes[2:]],
    "a level too high": lambda nodes: [replace(nodes[0], level=nodes[0].level + 1), *nodes[1:]],
    "begun one later": lambda nodes: [replace(node, first=node.first + 1) for node in nodes],
    "not aligned": lambda nodes: [Node(0, 0, nodes[0].hash), Node(1, 1, nodes[0].hash), *nodes],
    "one more": lambda nodes: [*nodes, Node(nodes[-1].first + (1 << nodes[-1].level), 0, bytes(32))],
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_nodes_that_do_not_cover_the_tree_are_refused(attack: str) -> None:
    rows = entries(37)
    nodes = parted(rows, [9, 20, 33])
    assert root_of(nodes, 37)
    with pytest.raises(ValueError, match="node"):
        root_of(ATTACKS[attack](nodes), 37)


def test_a_hash_that_is_not_the_subtree_gives_another_root() -> None:
    rows = entries(37)
    nodes = parted(rows, [9, 20, 33])
    for at, node in enumerate(nodes):
        turned = replace(node, hash=bytes([node.hash[0] ^ 1]) + node.hash[1:])
        assert root_of([*nodes[:at], turned, *nodes[at + 1 :]], 37) != root_of(nodes, 37)


def test_ascending_sees_equal_and_falling_entries_wherever_they_differ() -> None:
    rows = entries(20)
    assert work.ascending(rows)
    assert work.ascending(rows[:1])
    assert work.ascending(rows[:0])
    assert not work.ascending(rows[[0, 1, 1, 2]])
    assert not work.ascending(rows[[0, 2, 1]])
    for place in range(64):
        low, high = np.zeros((2, 64), np.uint8)
        high[place] = 0xFF
        assert work.ascending(np.stack([low, high]))
        assert not work.ascending(np.stack([high, low]))
