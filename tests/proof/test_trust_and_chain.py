"""Other chains, other registries, other parties, a storage or a node that lies: what an auditor's own files protect from."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_hash.auto import keccak

from ledger import merkle
from ledger.chain.account import load_account
from ledger.chain.contract import name_to_word
from ledger.chain.registry import Registry
from ledger.chain.rpc import Rpc
from ledger.chain.transactions import Claim, deploy_data, encode_anchor, encode_register
from ledger.cli import main
from tests.conftest import permit
from tests.proof.conftest import Stage, edited, told

Change = Callable[[Any], object]

# ---- the trust file ----


@pytest.mark.parametrize(
    ("change", "step", "code"),
    [
        (lambda top: top.update(format="duizhang-trust/2"), "trust_file", "trust.format"),
        (lambda top: top.update(code_sha256="00" * 32), "chain", "chain.other_code"),
        (lambda top: top["block"].update(hash="00" * 32), "chain", "chain.other_chain"),
        (lambda top: top["block"].update(number=2), "chain", "chain.other_chain"),
        (lambda top: top["block"].update(number=1 << 40), "chain", "chain.empty"),
        (lambda top: top["parties"].update(zhuhai="0x" + "12" * 20), "registry", "trust.no_party"),
        (lambda top: top["parties"].update(guangdong="0x" + "12" * 20), "registry", "trust.address"),
    ],
)
def test_a_trust_file_that_is_not_this_chains_is_undetermined(
    change: Change, step: str, code: str, stage: Stage, good: bytes
) -> None:
    assert told(stage.verify(good, trust=edited(stage.trust, change))) == ("undetermined", step, code)


def test_a_name_that_moved_on_is_still_the_party_and_it_is_said(stage: Stage, good: bytes) -> None:
    with Rpc(stage.rpc) as rpc:
        holdings = Registry(rpc, json.loads(stage.trust)["contract"]).view().parties["guangzhou"]
    assert len(holdings) == 2
    older = edited(stage.trust, lambda top: top["parties"].update(guangzhou=holdings[0].account))
    result = stage.verify(good, trust=older)
    assert result.verdict == "proved"
    assert f"移至 {holdings[1].account}" in result.steps[6].zh


def test_a_party_that_the_auditor_does_not_know_vouches_for_nothing(stage: Stage, good: bytes) -> None:
    def forget(name: str) -> bytes:
        return edited(stage.trust, lambda top: top["parties"].pop(name))

    result = stage.verify(good, trust=forget("guangdong"))
    assert result.evidence is not None
    assert [record.party for record in result.evidence.anchors] == ["guangzhou"]
    assert "发送方 guangdong 不在其列" in result.zh
    sealed = stage.prove('{"office":"T-2","inspector":"李四"}', catalog="inspections")
    expected = ("undetermined", "path", "trust.voucher_unknown")
    assert told(stage.verify(sealed, trust=forget("guangzhou"))) == expected


# ---- the chain ----


def test_another_chain_is_not_the_trusted_one(stage: Stage, other: Stage, good: bytes) -> None:
    assert told(stage.verify(good, rpc=other.rpc)) == ("undetermined", "chain", "chain.other_chain")
    assert told(stage.verify(good, other.trust, other.rpc)) == ("undetermined", "chain", "proof.other_chain")
    chain = json.loads(other.trust)
    there = edited(good, lambda top: top["chain"].update(chain_id=chain["chain_id"], contract=chain["contract"]))
    expected = ("contradicted", "registry", "evidence.not_anchored")
    assert told(stage.verify(there, other.trust, other.rpc)) == expected


def test_a_forged_registry_on_the_same_chain_with_the_same_anchor_is_refused(stage: Stage, good: bytes) -> None:
    account: LocalAccount = Account.create()
    contract = stage.act(account, deploy_data(), None)
    address = str(account.address).lower()
    stage.act(account, encode_register("guangdong", address), contract)
    with Rpc(stage.rpc) as rpc:
        view = Registry(rpc, json.loads(stage.trust)["contract"]).view()
    mine = view.anchors["guangdong"][0]
    descriptor = json.loads(good)["descriptor"].encode()
    stage.act(account, encode_anchor([Claim(descriptor, 0, mine.size, mine.root)]), contract)
    forged = edited(good, lambda top: top["chain"].update(contract=contract))
    assert told(stage.verify(forged)) == ("undetermined", "chain", "proof.other_chain")
    # Even an auditor who was talked into the forged contract, whose code is right, still knows the parties' addresses.
    misled = edited(stage.trust, lambda top: top.update(contract=contract))
    assert told(stage.verify(forged, trust=misled)) == ("undetermined", "registry", "trust.address")


def test_a_registry_with_other_code_is_refused(stage: Stage, good: bytes) -> None:
    contract = "0x" + "c0de" * 10
    forged = edited(good, lambda top: top["chain"].update(contract=contract))
    misled = edited(stage.trust, lambda top: top.update(contract=contract))
    assert told(stage.verify(forged, trust=misled)) == ("undetermined", "chain", "chain.no_contract")
    with Rpc(stage.rpc) as rpc:
        code = rpc.call("eth_getCode", json.loads(stage.trust)["contract"], "latest")
        # One changed byte at the end, in what the code returns for nothing: it would answer like the real one.
        rpc.call("anvil_setCode", contract, code[:-1] + ("0" if code[-1] != "0" else "1"))
    assert told(stage.verify(forged, trust=misled)) == ("undetermined", "chain", "chain.other_code")


def test_the_anchor_of_a_third_party_does_not_count(stage: Stage, good: bytes, forger: LocalAccount) -> None:
    contract = json.loads(stage.trust)["contract"]
    with Rpc(stage.rpc) as rpc:
        mine = Registry(rpc, contract).view().anchors["guangdong"][0]
    descriptor = json.loads(good)["descriptor"].encode()
    stage.act(forger, encode_anchor([Claim(descriptor, 0, mine.size, mine.root)]), contract)
    knows = edited(stage.trust, lambda top: top["parties"].update(foshan=str(forger.address).lower()))
    result = stage.verify(good, trust=knows)
    assert result.evidence is not None
    assert [record.party for record in result.evidence.anchors] == ["guangdong", "guangzhou"]
    assert "第三方 foshan 的上链不计" in result.steps[7].zh


def test_a_batch_that_only_a_third_party_anchored_proves_nothing(
    stage: Stage, good: bytes, forger: LocalAccount
) -> None:
    contract = json.loads(stage.trust)["contract"]
    entry = bytes.fromhex(json.loads(good)["entry"])

    def alone(top: Any) -> None:
        top["descriptor"] = top["descriptor"].replace('"B1"', '"FORGED"')
        top.update(index=0, path=[])

    forged = edited(good, alone)
    root = merkle.leaf_hash(entry).hex()
    stage.act(forger, encode_anchor([Claim(json.loads(forged)["descriptor"].encode(), 0, 1, root)]), contract)
    with Rpc(stage.rpc) as rpc:
        theirs = Registry(rpc, contract).view().anchors["foshan"][-1]
    hint = {"party": "foshan", "sequence": theirs.sequence, "revision": 1, "block": theirs.block}
    forged = edited(forged, lambda top: top.update(anchors=[hint]))
    knows = edited(stage.trust, lambda top: top["parties"].update(foshan=str(forger.address).lower()))
    assert told(stage.verify(forged, trust=knows)) == ("contradicted", "anchors", "evidence.stranger")


def test_a_revised_root_leaves_only_the_side_that_still_claims_it(stage: Stage) -> None:
    path = stage.pair.file("B3.csv", [permit(31), permit(32)])
    stage.pair.province.ok("send", "permits", path, "--batch", "B3", "--to", "guangzhou")
    unreceived = stage.prove("A-31", party="province")
    stage.pair.city.ok("receive", "permits", path, "--batch", "B3", "--from", "guangdong", "--load")
    received = stage.prove("A-31", party="province")
    assert stage.verify(received).verdict == "proved"
    changed = stage.pair.file("B3-again.csv", [permit(31, "改名"), permit(32)])
    stage.pair.province.ok("send", "permits", changed, "--batch", "B3", "--to", "guangzhou")
    for proof in (unreceived, received):
        result = stage.verify(proof)
        assert result.evidence is not None
        assert [record.party for record in result.evidence.anchors] == ["guangzhou"]
        assert "发送方 guangdong 不在其列" in result.zh
    assert "又改了版次" in result.steps[7].zh
    forget = edited(stage.trust, lambda top: top["parties"].pop("guangzhou"))
    assert told(stage.verify(received, trust=forget)) == ("undetermined", "path", "trust.voucher_unknown")


def test_a_revision_that_was_replaced_proves_nothing_and_is_named(stage: Stage) -> None:
    path = stage.pair.file("B4.csv", [permit(41)])
    stage.pair.province.ok("send", "permits", path, "--batch", "B4", "--to", "guangzhou")
    proof = stage.prove("A-41", party="province")
    assert stage.verify(proof).verdict == "proved"
    changed = stage.pair.file("B4-again.csv", [permit(41, "改名")])
    stage.pair.province.ok("send", "permits", changed, "--batch", "B4", "--to", "guangzhou")
    result = stage.verify(proof)
    assert told(result) == ("contradicted", "path", "evidence.revised")
    assert "第 1 版" in result.zh
    assert "第 2 版" in result.zh


def test_of_two_batches_under_one_number_only_the_first_is_proved(stage: Stage, good: bytes) -> None:
    """The province's account anchors another descriptor with the number B1, which its own command refuses to do."""
    contract = json.loads(stage.trust)["contract"]
    keys = stage.pair.province.home / "keys"
    account = load_account(keys / "account.json", keys / "account.password")
    entry = bytes.fromhex(json.loads(good)["entry"])

    def second(top: Any) -> None:
        top["descriptor"] = top["descriptor"].replace('"period":""', '"period":"2022-03-05"')
        top.update(index=0, path=[])

    forged = edited(good, second)
    claim = Claim(json.loads(forged)["descriptor"].encode(), 0, 1, merkle.leaf_hash(entry).hex())
    stage.act(account, encode_anchor([claim]), contract)
    with Rpc(stage.rpc) as rpc:
        mine = Registry(rpc, contract).view().anchors["guangdong"][-1]
    hint = {"party": "guangdong", "sequence": mine.sequence, "revision": 1, "block": mine.block}
    forged = edited(forged, lambda top: top.update(anchors=[hint]))
    assert told(stage.verify(forged)) == ("contradicted", "anchors", "evidence.number_repeated")
    assert stage.verify(good).verdict == "proved"


