"""What an attacker, or a bad day, once got past: each found by trying it, each refused since."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ledger import setup
from ledger.cli import main
from ledger.store.entryfile import NO_FRAME, read_entries, write_entries
from tests.conftest import CATALOG, Pair, Party, permit, withdrawn

ROWS = [permit(n) for n in range(1, 5)]


def put(pair: Pair, row: dict[str, str]) -> None:
    """One row into the city's table."""
    pair.sql("INSERT INTO permits VALUES (?, ?, ?, ?, ?)", *row.values())


def store_copy(party: Party, to: Path) -> None:
    """A backup of the store's tables."""
    shutil.copytree(party.home / "store", to)


def store_back(party: Party, backup: Path) -> None:
    """Put a backup of the tables back."""
    shutil.rmtree(party.home / "store")
    shutil.copytree(backup, party.home / "store")


def test_an_old_store_does_not_take_the_newer_entries_with_it(own: Pair) -> None:
    put(own, ROWS[0])
    own.city.ok("anchor", "permits")
    store_copy(own.city, own.folder / "old")
    put(own, ROWS[1])
    own.city.ok("anchor", "permits")
    store_copy(own.city, own.folder / "new")
    store_back(own.city, own.folder / "old")
    assert own.city.run("reconcile", "permits").code == 2
    assert own.city.run("fsck").code == 1
    store_back(own.city, own.folder / "new")
    assert own.city.reconcile()[:2] == (0, [])
    assert own.city.run("fsck").code == 0


def test_an_older_store_cannot_use_a_number_again_and_is_not_stuck_afterwards(pair: Pair) -> None:
    pair.deliver("B1", ROWS[:1])
    store_copy(pair.province, pair.folder / "old")
    pair.deliver("B2", ROWS[1:2])
    store_back(pair.province, pair.folder / "old")
    path = str(pair.folder / "B2.csv")
    wrong = ("send", "permits", path, "--batch", "B2", "--to", "guangzhou", "--period", "2022-03-04", "--json")
    assert pair.province.run(*wrong).json["error"]["code"] == "batch.number_taken"
    told = pair.province.ok("send", "permits", path, "--batch", "B2", "--to", "guangzhou")
    assert told["anchor"]["revision"] == 1
    assert pair.province.run("fsck").code == 0


@pytest.mark.parametrize("moment", ["before the account", "before the keystore", "while moving"])
def test_an_interrupted_join_is_taken_up_again(pair: Pair, moment: str) -> None:
    joined = pair.folder / "join.json"
    pair.province.ok("party", "add", "shenzhen", "--out", str(joined))
    target = pair.folder / "shenzhen"
    stage = target / ".duizhang-init"
    with pytest.MonkeyPatch.context() as patch:
        if moment == "while moving":
            real, moved = os.replace, []

            def some(a: Path, b: Path) -> None:
                if len(moved) == 3:
                    raise KeyboardInterrupt
                moved.append(a)
                real(a, b)

            patch.setattr(setup.os, "replace", lambda a, b: some(a, b) if Path(a).parent == stage else real(a, b))
        else:

            def killed(keystore: Path, password_file: Path) -> str:
                if moment == "before the keystore":
                    password_file.write_text("ab" * 32)
                    password_file.chmod(0o600)
                raise KeyboardInterrupt

            patch.setattr(setup, "create_account", killed)
        assert main(["init", str(target), "--join", str(joined), "--json"]) == 2
    assert main(["init", str(target), "--join", str(joined), "--json"]) == 0
    assert not stage.exists()
    assert Party(target).run("status").code == 0
    assert Party(target).run("fsck").code == 0


@pytest.mark.parametrize("step", [1, 2])
def test_a_registration_killed_before_it_was_confirmed_is_not_sent_twice(pair: Pair, step: int) -> None:
    class Killed(BaseException):
        pass

    calls: list[int] = []
    real = setup.finish

    def finish(*args: object) -> int:
        calls.append(1)
        if len(calls) == step + 1:
            raise Killed
        return real(*args)  # type: ignore[arg-type]

    out = pair.folder / "join.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup, "finish", finish)
        if step == 1:
            with pytest.raises(Killed):
                pair.province.run("party", "add", "shenzhen", "--out", str(out))
        else:
            pair.province.run("party", "add", "shenzhen", "--out", str(out))
    if not out.exists():
        pair.province.ok("party", "add", "shenzhen", "--out", str(out))
    with sqlite3.connect(pair.province.home / "store" / "ledger.db") as connection:
        sent = connection.execute("SELECT count(*) FROM outbox WHERE purpose = 'register'").fetchone()
    connection.close()
    assert sent == (3,)  # guangdong, guangzhou, shenzhen
    assert pair.province.run("fsck").code == 0


def by_column(pair: Pair) -> None:
    """Give the city's table a batch column."""
    pair.sql("ALTER TABLE permits ADD COLUMN batch_no TEXT")
    with (pair.city.home / "duizhang.toml").open("a", encoding="utf-8") as config:
        config.write('batch_column = "batch_no"\n')


