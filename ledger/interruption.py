"""Ctrl-C and SIGTERM end a job within seconds, whatever it is doing.

The main thread is told by KeyboardInterrupt and closes what it holds. A reader that is deep in a library gets no chance to hear of it, so
a second thread stops the reads that asked to be stopped, and ends the process itself where the main thread stays stuck: what a killed
process leaves behind the next run puts in order anyway.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STUCK_SECONDS = 1.2
"""How long the main thread may take to hear of it at all."""
CLEANUP_SECONDS = 5.0
"""How long it may then take to close what it holds."""
_AGAIN_SECONDS = 0.5
"""A second signal sooner than this is the same one (from the terminal and from a wrapper)."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
EXIT = 2

_asked = threading.Event()
_heard = threading.Event()
_stops: dict[object, Callable[[], object]] = {}


def asked() -> bool:
    """True once the process was told to end."""
    return _asked.is_set()


def check() -> None:
    """KeyboardInterrupt if the process was told to end and a library has swallowed the first one."""
    if _asked.is_set():
        raise KeyboardInterrupt


def pause(seconds: float) -> None:
    """Wait; KeyboardInterrupt as soon as the process is told to end, in any thread."""
    _asked.wait(seconds)
    check()


@contextmanager
def stoppable(stop: Callable[[], object]) -> Iterator[None]:
    """While the block runs, being told to end calls `stop` from another thread; whatever it raises is dropped."""
    place = object()
    _stops[place] = stop
    try:
        yield
    finally:
        _stops.pop(place, None)


@contextmanager
def heeded(last_words: Callable[[], None], *, for_good: bool = False) -> Iterator[Callable[[], None]]:
    """Heed SIGINT and SIGTERM within the block; yields a function that leaves them to others again.

    `last_words` is called, in another thread, before the process is ended from there with exit code 2. `for_good`: the program ends
    after the block, and a signal that comes too late changes its exit code no more. A signal that is ignored stays so; nothing is done
    outside the main thread, nor where somebody else sees to the signals already.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    free = (signal.SIG_DFL, signal.default_int_handler)
    ours = [number for number, handler in before.items() if handler in free]
    others = any(handler not in (*free, signal.SIG_IGN) for handler in before.values())
    if threading.current_thread() is not threading.main_thread() or others:
        yield lambda: None
        return
    near, far = socket.socketpair()
    far.setblocking(False)
    _asked.clear()
    _heard.clear()
    watcher = threading.Thread(target=_watch, args=(near, last_words), name="signals", daemon=True)
    watcher.start()
    fd_before = signal.set_wakeup_fd(far.fileno(), warn_on_full_buffer=False)
    for number in ours:
        signal.signal(number, _hear)
    watching = True

    def let_go(then: object = None) -> None:
        nonlocal watching
        if not watching:
            return
        watching = False
        for number in ours:
            signal.signal(number, then or before[number])  # type: ignore[arg-type]
        signal.set_wakeup_fd(fd_before)
        far.close()
        watcher.join()
        near.close()

    try:
        yield let_go
    finally:
        let_go(signal.SIG_IGN if for_good else None)
        _asked.clear()


def _hear(number: int, frame: FrameType | None) -> None:
    first = not _heard.is_set()
    _asked.set()
    _heard.set()
    # Once: a second one would break off the closing that the first began.
    if first:
        raise KeyboardInterrupt


def _watch(told: socket.socket, last_words: Callable[[], None]) -> None:
    """Wait for the first signal (or the end of the block), then see to it that the process ends."""
    while True:
        got = told.recv(64)
        if not got:
            return
        if any(number in SIGNALS for number in got):
            break
    began = time.monotonic()
    _asked.set()
    for stop in list(_stops.values()):
        # Each by itself: one may wait for a server that does not answer, and the clock runs on.
        threading.Thread(target=_stopped, args=(stop,), daemon=True).start()
    # Data is another signal, the end of it the end of the block.
    while (left := began + (CLEANUP_SECONDS if _heard.is_set() else STUCK_SECONDS) - time.monotonic()) > 0:
        if not select.select([told], [], [], min(left, 0.1))[0]:
            continue
        got = told.recv(64)
        if not got:
            return
        if any(number in SIGNALS for number in got) and time.monotonic() - began > _AGAIN_SECONDS:
            break
    last_words()
    os._exit(EXIT)


def _stopped(stop: Callable[[], object]) -> None:
    with contextlib.suppress(Exception):
        stop()