# ---- the node ----


@contextmanager
def rewritten(stage: Stage, slot: int, value: Callable[[int], int]) -> Iterator[None]:
    """A slot of the registry's storage holds another value for a while."""
    contract = json.loads(stage.trust)["contract"]
    with Rpc(stage.rpc) as rpc:
        before = int(rpc.call("eth_getStorageAt", contract, hex(slot), "latest"), 16)
        rpc.call("anvil_setStorageAt", contract, f"0x{slot:064x}", f"0x{value(before):064x}")
        try:
            yield
        finally:
            rpc.call("anvil_setStorageAt", contract, f"0x{slot:064x}", f"0x{before:064x}")


def slot_of_revision(party: str, batch_id: bytes, revision: int) -> int:
    """Storage slot of a revision's root; `_revisions` is the seventh state variable of the contract, so number 6."""
    slot = keccak(batch_id + keccak(name_to_word(party) + (6).to_bytes(32, "big")))
    return int.from_bytes(keccak(revision.to_bytes(32, "big") + slot), "big")


def test_a_root_rewritten_in_storage_is_a_chain_that_contradicts_itself(stage: Stage, good: bytes) -> None:
    batch_id = hashlib.sha256(json.loads(good)["descriptor"].encode()).digest()
    root = merkle.leaf_hash(bytes.fromhex(json.loads(good)["entry"]))
    slot = slot_of_revision("guangdong", batch_id, 1)
    forged = edited(good, lambda top: top.update(index=0, path=[]))
    with rewritten(stage, slot, lambda _: int.from_bytes(root, "big")):
        assert told(stage.verify(good)) == ("undetermined", "anchors", "chain.contradiction")
        assert told(stage.verify(forged)) == ("undetermined", "anchors", "chain.contradiction")
    # The time of an anchor is in storage only: the block's own time speaks against it (bits 64 to 111 of the second slot).
    with rewritten(stage, slot + 1, lambda value: value ^ 1 << 64):
        assert told(stage.verify(good)) == ("undetermined", "as_of", "chain.contradiction")
    assert stage.verify(good).verdict == "proved"


