"""A chain or a node that says two things: an error, never a value."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from eth_hash.auto import keccak

from ledger.chain import logs
from ledger.chain.abi import decode, encode
from ledger.chain.contract import anchor_registry, name_to_word
from ledger.chain.history import Memory
from ledger.chain.registry import AnchorRecord, Holding, Registry, RegistryView
from ledger.chain.rpc import Rpc
from ledger.chain.view import check_whole
from ledger.errors import ChainError

from .conftest import Deployed, claim, root


def contradiction(action: Callable[[], Any]) -> str:
    with pytest.raises(ChainError) as caught:
        action()
    assert caught.value.code == "chain.contradiction", caught.value.en
    assert caught.value.where
    return caught.value.en


def missing(action: Callable[[], Any]) -> str:
    with pytest.raises(ChainError) as caught:
        action()
    assert caught.value.code == "chain.event_missing", caught.value.en
    assert caught.value.where
    return caught.value.en


# The order of the state variables in the contract: roles, the two counters, nameOf, _names, _holdings, _seats, _revisions.
COUNTERS_SLOT, HOLDINGS_SLOT, SEATS_SLOT, REVISIONS_SLOT = 1, 4, 5, 6


def seat_slot(party: str) -> int:
    """The slot of a name's holder (160 bits), its count of anchors (32) and its suspension."""
    return int.from_bytes(keccak(name_to_word(party) + SEATS_SLOT.to_bytes(32, "big")), "big")


def seat(busy: Deployed, count: int) -> int:
    """The seat of guangzhou with another count."""
    assert get(busy, seat_slot("guangzhou")) == 4 << 160 | int(busy.address, 16)
    return count << 160 | int(busy.address, 16)


def revision_slot(party: str, batch: bytes, revision: int) -> int:
    """The slot of a revision's root; the next one holds its numbers."""
    slot = keccak(name_to_word(party) + REVISIONS_SLOT.to_bytes(32, "big"))
    slot = keccak(hashlib.sha256(batch).digest() + slot)
    return int.from_bytes(keccak(revision.to_bytes(32, "big") + slot), "big")


def get(deployed: Deployed, slot: int) -> int:
    return int(deployed.rpc.call("eth_getStorageAt", deployed.contract, hex(slot), "latest"), 16)


def put(deployed: Deployed, slot: int, value: int) -> None:
    deployed.rpc.call("anvil_setStorageAt", deployed.contract, f"0x{slot:064x}", f"0x{value:064x}")


def test_a_root_rewritten_in_storage_contradicts_its_event(busy: Deployed) -> None:
    slot = revision_slot("guangzhou", b"a", 2)
    assert get(busy, slot) == int(root(3), 16)
    put(busy, slot, int(root(9), 16))
    view = busy.registry.view()
    assert view.anchors["guangzhou"][2].root == root(9)
    assert "root of guangzhou#3" in contradiction(lambda: busy.registry.events(view.anchors["guangzhou"]))
    contradiction(lambda: busy.registry.audit(view))


def test_a_size_rewritten_in_storage_contradicts_its_event(busy: Deployed) -> None:
    slot = revision_slot("guangzhou", b"a", 2) + 1
    put(busy, slot, get(busy, slot) ^ 1)
    view = busy.registry.view()
    assert "size of guangzhou#3" in contradiction(lambda: busy.registry.events(view.anchors["guangzhou"]))


@pytest.mark.parametrize("bit", [64, 112, 152, 192])
def test_time_block_position_or_sequence_rewritten_in_storage_never_passes_the_audit(busy: Deployed, bit: int) -> None:
    slot = revision_slot("guangzhou", b"a", 2) + 1
    put(busy, slot, get(busy, slot) ^ 1 << bit)
    with pytest.raises(ChainError):
        busy.registry.audit(busy.registry.view())


