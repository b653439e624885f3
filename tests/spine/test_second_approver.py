"""Two people for one change (`[consent] approvers = 2`): one proposes, another agrees, nothing is half done."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import pytest

from ledger.reconcile.approval import person
from tests.conftest import Pair, Ran, permit

ROWS = [permit(n) for n in range(1, 7)]


@pytest.fixture
def two(own: Pair) -> Pair:
    """An own source of six anchored rows whose workspace asks for two people; A-1 and A-2 are altered, A-4 is missing."""
    with (own.city.home / "duizhang.toml").open("a", encoding="utf-8") as config:
        config.write("\n[consent]\napprovers = 2\n")
    for row in ROWS:
        own.sql("INSERT INTO permits VALUES (?, ?, ?, ?, ?)", *row.values())
    own.city.ok("anchor", "permits")
    own.sql("UPDATE permits SET holder = '乙公司' WHERE no IN ('A-1', 'A-2')")
    own.sql("DELETE FROM permits WHERE no = 'A-4'")
    return own


ALL = [("altered", "A-1"), ("altered", "A-2"), ("missing", "A-4")]


def accept(two: Pair, by: str, *keys: str, reason: str = "更名") -> Ran:
    """`accept` of these keys."""
    return two.city.run("accept", "permits", *keys, "--reason", reason, "--by", by, "--json", "--lang", "en")


def withdraw(two: Pair, by: str, *keys: str, reason: str = "revoked") -> Ran:
    """`withdraw` of these keys."""
    return two.city.run("withdraw", "permits", *keys, "--reason", reason, "--by", by, "--json", "--lang", "en")


def rows(two: Pair, statement: str) -> list[tuple[object, ...]]:
    """What the store holds."""
    connection = sqlite3.connect(two.city.home / "store" / "ledger.db")
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


def waiting(two: Pair) -> Sequence[tuple[object, ...]]:
    """(action, who) of each proposal that waits."""
    return rows(two, "SELECT action, proposed_by FROM proposal WHERE decided_at IS NULL ORDER BY id")


def refused(ran: Ran, code: str) -> str:
    """The message of a refusal."""
    assert (ran.code, ran.json["error"]["code"]) == (2, code)
    return str(ran.json["error"]["message"])


def test_one_person_proposes_and_nothing_is_lawful_yet(two: Pair) -> None:
    ran = accept(two, "张三", "A-1", "A-2")
    assert ran.code == 1
    assert ran.json == {
        "catalog": "permits/1",
        "proposed": {
            "action": "accept",
            "keys": [{"no": "A-1"}, {"no": "A-2"}],
            "reason": "更名",
            "proposed_by": "张三",
            "replaced": [],
        },
    }
    for step in ("anchor", "nightly"):
        two.city.run(step)
        assert two.city.reconcile()[1] == ALL
    assert waiting(two) == [("accept", "张三"), ("accept", "张三")]


def test_a_proposal_says_that_another_person_must_run_the_same(two: Pair) -> None:
    ran = two.city.run("accept", "permits", "A-1", "--reason", "x", "--by", "张三", "--lang", "en")
    assert ran.code == 1
    assert "another person" in ran.err
    assert "A-1" in ran.out


def test_a_second_person_completes_it_in_one_correction(two: Pair) -> None:
    accept(two, "张三", "A-1", "A-2")
    ran = accept(two, "李四", "A-2", "A-1")
    assert (ran.code, ran.json["anchor"]["size"]) == (0, 2)
    assert ran.json["batch"].startswith("C")
    assert two.city.reconcile()[1] == [("missing", "A-4")]
    assert two.city.reconcile()[2]["accepted"] == 2
    assert waiting(two) == []
    assert rows(two, "SELECT DISTINCT proposed_by, approved_by, reason FROM consent") == [("张三", "李四", "更名")]
    assert two.city.run("fsck").code == 0


def test_a_second_person_may_agree_to_a_part(two: Pair) -> None:
    accept(two, "张三", "A-1", "A-2")
    assert accept(two, "李四", "A-1").code == 0
    assert two.city.reconcile()[1] == ALL[1:]
    assert len(waiting(two)) == 1


@pytest.mark.parametrize(
    "again", ["Li Si", " li si ", "LI SI", "LiSi", "ＬＩ　ＳＩ", "Li\u200bSi", "Lı Si".replace("ı", "i")]
)
def test_the_same_person_is_refused_by_name_however_it_is_written(two: Pair, again: str) -> None:
    accept(two, "Li Si", "A-1")
    assert "Li Si" in refused(accept(two, again, "A-1"), "consent.same_person")
    assert two.city.reconcile()[1] == ALL
    assert waiting(two) == [("accept", "Li Si")]


def test_persons_are_told_apart() -> None:
    names = ["张三", "李四", "Zhang San", "Zhang Sen", "ZhangSan2"]
    assert len({person(name) for name in names}) == len(names)
    assert person("\u200b \u3000") == ""


def test_a_name_that_does_not_show_is_no_name(two: Pair) -> None:
    assert refused(accept(two, "\u200b", "A-1"), "consent.empty")


def test_a_row_that_changed_since_needs_a_new_proposal(two: Pair) -> None:
    accept(two, "张三", "A-1")
    two.sql("UPDATE permits SET holder = '丙公司' WHERE no = 'A-1'")
    ran = accept(two, "李四", "A-1")
    assert (ran.code, ran.json["proposed"]["replaced"]) == (1, [{"no": "A-1"}])
    assert two.city.reconcile()[1] == ALL
    # The first person is the second one now.
    refused(accept(two, "李四", "A-1"), "consent.same_person")
    assert accept(two, "张三", "A-1").code == 0
    assert two.city.reconcile()[1] == ALL[1:]


def test_the_same_person_may_propose_anew_what_changed(two: Pair) -> None:
    accept(two, "张三", "A-1")
    two.sql("UPDATE permits SET holder = '丙公司' WHERE no = 'A-1'")
    assert accept(two, "张三", "A-1").json["proposed"]["replaced"] == [{"no": "A-1"}]
    assert waiting(two) == [("accept", "张三")]


def test_a_mix_of_proposed_and_unproposed_keys_does_nothing_and_says_which_is_which(two: Pair) -> None:
    accept(two, "张三", "A-1")
    before = rows(two, "SELECT * FROM proposal"), rows(two, "SELECT * FROM consent"), rows(two, "SELECT * FROM batch")
    message = refused(accept(two, "李四", "A-1", "A-2"), "consent.mixed")
    assert "A-1 (张三)" in message
    assert "A-2" in message
    refused(accept(two, "张三", "A-1", "A-2"), "consent.same_person")
    after = rows(two, "SELECT * FROM proposal"), rows(two, "SELECT * FROM consent"), rows(two, "SELECT * FROM batch")
    assert after == before
    assert two.city.reconcile()[1] == ALL


def test_withdraw_needs_two_as_well_and_the_same_reason(two: Pair) -> None:
    assert withdraw(two, "张三", "A-4").json["proposed"]["action"] == "withdraw"
    refused(withdraw(two, "张三", "A-4"), "consent.same_person")
    # What is anchored holds the reason: another reason is another proposal.
    assert withdraw(two, "李四", "A-4", reason="error").json["proposed"]["replaced"] == [{"no": "A-4"}]
    assert ("missing", "A-4") in two.city.reconcile()[1]
    assert withdraw(two, "张三", "A-4", reason="error").code == 0
    assert two.city.reconcile()[1] == ALL[:2]
    assert two.city.reconcile()[2]["accepted_removals"] == 1


def test_a_proposal_to_accept_is_none_to_withdraw(two: Pair) -> None:
    accept(two, "张三", "A-1")
    assert withdraw(two, "李四", "A-1").code == 1
    assert waiting(two) == [("accept", "张三"), ("withdraw", "李四")]
    assert two.city.reconcile()[1] == ALL


def test_what_cannot_be_accepted_is_not_proposed_either(two: Pair) -> None:
    for key in ("A-3", "A-4", "A-99"):
        refused(accept(two, "张三", "A-1", key), "accept.nothing")
    assert waiting(two) == []


def test_a_key_named_twice_counts_once(two: Pair) -> None:
    accept(two, "张三", "A-1", " A-1 ")
    assert len(waiting(two)) == 1
    assert accept(two, "李四", "A-1", " A-1 ").json["anchor"]["size"] == 1


def test_both_reasons_are_kept_where_they_differ(two: Pair) -> None:
    accept(two, "张三", "A-1", reason="更名")
    accept(two, "李四", "A-1", reason="已核对")
    assert rows(two, "SELECT reason FROM consent") == [("更名；已核对",)]


def test_a_proposal_lapses_once_the_row_is_put_right(two: Pair) -> None:
    accept(two, "张三", "A-1", "A-2")
    withdraw(two, "张三", "A-4")
    two.sql("UPDATE permits SET holder = '甲公司' WHERE no = 'A-1'")
    two.city.run("anchor")
    assert waiting(two) == [("accept", "张三"), ("withdraw", "张三")]


def test_with_one_approver_again_what_waited_is_closed(two: Pair) -> None:
    accept(two, "张三", "A-1")
    config = two.city.home / "duizhang.toml"
    config.write_text(config.read_text(encoding="utf-8").replace("approvers = 2", "approvers = 1"), encoding="utf-8")
    assert accept(two, "张三", "A-1").code == 0
    assert waiting(two) == []
    assert rows(two, "SELECT proposed_by, approved_by FROM consent") == [(None, "张三")]


def test_personal_keys_are_masked_in_what_is_said(two: Pair) -> None:
    catalog = two.city.home / "catalogs" / "permits.toml"
    text = catalog.read_text(encoding="utf-8")
    catalog.write_text(text.replace('name = "no"\ntitle', 'name = "no"\npersonal = true\ntitle'), encoding="utf-8")
    ran = two.city.run("accept", "permits", "A-1", "--reason", "x", "--by", "张三")
    assert ran.code == 1
    assert "A-1" not in ran.out + ran.err
    ran = accept(two, "李四", "A-2")
    assert ran.json["proposed"]["keys"] == [{"no": "***"}]
