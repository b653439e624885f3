"""What PostgreSQL refuses or loses, in an operator's words; never the password."""

from __future__ import annotations

import ctypes
import itertools
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ledger.catalog import Catalog, parse_catalog
from ledger.errors import LedgerError, SourceError
from ledger.kernel.chunk import Chunk
from ledger.native import load
from ledger.source import pgbinary
from ledger.source import postgres as module
from ledger.source.table import open_table
from tests.databases import PASSWORD, Database, Server, start_postgres

RowsOf = Callable[[Iterable[Chunk]], list[tuple[str | None, ...]]]
TABLE = "CREATE TABLE fines (no text, holder text, fee numeric, decided date)"
FILLED = "INSERT INTO fines SELECT i::text, repeat('x', 1000), 1, NULL FROM generate_series(1, 20000) i"


def refusal(url: str, catalog: Catalog, table: str = "fines", **more: Any) -> LedgerError:
    def read() -> None:
        with open_table(url, table, catalog, **more) as source:
            list(source.scan())

    with pytest.raises(LedgerError) as caught:
        read()
    assert isinstance(caught.value, SourceError)
    told = f"{caught.value.zh}{caught.value.en}{caught.value.where}"
    assert PASSWORD not in told
    assert "geheim" not in told
    return caught.value


