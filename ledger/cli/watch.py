"""Progress on a terminal, nothing in a pipe: a line on standard error that says what is read and how fast."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ledger import progress
from ledger.cli.speech import say


@contextmanager
def on_a_terminal() -> Iterator[None]:
    """Show progress while the block runs, if standard error is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

    def new_bar() -> Progress:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TextColumn("{task.completed:,}"),
            TimeElapsedColumn(),
        )
        return Progress(*columns, console=Console(stderr=True), transient=True)

    running: dict[str, tuple[Progress, TaskID]] = {}

    def hear(zh: str, en: str, rows: int | None) -> None:
        if rows is None:
            # Gone before the answer is printed.
            if en in running:
                running.pop(en)[0].stop()
            return
        if en not in running:
            for bar, _ in running.values():
                bar.stop()
            bar = new_bar()
            running[en] = bar, bar.add_task(say(zh, en), total=None)
            bar.start()
        bar, task = running[en]
        bar.update(task, completed=rows)

    progress.listen(hear)
    try:
        yield
    finally:
        progress.listen(None)
        for bar, _ in running.values():
            bar.stop()
