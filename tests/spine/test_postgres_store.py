"""The whole spine with both parties' stores on a PostgreSQL server, each in a schema of its own."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from ledger.chain.local import LocalChain
from ledger.cli import main
from ledger.store.files import WorkspaceLock
from tests.anchor.test_faults import test_any_effect_may_fail_before_or_after_it_happened as any_effect_may_fail
from tests.conftest import CATALOG, FIELDS, Pair, Party, permit, withdrawn
from tests.databases import PASSWORD, Database


def store_url(database: Database, schema: str) -> str:
    """The database's URL with one schema as its search path."""
    return f"{database.url}?options={quote(f'-csearch_path={schema}')}"


def run(*words: str) -> tuple[int, str]:
    """A command without a workspace: exit code and standard output."""
    import io

    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        code = main([*words, "--json"])
    return code, out.getvalue()


@pytest.fixture
def pair_on_postgres(postgres: Database, tmp_path: Path) -> Iterator[Pair]:
    """As `pair`, with the stores on the server."""
    postgres.run("CREATE SCHEMA province", "CREATE SCHEMA city")
    province, city = Party(tmp_path / "province"), Party(tmp_path / "city")
    made = run("init", str(province.home), "--party", "guangdong", "--store", store_url(postgres, "province"))
    assert made[0] == 0, made
    province.ok("party", "add", "guangzhou", "--out", str(tmp_path / "join"))
    made = run("init", str(city.home), "--join", str(tmp_path / "join"), "--store", store_url(postgres, "city"))
    assert made[0] == 0, made
    database = tmp_path / "city.db"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute(f"CREATE TABLE permits ({', '.join(f'{name} TEXT' for name in FIELDS)})")
    for party in (province, city):
        (party.home / "catalogs" / "permits.toml").write_text(CATALOG, encoding="utf-8")
    with (city.home / "duizhang.toml").open("a", encoding="utf-8") as config:
        config.write(f'\n[source.permits]\nurl = "sqlite:///{database}"\ntable = "permits"\norigin = "delivery"\n')
    yield Pair(province, city, database, tmp_path)
    LocalChain(province.home / "chain").down()


def test_deliveries_go_their_way(pair_on_postgres: Pair, postgres: Database) -> None:
    pair = pair_on_postgres
    for party in (pair.province, pair.city):
        assert not (party.home / "store").exists()
        assert sorted(path.name for path in party.home.iterdir() if path.name.startswith(".")) == []
    pair.deliver("B1", [permit(number) for number in range(5)])
    pair.deliver("B2", [permit(1, holder="乙公司"), permit(7)])
    assert pair.city.reconcile()[:2] == (0, [])
    pair.sql("UPDATE permits SET fee = '99.00' WHERE no = 'A-3'")
    pair.sql("DELETE FROM permits WHERE no = 'A-4'")
    code, found, counts = pair.city.reconcile()
    assert (code, found, counts["matched"]) == (1, [("altered", "A-3"), ("missing", "A-4")], 4)
    assert pair.city.run("nightly", "--json").code == 1
    pair.sql("UPDATE permits SET fee = '12.50' WHERE no = 'A-3'")
    pair.sql("INSERT INTO permits VALUES (?, ?, ?, ?, ?)", *permit(4).values())
    path = pair.file("B3.csv", [withdrawn(7)])
    pair.province.ok("send", "permits", path, "--batch", "B3", "--to", "guangzhou")
    pair.sql("DELETE FROM permits WHERE no = 'A-7'")
    pair.city.ok("receive", "permits", path, "--batch", "B3", "--from", "guangdong")
    told = pair.city.run("nightly", "--json")
    assert told.code == 0, told
    pair.city.ok("prove", "permits", "A-1", "--out", str(pair.folder / "proof.json"))
    pair.city.ok("trust", "export", "--out", str(pair.folder / "trust.json"))
    rpc = pair.city.ok("chain", "status")["rpc"]
    code, out = run(
        "verify", str(pair.folder / "proof.json"), "--trust", str(pair.folder / "trust.json"), "--rpc", str(rpc)
    )
    assert code == 0, out
    for party in (pair.province, pair.city):
        assert party.ok("fsck")["verdict"] == "clean"
        told = party.run("doctor", "--json")
        assert "store" in {it["name"] for it in told.json["checks"] if it["result"] == "ok"}, told
        party.ok("status")
        for ran in (told, party.run("status"), party.run("fsck"), party.run("doctor", "--lang", "en")):
            assert PASSWORD not in ran.out + ran.err
            assert quote(PASSWORD, safe="") not in ran.out + ran.err