def test_a_count_cut_down_in_storage_contradicts_the_events(busy: Deployed) -> None:
    put(busy, seat_slot("guangzhou"), seat(busy, 3))
    assert "anchor 4 of guangzhou" in contradiction(busy.registry.view)


def test_a_count_cut_down_together_with_the_position_contradicts_the_events(busy: Deployed) -> None:
    put(busy, seat_slot("guangzhou"), seat(busy, 3))
    put(busy, COUNTERS_SLOT, get(busy, COUNTERS_SLOT) - 1)
    assert "anchor 4 of guangzhou" in contradiction(busy.registry.view)


def test_a_position_cut_down_in_storage_is_noticed(busy: Deployed) -> None:
    put(busy, COUNTERS_SLOT, get(busy, COUNTERS_SLOT) - 1)
    assert "positions 1 to 7" in contradiction(busy.registry.view)


def test_a_count_raised_in_storage_lacks_an_event(busy: Deployed) -> None:
    put(busy, seat_slot("guangzhou"), seat(busy, 5))
    assert "guangzhou#5" in missing(busy.registry.view)


@pytest.mark.parametrize("by", [-1, 1, 1000])
def test_a_last_block_rewritten_in_storage_is_noticed(busy: Deployed, by: int) -> None:
    last = busy.registry.view().anchors["guangzhou"][-1].block
    assert get(busy, COUNTERS_SLOT) == last << 64 | 8
    put(busy, COUNTERS_SLOT, last + by << 64 | 8)
    assert (missing if by < 0 else contradiction)(busy.registry.view)


def test_a_revision_removed_from_storage_contradicts_its_event(busy: Deployed) -> None:
    slot = revision_slot("guangzhou", b"a", 2)
    put(busy, slot, 0)
    put(busy, slot + 1, 0)
    assert "anchor 3 of guangzhou" in contradiction(busy.registry.view)


def test_sequences_exchanged_in_storage_contradict_the_events(busy: Deployed) -> None:
    one, two = revision_slot("guangzhou", b"a", 1) + 1, revision_slot("guangzhou", b"b", 1) + 1
    for slot, sequence in ((one, 2), (two, 1)):
        word = get(busy, slot)
        put(busy, slot, word & ~(0xFFFFFFFF << 192) | sequence << 192)
    assert "no counterpart" in contradiction(busy.registry.view)


def test_a_holder_rewritten_in_one_of_its_two_places_is_noticed(busy: Deployed) -> None:
    put(busy, seat_slot("guangzhou"), seat(busy, 4) ^ 1)
    assert "two accounts hold guangzhou" in contradiction(busy.registry.view)


def test_a_holder_rewritten_in_storage_contradicts_the_events(busy: Deployed) -> None:
    length = int.from_bytes(keccak(name_to_word("foshan") + HOLDINGS_SLOT.to_bytes(32, "big")), "big")
    slot = int.from_bytes(keccak(length.to_bytes(32, "big")), "big")
    put(busy, slot, get(busy, slot) ^ 1)
    contradiction(busy.registry.view)
    put(busy, seat_slot("foshan"), get(busy, seat_slot("foshan")) ^ 1)
    view = busy.registry.view()
    assert "foshan" in contradiction(lambda: busy.registry.audit(view))


class Lying(Rpc):
    """A node whose logs pass through `lie`."""

    def __init__(self, url: str, lie: Callable[[list[Any]], list[Any]]) -> None:
        super().__init__(url)
        self.lie = lie

    def call(self, method: str, *params: Any) -> Any:
        answer = super().call(method, *params)
        return self.lie(answer) if method == "eth_getLogs" else answer


def event_data(revision: int, size: int, root_: str, descriptor: bytes, previous: int = 0) -> str:
    types = anchor_registry().events["Anchored"].data
    return "0x" + encode(types, (revision, size, bytes.fromhex(root_), previous, descriptor, b"")).hex()


