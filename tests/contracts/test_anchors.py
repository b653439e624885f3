"""Claims, revisions, sequences and positions of AnchorRegistry, and its reading of one block in one call."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from eth.vm.forks import ParisVM

from ledger.chain.contract import anchor_registry, name_to_word
from ledger.chain.reverts import Refused

from .conftest import EMPTY_ROOT, World, batch_id, claim, new_world, root

GUANGDONG = name_to_word("guangdong")
GUANGZHOU = name_to_word("guangzhou")
DESCRIPTOR = b'{"batch":"B1"}'


def refused(world: World, sender: int, *claims: Any) -> tuple[str, tuple[Any, ...]]:
    with pytest.raises(Refused) as caught:
        world.act(sender, "anchor", list(claims))
    return caught.value.revert.name, caught.value.revert.values


def test_an_anchor_is_recorded_with_the_id_the_contract_computed(party: World) -> None:
    receipt = party.act(1, "anchor", [claim(DESCRIPTOR, size=5000, root_=root(1), sketch=b"s" * 288)])
    block = receipt["block_number"]
    time = party.tester.get_block_by_number(block)["timestamp"]
    expected = (batch_id(DESCRIPTOR), 1, 5000, root(1), 1, time, block, 3)
    assert party.anchors("guangdong") == [expected]
    assert party.ask("revisions", batch_id(DESCRIPTOR), GUANGDONG) == ([expected],)
    assert party.events(receipt, "Anchored") == [
        (batch_id(DESCRIPTOR), GUANGDONG, (1).to_bytes(32, "big"), 1, 5000, root(1), 0, DESCRIPTOR, b"s" * 288)
    ]
    assert party.ask("lastAnchorBlock") == (block,)


def test_equal_values_again_are_a_no_op_whatever_the_caller_knows(party: World) -> None:
    party.act(1, "anchor", [claim(DESCRIPTOR)])
    before = party.ask("position"), party.anchors("guangdong")
    for known in (0, 1, 2, 2**32 - 1):
        receipt = party.act(1, "anchor", [claim(DESCRIPTOR, known=known, sketch=b"x" * 288)])
        assert receipt["logs"] == []
    assert (party.ask("position"), party.anchors("guangdong")) == before


@pytest.mark.parametrize("change", [{"size": 2}, {"root_": root(1)}, {"size": 2, "root_": root(1)}])
def test_other_values_need_the_number_of_revisions_there_are(party: World, change: dict[str, Any]) -> None:
    party.act(1, "anchor", [claim(DESCRIPTOR)])
    for known in (0, 2, 7):
        assert refused(party, 1, claim(DESCRIPTOR, known=known, **change)) == (
            "RevisionMismatch",
            (batch_id(DESCRIPTOR), known, 1),
        )
    party.act(1, "anchor", [claim(DESCRIPTOR, known=1, **change)])
    assert [(row[1], row[4]) for row in party.anchors("guangdong")] == [(1, 1), (2, 2)]


def test_a_first_anchor_must_know_of_no_revision(party: World) -> None:
    assert refused(party, 1, claim(DESCRIPTOR, known=1)) == ("RevisionMismatch", (batch_id(DESCRIPTOR), 1, 0))


def test_revisions_are_appended_and_stay_visible(party: World) -> None:
    for number in range(5):
        party.act(1, "anchor", [claim(b"other %d" % number), claim(DESCRIPTOR, number, number + 1, root(number))])
    rows = party.ask("revisions", batch_id(DESCRIPTOR), GUANGDONG)[0]
    assert [(row[1], row[2], row[3], row[4]) for row in rows] == [(n + 1, n + 1, root(n), 2 * n + 2) for n in range(5)]
    assert [row for row in party.anchors("guangdong") if row[0] == batch_id(DESCRIPTOR)] == rows


def test_going_back_to_earlier_values_is_a_new_revision_not_a_no_op(party: World) -> None:
    party.act(1, "anchor", [claim(DESCRIPTOR, 0, 1, root(1))])
    party.act(1, "anchor", [claim(DESCRIPTOR, 1, 2, root(2))])
    assert refused(party, 1, claim(DESCRIPTOR, 1, 1, root(1)))[0] == "RevisionMismatch"
    party.act(1, "anchor", [claim(DESCRIPTOR, 2, 1, root(1))])
    assert [row[2] for row in party.ask("revisions", batch_id(DESCRIPTOR), GUANGDONG)[0]] == [1, 2, 1]


def test_two_parties_claim_one_batch_independently(party: World) -> None:
    party.act(1, "anchor", [claim(DESCRIPTOR, size=1)])
    party.act(2, "anchor", [claim(DESCRIPTOR, size=2)])
    assert [row[:3] for row in party.anchors("guangdong")] == [(batch_id(DESCRIPTOR), 1, 1)]
    assert [row[:3] for row in party.anchors("guangzhou")] == [(batch_id(DESCRIPTOR), 1, 2)]


def test_sequences_have_no_gaps_across_transactions_no_ops_refusals_and_moves(party: World) -> None:
    party.act(1, "anchor", [claim(b"a"), claim(b"b"), claim(b"a")])
    refused(party, 1, claim(b"c"), claim(b"a", 5, 9))
    party.act(1, "anchor", [claim(b"a"), claim(b"a", 1, 9), claim(b"c")])
    party.act(1, "move", party.accounts[5])
    party.act(5, "anchor", [claim(b"d"), claim(b"a", 2, 10)])
    assert [row[4] for row in party.anchors("guangdong")] == [1, 2, 3, 4, 5, 6]
    assert [row[0] for row in party.anchors("guangdong")] == [batch_id(d) for d in (b"a", b"b", b"a", b"c", b"d", b"a")]


def test_one_bad_claim_undoes_the_whole_transaction(party: World) -> None:
    assert refused(party, 1, claim(b"a"), claim(b""))[0] == "DescriptorLength"
    assert party.anchors("guangdong") == []
    assert party.ask("position") == (2,)


def test_a_transaction_that_was_not_tried_first_fails_without_effect(party: World) -> None:
    data = anchor_registry().functions["anchor"].encode([claim(b"a"), claim(b"")])
    assert party.receipt(party.send(1, data))["status"] == 0
    assert party.anchors("guangdong") == []


def test_nothing_to_anchor_changes_nothing(party: World) -> None:
    assert party.act(1, "anchor", [])["logs"] == []
    assert party.ask("position") == (2,)


@pytest.mark.parametrize("length", [0, 1025, 5000])
def test_a_descriptor_has_1_to_1024_bytes(party: World, length: int) -> None:
    assert refused(party, 1, claim(b"ok"), claim(b"d" * length)) == ("DescriptorLength", (1, length))


@pytest.mark.parametrize("length", [1, 1024])
def test_a_descriptor_at_the_limits_is_anchored(party: World, length: int) -> None:
    party.act(1, "anchor", [claim(b"d" * length)])
    assert party.anchors("guangdong")[0][0] == batch_id(b"d" * length)


@pytest.mark.parametrize(("size", "root_"), [(0, root(1)), (1, EMPTY_ROOT), (0, bytes(32)), (2**64 - 1, EMPTY_ROOT)])
def test_size_0_and_the_empty_root_go_together(party: World, size: int, root_: bytes) -> None:
    expected = ("SizeRootMismatch", (batch_id(DESCRIPTOR), size, root_))
    assert refused(party, 1, claim(DESCRIPTOR, size=size, root_=root_)) == expected


def test_an_empty_batch_and_the_largest_are_anchored(party: World) -> None:
    party.act(1, "anchor", [claim(b"none", size=0, root_=EMPTY_ROOT), claim(b"all", size=2**64 - 1)])
    assert [row[2] for row in party.anchors("guangdong")] == [0, 2**64 - 1]


@pytest.mark.parametrize("length", [1, 72, 287, 289, 72 * 1800 + 288])
def test_a_sketch_is_a_multiple_of_four_cells_and_at_most_1800(party: World, length: int) -> None:
    expected = ("SketchLength", (batch_id(DESCRIPTOR), length))
    assert refused(party, 1, claim(DESCRIPTOR, sketch=b"s" * length)) == expected


@pytest.mark.parametrize("length", [0, 288, 72 * 1800])
def test_a_sketch_at_the_limits_is_published(party: World, length: int) -> None:
    receipt = party.act(1, "anchor", [claim(DESCRIPTOR, sketch=b"s" * length)])
    assert party.events(receipt, "Anchored")[0][-1] == b"s" * length


def test_positions_decide_who_came_first_inside_one_block(party: World) -> None:
    anchor = anchor_registry().functions["anchor"]
    party.tester.disable_auto_mine_transactions()
    sent = [
        party.send(2, anchor.encode([claim(b"a"), claim(b"b")]), 1_000_000),
        party.send(1, anchor.encode([claim(b"a")]), 1_000_000),
        party.send(0, anchor_registry().functions["register"].encode(name_to_word("foshan"), party.accounts[3])),
    ]
    party.tester.enable_auto_mine_transactions()
    receipts = [party.receipt(s) for s in sent]
    assert len({r["block_number"] for r in receipts}) == 1
    assert [r["status"] for r in receipts] == [1, 1, 1]
    rows = [(row[7], name) for name in ("guangdong", "guangzhou") for row in party.anchors(name)]
    rows.append((party.ask("holdings", name_to_word("foshan"))[0][0][1], "foshan"))
    order = {0: ["guangzhou", "guangzhou"], 1: ["guangdong"], 2: ["foshan"]}
    expected = [n for i in sorted(range(3), key=lambda i: receipts[i]["transaction_index"]) for n in order[i]]
    assert [name for _, name in sorted(rows)] == expected
    assert sorted(position for position, _ in rows) == [3, 4, 5, 6]
    assert party.ask("position") == (6,)


def test_anchors_are_read_as_asked_and_what_is_not_there_has_no_sequence(party: World) -> None:
    for number in range(7):
        party.act(1, "anchor", [claim(b"%d" % number), claim(b"0", number + 1, 100 + number)])
    everything = party.anchors("guangdong")
    assert len(everything) == 14
    asked = [(row[0], row[1]) for row in everything]
    assert party.ask("anchors", GUANGDONG, asked[::-1]) == (everything[::-1],)
    assert party.ask("anchors", GUANGDONG, [asked[3]] * 2) == ([everything[3]] * 2,)
    assert party.ask("anchors", GUANGDONG, []) == ([],)
    absent = [
        (batch_id(b"0"), 0),
        (batch_id(b"0"), 9),
        (batch_id(b"1"), 2),
        (bytes(32), 1),
        (batch_id(b"0"), 2**32 - 1),
    ]
    assert [row[4] for row in party.ask("anchors", GUANGDONG, absent)[0]] == [0] * 5
    assert [row[4] for row in party.ask("anchors", GUANGZHOU, asked)[0]] == [0] * 14


def test_every_event_names_the_block_of_the_anchor_before_it(party: World) -> None:
    """From the last anchor's block, which storage holds, one comes back to the first: whoever anchored, and past no-ops and moves."""
    assert party.ask("lastAnchorBlock") == (0,)
    blocks = []
    for sender, claims in (
        (1, [claim(b"a"), claim(b"b")]),
        (2, [claim(b"a")]),
        (1, [claim(b"a", 1, 2), claim(b"b"), claim(b"c")]),
    ):
        party.act(sender, "anchor", claims[:0])
        blocks += [party.act(sender, "anchor", claims)["block_number"]]
        party.act(sender, "anchor", claims)
        assert party.ask("lastAnchorBlock") == (blocks[-1],)
    party.act(1, "move", party.accounts[5])
    assert party.ask("lastAnchorBlock") == (blocks[-1],)
    first, second, third = blocks
    assert [event[6] for event in party.told()] == [0, first, first, second, third]
    assert [event[2] for event in party.told()] == [number.to_bytes(32, "big") for number in (1, 2, 1, 3, 4)]


