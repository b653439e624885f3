"""A chain or a node that says two things: an error, never a value."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from eth_hash.auto import keccak

from ledger.chain.contract import anchor_registry, name_to_word
from ledger.chain.registry import AnchorRecord, Holding, Registry, RegistryView
from ledger.chain.rpc import Rpc
from ledger.chain.view import check_whole
from ledger.errors import ChainError

from .conftest import Deployed, root


def contradiction(action: Callable[[], Any]) -> str:
    with pytest.raises(ChainError) as caught:
        action()
    assert caught.value.code == "chain.contradiction", caught.value.en
    assert caught.value.where
    return caught.value.en


def slot_of_log(party: str, sequence: int) -> int:
    """The storage slot of a party's batch id, found by its value; layout changes only move it."""
    length_slot = int.from_bytes(keccak(name_to_word(party) + LOG_SLOT.to_bytes(32, "big")), "big")
    return int.from_bytes(keccak(length_slot.to_bytes(32, "big")), "big") + sequence - 1


# The order of the state variables in the contract: roles, position, nameOf, _names, _holdings, _log, _revisions.
LOG_SLOT, REVISIONS_SLOT, HOLDINGS_SLOT = 5, 6, 4


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


def test_an_anchor_cut_off_from_storage_is_noticed(busy: Deployed) -> None:
    length = int.from_bytes(keccak(name_to_word("guangzhou") + LOG_SLOT.to_bytes(32, "big")), "big")
    assert get(busy, length) == 4
    put(busy, length, 3)
    assert "positions 1 to 8" in contradiction(busy.registry.view)


def test_an_anchor_cut_off_together_with_the_position_contradicts_the_events(busy: Deployed) -> None:
    length = int.from_bytes(keccak(name_to_word("guangzhou") + LOG_SLOT.to_bytes(32, "big")), "big")
    put(busy, length, 3)
    put(busy, 1, 7)
    view = busy.registry.view()
    assert len(view.anchors["guangzhou"]) == 3
    busy.registry.events(view.anchors["guangzhou"])
    assert "anchor 4 of guangzhou" in contradiction(lambda: busy.registry.audit(view))


def test_a_batch_id_rewritten_in_the_log_is_noticed(busy: Deployed) -> None:
    slot = slot_of_log("guangzhou", 2)
    assert get(busy, slot) == int(hashlib.sha256(b"b").hexdigest(), 16)
    put(busy, slot, int(hashlib.sha256(b"a").hexdigest(), 16))
    with pytest.raises(ChainError):
        busy.registry.view()


def test_a_holder_rewritten_in_storage_contradicts_the_events(busy: Deployed) -> None:
    length = int.from_bytes(keccak(name_to_word("foshan") + HOLDINGS_SLOT.to_bytes(32, "big")), "big")
    slot = int.from_bytes(keccak(length.to_bytes(32, "big")), "big")
    put(busy, slot, get(busy, slot) ^ 1)
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


def event_data(revision: int, size: int, root_: str, descriptor: bytes) -> str:
    from ledger.chain.abi import encode

    types = anchor_registry().events["Anchored"].data
    return "0x" + encode(types, (revision, size, bytes.fromhex(root_), descriptor, b"")).hex()


LIES: dict[str, Callable[[list[Any]], list[Any]]] = {
    "descriptor": lambda logs: [{**logs[0], "data": event_data(1, 5, root(1), b"x")}, *logs[1:]],
    "size": lambda logs: [{**logs[0], "data": event_data(1, 4, root(1), b"a")}, *logs[1:]],
    "root": lambda logs: [{**logs[0], "data": event_data(1, 5, root(2), b"a")}, *logs[1:]],
    "revision": lambda logs: [{**logs[0], "data": event_data(2, 5, root(1), b"a")}, *logs[1:]],
    "block": lambda logs: [{**logs[0], "blockNumber": "0x99"}, *logs[1:]],
    "twice": lambda logs: [logs[0], *logs],
    "batch id": lambda logs: [
        {**logs[0], "topics": [logs[0]["topics"][0], "0x" + "11" * 32, *logs[0]["topics"][2:]]},
        *logs[1:],
    ],
    "other contract": lambda logs: [{**logs[0], "address": "0x" + "11" * 20}, *logs[1:]],
    "other event": lambda logs: [{**logs[0], "topics": ["0x" + "11" * 32]}, *logs[1:]],
}


@pytest.mark.parametrize("lie", LIES)
def test_a_node_that_lies_about_an_event_is_caught(busy: Deployed, lie: str) -> None:
    node = Lying(busy.rpc.where, LIES[lie])
    anchors = busy.registry.view().anchors["guangzhou"]
    contradiction(lambda: Registry(node, busy.contract).events(anchors))


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
