"""Reading the dispute registry (contracts/DisputeRegistry.sol): attestations and disputes, shown to be all there are.

The running hash of the contract's storage is computed again from the events: a node that leaves one out, or changes one, ends in
ChainError `chain.contradiction`. Standard library only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ledger.chain.abi import AbiError, Type, decode, encode
from ledger.chain.contract import dispute_registry, name_to_word, word_to_name
from ledger.chain.identity import code_sha256
from ledger.chain.logs import read_logs, spans, topic_of
from ledger.chain.rpc import Rpc, RpcAnswered, hex_bytes, quantity
from ledger.chain.view import contradiction
from ledger.errors import ChainError

_PAGE = 2000
_ATTEMPTS = 5
FINDING = 17
KINDS = {1: "only_sender", 2: "only_receiver", 3: "differs", 4: "not_withdrawn"}
ANSWERS = {1: "concede", 2: "reject", 3: "resend"}
OUTCOMES = {1: "settled", 2: "withdrawn", 3: "accepted"}
# In the order of the contract's actions, counted from 1.
_EVENTS = ("Attested", "Opened", "Answered", "Closed")
_HEAD = (
    Type("bytes32"),
    Type("uint", 64),
    Type("uint", 8),
    Type("bytes32"),
    Type("bytes32"),
    Type("uint", 256),
    Type("bytes32"),
)


@dataclass(frozen=True)
class Attestation:
    """`party` attested `statement` (hex); `position` is the anchor registry's that it had read."""

    number: int
    party: str
    statement: str
    counterparty: str
    position: int
    block: int
    time: int


@dataclass(frozen=True)
class Answer:
    """What the respondent said; `batch_id` only of `resend`, else empty."""

    number: int
    choice: str
    batch_id: str
    evidence: str
    block: int
    time: int


@dataclass(frozen=True)
class Closing:
    """How it ended; `batch_id` and the two sequence numbers (opener's, respondent's) only of `settled`."""

    number: int
    outcome: str
    batch_id: str
    sequences: tuple[int, int]
    evidence: str
    block: int
    time: int


@dataclass(frozen=True)
class Dispute:
    """One dispute with its whole history. `findings` are (kind, key tag in hex); `revisions` are the opener's and the respondent's
    number of revisions of the batch when it was opened."""

    id: int
    number: int
    opener: str
    respondent: str
    batch_id: str
    revisions: tuple[int, int]
    findings: tuple[tuple[str, str], ...]
    evidence: str
    block: int
    time: int
    answers: tuple[Answer, ...] = ()
    closing: Closing | None = None


@dataclass(frozen=True)
class DisputeView:
    """Everything in the registry at one block, in order."""

    block: int
    time: int
    attestations: tuple[Attestation, ...]
    disputes: Mapping[int, Dispute]

    def attested_by(self, statement: str) -> tuple[str, ...]:
        """The parties that attested a statement, in order."""
        return tuple(it.party for it in self.attestations if it.statement == statement)


@dataclass
class _Reading:
    attestations: list[Attestation] = field(default_factory=list)
    disputes: dict[int, Dispute] = field(default_factory=dict)


