"""Seconds spent in each stage of the batch path, for `scripts/bench`.

Stages: `read` (file or table to columns), `canonicalise` (columns to canonical bytes), `hash` (canonical bytes to
entries). The clock is read twice a stage and chunk, so it may stay on. Stages that run in several threads at once add up to more than
the time that passed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Stages:
    """Adds up seconds by stage name, in `seconds`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Add the seconds the block takes to `stage`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - started
            with self._lock:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + took

    def each(self, stage: str, items: Iterable[T]) -> Iterator[T]:
        """Yield `items`, adding to `stage` the seconds it takes to produce each, not those the consumer takes."""
        iterator = iter(items)
        while True:
            with self.time(stage):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item
