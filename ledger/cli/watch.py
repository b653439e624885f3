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

    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.completed:,}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    tasks: dict[str, TaskID] = {}

    def hear(zh: str, en: str, rows: int | None) -> None:
        if rows is None:
            if en in tasks:
                bar.remove_task(tasks.pop(en))
            return
        if en not in tasks:
            tasks[en] = bar.add_task(say(zh, en), total=None)
        bar.update(tasks[en], completed=rows)

    with bar:
        progress.listen(hear)
        try:
            yield
        finally:
            progress.listen(None)