def about(log: Any, number: int, word: bytes) -> Any:
    """The log with another topic."""
    topics = list(log["topics"])
    topics[number] = "0x" + word.hex()
    return {**log, "topics": topics}


FORGED = hashlib.sha256(b"forged").digest()

LIES: dict[str, Callable[[list[Any]], list[Any]]] = {
    "descriptor": lambda logs: [{**logs[0], "data": event_data(1, 5, root(1), b"x")}, *logs[1:]],
    "size": lambda logs: [{**logs[0], "data": event_data(1, 4, root(1), b"a")}, *logs[1:]],
    "root": lambda logs: [{**logs[0], "data": event_data(1, 5, root(2), b"a")}, *logs[1:]],
    "revision": lambda logs: [{**logs[0], "data": event_data(2, 5, root(1), b"a")}, *logs[1:]],
    "block": lambda logs: [{**logs[0], "blockNumber": "0x99"}, *logs[1:]],
    "twice": lambda logs: [logs[0], *logs],
    "batch id": lambda logs: [about(logs[0], 1, b"\x11" * 32), *logs[1:]],
    "other contract": lambda logs: [{**logs[0], "address": "0x" + "11" * 20}, *logs[1:]],
    "other event": lambda logs: [{**logs[0], "topics": ["0x" + "11" * 32]}, *logs[1:]],
    "no such event": lambda logs: [{**logs[0], "data": "0x" + "00" * 32}, *logs[1:]],
}


@pytest.mark.parametrize("lie", LIES)
def test_a_node_that_lies_about_an_event_is_caught(busy: Deployed, lie: str) -> None:
    node = Lying(busy.rpc.where, LIES[lie])
    anchors = busy.registry.view().anchors["guangzhou"]
    contradiction(lambda: Registry(node, busy.contract).events(anchors))


# What a node may do to the list of anchors, which is told by events only; "dropped" are those that end in event_missing.
CONTRADICTIONS: dict[str, Callable[[list[Any]], list[Any]]] = {
    **{name: lie for name, lie in LIES.items() if name not in ("size", "root")},
    "the same again at the end": lambda logs: [*logs, logs[0]],
    "a batch nobody anchored in place of one": lambda logs: [
        about({**logs[0], "data": event_data(1, 5, root(1), b"forged")}, 1, FORGED),
        *logs[1:],
    ],
    "a batch nobody anchored after all others": lambda logs: [
        *logs,
        about(about({**logs[-1], "data": event_data(1, 5, root(1), b"forged", 1)}, 1, FORGED), 3, bytes(31) + b"\5"),
    ],
    "one batch for another": lambda logs: [
        *(about(log, 1, hashlib.sha256(b"b").digest()) if log is logs[0] else log for log in logs)
    ],
    "two events with their sequences exchanged": lambda logs: [
        about(logs[0], 3, bytes(31) + b"\2"),
        about(logs[1], 3, bytes(31) + b"\1"),
        *logs[2:],
    ],
    "an event of another party": lambda logs: [about(logs[0], 2, name_to_word("foshan")), *logs[1:]],
    "an event of a party that is not registered": lambda logs: [about(logs[0], 2, name_to_word("zhuhai")), *logs[1:]],
    "a sequence of 0": lambda logs: [about(logs[0], 3, bytes(32)), *logs[1:]],
    "a later block": lambda logs: [*logs[:-1], {**logs[-1], "blockNumber": hex(int(logs[-1]["blockNumber"], 16) + 1)}],
    "an earlier block": lambda logs: [{**logs[0], "blockNumber": "0x0"}, *logs[1:]],
}
KEPT_BACK: dict[str, Callable[[list[Any]], list[Any]]] = {
    "the first": lambda logs: logs[1:],
    "one in the middle": lambda logs: [*logs[:2], *logs[3:]],
    "the last": lambda logs: logs[:-1],
    "those of the last block": lambda logs: [log for log in logs if log["blockNumber"] != logs[-1]["blockNumber"]],
    "all of one party": lambda logs: [log for log in logs if log["topics"][2] != "0x" + name_to_word("foshan").hex()],
    "all": lambda logs: [],
    "as removed": lambda logs: [{**log, "removed": True} for log in logs],
    "by a previous block that is not the one": lambda logs: [
        {**log, "data": moved_back(log["data"])} if log["blockNumber"] == logs[-1]["blockNumber"] else log
        for log in logs
        if log is not logs[0]
    ],
}


