"""Tells how far a long read has come to whoever listens; silent by default. The command line listens when a person is watching."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

from ledger.interruption import check

Rows = TypeVar("Rows", bound=Sized)
Listener = Callable[[str, str, int | None, int | None], None]
"""Called with what is being done (Chinese, English), the rows done so far, None when it is finished, and about how many there are, None
where that is not known."""

_listener: Listener | None = None


def listen(listener: Listener | None) -> None:
    """Let `listener` hear of progress from now on; None for silence."""
    global _listener  # noqa: PLW0603  one process has one terminal
    _listener = listener


def watched(zh: str, en: str, chunks: Iterable[Rows], about: Callable[[], int | None] | None = None) -> Iterator[Rows]:
    """The same chunks, their rows counted aloud; `about` tells how many to expect and is asked once, before the first, if somebody
    listens. KeyboardInterrupt between two chunks once the process was told to end."""
    done = 0
    expected = about() if about is not None and _listener is not None else None
    try:
        if _listener is not None:
            _listener(zh, en, 0, expected)
        for chunk in chunks:
            check()
            yield chunk
            done += len(chunk)
            if _listener is not None:
                _listener(zh, en, done, expected)
    finally:
        if _listener is not None:
            _listener(zh, en, None, expected)
