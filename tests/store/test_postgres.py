"""What only a server can do: be away, refuse us, lose the connection, be shared by two workspaces."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from ledger.errors import InputError, LedgerError, StoreError
from ledger.store import database, postgresstore
from ledger.store.database import Mode
from ledger.store.db import Store, find_damage, migrate, open_store
from ledger.store.models import Run
from tests import databases
from tests.databases import PASSWORD, Database, Server
from tests.store.conftest import KILLED, in_child
from tests.store.rows import NOW, make_batch, make_entry_set, make_run

MODES: tuple[Mode, ...] = ("create", "write", "update", "read")
END_OTHERS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


@pytest.fixture
def store(postgres: Database) -> Iterator[Store]:
    opened = open_store(postgres.url, "create")
    yield opened
    opened.close()


@pytest.fixture
def clerk(postgres18: Database) -> Iterator[Database]:
    """PostgreSQL 18 with a user `clerk_…` of its own, without any right."""
    name = f"clerk_{postgres18.name}"
    postgres18.run(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    yield postgres18
    postgres18.run(f"DROP OWNED BY {name} CASCADE", f"DROP ROLE {name}")


def clerk_url(database: Database) -> str:
    return database.url_as(f"clerk_{database.name}")


def runs(store: Store) -> list[str]:
    with store.read() as session:
        return list(session.scalars(select(Run.command).order_by(Run.id)))


def write(store: Store, command: str) -> None:
    with store.write() as session:
        session.add(make_run(command))


def refusal(url: str, mode: Mode = "read") -> LedgerError:
    """Why a store does not open; the password is in no part of it."""
    with pytest.raises(LedgerError) as refused:
        open_store(url, mode).close()
    error = refused.value
    for told in (error.zh, error.en, error.where, str(error)):
        assert PASSWORD not in told
        assert quote(PASSWORD, safe="") not in told
    assert re.search(r"[\u4e00-\u9fff]", error.zh)
    assert not re.search(r"[\u4e00-\u9fff]", error.en)
    return error


# The URL


@pytest.mark.parametrize(
    "driver", ["postgresql", "postgres", "postgresql+psycopg", "postgresql+psycopg2", "postgresql+asyncpg"]
)
def test_any_spelling_of_the_driver_is_taken(postgres18: Database, driver: str) -> None:
    url = re.sub(r"^[^:]+", driver, postgres18.url)
    with closing(open_store(url, "create")) as opened:
        assert opened.where == f"postgresql://postgres@127.0.0.1:{postgres18.server.port}/{postgres18.name}"
        assert opened.path is None
        assert runs(opened) == []


def test_parameters_of_the_url_reach_the_server(postgres18: Database) -> None:
    postgres18.run("CREATE SCHEMA duizhang")
    url = postgres18.url + "?options=-csearch_path%3Dduizhang&application_name=night&sslmode=prefer"
    with closing(open_store(url, "create")) as opened:
        with opened.read() as session:
            told = session.execute(text("SELECT current_schema(), current_setting('application_name')")).one()
        assert tuple(told) == ("duizhang", "night")
    assert refusal(postgres18.url).code == "store.missing"
    assert postgres18.run("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]
    assert postgres18.run("SELECT count(*) > 8 FROM pg_tables WHERE schemaname = 'duizhang'") == [(True,)]


def test_the_password_may_stand_in_a_file_or_in_the_environment(
    postgres18: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = postgres18.server
    bare = f"postgresql://postgres@127.0.0.1:{server.port}/{postgres18.name}"
    assert refusal(bare).code == "store.login"
    file = tmp_path / "pgpass"
    file.write_text(f"127.0.0.1:{server.port}:*:postgres:{PASSWORD.replace(':', chr(92) + ':')}\n", encoding="utf-8")
    file.chmod(0o600)
    open_store(f"{bare}?passfile={quote(str(file), safe='')}", "create").close()
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    open_store(bare, "read").close()


@pytest.mark.parametrize(
    "query",
    [
        "bogus=1",
        "options=a&options=b",
        "autocommit=off",
        "prepare_threshold=3",
        "context=x",
        "row_factory=y",
        "connect_timeout=soon",
    ],
)
def test_a_parameter_that_libpq_does_not_know_is_refused(query: str) -> None:
    error = refusal(f"postgresql://clerk:{quote(PASSWORD, safe='')}@127.0.0.1:1/x?{query}")
    assert isinstance(error, InputError)
    assert (error.code, error.where) == ("store.url", "[store] url")
    assert query.partition("=")[0] in error.en


def test_a_password_among_the_parameters_is_not_shown_either() -> None:
    error = refusal(f"postgresql://127.0.0.1:1/x?user=clerk&password={quote(PASSWORD, safe='')}")
    assert (error.code, error.where) == ("store.unreachable", "postgresql://clerk@127.0.0.1:1/x")


def test_a_password_that_libpq_repeats_is_masked() -> None:
    # libpq quotes the value of a parameter it cannot use.
    secret = quote(PASSWORD, safe="")
    error = refusal(f"postgresql://clerk:{secret}@127.0.0.1:1/x?sslmode={secret}")
    assert 'sslmode value: "***"' in error.en


# Refused


def test_a_server_that_is_not_there_is_named() -> None:
    for mode in MODES:
        error = refusal(f"postgresql://clerk:{quote(PASSWORD, safe='')}@127.0.0.1:1/ledger", mode)
        assert error.code == "store.unreachable"
        assert error.where == "postgresql://clerk@127.0.0.1:1/ledger"
    assert refusal("postgresql://clerk@no-such-host.invalid/ledger").code == "store.unreachable"


def test_who_may_not_log_in_is_told_why(postgres: Database) -> None:
    assert refusal(postgres.url_as("postgres", "wrong" + PASSWORD)).code == "store.login"
    assert refusal(postgres.url_as("nobody_of_that_name")).code == "store.login"
    assert refusal(postgres.url + "_gone").code == "store.no_database"


def test_a_missing_right_is_named_with_its_grant(clerk: Database) -> None:
    name = f"clerk_{clerk.name}"
    clerk.run(f"REVOKE CONNECT ON DATABASE {clerk.name} FROM PUBLIC")
    assert "GRANT CONNECT" in refusal(clerk_url(clerk), "create").en
    clerk.run(f"GRANT CONNECT ON DATABASE {clerk.name} TO {name}")
    error = refusal(clerk_url(clerk), "create")
    assert (error.code, f"GRANT USAGE, CREATE ON SCHEMA public TO {name}" in error.en) == ("store.rights", True)
    assert clerk.run("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]
    # The grants as told are enough: nothing else is given below.
    clerk.run(f"GRANT USAGE, CREATE ON SCHEMA public TO {name}")
    open_store(clerk_url(clerk), "create").close()
    for (table,) in clerk.run("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
        clerk.run(f"ALTER TABLE {table} OWNER TO postgres", f"REVOKE ALL ON {table} FROM {name}")
    clerk.run("ALTER SEQUENCE store_job OWNER TO postgres")
    error = refusal(clerk_url(clerk), "read")
    grant = f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}"
    assert (error.code, grant in error.en, grant in error.zh) == ("store.rights", True, True)
    clerk.run(grant)
    open_store(clerk_url(clerk), "read").close()
    error = refusal(clerk_url(clerk), "write")
    grant = f"GRANT SELECT, USAGE ON ALL SEQUENCES IN SCHEMA public TO {name}"
    assert (error.code, grant in error.en) == ("store.rights", True)
    clerk.run(grant)
    with closing(open_store(clerk_url(clerk), "write")) as opened:
        write(opened, "anchor")


def test_a_search_path_without_a_schema_is_named(clerk: Database) -> None:
    url = clerk.url + "?options=-csearch_path%3Dnowhere"
    assert refusal(url, "create").code == "store.no_schema"
    assert "nowhere" in refusal(url, "create").en
    clerk.run("REVOKE USAGE ON SCHEMA public FROM PUBLIC")
    assert refusal(clerk_url(clerk), "create").code == "store.no_schema"


def test_a_database_in_another_encoding_is_refused(postgres: Database) -> None:
    name = f"latin_{postgres.name}"
    for encoding in ("SQL_ASCII", "LATIN1"):
        postgres.server.run(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
        try:
            error = refusal(postgres.server.url(name), "create")
        finally:
            postgres.server.run(f"DROP DATABASE {name} WITH (FORCE)")
        assert (error.code, encoding in error.en) == ("store.encoding", True)


def test_an_old_server_is_refused(postgres: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresstore, "OLDEST", 190000)
    error = refusal(postgres.url, "create")
    assert (error.code, f"PostgreSQL {postgres.server.version}" in error.en, "19" in error.en) == (
        "store.server_old",
        True,
        True,
    )


def test_tables_of_an_extension_are_not_another_program(postgres: Database) -> None:
    postgres.run("CREATE TABLE spatial_ref_sys (srid int)")
    assert refusal(postgres.url, "create").code == "store.foreign"
    postgres.run("ALTER EXTENSION plpgsql ADD TABLE spatial_ref_sys")
    open_store(postgres.url, "create").close()


def test_a_schema_that_comes_later_does_not_hide_the_tables_of_an_open_store(store: Store, postgres: Database) -> None:
    write(store, "1")
    postgres.run("CREATE SCHEMA postgres")  # the first place of "$user", public
    store.engine.dispose()
    write(store, "2")
    assert runs(store) == ["1", "2"]
    assert refusal(postgres.url, "update").code == "store.missing"
    assert postgres.run("SELECT count(*) FROM pg_tables WHERE schemaname = 'postgres'") == [(0,)]


def test_a_server_that_takes_no_writes_is_named(postgres: Database, store: Store) -> None:
    write(store, "1")
    store.close()
    postgres.run(f"ALTER DATABASE {postgres.name} SET default_transaction_read_only = on")
    with closing(open_store(postgres.url, "read")) as opened:
        assert runs(opened) == ["1"]
        with opened.read() as session:
            assert "store.read_only" in {it.code for it in opened.database.obstacles(session.connection())}
    assert refusal(postgres.url, "write").code == "store.read_only"
    with closing(open_store(postgres.url, "update")) as opened:
        with pytest.raises(StoreError) as refused:
            write(opened, "2")
        assert refused.value.code == "store.read_only"


def test_what_doctor_asks_shows_rights_and_a_server_that_is_not_durable(clerk: Database) -> None:
    open_store(clerk.url, "create").close()
    name = f"clerk_{clerk.name}"
    clerk.run(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}", f"GRANT SELECT ON store_job TO {name}")
    with closing(open_store(clerk_url(clerk), "read")) as opened, opened.read() as session:
        found = {it.code: it for it in opened.database.obstacles(session.connection())}
    assert set(found) == {"store.rights", "doctor.not_durable", "doctor.password_in_url"}  # tests run without fsync
    assert f"TO {name}" in found["store.rights"].mend_en
    clerk.run(*found["store.rights"].mend_en.split("; "))
    with closing(open_store(clerk_url(clerk), "read")) as opened, opened.read() as session:
        assert "store.rights" not in {it.code for it in opened.database.obstacles(session.connection())}


# The connection is lost


def test_a_backend_that_ends_in_a_transaction_leaves_nothing_of_it(store: Store, postgres: Database) -> None:
    def work(then: Callable[[object], object]) -> None:
        with store.write() as session:
            session.add(make_run("lost"))
            session.flush()
            postgres.run(END_OTHERS)
            then(session)

    with pytest.raises(StoreError) as refused:
        work(lambda session: session.execute(select(Run)))  # type: ignore[attr-defined]
    assert refused.value.code == "store.connection_lost"
    with pytest.raises(StoreError) as refused:
        work(lambda session: None)
    # COMMIT went into a connection that was gone: from here nobody can tell.
    assert refused.value.code == "store.commit_unknown"
    assert "unknown" in refused.value.en
    assert runs(store) == []
    write(store, "next")
    assert runs(store) == ["next"]


def test_a_backend_that_ends_after_the_commit_is_told_as_unknown_and_the_rows_are_there(
    store: Store, postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = store.engine.dialect.do_commit

    def commit_and_die(connection: object) -> None:
        real(connection)  # type: ignore[arg-type]
        postgres.run(END_OTHERS)
        # The answer to COMMIT is what got lost: the driver learns of the end first.
        connection.driver_connection.execute("SELECT 1")  # type: ignore[attr-defined]

    with monkeypatch.context() as dying:
        dying.setattr(store.engine.dialect, "do_commit", commit_and_die)
        with pytest.raises(StoreError) as refused:
            write(store, "kept")
    assert refused.value.code == "store.commit_unknown"
    assert runs(store) == ["kept"]
    write(store, "next")
    assert runs(store) == ["kept", "next"]


def test_the_pool_recovers_when_all_its_sessions_are_ended(store: Store, postgres: Database) -> None:
    for number in range(3):
        write(store, str(number))
        assert len(runs(store)) == number + 1
        postgres.run(END_OTHERS)


def test_a_failed_statement_that_somebody_swallows_is_not_committed_in_silence(store: Store) -> None:
    # PostgreSQL answers the COMMIT of a failed transaction with ROLLBACK and no error.
    def work() -> None:
        with store.write() as session:
            session.add(make_run("half"))
            session.flush()
            with pytest.raises(DBAPIError):
                session.execute(text("SELECT 1 / 0"))

    with pytest.raises(StoreError) as refused:
        work()
    assert refused.value.code == "store.sql"
    assert runs(store) == []


def test_a_statement_that_the_server_cancels_is_named(store: Store) -> None:
    def work() -> None:
        with store.write() as session:
            session.add(make_run("slow"))
            session.flush()
            session.execute(text("SET LOCAL statement_timeout = '10ms'"))
            session.execute(text("SELECT pg_sleep(5)"))

    with pytest.raises(StoreError) as refused:
        work()
    assert refused.value.code == "store.cancelled"
    assert runs(store) == []


@pytest.fixture(params=["18", "15"])
def own_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that the test may stop."""
    server = databases.or_skip(databases.start_postgres, request.param)
    yield server
    server.stop()


