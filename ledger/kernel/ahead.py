"""Work on items while the next are being read: the reader stays in its own thread, the order stays that of the items.

Most of a kernel's work is done outside the interpreter (Arrow, numpy, the compiled part), so threads share the processors.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

WORKERS = max(1, min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))
_AHEAD = 1


def in_order(
    make: Callable[[], Callable[[T], R]], items: Iterable[T], workers: int = WORKERS
) -> Generator[tuple[T, R], None, None]:
    """Each of `items` with what was made of it, in order; `make` gives a function to each thread. At most `workers` + 1 are held.

    An error of the reader or of a function comes where its item would have; nothing after it is given. A generator of items is closed at the end.
    """
    own = threading.local()

    def work(item: T) -> R:
        if not hasattr(own, "function"):
            own.function = make()
        found: R = own.function(item)
        return found

    waiting: deque[tuple[T, Future[R]]] = deque()
    pool = ThreadPoolExecutor(workers, "kernel")
    try:
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) >= workers + _AHEAD:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)
        if isinstance(items, Generator):
            items.close()