class DisputeRegistry:
    """The DisputeRegistry at one address of one chain, whose identity was checked."""

    def __init__(self, rpc: Rpc, address: str) -> None:
        self.rpc = rpc
        self.address = address.lower()

    def check(self, anchors: str) -> None:
        """Return if this is our contract and reads the anchor registry at `anchors`; ChainError `chain.no_disputes`."""
        found = code_sha256(self.rpc, self.address)
        if found != dispute_registry().code_sha256:
            raise self._not_ours(f"code {found or '-'}")
        reads = self._state("latest")[2]
        if reads != anchors.lower():
            raise self._not_ours(f"anchors {reads}")

    def view(self) -> DisputeView:
        """All of it, of one block, proved whole. ChainError `chain.contradiction`, `chain.moving`."""
        for _ in range(_ATTEMPTS):
            block, time, _, count, disputes, head = self._state("latest")
            blocks = self._blocks(count)
            logs = self._logs(blocks)
            try:
                return self._whole(logs, (block, time, count, disputes, head), blocks)
            except ChainError:
                # It does not fit together because the chain went on, or back, in between? Else it never will.
                if self._state("latest")[3:] == (count, disputes, head):
                    raise
        raise ChainError(
            "chain.moving",
            "读取期间争议登记不断变化，请稍后再试",
            "the dispute registry kept changing while it was read; try again later",
            self._where,
        )

    def _whole(
        self, logs: list[dict[str, Any]], state: tuple[int, int, int, int, bytes], blocks: list[int]
    ) -> DisputeView:
        block, time, count, disputes, head = state
        # What came after the block that is read is passed over.
        logs = [log for log in logs if self._number(log) <= count]
        if len(logs) != count or len(blocks) != count:
            raise self._contradiction(
                f"争议登记有 {count} 项，节点只给出 {len(logs)} 项事件",
                f"the dispute registry has {count} actions, the node gives {len(logs)} events",
            )
        topics = {dispute_registry().events[name].topic: at for at, name in enumerate(_EVENTS, 1)}
        running = bytes(32)
        told: list[tuple[int, tuple[int, str, bytes, int], bytes]] = []
        for place, log in enumerate(logs, 1):
            action = topics[log["topics"][0]]
            number = self._number(log)
            mined = quantity(log.get("blockNumber"), "blockNumber")
            if number != place or mined != blocks[place - 1]:
                raise self._contradiction(f"第 {place} 项争议事件错位", f"dispute event {place} is out of place")
            party, subject = topic_of(log, 2, self._where), topic_of(log, 3, self._where)
            data = hex_bytes(log.get("data"), "log data")
            hashed = hashlib.sha256(data).digest()
            running = hashlib.sha256(encode(_HEAD, (running, number, action, party, subject, mined, hashed))).digest()
            told.append((action, (number, word_to_name(party), subject, mined), data))
        if running != head:
            raise self._contradiction(
                "争议登记的事件与合约保存的累计哈希不符",
                "the events of the dispute registry do not give the running hash that the contract holds",
            )
        # Only what the contract vouches for is interpreted at all.
        reading = _Reading()
        for one in told:
            try:
                self._take(reading, *one)
            except KeyError as error:
                number = one[1][0]
                raise self._contradiction(
                    f"第 {number} 项争议事件不可能由合约发出", f"no contract of ours gave dispute event {number}"
                ) from error
        if len(reading.disputes) != disputes:
            raise self._contradiction("争议的数目不符", "the number of disputes does not agree")
        return DisputeView(block, time, tuple(reading.attestations), reading.disputes)

    def _take(self, reading: _Reading, action: int, head: tuple[int, str, bytes, int], data: bytes) -> None:
        number, party, subject, block = head
        values = self._decoded(dispute_registry().events[_EVENTS[action - 1]].data, data)
        time = int(values[0])
        if action == 1:
            _, counterparty, position = values
            it = Attestation(number, party, subject.hex(), word_to_name(counterparty), position, block, time)
            reading.attestations.append(it)
            return
        name = int.from_bytes(subject, "big")
        if action == 2:
            _, respondent, batch_id, ours, theirs, findings, evidence = values
            reading.disputes[name] = Dispute(
                name,
                number,
                party,
                word_to_name(respondent),
                batch_id.hex(),
                (ours, theirs),
                unpack_findings(findings),
                evidence.hex(),
                block,
                time,
            )
            return
        dispute = reading.disputes[name]
        if action == 3:
            _, choice, batch_id, evidence = values
            answer = Answer(number, ANSWERS[choice], _id(batch_id), _id(evidence), block, time)
            reading.disputes[name] = _changed(dispute, answers=(*dispute.answers, answer))
        else:
            _, outcome, batch_id, ours, theirs, evidence = values
            closing = Closing(number, OUTCOMES[outcome], _id(batch_id), (ours, theirs), _id(evidence), block, time)
            reading.disputes[name] = _changed(dispute, closing=closing)

    def _state(self, tag: str) -> tuple[int, int, str, int, int, bytes]:
        block, time, anchors, count, disputes, head = self._call("state", (), tag)
        return block, time, anchors, count, disputes, head

    def _blocks(self, count: int) -> list[int]:
        found: list[int] = []
        while len(found) < count:
            (page,) = self._call("blocks", (len(found), _PAGE))
            if not page:
                break
            found += page
        return found[:count]

    def _logs(self, blocks: list[int]) -> list[dict[str, Any]]:
        topics = [dispute_registry().events[name].topic for name in _EVENTS]
        logs: list[dict[str, Any]] = []
        for first, last in spans(sorted(set(blocks))):
            logs += read_logs(self.rpc, self.address, first, last, topics)
        return sorted(logs, key=self._number)

    def _number(self, log: Mapping[str, Any]) -> int:
        """The running number of an action's event."""
        return int.from_bytes(topic_of(log, 1, self._where), "big")

    def _call(self, name: str, values: tuple[Any, ...], tag: str = "latest") -> tuple[Any, ...]:
        function = dispute_registry().functions[name]
        call = {"to": self.address, "data": "0x" + function.encode(*values).hex()}
        try:
            return function.decode(hex_bytes(self.rpc.newest("eth_call", call, tag), "eth_call"))
        except (AbiError, RpcAnswered) as error:
            raise self._not_ours(str(error)) from error

    def _decoded(self, types: tuple[Type, ...], data: bytes) -> tuple[Any, ...]:
        try:
            return decode(types, data)
        except AbiError as error:
            raise self._not_ours(str(error)) from error

    @property
    def _where(self) -> str:
        return f"{self.rpc.where} {self.address}"

    def _contradiction(self, zh: str, en: str) -> ChainError:
        return contradiction(zh, en, self._where)

    def _not_ours(self, detail: str) -> ChainError:
        return ChainError(
            "chain.no_disputes",
            f"[chain] disputes 处不是本系统的争议合约，或它读的不是本登记合约（{detail}）；请核对地址",
            f"what stands at [chain] disputes is not our dispute registry, or reads another anchor registry ({detail}); check the address",
            self._where,
        )


