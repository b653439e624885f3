"""Reading the registry contract (formats F7; contracts/AnchorRegistry.sol).

`Registry.view()` is the reading behind every verdict: parties and anchors of one single block, shown to be whole.
`Registry.events()` adds the descriptors, which only events hold; `audit()` compares all events with storage.
A node that contradicts itself ends in ChainError `chain.contradiction`, never in a value. Standard library only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ledger.chain.abi import AbiError, decode
from ledger.chain.contract import anchor_registry, word_to_name
from ledger.chain.logs import read_logs, spans, topic_of
from ledger.chain.rpc import Rpc, RpcAnswered, hex_bytes, quantity
from ledger.chain.view import AnchorRecord, Holding, RegistryView, check_whole, contradiction
from ledger.errors import ChainError

__all__ = ["AnchorEvent", "AnchorRecord", "Holding", "Registry", "RegistryView", "Roles"]

_ALL = (1 << 256) - 1
# First page when a node refuses to answer everything at once: about 0.7 million gas and 26 KB a hundred.
_PAGE = 500
_ATTEMPTS = 5
_HEADERS = 100


@dataclass(frozen=True)
class AnchorEvent:
    """What only the event of an anchor holds, and where it stands; `descriptor` hashes to the record's batch id."""

    record: AnchorRecord
    descriptor: bytes
    sketch: bytes
    block_hash: str
    transaction: str


@dataclass(frozen=True)
class Roles:
    """What an account may do now. `party` is false for a suspended holder; `name` is what it holds now, or ""."""

    registrar: bool
    party: bool
    name: str


