"""What the tests of the store share.

Whatever holds for every store is tested on SQLite, PostgreSQL 18 and PostgreSQL 15: fixture `place`, or `module_place`
where the tests of a module may share one.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests import databases

NOBODY = 65534
KILLED = 9


@dataclass(frozen=True)
class Place:
    """Where a store may be made: `database` is None for SQLite."""

    url: str
    database: databases.Database | None
    folder: Path

    def sql(self, *statements: str) -> None:
        """Change the tables behind the store's back."""
        if self.database is not None:
            self.database.run(*statements)
            return
        with closing(sqlite3.connect(self.folder / "ledger.db", isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)


@contextmanager
def make_place(kind: str, folder: Path) -> Iterator[Place]:
    """A new file's URL, or that of a new database."""
    if kind == "sqlite":
        yield Place(f"sqlite:///{folder / 'ledger.db'}", None, folder)
        return
    server = databases.or_skip(databases.shared_postgres, kind.removeprefix("postgres"))
    with databases.fresh(server) as database:
        yield Place(database.url, database, folder)


KINDS = ("sqlite", "postgres18", "postgres15")


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty place, once of each kind."""
    with make_place(request.param, tmp_path) as made:
        yield made


@pytest.fixture(scope="module", params=KINDS)
def module_place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The same, one for the whole module."""
    with make_place(request.param, tmp_path_factory.mktemp("store")) as made:
        yield made


@contextmanager
def as_nobody() -> Iterator[None]:
    """Act as a user without rights, as far as files are concerned."""
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may enter (pytest's own may not), for tests that act as one; needs root."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: acting as another user needs root")
    folder = Path(tempfile.mkdtemp(prefix="duizhang-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte; needs root."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"NOT TESTED: a full disk needs a tmpfs of one mebibyte: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def in_child(work: Callable[[], object]) -> int:
    """Run `work` in a forked process and return its exit code: 0, or what it gave to `os._exit`; 1 for an exception."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def make_entries(count: int, seed: int = 1) -> np.ndarray:
    """`count` entries as a batch has them: ascending, each with its own key_tag."""
    entries = np.random.default_rng(seed).integers(0, 256, (count, 64), dtype=np.uint8)
    rows = sorted(row.tobytes() for row in entries)
    return np.frombuffer(b"".join(rows), np.uint8).reshape(count, 64).copy()
