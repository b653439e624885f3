from __future__ import annotations

import os
import re
import sqlite3
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic import op
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, insert, select, text

from ledger.errors import InputError, LedgerError, NotBuiltError, StoreError
from ledger.store import db
from ledger.store.db import Store, check_version, find_damage, migrate, open_store, store_path
from ledger.store.migrations import upgrade
from ledger.store.models import Base, Run, utc_text
from tests.store.conftest import KILLED, as_nobody, in_child
from tests.store.rows import NOW, make_run


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'ledger.db'}"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(url(tmp_path), "create")
    yield opened
    opened.close()


def runs(store: Store) -> list[str]:
    with store.read() as session:
        return list(session.scalars(select(Run.command).order_by(Run.id)))


# Opening


def test_a_new_store_is_private_and_holds_what_is_written(tmp_path: Path, store: Store) -> None:
    with store.write() as session:
        session.add(make_run("anchor"))
    for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    store.close()
    for mode in ("write", "read", "create"):
        again = open_store(url(tmp_path), mode)
        assert runs(again) == ["anchor"]
        again.close()


def test_the_settings_that_make_it_durable_are_on(store: Store) -> None:
    with store.write() as session:
        values = {
            name: session.connection().exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "trusted_schema")
        }
    assert values == {
        "journal_mode": "wal",
        "synchronous": 2,  # FULL
        "foreign_keys": 1,
        "busy_timeout": 30_000,
        "trusted_schema": 0,
    }


@pytest.mark.parametrize("name", ["台账 库", "per%20cent", "a#b", "a;b&c=d"])
def test_unusual_folder_names_work(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    opened = open_store(url(tmp_path / name), "create")
    opened.close()
    assert os.listdir(tmp_path / name) == ["ledger.db"]


@pytest.mark.parametrize("mode", ["write", "read"])
def test_a_store_that_is_not_there_is_never_made_by_accident(tmp_path: Path, mode: db.Mode) -> None:
    with pytest.raises(StoreError) as refused:
        open_store(url(tmp_path), mode)
    assert refused.value.code == "store.missing"
    assert os.listdir(tmp_path) == []


def test_a_store_that_vanishes_while_open_is_not_made_anew(tmp_path: Path, store: Store) -> None:
    store.close()
    (tmp_path / "ledger.db").unlink()
    with pytest.raises(StoreError) as refused, store.read():
        pass
    assert refused.value.code == "store.permission"  # SQLite's word: cannot be opened
    assert os.listdir(tmp_path) == []


def test_the_folder_of_a_new_store_is_made_but_not_a_whole_path(tmp_path: Path) -> None:
    open_store(url(tmp_path / "store"), "create").close()
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700
    with pytest.raises(StoreError) as refused:
        open_store(url(tmp_path / "wrong" / "store"), "create")
    assert refused.value.code == "store.missing"


@pytest.mark.parametrize("other", ["postgresql://clerk:secret@host/db", "mysql+pymysql://host/db", "oracle://host"])
def test_other_databases_are_refused_as_not_built(other: str) -> None:
    with pytest.raises(NotBuiltError) as refused:
        store_path(other)
    assert re.split(r"[:+]", other, maxsplit=1)[0] in refused.value.en
    assert "secret" not in refused.value.en + refused.value.zh


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "ledger.db",
        "sqlite://",
        "sqlite:///",
        "sqlite:///relative.db",
        "sqlite:///:memory:",
        "sqlite:////tmp/l.db?mode=ro",
        "sqlite:///file:/tmp/l.db?uri=true",
        "sqlite+aiosqlite:////tmp/l.db",
        "sqlite://host/tmp/l.db",
        "sqlite://u:secret@:x/l.db",
        "postgresql://u:secret@host:x/l",
    ],
)
def test_a_url_that_names_no_file_is_refused(wrong: str) -> None:
    with pytest.raises(InputError) as refused:
        store_path(wrong)
    assert refused.value.code == "store.url"
    assert "secret" not in refused.value.en + refused.value.zh


# Versions


