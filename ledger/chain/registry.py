"""Reading the registry contract (formats F7; contracts/AnchorRegistry.sol).

`Registry.view()` is the reading behind every verdict: parties and anchors of one single block, shown to be whole. Which batches
there are is told by events, what was said of them by storage, and storage proves that no event was kept back. `events()` adds
the descriptors; `audit()` compares all events with storage.
A node that contradicts itself ends in ChainError `chain.contradiction`, never in a value. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ledger.chain.abi import AbiError, decode
from ledger.chain.contract import anchor_registry, name_to_word, word_to_name
from ledger.chain.history import History, Memory, Told, event_missing, read_history, read_told
from ledger.chain.logs import read_logs, spans, topic_of
from ledger.chain.rpc import Rpc, RpcAnswered, hex_bytes, quantity
from ledger.chain.view import AnchorRecord, Holding, RegistryView, check_whole, contradiction
from ledger.errors import ChainError

__all__ = ["AnchorEvent", "AnchorRecord", "Holding", "Registry", "RegistryView", "Roles"]

# Anchors read in one call at first, a quarter of that whenever a node refuses: about 0.8 million gas and 32 KB a hundred.
_PAGE = 2000
_ATTEMPTS = 5
_HEADERS = 100


@dataclass(frozen=True)
class AnchorEvent:
    """What the event of an anchor tells, and where it stands; `descriptor` hashes to the record's batch id."""

    record: AnchorRecord
    descriptor: bytes
    block_hash: str
    transaction: str


@dataclass(frozen=True)
class Roles:
    """What an account may do now. `party` is false for a suspended holder; `name` is what it holds now, or ""."""

    registrar: bool
    party: bool
    name: str


@dataclass(frozen=True)
class _Head:
    """What is read first; while `position` is the same, so is all the rest."""

    block: int
    time: int
    position: int
    last_anchor: int
    parties: Mapping[str, tuple[Holding, ...]]
    counts: Mapping[str, int]