def moved_back(data: str) -> str:
    """An event's data with a previous block of 0: there is nothing before it."""
    types = anchor_registry().events["Anchored"].data
    revision, size, root_, _, descriptor, sketch = decode(types, bytes.fromhex(data[2:]))
    return "0x" + encode(types, (revision, size, root_, 0, descriptor, sketch)).hex()


@pytest.mark.parametrize("width", [2000, 1])
@pytest.mark.parametrize("lie", CONTRADICTIONS)
def test_a_node_that_lies_about_the_list_of_anchors_is_caught(
    busy: Deployed, monkeypatch: pytest.MonkeyPatch, lie: str, width: int
) -> None:
    """Whatever is wrong with it, no view comes of it; and where all is in one page, it is a contradiction."""
    monkeypatch.setattr(logs, "RANGE", width)
    node = Lying(busy.rpc.where, lambda found: CONTRADICTIONS[lie](found) if len(found) > 1 else found)
    if width == 2000:
        contradiction(Registry(node, busy.contract).view)
        return
    with pytest.raises(ChainError) as caught:
        Registry(node, busy.contract).view()
    assert caught.value.code in ("chain.contradiction", "chain.event_missing")


@pytest.mark.parametrize("width", [2000, 1])
@pytest.mark.parametrize("lie", KEPT_BACK)
def test_a_node_that_keeps_anchors_back_is_refused(
    busy: Deployed, monkeypatch: pytest.MonkeyPatch, lie: str, width: int
) -> None:
    monkeypatch.setattr(logs, "RANGE", width)
    gone = {identity(it) for it in every_log(busy)} - {identity(it) for it in kept(KEPT_BACK[lie](every_log(busy)))}
    changed = {identity(it): it for it in KEPT_BACK[lie](every_log(busy))}

    def lying(found: list[Any]) -> list[Any]:
        return [changed[identity(it)] for it in found if identity(it) not in gone]

    assert missing(Registry(Lying(busy.rpc.where, lying), busy.contract).view)


@pytest.mark.parametrize("lie", [lie for lie in KEPT_BACK if lie != "all of one party"])
def test_a_node_that_keeps_new_anchors_back_is_refused_by_who_knows_the_old_ones(busy: Deployed, lie: str) -> None:
    memory = Memory()
    assert Registry(busy.rpc, busy.contract, memory).view().position == 8
    busy.anchor(claim(b"new"), claim(b"newer"))
    busy.anchor(claim(b"newest"))
    node = Lying(busy.rpc.where, lambda found: KEPT_BACK[lie](found) if len(found) > 2 else found[:-1])
    assert missing(Registry(node, busy.contract, memory).view)
    assert Registry(busy.rpc, busy.contract, memory).view().position == 11


def test_a_view_that_was_refused_is_not_remembered(busy: Deployed) -> None:
    memory = Memory()
    node = Lying(busy.rpc.where, LIES["descriptor"])
    contradiction(Registry(node, busy.contract, memory).view)
    assert memory.kept.told == {}
    node = Lying(busy.rpc.where, KEPT_BACK["the first"])
    missing(Registry(node, busy.contract, memory).view)
    assert memory.kept.told == {}


