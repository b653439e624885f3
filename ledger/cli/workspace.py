"""Finds the workspace a command is about, and opens jobs in it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ledger.workspace import Workspace

if TYPE_CHECKING:
    from ledger.batch.job import Job


def here(args: argparse.Namespace) -> Workspace:
    """The workspace of `-C`, else DUIZHANG_HOME, else the current folder."""
    return Workspace(Path(args.workspace or os.environ.get("DUIZHANG_HOME") or "."))


@contextmanager
def job(args: argparse.Namespace, *, resume: bool = True) -> Iterator[Job]:
    """A writing job under the workspace's lock: what an earlier run began is finished first."""
    from ledger.batch.job import open_job

    workspace = here(args)
    with (
        workspace.locked(args.command),
        closing(workspace.open_store("write")) as store,
        open_job(workspace, store, resume=resume) as opened,
    ):
        yield opened


@contextmanager
def reading(args: argparse.Namespace) -> Iterator[Job]:
    """A job that writes nothing: without the lock, so that it may run beside a writing one. It finishes nothing either."""
    from ledger.batch.job import open_job

    workspace = here(args)
    with closing(workspace.open_store("read")) as store, open_job(workspace, store, resume=False) as opened:
        yield opened
