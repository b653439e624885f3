"""AnchorRegistry on py-evm: an EVM written independently of the one in anvil, in this process."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from eth_tester import EthereumTester, PyEVMBackend
from eth_tester.exceptions import TransactionFailed

from ledger.chain.contract import anchor_registry, name_to_word
from ledger.chain.reverts import Refused, explain

EMPTY_ROOT = hashlib.sha256(b"").digest()


def root(number: int) -> bytes:
    """A root that is not the empty one."""
    return hashlib.sha256(b"root %d" % number).digest()


def claim(descriptor: bytes, known: int = 0, size: int = 1, root_: bytes = root(0), sketch: bytes = b"") -> Any:
    """A Claim as the contract takes it."""
    return (descriptor, known, size, root_, sketch)


def batch_id(descriptor: bytes) -> bytes:
    return hashlib.sha256(descriptor).digest()


@dataclass
class World:
    """A deployed registry and ten funded accounts; the first deployed it."""

    tester: Any
    contract: str
    accounts: list[str]

    def ask(self, name: str, *values: Any) -> tuple[Any, ...]:
        """Call a view; what it returns."""
        function = anchor_registry().functions[name]
        return function.decode(self._call(self.accounts[9], function.encode(*values)))

    def act(self, sender: int, name: str, *values: Any) -> dict[str, Any]:
        """Send a transaction by account number `sender`; its receipt. Refused with the contract's named error."""
        data = anchor_registry().functions[name].encode(*values)
        self._call(self.accounts[sender], data)
        return self.receipt(self.send(sender, data))

    def send(self, sender: int, data: bytes, gas: int = 12_000_000) -> Any:
        """Send without asking first; the hash."""
        return self.tester.send_transaction(
            {"from": self.accounts[sender], "to": self.contract, "data": "0x" + data.hex(), "gas": gas}
        )

    def receipt(self, sent: Any) -> dict[str, Any]:
        receipt: dict[str, Any] = self.tester.get_transaction_receipt(sent)
        return receipt

    def events(self, receipt: dict[str, Any], name: str) -> list[tuple[Any, ...]]:
        """The indexed topics (after the first) and values of each event of that name."""
        event = anchor_registry().events[name]
        return [
            (*(bytes.fromhex(topic[2:]) for topic in log["topics"][1:]), *_decode(event.data, log["data"]))
            for log in receipt["logs"]
            if log["topics"][0] == event.topic
        ]

    def register(self, name: str, account: int) -> None:
        self.act(0, "register", name_to_word(name), self.accounts[account])

    def anchors(self, name: str) -> list[Any]:
        """What storage says of every anchor that the events of that party tell, in order; none may be missing."""
        told = [event for event in self.told() if event[1] == name_to_word(name)]
        which = [(event[0], event[3]) for event in told]
        found: list[Any] = self.ask("anchors", name_to_word(name), which)[0]
        assert [row[4] for row in found] == list(range(1, self.ask("standing", name_to_word(name))[2] + 1))
        return found

    def told(self) -> list[tuple[Any, ...]]:
        """Every Anchored event there is, in order: its topics and its values."""
        topic = anchor_registry().events["Anchored"].topic
        logs = self.tester.get_logs(from_block=0, address=self.contract, topics=[topic])
        return self.events({"logs": logs}, "Anchored")

    def _call(self, sender: str, data: bytes) -> bytes:
        try:
            answer = self.tester.call(
                {"from": sender, "to": self.contract, "data": "0x" + data.hex(), "gas": 25_000_000}
            )
        except TransactionFailed as error:
            revert = explain(ast.literal_eval(str(error)).hex())
            if revert is None:
                raise AssertionError(f"an unnamed error: {error}") from error
            raise Refused(revert) from error
        return bytes.fromhex(answer[2:])


def _decode(types: Sequence[Any], data: str) -> tuple[Any, ...]:
    from ledger.chain.abi import decode

    return decode(types, bytes.fromhex(data[2:]))


def new_world(vm_configuration: Any = None) -> World:
    """A fresh in-memory chain with the registry deployed by account 0."""
    backend = PyEVMBackend(vm_configuration=vm_configuration)
    tester = EthereumTester(backend)
    accounts = [account.lower() for account in tester.get_accounts()]
    sent = tester.send_transaction(
        {"from": accounts[0], "data": "0x" + anchor_registry().bytecode.hex(), "gas": 5_000_000}
    )
    receipt = tester.get_transaction_receipt(sent)
    assert receipt["status"] == 1
    return World(tester, receipt["contract_address"], accounts)


@pytest.fixture(scope="session")
def _deployed() -> World:
    return new_world()


@pytest.fixture
def world(_deployed: World) -> Iterator[World]:
    """The registry as deployed; what a test does is undone."""
    snapshot = _deployed.tester.take_snapshot()
    yield _deployed
    _deployed.tester.enable_auto_mine_transactions()
    _deployed.tester.revert_to_snapshot(snapshot)


@pytest.fixture
def party(world: World) -> World:
    """The same, with account 1 registered as guangdong and account 2 as guangzhou."""
    world.register("guangdong", 1)
    world.register("guangzhou", 2)
    return world
