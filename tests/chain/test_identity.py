"""Is it still the same chain, and does a block count: both asked of a real node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ledger.chain.contract import anchor_registry
from ledger.chain.finality import Finality, Reorganised, is_final, parse_finality
from ledger.chain.identity import Block, Identity, block_at, chain_id, check_identity, code_sha256
from ledger.chain.local import LocalChain
from ledger.chain.rpc import Rpc, RpcAnswered
from ledger.chain.transactions import wait_for_receipt
from ledger.errors import ChainError, InputError

from .conftest import Deployed, claim, kill_nodes


def refused(code: str, action: Callable[[], Any]) -> ChainError:
    with pytest.raises(ChainError) as caught:
        action()
    assert caught.value.code == code, caught.value.en
    assert caught.value.where
    return caught.value


def identity_of(deployed: Deployed) -> Identity:
    block = block_at(deployed.rpc, 1)
    code = code_sha256(deployed.rpc, deployed.contract)
    assert block
    assert code == anchor_registry().code_sha256
    return Identity(deployed.chain.chain_id, deployed.contract, code, block)


def identity_of_block_1(deployed: Deployed) -> Identity:
    block = block_at(deployed.rpc, 1)
    assert block
    return Identity(deployed.chain.chain_id, deployed.contract, "00" * 32, block)


# ---- identity ----


def test_the_same_chain_passes_also_after_it_was_killed_and_started_again(deployed: Deployed) -> None:
    identity = identity_of(deployed)
    remembered = block_at(deployed.rpc, "latest")
    assert remembered
    check_identity(deployed.rpc, identity, remembered)
    for _ in range(3):
        deployed = deployed.restarted()
        check_identity(deployed.rpc, identity, remembered)


def test_another_chain_id_is_another_chain(deployed: Deployed) -> None:
    identity = identity_of(deployed)
    error = refused("chain.other_chain", lambda: check_identity(deployed.rpc, replace(identity, chain_id=1)))
    assert str(deployed.chain.chain_id) in error.en
    assert chain_id(deployed.rpc) == deployed.chain.chain_id


def test_another_block_at_the_place_of_the_identity_block_is_another_chain(deployed: Deployed) -> None:
    identity = replace(identity_of(deployed), block=Block(1, "00" * 32))
    refused("chain.other_chain", lambda: check_identity(deployed.rpc, identity))


def test_a_chain_without_the_identity_block_is_empty(deployed: Deployed) -> None:
    identity = replace(identity_of(deployed), block=Block(99, "00" * 32))
    refused("chain.empty", lambda: check_identity(deployed.rpc, identity))


def test_no_code_and_other_code_are_told_apart(deployed: Deployed) -> None:
    identity = identity_of(deployed)
    nobody = replace(identity, contract="0x" + "11" * 20)
    refused("chain.no_contract", lambda: check_identity(deployed.rpc, nobody))
    forged = replace(identity, code_sha256="00" * 32)
    refused("chain.other_code", lambda: check_identity(deployed.rpc, forged))
    deployed.rpc.call("anvil_setCode", deployed.contract, "0x00")
    refused("chain.other_code", lambda: check_identity(deployed.rpc, identity))


def test_a_trusted_contract_of_another_version_is_named(deployed: Deployed) -> None:
    """Its code is what is trusted, and yet not what this version can read."""
    deployed.rpc.call("anvil_setCode", deployed.contract, "0x6001")
    code = code_sha256(deployed.rpc, deployed.contract)
    assert code is not None
    identity = replace(identity_of_block_1(deployed), code_sha256=code)
    assert code in refused("chain.other_version", lambda: check_identity(deployed.rpc, identity)).en


def test_a_chain_that_lost_the_remembered_block_is_lost(deployed: Deployed) -> None:
    """Once shorter, once with another block in its place."""
    identity = identity_of(deployed)
    deployed.anchor(claim(b"never saved"))
    remembered = block_at(deployed.rpc, "latest")
    assert remembered
    deployed = deployed.restarted()
    check_identity(deployed.rpc, identity)
    assert "shorter" in refused("chain.lost", lambda: check_identity(deployed.rpc, identity, remembered)).en
    deployed.rpc.call("anvil_mine", "0x1")
    assert "now has" in refused("chain.lost", lambda: check_identity(deployed.rpc, identity, remembered)).en


def test_identity_is_asked_anew_each_time(deployed: Deployed, home: Any, tmp_path: Any) -> None:
    """Another node takes the port while the same Rpc object lives on."""
    identity = identity_of(deployed)
    check_identity(deployed.rpc, identity)
    kill_nodes(deployed.chain.home)
    refused("chain.unreachable", lambda: check_identity(deployed.rpc, identity))
    other = LocalChain(tmp_path / "other")
    try:
        from ledger.chain import node as nodes

        other.home.mkdir()
        port = int(deployed.rpc.where.rsplit(":", 1)[1])
        nodes.start(other.home, deployed.chain.chain_id, port, None, other.home / "log")
        while not [n for n in nodes.nodes_of(other.home) if nodes.answers(n)]:
            pass
        refused("chain.empty", lambda: check_identity(deployed.rpc, identity))
    finally:
        kill_nodes(other.home)


# ---- finality ----


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("instant", Finality("instant")),
        ("finalized", Finality("finalized")),
        ("depth:1", Finality("depth", 1)),
        ("depth:12", Finality("depth", 12)),
    ],
)
def test_a_finality_policy_is_parsed_and_shown(text: str, policy: Finality) -> None:
    assert parse_finality(text) == policy
    assert str(policy) == text


@pytest.mark.parametrize(
    "text", ["", "Instant", "depth", "depth:", "depth:0", "depth:-1", "depth:1.5", "depth:12 ", "safe"]
)
def test_any_other_finality_policy_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_finality(text, "duizhang.toml")
    assert caught.value.code == "config.finality"


def latest(deployed: Deployed) -> tuple[int, str]:
    block = deployed.rpc.call("eth_getBlockByNumber", "latest", False)
    return int(block["number"], 16), block["hash"]


def test_instant_is_final_at_once(deployed: Deployed) -> None:
    assert is_final(deployed.rpc, Finality("instant"), *latest(deployed)) is True


def test_depth_is_final_when_that_many_blocks_stand_on_it(deployed: Deployed) -> None:
    number, block_hash = latest(deployed)
    policy = parse_finality("depth:3")
    for standing in range(5):
        assert is_final(deployed.rpc, policy, number, block_hash) is (standing >= 3)
        deployed.rpc.call("anvil_mine", "0x1")


def test_finalized_follows_the_node_s_tag(deployed: Deployed) -> None:
    number, block_hash = latest(deployed)
    policy = parse_finality("finalized")
    assert is_final(deployed.rpc, policy, number, block_hash) is False
    deployed.rpc.call("anvil_mine", "0x5")
    assert is_final(deployed.rpc, policy, number, block_hash) is True


@pytest.mark.parametrize("policy", ["instant", "depth:3", "finalized"])
def test_a_reorganisation_is_noticed_under_every_policy(forgetful: Rpc, policy: str) -> None:
    sender, receiver = forgetful.call("eth_accounts")[:2]
    sent = forgetful.call("eth_sendTransaction", {"from": sender, "to": receiver, "value": "0x1"})
    mined = wait_for_receipt(forgetful, sent)
    assert mined
    forgetful.call("anvil_mine", "0x1")
    assert is_final(forgetful, Finality("instant"), mined.block, mined.block_hash)
    forgetful.call("anvil_reorg", 2, [])
    forgetful.call("anvil_mine", "0xa")
    with pytest.raises(Reorganised) as caught:
        is_final(forgetful, parse_finality(policy), mined.block, mined.block_hash)
    assert caught.value.code == "chain.reorganised"
    assert mined.block_hash in caught.value.en


def test_a_block_beyond_the_end_of_the_chain_is_reorganised_away(deployed: Deployed) -> None:
    with pytest.raises(Reorganised):
        is_final(deployed.rpc, Finality("instant"), 999, "0x" + "00" * 32)


@pytest.mark.parametrize(
    "nothing", [None, RpcAnswered("eth_getBlockByNumber", -39001, "Unknown block", "", "http://n")]
)
def test_a_node_without_the_tag_finalized(deployed: Deployed, nothing: object) -> None:
    """Null means: nothing final yet. An error means: use another policy."""

    class Untagged(Rpc):
        def call(self, method: str, *params: Any) -> Any:
            if params[:1] == ("finalized",):
                if isinstance(nothing, Exception):
                    raise nothing
                return nothing
            return super().call(method, *params)

    def ask() -> bool:
        return is_final(Untagged(deployed.rpc.where), Finality("finalized"), *latest(deployed))

    if nothing is None:
        assert ask() is False
    else:
        assert "depth:N" in refused("chain.no_finalized", ask).en
