"""A real anvil, kept by the code under test in a temporary folder, and a registry deployed on it."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount

from ledger.chain import node as nodes
from ledger.chain.local import LocalChain
from ledger.chain.registry import Registry
from ledger.chain.rpc import Rpc, RpcUnreachable
from ledger.chain.transactions import (
    Claim,
    Receipt,
    Signed,
    deploy_data,
    encode_anchor,
    encode_move,
    encode_register,
    prepare,
    send_raw,
    wait_for_receipt,
)


def root(number: int) -> str:
    return hashlib.sha256(b"root %d" % number).hexdigest()


def claim(descriptor: bytes, known: int = 0, size: int = 1, root_: str = root(0), sketch: bytes = b"") -> Claim:
    return Claim(descriptor, known, size, root_, sketch)


def kill_nodes(home: Path) -> None:
    """kill -9 every node of the chain in that folder, and see it gone."""
    while running := nodes.nodes_of(home):
        for node in running:
            try:
                os.kill(node.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A folder for a chain; whatever runs for it is killed afterwards."""
    folder = tmp_path / "chain"
    yield folder
    kill_nodes(folder)


@pytest.fixture
def chain(home: Path) -> LocalChain:
    """A new local chain, running, empty."""
    return LocalChain.create(home)


@dataclass
class Deployed:
    """A local chain with the registry, deployed by `registrar`, who has registered `account` as guangzhou.

    At first both are one account; a test may give `account` another one that holds the name.
    """

    chain: LocalChain
    rpc: Rpc
    account: LocalAccount
    registrar: LocalAccount
    contract: str

    @property
    def registry(self) -> Registry:
        return Registry(self.rpc, self.contract)

    @property
    def address(self) -> str:
        return str(self.account.address).lower()

    def prepare(self, data: bytes, to: str | None = None, account: LocalAccount | None = None) -> Signed:
        return prepare(
            self.rpc, account or self.account, chain_id=self.chain.chain_id, to=to or self.contract, data=data
        )

    def act(self, data: bytes, account: LocalAccount | None = None) -> Receipt:
        """Prepare, send, wait; the receipt of a transaction that succeeded."""
        return self.send(self.prepare(data, account=account))

    def send(self, signed: Signed) -> Receipt:
        send_raw(self.rpc, signed.raw)
        receipt = wait_for_receipt(self.rpc, signed.hash)
        assert receipt is not None
        assert receipt.ok
        return receipt

    def anchor(self, *claims: Claim) -> Receipt:
        return self.act(encode_anchor(claims))

    def restarted(self) -> Deployed:
        """The same, after the node was killed: what was not saved is gone."""
        kill_nodes(self.chain.home)
        return replace(self, rpc=Rpc(self.chain.ensure_running()))


@pytest.fixture
def forgetful(tmp_path: Path) -> Iterator[Rpc]:
    """A node that keeps old states, and so can be made to reorganise its chain; the local chain's node cannot."""
    port = nodes.free_port()
    command = [str(nodes.find_anvil()), "--port", str(port), "--quiet", "--slots-in-an-epoch", "1"]
    with (
        subprocess.Popen([*command, "--cache-path", str(tmp_path / "cache")]) as process,
        Rpc(f"http://127.0.0.1:{port}") as rpc,
    ):
        try:
            while True:
                try:
                    rpc.call("eth_chainId")
                    break
                except RpcUnreachable:
                    time.sleep(0.02)
            yield rpc
        finally:
            process.kill()


@pytest.fixture
def deployed(chain: LocalChain) -> Deployed:
    """The registry on a new local chain; saved."""
    rpc = Rpc(chain.ensure_running())
    account: LocalAccount = Account.create()
    signed = prepare(rpc, account, chain_id=chain.chain_id, to=None, data=deploy_data())
    send_raw(rpc, signed.raw)
    receipt = wait_for_receipt(rpc, signed.hash)
    assert receipt is not None
    assert receipt.contract is not None
    ready = Deployed(chain, rpc, account, account, receipt.contract)
    ready.act(encode_register("guangzhou", ready.address))
    chain.checkpoint()
    return ready


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