class Registry:
    """The AnchorRegistry at one address of one chain. Who uses it has checked the chain's identity (identity.py)."""

    def __init__(self, rpc: Rpc, contract: str) -> None:
        self.rpc = rpc
        self.contract = contract.lower()

    def view(self, block: int | str = "latest") -> RegistryView:
        """Parties and anchors at `block` (a number or a tag such as "finalized"), from one call where the node can.

        A node that refuses so large an answer is asked in pages that are held to the same position counter, so that the
        result is that of one block all the same. ChainError `chain.no_contract`, `chain.contradiction`, `chain.moving`.
        """
        tag = hex(block) if isinstance(block, int) else block
        (names,) = self._call("parties", (), tag)
        for _ in range(_ATTEMPTS):
            try:
                view = self._view_at_once(names, tag)
            except RpcAnswered:
                view = self._view_in_pages(names, tag)
            if isinstance(view, RegistryView):
                return view
            names = view
        raise ChainError(
            "chain.moving",
            f"读取期间链上登记不断变化，{_ATTEMPTS} 次未能读到同一区块；请稍后再试",
            f"the registry changed during each of {_ATTEMPTS} readings; try again later",
            self._where,
        )

    def roles(self, account: str) -> Roles:
        """What `account` may do at the latest block."""
        (admin,) = self._call("DEFAULT_ADMIN_ROLE", ())
        (party,) = self._call("PARTY_ROLE", ())
        (registrar,) = self._call("hasRole", (admin, account))
        (granted,) = self._call("hasRole", (party, account))
        (word,) = self._call("nameOf", (account,))
        name = ""
        if any(word):
            (holdings,) = self._call("holdings", (word,))
            name = word_to_name(word) if holdings[-1][0] == account.lower() else ""
        return Roles(registrar, granted, name)

    def events(self, anchors: Iterable[AnchorRecord]) -> dict[AnchorRecord, AnchorEvent]:
        """The event of each of these anchors, each checked against storage and against the batch id it claims.

        ChainError `chain.event_missing` if the node does not give one (it may have dropped old logs), and
        `chain.contradiction` if one says something else than the record.
        """
        wanted = {(record.party, record.sequence): record for record in anchors}
        found: dict[AnchorRecord, AnchorEvent] = {}
        topics = [anchor_registry().events["Anchored"].topic]
        for first, last in spans(sorted({record.block for record in wanted.values()})):
            for log in self._logs(first, last, topics):
                record = wanted.get(self._log_key(log))
                if record is None:
                    continue
                if record in found:
                    raise self._contradiction(f"{_name(record)} 有两条事件", f"{_name(record)} has two events")
                found[record] = self._event(log, record)
        for record in wanted.values():
            if record not in found:
                raise ChainError(
                    "chain.event_missing",
                    f"节点在区块 {record.block} 没有给出 {_name(record)} 的事件；可能已清理旧日志，请换一个完整节点",
                    f"the node gives no event for {_name(record)} in block {record.block}; it may have dropped old "
                    "logs: use a node that keeps them",
                    self._where,
                )
        return found

    def audit(self, view: RegistryView) -> dict[AnchorRecord, AnchorEvent]:
        """The events of all anchors of `view`, after checking that events and storage tell one and the same history.

        Both ways: each anchor and each holding has its event, each event up to the view's block its anchor or holding;
        and the times are those of the blocks. Reads the logs of all blocks since the first registration: for fsck, not
        for every verdict.
        """
        events = anchor_registry().events
        topics = [events[name].topic for name in ("Anchored", "Registered", "Moved")]
        holdings = {
            (name, holding.account, holding.position) for name, held in view.parties.items() for holding in held
        }
        records = {(r.party, r.sequence): r for anchors in view.anchors.values() for r in anchors}
        first = min((holding.block for held in view.parties.values() for holding in held), default=view.block)
        found: dict[AnchorRecord, AnchorEvent] = {}
        told: set[tuple[str, str, int]] = set()
        for log in self._logs(first, view.block, topics):
            if log["topics"][0] != events["Anchored"].topic:
                told.add(self._holding_told(log))
                continue
            record = records.get(self._log_key(log))
            if record is None or record in found:
                party, sequence = self._log_key(log)
                raise self._contradiction(
                    f"{party} 的第 {sequence} 号上链事件在合约存储中没有对应记录",
                    f"the event of anchor {sequence} of {party} has no counterpart in the contract's storage",
                )
            found[record] = self._event(log, record)
        if told != holdings:
            name, account, position = min(told ^ holdings)
            raise self._contradiction(
                f"参与方 {name} 的登记（账户 {account}，位置 {position}）在事件与存储中不一致",
                f"events and storage disagree about {name} held by {account} from position {position}",
            )
        if len(found) != len(records):
            found = self.events(records.values())
        self.check_times(found.values())
        return found

    def check_times(self, events: Iterable[AnchorEvent]) -> None:
        """Raise `chain.contradiction` unless each anchor has the time of its block, and that block the event's hash."""
        by_block: dict[int, list[AnchorEvent]] = {}
        for event in events:
            by_block.setdefault(event.record.block, []).append(event)
        numbers = list(by_block)
        for start in range(0, len(numbers), _HEADERS):
            page = numbers[start : start + _HEADERS]
            headers = self.rpc.batch([("eth_getBlockByNumber", (hex(number), False)) for number in page])
            for number, header in zip(page, headers, strict=True):
                if not isinstance(header, dict):
                    raise self._contradiction(f"区块 {number} 不存在", f"there is no block {number}")
                seconds = quantity(header.get("timestamp"), "timestamp")
                for event in by_block[number]:
                    # A few chains count milliseconds in the contract and seconds in the block.
                    if seconds not in (event.record.time, event.record.time // 1000):
                        raise self._contradiction(
                            f"{_name(event.record)} 的时间 {event.record.time} 不是区块 {number} 的时间 {seconds}",
                            f"the time {event.record.time} of {_name(event.record)} is not that of block {number}, {seconds}",
                        )
                    if header.get("hash") != event.block_hash:
                        raise self._contradiction(
                            f"{_name(event.record)} 的事件不在区块 {number} 中",
                            f"the event of {_name(event.record)} is not of this block {number}",
                        )

    # ---- one reading ----

    def _view_at_once(self, names: Sequence[bytes], tag: str) -> RegistryView | Sequence[bytes]:
        """The view, or the names to ask for if others were registered meanwhile."""
        calls: list[tuple[str, tuple[Any, ...]]] = [("parties", ())]
        calls += [("holdings", (name,)) for name in names]
        calls += [("anchors", (name, 0, _ALL)) for name in names]
        block, time, position, (now, *answers) = self._read(calls, tag)
        if now != names:
            return list(now)
        held, anchored = answers[: len(names)], answers[len(names) :]
        return self._whole((block, time, position), names, held, anchored)

    def _view_in_pages(self, names: Sequence[bytes], tag: str) -> RegistryView | Sequence[bytes]:
        """The same in several calls; returns names, to begin again, if the registry changed between two of them."""
        head: list[tuple[str, tuple[Any, ...]]] = [("parties", ())]
        head += [("holdings", (name,)) for name in names]
        block, time, position, (now, *held) = self._read(head, tag)
        if now != names:
            return list(now)
        try:
            pinned = hex(block)
            self._read([], pinned)
        except RpcAnswered:
            # A node without old states: it answers for its newest block, and the position tells whether it moved on.
            pinned = tag
        anchored: list[list[Any]] = []
        limit = _PAGE
        for name in names:
            rows: list[Any] = []
            while True:
                try:
                    _, _, at, (page,) = self._read([("anchors", (name, len(rows), limit))], pinned)
                except RpcAnswered:
                    if limit == 1:
                        raise
                    limit = max(1, limit // 4)
                    continue
                if at != position:
                    return names
                rows += page
                if len(page) < limit:
                    break
            anchored.append(rows)
        return self._whole((block, time, position), names, held, anchored)

    def _whole(
        self, head: tuple[int, int, int], names: Sequence[bytes], held: Sequence[Any], anchored: Sequence[Any]
    ) -> RegistryView:
        parties: dict[str, tuple[Holding, ...]] = {}
        anchors: dict[str, tuple[AnchorRecord, ...]] = {}
        for word, holdings, rows in zip(names, held, anchored, strict=True):
            name = word_to_name(word)
            parties[name] = tuple(Holding(*row) for row in holdings)
            anchors[name] = tuple(
                AnchorRecord(name, batch_id.hex(), revision, size, root.hex(), sequence, at_time, at_block, at)
                for batch_id, revision, size, root, sequence, at_time, at_block, at in rows
            )
        view = RegistryView(*head, parties, anchors)
        check_whole(view, self._where)
        return view

    def _read(self, calls: Sequence[tuple[str, tuple[Any, ...]]], tag: str) -> tuple[int, int, int, list[Any]]:
        """Several views from one block: its number, its time, the position, and what each view returns."""
        functions = anchor_registry().functions
        data = [functions[name].encode(*values) for name, values in calls]
        block, time, position, answers = self._call("read", (data,), tag)
        if len(answers) != len(calls):
            raise self._not_the_contract(f"{len(answers)} answers to {len(calls)} calls")
        results = [
            self._decoded(functions[name].decode, answer)[0] for (name, _), answer in zip(calls, answers, strict=True)
        ]
        return block, time, position, results

    def _call(self, name: str, values: tuple[Any, ...], tag: str = "latest") -> tuple[Any, ...]:
        function = anchor_registry().functions[name]
        call = {"to": self.contract, "data": "0x" + function.encode(*values).hex()}
        ask = self.rpc.newest if tag == "latest" else self.rpc.call
        answer = hex_bytes(ask("eth_call", call, tag), "eth_call")
        return self._decoded(function.decode, answer)

    def _decoded(self, decode: Callable[[bytes], tuple[Any, ...]], answer: bytes) -> tuple[Any, ...]:
        try:
            return decode(answer)
        except AbiError as error:
            raise self._not_the_contract(str(error)) from error

    # ---- events ----

    def _logs(self, first: int, last: int, topics: list[str]) -> list[dict[str, Any]]:
        return read_logs(self.rpc, self.contract, first, last, topics)

    def _log_key(self, log: Mapping[str, Any]) -> tuple[str, int]:
        """Party and sequence of an Anchored event."""
        return word_to_name(topic_of(log, 2)), int.from_bytes(topic_of(log, 3), "big")

    def _holding_told(self, log: Mapping[str, Any]) -> tuple[str, str, int]:
        registered = anchor_registry().events["Registered"]
        account = topic_of(log, 2 if log["topics"][0] == registered.topic else 3)
        (position,) = self._event_data(log, "Registered")
        return word_to_name(topic_of(log, 1)), "0x" + account[12:].hex(), position

    def _event(self, log: Mapping[str, Any], record: AnchorRecord) -> AnchorEvent:
        revision, size, root, descriptor, sketch = self._event_data(log, "Anchored")
        batch_id = topic_of(log, 1).hex()
        block = quantity(log.get("blockNumber"), "blockNumber")
        told = (batch_id, revision, size, root.hex(), block)
        kept = (record.batch_id, record.revision, record.size, record.root, record.block)
        for what, event, storage in zip(("batch id", "revision", "size", "root", "block"), told, kept, strict=True):
            if event != storage:
                raise self._contradiction(
                    f"{_name(record)} 的 {what}：事件为 {event}，合约存储为 {storage}",
                    f"{what} of {_name(record)}: the event says {event}, the contract's storage {storage}",
                )
        if hashlib.sha256(descriptor).hexdigest() != batch_id:
            raise self._contradiction(
                f"{_name(record)} 的批次描述与批次号不符",
                f"the descriptor of {_name(record)} does not hash to its batch id",
            )
        block_hash, transaction = str(log.get("blockHash")), str(log.get("transactionHash"))
        return AnchorEvent(record, descriptor, sketch, block_hash, transaction)

    def _event_data(self, log: Mapping[str, Any], name: str) -> tuple[Any, ...]:
        data = hex_bytes(log.get("data"), "log data")
        types = anchor_registry().events[name].data
        return self._decoded(lambda raw: decode(types, raw), data)

    # ---- words ----

    @property
    def _where(self) -> str:
        return f"{self.rpc.where} {self.contract}"

    def _contradiction(self, zh: str, en: str) -> ChainError:
        return contradiction(zh, en, self._where)

    def _not_the_contract(self, detail: str) -> ChainError:
        return ChainError(
            "chain.no_contract",
            f"该地址上没有本系统的登记合约（{detail}）；请核对合约地址与链",
            f"there is no registry contract at this address ({detail}); check the address and the chain",
            self._where,
        )


def _name(record: AnchorRecord) -> str:
    return f"{record.party}#{record.sequence}"
