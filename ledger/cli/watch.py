"""Progress on a terminal as one line that is drawn again, elsewhere nothing, or a plain line every few seconds if that was asked for."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ledger import progress
from ledger.cli.speech import say

PLAIN_SECONDS = 5.0
"""Between two lines in a log."""


@dataclass
class Told:
    """How far one reading has come, in words."""

    zh: str
    en: str
    about: int | None
    clock: Callable[[], float] = time.monotonic
    rows: int = 0
    began: float = field(init=False)

    def __post_init__(self) -> None:
        self.began = self.clock()

    def line(self) -> str:
        """Rows done, about how many there are, rows a second, and the time that is left at this speed."""
        took = max(self.clock() - self.began, 1e-3)
        speed = self.rows / took
        zh, en = f"{self.zh}：{self.rows:,} 行", f"{self.en}: {self.rows:,} rows"
        # An estimate that was passed is none any more.
        if self.about is not None and self.rows <= self.about and speed:
            left = _duration((self.about - self.rows) / speed)
            return say(
                f"{zh} / 约 {self.about:,} 行，{speed:,.0f} 行/秒，约剩 {left}",
                f"{en} of about {self.about:,}, {speed:,.0f} rows/s, about {left} left",
            )
        return say(f"{zh}，{speed:,.0f} 行/秒", f"{en}, {speed:,.0f} rows/s")

    def last_line(self) -> str:
        """Rows done and how long it took, whether all were read or the reading was given up."""
        took = _duration(self.clock() - self.began)
        return say(f"{self.zh}：读了 {self.rows:,} 行，用时 {took}", f"{self.en}: read {self.rows:,} rows in {took}")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def showing(*, plain: bool) -> Iterator[None]:
    """Show progress on standard error while the block runs: on a terminal as it comes, elsewhere only if `plain`."""
    if sys.stderr.isatty():
        shown = _on_a_terminal()
    elif plain:
        shown = _in_lines()
    else:
        yield
        return
    with shown as hear:
        progress.listen(hear)
        try:
            yield
        finally:
            progress.listen(None)


@contextmanager
def _in_lines(clock: Callable[[], float] = time.monotonic) -> Iterator[progress.Listener]:
    running: dict[str, Told] = {}
    spoken = clock()

    def hear(zh: str, en: str, rows: int | None, about: int | None) -> None:
        nonlocal spoken
        if rows is None:
            if en in running:
                print(running.pop(en).last_line(), file=sys.stderr, flush=True)
            return
        told = running.setdefault(en, Told(zh, en, about, clock))
        told.rows = rows
        if clock() - spoken >= PLAIN_SECONDS:
            spoken = clock()
            print(told.line(), file=sys.stderr, flush=True)

    yield hear


@contextmanager
def _on_a_terminal() -> Iterator[progress.Listener]:
    from rich.console import Console
    from rich.status import Status
    from rich.text import Text

    console = Console(stderr=True)
    running: dict[str, tuple[Told, Status]] = {}

    def hear(zh: str, en: str, rows: int | None, about: int | None) -> None:
        if rows is None:
            # Gone before the answer is printed.
            if en in running:
                running.pop(en)[1].stop()
            return
        if en not in running:
            for _, other in running.values():
                other.stop()
            running[en] = Told(zh, en, about), Status("", console=console)
            running[en][1].start()
        told, status = running[en]
        told.rows = rows
        status.update(Text(told.line(), no_wrap=True, overflow="ellipsis"))

    try:
        yield hear
    finally:
        for _, status in running.values():
            status.stop()
