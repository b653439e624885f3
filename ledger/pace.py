"""Slows down the reading of a source to so many rows a second, so that a database in use is not loaded."""

from __future__ import annotations

import time
from collections.abc import Callable

from ledger.interruption import pause

BURST_SECONDS = 1.0
"""How much time that was not used for reading may be made up for."""


class Pace:
    """A token bucket: what was read is paid for by waiting before the next chunk, however large the chunks are.

    Over any stretch of reading no more than `rate` rows a second are read, but for one chunk and one second's worth; a reader that is
    not slower than that reads `rate`.
    """

    def __init__(
        self, rate: int, clock: Callable[[], float] = time.monotonic, wait: Callable[[float], None] = pause
    ) -> None:
        self.rate = rate
        self._clock = clock
        self._wait = wait
        self._paid_until: float | None = None

    def begin(self) -> None:
        """Reading begins: from here on time counts."""
        if self._paid_until is None:
            self._paid_until = self._clock()

    def spend(self, rows: int) -> None:
        """So many rows were read: wait until the next may be. KeyboardInterrupt if the process is told to end meanwhile."""
        self.begin()
        now, takes = self._clock(), rows / self.rate
        # A chunk that is worth more than a second is allowed as much time to be worked on.
        start = max(self._paid_until or now, now - max(BURST_SECONDS, takes))
        self._paid_until = start + takes
        if self._paid_until > now:
            self._wait(self._paid_until - now)
