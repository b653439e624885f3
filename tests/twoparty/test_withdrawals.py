"""Withdrawals travel: what its sender takes back is `not_withdrawn` where it still is, and matched once it is gone, in whatever order."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from ledger.record import REASONS
from tests.conftest import Pair, permit, withdrawn
from tests.twoparty.conftest import Channel


def send(pair: Pair, number: str, rows: list[dict[str, str]]) -> str:
    path = pair.file(f"{number}.csv", rows)
    pair.province.ok("send", "permits", path, "--batch", number, "--to", "guangzhou")
    return path


def receive(pair: Pair, number: str, *options: str) -> tuple[int, Any]:
    path = str(pair.folder / f"{number}.csv")
    ran = pair.city.run("receive", "permits", path, "--batch", number, "--from", "guangdong", *options, "--json")
    return ran.code, ran.json


def test_each_reason_is_not_withdrawn_while_the_row_is_there_and_matched_when_it_is_gone(pair: Pair) -> None:
    pair.deliver("B1", [permit(n) for n in range(1, 7)])
    send(pair, "B2", [withdrawn(n, reason) for n, reason in enumerate(REASONS, 1)])
    code, told = receive(pair, "B2")
    expected = [("not_withdrawn", f"A-{n}", reason) for n, reason in enumerate(REASONS, 1)]

    def found(report: Any) -> list[tuple[str, str, str]]:
        return [(f["kind"], f["key"]["no"], f["reason"]["value"]) for f in report["findings"]]

    assert (code, told["verdict"], found(told)) == (1, "differences", expected)
    report = pair.city.run("reconcile", "permits", "--json").json
    assert found(report) == expected
    assert report["counts"]["not_withdrawn"] == 5
    table = pair.city.run("reconcile", "permits").out
    for words in ("已修复", "已撤销", "已到期", "发送方已删除", "差错"):
        assert words in table
    pair.sql("DELETE FROM permits WHERE no <> 'A-6'")
    code, told = receive(pair, "B2")
    assert (code, told["verdict"], told["provisional"]) == (0, "matched", False)
    assert pair.city.reconcile()[:2] == (0, [])


def test_where_the_sender_erased_the_receiver_is_asked_to_erase_as_well(pair: Pair) -> None:
    pair.deliver("B1", [permit(1), permit(2)])
    send(pair, "B2", [withdrawn(1, "erased"), withdrawn(2, "repaired")])
    assert receive(pair, "B2", "--load")[0] == 0
    report = pair.city.ok("reconcile", "permits")
    (note,) = report["notes"]
    assert ("A-1" in note["zh"], "A-2" in note["zh"], "duizhang erase permits" in note["zh"]) == (True, False, True)
    pair.city.ok("erase", "permits", "A-1", "--reason", "发送方已删除", "--by", "张三")
    assert pair.city.ok("reconcile", "permits")["notes"] == []
    assert pair.city.run("fsck", "--json").json["verdict"] == "clean"


def test_a_withdrawn_record_that_is_sent_again_lives_again(pair: Pair) -> None:
    pair.deliver("B1", [permit(1), permit(2)])
    send(pair, "B2", [withdrawn(1, "repaired")])
    assert receive(pair, "B2", "--load")[0] == 0
    send(pair, "B3", [permit(1, "新名公司")])
    assert receive(pair, "B3")[1]["findings"][0]["kind"] == "missing"
    assert pair.city.reconcile()[1] == [("missing", "A-1")]
    assert receive(pair, "B3", "--load")[0] == 0
    assert pair.city.reconcile()[:2] == (0, [])


def test_one_batch_does_not_send_and_withdraw_one_record(pair: Pair) -> None:
    pair.deliver("B1", [permit(1), permit(2)])
    path = pair.file("B2.csv", [permit(1, "新名公司"), withdrawn(1)])
    ran = pair.province.run("send", "permits", path, "--batch", "B2", "--to", "guangzhou", "--json")
    assert (ran.code, ran.json["error"]["code"], "A-1" in ran.json["error"]["message"]) == (
        2,
        "batch.duplicate_key",
        True,
    )
    # Nor does a file that claims to be such a batch get anywhere.
    send(pair, "B2", [permit(1, "新名公司")])
    pair.file("B2.csv", [permit(1, "新名公司"), withdrawn(1)])
    code, told = receive(pair, "B2", "--load")
    assert (code, told["error"]["code"]) == (2, "batch.duplicate_key")
    assert pair.city.run("reconcile", "permits", "--json").json["verdict"] == "undetermined"


def test_a_withdrawal_before_its_record_waits_for_the_earlier_batch(pair: Pair) -> None:
    send(pair, "B1", [permit(1), permit(2)])
    send(pair, "B2", [withdrawn(1)])
    code, told = receive(pair, "B2", "--load")
    assert (code, told["error"]["code"], "B1" in told["error"]["message"]) == (2, "receive.earlier_batch_first", True)
    assert receive(pair, "B1", "--load")[0] == 0
    assert receive(pair, "B2", "--load")[0] == 0
    assert pair.city.reconcile()[:2] == (0, [])
    # A withdrawal of what nobody ever sent stays a bad row.
    path = pair.file("B3.csv", [withdrawn(9)])
    ran = pair.province.run("send", "permits", path, "--batch", "B3", "--to", "guangzhou", "--json")
    assert ran.json["error"]["code"] == "file.bad_rows"


def test_the_night_takes_waiting_files_in_the_order_of_the_stream(pair: Pair) -> None:
    inbox = pair.city.home / "inbox" / "guangdong" / "permits"
    inbox.mkdir(parents=True)
    # By name the withdrawal comes first.
    for number, rows in (("B9", [permit(1), permit(2)]), ("B10", [withdrawn(1)])):
        shutil.copy(send(pair, number, rows), inbox)
    pair.sql("INSERT INTO permits VALUES (?, ?, ?, ?, ?)", *permit(2).values())
    night = pair.city.run("nightly", "--json").json
    assert (night["failures"], [it["batch"] for it in night["received"]]) == ([], ["B9", "B10"])
    assert night["received"][1]["verdict"] == "matched"
    assert pair.city.reconcile()[:2] == (0, [])


def test_a_late_withdrawal_takes_nothing_from_what_was_sent_after_it(pair: Pair) -> None:
    pair.deliver("B1", [permit(1), permit(2)])
    send(pair, "B2", [withdrawn(1), withdrawn(2)])
    send(pair, "B3", [permit(1, "新名公司")])
    assert receive(pair, "B3", "--load")[0] == 0
    assert pair.city.run("reconcile", "permits", "--json").json["verdict"] == "undetermined"
    assert receive(pair, "B2", "--load")[1]["findings"] == []
    with closing(sqlite3.connect(pair.database)) as connection:
        assert connection.execute("SELECT no, holder FROM permits").fetchall() == [("A-1", "新名公司")]
    assert pair.city.reconcile()[:2] == (0, [])


def test_a_withdrawal_is_learnt_from_the_chain_alone(channel: Channel) -> None:
    channel.send("B1", [permit(1), permit(2)])
    channel.land("B1", [permit(1), permit(2)])
    channel.city.ok("receive", "permits", "--batch", "B1", "--from", "guangdong")
    channel.send("B2", [withdrawn(1, "repaired"), permit(3)])
    channel.land("B2", [permit(3)])
    told = channel.city.run("receive", "permits", "--batch", "B2", "--from", "guangdong", "--json").json
    assert [(f["kind"], f["key"]["no"], f["reason"]["value"]) for f in told["findings"]] == [
        ("not_withdrawn", "A-1", "repaired")
    ]
    channel.pair.sql("DELETE FROM permits WHERE no = 'A-1'")
    told = channel.city.ok("receive", "permits", "--batch", "B2", "--from", "guangdong")
    assert told["verdict"] == "matched"


@pytest.mark.parametrize("reason", ["repaired", "erased"])
def test_what_was_withdrawn_at_home_is_due_where_it_was_delivered(own: Pair, reason: str) -> None:
    for n in (1, 2):
        own.sql("INSERT INTO permits VALUES (?, ?, ?, ?, ?)", *permit(n).values())
    own.city.ok("anchor")
    path = own.file("B1.csv", [permit(1), permit(2)])
    own.city.ok("send", "permits", path, "--batch", "B1", "--to", "guangdong")

    def due() -> list[str]:
        attention = own.city.run("status", "--json").json["attention"]
        return [it["message"] for it in attention if it["code"].startswith("due.")]

    assert due() == []
    own.sql("DELETE FROM permits WHERE no = 'A-1'")
    own.city.ok("withdraw", "permits", "A-1", "--reason", reason, "--by", "张三")
    (message,) = due()
    assert "guangdong" in message
    assert f"A-1（{reason}）" in message
    night = own.city.run("nightly", "--json")
    assert [(it["to"], it["key"], it["reason"]) for it in night.json["due"]] == [("guangdong", {"no": "A-1"}, reason)]
    assert night.code == 0
    assert f"A-1（{reason}）" in (next((own.city.home / "briefs").glob("*.txt"))).read_text(encoding="utf-8")
    if reason == "erased":
        # Erased before it was sent: who must be told is still known, by the tag.
        own.city.run("erase", "permits", "A-1", "--reason", "本人申请", "--by", "张三")
        (message,) = due()
        assert "A-1" not in message
    path = own.file("B2.csv", [withdrawn(1, reason)])
    own.city.ok("send", "permits", path, "--batch", "B2", "--to", "guangdong")
    assert due() == []
    assert own.city.run("fsck", "--json").json["verdict"] == "clean"