def test_landed_rows_that_prove_the_batch_do_not_hide_the_rows_without_an_entry(pair: Pair) -> None:
    by_column(pair)
    path = pair.file("B1.csv", ROWS[:2])
    pair.province.ok("send", "permits", path, "--batch", "B1", "--to", "guangzhou")
    for row in (*ROWS[:2], permit(8, fee="no number"), permit(9), permit(9)):
        pair.sql("INSERT INTO permits VALUES (?, ?, ?, ?, ?, 'B1')", *row.values())
    for _ in range(2):
        told = pair.city.run("receive", "permits", "--batch", "B1", "--from", "guangdong", "--json")
        assert (told.code, told.json["verdict"]) == (1, "differences")
        assert sorted(f["kind"] for f in told.json["findings"]) == ["duplicate", "unreadable"]


def test_rows_are_sent_and_received_by_their_batch_column_alone(pair: Pair) -> None:
    by_column(pair)
    path = pair.file("B1.csv", ROWS)
    pair.province.ok("send", "permits", path, "--batch", "B1", "--to", "guangzhou")
    for row in ROWS:
        pair.sql("INSERT INTO permits VALUES (?, ?, ?, ?, ?, 'b1')", *row.values())
    assert pair.city.ok("receive", "permits", "--batch", "B1", "--from", "guangdong")["verdict"] == "matched"
    assert pair.city.reconcile()[:2] == (0, [])
    put_forged = "INSERT INTO permits VALUES ('A-77', NULL, '伪造', NULL, NULL, 'B1')"
    pair.sql(put_forged)
    assert pair.city.reconcile()[:2] == (1, [("unanchored", "A-77")])
    told = pair.city.run("receive", "permits", "--batch", "B1", "--from", "guangdong", "--json")
    assert (told.code, [f["kind"] for f in told.json["findings"]]) == (1, ["unanchored"])


