"""Building, sending and looking up transactions: what is known, and never more than that."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from eth_account import Account
from eth_account.typed_transactions import TypedTransaction
from eth_hash.auto import keccak
from hexbytes import HexBytes
from hypothesis import given
from hypothesis import strategies as st

from ledger.chain import transactions
from ledger.chain.contract import anchor_registry, name_to_word
from ledger.chain.reverts import Refused, explain
from ledger.chain.rpc import Rpc, RpcAnswered, RpcUnreachable
from ledger.chain.transactions import (
    GAS_CAP,
    Claim,
    Fees,
    Outcome,
    block_gas,
    classify,
    contract_address,
    current_fees,
    encode_anchor,
    encode_move,
    encode_register,
    estimate_gas,
    groups,
    next_nonce,
    packed,
    planned_gas,
    preflight,
    receipt,
    send_raw,
    sign,
    wait_for_receipt,
)
from ledger.errors import ChainError

from .conftest import Deployed, claim, kill_nodes, root

ACCOUNT = Account.from_key("0x" + "11" * 32)
DEFAULT = {"most_claims": 100, "most_bytes": 120_000, "most_gas": 16_000_000}
"""As `ledger.config` has them."""


class Scripted(Rpc):
    """A node that answers from a table; an exception in it is raised."""

    def __init__(self, answers: dict[str, Any]) -> None:
        super().__init__("http://127.0.0.1:1")
        self.answers = answers

    def call(self, method: str, *params: Any) -> Any:
        answer = self.answers[method]
        if isinstance(answer, Exception):
            raise answer
        return answer


def answered(message: str, data: str = "") -> RpcAnswered:
    return RpcAnswered("eth_sendRawTransaction", -32000, message, data, "http://node")


# ---- sending to the real node ----


def test_sending_is_accepted_and_sending_again_is_known_for_what_it_is(deployed: Deployed) -> None:
    signed = deployed.prepare(encode_anchor([claim(b"batch")]))
    assert receipt(deployed.rpc, signed.hash) is None
    assert send_raw(deployed.rpc, signed.raw).outcome is Outcome.ACCEPTED
    mined = wait_for_receipt(deployed.rpc, signed.hash)
    assert mined
    assert mined.ok
    assert mined.gas_used > 0
    assert send_raw(deployed.rpc, signed.raw).outcome is Outcome.NONCE_TOO_LOW
    assert len(deployed.registry.view().anchors["guangzhou"]) == 1


def test_a_transaction_waiting_in_the_pool_is_already_known(deployed: Deployed) -> None:
    deployed.rpc.call("evm_setAutomine", False)
    signed = deployed.prepare(encode_anchor([claim(b"batch")]))
    assert send_raw(deployed.rpc, signed.raw).outcome is Outcome.ACCEPTED
    assert send_raw(deployed.rpc, signed.raw).outcome is Outcome.ALREADY_KNOWN
    assert wait_for_receipt(deployed.rpc, signed.hash, timeout_seconds=0.05) is None
    other = sign(
        deployed.account,
        chain_id=deployed.chain.chain_id,
        nonce=signed.nonce,
        to=deployed.contract,
        data=encode_anchor([claim(b"other")]),
        gas=500_000,
        fees=Fees(False, 0, 0),
    )
    assert send_raw(deployed.rpc, other.raw).outcome is Outcome.REFUSED
    deployed.rpc.call("anvil_mine", "0x1")
    assert wait_for_receipt(deployed.rpc, signed.hash)


def test_a_transaction_for_another_chain_is_refused(deployed: Deployed) -> None:
    signed = sign(
        deployed.account,
        chain_id=deployed.chain.chain_id + 1,
        nonce=next_nonce(deployed.rpc, deployed.address),
        to=deployed.contract,
        data=b"",
        gas=100_000,
        fees=Fees(False, 0, 0),
    )
    assert send_raw(deployed.rpc, signed.raw).outcome is Outcome.REFUSED


def test_a_node_that_is_gone_leaves_the_outcome_unknown(deployed: Deployed) -> None:
    signed = deployed.prepare(encode_anchor([claim(b"batch")]))
    kill_nodes(deployed.chain.home)
    sent = send_raw(deployed.rpc, signed.raw)
    assert sent.outcome is Outcome.UNKNOWN
    assert "无应答" in sent.zh


def test_a_failed_transaction_has_a_receipt_that_says_so(deployed: Deployed) -> None:
    signed = sign(
        deployed.account,
        chain_id=deployed.chain.chain_id,
        nonce=next_nonce(deployed.rpc, deployed.address),
        to=deployed.contract,
        data=encode_anchor([claim(b"")]),
        gas=500_000,
        fees=Fees(False, 0, 0),
    )
    assert send_raw(deployed.rpc, signed.raw).outcome is Outcome.ACCEPTED
    mined = wait_for_receipt(deployed.rpc, signed.hash)
    assert mined
    assert not mined.ok


def test_a_legacy_transaction_without_fees_is_mined_too(deployed: Deployed) -> None:
    signed = sign(
        deployed.account,
        chain_id=deployed.chain.chain_id,
        nonce=next_nonce(deployed.rpc, deployed.address),
        to=deployed.contract,
        data=encode_anchor([claim(b"batch")]),
        gas=500_000,
        fees=Fees(True, 0, 0),
    )
    assert deployed.send(signed).ok


def test_a_hundred_claims_fit_one_transaction_and_cost_what_batches_are_planned_with(deployed: Deployed) -> None:
    claims = many(100)
    (group,) = groups(claims, **DEFAULT)
    mined = deployed.anchor(*group)
    assert mined.gas_used // 100 < 66_000
    assert len(deployed.registry.view().anchors["guangzhou"]) == 100
    block = deployed.rpc.call("eth_getBlockByNumber", "latest", False)
    assert block["baseFeePerGas"] == "0x0"


# ---- the contract's refusals, before anything is sent ----


def test_a_stranger_is_told_so(deployed: Deployed) -> None:
    stranger = Account.create()
    with pytest.raises(Refused) as caught:
        deployed.prepare(encode_anchor([claim(b"batch")]), account=stranger)
    assert caught.value.code == "chain.no_name"
    assert stranger.address.lower() in caught.value.en
    assert "not registered" in caught.value.en
    assert "未登记" in caught.value.zh
    with pytest.raises(Refused) as caught:
        deployed.prepare(encode_register("foshan", stranger.address), account=stranger)
    assert caught.value.code == "chain.no_role"
    assert "registrar" in caught.value.en


def test_a_wrong_revision_count_is_told_with_both_numbers(deployed: Deployed) -> None:
    deployed.anchor(claim(b"batch"))
    for data in (encode_anchor([claim(b"batch", 0, 2)]), encode_anchor([claim(b"batch", 5, 2)])):
        with pytest.raises(Refused) as caught:
            preflight(deployed.rpc, deployed.address, deployed.contract, data)
        assert caught.value.code == "chain.revision_mismatch"
        assert caught.value.revert.values[2] == 1
        with pytest.raises(Refused):
            estimate_gas(deployed.rpc, deployed.address, deployed.contract, data)


def test_a_moved_name_is_told_with_its_new_holder(deployed: Deployed) -> None:
    moved = Account.create()
    deployed.act(encode_move(moved.address))
    with pytest.raises(Refused) as caught:
        deployed.prepare(encode_anchor([claim(b"batch")]))
    assert caught.value.code == "chain.not_holder"
    assert moved.address.lower() in caught.value.en


def test_every_error_of_the_contract_has_its_own_code_and_both_languages() -> None:
    sample = {"uint": 7, "address": "0x" + "ab" * 20, "bytes32": name_to_word("foshan")}
    explained = {}
    for selector, (name, types) in anchor_registry().errors.items():
        from ledger.chain.abi import encode

        values = [sample[kind.kind] for kind in types]
        revert = explain("0x" + (selector + encode(types, values)).hex())
        assert revert is not None
        assert (revert.name, list(revert.values)) == (name, values)
        assert revert.zh != revert.en
        explained[name] = revert.code
    unexplained = {name for name, code in explained.items() if code == "chain.refused"}
    # Neither can be met by a caller of ours.
    assert unexplained == {"AccessControlBadConfirmation", "Exhausted"}


def test_the_errors_of_the_language_are_explained() -> None:
    from eth_abi import encode

    told = explain("0x08c379a0" + encode(["string"], ["余额不足"]).hex())
    assert told
    assert "余额不足" in told.zh
    panic = explain("0x4e487b71" + encode(["uint256"], [0x11]).hex())
    assert panic
    assert "0x11" in panic.en


@pytest.mark.parametrize("data", ["", "0x", "0x1234", "0xdeadbeef", "0xbc60cee200", "zz"])
def test_a_revert_that_nobody_knows_is_not_explained(data: str) -> None:
    assert explain(data) is None


# ---- what other nodes answer ----


@pytest.mark.parametrize(
    ("message", "outcome"),
    [
        ("nonce too low", Outcome.NONCE_TOO_LOW),
        ("Nonce too low. Expected nonce to be 5 but got 3.", Outcome.NONCE_TOO_LOW),
        ("nonce is too low", Outcome.NONCE_TOO_LOW),
        ("transaction already imported", Outcome.ALREADY_KNOWN),
        ("already known", Outcome.ALREADY_KNOWN),
        ("AlreadyKnown", Outcome.ALREADY_KNOWN),
        ("Known transaction: 0xabc", Outcome.ALREADY_KNOWN),
        ("replacement transaction underpriced", Outcome.REFUSED),
        ("insufficient funds for gas * price + value", Outcome.REFUSED),
        ("Nonce too high. Expected 5 but got 9.", Outcome.REFUSED),
        ("intrinsic gas too low", Outcome.REFUSED),
        ("invalid chain id for signer", Outcome.REFUSED),
        ("max fee per gas less than block base fee", Outcome.REFUSED),
        # One client says this for a known, a replaced and a cheap transaction alike.
        ("transaction underpriced", Outcome.UNKNOWN),
        ("internal error", Outcome.UNKNOWN),
        ("txpool is full", Outcome.UNKNOWN),
        ("execution reverted", Outcome.UNKNOWN),
        ("", Outcome.UNKNOWN),
    ],
)
def test_what_a_node_says_is_classified_and_the_rest_is_unknown(message: str, outcome: Outcome) -> None:
    assert classify(answered(message)).outcome is outcome


def test_a_named_refusal_while_sending_is_decoded() -> None:
    from ledger.chain.abi import encode

    selector, types = next((s, t) for s, (n, t) in anchor_registry().errors.items() if n == "RevisionMismatch")
    sent = classify(answered("reverted", "0x" + (selector + encode(types, [bytes(32), 1, 2])).hex()))
    assert sent.outcome is Outcome.REFUSED
    assert sent.revert
    assert (sent.revert.name, sent.revert.values) == ("RevisionMismatch", (bytes(32), 1, 2))


@pytest.mark.parametrize("told", ["0x" + "11" * 32, None, 5])
def test_a_node_that_names_another_hash_leaves_the_outcome_unknown(told: object) -> None:
    assert send_raw(Scripted({"eth_sendRawTransaction": told}), b"raw").outcome is Outcome.UNKNOWN
    right = "0x" + keccak(b"raw").hex()
    assert send_raw(Scripted({"eth_sendRawTransaction": right}), b"raw").outcome is Outcome.ACCEPTED


# ---- fees, gas, size ----


@pytest.mark.parametrize(
    ("block", "fees"),
    [
        ({"baseFeePerGas": "0x0"}, Fees(False, 0, 0)),
        ({"baseFeePerGas": "0x64"}, Fees(False, 207, 7)),
        ({}, Fees(True, 9, 0)),
        ({"baseFeePerGas": None}, Fees(True, 9, 0)),
    ],
)
def test_fees_follow_the_chain(block: dict[str, Any], fees: Fees) -> None:
    answers = {"eth_getBlockByNumber": block, "eth_gasPrice": "0x9", "eth_maxPriorityFeePerGas": "0x7"}
    assert current_fees(Scripted(answers)) == fees


def test_a_signed_transaction_says_exactly_what_was_decided() -> None:
    signed = sign(ACCOUNT, chain_id=20260, nonce=7, to="0x" + "ab" * 20, data=b"\x01", gas=99, fees=Fees(False, 0, 0))
    fields = TypedTransaction.from_bytes(HexBytes(signed.raw)).as_dict()
    shown = {
        name: fields[name] for name in ("chainId", "nonce", "gas", "maxFeePerGas", "maxPriorityFeePerGas", "value")
    }
    assert shown == {
        "chainId": 20260,
        "nonce": 7,
        "gas": 99,
        "maxFeePerGas": 0,
        "maxPriorityFeePerGas": 0,
        "value": 0,
    }
    assert bytes(fields["to"]) == b"\xab" * 20
    assert signed.hash == "0x" + keccak(signed.raw).hex()
    assert Account.recover_transaction(signed.raw).lower() == signed.sender == ACCOUNT.address.lower()


@pytest.mark.parametrize(("estimate", "gas"), [(100_000, 120_000), (GAS_CAP - 1, GAS_CAP), (GAS_CAP, GAS_CAP)])
def test_gas_is_the_estimate_and_a_fifth_up_to_the_cap(estimate: int, gas: int) -> None:
    assert estimate_gas(Scripted({"eth_estimateGas": hex(estimate)}), "0x", None, b"") == gas


def test_more_gas_than_a_transaction_may_use_is_an_error() -> None:
    with pytest.raises(ChainError) as caught:
        estimate_gas(Scripted({"eth_estimateGas": hex(GAS_CAP + 1)}), "0x", None, b"")
    assert caught.value.code == "chain.gas"


# ---- packing ----


def many(count: int, cells: int = 0, length: int = 450) -> list[Claim]:
    """That many first claims about batches of their own, with sketches that, being encrypted, look like noise."""
    names = [b"%d/%d/%d/" % (number, cells, length) for number in range(count)]
    return [
        claim(name.ljust(length, b"x"), root_=root(number), sketch=os.urandom(72 * cells))
        for number, name in enumerate(names)
    ]


def length_of(claims: Sequence[Claim]) -> int:
    return len(encode_anchor(claims))


def content_of(claims: Sequence[Claim]) -> int:
    return sum(len(it.descriptor) + len(it.sketch) for it in claims)


@given(
    st.lists(st.tuples(st.integers(1, 1024), st.sampled_from([0, 288, 18432, 129600])), max_size=40),
    st.integers(1, 9),
    st.sampled_from([2_000, 60_000, 120_000]),
    st.sampled_from([500_000, 3_000_000, 16_000_000]),
)
def test_groups_keep_every_claim_in_order_fit_a_transaction_and_are_cut_no_sooner(
    lengths: list[tuple[int, int]], most: int, most_bytes: int, most_gas: int
) -> None:
    claims = [Claim(b"%d" % n + b"d" * (d - 1), 0, 1, root(0), b"s" * s) for n, (d, s) in enumerate(lengths)]

    def fits(group: list[Claim]) -> bool:
        length = length_of(group)
        gas = planned_gas(len(group), length, content_of(group))
        return len(group) <= most and length <= most_bytes and gas <= most_gas

    cut = list(groups(claims, most_claims=most, most_bytes=most_bytes, most_gas=most_gas))
    assert [c for group in cut for c in group] == claims
    for group in cut:
        assert len(group) == 1 or fits(group)
    for group, following in pairwise(cut):
        assert not fits([*group, following[0]])


def test_planned_gas_is_what_a_chain_takes_and_a_little_more(deployed: Deployed) -> None:
    # The very first anchor of a party costs what every other does: its counters are not fresh.
    shapes = [(1, 0, 1), (1, 0, 450), (1, 0, 1024), (1, 4, 450), (1, 256, 450), (1, 1800, 1024), (2, 32, 450)]
    shapes += [(6, 256, 450), (20, 64, 450), (100, 0, 450), (100, 0, 1024), (100, 12, 200)]
    for count, cells, length in shapes:
        claims = many(count, cells, length)
        allowed = estimate_gas(deployed.rpc, deployed.address, deployed.contract, encode_anchor(claims))
        planned = planned_gas(count, length_of(claims), content_of(claims))
        assert allowed <= planned <= allowed * 1.12, (count, cells, length)


def test_a_hundred_claims_with_sketches_of_256_cells_take_as_many_transactions_as_they_need(deployed: Deployed) -> None:
    claims = many(100, 256)
    sent: list[int] = []
    for group in packed(deployed.rpc, deployed.address, deployed.contract, claims, **DEFAULT):
        signed = deployed.prepare(encode_anchor(group))
        assert deployed.send(signed).gas_used < 16_000_000
        assert len(signed.raw) < 128 * 1024
        sent.append(len(group))
    assert sent == [6] * 16 + [4]
    anchors = deployed.registry.view().anchors["guangzhou"]
    assert [it.root for it in anchors] == [it.root for it in claims]


def test_a_sketch_of_1800_cells_goes_alone_and_arrives_whole(deployed: Deployed) -> None:
    claims = [*many(2), *many(1, 1800, 600), *many(2, 4)]
    sent = list(packed(deployed.rpc, deployed.address, deployed.contract, claims, **DEFAULT))
    assert [len(group) for group in sent] == [2, 1, 2]
    for group in sent:
        signed = deployed.prepare(encode_anchor(group))
        assert len(signed.raw) < 128 * 1024
        deployed.send(signed)
    records = deployed.registry.view().anchors["guangzhou"]
    assert [deployed.registry.sketch(it) for it in records] == [it.sketch for it in claims]


def test_what_was_planned_too_low_is_halved_until_the_node_allows_it(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "planned_gas", lambda *told: 0)
    claims = many(11, 4)
    bounds = {**DEFAULT, "most_gas": 400_000}
    assert [len(it) for it in groups(claims, **bounds)] == [11]
    cut = list(packed(deployed.rpc, deployed.address, deployed.contract, claims, **bounds))
    assert [it for group in cut for it in group] == claims
    # 11 = 5 + 6 = (2 + 3) + (3 + 3): three cost 250,000, and a fifth is allowed on top.
    assert [len(group) for group in cut] == [2, 3, 3, 3]
    for group in cut:
        assert estimate_gas(deployed.rpc, deployed.address, deployed.contract, encode_anchor(group)) <= 400_000


def small_blocks(deployed: Deployed, gas: int) -> None:
    deployed.rpc.call("evm_setBlockGasLimit", hex(gas))
    deployed.rpc.call("anvil_mine", "0x1")


def test_a_network_with_small_blocks_gets_smaller_transactions(deployed: Deployed) -> None:
    small_blocks(deployed, 1_000_000)
    claims = many(20)
    sent = []
    for group in packed(deployed.rpc, deployed.address, deployed.contract, claims, **DEFAULT):
        assert deployed.anchor(*group).gas_used <= 1_000_000
        sent.append(len(group))
    assert sent == [10, 10]
    assert len(deployed.registry.view().anchors["guangzhou"]) == 20


def test_one_claim_that_just_fits_a_block_is_allowed_no_more_than_the_block(deployed: Deployed) -> None:
    small_blocks(deployed, 118_000)
    assert deployed.anchor(*many(1)).gas_used > 118_000 * 5 / 6


@pytest.mark.parametrize(
    ("limit", "gas"), [("0x2dc6c0", 3_000_000), (hex(1 << 53), GAS_CAP), ("0x0", GAS_CAP), (None, GAS_CAP)]
)
def test_what_a_block_may_use_bounds_a_transaction(limit: str | None, gas: int) -> None:
    assert block_gas(Scripted({"eth_getBlockByNumber": {"gasLimit": limit}})) == gas


def test_what_the_contract_refuses_is_not_cut_and_one_claim_is_never_asked_about(deployed: Deployed) -> None:
    claims = [*many(3), claim(b"batch", 5)]
    assert list(packed(deployed.rpc, deployed.address, deployed.contract, claims, **DEFAULT)) == [claims]
    with pytest.raises(Refused):
        deployed.prepare(encode_anchor(claims))
    nobody = Scripted({})
    assert list(packed(nobody, deployed.address, deployed.contract, claims[:1], **DEFAULT)) == [claims[:1]]


def test_a_node_that_does_not_answer_is_no_reason_to_cut(deployed: Deployed) -> None:
    kill_nodes(deployed.chain.home)
    with pytest.raises(RpcUnreachable):
        list(packed(deployed.rpc, deployed.address, deployed.contract, many(2), **DEFAULT))


def test_more_than_any_transaction_may_use_is_cut_too() -> None:
    asked: list[int] = []

    class Dear(Scripted):
        def call(self, method: str, *params: Any) -> Any:
            if method == "eth_getBlockByNumber":
                return {}
            asked.append(len(params[0]["data"]))
            return hex(GAS_CAP + 1) if len(asked) == 1 else hex(100_000)

    cut = list(packed(Dear({}), "0x" + "11" * 20, "0x" + "22" * 20, many(5), **DEFAULT))
    assert [len(group) for group in cut] == [2, 3]


def test_the_largest_claim_alone_stays_below_what_clients_take() -> None:
    assert len(encode_anchor([Claim(b"d" * 1024, 0, 1, root(0), b"s" * 129600)])) < 128 * 1024


@pytest.mark.parametrize("nonce", [0, 1, 127, 128, 255, 256, 65535, 65536])
def test_the_address_of_a_contract_is_known_before_it_is_deployed(nonce: int) -> None:
    import rlp

    sender = ACCOUNT.address.lower()
    expected = keccak(rlp.encode([bytes.fromhex(sender[2:]), nonce]))[12:].hex()
    assert contract_address(sender, nonce) == "0x" + expected


def test_a_receipt_of_a_pending_transaction_is_none() -> None:
    for pending in (None, {}, {"blockHash": None}):
        assert receipt(Scripted({"eth_getTransactionReceipt": pending}), "0x1") is None


def test_no_part_of_sending_uses_web3() -> None:
    from pathlib import Path

    assert transactions.__file__
    for source in Path(transactions.__file__).parent.glob("*.py"):
        assert "import web3" not in source.read_text(encoding="utf-8")
        assert "from web3" not in source.read_text(encoding="utf-8")