def pack_findings(findings: list[tuple[str, str]]) -> bytes:
    """(kind, key tag in hex) as the contract takes them, 17 bytes each."""
    numbers = {name: number for number, name in KINDS.items()}
    return b"".join(bytes([numbers[kind]]) + bytes.fromhex(tag) for kind, tag in findings)


def unpack_findings(data: bytes) -> tuple[tuple[str, str], ...]:
    """The inverse; a kind that is not known is told by its number."""
    parts = [data[at : at + FINDING] for at in range(0, len(data), FINDING)]
    return tuple((KINDS.get(part[0], str(part[0])), part[1:].hex()) for part in parts)


# ---- what to call ----


def encode_attest(counterparty: str, statement: str, position: int) -> bytes:
    """Call data that attests a statement."""
    return dispute_registry().functions["attest"].encode(name_to_word(counterparty), bytes.fromhex(statement), position)


def encode_open(batch_id: str, respondent: str, findings: bytes, evidence: str) -> bytes:
    """Call data that opens a dispute."""
    return (
        dispute_registry()
        .functions["open"]
        .encode(bytes.fromhex(batch_id), name_to_word(respondent), findings, bytes.fromhex(evidence))
    )


def encode_answer(number: int, choice: str, batch_id: str, evidence: str) -> bytes:
    """Call data that answers one; `batch_id` and `evidence` are empty or hex."""
    code = next(code for code, name in ANSWERS.items() if name == choice)
    return dispute_registry().functions["answer"].encode(number, code, _word(batch_id), _word(evidence))


def encode_close(number: int, outcome: str, batch_id: str, evidence: str) -> bytes:
    """Call data that closes one."""
    code = next(code for code, name in OUTCOMES.items() if name == outcome)
    return dispute_registry().functions["close"].encode(number, code, _word(batch_id), _word(evidence))


def deploy_disputes(anchors: str) -> bytes:
    """The data of the transaction, to nobody, that deploys a dispute registry for the anchor registry at `anchors`."""
    return dispute_registry().bytecode + encode((Type("address"),), (anchors,))


def _word(text: str) -> bytes:
    return bytes.fromhex(text) if text else bytes(32)


def _id(word: bytes) -> str:
    return word.hex() if any(word) else ""


def _changed(dispute: Dispute, **values: Any) -> Dispute:
    return Dispute(**{**dispute.__dict__, **values})
