"""Party against party: two databases, one chain, and nothing else (design section 4, formats F6)."""

from __future__ import annotations

import hashlib
import json
from contextlib import closing

from ledger.batch.job import open_job
from ledger.counterpart.compare import compare_with
from ledger.counterpart.statement import statement
from ledger.workspace import Workspace
from tests.conftest import Pair, Party, permit, withdrawn
from tests.twoparty.conftest import Channel, found

ROWS = [permit(n) for n in range(1, 41)]


def state(party: Party, other: str, number: str | None = None) -> bytes:
    workspace = Workspace(party.home)
    with (
        closing(workspace.open_store("read")) as store,
        open_job(workspace, store, resume=False) as job,
    ):
        return statement(compare_with(job, workspace.catalog("permits"), other, number=number))


def test_the_chain_and_the_own_rows_name_every_difference(channel: Channel) -> None:
    channel.send("B1", ROWS)
    # Lost: 1 and 2; altered: 3; added: 99.
    channel.land("B1", [permit(3, "改名公司"), *ROWS[3:], permit(99, "多出公司")])
    code, told = channel.receive("B1")
    assert (code, told["verdict"]) == (1, "differences")
    kinds = sorted((f["kind"], f["key"]["no"] if f["key"] else None) for f in told["findings"])
    assert kinds == [("altered", "A-3"), ("missing", None), ("missing", None), ("unanchored", "A-99")]
    assert [party.run("fsck").code for party in (channel.city, channel.province)] == [0, 0]
    code, ours = channel.between(channel.city)
    assert (code, ours["verdict"]) == (1, "differences")
    assert found(ours, "B1") == [
        ("differs", "A-3"),
        ("only_ours", "A-99"),
        ("only_theirs", None),
        ("only_theirs", None),
    ]
    code, theirs = channel.between(channel.province)
    assert (code, theirs["verdict"]) == (1, "differences")
    assert found(theirs, "B1") == [
        ("differs", "A-3"), ("only_ours", "A-1"), ("only_ours", "A-2"), ("only_theirs", None),
    ]  # fmt: skip


