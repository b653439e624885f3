"""`init --store` on PostgreSQL: whatever fails, the folder and the database hold a whole workspace or nothing of one."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger import setup
from ledger.chain.local import LocalChain
from ledger.chain.node import nodes_of
from ledger.cli import main
from ledger.errors import StoreError
from ledger.store.db import Store, copy_rows
from tests.conftest import Party
from tests.databases import PASSWORD, Database
from tests.store.conftest import KILLED, in_child


def init(folder: Path, *words: str) -> tuple[int, Any]:
    """Exit code and JSON."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        code = main(["init", str(folder), *words, "--json"])
    return code, json.loads(out.getvalue())


def tables(database: Database) -> int:
    return int(database.run("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")[0][0])


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "province"
    for home in (tmp_path / "province" / "chain", tmp_path / "province" / ".duizhang-init" / "chain"):
        if home.is_dir():
            LocalChain(home).down()


def test_a_failure_leaves_nothing_in_the_folder_or_the_database(folder: Path, postgres18: Database) -> None:
    name = f"clerk_{postgres18.name}"
    postgres18.run(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    words = ("--party", "guangdong", "--store", postgres18.url_as(name))
    # The database can be read, so that everything up to the last step is done.
    code, told = init(folder, *words)
    assert (code, told["error"]["code"]) == (2, "store.rights")
    assert list(folder.iterdir()) == []
    assert tables(postgres18) == 0
    assert nodes_of(folder / ".duizhang-init" / "chain") == []
    postgres18.run(f"GRANT USAGE, CREATE ON SCHEMA public TO {name}")
    assert init(folder, *words)[0] == 0
    assert Party(folder).ok("fsck")["verdict"] == "clean"
    LocalChain(folder / "chain").down()
    postgres18.run(f"DROP OWNED BY {name} CASCADE", f"DROP ROLE {name}")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("CREATE TABLE enterprise (uscc text)", "store.foreign"),
        ("CREATE TABLE alembic_version (version_num text); CREATE TABLE entry_set ()", "store.newer"),
    ],
)
def test_a_database_that_cannot_be_used_is_refused_before_anything_is_made(
    folder: Path, postgres18: Database, change: str, code: str
) -> None:
    postgres18.run(*change.split("; "))
    before = tables(postgres18)
    exit_code, told = init(folder, "--store", postgres18.url)
    assert (exit_code, told["error"]["code"]) == (2, code)
    assert not folder.exists()
    assert tables(postgres18) == before


def test_a_server_out_of_reach_is_refused_before_anything_is_made(folder: Path) -> None:
    code, told = init(folder, "--store", "postgresql://clerk@127.0.0.1:1/ledger")
    assert (code, told["error"]["code"]) == (2, "store.unreachable")
    assert not folder.exists()


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_init_killed_around_the_copy_is_taken_up_again(folder: Path, postgres18: Database, when: str) -> None:
    words = ("--party", "guangdong", "--store", postgres18.url)

    def killed() -> None:
        def copy(source: Store, target: Store) -> None:
            if when == "after":
                copy_rows(source, target)
            os._exit(KILLED)

        setup.copy_rows = copy  # type: ignore[attr-defined]  # in the child only
        init(folder, *words)

    assert in_child(killed) == KILLED
    assert [path.name for path in folder.iterdir()] == [".duizhang-init"]
    rows = postgres18.run("SELECT contract FROM chain")
    code, told = init(folder, *words)
    assert code == 0, told
    if when == "after":
        assert rows == [(told["contract"],)]
    assert not (folder / ".duizhang-init").exists()
    assert not (folder / "store").exists()
    assert Party(folder).ok("fsck")["verdict"] == "clean"


@pytest.mark.parametrize("written", [False, True])
def test_an_unknown_outcome_of_the_copy_is_looked_up(
    folder: Path, postgres18: Database, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    words = ("--party", "guangdong", "--store", postgres18.url)

    def copy(source: Store, target: Store) -> None:
        if written:
            copy_rows(source, target)
        raise StoreError("store.commit_unknown", "未知", "unknown", target.where)

    with monkeypatch.context() as lost:
        lost.setattr(setup, "copy_rows", copy)
        code, told = init(folder, *words)
    assert (code, told["error"]["code"]) == (2, "store.commit_unknown")
    code, told = init(folder, *words)
    assert code == 0, told
    assert postgres18.run("SELECT contract FROM chain") == [(told["contract"],)]
    assert Party(folder).ok("fsck")["verdict"] == "clean"


@pytest.mark.parametrize("step", ["before the copy", "after the copy", "while moving into place"])
def test_a_join_that_is_killed_is_taken_up_again(
    folder: Path, postgres18: Database, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert init(folder, "--party", "guangdong")[0] == 0
    province = Party(folder)
    file, city = folder.parent / "join", Party(folder.parent / "city")
    province.ok("party", "add", "guangzhou", "--out", str(file))
    words = ("--join", str(file), "--store", postgres18.url)

    def killed() -> None:
        def copy(source: Store, target: Store) -> None:
            if step != "before the copy":
                copy_rows(source, target)
            if step != "while moving into place":
                os._exit(KILLED)

        real, moved = os.replace, []

        def replace(here: Any, there: Any) -> None:
            real(here, there)
            moved.append(there)
            if str(there).startswith(f"{city.home}/") and "/.duizhang-init" not in str(there):
                os._exit(KILLED)

        setup.copy_rows = copy  # type: ignore[attr-defined]
        os.replace = replace
        init(city.home, *words)

    assert in_child(killed) == KILLED
    code, told = init(city.home, *words)
    assert code == 0, told
    assert not (city.home / ".duizhang-init").exists()
    assert city.ok("fsck")["verdict"] == "clean"
    assert province.ok("fsck")["verdict"] == "clean"


def test_a_name_that_moved_is_not_lost_when_the_store_is_refused(folder: Path, postgres18: Database) -> None:
    assert init(folder, "--party", "guangdong")[0] == 0
    file, city = folder.parent / "join", Party(folder.parent / "city")
    Party(folder).ok("party", "add", "guangzhou", "--out", str(file))
    name = f"clerk_{postgres18.name}"
    postgres18.run(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    words = ("--join", str(file), "--store", postgres18.url_as(name))
    assert init(city.home, *words)[1]["error"]["code"] == "store.rights"
    postgres18.run(f"GRANT USAGE, CREATE ON SCHEMA public TO {name}")
    assert init(city.home, *words)[0] == 0
    assert city.ok("fsck")["verdict"] == "clean"
    postgres18.run(f"DROP OWNED BY {name} CASCADE", f"DROP ROLE {name}")
