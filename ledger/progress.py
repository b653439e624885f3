"""Tells how far a long read has come to whoever listens; silent by default. The command line listens when a person is watching."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

Rows = TypeVar("Rows", bound=Sized)
Listener = Callable[[str, str, int | None], None]
"""Called with what is being done (Chinese, English) and the rows done so far, None when it is finished."""

_listener: Listener | None = None


def listen(listener: Listener | None) -> None:
    """Let `listener` hear of progress from now on; None for silence."""
    global _listener  # noqa: PLW0603  one process has one terminal
    _listener = listener


def watched(zh: str, en: str, chunks: Iterable[Rows]) -> Iterator[Rows]:
    """The same chunks, their rows counted aloud."""
    done = 0
    try:
        for chunk in chunks:
            yield chunk
            done += len(chunk)
            if _listener is not None:
                _listener(zh, en, done)
    finally:
        if _listener is not None:
            _listener(zh, en, None)