def test_a_refused_transaction_leaves_the_counters_as_they_were(party: World) -> None:
    party.act(1, "anchor", [claim(b"a")])
    before = [party.ask(name) for name in ("position", "lastAnchorBlock")], party.ask("standing", GUANGDONG)
    data = anchor_registry().functions["anchor"].encode([claim(b"b"), claim(b"a", 7, 9)])
    assert party.receipt(party.send(1, data))["status"] == 0
    assert ([party.ask(name) for name in ("position", "lastAnchorBlock")], party.ask("standing", GUANGDONG)) == before


def test_one_call_reads_everything_from_one_block(party: World) -> None:
    party.act(1, "anchor", [claim(b"a"), claim(b"b")])
    functions = anchor_registry().functions
    calls = [
        functions["parties"].encode(),
        functions["holdings"].encode(GUANGDONG),
        functions["anchors"].encode(GUANGDONG, [(batch_id(b"a"), 1), (batch_id(b"b"), 1)]),
        functions["revisions"].encode(batch_id(b"a"), GUANGZHOU),
    ]
    block, time, position, answers = party.ask("read", calls)
    latest = party.tester.get_block_by_number("latest")
    assert (block, time) in [(latest["number"], latest["timestamp"]), (latest["number"] + 1, time)]
    assert position == 4
    assert functions["parties"].decode(answers[0]) == ([GUANGDONG, GUANGZHOU],)
    assert functions["holdings"].decode(answers[1]) == party.ask("holdings", GUANGDONG)
    assert functions["anchors"].decode(answers[2]) == (party.anchors("guangdong"),)
    assert functions["revisions"].decode(answers[3]) == ([],)


