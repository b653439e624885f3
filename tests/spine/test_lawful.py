"""What is lawful (design section 4): nothing becomes lawful by being there when the night job runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from tests.conftest import Pair, permit, withdrawn

ROWS = [permit(n) for n in range(1, 9)]


def seven_kinds(pair: Pair) -> list[tuple[str, str]]:
    """Three deliveries, then damage of every kind; the findings that must come out."""
    pair.deliver("B1", ROWS)
    pair.deliver("B2", [permit(1, "甲公司更名"), permit(2, fee="99")])
    pair.deliver("B3", [withdrawn(8)])
    assert pair.city.reconcile()[:2] == (0, [])
    pair.sql("UPDATE permits SET holder = '乙公司' WHERE no = 'A-3'")
    pair.sql("UPDATE permits SET holder = '甲公司' WHERE no = 'A-1'")
    pair.sql("DELETE FROM permits WHERE no = 'A-4'")
    pair.sql("INSERT INTO permits SELECT * FROM permits WHERE no = 'A-5'")
    pair.sql("INSERT INTO permits VALUES ('A-8', '914401001234500008', '甲公司', '2022-03-04', '12.50')")
    pair.sql("INSERT INTO permits VALUES ('A-99', NULL, '伪造公司', '2022-03-04', '1')")
    pair.sql("UPDATE permits SET decided_on = '2022-02-30' WHERE no = 'A-6'")
    return [
        ("stale", "A-1"),
        ("altered", "A-3"),
        ("missing", "A-4"),
        ("duplicate", "A-5"),
        ("unreadable", "A-6"),
        ("not_withdrawn", "A-8"),
        ("unanchored", "A-99"),
    ]


def test_an_untouched_delivery_matches(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    code, found, counts = pair.city.reconcile()
    assert (code, found) == (0, [])
    assert (counts["source"], counts["ledger"], counts["matched"]) == (8, 8, 8)


def test_all_seven_kinds_are_found_and_both_sums_balance(pair: Pair) -> None:
    expected = seven_kinds(pair)
    code, found, counts = pair.city.reconcile()
    assert code == 1
    assert found == expected
    assert counts["matched"] == 2
    assert counts["duplicate"] == 1
    assert counts["duplicate_rows"] == 2
    assert (counts["source"], counts["ledger"]) == (9, 7)


NIGHTLY = lambda pair: pair.city.run("nightly")  # noqa: E731
ANCHOR = lambda pair: pair.city.run("anchor", "permits")  # noqa: E731
RECEIVE = lambda pair: pair.city.run("receive", "permits", "--batch", "B1", "--from", "guangdong")  # noqa: E731
RECEIVE_FILE = lambda pair: pair.city.run(  # noqa: E731
    "receive", "permits", str(pair.folder / "B1.csv"), "--batch", "B1", "--from", "guangdong"
)


@pytest.mark.parametrize("steps", list(itertools.permutations([NIGHTLY, ANCHOR, RECEIVE, RECEIVE_FILE], 3))[::4])
def test_damage_is_reported_after_any_sequence_of_jobs(pair: Pair, steps: tuple[Callable[[Pair], object], ...]) -> None:
    expected = seven_kinds(pair)
    for step in steps:
        step(pair)
        assert pair.city.reconcile()[:2] == (1, expected)


def test_a_row_forged_into_a_delivery_source_is_unanchored_for_ever(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    pair.sql("INSERT INTO permits VALUES ('A-99', NULL, '伪造公司', '2022-03-04', '1')")
    for _ in range(2):
        for step in (RECEIVE, NIGHTLY, ANCHOR, RECEIVE_FILE):
            step(pair)
            assert pair.city.reconcile()[:2] == (1, [("unanchored", "A-99")])


def test_an_altered_row_is_never_in_the_senders_anchor(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    before = pair.city.run("reconcile", "permits", "--json").json["batches"][0]
    pair.sql("UPDATE permits SET holder = '乙公司' WHERE no = 'A-3'")
    assert RECEIVE(pair).code == 1
    after = pair.city.run("reconcile", "permits", "--json").json["batches"][0]
    assert (after["root"], after["revision"]) == (before["root"], 1)
    # What the receiver holds may be stated, wrong row and all: a visible revision that makes nothing lawful.
    assert after["held_revision"] == 2
    assert after["held_root"] != after["root"]
    assert pair.city.reconcile()[:2] == (1, [("altered", "A-3")])


def test_putting_it_right_matches_again(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    pair.sql("UPDATE permits SET holder = '乙公司' WHERE no = 'A-3'")
    assert pair.city.reconcile()[0] == 1
    pair.sql("UPDATE permits SET holder = '甲公司' WHERE no = 'A-3'")
    assert pair.city.reconcile()[:2] == (0, [])


@pytest.mark.parametrize(
    ("cells", "verdict", "kind"), [("0", "differences_partial", "unanchored"), ("64", "differences", "altered")]
)
def test_a_delivery_that_was_altered_on_the_way_is_not_lawful(pair: Pair, cells: str, verdict: str, kind: str) -> None:
    sent = pair.file("sent.csv", ROWS)
    arrived = pair.file("arrived.csv", [*ROWS[:-1], permit(8, "调包公司")])
    pair.province.ok("send", "permits", sent, "--batch", "B1", "--to", "guangzhou", "--cells", cells)
    ran = pair.city.run("receive", "permits", arrived, "--batch", "B1", "--from", "guangdong", "--load", "--json")
    assert (ran.code, ran.json["verdict"]) == (1, verdict)
    assert ran.json["anchor"]["root"] != ran.json["announced"]["root"]
    code, found, _ = pair.city.reconcile()
    assert code == 1
    assert (kind, "A-8") in found


@pytest.mark.parametrize(("cells", "outcome"), [("0", (2, "undetermined")), ("64", (1, "differences"))])
def test_a_delivery_lost_whole_is_seen_on_the_chain(pair: Pair, cells: str, outcome: tuple[int, str]) -> None:
    sent = pair.file("sent.csv", ROWS)
    pair.province.ok("send", "permits", sent, "--batch", "B1", "--to", "guangzhou", "--cells", cells)
    ran = pair.city.run("receive", "permits", "--batch", "B1", "--from", "guangdong", "--json")
    assert (ran.code, ran.json["verdict"]) == outcome
    ran = pair.city.run("reconcile", "permits", "--json")
    assert (ran.code, ran.json["verdict"]) == outcome


def test_arrival_order_does_not_matter(pair: Pair) -> None:
    first = pair.file("B1.csv", ROWS)
    second = pair.file("B2.csv", [permit(1, "甲公司更名")])
    for number, path in (("B1", first), ("B2", second)):
        pair.province.ok("send", "permits", path, "--batch", number, "--to", "guangzhou")
    pair.city.run("receive", "permits", second, "--batch", "B2", "--from", "guangdong", "--load")
    pair.city.run("receive", "permits", first, "--batch", "B1", "--from", "guangdong")
    for row in ROWS[1:]:
        pair.sql("INSERT INTO permits VALUES (?, ?, ?, ?, ?)", *row.values())
    pair.city.run("nightly")
    assert pair.city.reconcile()[:2] == (0, [])
    # Everything that differs in B1 is carried by B2: the night is quiet, though B1 keeps its own verdict.
    assert pair.city.run("nightly").code == 0


def test_a_sealed_row_that_changed_stays_a_finding_until_accepted(own: Pair) -> None:
    for row in ROWS:
        own.sql("INSERT INTO permits VALUES (?, ?, ?, ?, ?)", *row.values())
    assert own.city.run("anchor", "permits").code == 0
    assert own.city.reconcile()[:2] == (0, [])
    own.sql("UPDATE permits SET holder = '乙公司' WHERE no = 'A-3'")
    own.sql("DELETE FROM permits WHERE no = 'A-4'")
    for step in (NIGHTLY, ANCHOR, NIGHTLY):
        step(own)
        assert own.city.reconcile()[:2] == (1, [("altered", "A-3"), ("missing", "A-4")])
    own.city.ok("accept", "permits", "A-3", "--reason", "更名", "--by", "张三")
    own.city.ok("withdraw", "permits", "A-4", "--reason", "revoked", "--by", "张三")
    code, found, counts = own.city.reconcile()
    assert (code, found) == (0, [])
    assert (counts["accepted"], counts["accepted_removals"], counts["matched"]) == (1, 1, 6)
    own.sql("UPDATE permits SET holder = '丙公司' WHERE no = 'A-3'")
    assert own.city.reconcile()[:2] == (1, [("altered", "A-3")])


def test_accept_and_withdraw_take_named_keys_of_own_sources_only(own: Pair) -> None:
    own.sql("INSERT INTO permits VALUES (?, ?, ?, ?, ?)", *ROWS[0].values())
    own.city.run("anchor")
    for words in (
        ("accept", "permits", "A-1", "--reason", "x", "--by", "y"),
        ("accept", "permits", "A-7", "--reason", "x", "--by", "y"),
        ("withdraw", "permits", "A-7", "--reason", "revoked", "--by", "y"),
        ("withdraw", "permits", "A-1", "--reason", "because", "--by", "y"),
        ("withdraw", "permits", "A-1", "--reason", "revoked", "--by", " "),
    ):
        assert own.city.run(*words).code == 2, words


def test_a_delivery_source_accepts_nothing(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    pair.sql("UPDATE permits SET holder = '乙公司' WHERE no = 'A-3'")
    ran = pair.city.run("accept", "permits", "A-3", "--reason", "x", "--by", "y", "--json")
    assert (ran.code, ran.json["error"]["code"]) == (2, "own.delivery_source")


def test_newly_seen_rows_alone_do_not_disturb_the_night(own: Pair) -> None:
    own.sql("INSERT INTO permits VALUES (?, ?, ?, ?, ?)", *ROWS[0].values())
    ran = own.city.run("nightly", "--json")
    assert ran.code == 0
    assert ran.json["sealed"][0]["batch"].startswith("S")
    assert own.city.reconcile()[2]["matched"] == 1
