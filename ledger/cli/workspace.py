"""Finds the workspace a command is about, and opens jobs in it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ledger.config import LIMIT_RATES
from ledger.errors import InputError
from ledger.workspace import Workspace

if TYPE_CHECKING:
    from ledger.batch.job import Job


def here(args: argparse.Namespace) -> Workspace:
    """The workspace of `-C`, else DUIZHANG_HOME, else the current folder."""
    root = Path(args.workspace or os.environ.get("DUIZHANG_HOME") or ".")
    return Workspace(root, limit_rate=_limit_rate(args))


def _limit_rate(args: argparse.Namespace) -> int | None:
    rate: int | None = getattr(args, "limit_rate", None)
    if rate is None:
        return None
    least, most = LIMIT_RATES
    if not least <= rate <= most:
        raise InputError(
            "usage",
            f"--limit-rate 应为 {least}–{most} 之间的整数（行/秒），现为 {rate}",
            f"--limit-rate must be a whole number of rows a second, {least}-{most}, not {rate}",
            "--limit-rate",
        )
    if args.command in ("digest", "send") and args.file is not None:
        raise InputError(
            "usage",
            "--limit-rate 只放慢对数据库的读取；文件总是全速读取",
            "--limit-rate slows down the reading of a database; a file is read at full speed",
            "--limit-rate",
        )
    return rate


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
