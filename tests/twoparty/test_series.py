"""Series: a stream goes on under another catalog version or key, and nothing becomes `altered` for it (design section 4)."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ledger.series.bridge as made
from ledger.anchor.claims import propose
from ledger.batch.book import save_batch
from ledger.batch.build import Builder, Built, root_hex
from ledger.batch.job import open_job
from ledger.batch.stream import StreamId
from ledger.lookup import look_up
from ledger.workspace import Workspace
from tests.conftest import CATALOG, FIELDS, Pair, Party, permit, withdrawn

GAINED = CATALOG.replace("version = 1", "version = 2") + '\n[[field]]\nname = "remark"\ntitle = "备注"\ntype = "text"\n'
ROWS = [permit(n) for n in range(1, 9)]


def declare(party: Party, text: str = GAINED) -> None:
    """Put another version of the catalog into a workspace."""
    (party.home / "catalogs" / "permits.toml").write_text(text, encoding="utf-8")


def gain(pair: Pair) -> None:
    """Both sides go over to the version with one field more; the city's table gains the column."""
    declare(pair.province)
    declare(pair.city)
    pair.sql("ALTER TABLE permits ADD COLUMN remark TEXT")


def delivery(pair: Pair, name: str, rows: Sequence[dict[str, str]]) -> str:
    """A delivered file of the version that the province has now."""
    path = Path(pair.file(name, rows))
    if "remark" in (pair.province.home / "catalogs" / "permits.toml").read_text(encoding="utf-8"):
        head, *lines = path.read_text(encoding="utf-8").splitlines()
        path.write_text("\n".join([f"{head},remark", *(f"{line}," for line in lines)]) + "\n", encoding="utf-8")
    return str(path)


def both_rekey(pair: Pair) -> None:
    """The next epoch of the pair's key, by way of a sealed file."""
    number = len(list((pair.city.home / "keys" / "guangdong").iterdir())) + 1
    file = str(pair.folder / f"key{number}.json")
    made = pair.province.ok("key", "new", "--with", "guangzhou", "--out", file)
    assert made["epoch"] == number
    taken = pair.city.ok("key", "take", file)
    assert (taken["key_id"], taken["fresh"]) == (made["key_id"], True)


def stray(pair: Pair, kind: str, number: str) -> None:
    """The province anchors an empty batch under its present catalog, whatever series the stream is in."""
    home = Workspace(pair.province.home)
    stream = StreamId("permits", "guangdong", "guangzhou")
    with home.locked("test"), closing(home.open_store("write")) as store, open_job(home, store) as job:
        catalog, key = home.catalog("permits"), home.exchange_key("guangzhou")
        told = job.describe(catalog, key, stream, number=number, kind=kind, period="")
        built = Builder(catalog, key.for_catalog(catalog)).finish()
        with job.store.write() as session:
            save_batch(session, told, stream, catalog)
            propose(session, job.book.save_set(session, told.batch_id.hex(), "lawful", built, None), known_revisions=0)
        job.anchor()


def bridge(pair: Pair) -> Any:
    return pair.province.ok("bridge", "permits", "--to", "guangzhou")


def take_over(pair: Pair, *options: str) -> tuple[int, Any]:
    ran = pair.city.run("bridge", "permits", "--from", "guangdong", *options, "--json")
    assert "error" not in ran.json, ran
    return ran.code, ran.json


def refused(party: Party, *words: str) -> str:
    ran = party.run(*words, "--json")
    assert ran.code == 2, ran
    return str(ran.json["error"]["code"])


def reconcile(pair: Pair, *options: str) -> Any:
    ran = pair.city.run("reconcile", "permits", *options, "--json")
    assert "error" not in ran.json, ran
    return ran.json


def kinds(told: Any) -> list[tuple[str, str | None]]:
    return sorted((f["kind"], f["key"]["no"] if f["key"] else None) for f in told["findings"])


def whys(told: Any) -> dict[str, str]:
    return {it["key"]["no"]: it["why"] for it in told["not_carried"]}


