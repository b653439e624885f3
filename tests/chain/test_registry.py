"""Reading the registry: everything from one block, in one call or in pages."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from eth_account import Account

from ledger.chain import logs
from ledger.chain.abi import decode
from ledger.chain.contract import anchor_registry
from ledger.chain.history import Memory
from ledger.chain.registry import Registry, Roles
from ledger.chain.rpc import Rpc, RpcAnswered
from ledger.chain.transactions import deploy_data, encode_register, prepare, send_raw, wait_for_receipt
from ledger.errors import ChainError

from .conftest import Deployed, claim, root


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
    assert [busy.registry.sketch(record) for record in events] == [b"", b"", b"s" * 288, b""]
    for record, event in events.items():
        block = busy.rpc.call("eth_getBlockByNumber", hex(record.block), False)
        assert event.block_hash == block["hash"]
        assert event.transaction in block["transactions"]
    assert busy.registry.events([]) == {}
    assert set(busy.registry.audit(view)) == {r for records in view.anchors.values() for r in records}


# ---- pages ----


class Reluctant(Rpc):
    """A node that refuses to answer about more than `most` anchors in a call, and may change between calls."""

    def __init__(self, url: str, most: int) -> None:
        super().__init__(url)
        self.most = most
        self.before_call: list[Callable[[], None]] = []
        self.after = 3
        self.calls = 0

    def call(self, method: str, *params: Any) -> Any:
        if method == "eth_call":
            self.calls += 1
            if self.before_call and self.calls > self.after:
                self.before_call.pop()()
            if asked(params[0]["data"]) > self.most:
                raise RpcAnswered(method, -32000, "out of gas", "", self.where)
        return super().call(method, *params)


def asked(data: str) -> int:
    """How many anchors a call asks for."""
    functions = anchor_registry().functions
    raw = bytes.fromhex(data[2:])
    if not raw.startswith(functions["read"].selector):
        return 0
    (calls,) = decode(functions["read"].inputs, raw[4:])
    anchors = functions["anchors"]
    return sum(len(decode(anchors.inputs, it[4:])[1]) for it in calls if it.startswith(anchors.selector))


@pytest.mark.parametrize(("most", "calls"), [(5, 3), (4, 8), (2, 8), (1, 8)])
def test_a_node_that_refuses_large_answers_is_read_in_pages(busy: Deployed, most: int, calls: int) -> None:
    whole = busy.registry.view()
    node = Reluctant(busy.rpc.where, most)
    assert Registry(node, busy.contract).view() == whole
    # Names, counters, what is refused, and each of the five by itself.
    assert node.calls == calls


def test_a_node_that_refuses_even_one_anchor_is_an_error(busy: Deployed) -> None:
    with pytest.raises(RpcAnswered):
        Registry(Reluctant(busy.rpc.where, 0), busy.contract).view()


def test_pages_never_mix_two_states(busy: Deployed) -> None:
    node = Reluctant(busy.rpc.where, 1)
    node.after = 5
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
    node = Reluctant(busy.rpc.where, 1)
    numbers = iter(range(1000))
    node.before_call = [lambda: void(busy.anchor(claim(b"again %d" % next(numbers))))] * 1000
    with pytest.raises(ChainError) as caught:
        Registry(node, busy.contract).view()
    assert caught.value.code == "chain.moving"


def void(_: object) -> None:
    pass


def test_ranges_of_logs_that_a_node_refuses_are_halved(busy: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    class Narrow(Rpc):
        def call(self, method: str, *params: Any) -> Any:
            if method == "eth_getLogs" and int(params[0]["toBlock"], 16) - int(params[0]["fromBlock"], 16) > 1:
                raise RpcAnswered(method, -32005, "range too wide", "", self.where)
            return super().call(method, *params)

    view = busy.registry.view()
    narrow = Registry(Narrow(busy.rpc.where), busy.contract)
    assert narrow.audit(view) == busy.registry.audit(view)
    monkeypatch.setattr(logs, "RANGE", 2)
    assert narrow.view() == busy.registry.view() == view
    assert busy.registry.events(view.anchors["guangzhou"]) == narrow.events(view.anchors["guangzhou"])


@pytest.mark.parametrize("contract", ["0x" + "11" * 20, "0x" + "00" * 19 + "02"])
def test_an_address_without_the_registry_is_named(deployed: Deployed, contract: str) -> None:
    """One without code, and one (the SHA-256 precompile) that answers something else."""
    with pytest.raises(ChainError) as caught:
        Registry(deployed.rpc, contract).view()
    assert caught.value.code == "chain.no_contract"
    assert contract in caught.value.where


# ---- which blocks are searched for events ----


class Counting(Rpc):
    """Counts what is asked, and tells which ranges of blocks were."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.ranges: list[tuple[int, int]] = []

    def call(self, method: str, *params: Any) -> Any:
        if method == "eth_getLogs":
            self.ranges.append((int(params[0]["fromBlock"], 16), int(params[0]["toBlock"], 16)))
        return super().call(method, *params)