class Registry:
    """The AnchorRegistry at one address of one chain. Who uses it has checked the chain's identity (identity.py).

    `memory` spares a process that reads one registry again and again the events it has seen.
    """

    def __init__(self, rpc: Rpc, contract: str, memory: Memory | None = None) -> None:
        self.rpc = rpc
        self.contract = contract.lower()
        self._memory = Memory() if memory is None else memory

    def view(self, block: int | str = "latest") -> RegistryView:
        """Parties and anchors at `block` (a number or a tag such as "finalized"), all of one block and none missing.

        The events up to that block say which anchors there are; they and the position counter are read again until both are
        of one state. ChainError `chain.no_contract`, `chain.contradiction`, `chain.event_missing`, `chain.moving`.
        """
        tag = hex(block) if isinstance(block, int) else block
        (names,) = self._call("parties", (), tag)
        for _ in range(_ATTEMPTS):
            head = self._head(names, tag)
            if not isinstance(head, _Head):
                names = head
                continue
            known = self._memory.kept
            try:
                history = read_history(self.rpc, self.contract, head.last_anchor, known)
                view = self._view(head, history, tag)
            except ChainError as error:
                # What we remember may be of blocks that a reorganisation took away.
                if not known.told or error.code not in ("chain.contradiction", "chain.event_missing"):
                    raise
                self._memory.forget()
                continue
            if view is not None:
                self._memory.keep(history)
                return view
        raise ChainError(
            "chain.moving",
            f"读取期间链上登记不断变化，{_ATTEMPTS} 次未能读到同一区块；请稍后再试",
            f"the registry changed during each of {_ATTEMPTS} readings; try again later",
            self._where,
        )

    def roles(self, account: str) -> Roles:
        """What `account` may do at the latest block."""
        (admin,) = self._call("DEFAULT_ADMIN_ROLE", ())
        (registrar,) = self._call("hasRole", (admin, account))
        (word,) = self._call("nameOf", (account,))
        if not any(word):
            return Roles(registrar, False, "")
        holder, suspended, _ = self._call("standing", (word,))
        if holder != account.lower():
            return Roles(registrar, False, "")
        return Roles(registrar, not suspended, word_to_name(word))

    def events(self, anchors: Iterable[AnchorRecord]) -> dict[AnchorRecord, AnchorEvent]:
        """The event of each of these anchors, each checked against storage and against the batch id it claims.

        Those that the last `view` read are not asked for again. ChainError `chain.event_missing` if the node does not give one
        (it may have dropped old logs), and `chain.contradiction` if one says something else than the record.
        """
        seen = self._memory.kept.told
        found: dict[AnchorRecord, AnchorEvent] = {}
        wanted: list[AnchorRecord] = []
        for record in anchors:
            told = seen.get((record.party, record.sequence))
            if told is None or _difference(told, record):
                wanted.append(record)
            else:
                found[record] = _event(told, record)
        for record, log in self._logs_of(wanted).items():
            found[record] = self._agreeing(read_told(log, self._where), record)
        return found

    def sketch(self, record: AnchorRecord) -> bytes:
        """The encrypted sketch that came with an anchor, empty if none did; its event is checked as by `events`."""
        log = self._logs_of([record])[record]
        self._agreeing(read_told(log, self._where), record)
        *_, sketch = self._event_data(log, "Anchored")
        return bytes(sketch)

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
            event = read_told(log, self._where)
            record = records.get(event.key)
            if record is None or record in found:
                raise self._no_counterpart(event)
            found[record] = self._agreeing(event, record)
        if told != holdings:
            name, account, position = min(told ^ holdings)
            raise self._contradiction(
                f"参与方 {name} 的登记（账户 {account}，位置 {position}）在事件与存储中不一致",
                f"events and storage disagree about {name} held by {account} from position {position}",
            )
        for record in records.values():
            if record not in found:
                raise event_missing(record.block, self._where, _name(record))
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

    def _head(self, names: Sequence[bytes], tag: str) -> _Head | Sequence[bytes]:
        """Parties and counters, or the names to ask for if others were registered meanwhile."""
        calls: list[tuple[str, tuple[Any, ...]]] = [("parties", ()), ("lastAnchorBlock", ())]
        calls += [("holdings", (name,)) for name in names]
        calls += [("standing", (name,)) for name in names]
        block, time, position, ((now,), (last_anchor,), *answers) = self._read(calls, tag)
        if now != names:
            return list(now)
        if last_anchor > block:
            raise self._contradiction(
                f"最后一次上链在区块 {last_anchor}，而链只到 {block}",
                f"the last anchor is in block {last_anchor}, the chain ends at {block}",
            )
        parties: dict[str, tuple[Holding, ...]] = {}
        counts: dict[str, int] = {}
        for word, (rows,), (holder, _, count) in zip(names, answers[: len(names)], answers[len(names) :], strict=True):
            name = word_to_name(word)
            parties[name], counts[name] = tuple(Holding(*row) for row in rows), count
            if not rows or rows[-1][0] != holder:
                raise self._contradiction(f"{name} 的持有账户自相矛盾", f"two accounts hold {name}")
        return _Head(block, time, position, last_anchor, parties, counts)

    def _view(self, head: _Head, history: History, tag: str) -> RegistryView | None:
        """What storage says of the anchors in `history`, which must be all there are; None if the registry moved on meanwhile."""
        ordered = sorted(history.told.values(), key=lambda it: it.key)
        for it in ordered:
            if it.sequence > head.counts.get(it.party, 0):
                raise self._no_counterpart(it)
        rows = self._rows(ordered, head, tag)
        if rows is None:
            return None
        anchors: dict[str, list[AnchorRecord]] = {name: [] for name in head.parties}
        for it, row in zip(ordered, rows, strict=True):
            batch_id, revision, size, root, sequence, time, block, position = row
            record = AnchorRecord(it.party, batch_id.hex(), revision, size, root.hex(), sequence, time, block, position)
            if (record.batch_id, record.revision, record.sequence) != (it.batch_id, it.revision, it.sequence):
                raise self._no_counterpart(it)
            anchors[it.party].append(record)
        for name, records in anchors.items():
            missing = set(range(1, head.counts[name] + 1)) - {record.sequence for record in records}
            if missing:
                raise event_missing(head.block, self._where, f"{name}#{min(missing)}")
        whole = {name: tuple(records) for name, records in anchors.items()}
        view = RegistryView(head.block, head.time, head.position, head.parties, whole)
        check_whole(view, self._where)
        return view

    def _rows(self, anchors: Sequence[Told], head: _Head, tag: str) -> list[Any] | None:
        """What storage says of each of these, in as many calls as the node needs; None if the position changed between two."""
        rows: list[Any] = []
        limit = _PAGE
        while len(rows) < len(anchors):
            page = anchors[len(rows) : len(rows) + limit]
            calls = [
                ("anchors", (name_to_word(party), [(bytes.fromhex(it.batch_id), it.revision) for it in of_party]))
                for party, of_party in groupby(page, key=lambda it: it.party)
            ]
            try:
                _, _, position, answers = self._read(calls, tag)
            except RpcAnswered:
                if limit == 1:
                    raise
                limit = max(1, min(limit, len(page)) // 4)
                continue
            if position != head.position:
                return None
            found = [row for (answer,) in answers for row in answer]
            if len(found) != len(page):
                raise self._not_the_contract(f"{len(found)} answers to {len(page)} anchors")
            rows += found
        return rows

    def _read(self, calls: Sequence[tuple[str, tuple[Any, ...]]], tag: str) -> tuple[int, int, int, list[Any]]:
        """Several views from one block: its number, its time, the position, and the values that each view returns."""
        functions = anchor_registry().functions
        data = [functions[name].encode(*values) for name, values in calls]
        block, time, position, answers = self._call("read", (data,), tag)
        if len(answers) != len(calls):
            raise self._not_the_contract(f"{len(answers)} answers to {len(calls)} calls")
        results = [
            self._decoded(functions[name].decode, answer) for (name, _), answer in zip(calls, answers, strict=True)
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

    def _logs_of(self, anchors: Sequence[AnchorRecord]) -> dict[AnchorRecord, Mapping[str, Any]]:
        """The log of each of these, as the node gives it; ChainError `chain.event_missing` if it gives none."""
        wanted = {(record.party, record.sequence): record for record in anchors}
        found: dict[AnchorRecord, Mapping[str, Any]] = {}
        topics = [anchor_registry().events["Anchored"].topic]
        for first, last in spans(sorted({record.block for record in wanted.values()})):
            for log in self._logs(first, last, topics):
                key = word_to_name(topic_of(log, 2)), int.from_bytes(topic_of(log, 3), "big")
                record = wanted.get(key)
                if record is None:
                    continue
                if record in found:
                    raise self._contradiction(f"{_name(record)} 有两条事件", f"{_name(record)} has two events")
                found[record] = log
        for record in wanted.values():
            if record not in found:
                raise event_missing(record.block, self._where, _name(record))
        return found

    def _holding_told(self, log: Mapping[str, Any]) -> tuple[str, str, int]:
        registered = anchor_registry().events["Registered"]
        account = topic_of(log, 2 if log["topics"][0] == registered.topic else 3)
        (position,) = self._event_data(log, "Registered")
        return word_to_name(topic_of(log, 1)), "0x" + account[12:].hex(), position

    def _agreeing(self, told: Told, record: AnchorRecord) -> AnchorEvent:
        """The event of an anchor, which says what storage says."""
        if difference := _difference(told, record):
            what, event, storage = difference
            raise self._contradiction(
                f"{_name(record)} 的 {what}：事件为 {event}，合约存储为 {storage}",
                f"{what} of {_name(record)}: the event says {event}, the contract's storage {storage}",
            )
        return _event(told, record)

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

    def _no_counterpart(self, told: Told) -> ChainError:
        return self._contradiction(
            f"{told.party} 的第 {told.sequence} 号上链事件在合约存储中没有对应记录",
            f"the event of anchor {told.sequence} of {told.party} has no counterpart in the contract's storage",
        )

    def _not_the_contract(self, detail: str) -> ChainError:
        return ChainError(
            "chain.no_contract",
            f"该地址上没有本系统的登记合约（{detail}）；请核对合约地址与链",
            f"there is no registry contract at this address ({detail}); check the address and the chain",
            self._where,
        )


def _difference(told: Told, record: AnchorRecord) -> tuple[str, object, object] | None:
    """The first thing of which event and storage say different things, and both values."""
    for what, event, storage in (
        ("batch id", told.batch_id, record.batch_id),
        ("revision", told.revision, record.revision),
        ("size", told.size, record.size),
        ("root", told.root, record.root),
        ("block", told.block, record.block),
    ):
        if event != storage:
            return what, event, storage
    return None


def _event(told: Told, record: AnchorRecord) -> AnchorEvent:
    return AnchorEvent(record, told.descriptor, told.block_hash, told.transaction)


def _name(record: AnchorRecord) -> str:
    return f"{record.party}#{record.sequence}"