def test_a_node_that_does_not_answer_is_undetermined_and_the_steps_before_are_shown(
    stage: Stage, good: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    proof, trust = stage.file("proof.json", good), stage.file("trust.json", stage.trust)
    # Nothing listens on port 1 of the loopback.
    assert main(["verify", str(proof), "--trust", str(trust), "--rpc", "http://127.0.0.1:1", "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["error"]["code"] == "chain.unreachable"
    assert [step["result"] for step in answer["steps"]] == ["pass"] * 5 + ["fail"] + ["not_done"] * 4


@pytest.mark.parametrize("url", ["127.0.0.1:8545", "ftp://127.0.0.1", "http://", ""])
def test_an_address_that_is_none_is_refused(url: str, stage: Stage, good: bytes) -> None:
    result = stage.verify(good, rpc=url)
    assert result.verdict == "undetermined"
    assert result.error is not None
    assert result.error.code in ("chain.url", "verify.no_rpc")


class _Page(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>welcome</html>")

    def log_message(self, *_: object) -> None:
        pass


def test_a_web_page_is_no_node(stage: Stage, good: bytes) -> None:
    server = http.server.HTTPServer(("127.0.0.1", 0), _Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        result = stage.verify(good, rpc=f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
    assert told(result) == ("undetermined", "chain", "chain.malformed_answer")


def test_a_node_that_dropped_its_logs_cannot_tell(stage: Stage, good: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Rpc.call

    def call(self: Rpc, method: str, *params: Any) -> Any:
        return [] if method == "eth_getLogs" else asked(self, method, *params)

    monkeypatch.setattr(Rpc, "call", call)
    assert told(stage.verify(good)) == ("undetermined", "registry", "chain.event_missing")
