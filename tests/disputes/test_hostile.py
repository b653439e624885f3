"""What a hostile, careless or confused side does with disputes, and what it gets."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ledger.chain.disputes import encode_attest
from ledger.cli import main
from ledger.delivery import closing
from tests.conftest import CATALOG, Party, permit
from tests.disputes.conftest import ROWS, dispute, open_raw, refused, speak
from tests.twoparty.conftest import Channel


def anchors(party: Party, number: str) -> tuple[int, str]:
    """Revision and root of what the province anchored under a number."""
    told = party.run("reconcile", "permits", "--with", "guangzhou", "--batch", number, "--json").json
    ours = told["batches"][0]["ours"]
    return ours["revision"], ours["root"]


@pytest.fixture
def shenzhen(lost: Channel) -> Party:
    """A third party on the same chain."""
    folder = lost.pair.folder
    lost.province.ok("party", "add", "shenzhen", "--out", str(folder / "sz.join"))
    assert main(["init", str(folder / "shenzhen"), "--join", str(folder / "sz.join"), "--json"]) == 0
    (folder / "shenzhen" / "catalogs" / "permits.toml").write_text(CATALOG, encoding="utf-8")
    return Party(folder / "shenzhen")


# ---- sending again ----


def test_a_correction_number_that_holds_other_records_is_not_revised(lost: Channel) -> None:
    one, other, _ = tags(lost, 3)
    dispute(lost.city, one)
    dispute(lost.city, other)
    province, out = lost.province, lost.pair.folder
    province.ok("dispute", "answer", "1", "--resend", "C1", "--out", str(out / "one.csv"))
    before = anchors(province, "C1")
    code = refused(province, "dispute", "answer", "2", "--resend", "C1", "--out", str(out / "two.csv"))
    assert code == "dispute.number_taken"
    assert anchors(province, "C1") == before
    assert not (out / "two.csv").exists()
    assert refused(province, "dispute", "answer", "2", "--resend", "B1") == "batch.number_taken"
    told = province.ok("dispute", "answer", "2", "--resend", "C2", "--out", str(out / "two.csv"))
    assert told["resent"]["records"] == 1


def tags(channel: Channel, count: int) -> list[str]:
    """Key tags of the first `count` records that the city lacks; it knows no more of them."""
    told = channel.between(channel.city, "--batch", "B1")[1]["batches"][0]["findings"]
    return sorted(it["key_tag"] for it in told)[:count]


def test_an_answer_that_was_interrupted_is_given_again_with_the_same_file(
    lost: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispute(lost.city)
    words = ("dispute", "answer", "1", "--resend", "C1", "--out", str(lost.pair.folder / "C1.csv"))

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("ledger.dispute.act.send", die)
        assert lost.province.run(*words).code == 2
    written = (lost.pair.folder / "C1.csv").read_bytes()
    before = anchors(lost.province, "C1")
    told = lost.province.ok(*words)
    assert (told["fresh"], told["state"], told["resent"]["records"]) == (True, "answered", 3)
    assert (lost.pair.folder / "C1.csv").read_bytes() == written
    assert anchors(lost.province, "C1") == before
    assert lost.province.ok(*words)["fresh"] is False


def test_a_file_of_something_else_is_not_overwritten_and_nothing_is_sent(lost: Channel) -> None:
    dispute(lost.city)
    out = lost.pair.folder / "C1.csv"
    out.write_bytes(b"something else")
    assert refused(lost.province, "dispute", "answer", "1", "--resend", "C1", "--out", str(out)) == "dispute.out_exists"
    assert out.read_bytes() == b"something else"
    assert lost.province.ok("dispute", "show", "1")["state"] == "open"
    assert (
        refused(lost.province, "reconcile", "permits", "--with", "guangzhou", "--batch", "C1") == "counterpart.nothing"
    )


def test_a_key_named_twice_by_a_hostile_opener_is_sent_once(lost: Channel) -> None:
    (tag,) = tags(lost, 1)
    batch_id = lost.between(lost.city)[1]["batches"][0]["batch_id"]
    open_raw(lost.city, batch_id, "guangdong", [("only_sender", tag), ("differs", tag), ("only_sender", "00" * 16)])
    out = str(lost.pair.folder / "C1.csv")
    told = lost.province.ok("dispute", "answer", "1", "--resend", "C1", "--out", out)
    assert (told["resent"]["records"], told["resent"]["left_out"]) == (1, ["00" * 16])
    assert len(lost.resent(out)) == 1


def test_the_file_and_the_evidence_are_for_the_owner_alone(lost: Channel) -> None:
    case = dispute(lost.city)
    out = lost.pair.folder / "C1.csv"
    lost.province.ok("dispute", "answer", "1", "--resend", "C1", "--out", str(out))
    evidence = lost.city.home / "evidence" / f"{case['evidence']}.json"
    for path in (out, evidence):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(evidence.parent.stat().st_mode) == 0o700


def test_what_is_sent_again_comes_out_of_the_file_byte_for_byte(lost: Channel) -> None:
    """Line breaks, quotes, commas, a leading equals sign, an empty field: the channel's file gives the anchored root."""
    odd = [
        {**permit(50), "holder": '甲"乙", 丙\n丁'},
        {**permit(51), "holder": "=1+1", "fee": ""},
        {**permit(52), "uscc": "", "decided_on": ""},
    ]
    lost.send("B2", [*odd, permit(53)])
    lost.land("B2", [permit(53)])
    lost.receive("B2")
    dispute(lost.city, batch="B2")
    out = str(lost.pair.folder / "C2.csv")
    root = lost.province.ok("dispute", "answer", "1", "--resend", "C2", "--out", out)["resent"]
    told = lost.province.ok("digest", "permits", out, "--key", "guangzhou")
    assert (told["size"], root["records"]) == (3, 3)
    assert told["root"] == anchors(lost.province, "C2")[1]
    lost.land("C2", odd)
    assert lost.receive("C2")[1]["verdict"] == "matched"