def test_both_sides_write_the_same_statement(channel: Channel) -> None:
    channel.send("B1", ROWS)
    channel.land("B1", [*ROWS[1:], permit(99)])
    channel.receive("B1")
    one, other = state(channel.city, "guangdong"), state(channel.province, "guangzhou")
    assert one == other
    told = json.loads(one)
    assert one == json.dumps(told, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    (batch,) = told["batches"]
    assert (len(batch["only_sender"]), len(batch["only_receiver"]), batch["differs"]) == (1, 1, [])
    assert hashlib.sha256(one).digest() == hashlib.sha256(other).digest()


def test_a_correction_that_lands_settles_what_it_carries(channel: Channel) -> None:
    channel.send("B1", ROWS)
    channel.land("B1", ROWS[2:])
    channel.receive("B1")
    channel.send("C1", ROWS[:2], "--correction")
    channel.land("C1", ROWS[:2])
    code, told = channel.receive("C1")
    assert (code, told["verdict"]) == (0, "matched")
    for party in (channel.city, channel.province):
        code, told = channel.between(party)
        assert (code, told["verdict"]) == (0, "matched")
        first = told["batches"][0]
        assert first["verdict"] == "differences"
        assert [f["settled_by"] for f in first["findings"]] == ["C1", "C1"]
    assert state(channel.city, "guangdong") == state(channel.province, "guangzhou")
    assert state(channel.city, "guangdong", "B1") == state(channel.province, "guangzhou", "B1")
    assert channel.city.reconcile()[:2] == (0, [])


def test_too_many_differences_are_said_to_be_a_part_until_the_entry_file_comes(channel: Channel) -> None:
    channel.send("B1", ROWS, "--cells", "16")
    channel.land("B1", ROWS[20:])
    code, told = channel.receive("B1")
    assert (code, told["verdict"]) == (1, "differences_partial")
    for party in (channel.city, channel.province):
        code, told = channel.between(party)
        assert (code, told["verdict"]) == (1, "differences_partial")
        assert "20" in told["batches"][0]["notes"][0]["zh"]
    entries = str(channel.pair.folder / "B1.parquet")
    channel.province.ok("export", "entries", "permits", "--with", "guangzhou", "--batch", "B1", "--out", entries)
    channel.city.ok("import", "entries", "permits", entries, "--with", "guangdong", "--batch", "B1")
    code, told = channel.between(channel.city)
    assert (code, told["verdict"]) == (1, "differences")
    assert found(told, "B1") == [("only_theirs", None)] * 20
    code, told = channel.receive("B1")
    assert (code, told["verdict"], len(told["findings"])) == (1, "differences", 20)
    back = str(channel.pair.folder / "held.parquet")
    channel.city.ok("export", "entries", "permits", "--with", "guangdong", "--batch", "B1", "--out", back)
    channel.province.ok("import", "entries", "permits", back, "--with", "guangzhou", "--batch", "B1")
    code, told = channel.between(channel.province)
    assert found(told, "B1") == sorted(("only_ours", f"A-{n}") for n in range(1, 21))
    assert state(channel.city, "guangdong") == state(channel.province, "guangzhou")
    assert [party.run("fsck").code for party in (channel.city, channel.province)] == [0, 0]


def test_an_entry_file_counts_only_under_its_anchored_root(channel: Channel) -> None:
    channel.send("B1", ROWS, "--cells", "0")
    channel.send("B2", ROWS[:5], "--cells", "0")
    channel.land("B1", ROWS[:3])
    assert channel.receive("B1")[1]["verdict"] == "differences_partial"
    code, told = channel.between(channel.city, "--batch", "B1")
    assert (code, told["verdict"], told["batches"][0]["findings"]) == (1, "differences_partial", [])
    entries = str(channel.pair.folder / "B2.parquet")
    channel.province.ok("export", "entries", "permits", "--with", "guangzhou", "--batch", "B2", "--out", entries)
    ran = channel.city.run("import", "entries", "permits", entries, "--with", "guangdong", "--batch", "B1", "--json")
    assert (ran.code, ran.json["error"]["code"]) == (2, "entries.root")
    (channel.pair.folder / "no.parquet").write_bytes(b"PAR1 nothing")
    ran = channel.city.run("import", "entries", "permits", str(channel.pair.folder / "no.parquet"), "--with", "guangdong", "--batch", "B1", "--json")  # fmt: skip
    assert (ran.code, ran.json["error"]["code"]) == (2, "entries.file")
    assert channel.between(channel.city, "--batch", "B1")[1]["verdict"] == "differences_partial"


def test_withdrawals_are_told_from_records_without_the_file(channel: Channel) -> None:
    channel.send("B1", ROWS)
    channel.land("B1", ROWS)
    assert channel.receive("B1")[1]["verdict"] == "matched"
    channel.send("B2", [withdrawn(1), withdrawn(2, "repaired"), permit(3, "新名称"), permit(50)])
    # One withdrawal was carried out, the other was not; the new version and the new record landed.
    channel.pair.sql("DELETE FROM permits WHERE no IN ('A-1', 'A-3')")
    channel.land("B2", [permit(3, "新名称"), permit(50)])
    code, told = channel.receive("B2")
    assert (code, [(f["kind"], f["key"]["no"]) for f in told["findings"]]) == (1, [("not_withdrawn", "A-2")])
    code, told = channel.between(channel.city, "--batch", "B2")
    assert found(told, "B2") == [("not_withdrawn", "A-2")]
    code, told = channel.between(channel.province, "--batch", "B2")
    assert found(told, "B2") == [("not_withdrawn", "A-2")]
    assert channel.city.reconcile()[:2] == (1, [("not_withdrawn", "A-2")])
    channel.pair.sql("DELETE FROM permits WHERE no = 'A-2'")
    assert channel.receive("B2")[1]["verdict"] == "matched"
    assert channel.between(channel.province)[0] == 0
    assert channel.city.run("fsck").code == 0


def test_a_batch_lost_whole_is_named_record_by_record(channel: Channel) -> None:
    channel.send("B1", ROWS[:10])
    code, told = channel.receive("B1")
    assert (code, told["verdict"], len(told["findings"])) == (1, "differences", 10)
    assert {f["kind"] for f in told["findings"]} == {"missing"}
    assert told["anchor"]["size"] == 0


def test_rows_without_a_batch_column_are_found_by_the_sketch(pair: Pair) -> None:
    pair.province.ok("send", "permits", pair.file("B1.csv", ROWS), "--batch", "B1", "--to", "guangzhou")
    for row in [permit(1, "改名公司"), *ROWS[2:], permit(77)]:
        pair.sql("INSERT INTO permits VALUES (?, ?, ?, ?, ?)", *row.values())
    ran = pair.city.run("receive", "permits", "--batch", "B1", "--from", "guangdong", "--json")
    assert (ran.code, ran.json["verdict"]) == (1, "differences")
    kinds = [(f["kind"], f["key"]["no"] if f["key"] else None) for f in ran.json["findings"]]
    assert ("altered", "A-1") in kinds
    assert ("missing", None) in kinds


def test_what_is_not_between_the_two_is_refused_by_name(pair: Pair) -> None:
    for options, code in (
        (("--with", "guangdong"), "counterpart.nothing"),
        (("--with", "guangzhou"), "counterpart.self"),
        (("--with", "nobody"), "chain.no_party"),
        (("--with", "guangdong", "--since", "2022-01-01"), "usage"),
    ):
        ran = pair.city.run("reconcile", "permits", *options, "--json")
        assert (ran.code, ran.json["error"]["code"]) == (2, code)


def test_a_batch_that_only_one_side_anchored_is_undetermined(channel: Channel) -> None:
    channel.send("B1", ROWS[:3])
    code, told = channel.between(channel.province)
    assert (code, told["verdict"]) == (2, "undetermined")
    assert json.loads(state(channel.province, "guangzhou"))["batches"][0]["receiver"]["anchor"] is None