def test_of_a_long_chain_only_the_blocks_about_anchors_are_searched(
    busy: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "RANGE", 20)
    first = busy.registry.view()
    blocks = sorted({it.block for held in first.anchors.values() for it in held})
    busy.rpc.call("anvil_mine", hex(300))
    busy.anchor(claim(b"much later"))
    busy.rpc.call("anvil_mine", hex(300))
    node = Counting(busy.rpc.where)
    view = Registry(node, busy.contract).view()
    (later,) = [it for it in view.anchors["guangzhou"] if it not in first.anchors["guangzhou"]]
    assert later.block > blocks[-1] + 300
    assert node.ranges == [(later.block - 19, later.block), (1, blocks[-1])]


def test_what_a_process_saw_it_does_not_ask_for_again(busy: Deployed) -> None:
    node, memory = Counting(busy.rpc.where), Memory()
    first = Registry(node, busy.contract, memory).view()
    assert len(node.ranges) == 1
    registry = Registry(node, busy.contract, memory)
    assert registry.view() == first
    events = registry.events(it for held in first.anchors.values() for it in held)
    assert {it.descriptor for it in events.values()} == {b"a", b"b", b"c" * 1024}
    assert len(node.ranges) == 1
    busy.rpc.call("anvil_mine", "0x5")
    mined = busy.anchor(claim(b"new"))
    assert registry.view() == busy.registry.view()
    assert node.ranges[1:] == [(first.anchors["guangzhou"][-1].block + 1, mined.block)]


def test_an_older_block_is_read_by_a_process_that_knows_a_newer_one(forgetful: Rpc) -> None:
    deployed = on_a_node_with_old_states(forgetful)
    deployed.anchor(claim(b"a"))
    old = deployed.registry.view()
    deployed.anchor(claim(b"b"), claim(b"a", 1, 7))
    memory = Memory()
    registry = Registry(forgetful, deployed.contract, memory)
    new = registry.view()
    assert registry.view(old.block) == old
    assert registry.view() == new
    assert len(memory.kept.told) == 3


def test_a_reorganised_chain_is_read_anew(forgetful: Rpc) -> None:
    """What a process remembers of blocks that are gone is neither shown nor in the way."""
    deployed = on_a_node_with_old_states(forgetful)
    deployed.anchor(claim(b"a"))
    before = forgetful.call("evm_snapshot")
    deployed.anchor(claim(b"gone"), claim(b"a", 1, 7))
    registry = Registry(forgetful, deployed.contract, Memory())
    assert len(registry.view().anchors["guangzhou"]) == 3
    forgetful.call("evm_revert", before)
    assert [it.size for it in registry.view().anchors["guangzhou"]] == [1]
    forgetful.call("anvil_mine", "0x3")
    deployed.anchor(claim(b"other"), claim(b"a", 1, 9), claim(b"gone"))
    stale = Registry(forgetful, deployed.contract, Memory())
    stale.view()
    assert [it.size for it in registry.view().anchors["guangzhou"]] == [1, 1, 9, 1]
    assert registry.view() == stale.view()
    events = registry.events(registry.view().anchors["guangzhou"])
    assert [it.descriptor for it in events.values()] == [b"a", b"other", b"a", b"gone"]


def test_a_chain_of_as_many_anchors_in_another_order_is_read_anew(forgetful: Rpc) -> None:
    deployed = on_a_node_with_old_states(forgetful)
    before = forgetful.call("evm_snapshot")
    deployed.anchor(claim(b"a"), claim(b"b"))
    registry = Registry(forgetful, deployed.contract, Memory())
    registry.view()
    forgetful.call("evm_revert", before)
    deployed.anchor(claim(b"b", size=3), claim(b"a", size=4))
    view = registry.view()
    assert [it.size for it in view.anchors["guangzhou"]] == [3, 4]
    assert [it.descriptor for it in registry.events(view.anchors["guangzhou"]).values()] == [b"b", b"a"]


def on_a_node_with_old_states(rpc: Rpc) -> Deployed:
    account: Any = Account.create()
    rpc.call("anvil_setBalance", account.address, hex(10**20))
    chain_id = int(rpc.call("eth_chainId"), 16)
    chain: Any = SimpleNamespace(chain_id=chain_id)
    signed = prepare(rpc, account, chain_id=chain_id, to=None, data=deploy_data())
    send_raw(rpc, signed.raw)
    mined = wait_for_receipt(rpc, signed.hash)
    assert mined is not None
    assert mined.contract is not None
    deployed = Deployed(chain, rpc, account, account, mined.contract)
    deployed.act(encode_register("guangzhou", deployed.address))
    return deployed


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