def test_models_and_migrations_build_the_same_tables(store: Store) -> None:
    with store.read() as session:
        connection = session.connection()
        differences = compare_metadata(MigrationContext.configure(connection), Base.metadata)
        migrated = statements(connection)
    assert differences == []
    # Alembic's comparison is blind to CHECK constraints, so the statements themselves are compared as well.
    modelled_engine = create_engine("sqlite://")
    with modelled_engine.begin() as connection:
        Base.metadata.create_all(connection)
        assert migrated == statements(connection)
    modelled_engine.dispose()
    assert sum("CHECK" in part for parts in migrated.values() for part in parts) > 60


def statements(connection: object) -> dict[str, list[str]]:
    """Each table's and index's definition, its parts sorted: their order means nothing."""
    found = connection.execute(  # type: ignore[attr-defined]
        text("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name <> 'alembic_version'")
    )
    return {name: sorted(part.strip().rstrip(",") for part in re.split(r"\n", sql)) for name, sql in found}


def test_the_versions_known_are_those_of_the_migrations() -> None:
    assert upgrade.revisions() == db.REVISIONS


def test_migrating_twice_changes_nothing(store: Store) -> None:
    assert migrate(store) is False
    check_version(store)


def test_a_store_of_a_newer_version_is_refused_by_name(tmp_path: Path, store: Store) -> None:
    with store.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    store.close()
    for mode in ("create", "write", "read"):
        with pytest.raises(StoreError, match="9999") as refused:
            open_store(url(tmp_path), mode)
        assert refused.value.code == "store.newer"
        assert "9999" in refused.value.zh