def test_the_version_that_is_live_is_sent_not_the_one_that_was_disputed(lost: Channel) -> None:
    dispute(lost.city)
    newer = [permit(1, "新名称")]
    lost.send("B2", newer)
    out = str(lost.pair.folder / "C1.csv")
    lost.province.ok("dispute", "answer", "1", "--resend", "C1", "--out", out)
    assert {row["no"]: row["holder"] for row in lost.resent(out)} == {"A-1": "新名称", "A-2": "甲公司", "A-3": "甲公司"}


# ---- opening ----


def test_what_cannot_be_told_is_never_called_agreement(channel: Channel) -> None:
    channel.send("B1", ROWS, "--cells", "0")
    words = ("dispute", "open", "permits", "--batch", "B1", "--with")
    assert refused(channel.province, *words, "guangzhou") == "dispute.undetermined"
    channel.land("B1", ROWS[3:])
    channel.receive("B1")
    assert refused(channel.city, *words, "guangdong") == "dispute.not_certified"


def test_a_number_used_in_both_directions_is_told_apart_by_the_keys(lost: Channel) -> None:
    """The city sends the province a B1 of its own, and both differ."""
    province, city = lost.province, lost.city
    database = lost.pair.folder / "province.db"
    database.write_bytes(lost.pair.database.read_bytes())
    source = f'\n[source.permits]\nurl = "sqlite:///{database}"\ntable = "permits"\norigin = "delivery"\nbatch_column = "batch_no"\n'
    config = province.home / "duizhang.toml"
    config.write_text(config.read_text(encoding="utf-8") + source, encoding="utf-8")
    path = lost.pair.file("back.csv", [permit(70), *ROWS[3:]])
    city.ok("send", "permits", path, "--batch", "B1", "--to", "guangdong")
    province.run("receive", "permits", "--batch", "B1", "--from", "guangzhou")
    assert refused(city, "dispute", "open", "permits", "--with", "guangdong", "--batch", "B1") == "dispute.both_ways"
    told = dispute(city, "A-70")
    assert [it["kind"] for it in told["findings"]] == ["only_sender"]
    assert dispute(city, *tags(lost, 1))["id"] == 2


def test_a_key_that_looks_like_a_key_tag_is_still_a_key(channel: Channel) -> None:
    """Thirty-two hex digits in lower case name a tag, unless there is none: then a record."""
    digits = "0123456789abcdef" * 2
    text = CATALOG.replace('name = "no"\ntitle = "文号"\ntype = "code"', 'name = "no"\ntitle = "文号"\ntype = "text"')
    for party in (channel.province, channel.city):
        (party.home / "catalogs" / "permits.toml").write_text(text, encoding="utf-8")
    channel.send("B1", ROWS)
    channel.land("B1", [*ROWS, {**permit(99), "no": digits}])
    channel.receive("B1")
    assert len(dispute(channel.city, digits)["findings"]) == 1


# ---- closing ----


def test_a_batch_that_carries_nothing_of_the_dispute_does_not_settle_it(lost: Channel) -> None:
    dispute(lost.city)
    out = str(lost.pair.folder / "C1.csv")
    lost.province.ok("dispute", "answer", "1", "--resend", "C1", "--out", out)
    lost.send("B2", [permit(30)])
    for number, rows in (("C1", lost.resent(out)), ("B2", [permit(30)])):
        lost.land(number, rows)
        lost.receive(number)
    assert refused(lost.city, "dispute", "close", "1", "--settled-by", "B2") == "dispute.not_settled_by"
    assert refused(lost.city, "dispute", "close", "1", "--settled-by", "B1") == "dispute.not_equal"
    assert lost.city.ok("dispute", "close", "1", "--settled-by", "C1")["state"] == "closed"