def restart(server: Server, *, crash: bool = False) -> None:
    """Stop the server, and start it again on the same port and data."""
    command = Path(f"/proc/{server.pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
    owner = (server.folder / "data").stat()
    environment = dict(
        item.split("=", 1) for item in Path(f"/proc/{server.pid}/environ").read_text().rstrip("\0").split("\0")
    )
    pid = server.pid
    os.kill(pid, signal.SIGQUIT if crash else signal.SIGINT)
    wait_for(lambda: not (server.folder / "data" / "postmaster.pid").exists())
    subprocess.Popen(
        command, cwd=server.folder, env=environment, user=owner.st_uid, group=owner.st_gid, extra_groups=[],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip

    def up() -> bool:
        try:
            server.connect(connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    wait_for(up)


def wait_for(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def stop_again(server: Server) -> None:
    """The guard of the server ends only what it started."""
    os.kill(server.pid, signal.SIGINT)
    wait_for(lambda: not (server.folder / "data" / "postmaster.pid").exists())


def test_a_job_goes_on_after_the_server_was_restarted_between_its_transactions(own_server: Server) -> None:
    with closing(open_store(own_server.url("postgres"), "create")) as opened:
        write(opened, "before")
        restart(own_server)
        try:
            assert runs(opened) == ["before"]
            write(opened, "after")
            assert runs(opened) == ["before", "after"]
        finally:
            stop_again(own_server)
        with pytest.raises(StoreError) as refused:
            runs(opened)
        assert refused.value.code == "store.unreachable"


def test_after_a_crash_what_was_committed_is_there_and_the_job_begins_again(own_server: Server) -> None:
    url = own_server.url("postgres")
    with closing(open_store(url, "create")) as opened:
        write(opened, "before")
        with closing(open_store(url, "update")) as beside:
            restart(own_server, crash=True)
            try:
                # Whether another job came in between cannot be told any more from the sequence: it may have jumped.
                with pytest.raises(StoreError) as refused:
                    write(opened, "after")
                assert refused.value.code == "store.overtaken"
                write(beside, "token")
                opened.close()
                with closing(open_store(url, "write")) as again:
                    write(again, "again")
                    assert runs(again) == ["before", "token", "again"]
                    assert find_damage(again) == ()
            finally:
                stop_again(own_server)


# One job at a time


def test_a_second_job_is_refused_and_told_who_holds_the_store(store: Store, postgres: Database) -> None:
    started = time.monotonic()
    modes: tuple[Mode, ...] = ("write", "create")
    for mode in modes:
        error = refusal(postgres.url, mode)
        assert (error.code, str(os.getpid()) in error.en, str(os.getpid()) in error.zh) == ("store.busy", True, True)
    assert time.monotonic() - started < 10
    write(store, "1")
    with closing(open_store(postgres.url, "update")) as beside, pytest.raises(StoreError) as refused, beside.alone():
        pass
    assert refused.value.code == "store.busy"
    store.close()
    with closing(open_store(postgres.url, "write")) as second:
        write(second, "2")
        assert runs(second) == ["1", "2"]


def test_a_store_in_another_schema_of_the_database_is_another_store(store: Store, postgres: Database) -> None:
    postgres.run("CREATE SCHEMA other")
    with (
        closing(open_store(postgres.url + "?options=-csearch_path%3Dother", "create")) as other,
        store.write() as first,
    ):
        first.add(make_run("first"))
        first.flush()
        write(other, "other")
    assert runs(store) == ["first"]


def test_whoever_checks_alone_keeps_jobs_away_until_he_is_done(store: Store, postgres: Database) -> None:
    store.close()
    with closing(open_store(postgres.url, "read")) as checking:
        with checking.alone():
            assert refusal(postgres.url, "write").code == "store.busy"
        open_store(postgres.url, "write").close()


def test_a_job_that_lost_its_hold_unnoticed_writes_until_another_took_over(store: Store, postgres: Database) -> None:
    write(store, "first")
    postgres.run(END_OTHERS)
    write(store, "still alone")
    with closing(open_store(postgres.url, "write")) as second:
        with pytest.raises(StoreError) as refused:
            write(store, "too late")
        assert refused.value.code == "store.overtaken"
        write(second, "second")
    with pytest.raises(StoreError) as refused:
        write(store, "too late, though the second is gone")
    assert refused.value.code == "store.overtaken"
    assert runs(store) == ["first", "still alone", "second"]


def test_a_transaction_under_way_is_finished_before_another_takes_over(store: Store, postgres: Database) -> None:
    backend = postgres.run("SELECT pid FROM pg_locks WHERE locktype = 'advisory'")[0][0]
    opened: list[Store] = []
    second = threading.Thread(target=lambda: opened.append(open_store(postgres.url, "write")))
    with store.write() as session:
        session.add(make_run("under way"))
        session.flush()
        postgres.run(f"SELECT pg_terminate_backend({backend})")
        second.start()
        wait_for(lambda: len(postgres.run("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")) == 1)
        assert opened == []
    second.join()
    with closing(opened[0]) as other:
        assert runs(other) == ["under way"]
        with pytest.raises(StoreError) as refused:
            write(store, "late")
        assert refused.value.code == "store.overtaken"


def test_the_hold_ends_with_a_killed_process(store: Store, postgres: Database) -> None:
    store.close()

    def work() -> None:
        held = open_store(postgres.url, "write")
        with held.write() as session:
            session.add(make_run("killed"))
            session.flush()
            os._exit(KILLED)

    for _ in range(3):
        assert in_child(work) == KILLED
        with closing(open_store(postgres.url, "write")) as again:
            assert runs(again) == []


def test_two_processes_that_both_make_the_tables_come_one_after_the_other(postgres: Database) -> None:
    code = (
        "import sys\nfrom ledger.errors import StoreError\nfrom ledger.store.db import open_store\n"
        "for _ in range(40):\n"
        "    try:\n        open_store(sys.argv[1], 'create').close()\n        sys.exit(0)\n"
        "    except StoreError as error:\n        assert error.code == 'store.busy', error\n"
        "sys.exit(3)\n"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, postgres.url]) for _ in range(2)]
    assert [it.wait() for it in both] == [0, 0]
    with closing(open_store(postgres.url, "read")) as opened:
        assert find_damage(opened) == ()


def test_of_two_that_both_migrate_the_second_waits_and_finds_it_done(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without the hold of a job: what keeps them apart is the transaction's own lock.
    monkeypatch.setattr(postgresstore.PostgresDatabase, "take_over", lambda self: None)
    made: list[bool] = []
    stores: list[Store] = []
    monkeypatch.setattr("ledger.store.db.migrate", lambda store, **options: False)
    for _ in range(2):
        stores.append(open_store(postgres.url, "create"))
    threads = [threading.Thread(target=lambda it=it: made.append(migrate(it))) for it in stores]  # type: ignore[misc]
    with stores[0].write():
        for thread in threads:
            thread.start()
        wait_for(lambda: len(postgres.run("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")) == 2)
    for thread in threads:
        thread.join()
    for opened in stores:
        assert runs(opened) == []
        opened.close()
    assert sorted(made) == [False, True]


# Settings and damage


def test_what_makes_it_durable_is_on_whatever_the_role_says(postgres: Database, store: Store) -> None:
    # The tests' server runs with synchronous_commit = off.
    assert postgres.run("SHOW synchronous_commit") == [("off",)]
    with store.write() as session:
        told = {
            name: session.execute(text(f"SHOW {name}")).scalar_one()
            for name in (
                "synchronous_commit",
                "transaction_isolation",
                "idle_session_timeout",
                "lock_timeout",
                "search_path",
            )
        }
    assert told == {
        "synchronous_commit": "on",
        "transaction_isolation": "read committed",
        "idle_session_timeout": "0",
        "lock_timeout": "30s",
        "search_path": "public",
    }
    with store.read() as session:
        assert session.execute(text("SHOW transaction_isolation")).scalar_one() == "repeatable read"
        assert session.execute(text("SHOW transaction_read_only")).scalar_one() == "on"


def test_a_limit_on_idle_sessions_does_not_end_the_hold(postgres: Database, store: Store) -> None:
    store.close()
    postgres.run(f"ALTER DATABASE {postgres.name} SET idle_session_timeout = '50ms'")
    with closing(open_store(postgres.url, "write")):
        time.sleep(0.3)
        assert refusal(postgres.url, "write").code == "store.busy"


DAMAGE: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # what is done, and words of what is found
    "a constraint taken away": (("ALTER TABLE run DROP CONSTRAINT ck_run_exit_code_known",), ("run", "ck_run_exit_code_known", "gone")),
    "an index taken away": (("DROP INDEX uq_outbox_mined",), ("outbox", "uq_outbox_mined", "gone")),
    "a constraint put back unchecked": (
        (
            "ALTER TABLE run DROP CONSTRAINT ck_run_exit_code_known",
            f"INSERT INTO run (command, started_at, finished_at, exit_code) VALUES ('x', '{NOW}', '{NOW}', 7)",
            "ALTER TABLE run ADD CONSTRAINT ck_run_exit_code_known CHECK (exit_code IN (0, 1, 2)) NOT VALID",
        ),
        ("run", "ck_run_exit_code_known", "not in force"),
    ),
    "triggers switched off": (("ALTER TABLE claim DISABLE TRIGGER ALL",), ("claim", "fk_claim_batch_id", "not in force")),
    "a row without the one it refers to": (
        ("SET session_replication_role = replica", f"DELETE FROM batch WHERE id = '{make_batch().id}'"),
        ("entry_set", "(0,1)", "no such row in batch"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_by_looking_for_it(store: Store, postgres: Database, name: str) -> None:
    with store.write() as session:
        session.add(make_batch())
        session.flush()
        session.add(make_entry_set(make_batch().id))
    assert find_damage(store) == ()
    statements, words = DAMAGE[name]
    postgres.run(*statements)
    found = find_damage(store)
    assert any(all(word in flaw.en for word in words) for flaw in found), found
    assert all(re.search(r"[\u4e00-\u9fff]", flaw.zh) and not re.search(r"[\u4e00-\u9fff]", flaw.en) for flaw in found)


def test_a_full_disk_is_named(postgres18: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = postgres18.server.folder / f"small_{postgres18.name}"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m,mode=0700", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        shutil.rmtree(folder)
        pytest.skip(f"NOT TESTED: a full disk needs a small tmpfs: {mounted.stderr.strip()}")
    owner = (postgres18.server.folder / "data").stat()
    os.chown(folder, owner.st_uid, owner.st_gid)
    space = f"small_{postgres18.name}"
    try:
        postgres18.run(f"CREATE TABLESPACE {space} LOCATION '{folder}'")
        with closing(open_store(f"{postgres18.url}?options=-cdefault_tablespace%3D{space}", "create")) as opened:

            def fill() -> None:
                for number in range(1000):
                    # Noise, so that it is not stored compressed.
                    write(opened, f"{number} " + os.urandom(100_000).hex())

            with pytest.raises(StoreError) as refused:
                fill()
            assert refused.value.code == "store.disk_full"
            written = len(runs(opened))
            assert 0 < written < 100
            assert find_damage(opened) == ()
        postgres18.run("DROP SCHEMA public CASCADE")
    finally:
        postgres18.run("CHECKPOINT", f"DROP TABLESPACE IF EXISTS {space}")
        subprocess.run(["umount", str(folder)], check=True)


def test_a_store_on_sqlite_loads_no_driver(tmp_path: Path) -> None:
    code = f"import sys; from ledger.store.db import open_store; open_store('sqlite:///{tmp_path}/l.db', 'create').close(); print([m for m in sys.modules if m.startswith('psycopg')])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_a_busy_lock_names_its_limit(store: Store, postgres: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_SECONDS", 0.2)
    started = time.monotonic()
    with closing(open_store(postgres.url, "update")) as second, store.write():
        with pytest.raises(StoreError) as refused, second.write():
            pass
        assert refused.value.code == "store.locked"
    assert 0.2 <= time.monotonic() - started < 5
