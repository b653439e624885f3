"""The store on PostgreSQL, through psycopg 3.

Writers come one at a time: a write begins with an advisory lock of its transaction, in READ COMMITTED, so that each of
its statements sees what the writer before committed. Readers get one state (REPEATABLE READ, READ ONLY). The tables lie
in the first schema of the connection's search path, and nowhere else: the path is cut down to that schema, so that a
schema somebody adds later cannot hide them.

A job, besides, holds the store for as long as it is open: two workspaces that share one by mistake (copies of a folder)
never both work. The hold is a session's advisory lock. A session can be lost without the job noticing; therefore each
holder draws a number from the sequence `store_job`, and its writes are refused once somebody drew a later one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine, Table, create_engine, event, text
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from ledger.errors import StoreError
from ledger.store import database, postgreserrors
from ledger.store.database import READING, Flaw, Mode, Obstacle, bad_url
from ledger.store.models import Base

OLDEST = 150000
JOB_WAIT_SECONDS = 1.0
"""A killed job's session ends a moment after its process; a second job waits so long before it is refused."""

_DEFAULTS: dict[str, str] = {
    "connect_timeout": "10",
    # A server that vanished is noticed in about a minute, not in hours.
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
_SESSION: dict[str, str] = {
    # No limit of the server's may end the session that holds the store, or a long read.
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    # And the server lets go of a machine that vanished, with its locks.
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}


class PostgresDatabase:
    """One schema of one database. Opening connects to nothing yet; InputError `store.url` for a URL that cannot be used."""

    name = "PostgreSQL"
    row = "ctid"
    path: Path | None = None
    reading: Mapping[str, Any] = {READING: True}

    def __init__(self, url: str, mode: Mode) -> None:
        given = _parameters(url)
        self._password = given.get("password")
        self.where = _where(given)
        given.setdefault("application_name", f"duizhang {socket.gethostname()}:{os.getpid()}"[:63])
        try:
            self._conninfo = make_conninfo("", **{**_DEFAULTS, **given, "client_encoding": "UTF8"})
        except psycopg.Error as error:
            raise postgreserrors.refused(error, self.where, self._password) from error
        self._schema = self._user = ""
        self._holding = contextlib.ExitStack()
        self._job: psycopg.Connection | None = None
        self._number: int | None = None
        self.engine = self._engine(writable=mode != "read")

    # Sessions

    def _connect(self) -> psycopg.Connection:
        try:
            # Autocommit: every BEGIN is ours. No prepared statements: they fail after a migration, and behind a pooler.
            connection = psycopg.connect(self._conninfo, autocommit=True, prepare_threshold=None)
        except psycopg.Error as error:
            raise postgreserrors.refused(error, self.where, self._password) from error
        try:
            self._set_up(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_up(self, connection: psycopg.Connection) -> None:
        info = connection.info
        if info.server_version < OLDEST:
            raise postgreserrors.too_old(info.server_version, self.where, OLDEST)
        encoding = info.parameter_status("server_encoding") or "?"
        if encoding != "UTF8":
            raise postgreserrors.wrong_encoding(encoding, self.where)
        self._user = info.user
        if not self._schema:
            schema, path = connection.execute("SELECT current_schema(), current_setting('search_path')").fetchone() or (
                "",
                "",
            )
            if not schema:
                raise postgreserrors.no_schema(path, info.user, self.where)
            self._schema = schema
        settings = {**_SESSION, "lock_timeout": f"{database.BUSY_TIMEOUT_SECONDS * 1000:.0f}"}
        connection.execute(
            "SELECT set_config('search_path', quote_ident(%s), false), "
            # Off would call a commit done that a crash may still lose.
            "set_config('synchronous_commit', replace(current_setting('synchronous_commit'), 'off', 'on'), false), "
            + ", ".join(f"set_config('{name}', '{value}', false)" for name, value in settings.items()),
            (self._schema,),
        )

    def _engine(self, *, writable: bool) -> Engine:
        engine = create_engine(
            "postgresql+psycopg://",
            creator=self._connect,
            poolclass=QueuePool,
            # After a restart of the server the pool's sessions are dead; a job goes on with new ones.
            pool_pre_ping=True,
            use_native_hstore=False,
        )

        @event.listens_for(engine, "reset")
        def reset(connection: Any, record: Any, state: Any) -> None:
            # As on SQLite: after a commit that failed SQLAlchemy skips its rollback.
            if connection is not None and not connection.closed and connection.info.transaction_status:
                connection.rollback()

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            if not writable or connection.get_execution_options().get(READING, False):
                connection.exec_driver_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                return
            connection.exec_driver_sql("BEGIN ISOLATION LEVEL READ COMMITTED")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({self._key('write')})")
            if self._number is not None:
                # Under the lock: whoever draws a number waits for it, too.
                drawn = connection.exec_driver_sql("SELECT last_value FROM store_job").scalar_one()
                if drawn != self._number:
                    raise postgreserrors.overtaken(self.where)

        return engine

    def _key(self, use: str) -> int:
        """Advisory locks belong to a database; this one's number is for the schema."""
        told = f"duizhang/1/store/{use}/{self._schema}".encode()
        return int.from_bytes(hashlib.sha256(told).digest()[:8], "big", signed=True)

    # Errors

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """By SQLSTATE (`postgreserrors`)."""
        try:
            yield
        except (SQLAlchemyError, psycopg.Error) as error:
            cause: Any = error.orig if isinstance(error, DBAPIError) else error
            lost = isinstance(error, DBAPIError) and error.connection_invalidated
            lost = lost or (isinstance(cause, psycopg.OperationalError) and cause.sqlstate is None)
            raise postgreserrors.translated(cause, self.where, self._schema, self._user, lost=lost) from error

    @contextlib.contextmanager
    def committing(self, connection: Connection) -> Iterator[None]:
        """`store.commit_unknown` if the session ends inside; any other error means that nothing was written."""
        session: Any = connection.connection.driver_connection
        if session.info.transaction_status == TransactionStatus.INERROR:
            raise postgreserrors.aborted(self.where)
        try:
            yield
        except (SQLAlchemyError, psycopg.Error) as error:
            if session.closed or session.broken:
                cause = error.orig if isinstance(error, DBAPIError) else error
                raise postgreserrors.unknown_outcome(cause, self.where) from error
            raise

    # The tables

    def tables(self, connection: Connection) -> Sequence[str]:
        """Tables and views of the schema, but for those that belong to an extension."""
        return (
            connection.execute(
                text(
                    "SELECT relname FROM pg_class c WHERE relnamespace = current_schema()::regnamespace "
                    "AND relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT EXISTS "
                    "(SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')"
                )
            )
            .scalars()
            .all()
        )

    def missing(self) -> StoreError | None:
        """The tables may lie in another schema or database: nothing but `create` makes them."""
        return StoreError(
            "store.missing",
            f"{self.where} 的模式 {self._schema} 中没有台账库；请检查 [store] url，或先执行 duizhang init --store",
            f"there is no store in schema {self._schema} of this database; check [store] url, or run duizhang init --store "
            "first",
            self.where,
        )

    # One job at a time

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """In a session of its own, for as long as the block lasts or the session lives."""
        with self.errors(), self._lock():
            yield

    @contextlib.contextmanager
    def _lock(self) -> Iterator[psycopg.Connection]:
        session = self._connect()
        with contextlib.closing(session):
            key = self._key("job")
            session.execute("SELECT set_config('lock_timeout', %s, false)", (f"{JOB_WAIT_SECONDS * 1000:.0f}",))
            try:
                session.execute("SELECT pg_advisory_lock(%s)", (key,))
            except psycopg.errors.LockNotAvailable as error:
                raise postgreserrors.busy(_holder(session, key), self.where) from error
            yield session

    def take_over(self) -> None:
        """Hold the store until `close`."""
        with self.errors():
            self._job = self._holding.enter_context(self._lock())

    def settle(self) -> None:
        """Draw our number; from then on the writes of an earlier holder are refused."""
        if self._job is None or self._number is not None:
            return
        with self.errors(), self._job.transaction():
            self._job.execute("SELECT pg_advisory_xact_lock(%s)", (self._key("write"),))
            if self._job.execute("SELECT to_regclass('store_job')").fetchone() == (None,):
                self._job.execute("CREATE SEQUENCE store_job")
            row = self._job.execute("SELECT nextval('store_job')").fetchone()
        self._number = None if row is None else int(row[0])

    # What fsck, doctor and init ask

    def damage(self, connection: Connection) -> Sequence[Flaw]:
        """Constraints that are gone or not in force, indexes that are not valid, and rows without the row they refer to."""
        found: list[Flaw] = []
        rules = {
            (table, name): bool(valid)
            for table, name, valid in connection.execute(
                # conenforced is new in 18; a foreign key whose triggers are off is not checked either.
                text(
                    "SELECT c.conrelid::regclass::text, c.conname, c.convalidated "
                    "AND coalesce((to_jsonb(c)->>'conenforced')::boolean, true) AND NOT EXISTS "
                    "(SELECT FROM pg_trigger t WHERE t.tgconstraint = c.oid AND t.tgenabled IN ('D', 'R')) "
                    "FROM pg_constraint c WHERE c.connamespace = current_schema()::regnamespace AND c.conrelid <> 0"
                )
            )
        }
        indexes = {
            (table, name): bool(valid)
            for table, name, valid in connection.execute(
                text(
                    "SELECT i.indrelid::regclass::text, c.relname, i.indisvalid AND i.indisready FROM pg_index i "
                    "JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relnamespace = current_schema()::regnamespace"
                )
            )
        }
        for table in Base.metadata.sorted_tables:
            for kind, names, there in (
                ("constraint", {str(rule.name) for rule in table.constraints}, rules),
                ("index", {str(index.name) for index in table.indexes}, indexes),
            ):
                zh = "约束" if kind == "constraint" else "索引"
                for name in sorted(names):
                    valid = there.get((table.name, name))
                    if valid is None:
                        found.append(
                            Flaw(f"{table.name} 的{zh} {name} 不见了", f"{kind} {name} of {table.name} is gone")
                        )
                    elif not valid:
                        found.append(
                            Flaw(f"{table.name} 的{zh} {name} 未生效", f"{kind} {name} of {table.name} is not in force")
                        )
            found += self._orphans(connection, table)
        return found

    def _orphans(self, connection: Connection, table: Table) -> Iterator[Flaw]:
        for rule in table.foreign_key_constraints:
            pairs = [(key.parent.name, key.column.name) for key in rule.elements]
            there = rule.referred_table.name
            rows = connection.exec_driver_sql(
                f'SELECT c.ctid FROM "{table.name}" c WHERE '  # noqa: S608
                + " AND ".join(f'c."{column}" IS NOT NULL' for column, _ in pairs)
                + f' AND NOT EXISTS (SELECT FROM "{there}" p WHERE '
                + " AND ".join(f'p."{other}" = c."{column}"' for column, other in pairs)
                + ") LIMIT 100"
            ).scalars()
            for row in rows:
                yield Flaw(
                    f"{table.name} 第 {row} 行：{there} 中没有对应的行",
                    f"{table.name} row {row}: no such row in {there}",
                )

    def obstacles(self, connection: Connection) -> Sequence[Obstacle]:
        """A server that takes no writes, rights that are missing, settings that make a commit worth less."""
        found: list[Obstacle] = []
        standby, read_only, fsync, full_pages = connection.execute(
            text(
                "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only') = 'on', "
                "current_setting('fsync') = 'on', current_setting('full_page_writes') = 'on'"
            )
        ).one()
        if standby or read_only:
            found.append(
                Obstacle(
                    "store.read_only",
                    "台账库服务器只读（备用服务器，或 default_transaction_read_only）",
                    "the store's server takes no writes (a standby, or default_transaction_read_only)",
                    "把 [store] url 指向主服务器，或由管理员改设置",
                    "let [store] url name the primary server, or have the setting changed",
                    self.where,
                )
            )
        short = connection.execute(
            text(
                "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relname = ANY(:names) "
                "AND NOT (has_table_privilege(oid, 'INSERT') AND has_table_privilege(oid, 'UPDATE') "
                "AND has_table_privilege(oid, 'DELETE')) ORDER BY relname"
            ),
            {"names": sorted(Base.metadata.tables)},
        ).scalars()
        for table in short:
            grants = "; ".join(postgreserrors.grants("for table, for sequence", self._schema, self._user))
            found.append(
                Obstacle(
                    "store.rights", f"无权写表 {table}", f"no right to write table {table}", grants, grants, self.where
                )
            )
            break
        if not (fsync and full_pages):
            found.append(
                Obstacle(
                    "doctor.not_durable",
                    "台账库服务器关闭了 fsync 或 full_page_writes：断电可能丢失已提交的内容",
                    "the store's server runs without fsync or full_page_writes: a power cut may lose what was committed",
                    "在 postgresql.conf 中打开 fsync 与 full_page_writes",
                    "switch fsync and full_page_writes on in postgresql.conf",
                    self.where,
                    warning=True,
                )
            )
        if self._password is not None:
            found.append(
                Obstacle(
                    "doctor.password_in_url",
                    "[store] url 中写有口令",
                    "[store] url holds the password",
                    "改用 ~/.pgpass（0600）或 ?passfile=…，并把口令从 url 中删去",
                    "use ~/.pgpass (0600) or ?passfile=…, and take the password out of the url",
                    self.where,
                    warning=True,
                )
            )
        return found

    def forget(self) -> None:
        """Write every table anew, without old row versions. Not the server's write-ahead log, replicas and backups: these are its
        administrator's. StoreError `store.rights` for a role that does not own the tables (VACUUM only warns)."""
        names = ", ".join(f'"{table.name}"' for table in Base.metadata.sorted_tables)
        with self.errors(), contextlib.closing(self._connect()) as session:
            self._await_readers(session)
            before = _files(session)
            session.execute(f"VACUUM (FULL) {names}".encode())
            kept = sorted(name for name, file in _files(session).items() if file == before.get(name))
        if kept:
            raise StoreError(
                "store.rights",
                f"无权整理表 {'、'.join(kept)}，已改写的旧内容清不掉；请由表的属主执行 VACUUM FULL，或把表改归 {self._user}",
                f"no right to rewrite {', '.join(kept)}, so what was overwritten cannot be cleared away; have the owner run VACUUM FULL, "
                f"or give the tables to {self._user}",
                self.where,
            )

    def _await_readers(self, session: psycopg.Connection) -> None:
        """A transaction that began before keeps the old row versions alive; reads of ours are short."""
        deadline = time.monotonic() + JOB_WAIT_SECONDS * 5
        began = session.execute("SELECT clock_timestamp()").fetchone()
        while session.execute(
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND backend_xmin IS NOT NULL AND xact_start <= %s LIMIT 1",
            began,
        ).fetchall():
            if time.monotonic() > deadline:
                raise database.in_use(self.where)
            time.sleep(0.05)

    def after_copy(self, connection: Connection, table: str, column: str) -> None:
        """The sequence goes on above the greatest number."""
        connection.exec_driver_sql(
            f'SELECT setval(pg_get_serial_sequence(\'"{table}"\', \'{column}\'), max("{column}")) FROM "{table}"'  # noqa: S608
        )

    def close(self) -> None:
        """Close all connections, and let go of the store."""
        self.engine.dispose()
        self._holding.close()
        self._job = None


def _parameters(url: str) -> dict[str, str]:
    """What libpq is given, by its own names; any driver that the URL names is replaced by psycopg."""
    dialect: Any = PGDialect_psycopg
    dialect = dialect()
    try:
        parsed = make_url(url).set(drivername="postgresql+psycopg")
        _, given = dialect.create_connect_args(parsed)
    except (ArgumentError, ValueError) as error:
        raise bad_url() from error
    for name, value in given.items():
        if not isinstance(value, str | int):
            raise bad_url(f"参数 {name} 重复", f"parameter {name} stands there twice")
    return {name: str(value) for name, value in given.items()}


def _where(given: Mapping[str, str]) -> str:
    """The place without password and parameters."""
    user = f"{given['user']}@" if "user" in given else ""
    host = given.get("host") or given.get("hostaddr") or given.get("service", "")
    port = f":{given['port']}" if "port" in given else ""
    return f"postgresql://{user}{host}{port}/{given.get('dbname', '')}"


def _files(session: psycopg.Connection) -> dict[str, int]:
    """Which file holds each of our tables: a table that is written anew gets another."""
    rows = session.execute(
        "SELECT relname, pg_relation_filenode(oid) FROM pg_class WHERE relnamespace = current_schema()::regnamespace "
        "AND relname = ANY(%s)",
        (sorted(Base.metadata.tables),),
    )
    return {str(name): int(file) for name, file in rows.fetchall()}


def _holder(session: psycopg.Connection, key: int) -> str:
    row = session.execute(
        "SELECT a.application_name, a.client_addr, to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') "
        "FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 "
        "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
        "AND ((l.classid::bigint << 32) | l.objid::bigint) = %s",
        (key,),
    ).fetchone()
    return "?" if row is None else ", ".join(str(part) for part in row if part)