def test_a_dispute_that_is_settled_in_part_is_not_closed_as_settled(lost: Channel) -> None:
    dispute(lost.city)
    lost.send("C1", ROWS[:2], "--correction")
    lost.land("C1", ROWS[:2])
    lost.receive("C1")
    assert refused(lost.city, "dispute", "close", "1", "--settled-by", "C1") == "dispute.still_open"
    assert lost.city.ok("dispute", "close", "1", "--withdrawn")["closing"]["outcome"] == "withdrawn"


# ---- strangers ----


def test_a_stranger_can_shout_but_it_does_not_count(lost: Channel, shenzhen: Party) -> None:
    told = lost.between(lost.city)[1]["batches"][0]
    (tag,) = tags(lost, 1)
    open_raw(shenzhen, told["batch_id"], "guangdong", [("differs", tag)])
    for party in (lost.province, lost.city, shenzhen):
        (case,) = party.ok("dispute", "list")["disputes"]
        assert (case["opener"], case["counts"], case["batch"]) == ("shenzhen", False, "B1")
    assert "不作数" in lost.province.run("dispute", "list").out
    assert refused(lost.province, "dispute", "answer", "1", "--resend", "C1") == "dispute.not_sender"
    assert refused(shenzhen, "dispute", "close", "1", "--settled-by", "B1") == "dispute.not_ours"
    assert refused(lost.city, "dispute", "answer", "1", "--concede") == "dispute.not_respondent"
    # It stands in nobody's way.
    assert dispute(lost.city)["id"] == 2


def test_a_dispute_about_a_batch_that_no_stream_has_is_shown(lost: Channel, shenzhen: Party) -> None:
    """The city disputes, against Shenzhen, a batch that the city shares with the province."""
    told = lost.between(lost.city)[1]["batches"][0]
    open_raw(lost.city, told["batch_id"], "shenzhen", [("only_receiver", "11" * 16)])
    (case,) = shenzhen.ok("dispute", "list")["disputes"]
    assert case["counts"] is False
    assert case["overdue"] is False


def test_a_strangers_signature_under_the_same_hash_is_not_the_other_sides(lost: Channel, shenzhen: Party) -> None:
    digest = lost.city.ok("attest", "permits", "--with", "guangdong")["statement"]
    speak(shenzhen, lambda _: encode_attest("guangzhou", digest, 0))
    again = lost.city.ok("attest", "permits", "--with", "guangdong")
    assert (again["fresh"], again["signed_by_both"]) == (False, False)
    assert lost.province.ok("attest", "permits", "--with", "guangzhou")["signed_by_both"] is True


def test_nobody_attests_the_statement_of_others(lost: Channel, shenzhen: Party) -> None:
    assert refused(shenzhen, "attest", "permits", "--with", "guangdong") == "counterpart.nothing"


# ---- evidence and terms ----


def test_evidence_that_was_spoilt_is_written_again(lost: Channel) -> None:
    digest = lost.city.ok("attest", "permits", "--with", "guangdong")["statement"]
    kept = lost.city.home / "evidence" / f"{digest}.json"
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-1])
    assert lost.city.ok("attest", "permits", "--with", "guangdong")["fresh"] is False
    assert kept.read_bytes() == whole


def test_a_dry_run_writes_nothing_anywhere(lost: Channel, tmp_path: Path) -> None:
    out = lost.pair.folder / "statement.json"
    told = lost.city.ok("attest", "permits", "--with", "guangdong", "--dry-run", "--out", str(out))
    assert (told["fresh"], told["attestations"]) == (False, [])
    assert json.loads(out.read_bytes())["format"] == "duizhang-statement/1"
    assert list((lost.city.home / "evidence").glob("*")) == []


def test_an_answer_that_is_late_is_said_to_be(lost: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    dispute(lost.city)
    (case,) = lost.province.ok("dispute", "list")["disputes"]
    assert case["overdue"] is False
    assert case["due"] > case["opened_at"][:10]

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.fromisoformat(f"{case['due']}T17:00:00+00:00").astimezone(UTC)

    monkeypatch.setattr(closing, "datetime", Later)
    # One in the morning of the day after, in China.
    told = lost.province.run("dispute", "list", "--json")
    assert (told.code, told.json["overdue"]) == (1, [1])
    assert "已逾期" in lost.city.run("dispute", "show", "1").out
    lost.province.ok("dispute", "answer", "1", "--reject")
    assert lost.city.run("dispute", "list").code == 0


def test_a_term_that_cannot_be_counted_is_not_said_to_be_kept(lost: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    config = lost.city.home / "duizhang.toml"
    config.write_text(config.read_text(encoding="utf-8") + "\n[deadlines]\nanswer = 250\n", encoding="utf-8")
    case = dispute(lost.city)
    assert (case["due"], case["overdue"]) == (None, False)
    assert case["due_unknown"]["zh"]
    assert "工作日历" in lost.city.run("dispute", "show", "1").err