def test_a_view_that_fails_inside_read_fails_read_with_its_own_error(party: World) -> None:
    with pytest.raises(Refused) as caught:
        party.ask("read", [anchor_registry().functions["holdings"].encode(name_to_word("foshan"))])
    assert caught.value.revert.name == "UnknownName"


def test_read_cannot_be_used_to_write(party: World) -> None:
    """Whoever calls read() calls as the contract itself: even if that were a party, nothing could be written so."""
    party.act(0, "register", name_to_word("foshan"), party.contract)
    party.act(0, "grantRole", bytes(32), party.contract)
    functions = anchor_registry().functions
    for call in (
        functions["anchor"].encode([claim(b"a")]),
        functions["move"].encode(party.accounts[7]),
        functions["suspend"].encode(name_to_word("foshan")),
        functions["register"].encode(name_to_word("zhuhai"), party.accounts[7]),
        functions["renounceRole"].encode(bytes(32), party.contract),
    ):
        data = functions["read"].encode([call])
        assert party.receipt(party.send(1, data, 2_000_000))["status"] == 0
    assert party.anchors("foshan") == []
    assert party.ask("hasRole", bytes(32), party.contract) == (True,)
    assert party.ask("standing", name_to_word("foshan")) == (party.contract.lower(), False, 0)