@pytest.fixture
def role(postgres: Database) -> Iterator[str]:
    """A role that may log in and nothing else."""
    name = f"r{postgres.name}"
    postgres.run(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    yield name
    postgres.run(f"DROP OWNED BY {name}", f"DROP ROLE {name}")


def test_nobody_listens(fines: Catalog) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    error = refusal(f"postgresql://u:geheim@127.0.0.1:{port}/city", fines)
    assert error.code == "source.connect"
    for part in ("127.0.0.1", str(port), "city"):
        assert part in error.where


def test_an_unknown_host(fines: Catalog) -> None:
    assert refusal("postgresql://u:geheim@no-such-host.invalid/city", fines).code == "source.connect"


def test_a_server_that_never_answers_is_given_up(fines: Catalog) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        assert refusal(f"postgresql://u:geheim@127.0.0.1:{port}/city?connect_timeout=2", fines).code == "source.connect"


def test_the_password_is_refused(postgres: Database, fines: Catalog) -> None:
    error = refusal(postgres.url_as("postgres", "geheim"), fines)
    assert error.code == "source.password"
    assert "postgres" in error.en
    assert refusal(postgres.url_as("nobody_here", "geheim"), fines).code == "source.password"


def test_no_password_at_all_says_how_to_give_one(
    postgres: Database, fines: Catalog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    url = f"postgresql://postgres@127.0.0.1:{postgres.server.port}/{postgres.name}"
    error = refusal(url, fines)
    assert error.code == "source.password"
    assert "PGPASSWORD" in error.en
    postgres.run(TABLE)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with open_table(url, "fines", fines) as source:
        assert list(source.scan()) == []


def test_the_password_comes_from_a_password_file_or_a_service(
    postgres18: Database, fines: Catalog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    postgres18.run(TABLE)
    secret = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    (tmp_path / "pass").write_text(f"127.0.0.1:{postgres18.server.port}:*:postgres:{secret}\n")
    (tmp_path / "pass").chmod(0o600)
    url = f"postgresql://postgres@127.0.0.1:{postgres18.server.port}/{postgres18.name}?passfile={tmp_path}/pass"
    with open_table(url, "fines", fines) as source:
        assert list(source.scan()) == []
    (tmp_path / "services").write_text(
        f"[city]\nhost=127.0.0.1\nport={postgres18.server.port}\ndbname={postgres18.name}\nuser=postgres\npassword={PASSWORD}\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    with open_table("postgresql://?service=city", "fines", fines) as source:
        assert list(source.scan()) == []


def test_the_database_is_missing(postgres: Database, fines: Catalog) -> None:
    error = refusal(postgres.server.url("no_such"), fines)
    assert error.code == "source.database_missing"
    assert "no_such" in error.en


@pytest.mark.parametrize("usage", [False, True])
def test_rights_that_lack_are_named_with_the_grant(postgres: Database, fines: Catalog, role: str, usage: bool) -> None:
    postgres.run("CREATE SCHEMA 省", f"CREATE TABLE 省.{TABLE.removeprefix('CREATE TABLE ')}")
    if usage:
        postgres.run(f"GRANT USAGE ON SCHEMA 省 TO {role}")
    error = refusal(postgres.url_as(role), fines, "省.fines")
    assert error.code == "source.permission"
    for told in (error.zh, error.en):
        assert f'GRANT SELECT ON TABLE "省"."fines" TO "{role}";' in told
        assert (f'GRANT USAGE ON SCHEMA "省" TO "{role}";' in told) is not usage
    postgres.run(f"GRANT USAGE ON SCHEMA 省 TO {role}", f"GRANT SELECT ON 省.fines TO {role}")
    with open_table(postgres.url_as(role), "省.fines", fines) as source:
        assert list(source.scan()) == []


def test_a_view_whose_owner_lost_the_table_says_so(postgres: Database, fines: Catalog, role: str) -> None:
    postgres.run(
        TABLE,
        "CREATE VIEW v AS SELECT * FROM fines",
        f"GRANT SELECT ON v TO {role}",
        f"GRANT CREATE ON SCHEMA public TO {role}",
    )
    postgres.run(f"ALTER VIEW v OWNER TO {role}")
    error = refusal(postgres.url_as(role), fines, "v")
    assert error.code == "source.permission"
    assert "fines" in error.en


def test_rows_hidden_by_a_policy_are_never_taken_for_missing(
    postgres: Database, fines: Catalog, role: str, rows_of: RowsOf
) -> None:
    postgres.run(
        TABLE, "INSERT INTO fines (no) VALUES ('1'), ('2')", f"GRANT SELECT ON fines TO {role}",
        "ALTER TABLE fines ENABLE ROW LEVEL SECURITY", "CREATE POLICY p ON fines USING (no = '1')",
    )  # fmt: skip
    error = refusal(postgres.url_as(role), fines)
    assert error.code == "source.row_security"
    assert "BYPASSRLS" in error.en
    postgres.run(f"ALTER ROLE {role} BYPASSRLS")
    with open_table(postgres.url_as(role), "fines", fines) as source:
        assert len(rows_of(source.scan())) == 2


def test_a_locked_table_is_not_waited_for_without_end(postgres: Database, fines: Catalog) -> None:
    postgres.run(TABLE)
    from sqlalchemy.engine import make_url

    def read() -> None:
        with module.open_source(make_url(postgres.url), "fines", fines, lock_seconds=0.05):
            pass

    with closing(postgres.connect(autocommit=False)) as other:
        other.execute("LOCK TABLE fines")
        with pytest.raises(SourceError) as caught:
            read()
    assert caught.value.code == "source.locked"


def test_the_roles_time_limit_is_named(postgres: Database, fines: Catalog, role: str) -> None:
    postgres.run(
        "CREATE VIEW v AS SELECT no, no AS holder, 1 AS fee, NULL::date AS decided FROM (SELECT pg_sleep(9)::text AS no) s"
    )
    postgres.run(f"GRANT SELECT ON v TO {role}", f"ALTER ROLE {role} SET statement_timeout = 100")
    error = refusal(postgres.url_as(role), fines, "v")
    assert error.code == "source.timeout"
    assert "statement_timeout" in error.en


def test_a_transaction_that_idles_too_long_is_named(postgres18: Database, fines: Catalog) -> None:
    postgres18.run(TABLE, f"ALTER DATABASE {postgres18.name} SET idle_in_transaction_session_timeout = 50")

    def read() -> None:
        with open_table(postgres18.url, "fines", fines) as source:
            import time

            time.sleep(0.3)
            list(source.scan())

    with pytest.raises(SourceError) as caught:
        read()
    assert caught.value.code in ("source.timeout", "source.lost")
    assert caught.value.code == "source.timeout"


def read_until_struck(url: str, fines: Catalog, strike: Callable[[], object]) -> SourceError:
    """Begin a scan, strike after its first chunk, and go on."""

    def read() -> int:
        rows = 0
        with open_table(url, "fines", fines) as source:
            for chunk in source.scan():
                if not rows:
                    strike()
                rows += len(chunk)
        return rows

    with pytest.raises(SourceError) as caught:
        read()
    return caught.value


def test_a_connection_that_is_killed_in_the_middle_is_an_error_and_never_fewer_rows(
    postgres: Database, fines: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CHUNK_ROWS", 50)
    postgres.run(TABLE, FILLED)
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'duizhang' AND datname = current_database()"
    assert read_until_struck(postgres.url, fines, lambda: postgres.run(kill)).code == "source.lost"
    cancel = kill.replace("terminate", "cancel")
    assert read_until_struck(postgres.url, fines, lambda: postgres.run(cancel)).code == "source.timeout"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGQUIT])
def test_a_server_that_shuts_down_in_the_middle_is_an_error(
    fines: Catalog, monkeypatch: pytest.MonkeyPatch, sent: signal.Signals
) -> None:
    monkeypatch.setattr(module, "MAX_CHUNK_ROWS", 50)
    server: Server = start_postgres("18")
    try:
        database = Database(server, "postgres")
        database.run(TABLE, FILLED)
        assert read_until_struck(database.url, fines, lambda: server.kill(sent)).code == "source.lost"
        assert refusal(database.url, fines).code == "source.connect"
    finally:
        server.stop()


def test_a_server_without_a_free_connection_says_so(fines: Catalog) -> None:
    server = start_postgres("18", "max_connections=5", "superuser_reserved_connections=0", "max_wal_senders=0")
    held = []
    try:
        held = [server.connect() for _ in range(5)]
        error = refusal(Database(server, "postgres").url, fines)
        assert error.code == "source.connect"
        assert "too many clients" in error.en
    finally:
        for connection in held:
            connection.close()
        server.stop()


def test_an_error_of_a_view_in_the_middle_shows_no_value(postgres: Database, fines: Catalog) -> None:
    postgres.run("CREATE TABLE t (no text)", "INSERT INTO t VALUES ('1'), ('张三')")
    postgres.run("CREATE VIEW v AS SELECT no, no AS holder, no::int AS fee, NULL::date AS decided FROM t")
    error = refusal(postgres.url, fines, "v")
    assert error.code == "source.failed"
    assert "张三" not in error.en + error.zh
    assert "22P02" in error.en


def test_a_table_replaced_while_it_is_opened_is_not_read(
    postgres18: Database, fines: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres18.run(TABLE)
    real = module.require_rights

    def replaced(*given: Any) -> None:
        real(*given)
        postgres18.run("ALTER TABLE fines RENAME TO old", TABLE)

    monkeypatch.setattr(module, "require_rights", replaced)
    assert refusal(postgres18.url, fines).code == "source.changed"


Messages = list[bytes]
CUT: dict[str, Callable[[Messages], Messages]] = {
    "a message less": lambda rows: rows[:1] + rows[2:],
    "the rest is missing": lambda rows: rows[:1],
    "two messages in one": lambda rows: [rows[0] + rows[1], *rows[2:]],
    "all in one": lambda rows: [b"".join(rows)],
    "one message in two": lambda rows: [rows[0][:-3], rows[0][-3:], *rows[1:]],
    "nothing": lambda rows: [],
    "a message twice": lambda rows: [*rows[:2], *rows[1:]],
}


@pytest.mark.parametrize("format", ["text", "binary"])
@pytest.mark.parametrize("cut", CUT)
def test_what_a_proxy_cuts_off_is_not_taken_for_the_end(
    postgres18: Database, fines: Catalog, monkeypatch: pytest.MonkeyPatch, format: str, cut: str
) -> None:
    postgres18.run(TABLE, "INSERT INTO fines (no) VALUES ('1'), ('2')")
    (spoil_text if format == "text" else spoil_binary)(monkeypatch, CUT[cut])
    assert refusal(postgres18.url, fines).code == "source.copy"


def spoil_text(patch: pytest.MonkeyPatch, spoil: Callable[[Messages], Messages]) -> None:
    """What psycopg reads of a COPY is what `spoil` makes of its rows."""
    import psycopg

    real = psycopg.Copy.read
    left: dict[int, Messages] = {}

    def read(self: Any) -> bytes:
        if id(self) not in left:
            left[id(self)] = [*spoil([bytes(row) for row in iter(lambda: real(self), b"")]), b""]
        return left[id(self)].pop(0)

    patch.setattr(psycopg.Copy, "read", read)
    patch.setattr(pgbinary, "available", lambda: False)


class Spoiled:
    """The compiled part, reading other messages than libpq gave it."""

    def __init__(self, library: Any, spoil: Callable[[Messages], Messages]) -> None:
        self._library = library
        self._spoil = spoil

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)

    def dz_copy_read(self, copy: Any, data: Any, room: Any, ends: Any, most: Any, count: Any, patience: int) -> int:
        state = 1
        while state == 1:
            state = self._library.dz_copy_read(copy, data, room, ends, most, count, patience)
        assert state == 2
        places = (ctypes.c_int64 * (count._obj.value + 1)).from_address(ends.value - 8)
        text = ctypes.string_at(data.value, places[-1])
        rows = self._spoil([text[start:stop] for start, stop in itertools.pairwise(places)])
        joined = b"".join(rows)
        ctypes.memmove(data.value, joined, len(joined))
        (ctypes.c_int64 * len(rows)).from_address(ends.value)[:] = list(itertools.accumulate(map(len, rows)))
        count._obj.value = len(rows)
        return int(state)


def spoil_binary(patch: pytest.MonkeyPatch, spoil: Callable[[Messages], Messages]) -> None:
    """The same for the binary format, whose first message bears its head and whose last one ends it."""
    library = load()
    assert library is not None
    patch.setattr(pgbinary, "load", lambda: Spoiled(library, spoil))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rows: [b"x" + rows[0][1:], *rows[1:]],
        lambda rows: [rows[0][:11] + b"\0\0\0\1" + rows[0][15:], *rows[1:]],
        lambda rows: [rows[0][:15] + b"\0\xff\0\0" + rows[0][19:], *rows[1:]],
        lambda rows: [rows[0], b"\0\5" + rows[1][2:], rows[2]],
        lambda rows: [rows[0], rows[1][:2] + b"\x7f\xff\xff\xff" + rows[1][6:], rows[2]],
        lambda rows: [rows[0], rows[1][:2] + b"\xff\xff\xff\xfe" + rows[1][6:], rows[2]],
        lambda rows: [rows[0], rows[1] + b"x", rows[2]],
        lambda rows: [rows[0], rows[1], rows[2], rows[1]],
        lambda rows: [rows[0], rows[2], rows[1]],
        lambda rows: [rows[0], rows[1]],
    ],
)
def test_binary_messages_that_are_none_are_not_read(
    postgres18: Database, fines: Catalog, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Messages], Messages]
) -> None:
    postgres18.run(TABLE, "INSERT INTO fines (no) VALUES ('1'), ('2')")
    spoil_binary(monkeypatch, spoil)
    assert refusal(postgres18.url, fines).code == "source.copy"


def test_a_row_more_than_messages_is_not_read(postgres18: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = parse_catalog(b'id = "a"\nversion = 1\nkey = ["no"]\nfield = [{ name = "no", type = "code" }]', "a")
    postgres18.run(TABLE, "INSERT INTO fines (no) VALUES ('1'), ('2')")
    spoil_text(monkeypatch, lambda rows: [b"".join(rows), b"\n"])
    assert refusal(postgres18.url, catalog).code == "source.copy"


def test_columns_nobody_asked_for_are_named(postgres18: Database) -> None:
    catalog = parse_catalog(b'id = "a"\nversion = 1\nkey = ["no"]\nfield = [{ name = "no", type = "code" }]', "a")
    postgres18.run(TABLE)
    with open_table(postgres18.url, "fines", catalog) as source:
        assert list(source.ignored) == ["holder", "fee", "decided"]
