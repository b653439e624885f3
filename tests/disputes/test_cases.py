"""Disputes on chain, from the first difference to the reference to both anchors (design section 4)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import Pair, Party, permit, withdrawn
from tests.twoparty.conftest import Channel, channel, found

__all__ = ["channel"]

ROWS = [permit(n) for n in range(1, 21)]


def attest(party: Party, other: str, *options: str) -> Any:
    return party.ok("attest", "permits", "--with", other, *options)


def opened(channel: Channel, *keys: str) -> Any:
    return channel.city.ok("dispute", "open", "permits", *keys, "--with", "guangdong", "--batch", "B1")


def refused(party: Party, *words: str) -> str:
    ran = party.run(*words, "--json")
    assert ran.code == 2, ran
    return str(ran.json["error"]["code"])


@pytest.fixture
def spoilt(channel: Channel) -> Channel:
    """B1 of twenty records, of which three were lost and one was altered on the way."""
    channel.send("B1", ROWS)
    channel.land("B1", [permit(4, "改名公司"), *ROWS[4:]])
    channel.receive("B1")
    return channel


def test_the_typical_end(spoilt: Channel) -> None:
    channel = spoilt
    one, other = attest(channel.province, "guangzhou"), attest(channel.city, "guangdong")
    assert one["statement"] == other["statement"]
    assert (one["signed_by_both"], other["signed_by_both"]) == (False, True)
    assert attest(channel.province, "guangzhou")["fresh"] is False
    case = opened(channel)
    assert (case["id"], case["state"], case["counts"]) == (1, "open", True)
    assert sorted(f["kind"] for f in case["findings"]) == ["differs", "only_sender", "only_sender", "only_sender"]
    evidence = channel.city.home / "evidence" / f"{case['evidence']}.json"
    assert json.loads(evidence.read_bytes())["format"] == "duizhang-statement/1"
    assert [it["id"] for it in channel.province.ok("dispute", "list")["disputes"]] == [1]
    out = str(channel.pair.folder / "C1.csv")
    told = channel.province.ok("dispute", "answer", "1", "--resend", "C1", "--out", out)
    assert (told["state"], told["resent"]["records"]) == ("answered", 4)
    rows = channel.resent(out)
    assert sorted(row["no"] for row in rows) == ["A-1", "A-2", "A-3", "A-4"]
    assert refused(channel.city, "dispute", "close", "1", "--settled-by", "C1") == "dispute.no_settling_batch"
    channel.pair.sql("DELETE FROM permits WHERE no = 'A-4'")
    channel.land("C1", rows)
    assert channel.receive("C1")[1]["verdict"] == "matched"
    assert channel.city.reconcile()[:2] == (0, [])
    code, told = channel.between(channel.city)
    assert (code, {f["settled_by"] for f in told["batches"][0]["findings"]}) == (0, {"C1"})
    ended = channel.city.ok("dispute", "close", "1", "--settled-by", "C1")
    assert ended["closing"]["outcome"] == "settled"
    assert set(ended["closing"]["anchors"]) == {"guangdong", "guangzhou"}
    for party in (channel.province, channel.city):
        assert party.ok("dispute", "list")["disputes"] == []
        shown = party.ok("dispute", "show", "1")
        assert [a["answer"] for a in shown["answers"]] == ["resend"]
        assert shown["closing"]["batch_id"] == told["batches"][1]["batch_id"]
        assert party.run("dispute", "show", "1").code == 0
        assert party.run("fsck").code == 0
    assert attest(channel.province, "guangzhou")["statement"] == attest(channel.city, "guangdong")["statement"]


def test_who_may_not_is_told_so_before_anything_is_sent(spoilt: Channel) -> None:
    opened(spoilt, "A-4")
    assert refused(spoilt.city, "dispute", "answer", "1", "--concede") == "dispute.not_respondent"
    assert refused(spoilt.province, "dispute", "close", "1", "--withdrawn") == "dispute.not_opener"
    assert refused(spoilt.city, "dispute", "close", "1", "--accepted") == "dispute.not_answered"
    assert refused(spoilt.city, "dispute", "close", "7", "--withdrawn") == "dispute.unknown"
    assert (
        refused(spoilt.city, "dispute", "open", "permits", "A-4", "--with", "guangdong", "--batch", "B1")
        == "dispute.already_open"
    )
    assert (
        refused(spoilt.city, "dispute", "open", "permits", "A-9", "--with", "guangdong", "--batch", "B1")
        == "dispute.no_finding"
    )
    spoilt.province.ok("dispute", "answer", "1", "--reject")
    assert spoilt.province.ok("dispute", "answer", "1", "--reject")["fresh"] is False
    assert spoilt.city.ok("dispute", "close", "1", "--accepted")["state"] == "closed"
    assert refused(spoilt.province, "dispute", "answer", "1", "--concede") == "dispute.closed"
    assert refused(spoilt.city, "dispute", "close", "1", "--withdrawn") == "dispute.closed"


def test_what_is_not_certified_is_not_disputed_and_not_stated(channel: Channel) -> None:
    channel.send("B1", ROWS, "--cells", "4")
    channel.land("B1", ROWS[6:])
    channel.receive("B1")
    assert refused(channel.city, "dispute", "open", "permits", "--with", "guangdong", "--batch", "B1") in (
        "dispute.not_certified",
        "dispute.nothing",
    )
    assert refused(channel.city, "attest", "permits", "--with", "guangdong") == "statement.open"


def test_the_sender_may_open_too_and_nothing_that_agrees_is_disputed(channel: Channel) -> None:
    channel.send("B1", ROWS)
    channel.land("B1", [*ROWS, permit(99)])
    channel.receive("B1")
    case = channel.province.ok("dispute", "open", "permits", "--with", "guangzhou", "--batch", "B1")
    assert [f["kind"] for f in case["findings"]] == ["only_receiver"]
    assert refused(channel.city, "dispute", "answer", "1", "--resend", "C1") == "dispute.not_sender"
    channel.city.ok("dispute", "answer", "1", "--concede")
    channel.pair.sql("DELETE FROM permits WHERE no = 'A-99'")
    assert channel.receive("B1")[1]["verdict"] == "matched"
    assert channel.province.ok("dispute", "close", "1", "--settled-by", "B1")["closing"]["outcome"] == "settled"
    assert (
        refused(channel.province, "dispute", "open", "permits", "--with", "guangzhou", "--batch", "B1")
        == "dispute.nothing"
    )


def test_a_withdrawal_is_not_sent_again(channel: Channel) -> None:
    channel.send("B1", ROWS)
    channel.land("B1", ROWS)
    channel.receive("B1")
    channel.send("B2", [withdrawn(1)])
    channel.receive("B2")
    case = channel.province.ok("dispute", "open", "permits", "--with", "guangzhou", "--batch", "B2")
    assert [f["kind"] for f in case["findings"]] == ["not_withdrawn"]
    channel.city.ok("dispute", "answer", "1", "--concede")
    channel.pair.sql("DELETE FROM permits WHERE no = 'A-1'")
    channel.receive("B2")
    assert channel.province.ok("dispute", "close", "1", "--settled-by", "B2")["state"] == "closed"
    assert found(channel.between(channel.city)[1], "B2") == []


def test_a_workspace_without_a_dispute_registry_says_what_to_do(pair: Pair) -> None:
    config = pair.city.home / "duizhang.toml"
    text = config.read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith("disputes"))
    config.write_text(text.replace(line, ""), encoding="utf-8")
    assert refused(pair.city, "dispute", "list") == "dispute.no_registry"
    contract = next(line for line in text.splitlines() if line.startswith("contract")).partition("=")[2].strip()
    config.write_text(text.replace(line, f"disputes = {contract}"), encoding="utf-8")
    assert refused(pair.city, "dispute", "list") == "chain.no_disputes"