def test_an_older_store_is_migrated_for_writing_and_refused_for_reading(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.close()
    monkeypatch.setattr(db, "REVISIONS", ("0001", "0002"))
    with pytest.raises(StoreError) as refused:
        open_store(url(tmp_path), "read")
    assert refused.value.code == "store.older"
    assert "0001" in refused.value.en

    def to_second(connection: object) -> None:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0002'")  # type: ignore[attr-defined]

    monkeypatch.setattr(upgrade, "upgrade", to_second)
    open_store(url(tmp_path), "write").close()
    open_store(url(tmp_path), "read").close()


def test_an_empty_file_is_an_older_store(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").touch()
    with pytest.raises(StoreError) as refused:
        open_store(url(tmp_path), "read")
    assert refused.value.code == "store.older"
    opened = open_store(url(tmp_path), "write")
    assert runs(opened) == []
    opened.close()


@pytest.mark.parametrize("also", ["alembic_version", "entry_set"])
@pytest.mark.parametrize("mode", ["create", "write", "read"])
def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path, mode: db.Mode, also: str) -> None:
    # As when [store] url names the city's own database.
    path = tmp_path / "ledger.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE enterprise (uscc TEXT)")
        connection.execute(f"CREATE TABLE {also} (version_num TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError) as refused:
        open_store(url(tmp_path), mode)
    assert refused.value.code == "store.foreign"
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["ledger.db"]


def test_a_migration_that_fails_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = op.create_table
    made: list[str] = []

    def create_table(name: str, *rest: object, **options: object) -> object:
        if len(made) == 5:
            raise ZeroDivisionError
        made.append(name)
        return real(name, *rest, **options)

    with monkeypatch.context() as broken:
        broken.setattr(op, "create_table", create_table)
        with pytest.raises(ZeroDivisionError):
            open_store(url(tmp_path), "create")
    assert len(made) == 5
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    connection.close()
    opened = open_store(url(tmp_path), "create")
    assert runs(opened) == []
    opened.close()


# Transactions


def test_an_exception_inside_leaves_nothing(store: Store) -> None:
    def work() -> None:
        with store.write() as session:
            session.add(make_run("anchor"))
            session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert runs(store) == []


def test_an_error_of_ours_inside_comes_out_as_it_is(store: Store) -> None:
    with pytest.raises(InputError, match="theirs"), store.write():
        raise InputError("x", "x", "theirs")


def test_what_was_loaded_stays_usable_after_the_block(store: Store) -> None:
    with store.write() as session:
        session.add(make_run("anchor"))
    with store.read() as session:
        run = session.scalars(select(Run)).one()
    assert run.command == "anchor"
    with store.write() as session:
        run = session.scalars(select(Run)).one()
        run.outcome = "{}"
    assert (run.command, run.outcome) == ("anchor", "{}")


@pytest.mark.parametrize("mode", ["write", "read"])
def test_nothing_can_be_written_in_a_read(tmp_path: Path, store: Store, mode: db.Mode) -> None:
    opened = open_store(url(tmp_path), mode)
    with pytest.raises(StoreError) as refused, opened.read() as session:
        session.execute(insert(Run).values(command="anchor", started_at=NOW))
    assert refused.value.code == "store.read_only"
    if mode == "read":
        with pytest.raises(StoreError) as refused, opened.write() as session:
            session.add(make_run("anchor"))
        assert refused.value.code == "store.read_only"
    else:
        with opened.write() as session:
            session.add(make_run("receive"))
    assert runs(store) == ([] if mode == "read" else ["receive"])
    opened.close()


def test_a_reader_sees_one_state_and_is_not_held_up(tmp_path: Path, store: Store) -> None:
    reader = open_store(url(tmp_path), "read")
    with reader.read() as session:
        assert session.scalars(select(Run)).all() == []
        with store.write() as writing:
            writing.add(make_run("anchor"))
        assert session.scalars(select(Run)).all() == []
    assert runs(reader) == ["anchor"]
    reader.close()


def test_a_second_writer_waits_and_is_then_refused(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "BUSY_TIMEOUT_SECONDS", 0.01)
    second = open_store(url(tmp_path), "write")
    with store.write() as session:
        session.add(make_run("nightly"))
        session.flush()
        with pytest.raises(StoreError) as refused, second.write():
            pass
    assert refused.value.code == "store.locked"
    assert runs(store) == ["nightly"]
    second.close()


@pytest.mark.parametrize("applied", [False, True])
def test_a_commit_that_fails_is_an_error_whether_it_took_effect_or_not(
    store: Store, monkeypatch: pytest.MonkeyPatch, applied: bool
) -> None:
    real = store.engine.dialect.do_commit

    def commit(connection: object) -> None:
        if applied:
            real(connection)  # type: ignore[arg-type]
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise error

    with monkeypatch.context() as failing:
        failing.setattr(store.engine.dialect, "do_commit", commit)
        with pytest.raises(StoreError) as refused, store.write() as session:
            session.add(make_run("anchor"))
    assert refused.value.code == "store.io"
    assert runs(store) == (["anchor"] if applied else [])
    with store.write() as session:
        session.add(make_run("again"))
    assert runs(store)[-1] == "again"


@pytest.mark.parametrize("committed", [False, True])
def test_a_killed_process_leaves_its_transaction_whole_or_not_at_all(
    tmp_path: Path, store: Store, committed: bool
) -> None:
    def work() -> None:
        opened = open_store(url(tmp_path), "write")
        with opened.write() as session:
            session.add_all([make_run("1"), make_run("2")])
            session.flush()
            if not committed:
                os._exit(KILLED)
        os._exit(KILLED)

    store.close()
    assert in_child(work) == KILLED
    assert runs(store) == (["1", "2"] if committed else [])
    assert find_damage(store) == ()


# Damage and refusal by the system


def test_a_full_disk_is_named_and_the_store_survives(small_disk: Path) -> None:
    opened = open_store(url(small_disk), "create")

    def fill() -> None:
        for _ in range(100):
            with opened.write() as session:
                session.add(make_run("x" * 100_000))

    with pytest.raises(StoreError) as refused:
        fill()
    assert refused.value.code == "store.disk_full"
    assert str(small_disk) in refused.value.zh
    written = runs(opened)
    assert 0 < len(written) < 20
    assert find_damage(opened) == ()
    opened.close()
    again = open_store(url(small_disk), "read")
    assert runs(again) == written
    again.close()


def test_a_store_does_not_fit_on_a_full_disk(small_disk: Path) -> None:
    with pytest.raises(OSError, match="space"):
        (small_disk / "filler").write_bytes(bytes(2_000_000))
    with pytest.raises(StoreError) as refused:
        open_store(url(small_disk), "create")
    assert refused.value.code == "store.disk_full"


def test_a_damaged_store_is_named(tmp_path: Path, store: Store) -> None:
    with store.write() as session:
        session.add_all([make_run("x" * 3_000) for _ in range(50)])
    store.close()
    path = tmp_path / "ledger.db"
    data = bytearray(path.read_bytes())
    middle = len(data) // 8192 * 4096
    data[middle : middle + 8192] = b"\xff" * 8192
    path.write_bytes(data)
    with pytest.raises(StoreError) as refused:
        runs(store)
    assert refused.value.code == "store.damaged"
    assert str(path) in refused.value.zh


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"x" * 5_000)
    for mode in ("create", "write", "read"):
        with pytest.raises(StoreError) as refused:
            open_store(url(tmp_path), mode)
        assert refused.value.code == "store.damaged"


