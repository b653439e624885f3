"""The demonstration end to end, and that it fails when the product does.

Key stretching has its own test; at full strength it would be most of the time here.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from ledger import proof
from ledger.chain import node
from ledger.chain.account import create_account
from ledger.cli import main
from ledger.demo import rows, story
from ledger.reconcile.compare import Comparer, Comparison
from ledger.reconcile.findings import Kind
from tests.databases import PASSWORD, Database

GENERATE = rows.generate
# Read before any test changes the environment.
REAL_ROWS = os.environ.get("DUIZHANG_DEMO_ROWS", "")

Demo = Callable[..., tuple[int, str, str]]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made during the test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def demo(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> Demo:
    """`duizhang demo words…` with few rows, unless the test sets others; afterwards nothing may be left of it."""
    monkeypatch.setattr("ledger.setup.create_account", functools.partial(create_account, work_factor=2))
    monkeypatch.setattr(rows, "generate", functools.partial(GENERATE, rows.FEWEST))
    monkeypatch.delenv("DUIZHANG_DEMO_ROWS", raising=False)

    def run(*words: str) -> tuple[int, str, str]:
        folder, environment = Path.cwd(), dict(os.environ)
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main(["demo", *words])
        assert (Path.cwd(), dict(os.environ)) == (folder, environment)
        assert list(temporary.iterdir()) == []
        return code, out.getvalue(), err.getvalue()

    return run


def nodes_in(folder: Path) -> list[Any]:
    return [*node.nodes_of(folder / story.PROVINCE / "chain"), *node.nodes_of(folder / "forger" / "chain")]


def test_the_whole_story_comes_out_as_it_must(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "generate", functools.partial(GENERATE, 5000))
    code, out, err = demo("--json")
    document = json.loads(out)
    assert (code, err, document["ok"]) == (0, "", True), document
    chapters = document["chapters"]
    assert [chapter["ok"] for chapter in chapters] == [True] * len(chapters)
    told: dict[str, Any] = {name: value for chapter in chapters for name, value in chapter.items()}
    assert told["matched"] == 4980
    assert {planted["kind"] for planted in told["planted"]} == {str(kind) for kind in Kind}
    assert (told["reported"], told["not_reported"], told["not_planted"]) == (len(told["planted"]), [], [])
    assert told["forged_proof"] == "entry"
    assert told["forged_registry"] == "chain"


def test_the_whole_story_holds_on_postgresql_stores_and_all(demo: Demo, postgres: Database) -> None:
    code, out, err = demo("--database", postgres.url.replace("+psycopg", ""), "--json")
    document = json.loads(out)
    assert (code, err, document["ok"]) == (0, "", True), document
    told: dict[str, Any] = {name: value for chapter in document["chapters"] for name, value in chapter.items()}
    assert {planted["kind"] for planted in told["planted"]} == {str(kind) for kind in Kind}
    assert (told["reported"], told["not_reported"], told["not_planted"]) == (len(told["planted"]), [], [])
    assert postgres.run("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'duizhang%'") == [], (
        "nothing is left of it"
    )


def test_the_story_never_shows_the_databases_password(demo: Demo, postgres18: Database) -> None:
    code, out, err = demo("--database", postgres18.url.replace("+psycopg", ""))
    assert code == 0, out + err
    for form in (PASSWORD, quote(PASSWORD, safe="")):
        assert form not in out + err


def test_a_schema_that_is_there_already_is_left_alone(demo: Demo, postgres18: Database) -> None:
    postgres18.run("CREATE SCHEMA duizhang_demo_city", "CREATE TABLE duizhang_demo_city.theirs (x int)")
    code, out, _ = demo("--database", postgres18.url.replace("+psycopg", ""), "--json")
    assert (code, json.loads(out)["error"]["code"]) == (2, "demo.database")
    assert postgres18.run("SELECT count(*) FROM duizhang_demo_city.theirs") == [(0,)]


def test_the_story_is_told_in_chapters_with_commands_that_can_be_repeated(demo: Demo, tmp_path: Path) -> None:
    code, out, err = demo("--keep", str(tmp_path / "kept"))
    assert (code, err) == (0, "")
    kept = tmp_path / "kept"
    assert nodes_in(kept) == []
    lines = out.splitlines()
    assert len(lines) < 320
    assert "\x1b" not in out
    told = [line.removeprefix("$ duizhang ") for line in lines if line.startswith("$ ")]
    for beginning in (
        "init guangdong",
        "-C guangdong send",
        "-C guangzhou receive",
        "-C guangzhou reconcile",
        "verify",
    ):
        assert any(command.startswith(beginning) for command in told), beginning

    reconcile = ["-C", str(kept / "guangzhou"), "reconcile", "registration", "--json"]
    for file, expected in ((None, 0), ("damage.sql", 1), ("repair.sql", 0)):
        if file:
            with closing(sqlite3.connect(kept / "city.db")) as connection:
                connection.executescript((kept / file).read_text("utf-8"))
        with redirect_stdout(io.StringIO()):
            assert main(reconcile) == expected, file
    main(["-C", str(kept / "guangdong"), "chain", "down", "--json"])


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> Callable[[Kind], None]:
    """Make reconciling forget findings of a kind."""
    finish = Comparer.finish

    def forget(kind: Kind) -> None:
        def forgetful(self: Comparer) -> Comparison:
            found = finish(self)
            return dataclasses.replace(found, findings=tuple(f for f in found.findings if f.kind is not kind))

        monkeypatch.setattr(Comparer, "finish", forgetful)

    return forget


def test_it_fails_when_a_planted_difference_is_not_reported(demo: Demo, blind: Callable[[Kind], None]) -> None:
    blind(Kind.UNANCHORED)
    code, out, _ = demo("--json")
    document = json.loads(out)
    assert (code, document["ok"], document["error"]["code"]) == (2, False, "demo.expectation"), document
    (told,) = document["chapters"][-1]["not_reported"]
    assert told.startswith("unanchored 9144")
    assert [chapter["ok"] for chapter in document["chapters"]] == [True, True, True, False]


def test_it_fails_when_a_forged_proof_is_accepted_here_in_english(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "check_commitment", lambda given: None)
    code, out, err = demo("--lang", "en")
    assert code == 2
    assert "kinds and keys agree" in out
    assert "[demo.expectation]" in err
    assert "forged.json" in err


def test_a_folder_that_is_not_empty_is_refused_and_left_alone(demo: Demo, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "theirs.txt").write_text("keep me")
    code, out, _ = demo("--keep", str(kept), "--json")
    assert (code, json.loads(out)["error"]["code"]) == (2, "demo.keep")
    assert [path.name for path in kept.iterdir()] == ["theirs.txt"]


def test_a_file_of_rows_that_cannot_be_used_is_refused(
    demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUIZHANG_DEMO_ROWS", str(tmp_path / "none.csv"))
    code, _, err = demo()
    assert code == 2
    assert "[demo.rows_file]" in err


def test_the_story_holds_on_real_rows(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    if not REAL_ROWS:
        pytest.skip("NOT TRIED ON REAL ROWS: DUIZHANG_DEMO_ROWS does not name a CSV of registrations")
    monkeypatch.setenv("DUIZHANG_DEMO_ROWS", str(Path(REAL_ROWS).resolve()))
    code, out, _ = demo("--json")
    document = json.loads(out)
    assert (code, document["ok"], document["rows"]) == (0, True, str(Path(REAL_ROWS).resolve())), document