@pytest.mark.parametrize("vm", [None, ParisVM], ids=["prague", "paris"])
def test_gas_per_anchor(vm: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints it, and holds the ceilings that are promised: 100,000 for one anchor by itself, 66,000 each at 100 a transaction."""
    world = new_world(((0, vm),) if vm else None)
    world.register("guangdong", 1)
    gas: dict[int, int] = {}
    for count in (1, 10, 100):
        claims = [claim(b"%03d" % i + b"x" * 444 + b"%03d" % count, 0, 5000, root(i)) for i in range(count)]
        gas[count] = world.act(1, "anchor", claims)["gas_used"] // count
    with capsys.disabled():
        shown = ", ".join(f"{count} a transaction: {each:,}" for count, each in gas.items())
        print(f"\n[gas] per anchor, 450-byte descriptor, no sketch ({vm.__name__ if vm else 'PragueVM'}): {shown}")
    assert all(earlier > later for earlier, later in pairwise(gas.values()))
    assert gas[1] <= 100_000
    assert gas[100] <= 66_000
    # The first anchor of a party pays for nothing that later ones do not; a revision reads the one before it and counts up.
    assert world.act(1, "anchor", [claim(b"y" * 450, 0, 5000, root(1))])["gas_used"] <= 100_000
    assert world.act(1, "anchor", [claim(b"y" * 450, 1, 5000, root(2))])["gas_used"] <= 108_000
