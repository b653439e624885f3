from __future__ import annotations

import os
import re
import sqlite3
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, select, text

from ledger.errors import InputError, LedgerError, NotBuiltError, StoreError
from ledger.store import db
from ledger.store.db import Store, find_damage, open_store
from ledger.store.migrations import upgrade
from ledger.store.models import Base, Run, utc_text
from tests.store.conftest import as_nobody
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
    assert runs(store) == ["anchor"]


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


@pytest.mark.parametrize("mode", ["write", "update", "read"])
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


@pytest.mark.parametrize("other", ["mysql+pymysql://clerk:secret@host/db", "oracle://host"])
def test_other_databases_are_refused_as_not_built(other: str) -> None:
    with pytest.raises(NotBuiltError) as refused:
        open_store(other, "write")
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
        open_store(wrong, "create")
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
    return {name: sorted(definitions(sql)) for name, sql in found}


def definitions(sql: str) -> list[str]:
    """The columns and constraints between the outer parentheses; a column that was added later stands at the end."""
    head, _, body = sql.partition("(")
    parts, depth, start = [], 0, 0
    for at, char in enumerate(body):
        depth += {"(": 1, ")": -1}.get(char, 0)
        if (char == "," and depth == 0) or depth < 0:
            parts.append(" ".join(body[start:at].split()))
            start = at + 1
            if depth < 0:
                break
    return [" ".join(head.split()), *parts, " ".join(body[start:].split())]


def test_the_versions_known_are_those_of_the_migrations() -> None:
    assert upgrade.revisions() == db.REVISIONS


def test_an_empty_file_is_an_older_store(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").touch()
    with pytest.raises(StoreError) as refused:
        open_store(url(tmp_path), "read")
    assert refused.value.code == "store.older"
    opened = open_store(url(tmp_path), "write")
    assert runs(opened) == []
    opened.close()


@pytest.mark.parametrize("also", ["alembic_version", "entry_set"])
@pytest.mark.parametrize("mode", ["create", "write", "update", "read"])
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


# Transactions


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
    # Two pages that hold rows, not ones that are free.
    page = data.index(b"x" * 2_000) // 4096 * 4096
    data[page : page + 8192] = b"\xff" * 8192
    path.write_bytes(data)
    with pytest.raises(StoreError) as refused:
        runs(store)
    assert refused.value.code == "store.damaged"
    assert str(path) in refused.value.zh


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"x" * 5_000)
    for mode in ("create", "write", "update", "read"):
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
    assert any("consent" in flaw.en and "batch" in flaw.en for flaw in found)
    assert any("CHECK" in flaw.en and "run" in flaw.en for flaw in found)


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
