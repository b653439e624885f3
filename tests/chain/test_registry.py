"""Reading the registry: whole, from one block, and never a value where the chain contradicts itself."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from eth_account import Account
from eth_hash.auto import keccak

from ledger.chain import registry as registry_module
from ledger.chain.contract import anchor_registry, name_to_word
from ledger.chain.registry import AnchorRecord, Holding, Registry, RegistryView, Roles
from ledger.chain.rpc import Rpc, RpcAnswered
from ledger.chain.transactions import encode_anchor, encode_move, encode_register
from ledger.chain.view import check_whole
from ledger.errors import ChainError

from .conftest import Deployed, claim, root


def contradiction(action: Callable[[], Any]) -> str:
    with pytest.raises(ChainError) as caught:
        action()
    assert caught.value.code == "chain.contradiction", caught.value.en
    assert caught.value.where
    return caught.value.en


@pytest.fixture
def busy(deployed: Deployed) -> Deployed:
    """Two parties; guangzhou moved once, anchored four times, one of them a revision; foshan anchored the same batch."""
    foshan = Account.create()
    deployed.act(encode_register("foshan", foshan.address))
    deployed.anchor(claim(b"a", size=5, root_=root(1)), claim(b"b", size=0, root_=hashlib.sha256(b"").hexdigest()))
    deployed.act(encode_anchor([claim(b"a", size=6, root_=root(2))]), account=foshan)
    moved = Account.create()
    deployed.act(encode_move(moved.address))
    deployed.account = moved
    deployed.anchor(claim(b"a", 1, 7, root(3), b"s" * 288), claim(b"c" * 1024))
    return deployed


def test_a_view_holds_parties_and_anchors_of_one_block(busy: Deployed) -> None:
    view = busy.registry.view()
    assert list(view.parties) == ["guangzhou", "foshan"]
    assert view.position == 8
    assert view.block == int(busy.rpc.call("eth_blockNumber"), 16)
    assert [(h.position, h.account) for h in view.parties["guangzhou"]][1] == (6, busy.address)
    own = view.anchors["guangzhou"]
    assert [(r.revision, r.size, r.root, r.sequence, r.position) for r in own] == [
        (1, 5, root(1), 1, 3),
        (1, 0, hashlib.sha256(b"").hexdigest(), 2, 4),
        (2, 7, root(3), 3, 7),
        (1, 1, root(0), 4, 8),
    ]
    assert {r.party for r in own} == {"guangzhou"}
    assert own[0].batch_id == hashlib.sha256(b"a").hexdigest()
    assert [(r.size, r.position) for r in view.anchors["foshan"]] == [(6, 5)]
    block = busy.rpc.call("eth_getBlockByNumber", hex(own[0].block), False)
    assert own[0].time == int(block["timestamp"], 16)


def test_a_view_answers_who_held_an_address_when(busy: Deployed) -> None:
    view = busy.registry.view()
    old, new = (holding.account for holding in view.parties["guangzhou"])
    assert [view.holder(old, p) for p in (0, 1, 5, 6)] == [None, "guangzhou", "guangzhou", None]
    assert [view.holder(new, p) for p in (5, 6, 99)] == [None, "guangzhou", "guangzhou"]
    assert view.holder(old.upper().replace("0X", "0x"), 1) == "guangzhou"
    assert view.holder("0x" + "11" * 20, 5) is None
    assert (view.party_of(old), view.party_of(new)) == (None, "guangzhou")
    assert view.address("guangzhou") == new
    with pytest.raises(ChainError) as caught:
        view.address("shenzhen")
    assert caught.value.code == "chain.no_party"


def test_a_view_answers_what_a_party_said_about_a_batch(busy: Deployed) -> None:
    view = busy.registry.view()
    batch = hashlib.sha256(b"a").hexdigest()
    assert [r.size for r in view.revisions(batch, "guangzhou")] == [5, 7]
    first, last = view.first(batch, "guangzhou"), view.last(batch, "guangzhou")
    assert (first and first.size, last and last.size) == (5, 7)
    assert view.revisions(batch, "nobody") == ()
    assert view.first("00" * 32, "guangzhou") is None
    assert view.last("00" * 32, "guangzhou") is None


def test_a_registry_without_parties_is_read_too(deployed: Deployed) -> None:
    receipt = deployed.send(_deployment(deployed))
    assert receipt.contract is not None
    view = Registry(deployed.rpc, receipt.contract).view()
    assert (view.parties, view.anchors, view.position) == ({}, {}, 0)


def _deployment(deployed: Deployed) -> Any:
    from ledger.chain.transactions import deploy_data, prepare

    return prepare(deployed.rpc, deployed.account, chain_id=deployed.chain.chain_id, to=None, data=deploy_data())


def test_roles_say_what_an_account_may_do(busy: Deployed) -> None:
    registry, view = busy.registry, busy.registry.view()
    old, new = (holding.account for holding in view.parties["guangzhou"])
    assert registry.roles(old) == Roles(registrar=True, party=False, name="")
    assert registry.roles(new) == Roles(registrar=False, party=True, name="guangzhou")
    assert registry.roles("0x" + "11" * 20) == Roles(registrar=False, party=False, name="")


def test_events_bring_descriptors_and_sketches(busy: Deployed) -> None:
    view = busy.registry.view()
    events = busy.registry.events(view.anchors["guangzhou"])
    assert [event.descriptor for event in events.values()] == [b"a", b"b", b"a", b"c" * 1024]
    assert [len(event.sketch) for event in events.values()] == [0, 0, 288, 0]
    for record, event in events.items():
        block = busy.rpc.call("eth_getBlockByNumber", hex(record.block), False)
        assert event.block_hash == block["hash"]
        assert event.transaction in block["transactions"]
    assert busy.registry.events([]) == {}
    assert set(busy.registry.audit(view)) == {r for records in view.anchors.values() for r in records}


# ---- pages ----


class Reluctant(Rpc):
    """A node that refuses call data or answers above a size, knows no old blocks, and may change between calls."""

    def __init__(self, url: str, most: int, *, pinned: bool = False) -> None:
        super().__init__(url)
        self.most = most
        self.pinned = pinned
        self.before_call: list[Callable[[], None]] = []
        self.after = 3
        self.calls = 0

    def call(self, method: str, *params: Any) -> Any:
        if method == "eth_call":
            self.calls += 1
            if params[1] != "latest" and not self.pinned:
                raise RpcAnswered(method, -32000, "missing trie node", "", self.where)
            if self.before_call and self.calls > self.after:
                self.before_call.pop()()
        answer = super().call(method, *params)
        if method == "eth_call" and len(answer) // 2 > self.most:
            raise RpcAnswered(method, -32000, "out of gas", "", self.where)
        return answer


@pytest.mark.parametrize("pinned", [False, True])
def test_a_node_that_refuses_large_answers_is_read_in_pages(busy: Deployed, *, pinned: bool) -> None:
    whole = busy.registry.view()
    node = Reluctant(busy.rpc.where, 1300, pinned=pinned)
    assert Registry(node, busy.contract).view() == whole
    assert node.calls > 4


def test_a_node_that_refuses_even_one_anchor_is_an_error(busy: Deployed) -> None:
    with pytest.raises(RpcAnswered):
        Registry(Reluctant(busy.rpc.where, 500), busy.contract).view()


def test_pages_never_mix_two_states(busy: Deployed) -> None:
    node = Reluctant(busy.rpc.where, 1300)
    node.before_call = [lambda: void(busy.anchor(claim(b"between pages")))]
    view = Registry(node, busy.contract).view()
    assert view == busy.registry.view()
    assert view.position == 9


def test_a_party_registered_between_two_calls_is_in_the_view(busy: Deployed) -> None:
    node = Reluctant(busy.rpc.where, 10**9)
    node.after = 1
    node.before_call = [lambda: void(busy.act(encode_register("zhuhai", "0x" + "77" * 20), busy.registrar))]
    assert list(Registry(node, busy.contract).view().parties) == ["guangzhou", "foshan", "zhuhai"]


def test_a_registry_that_never_stands_still_is_an_error(busy: Deployed) -> None:
    node = Reluctant(busy.rpc.where, 1300)
    numbers = iter(range(1000))
    node.before_call = [lambda: void(busy.anchor(claim(b"again %d" % next(numbers))))] * 1000
    with pytest.raises(ChainError) as caught:
        Registry(node, busy.contract).view()
    assert caught.value.code == "chain.moving"


def void(_: object) -> None:
    pass


# ---- contradictions ----


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


def test_ranges_of_logs_that_a_node_refuses_are_halved(busy: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    class Narrow(Rpc):
        def call(self, method: str, *params: Any) -> Any:
            if method == "eth_getLogs" and int(params[0]["toBlock"], 16) - int(params[0]["fromBlock"], 16) > 1:
                raise RpcAnswered(method, -32005, "range too wide", "", self.where)
            return super().call(method, *params)

    view = busy.registry.view()
    narrow = Registry(Narrow(busy.rpc.where), busy.contract)
    assert narrow.audit(view) == busy.registry.audit(view)
    monkeypatch.setattr(registry_module, "_RANGE", 2)
    assert busy.registry.events(view.anchors["guangzhou"]) == narrow.events(view.anchors["guangzhou"])


@pytest.mark.parametrize("contract", ["0x" + "11" * 20, "0x" + "00" * 19 + "02"])
def test_an_address_without_the_registry_is_named(deployed: Deployed, contract: str) -> None:
    """One without code, and one (the SHA-256 precompile) that answers something else."""
    with pytest.raises(ChainError) as caught:
        Registry(deployed.rpc, contract).view()
    assert caught.value.code == "chain.no_contract"
    assert contract in caught.value.where


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


# ---- what verify may import ----


def test_reading_the_chain_imports_no_web3_no_sqlalchemy_and_no_web_framework() -> None:
    script = (
        "import sys, ledger.chain.registry, ledger.chain.identity, ledger.chain.finality, ledger.chain.local\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"web3", "sqlalchemy", "fastapi", "starlette", "pydantic", "eth_account", "eth_abi", "eth_utils", "pyarrow"}
    assert "ledger" in loaded
    assert heavy.isdisjoint(loaded)