def test_a_row_behind_the_constraints_is_found_by_fsck(pair_on_postgres: Pair, postgres: Database) -> None:
    pair = pair_on_postgres
    pair.deliver("B1", [permit(number) for number in range(3)])
    postgres.run(
        "SET search_path = province",
        "ALTER TABLE claim DROP CONSTRAINT ck_claim_state_known",
        "UPDATE claim SET state = 'bogus', revision = NULL, sequence = NULL, position = NULL, block_number = NULL, "
        "chain_time = NULL, confirmed_at = NULL",
    )
    told = pair.province.run("fsck", "--json")
    assert told.code == 1
    messages = [it["message"] for it in told.json["damage"]]
    assert any("ck_claim_state_known" in message and "(0," in message for message in messages), messages
    assert any(message.startswith("PostgreSQL") and "ck_claim_state_known" in message for message in messages)


def test_tables_that_vanish_are_damage_and_a_server_out_of_reach_is_not(
    pair_on_postgres: Pair, postgres: Database
) -> None:
    city = pair_on_postgres.city
    config = city.home / "duizhang.toml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace(f":{postgres.server.port}/", ":1/"), encoding="utf-8")
    for command in ("status", "fsck", "nightly"):
        assert city.run(command, "--json").code == 2, command
    config.write_text(text, encoding="utf-8")
    postgres.run("DROP SCHEMA city CASCADE", "CREATE SCHEMA city")
    told = city.run("fsck", "--json")
    assert (told.code, [it["code"] for it in told.json["damage"]]) == (1, ["store.missing"])


def test_copies_of_one_workspace_never_work_at_once(pair_on_postgres: Pair) -> None:
    pair = pair_on_postgres
    pair.deliver("B1", [permit(1)])
    copy = Party(pair.folder / "copy")
    shutil.copytree(pair.province.home, copy.home)
    from ledger.store.db import open_store
    from ledger.workspace import Workspace

    path = pair.file("B2.csv", [permit(2)])
    send = ("send", "permits", path, "--batch", "B2", "--to", "guangzhou")
    with (
        WorkspaceLock(copy.home / "lock", "nightly"),
        contextlib.closing(open_store(Workspace(copy.home).config.store_url, "write")),
    ):
        for words in (send, ("nightly",), ("fsck",)):
            ran = pair.province.run(*words, "--json")
            assert (ran.code, ran.json["error"]["code"]) == (2, "store.busy"), words
        pair.province.ok("status")
    pair.province.ok(*send)


def test_a_store_in_use_is_not_shared(pair_on_postgres: Pair, postgres: Database) -> None:
    other = pair_on_postgres.folder / "other"
    code, out = run("init", str(other), "--party", "zhuhai", "--store", store_url(postgres, "city"))
    assert (code, json.loads(out)["error"]["code"]) == (2, "init.store_used")
    assert not other.exists() or list(other.iterdir()) == []
    assert pair_on_postgres.city.ok("fsck")["verdict"] == "clean"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("side", ["send", "receive"])
@pytest.mark.parametrize("postgres", ["18"], indirect=True)
def test_any_write_to_the_store_may_fail_before_or_after_it_happened(
    pair_on_postgres: Pair, side: str, when: str
) -> None:
    any_effect_may_fail(pair_on_postgres, side, "store", when)
