"""Snapshots: the fold of a stream on chain, and what a receiver holds against it (design section 4)."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ledger import snapshot as snapshots
from ledger.anchor.claims import propose
from ledger.batch.book import save_batch
from ledger.batch.build import Builder
from ledger.batch.fold import Fold, fold_entries, open_entries
from ledger.batch.job import Job, open_job
from ledger.batch.stream import AnnouncedBatch, StreamId
from ledger.counterpart.compare import compare_with
from ledger.counterpart.statement import statement
from ledger.descriptor import Descriptor
from ledger.record import open_canonical
from ledger.workspace import Workspace
from tests.anchor.test_faults import EFFECTS, Fault, Killed, install
from tests.conftest import Pair, Party, permit, withdrawn

ROWS = [permit(n) for n in range(1, 9)]
EMPTY_ROOT = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def announce(pair: Pair, *options: str) -> Any:
    return pair.province.ok("snapshot", "permits", "--to", "guangzhou", *options)


def answer(pair: Pair, *options: str) -> tuple[int, Any]:
    ran = pair.city.run("snapshot", "permits", "--from", "guangdong", *options, "--json")
    assert "error" not in ran.json, ran
    return ran.code, ran.json


def refused(party: Party, *words: str) -> str:
    ran = party.run(*words, "--json")
    assert ran.code == 2, ran
    return str(ran.json["error"]["code"])


def expected(pair: Pair, rows: list[dict[str, str]]) -> tuple[int, str]:
    """Size and root of these rows as one delivery, worked out from a file alone."""
    told = pair.province.ok("digest", "permits", pair.file("expected.csv", rows), "--key", "guangzhou")
    return told["size"], told["root"]


def kinds(told: Any) -> list[tuple[str, str | None]]:
    found = told["comparison"]["findings"] if "comparison" in told else told["batches"][0]["findings"]
    return sorted((f["kind"], f["key"]["no"] if f["key"] else None) for f in found)


def between(party: Party, other: str, *options: str) -> tuple[int, Any]:
    ran = party.run("reconcile", "permits", "--with", other, *options, "--json")
    assert "error" not in ran.json, ran
    return ran.code, ran.json


@contextmanager
def reading(party: Party) -> Iterator[Job]:
    workspace = Workspace(party.home)
    with closing(workspace.open_store("read")) as store, open_job(workspace, store, resume=False) as job:
        yield job


def said(party: Party, other: str) -> bytes:
    with reading(party) as job:
        return statement(compare_with(job, job.workspace.catalog("permits"), other))


def sound(pair: Pair) -> None:
    for party in (pair.province, pair.city):
        ran = party.run("fsck", "--json")
        assert ran.code == 0, ran.out


def insert(pair: Pair, *rows: dict[str, str]) -> None:
    for row in rows:
        pair.sql("INSERT INTO permits VALUES (?, ?, ?, ?, ?)", *row.values())


# ---- what is folded ----


def test_the_sender_anchors_the_fold_without_withdrawals_once(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    pair.deliver("B2", [withdrawn(1), permit(2, "改名公司"), permit(20)])
    told = announce(pair)
    day = datetime.now().astimezone().strftime("%Y%m%d")
    assert told["upto"] == "B2"
    assert told["batch"].startswith(("P20", f"P{day}"))
    assert told["batch"].endswith("-1:B2")
    live = [permit(2, "改名公司"), *ROWS[2:], permit(20)]
    assert (told["size"], told["root"]) == expected(pair, live)
    again = announce(pair)
    assert (again["fresh"], again["batch"], again["anchor"]) == (False, told["batch"], told["anchor"])
    assert not list((pair.province.home / "archive").glob(f"{told['batch_id'][:16]}*"))
    (stream,) = pair.province.ok("status")["streams"]
    assert [(it["kind"], it["state"]) for it in stream["batches"]][-1] == ("snapshot", "awaiting")
    sound(pair)


def test_up_to_an_older_batch_is_the_fold_as_it_was(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    pair.deliver("B2", [withdrawn(1), permit(2, "改名公司")])
    told = announce(pair, "--batch", "b1")
    assert (told["upto"], told["size"], told["root"]) == ("B1", *expected(pair, ROWS))
    newer = announce(pair)
    assert (newer["upto"], newer["size"]) == ("B2", 7)
    assert newer["batch"].split("-")[1] == "2:B2"


def test_two_records_one_and_none(pair: Pair) -> None:
    for number, rows, left in (("B1", ROWS[:2], 2), ("B2", [withdrawn(1)], 1), ("B3", [withdrawn(2)], 0)):
        pair.deliver(number, rows)
        told = announce(pair)
        assert (told["size"], told["root"]) == (expected(pair, ROWS[2 - left : 2]) if left else (0, EMPTY_ROOT))
        code, got = answer(pair)
        assert (code, got["verdict"], got["anchor"]["root"]) == (0, "matched", told["root"])
    # Against none, a row that is there after all.
    insert(pair, ROWS[0])
    assert kinds(answer(pair)[1]) == [("not_withdrawn", "A-1")]
    sound(pair)


def test_an_own_source_has_snapshots_of_its_own(own: Pair) -> None:
    insert(own, *ROWS)
    sealed = own.city.ok("anchor", "permits")["anchored"][0]
    first = own.city.ok("snapshot", "permits")
    assert (first["size"], first["root"]) == (sealed["anchor"]["size"], sealed["anchor"]["root"])
    own.city.ok("withdraw", "permits", "A-1", "--reason", "revoked", "--by", "zhang")
    own.sql("DELETE FROM permits WHERE no = 'A-1'")
    second = own.city.ok("snapshot", "permits")
    assert second["size"] == 7
    old = own.city.ok("snapshot", "permits", "--batch", sealed["batch"])
    assert (old["fresh"], old["batch"], old["root"]) == (False, first["batch"], first["root"])
    # A snapshot carries no version: nothing of it is compared, sealed or proved.
    assert own.city.reconcile()[:2] == (0, [])
    insert(own, permit(30))
    assert own.city.ok("anchor", "permits")["anchored"][0]["anchor"]["size"] == 1
    own.city.ok("prove", "permits", "A-2", "--out", str(own.folder / "a2.json"))
    assert json.loads(json.loads((own.folder / "a2.json").read_text())["descriptor"])["kind"] == "sealed"
    assert refused(own.city, "prove", "permits", "A-2", "--batch", first["batch"]) == "prove.snapshot"
    (stream,) = own.city.ok("status")["streams"]
    shown = [it["superseded"] for it in stream["batches"] if it["kind"] == "snapshot"]
    assert shown == [True, False]
    sound(own)


def test_a_batch_that_was_revised_makes_a_revision_of_the_snapshot(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    first = announce(pair)
    assert answer(pair)[1]["verdict"] == "matched"
    path = pair.file("B1b.csv", ROWS[:-1])
    pair.province.ok("send", "permits", path, "--batch", "B1", "--to", "guangzhou")
    second = announce(pair)
    assert (second["batch_id"], second["anchor"]["revision"], second["size"]) == (first["batch_id"], 2, 7)
    code, told = answer(pair)
    assert (code, kinds(told)) == (1, [("only_ours", "A-8")])
    # The row that was lawful in the first revision is no row of a stranger: its bytes are not archived twice.
    assert not list((pair.city.home / "archive").glob(f"{second['batch_id'][:16]}*"))
    sound(pair)


def test_what_opens_a_snapshot_is_in_the_archives_of_its_batches(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    pair.deliver("B2", [withdrawn(1), permit(2, "改名公司")])
    announce(pair)
    with reading(pair.province) as job:
        catalog, stream = job.workspace.catalog("permits"), StreamId("permits", "guangdong", "guangzhou")
        keys = job.workspace.exchange_key("guangzhou").for_catalog(catalog)
        fold = fold_entries(job.book.load_stream(job.streams, stream, catalog, keys))
        numbers = [fold.known[at].announced.descriptor.batch for at in fold.batches]
        for entry, at, row in zip(fold.entries, fold.batches, fold.rows, strict=True):
            assert (fold.known[at].entries.entries[row] == entry).all()
        opened = open_entries(job.book, job.streams.batches(stream), catalog, keys, fold.entries)
        records = [open_canonical(catalog, data).values for data in opened if data is not None]
        assert sorted(str(it["no"]) for it in records) == [f"A-{n}" for n in range(2, 9)]
        assert [n for n, it in zip(numbers, records, strict=True) if it["no"] == "A-2"] == ["B2"]
        strange = fold.entries[:1].copy()
        strange[:, 40] ^= 1
        assert open_entries(job.book, job.streams.batches(stream), catalog, keys, strange) == [None]


# ---- what the receiver holds against it ----


def test_both_sides_hold_the_same(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    pair.deliver("B2", [withdrawn(1), permit(2, "改名公司")])
    told = announce(pair)
    code, got = answer(pair)
    assert (code, got["verdict"], got["upto"], got["anchor"]["root"]) == (0, "matched", "B2", told["root"])
    assert answer(pair)[1]["anchor"] == got["anchor"]
    for party, other in ((pair.province, "guangzhou"), (pair.city, "guangdong")):
        code, found = between(party, other)
        assert (code, found["verdict"], found["counts"]["matched"]) == (0, "matched", 3)
    assert said(pair.province, "guangzhou") == said(pair.city, "guangdong")
    assert pair.city.reconcile()[:2] == (0, [])
    sound(pair)


def test_what_no_batch_shows_is_caught_and_settled_when_put_right(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    pair.deliver("B2", [withdrawn(1), withdrawn(2)])
    # Behind the ledger's back: a row comes back, one is lost, one is changed, one is added.
    insert(pair, ROWS[0], permit(90, "多出公司"))
    pair.sql("DELETE FROM permits WHERE no = 'A-3'")
    pair.sql("UPDATE permits SET holder = '改名公司' WHERE no = 'A-4'")
    assert between(pair.province, "guangzhou")[0] == 0
    number = announce(pair)["batch"]
    code, told = answer(pair)
    assert (code, told["verdict"], told["comparison"]["certified"]) == (1, "differences", True)
    ours = [("differs", "A-4"), ("not_withdrawn", "A-1"), ("only_ours", "A-90"), ("only_theirs", "A-3")]
    assert kinds(told) == ours
    code, theirs = between(pair.province, "guangzhou", "--batch", number)
    assert (code, kinds(theirs)) == (
        1, [("differs", "A-4"), ("not_withdrawn", "A-1"), ("only_ours", "A-3"), ("only_theirs", None)],
    )  # fmt: skip
    assert said(pair.province, "guangzhou") == said(pair.city, "guangdong")
    sound(pair)
    pair.sql("DELETE FROM permits WHERE no IN ('A-1', 'A-90')")
    pair.sql("UPDATE permits SET holder = '甲公司' WHERE no = 'A-4'")
    insert(pair, ROWS[2])
    code, told = answer(pair, "--batch", number)
    assert (code, told["verdict"], told["anchor"]["revision"]) == (0, "matched", 2)
    assert between(pair.province, "guangzhou")[0] == 0
    sound(pair)


def test_keys_that_moved_on_are_stated_as_they_were_held(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    pair.deliver("B2", [withdrawn(8)])
    pair.deliver("B3", [withdrawn(1), permit(2, "改名公司"), permit(8, "又来公司"), permit(20)])
    told = announce(pair, "--batch", "B2")
    assert (told["size"], told["root"]) == expected(pair, ROWS[:-1])
    code, got = answer(pair)
    assert (code, got["verdict"], got["anchor"]["root"]) == (0, "matched", told["root"])
    assert announce(pair)["size"] == 8
    assert answer(pair)[1]["verdict"] == "matched"


def test_a_correction_that_lands_settles_the_snapshot_too(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    pair.sql("DELETE FROM permits WHERE no = 'A-3'")
    announce(pair)
    assert answer(pair)[0] == 1
    path = pair.file("C1.csv", [ROWS[2]])
    pair.province.ok("send", "permits", path, "--batch", "C1", "--to", "guangzhou", "--correction")
    pair.city.ok("receive", "permits", path, "--batch", "C1", "--from", "guangdong", "--load")
    for party, other in ((pair.province, "guangzhou"), (pair.city, "guangdong")):
        code, told = between(party, other)
        assert (code, told["verdict"]) == (0, "matched")
        assert [f["settled_by"] for it in told["batches"] for f in it["findings"]] == ["C1"]
    assert said(pair.province, "guangzhou") == said(pair.city, "guangdong")


def test_a_later_snapshot_settles_an_earlier_one(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    pair.sql("DELETE FROM permits WHERE no = 'A-3'")
    pair.sql("UPDATE permits SET holder = '改名公司' WHERE no = 'A-4'")
    first = announce(pair)["batch"]
    assert answer(pair)[0] == 1
    pair.deliver("B2", [permit(20)])
    pair.sql("UPDATE permits SET holder = '甲公司' WHERE no = 'A-4'")
    insert(pair, ROWS[2])
    second = announce(pair)["batch"]
    assert answer(pair)[0] == 0
    code, told = between(pair.province, "guangzhou")
    assert (code, told["verdict"]) == (0, "matched")
    found = {it["batch"]: it for it in told["batches"]}
    assert found[first]["verdict"] == "differences"
    assert [f["settled_by"] for f in found[first]["findings"]] == [second] * 2
    shown = {it["number"]: it["superseded"] for it in pair.city.ok("status")["streams"][0]["batches"]}
    assert (shown[first], shown[second], shown["B1"]) == (True, False, False)


def test_an_erased_record_is_not_held_and_no_difference_that_counts(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    pair.deliver("B2", [permit(2, "改名公司")])
    pair.sql("DELETE FROM permits WHERE no IN ('A-1', 'A-2')")
    pair.city.ok("erase", "permits", "A-1", "A-2", "--reason", "依申请", "--by", "zhang")
    # A-2 has moved on since B1: the set that said it was held does not speak for it any more.
    for upto in ("B1", "B2"):
        announce(pair, "--batch", upto)
        code, told = answer(pair)
        assert (code, told["verdict"], told["upto"], told["anchor"]["size"]) == (0, "matched", upto, 6)
        assert [f["erased"] for f in told["comparison"]["findings"]] == [True, True]
    # Back in the table, it is held, and stated; its bytes are archived nowhere.
    insert(pair, ROWS[0])
    code, told = answer(pair)
    assert told["anchor"]["size"] == 7
    sound(pair)


def test_a_row_that_only_a_snapshot_archived_is_erased_with_the_others(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    pair.sql("UPDATE permits SET holder = '改名公司' WHERE no = 'A-4'")
    told = announce(pair)
    assert answer(pair)[0] == 1

    def opened() -> list[bytes | None]:
        with reading(pair.city) as job, job.store.read() as session:
            (held,) = job.book.sets(session, told["batch_id"], "held")
            batch = job.streams.by_batch[told["batch_id"]]
            catalog = job.workspace.catalog("permits")
            keys = job.workspace.exchange_key("guangdong").for_catalog(catalog)
            entries = job.book.read_set(held)
            return open_entries(job.book, [batch], catalog, keys, entries.entries)

    # The one row that no batch archives, and no second copy of the others.
    (only,) = [data for data in opened() if data is not None]
    assert "改名公司" in only.decode()
    pair.sql("DELETE FROM permits WHERE no = 'A-4'")
    pair.city.ok("erase", "permits", "A-4", "--reason", "依申请", "--by", "zhang")
    assert [data for data in opened() if data is not None] == []
    sound(pair)


def test_a_batch_that_was_never_received_is_missing_from_what_is_held(pair: Pair) -> None:
    path = pair.file("B1.csv", ROWS)
    pair.province.ok("send", "permits", path, "--batch", "B1", "--to", "guangzhou", "--cells", "0")
    insert(pair, *ROWS[3:])
    announce(pair)
    code, told = answer(pair)
    assert (code, told["comparison"]["certified"], kinds(told)) == (1, True, [("only_theirs", None)] * 3)
    insert(pair, *ROWS[:3])
    assert answer(pair)[1]["verdict"] == "matched"
    pair.city.ok("receive", "permits", path, "--batch", "B1", "--from", "guangdong")
    sound(pair)


def test_rows_that_cannot_be_stated_are_said(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    pair.sql("UPDATE permits SET fee = 'viel' WHERE no = 'A-1'")
    insert(pair, ROWS[1])
    announce(pair)
    code, told = answer(pair)
    assert (code, told["anchor"]["size"], kinds(told)) == (1, 6, [("only_theirs", "A-1"), ("only_theirs", "A-2")])
    assert "1" in told["notes"][0]
    assert "2" in told["notes"][0]


# ---- refused by name ----


def test_there_must_be_something_to_fold(pair: Pair) -> None:
    assert refused(pair.province, "snapshot", "permits") == "snapshot.nothing"
    assert refused(pair.province, "snapshot", "permits", "--to", "guangzhou") == "snapshot.nothing"
    assert refused(pair.province, "snapshot", "permits", "--to", "guangdong") == "send.to_self"
    assert refused(pair.province, "snapshot", "permits", "--to", "nobody") == "chain.no_party"
    assert refused(pair.city, "snapshot", "permits", "--from", "guangdong") == "snapshot.not_announced"
    pair.deliver("B1", ROWS)
    told = announce(pair)["batch"]
    for number in ("B7", told):
        assert refused(pair.province, "snapshot", "permits", "--to", "guangzhou", "--batch", number) == (
            "snapshot.unknown_batch"
        )
    assert refused(pair.city, "snapshot", "permits", "--from", "guangdong", "--batch", "B1") == "snapshot.not_announced"


def test_a_stream_whose_entries_are_not_known_is_not_folded(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    pair.deliver("B2", [permit(20)])
    # The sender's store lost a batch: an old backup.
    home = pair.province.home
    with closing(sqlite3.connect(home / "store" / "ledger.db")) as store, store:
        store.execute("PRAGMA foreign_keys = OFF")
        chosen = "(SELECT id FROM batch WHERE number = 'B2')"
        store.execute(f"DELETE FROM claim WHERE batch_id IN {chosen}")
        store.execute(f"DELETE FROM entry_set WHERE batch_id IN {chosen}")
    assert refused(pair.province, "snapshot", "permits", "--to", "guangzhou") == "fold.open_batches"
    assert announce(pair, "--batch", "B1")["size"] == 8


def test_a_later_batch_that_is_not_known_must_come_first(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    announce(pair)
    path = pair.file("B2.csv", [permit(2, "改名公司")])
    pair.province.ok("send", "permits", path, "--batch", "B2", "--to", "guangzhou", "--cells", "0")
    assert refused(pair.city, "snapshot", "permits", "--from", "guangdong") == "snapshot.later_open"
    pair.city.ok("receive", "permits", path, "--batch", "B2", "--from", "guangdong", "--load")
    assert answer(pair)[1]["verdict"] == "matched"


def test_it_is_no_delivery(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    told = announce(pair)["batch"]
    path = str(pair.folder / "B1.csv")
    for words in ((), (path, "--load")):
        got = refused(pair.city, "receive", "permits", *words, "--batch", told, "--from", "guangdong")
        assert got == "receive.snapshot"
    assert refused(pair.province, "send", "permits", path, "--batch", told, "--to", "guangzhou") == "batch.number_taken"
    assert refused(pair.city, "accept", "permits", "A-1", "--reason", "x", "--by", "y") == "own.delivery_source"
    assert refused(pair.city, "reconcile", "permits", "--batch", told) == "scope.batch_unknown"
    assert pair.city.ok("prove", "permits", "A-1", "--out", str(pair.folder / "a1.json"))


def test_an_own_source_answers_nobody(own: Pair) -> None:
    assert refused(own.city, "snapshot", "permits", "--from", "guangdong") == "snapshot.own_source"


def _forged(fold: Fold) -> Fold:
    """The fold with the withdrawals of its batches among its entries."""
    gone = [it.entries.entries[it.entries.withdrawn] for it in fold.known]
    entries = np.concatenate([fold.entries, *gone])
    entries = entries[np.lexsort(tuple(entries[:, column] for column in range(63, -1, -1)))]
    return Fold(fold.known, entries, fold.batches, fold.rows)


def test_a_forged_snapshot_that_holds_a_withdrawal_is_refused(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    pair.deliver("B2", [withdrawn(1)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots, "fold_entries", lambda *words: _forged(fold_entries(*words)))
        told = announce(pair)
    assert told["size"] == 8
    # Seen in its sketch, and in its entry file.
    assert refused(pair.city, "snapshot", "permits", "--from", "guangdong") == "snapshot.withdrawal"
    path, options = str(pair.folder / "forged.parquet"), ("--batch", told["batch"])
    pair.province.ok("export", "entries", "permits", "--with", "guangzhou", *options, "--out", path)
    pair.city.ok("import", "entries", "permits", path, "--with", "guangdong", *options)
    assert refused(pair.city, "snapshot", "permits", "--from", "guangdong") == "snapshot.withdrawal"
    assert between(pair.province, "guangzhou", "--batch", told["batch"])[1]["verdict"] == "undetermined"
    ran = pair.city.run("nightly", "--json")
    assert (ran.code, [it["error"]["code"] for it in ran.json["failures"]]) == (2, ["snapshot.withdrawal"])
    ran = pair.province.run("fsck", "--json")
    assert (ran.code, {it["code"] for it in ran.json["damage"]}) == (1, {"snapshot.stray"})


def test_a_snapshot_that_is_not_the_fold_of_its_batches_is_told(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    with pytest.MonkeyPatch.context() as patch:

        def short(*words: Any) -> Fold:
            fold = fold_entries(*words)
            return Fold(fold.known, fold.entries[1:], fold.batches[1:], fold.rows[1:])

        patch.setattr(snapshots, "fold_entries", short)
        announce(pair)
    code, told = answer(pair)
    assert (code, len(kinds(told)), len(told["notes"])) == (1, 1, 1)
    assert "8" in told["notes"][0]
    pair.deliver("B2", [permit(20)])
    announce(pair)
    assert answer(pair)[1]["notes"] == []


def test_a_number_that_does_not_say_how_far_it_goes_is_refused(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    for number in ("P20260101-1:B9", "P20260101-1:", "SNAPSHOT", "P20260101-0:B1", "P20260101-2:P20260101-1:B9"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(snapshots, "free_snapshots", lambda *words, number=number: [number])
            assert announce(pair)["batch"] == number
        assert refused(pair.city, "snapshot", "permits", "--from", "guangdong") == "snapshot.unknown_batch"
    # A batch of that number that comes only afterwards is not the one.
    pair.deliver("B9", [permit(20)])
    words = ("snapshot", "permits", "--from", "guangdong", "--batch", "P20260101-1:B9")
    assert refused(pair.city, *words) == "snapshot.unknown_batch"


def test_what_only_the_receiver_anchored_under_our_name_holds_up_nothing(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    forge(pair.city, number="X1", kind="delivery")
    told = announce(pair)
    assert (told["upto"], told["size"]) == ("B1", 8)
    assert answer(pair)[1]["verdict"] == "matched"


def test_a_stream_of_nothing_but_a_snapshot_stops_nothing(pair: Pair) -> None:
    forge(pair.province, number="P20260101-1:B1", kind="snapshot")
    for party in (pair.province, pair.city):
        assert refused(party, "prove", "permits", "A-1", "--out", str(pair.folder / "x.json")) == "prove.unknown_key"
        assert party.run("status", "--json").code == 0
    ran = pair.city.run("nightly", "--json")
    assert [it["error"]["code"] for it in ran.json["failures"]] == ["snapshot.unknown_batch"]
    assert [it["verdict"] for it in ran.json["reconciled"]] == ["matched"]


def forge(party: Party, *, number: str, kind: str) -> None:
    """Anchor an empty batch in the stream from province to city, whichever of them `party` is."""
    workspace = Workspace(party.home)
    with (
        workspace.locked("test"),
        closing(workspace.open_store("write")) as store,
        open_job(workspace, store) as job,
    ):
        stream = StreamId("permits", "guangdong", "guangzhou")
        sends = job.party == stream.sender
        catalog = workspace.catalog("permits")
        key = workspace.exchange_key(stream.receiver if sends else stream.sender)
        descriptor = Descriptor(
            batch=number,
            catalog=catalog.name,
            catalog_digest=catalog.digest.hex(),
            key_id=key.id.hex(),
            kind=kind,
            period="",
            receiver=job.view.address(stream.receiver),
            sender=job.view.address(stream.sender),
        )
        with store.write() as session:
            save_batch(session, descriptor, stream, catalog)
            built = Builder(catalog, key.for_catalog(catalog)).finish()
            role: Any = "lawful" if sends else "held"
            made = job.book.save_set(session, descriptor.batch_id.hex(), role, built, None)
            propose(session, made, known_revisions=0)
        job.anchor()


# ---- the night ----


def test_the_night_answers_and_receives_no_snapshot(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    number = announce(pair)["batch"]
    attention = [it["code"] for it in pair.city.ok("status")["attention"]]
    assert attention == ["overdue.snapshot"]
    pair.sql("DELETE FROM permits WHERE no = 'A-3'")
    ran = pair.city.run("nightly", "--json")
    (told,) = ran.json["received"]
    assert (ran.code, ran.json["failures"], told["batch"], told["verdict"]) == (1, [], number, "differences")
    assert number in ran.json["received"][0]["notes"][-1]
    assert [it["code"] for it in pair.city.ok("status")["attention"]][:1] == ["snapshot.differs"]
    assert number in (pair.city.home / "briefs" / f"{ran.json['day']}.txt").read_text(encoding="utf-8")
    # Not equal yet: looked at again, and only what changed is anchored.
    ran = pair.city.run("nightly", "--json")
    assert [it["anchor"]["revision"] for it in ran.json["received"]] == [1]
    insert(pair, ROWS[2])
    ran = pair.city.run("nightly", "--json")
    assert (ran.code, [it["anchor"]["revision"] for it in ran.json["received"]]) == (0, [2])
    assert pair.city.run("nightly", "--json").json["received"] == []


def test_the_night_leaves_a_superseded_difference_alone(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    pair.sql("DELETE FROM permits WHERE no = 'A-3'")
    first = announce(pair)["batch"]
    assert answer(pair)[0] == 1
    pair.deliver("B2", [permit(20)])
    second = announce(pair)["batch"]
    told = pair.city.run("nightly", "--json").json["received"]
    assert [it["batch"] for it in told] == [second]
    assert first != second


def test_a_file_in_the_inbox_under_its_number_is_told(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    number = announce(pair)["batch"]
    folder = pair.city.home / "inbox" / "guangdong" / "permits"
    folder.mkdir(parents=True)
    (folder / f"{number}.csv").write_bytes((pair.folder / "B1.csv").read_bytes())
    ran = pair.city.run("nightly", "--json")
    assert [it["error"]["code"] for it in ran.json["failures"]] == ["receive.snapshot"]
    assert [it["verdict"] for it in ran.json["received"]] == ["matched"]


# ---- cut off ----


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("effect", EFFECTS)
def test_cut_off_anywhere_it_is_finished_by_the_next_run(pair: Pair, effect: str, when: str) -> None:
    pair.deliver("B0", ROWS)
    pair.sql("UPDATE permits SET holder = '改名公司' WHERE no = 'A-4'")
    sides = {
        "send": (pair.province, ("snapshot", "permits", "--to", "guangzhou")),
        "answer": (pair.city, ("snapshot", "permits", "--from", "guangdong")),
    }
    failed = {"send": 0, "answer": 0}
    open_sides = set(sides)
    for at in range(1, 12):
        path = pair.file("next.csv", [permit(100 + at)])
        pair.province.ok("send", "permits", path, "--batch", f"B{at}", "--to", "guangzhou")
        for side, (party, words) in sides.items():
            fault = Fault(at, when)
            if side in open_sides:
                with pytest.MonkeyPatch.context() as patch:
                    install(patch, effect, fault)
                    try:
                        party.run(*words)
                    except Killed:
                        failed[side] += 1
                if fault.calls < at:
                    open_sides.discard(side)
            ran = party.run(*words, "--json")
            assert "error" not in ran.json, ran
            assert ran.json["upto"] == f"B{at}"
            assert ran.json["anchor"]["revision"] == 1
            assert ran.json["anchor"]["size"] == (8 if side == "answer" else 8 + at)
            assert ran.code == (1 if side == "answer" else 0)
        if not open_sides:
            break
    else:
        pytest.fail("the fault never ran past the last effect")
    assert min(failed.values()) > 0
    sound(pair)


# ---- fsck, listing ----


def test_fsck_holds_our_snapshots_against_their_batches(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    told = announce(pair)
    checks = {it["name"]: it for it in pair.province.ok("fsck")["checks"]}
    assert "1" in checks["snapshots"]["detail"]
    store: Path = pair.province.home / "store" / "ledger.db"
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute(
            "UPDATE entry_set SET archive_file = o.archive_file, archive_key_wrapped = o.archive_key_wrapped FROM "
            "(SELECT archive_file, archive_key_wrapped FROM entry_set WHERE archive_file IS NOT NULL) AS o WHERE batch_id = ?",
            (told["batch_id"],),
        )
    ran = pair.province.run("fsck", "--json")
    assert ran.code == 1
    assert "snapshot.archive" in {it["code"] for it in ran.json["damage"]}


def test_a_digest_and_a_loaded_stream_know_nothing_of_snapshots(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    pair.deliver("B2", [permit(1, "改名公司") | {"uscc": "91440100123459999X"}])
    path = pair.file("B3.csv", [withdrawn(1)])
    before = pair.province.ok("digest", "permits", path, "--key", "guangzhou", "--operation-column", "operation")
    # Its copy of the first version is the newest set in the store, and the oldest version.
    announce(pair, "--batch", "B1")
    after = pair.province.ok("digest", "permits", path, "--key", "guangzhou", "--operation-column", "operation")
    assert after == before
    sent = pair.province.ok("send", "permits", path, "--batch", "B3", "--to", "guangzhou")
    assert sent["root"] == before["root"]


def test_which_snapshot_is_left_behind_by_which_party(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    pair.deliver("B2", [permit(20)])
    newer = announce(pair)["batch_id"]
    answer(pair)
    older = announce(pair, "--batch", "B1")["batch_id"]
    with reading(pair.city) as job:

        def left(batch_id: str, party: str) -> list[str]:
            batch: AnnouncedBatch = job.streams.by_batch[batch_id]
            return [it.batch_id for it in job.streams.superseding(batch, party)]

        # Anchored later, and folding further: each leaves the other behind, so that neither passes for the newest.
        assert left(newer, "guangdong") == [older]
        assert left(older, "guangdong") == [newer]
        assert left(newer, "guangzhou") == []
        assert left(older, "guangzhou") == []
        assert [job.streams.reach(job.streams.by_batch[it]) for it in (newer, older)] == [2, 1]


def test_a_snapshot_that_both_hold_alike_ends_what_an_older_batch_left_different(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    path = pair.file("B2.csv", [permit(20), permit(21)])
    pair.province.ok("send", "permits", path, "--batch", "B2", "--to", "guangzhou")
    # A row is lost under way; the sender sends it again.
    lost = pair.file("lost.csv", [permit(20)])
    pair.city.run("receive", "permits", lost, "--batch", "B2", "--from", "guangdong", "--load")
    pair.deliver("B3", [permit(21)])
    for party in (pair.city, pair.province):
        assert any(it["where"] == "permits B2" for it in party.ok("status")["attention"])
    announce(pair)
    assert answer(pair)[1]["verdict"] == "matched"
    for party in (pair.city, pair.province):
        told = party.ok("status")
        assert not any(it["where"] == "permits B2" for it in told["attention"])
        states = {it["number"]: it["settled_by"] for stream in told["streams"] for it in stream["batches"]}
        assert [number for number, by in states.items() if by] == ["B2"]
