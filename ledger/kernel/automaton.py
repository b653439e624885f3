"""A `public_pattern` (formats F1) as a table that a loop over bytes can follow: for native/rows.c.

The pattern's parts become a nondeterministic automaton, a state for each place in the pattern, and sets of those the states of the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ledger.pattern import Chars, Either, Node, Pattern, Repeat

MAX_PLACES = 2048
MAX_STATES = 4096
"""2 MiB of table. Real codes need a few dozen; a pattern made to be large is matched by `Pattern` itself."""


@dataclass(frozen=True)
class Automaton:
    """`table[256 * state + byte]` is the next state; 0 is the state without a way out, 1 the first. `accepts[state]` is 1 at an end."""

    table: NDArray[np.uint16]
    accepts: NDArray[np.uint8]

    def matches(self, value: bytes) -> bool:
        """What the compiled loop does."""
        state = 1
        for byte in value:
            state = int(self.table[256 * state + byte])
        return bool(self.accepts[state])


class _TooLarge(Exception):
    pass


def automaton_of(pattern: Pattern) -> Automaton | None:
    """The table of a pattern; None if it would be too large."""
    steps: list[tuple[frozenset[str], int]] = []  # place -> characters, the place they lead to
    free: list[list[int]] = []  # place -> places reached without a character

    def place() -> int:
        if len(free) >= MAX_PLACES:
            raise _TooLarge
        free.append([])
        steps.append((frozenset(), -1))
        return len(free) - 1

    def build(node: Node, start: int) -> int:
        if isinstance(node, Chars):
            end = place()
            here = place()
            free[start].append(here)
            steps[here] = (node.members, end)
            return end
        if isinstance(node, Either):
            end = place()
            for part in node.parts:
                free[build(part, start)].append(end)
            return end
        if isinstance(node, Repeat):
            end = place()
            at = start
            for done in range(1, node.most + 1):
                at = build(node.part, at)
                if done >= node.least:
                    free[at].append(end)
            return end
        at = start
        for part in node.parts:
            at = build(part, at)
        return at

    try:
        first = place()
        last = build(pattern.root, first)
        return _table(steps, lambda found: _closed(found, free), first, last)
    except _TooLarge:
        return None


def _closed(found: frozenset[int], free: list[list[int]]) -> frozenset[int]:
    todo, seen = list(found), set(found)
    while todo:
        for other in free[todo.pop()]:
            if other not in seen:
                seen.add(other)
                todo.append(other)
    return frozenset(seen)


def _table(
    steps: list[tuple[frozenset[str], int]],
    close: Callable[[frozenset[int]], frozenset[int]],
    first: int,
    last: int,
) -> Automaton:
    states: dict[frozenset[int], int] = {frozenset(): 0}
    todo = [close(frozenset([first]))]
    states[todo[0]] = 1
    rows: dict[int, NDArray[np.uint16]] = {0: np.zeros(256, np.uint16)}
    while todo:
        state = todo.pop()
        row = np.zeros(256, np.uint16)
        onward: dict[str, set[int]] = {}
        for at in state:
            members, target = steps[at]
            for char in members:
                onward.setdefault(char, set()).add(target)
        for char, targets in onward.items():
            after = close(frozenset(targets))
            if after not in states:
                if len(states) >= MAX_STATES:
                    raise _TooLarge
                states[after] = len(states)
                todo.append(after)
            row[ord(char)] = states[after]
        rows[states[state]] = row
    accepts = np.zeros(len(states), np.uint8)
    for places, number in states.items():
        accepts[number] = last in places
    return Automaton(np.concatenate([rows[number] for number in range(len(states))]), accepts)