def test_damage_is_found_by_looking_for_it(tmp_path: Path, store: Store) -> None:
    assert find_damage(store) == ()
    store.close()
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute(
            "INSERT INTO consent (batch_id, key_tag, action, reason, approved_by, created_at) "
            f"VALUES ('{'00' * 32}', '{'00' * 16}', 'accept', 'r', 'b', '{NOW}')"
        )
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("INSERT INTO run (command, started_at, exit_code) VALUES ('x', 'yesterday', 7)")
    connection.close()
    found = find_damage(store)
    assert any("consent" in line and "batch" in line for line in found)
    assert any("CHECK" in line and "run" in line for line in found)


def test_a_store_in_a_folder_without_permission_is_named(open_folder: Path) -> None:
    open_store(url(open_folder), "create").close()
    codes = set()
    for mode in ("write", "read"):
        with as_nobody(), pytest.raises(StoreError) as refused:
            open_store(url(open_folder), mode)
        codes.add(refused.value.code)
        assert str(open_folder) in refused.value.zh
    open_folder.chmod(0o700)
    with as_nobody(), pytest.raises(StoreError) as refused:
        open_store(url(open_folder), "write")
    codes.add(refused.value.code)
    assert codes == {"store.permission"}


def test_a_store_in_a_folder_that_may_not_be_written_is_named(open_folder: Path) -> None:
    open_store(url(open_folder), "create").close()
    (open_folder / "ledger.db").chmod(0o644)
    codes = []
    for mode in ("write", "read"):
        with as_nobody(), pytest.raises(StoreError) as refused:
            open_store(url(open_folder), mode)
        codes.append(refused.value.code)
        assert "owner and mode of the file and its folder" in refused.value.en
    # Reading, too: it needs the -shm file beside the database.
    assert codes == ["store.read_only", "store.read_only"]


def test_no_error_shows_a_statement_or_its_values(store: Store) -> None:
    with pytest.raises(StoreError) as refused, store.write() as session:
        session.execute(text("INSERT INTO nowhere VALUES (:secret)"), {"secret": "粤A12345"})
    assert refused.value.code == "store.sql"
    assert "粤A12345" not in refused.value.en + refused.value.zh
    with pytest.raises(StoreError) as refused, store.write() as session:
        session.add(make_run("粤A12345", exit_code=7))
    assert refused.value.code == "store.conflict"
    assert "粤A12345" not in refused.value.en + refused.value.zh


def test_every_error_speaks_both_languages_and_says_where(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"x" * 5_000)
    with pytest.raises(LedgerError) as refused:
        open_store(url(tmp_path), "read")
    assert refused.value.where == str(tmp_path / "ledger.db")
    assert re.search(r"[\u4e00-\u9fff]", refused.value.zh)
    assert not re.search(r"[\u4e00-\u9fff]", refused.value.en)


# Times


def test_times_are_utc_text_to_the_second() -> None:
    moment = datetime(2026, 1, 31, 3, 4, 5, 678, tzinfo=timezone(timedelta(hours=8)))
    assert utc_text(moment) == "2026-01-30T19:04:05Z"
    assert utc_text(datetime(9999, 1, 1, tzinfo=UTC)) == "9999-01-01T00:00:00Z"
    with pytest.raises(ValueError, match="zone"):
        utc_text(datetime(2026, 1, 31))