@pytest.mark.parametrize("change", [gain, both_rekey], ids=["a field more", "another key"])
def test_all_is_carried_and_the_stream_goes_on(pair: Pair, change: Any) -> None:
    pair.deliver("B1", ROWS)
    change(pair)
    assert refused(
        pair.province, "send", "permits", pair.file("x.csv", ROWS), "--batch", "B2", "--to", "guangzhou"
    ) == ("series.changed")
    told = bridge(pair)
    assert (told["carried"], told["not_carried"], told["fresh"]) == (8, [], True)
    assert told["old"]["batch"].endswith("-1:B1")
    assert told["new"]["batch"].endswith("-2:B1")

    before = reconcile(pair)
    assert before["verdict"] == "undetermined"
    assert any("bridge permits --from guangdong" in it["en"] for it in before["notes"])
    code, taken = take_over(pair)
    assert (code, taken["verdict"], taken["carried"], taken["not_carried"]) == (0, "matched", 8, [])
    after = reconcile(pair)
    assert (after["verdict"], after["counts"]["matched"], after["counts"]["altered"]) == ("matched", 8, 0)
    for party, other in ((pair.province, "guangzhou"), (pair.city, "guangdong")):
        between = party.ok("reconcile", "permits", "--with", other)
        assert between["verdict"] == "matched"
        assert len(between["batches"]) == 3

    path = delivery(pair, "B2.csv", [permit(9), withdrawn(1), permit(2, holder="乙公司")])
    pair.province.ok("send", "permits", path, "--batch", "B2", "--to", "guangzhou", "--correction")
    got = pair.city.ok("receive", "permits", path, "--batch", "B2", "--from", "guangdong", "--load")
    assert got["verdict"] == "matched"
    last = reconcile(pair)
    assert (last["verdict"], last["counts"]["ledger"]) == ("matched", 8)
    assert pair.province.ok("snapshot", "permits", "--to", "guangzhou")["size"] == 8
    assert pair.city.ok("snapshot", "permits", "--from", "guangdong")["verdict"] == "matched"
    # Once more on either side: nothing happens.
    assert bridge(pair)["fresh"] is False
    assert take_over(pair)[1]["fresh"] is False


def test_ten_thousand_rows_under_a_version_that_gains_a_field_do_not_become_altered(pair: Pair) -> None:
    count = int(os.environ.get("DUIZHANG_SERIES_RECORDS", "10000"))
    pair.deliver("B1", [permit(n) for n in range(count)])
    gain(pair)
    pair.sql("UPDATE permits SET holder = '被改' WHERE no IN ('A-5', 'A-6')")
    pair.sql("DELETE FROM permits WHERE no = 'A-7'")
    assert bridge(pair)["carried"] == count
    code, taken = take_over(pair)
    assert (code, taken["verdict"], taken["carried"]) == (1, "differences", count)
    told = reconcile(pair)
    assert kinds(told) == [("altered", "A-5"), ("altered", "A-6"), ("missing", "A-7")]
    assert told["counts"]["matched"] == count - 3
    assert told["counts"]["ledger"] == count


def test_an_own_source_is_bridged_from_its_table_and_the_gained_field_is_committed_to(own: Pair) -> None:
    city = own.city
    for row in ROWS:
        own.sql("INSERT INTO permits VALUES (?, ?, ?, ?, ?)", *(row[name] for name in FIELDS))
    city.ok("anchor", "permits")
    declare(city)
    own.sql("ALTER TABLE permits ADD COLUMN remark TEXT")
    own.sql("UPDATE permits SET remark = '已核' WHERE no <> 'A-8'")
    own.sql("UPDATE permits SET holder = '被改' WHERE no = 'A-2'")
    own.sql("DELETE FROM permits WHERE no = 'A-3'")
    own.sql("INSERT INTO permits SELECT * FROM permits WHERE no = 'A-4'")
    assert refused(city, "reconcile", "permits") == "series.changed"
    bridged = city.ok("bridge", "permits")
    assert whys(bridged) == {"A-2": "altered", "A-3": "missing", "A-4": "repeated"}
    assert bridged["carried"] == 5
    told = reconcile(own)
    # The three are still compared under the version they were anchored under.
    assert kinds(told) == [("altered", "A-2"), ("duplicate", "A-4"), ("missing", "A-3")]
    assert told["counts"]["matched"] == 5
    # The gained field counts for what was carried.
    own.sql("UPDATE permits SET remark = '另写' WHERE no = 'A-1'")
    assert ("altered", "A-1") in kinds(reconcile(own))
    own.sql("UPDATE permits SET remark = '已核' WHERE no = 'A-1'")
    own.sql("DELETE FROM permits WHERE no = 'A-4' AND rowid = (SELECT max(rowid) FROM permits WHERE no = 'A-4')")
    own.sql("UPDATE permits SET holder = '甲公司' WHERE no = 'A-2'")
    assert kinds(reconcile(own)) == [("missing", "A-3")]