def test_loading_an_older_delivery_again_leaves_later_versions_alone(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    pair.deliver("B2", [permit(1, "甲公司更名")])
    pair.deliver("B3", [withdrawn(4)])
    pair.city.run("receive", "permits", str(pair.folder / "B1.csv"), "--batch", "B1", "--from", "guangdong", "--load")
    assert pair.city.reconcile()[:2] == (0, [])


def test_repeated_rows_that_nobody_knows_do_not_stop_a_load(pair: Pair) -> None:
    put(pair, permit(77))
    put(pair, permit(77))
    pair.deliver("B1", ROWS)
    assert pair.city.reconcile()[:2] == (1, [("duplicate", "A-77")])


@pytest.mark.parametrize("flag", [True, False])
def test_a_forged_withdrawal_flag_makes_nothing_lawful(pair: Pair, flag: bool) -> None:
    pair.deliver("B1", [*ROWS])
    pair.deliver("B2", [withdrawn(4)])
    with sqlite3.connect(pair.city.home / "store" / "ledger.db") as connection:
        chosen = "SELECT s.id, entries_file, entries_sha256 FROM entry_set s JOIN batch b ON b.id = s.batch_id WHERE role = 'lawful' AND number = ?"
        row, name, digest = connection.execute(chosen, ("B1" if flag else "B2",)).fetchone()
        path = pair.city.home / name
        entries = read_entries(path, digest)
        path.unlink()
        forged = np.array(entries.withdrawn)
        forged[0] = flag
        frames = np.full(len(forged), NO_FRAME, np.uint32) if flag else np.array(entries.frames)
        changed = write_entries(path, np.array(entries.entries), forged, frames)
        connection.execute("UPDATE entry_set SET entries_sha256 = ? WHERE id = ?", (changed, row))
    connection.close()
    told = pair.city.run("reconcile", "permits", "--json")
    assert told.code == 2, told
    assert told.json["error"]["code"] == "store.withdrawal_flag"
    assert pair.city.run("fsck").code == 1


def test_the_night_tells_what_nobody_looked_at(pair: Pair) -> None:
    for party in (pair.province, pair.city):
        (party.home / "catalogs" / "other.toml").write_text(CATALOG.replace('"permits"', '"other"'), encoding="utf-8")
    path = pair.file("B1.csv", ROWS)
    pair.province.ok("send", "other", path, "--batch", "B1", "--to", "guangzhou")
    inbox = pair.city.home / "inbox" / "guangdong" / "permits"
    inbox.mkdir(parents=True)
    shutil.copy(path, inbox / "B9.txt")
    told = pair.city.run("nightly", "--json")
    assert told.code == 2
    assert {f["error"]["code"] for f in told.json["failures"]} == {"nightly.no_source", "nightly.odd_file"}


def test_a_second_file_of_a_batch_neither_replaces_the_first_nor_passes(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    inbox = pair.city.home / "inbox" / "guangdong" / "permits"
    inbox.mkdir(parents=True)
    shutil.copy(pair.folder / "B1.csv", inbox / "B1.csv")
    assert pair.city.run("nightly").code == 0
    forged = Path(pair.file("forged.csv", [permit(1, "伪造")])).read_bytes()
    (inbox / "B1.csv").write_bytes(forged)
    assert pair.city.run("nightly").code == 1
    assert (inbox / "B1.csv.received").read_bytes() == (pair.folder / "B1.csv").read_bytes()
    assert (inbox / "B1.csv.received-1").read_bytes() == forged
    assert pair.city.reconcile()[:2] == (0, [])


def test_a_stranger_who_announces_something_does_not_stop_the_night(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    pair.province.ok("party", "add", "shenzhen", "--out", str(pair.folder / "sz.json"))
    assert main(["init", str(pair.folder / "sz"), "--join", str(pair.folder / "sz.json"), "--json"]) == 0
    stranger = Party(pair.folder / "sz")
    (stranger.home / "catalogs" / "permits.toml").write_text(CATALOG, encoding="utf-8")
    key = stranger.home / "keys" / "guangzhou"
    key.mkdir(mode=0o700)
    shutil.copy(stranger.home / "keys" / "own" / "1.key", key / "1.key")
    path = pair.file("x.csv", [permit(50)])
    stranger.ok("send", "permits", path, "--batch", "B1", "--to", "guangzhou")
    assert pair.city.run("nightly", "--json").code == 0
    told = pair.city.run("reconcile", "permits", "--json")
    assert told.code == 0
    assert any("shenzhen" in note["en"] for note in told.json["notes"])


def test_personal_values_are_masked_in_findings_messages_and_briefs(pair: Pair) -> None:
    secret = "张三机密"
    for party in (pair.province, pair.city):
        text = CATALOG.replace('title = "名称"\n', 'title = "名称"\npersonal = true\n').replace(
            'title = "文号"\n', 'title = "文号"\npersonal = true\n'
        )
        (party.home / "catalogs" / "permits.toml").write_text(text, encoding="utf-8")
    pair.deliver("B1", [{**permit(1), "holder": secret}, permit(2)])
    pair.sql("UPDATE permits SET holder = ?, decided_on = 'x' WHERE no = 'A-1'", secret)
    pair.sql("UPDATE permits SET holder = ? WHERE no = 'A-2'", secret)
    headless = pair.folder / "headless.csv"
    headless.write_text(f"A-9,x,{secret},2022-03-04,1\n", encoding="utf-8")
    repeated = pair.file("r.csv", [{**permit(1), "holder": secret}] * 2)
    said = [
        pair.city.run("reconcile", "permits", "--show-values"),
        pair.city.run("reconcile", "permits", "--show-values", "--json"),
        pair.city.run("nightly"),
        pair.city.run("digest", "permits", str(headless)),
        pair.city.run("digest", "permits", repeated),
        pair.city.run("withdraw", "permits", "A-1", "--reason", "revoked", "--by", "x"),
    ]
    brief = "".join(path.read_text(encoding="utf-8") for path in (pair.city.home / "briefs").iterdir())
    for text in (*(ran.out + ran.err for ran in said), brief):
        assert secret not in text
        assert "A-1" not in text


def test_a_terminal_without_chinese_still_gets_the_answer_and_the_exit_code(pair: Pair) -> None:
    for words, code in (
        (("digest", "permits", "nofile.csv", "--json"), 2),
        (("digest", "permits", "nofile.csv"), 2),
        (("status",), 0),
    ):
        ran = subprocess.run(
            [sys.executable, "-m", "ledger.cli", "-C", str(pair.city.home), *words],
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
            capture_output=True,
            check=False,
        )
        assert ran.returncode == code, ran.stderr
        assert b"Traceback" not in ran.stderr


@pytest.mark.parametrize("emptied", [True, False])
def test_a_lost_exchange_key_is_never_taken_for_nothing_to_compare(pair: Pair, emptied: bool) -> None:
    pair.deliver("B1", ROWS)
    shutil.move(pair.city.home / "keys" / "guangdong", pair.folder / "lost")
    if emptied:
        pair.sql("DELETE FROM permits")
    told = pair.city.run("reconcile", "permits", "--json")
    assert (told.code, told.json["error"]["code"]) == (2, "key.no_exchange_key")
    night = pair.city.run("nightly", "--json")
    assert (night.code, night.json["failures"][0]["error"]["code"]) == (2, "key.no_exchange_key")


def test_an_earlier_brief_of_the_day_is_kept(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    pair.sql("DELETE FROM permits WHERE no = 'A-1'")
    assert pair.city.run("nightly").code == 1
    put(pair, ROWS[0])
    assert pair.city.run("nightly").code == 0
    assert len(list((pair.city.home / "briefs").glob("*-1.json"))) == 1
