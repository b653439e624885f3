"""The tree of formats F5 in parts: what covers a run of leaves, and how the parts make the root.

RFC 9162 splits at the largest power of two below the size, so every complete block of 2^k leaves at a multiple of 2^k is a node of the tree
whatever its size. A run of leaves is covered by at most two such blocks of each level; whoever has all blocks in order has the root.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ledger import merkle
from ledger.kernel import native


@dataclass(frozen=True)
class Node:
    """The hash over the 2^level leaves from `first`, a multiple of 2^level."""

    first: int
    level: int
    hash: bytes


def blocks(first: int, count: int) -> Iterator[tuple[int, int]]:
    """Start and level of the largest aligned blocks that cover `count` leaves from `first`, in order."""
    end = first + count
    while first < end:
        level = (end - first).bit_length() - 1
        if first:
            level = min(level, (first & -first).bit_length() - 1)
        yield first, level
        first += 1 << level


def cover(entries: NDArray[np.uint8], first: int) -> list[Node]:
    """The nodes over sorted entries (n, 64) of which the first is leaf `first` of the whole tree."""
    return [
        Node(start, level, native.root(entries[start - first : start - first + (1 << level)]))
        for start, level in blocks(first, len(entries))
    ]


def root_of(nodes: Iterable[Node], size: int) -> bytes:
    """The root of the tree of `size` leaves; ValueError unless the nodes cover it, in order, without gap or overlap."""
    stack: list[Node] = []
    reached = 0
    for node in nodes:
        if node.first != reached or node.first % (1 << node.level):
            raise ValueError(f"node at {node.first} of level {node.level}, expected one at {reached}")
        reached += 1 << node.level
        grown = node
        while stack and stack[-1].level == grown.level and not stack[-1].first % (2 << grown.level):
            left = stack.pop()
            grown = Node(left.first, grown.level + 1, merkle.node_hash(left.hash, grown.hash))
        stack.append(grown)
    if reached != size:
        raise ValueError(f"nodes over {reached} leaves of {size}")
    if not stack:
        return merkle.EMPTY_ROOT
    root = stack.pop().hash
    while stack:
        root = merkle.node_hash(stack.pop().hash, root)
    return root
