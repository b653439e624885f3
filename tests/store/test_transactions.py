"""What the store promises, on every database it runs on: versions, transactions, one writer, one state for a reader."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from alembic import op
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import CheckConstraint, Connection, UniqueConstraint, create_engine, insert, select, text
from sqlalchemy import inspect as inspect_database

from ledger.errors import InputError, StoreError
from ledger.store import database, db
from ledger.store.database import Mode
from ledger.store.db import (
    Store,
    check_version,
    copy_rows,
    find_damage,
    is_empty,
    migrate,
    open_store,
    same_rows,
)
from ledger.store.migrations import upgrade
from ledger.store.models import Base, Run
from tests.store.conftest import KILLED, Place, in_child
from tests.store.rows import NOW, make_batch, make_claim, make_entry_set, make_run, make_transaction

MODES: tuple[Mode, ...] = ("create", "write", "update", "read")


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    opened = open_store(place.url, "create")
    yield opened
    opened.close()


def runs(store: Store) -> list[str]:
    with store.read() as session:
        return list(session.scalars(select(Run.command).order_by(Run.id)))


# Opening


def test_what_is_written_is_there_in_every_mode(place: Place, store: Store) -> None:
    with store.write() as session:
        session.add(make_run("anchor"))
    store.close()
    for mode in MODES:
        with closing(open_store(place.url, mode)) as again:
            assert runs(again) == ["anchor"]
            if mode != "read":
                with again.write() as session:
                    session.get_one(Run, 1).outcome = mode
    with closing(open_store(place.url, "read")) as again, again.read() as session:
        assert session.get_one(Run, 1).outcome == "update"


@pytest.mark.parametrize("mode", ["write", "update", "read"])
def test_a_store_that_is_not_there_is_never_made_by_accident(place: Place, mode: Mode) -> None:
    with pytest.raises(StoreError) as refused:
        open_store(place.url, mode)
    assert refused.value.code == "store.missing"
    assert "duizhang init" in refused.value.zh
    with pytest.raises(StoreError) as refused:
        open_store(place.url, mode)
    assert refused.value.code == "store.missing"


# Versions


def test_migrating_twice_changes_nothing(store: Store) -> None:
    assert migrate(store) is False
    check_version(store)


def test_models_and_migrations_build_the_same_tables(place: Place, store: Store) -> None:
    with store.read() as session:
        connection = session.connection()
        options = {"compare_type": True, "compare_server_default": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata) == []
        migrated = rules(connection)
    assert sum(kind == "check" for _, kind, _, _ in migrated) > 60
    modelled = {
        (table.name, "check", str(rule.name))
        for table in Base.metadata.sorted_tables
        for rule in table.constraints
        if isinstance(rule, CheckConstraint)
    } | {
        (table.name, "unique", str(rule.name))
        for table in Base.metadata.sorted_tables
        for rule in table.constraints
        if isinstance(rule, UniqueConstraint)
    }
    assert {(table, kind, name) for table, kind, name, _ in migrated if kind in ("check", "unique")} == modelled
    if place.database is None:
        return  # test_db.py compares SQLite's statements
    # Names may agree where conditions do not: what the server makes of both is compared, word by word.
    place.sql("CREATE SCHEMA modelled")
    engine = create_engine(place.url, connect_args={"options": "-csearch_path=modelled"})
    with engine.begin() as connection:
        Base.metadata.create_all(connection)
        assert definitions(connection) == {
            (table, name): told for (table, name), told in definitions_of(place, "public").items()
        }
    engine.dispose()


def rules(connection: Connection) -> set[tuple[str, str, str, str]]:
    """Table, kind, name and condition of the constraints that the database reports."""
    told = inspect_database(connection)
    found: set[tuple[str, str, str, str]] = set()
    for table in told.get_table_names():
        if table != "alembic_version":
            found |= {(table, "check", str(it["name"]), it["sqltext"]) for it in told.get_check_constraints(table)}
            found |= {(table, "unique", str(it["name"]), "") for it in told.get_unique_constraints(table)}
    return found


def definitions(connection: Connection) -> dict[tuple[str, str], str]:
    """PostgreSQL's own words for every constraint, index and column of the schema, but for the schema's name."""
    found = {
        (str(table).rpartition(".")[2], str(name)): str(told)
        for table, name, told in connection.execute(
            text(
                "SELECT c.conrelid::regclass::text, c.conname, pg_get_constraintdef(c.oid) FROM pg_constraint c "
                "WHERE c.connamespace = current_schema()::regnamespace UNION ALL "
                "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema() UNION ALL "
                "SELECT table_name, column_name, concat_ws(' ', data_type, is_nullable, column_default) "
                "FROM information_schema.columns WHERE table_schema = current_schema()"
            )
        )
    }
    schema = connection.exec_driver_sql("SELECT current_schema()").scalar_one()
    return {key: told.replace(f"{schema}.", "") for key, told in found.items() if key[0] != "alembic_version"}


def definitions_of(place: Place, schema: str) -> dict[tuple[str, str], str]:
    engine = create_engine(place.url, connect_args={"options": f"-csearch_path={schema}"})
    with engine.connect() as connection:
        found = definitions(connection)
    engine.dispose()
    return found


def test_a_store_of_a_newer_version_is_refused_by_name(place: Place, store: Store) -> None:
    store.close()
    place.sql("UPDATE alembic_version SET version_num = '9999'")
    for mode in MODES:
        with pytest.raises(StoreError, match="9999") as refused:
            open_store(place.url, mode)
        assert refused.value.code == "store.newer"
        assert "9999" in refused.value.zh


def test_an_older_store_is_migrated_for_a_job_and_refused_for_anything_else(
    place: Place, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.close()
    older = db.REVISIONS[-1]
    monkeypatch.setattr(db, "REVISIONS", (*db.REVISIONS, "0999"))
    modes: tuple[Mode, ...] = ("read", "update")
    for mode in modes:
        with pytest.raises(StoreError) as refused:
            open_store(place.url, mode)
        assert refused.value.code == "store.older"
        assert older in refused.value.en

    def to_next(connection: Connection) -> None:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0999'")

    monkeypatch.setattr(upgrade, "upgrade", to_next)
    open_store(place.url, "write").close()
    for mode in modes:
        open_store(place.url, mode).close()


def test_a_store_of_the_first_version_is_migrated_with_its_rows(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def to_first(connection: Connection) -> None:
        settings = upgrade.config()
        settings.attributes["connection"] = connection
        upgrade.command.upgrade(settings, "0001")

    with monkeypatch.context() as old:
        old.setattr(upgrade, "upgrade", to_first)
        old.setattr(db, "REVISIONS", ("0001",))
        with closing(open_store(place.url, "create")) as opened, opened.write() as session:
            session.add(make_run("anchor"))
    with pytest.raises(StoreError) as refused:
        open_store(place.url, "update")
    assert refused.value.code == "store.older"
    with closing(open_store(place.url, "write")) as opened:
        assert runs(opened) == ["anchor"]
        assert find_damage(opened) == ()


def test_a_migration_that_fails_half_way_leaves_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
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
            open_store(place.url, "create")
    assert len(made) == 5
    engine = create_engine(place.url)
    assert inspect_database(engine).get_table_names() == []
    engine.dispose()
    with closing(open_store(place.url, "create")) as opened:
        assert runs(opened) == []


@pytest.mark.parametrize("also", ["alembic_version", "entry_set"])
@pytest.mark.parametrize("mode", MODES)
def test_another_programs_database_is_refused_and_left_alone(place: Place, mode: Mode, also: str) -> None:
    # As when [store] url names the city's own database.
    place.sql("CREATE TABLE enterprise (uscc TEXT)", f"CREATE TABLE {also} (version_num TEXT)")
    with pytest.raises(StoreError, match="another program's") as refused:
        open_store(place.url, mode)
    assert refused.value.code == "store.foreign"
    engine = create_engine(place.url)
    assert sorted(inspect_database(engine).get_table_names()) == sorted(["enterprise", also])
    assert inspect_database(engine).get_sequence_names() == [] if place.database else True
    engine.dispose()


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


@pytest.mark.parametrize("mode", ["update", "read"])
def test_nothing_can_be_written_in_a_read(place: Place, store: Store, mode: Mode) -> None:
    with closing(open_store(place.url, mode)) as opened:
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


def test_a_reader_sees_one_state_and_is_not_held_up(place: Place, store: Store) -> None:
    with closing(open_store(place.url, "read")) as reader:
        with reader.read() as session:
            assert session.scalars(select(Run)).all() == []
            with store.write() as writing:
                writing.add(make_run("anchor"))
            assert session.scalars(select(Run)).all() == []
        assert runs(reader) == ["anchor"]


def test_a_writer_is_not_held_up_by_a_reader_nor_seen_before_it_commits(place: Place, store: Store) -> None:
    with closing(open_store(place.url, "read")) as reader, store.write() as writing:
        writing.add(make_run("anchor"))
        writing.flush()
        assert runs(reader) == []


def test_a_second_writer_waits_and_is_then_refused(place: Place, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_SECONDS", 0.01)
    with closing(open_store(place.url, "update")) as second:
        with store.write() as session:
            session.add(make_run("nightly"))
            session.flush()
            with pytest.raises(StoreError) as refused, second.write():
                pass
        assert refused.value.code == "store.locked"
        with second.write() as session:
            session.add(make_run("serve"))
    assert runs(store) == ["nightly", "serve"]


def test_two_writers_at_once_come_one_after_the_other_and_each_sees_the_latest(place: Place, store: Store) -> None:
    with store.write() as session:
        session.add(make_run("0"))
    failed: list[BaseException] = []

    def count(opened: Store) -> None:
        # Reads the number and writes the next: with both inside at once some would be lost.
        try:
            for _ in range(20):
                with opened.write() as session:
                    run = session.get_one(Run, 1)
                    run.command = str(int(run.command) + 1)
        except BaseException as error:
            failed.append(error)
            raise

    with closing(open_store(place.url, "update")) as second:
        threads = [threading.Thread(target=count, args=(opened,)) for opened in (store, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []
    assert runs(store) == ["40"]


@pytest.mark.parametrize("committed", [False, True])
def test_a_killed_process_leaves_its_transaction_whole_or_not_at_all(
    place: Place, store: Store, committed: bool
) -> None:
    def work() -> None:
        opened = open_store(place.url, "write")
        with opened.write() as session:
            session.add_all([make_run("1"), make_run("2")])
            session.flush()
            if not committed:
                os._exit(KILLED)
        os._exit(KILLED)

    store.close()
    assert in_child(work) == KILLED
    with closing(open_store(place.url, "write")) as again:
        assert runs(again) == (["1", "2"] if committed else [])
        assert find_damage(again) == ()
        with again.write() as session:
            session.add(make_run("3"))


def test_no_error_shows_a_statement_or_its_values(store: Store) -> None:
    secret = "粤A12345"
    with pytest.raises(StoreError) as refused, store.write() as session:
        session.execute(text("INSERT INTO nowhere VALUES (:secret)"), {"secret": secret})
    assert refused.value.code == "store.sql"
    errors = [refused.value]
    with pytest.raises(StoreError) as refused, store.write() as session:
        session.add(make_run(secret, exit_code=7))
    assert refused.value.code == "store.conflict"
    errors.append(refused.value)
    with store.write() as session:
        session.add(make_batch(secret))
    with pytest.raises(StoreError) as refused, store.write() as session:
        session.add(make_batch(secret, descriptor="other"))
    assert refused.value.code == "store.conflict"
    for error in [*errors, refused.value]:
        assert secret not in error.en + error.zh + str(error)
        assert re.search(r"[\u4e00-\u9fff]", error.zh)
        assert not re.search(r"[\u4e00-\u9fff]", error.en)
        assert error.where == store.where


# Copying


def test_rows_are_copied_with_their_numbers_and_new_ones_come_after(place: Place, store: Store) -> None:
    assert is_empty(store)
    with closing(open_store(f"sqlite:///{place.folder / 'from.db'}", "create")) as source:
        with source.write() as session:
            batch = make_batch()
            session.add(batch)
            session.flush()
            session.add_all([make_entry_set(batch.id, id=5, published=True), make_transaction(id=7), make_run(id=9)])
            session.flush()
            session.add(make_claim(batch.id, 5, id=3, transaction_id=7))
        assert not same_rows(source, store)
        copy_rows(source, store)
        assert same_rows(source, store)
        assert not is_empty(store)
        with store.write() as session:
            session.add(make_run("next"))
        with store.read() as session:
            assert session.scalars(select(Run.id).order_by(Run.id)).all() == [9, 10]
        assert not same_rows(source, store)


def test_a_copy_that_fails_leaves_nothing(place: Place, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(open_store(f"sqlite:///{place.folder / 'from.db'}", "create")) as source:
        with source.write() as session:
            session.add(make_batch())
            session.add(make_run())
        with store.write() as session:
            session.add(make_run("in the way"))  # takes number 1
        with pytest.raises(StoreError) as refused:
            copy_rows(source, store)
    assert refused.value.code == "store.conflict"
    assert runs(store) == ["in the way"]
    with store.write() as session:
        session.execute(text("DELETE FROM run"))
    assert is_empty(store)