@pytest.mark.parametrize("lie", ["size", "root"])
def test_an_event_that_was_remembered_is_held_against_storage_too(busy: Deployed, lie: str) -> None:
    """The list of anchors is right, and so is the view, which is storage's; the events are not used."""
    memory = Memory()
    registry = Registry(Lying(busy.rpc.where, LIES[lie]), busy.contract, memory)
    view = registry.view()
    assert view == busy.registry.view()
    assert memory.kept.told
    contradiction(lambda: registry.events(view.anchors["guangzhou"]))


def identity(log: Any) -> tuple[str, ...]:
    return str(log["blockHash"]), str(log["logIndex"])


def kept(found: list[Any]) -> list[Any]:
    return [log for log in found if not log.get("removed")]


def every_log(busy: Deployed) -> list[Any]:
    query = {"address": busy.contract, "fromBlock": "0x0", "topics": [[anchor_registry().events["Anchored"].topic]]}
    found: list[Any] = busy.rpc.call("eth_getLogs", query)
    assert len(found) == 5
    return found


def test_an_event_said_to_be_of_another_block_is_caught(busy: Deployed) -> None:
    node = Lying(busy.rpc.where, lambda logs: [{**log, "blockHash": "0x" + "11" * 32} for log in logs])
    assert "not of this block" in contradiction(lambda: Registry(node, busy.contract).audit(busy.registry.view()))


@pytest.mark.parametrize("dropped", [lambda logs: logs[1:], lambda logs: [{**log, "removed": True} for log in logs]])
def test_a_node_that_keeps_an_event_back_is_an_error(busy: Deployed, dropped: Callable[[list[Any]], list[Any]]) -> None:
    node = Lying(busy.rpc.where, dropped)
    view = busy.registry.view()
    for action in (lambda: Registry(node, busy.contract).events(view.anchors["guangzhou"]),):
        with pytest.raises(ChainError) as caught:
            action()
        assert caught.value.code == "chain.event_missing"
    with pytest.raises(ChainError):
        Registry(node, busy.contract).audit(view)


# ---- a view is whole ----

HELD = {"a": (Holding("0x" + "aa" * 20, 1, 1, 1),), "b": (Holding("0x" + "bb" * 20, 2, 1, 1),)}
FIRST = AnchorRecord("a", "00" * 32, 1, 1, "11" * 32, 1, 1, 1, 3)
SECOND = replace(FIRST, revision=2, sequence=2, position=4)
WHOLE = RegistryView(9, 9, 4, HELD, {"a": (FIRST, SECOND), "b": ()})


def test_a_whole_view_passes() -> None:
    check_whole(WHOLE)


@pytest.mark.parametrize(
    "view",
    [
        replace(WHOLE, position=5),
        replace(WHOLE, position=3),
        replace(WHOLE, anchors={"a": (FIRST,), "b": ()}),
        replace(WHOLE, anchors={"a": (FIRST, replace(SECOND, position=3)), "b": ()}),
        replace(WHOLE, anchors={"a": (FIRST, replace(SECOND, sequence=3)), "b": ()}),
        replace(WHOLE, anchors={"a": (FIRST, replace(SECOND, revision=1)), "b": ()}),
        replace(WHOLE, anchors={"a": (FIRST, replace(SECOND, batch_id="22" * 32)), "b": ()}),
        replace(WHOLE, anchors={"a": (replace(FIRST, position=4), replace(SECOND, position=3)), "b": ()}),
        replace(WHOLE, parties={"a": HELD["a"], "b": HELD["a"]}),
        replace(WHOLE, parties={"a": HELD["a"], "b": (replace(HELD["b"][0], account="0x" + "aa" * 20),)}),
        replace(
            WHOLE,
            position=5,
            parties={**HELD, "b": (replace(HELD["b"][0], position=5), replace(HELD["b"][0], position=2, account="0x"))},
        ),
    ],
)
def test_a_view_with_a_gap_or_a_repeat_is_a_contradiction(view: RegistryView) -> None:
    contradiction(lambda: check_whole(view, "here"))