def test_a_record_that_was_not_carried_stays_lawful_under_the_old_series_for_the_receiver_too(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    # The new version declares the fee as an integer: what has a fraction has no normal form there.
    narrowed = CATALOG.replace("version = 1", "version = 2").replace('type = "decimal"\nscale = 2', 'type = "integer"')
    pair.deliver("B2", [permit(n, fee=f"{n}") for n in range(20, 25)])
    declare(pair.province, narrowed)
    declare(pair.city, narrowed)
    told = bridge(pair)
    left = {f"A-{n}" for n in (*range(1, 9), *range(20, 25))}
    assert set(whys(told)) == left, "a decimal's normal form has its two digits"
    _, taken = take_over(pair)
    assert {it["key"]["no"] for it in taken["not_carried"]} == left
    told = reconcile(pair)
    assert (told["verdict"], told["counts"]["matched"]) == ("matched", 13)
    pair.sql("UPDATE permits SET holder = '被改' WHERE no = 'A-3'")
    assert kinds(reconcile(pair)) == [("altered", "A-3")]


def test_what_was_withdrawn_before_a_bridge_does_not_come_back_as_new(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    pair.deliver("B2", [withdrawn(1)])
    gain(pair)
    bridge(pair)
    assert take_over(pair)[1]["verdict"] == "matched"
    row = permit(1)
    pair.sql("INSERT INTO permits (no, uscc, holder, decided_on, fee) VALUES (?, ?, ?, ?, ?)", *row.values())
    assert kinds(reconcile(pair)) == [("not_withdrawn", "A-1")]


def test_batches_sent_before_a_bridge_are_received_before_it_is_taken_over(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    path = pair.file("B2.csv", [permit(9)])
    pair.province.ok("send", "permits", path, "--batch", "B2", "--to", "guangzhou")
    gain(pair)
    bridge(pair)
    later = delivery(pair, "B3.csv", [permit(10)])
    pair.province.ok("send", "permits", later, "--batch", "B3", "--to", "guangzhou")
    assert refused(pair.city, "bridge", "permits", "--from", "guangdong") in (
        "fold.open_batches",
        "snapshot.unknown_batch",
    )
    receive = ("receive", "permits", later, "--batch", "B3", "--from", "guangdong")
    assert refused(pair.city, *receive, "--load") == "receive.other_series"
    got = pair.city.ok("receive", "permits", path, "--batch", "B2", "--from", "guangdong", "--load")
    assert got["verdict"] == "matched"
    code, taken = take_over(pair)
    assert (code, taken["verdict"], taken["carried"]) == (2, "undetermined", 9)
    assert any("B3" in note for note in taken["notes"])
    assert pair.city.ok(*receive, "--load")["verdict"] == "matched"
    assert reconcile(pair)["verdict"] == "matched"
    assert refused(pair.city, "receive", "permits", "--batch", "B2", "--from", "guangdong") == "receive.other_series"
    assert pair.city.run("nightly", "--json").code == 0
    assert pair.city.ok("reconcile", "permits", "--with", "guangdong")["verdict"] == "matched"


def test_the_night_tells_of_a_bridge_that_waits_and_is_quiet_once_it_was_taken_over(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    gain(pair)
    bridge(pair)
    ran = pair.city.run("nightly", "--json")
    assert ran.code != 0
    assert "bridge permits --from guangdong" in ran.out + ran.err
    take_over(pair)
    assert pair.city.run("nightly", "--json").code == 0


def test_a_batch_under_another_version_without_a_bridge_stops_everything(pair: Pair) -> None:
    """Announced by a sender that does not run this software: its records belong to no series."""
    pair.deliver("B1", ROWS)
    gain(pair)
    stray(pair, "delivery", "B2")
    assert refused(pair.city, "reconcile", "permits") == "series.no_bridge"
    assert refused(pair.province, "bridge", "permits", "--to", "guangzhou") == "series.no_bridge"


@pytest.mark.parametrize("what", ["adds", "contradiction"])
def test_a_bridge_that_smuggles_is_refused_and_nothing_is_recorded(pair: Pair, what: str, monkeypatch: Any) -> None:
    """The sender's software is honest; here its reading of what crosses is not."""
    pair.deliver("B1", ROWS)
    gain(pair)
    if what == "adds":
        honest = made.cross

        def forged(ledger: Any, rows: Any) -> Any:
            found = honest(ledger, rows)
            extra = found.entries.copy()[:1]
            extra[0, 16:32] = 7
            return replace(found, entries=np.concatenate([found.entries, extra]))

        def keep(builder: Any, chunks: Any, entries: Any) -> Any:
            builder.add_entries(entries, np.zeros(len(entries), np.bool_))
            return np.ones(len(entries), np.bool_)

        monkeypatch.setattr(made, "cross", forged)
        monkeypatch.setattr(made, "add_among", keep)
    else:
        fold = made.fold_entries

        class Short:
            def __init__(self, whole: Any) -> None:
                self.whole = whole

            def built(self) -> Any:
                built = self.whole.built()
                entries = built.entries[1:]
                return Built(entries, built.withdrawn[1:], built.frames[1:], len(entries), root_hex(entries))

        monkeypatch.setattr(made, "fold_entries", lambda ledger: Short(fold(ledger)))
    bridge(pair)
    assert refused(pair.city, "bridge", "permits", "--from", "guangdong") == f"bridge.{what}"
    told = reconcile(pair)
    assert told["verdict"] == "undetermined"
    assert told["counts"]["matched"] == 8


def test_too_many_differences_for_the_sketch_need_the_entry_file(pair: Pair, tmp_path: Path) -> None:
    rows = [permit(n) for n in range(400)]
    pair.deliver("B1", rows)
    both_rekey(pair)
    gain(pair)
    number = bridge(pair)["new"]["batch"]
    # Our rows and our archive are gone: nothing here says what crossed.
    pair.sql("DELETE FROM permits")
    for path in (pair.city.home / "archive").iterdir():
        path.rename(tmp_path / path.name)
    with sqlite3.connect(pair.city.home / "store" / "ledger.db") as connection:
        connection.execute("UPDATE entry_set SET archive_file = NULL, archive_key_wrapped = NULL")
    connection.close()
    assert refused(pair.city, "bridge", "permits", "--from", "guangdong") == "bridge.undecided"
    out = tmp_path / "new.entries"
    pair.province.ok("export", "entries", "permits", "--with", "guangzhou", "--batch", number, "--out", str(out))
    assert (
        refused(pair.city, "import", "entries", "permits", str(out), "--with", "guangdong", "--batch", number)
        == "entries.bridge"
    )
    code, taken = take_over(pair, "--entries", str(out))
    assert (code, taken["carried"]) == (1, 400)
    assert Counter(f["kind"] for f in reconcile(pair)["findings"]) == {"missing": 400}


def test_a_second_bridge_carries_what_the_first_did_and_older_series_are_still_told(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    gain(pair)
    bridge(pair)
    take_over(pair)
    both_rekey(pair)
    path = delivery(pair, "B2.csv", [permit(9)])
    assert refused(pair.province, "send", "permits", path, "--batch", "B2", "--to", "guangzhou") == "series.changed"
    assert bridge(pair)["carried"] == 8
    assert take_over(pair)[1]["verdict"] == "matched"
    pair.province.ok("send", "permits", path, "--batch", "B2", "--to", "guangzhou")
    assert (
        pair.city.ok("receive", "permits", path, "--batch", "B2", "--from", "guangdong", "--load")["verdict"]
        == "matched"
    )
    told = reconcile(pair)
    assert (told["verdict"], told["counts"]["matched"]) == ("matched", 9)
    assert [it["batch"].partition(":")[2] or it["batch"] for it in told["batches"]] == ["B1", "B1", "B1", "B2"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("bridge", "permits", "--to", "guangzhou"), "bridge.nothing"),
        (("bridge", "permits", "--to", "guangdong"), "send.to_self"),
        (("bridge", "permits", "--entries", "x"), "bridge.entries"),
    ],
)
def test_nothing_to_bridge_is_said(pair: Pair, words: Sequence[str], code: str) -> None:
    assert refused(pair.province, *words) == code


def test_nothing_changed_and_nothing_bridged_is_said(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    assert refused(pair.province, "bridge", "permits", "--to", "guangzhou") == "bridge.unchanged"
    assert refused(pair.city, "bridge", "permits", "--from", "guangdong") == "bridge.nothing"
    assert refused(pair.city, "bridge", "permits") == "bridge.delivery_source"


def test_a_record_is_found_and_proved_whichever_series_it_stands_in(pair: Pair, tmp_path: Path) -> None:
    pair.deliver("B1", ROWS)
    pair.deliver("B2", [withdrawn(8)])
    gain(pair)
    both_rekey(pair)
    pair.sql("UPDATE permits SET holder = '被改' WHERE no = 'A-2'")
    bridge(pair)
    take_over(pair)
    trust = tmp_path / "trust.json"
    pair.city.ok("trust", "export", "--out", str(trust))
    rpc = pair.province.ok("chain", "status")["rpc"]
    for key, options, name in (
        ("A-1", (), "now"),
        ("A-1", ("--batch", "B1"), "then"),
        ("A-8", ("--batch", "B2"), "gone"),
    ):
        out = tmp_path / f"{name}.json"
        pair.city.ok("prove", "permits", key, "--out", str(out), *options)
        ran = pair.city.run("verify", str(out), "--trust", str(trust), "--rpc", rpc)
        assert ran.code == 0, ran.out[-900:]
    assert refused(pair.city, "prove", "permits", "A-8", "--out", str(tmp_path / "x.json")) == "prove.withdrawn"
    home = Workspace(pair.city.home)
    with closing(home.open_store("read")) as store, open_job(home, store, resume=False) as job:
        catalog = home.catalog("permits")
        states = [look_up(job, catalog, key, values=True).state for key in ("A-1", "A-2", "A-8", "A-9")]
    assert states == ["live", "live", "withdrawn", "unknown"]


def test_key_files_are_sealed_and_taken_in_once_in_order_by_the_party_they_are_for(pair: Pair, tmp_path: Path) -> None:
    one, two = (tmp_path / name for name in ("2.json", "3.json"))
    pair.province.ok("key", "new", "--with", "guangzhou", "--out", str(one))
    pair.province.ok("key", "new", "--with", "guangzhou", "--out", str(two))
    secret = (pair.province.home / "keys" / "guangzhou" / "2.key").read_text().strip()
    assert secret not in one.read_text()
    assert one.stat().st_mode & 0o777 == 0o600
    assert refused(pair.city, "key", "take", str(two)) == "key.epoch_taken"
    assert refused(pair.province, "key", "take", str(one)) == "key.file"
    assert pair.city.ok("key", "take", str(one))["fresh"] is True
    assert pair.city.ok("key", "take", str(one))["fresh"] is False
    path = pair.city.home / "keys" / "guangdong" / "2.key"
    path.write_text("0" * 64 + "\n")
    assert refused(pair.city, "key", "take", str(one)) == "key.epoch_taken"
    assert path.read_text() == "0" * 64 + "\n"
    (tmp_path / "2.json.passphrase").write_text("another-passphrase\n")
    assert refused(pair.city, "key", "take", str(one)) == "passphrase.wrong"
    assert refused(pair.province, "key", "new", "--with", "guangzhou") == "key.out_missing"
    assert refused(pair.province, "key", "new", "--with", "guangzhou", "--out", str(one)) == "party.out_exists"
    assert (
        refused(pair.province, "key", "new", "--with", "shenzhen", "--out", str(tmp_path / "x"))
        == "key.no_exchange_key"
    )
    assert pair.province.ok("key", "new")["epoch"] == 2
    assert sorted(it.name for it in (pair.province.home / "keys" / "guangzhou").glob("*.key")) == [
        "1.key",
        "2.key",
        "3.key",
    ]


def test_a_proof_of_absence_says_what_a_bridge_left_behind_and_needs_a_series(pair: Pair, tmp_path: Path) -> None:
    pair.deliver("B1", ROWS)
    narrowed = CATALOG.replace("version = 1", "version = 2").replace('type = "decimal"\nscale = 2', 'type = "text"')
    narrowed = narrowed.replace(
        'name = "holder"\ntitle = "名称"\ntype = "text"', 'name = "holder"\ntitle = "名称"\ntype = "date"'
    )
    declare(pair.province, narrowed)
    assert bridge(pair)["carried"] == 0
    rpc = pair.province.ok("chain", "status")["rpc"]
    trust, proof = tmp_path / "trust.json", tmp_path / "proof.json"
    pair.province.ok("trust", "export", "--out", str(trust))
    pair.province.ok("prove", "permits", "--subject", ROWS[0]["uscc"], "--out", str(proof))
    verify = ("verify", str(proof), "--trust", str(trust), "--rpc", rpc)
    told = pair.province.ok(*verify)
    assert (told["subject"]["records"], told["subject"]["left_behind"]) == (0, 8)
    assert "8 条记录在换版或换钥时未随迁" in told["sentence"]
    # The same under a version that no bridge leads to.
    declare(pair.province, narrowed.replace("version = 2", "version = 3"))
    stray(pair, "snapshot", "P20260101-1:B9")
    proof.unlink()
    pair.province.ok("prove", "permits", "--subject", ROWS[0]["uscc"], "--batch", "P20260101-1:B9", "--out", str(proof))
    ran = pair.province.run(*verify, "--json")
    assert (ran.code, ran.json["verdict"]) == (1, "contradicted"), ran.json
    assert "evidence.no_series" in ran.out
