"""The Anchored events of a registry, read backwards from the last anchor: which batches there are, and their descriptors.

Every event names the block of the anchor before it, so that a chain of millions of blocks need not be searched. None of it is
taken on trust: whoever reads storage for these events sees whether one is missing (registry.py). Standard library only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ledger.chain import logs
from ledger.chain.abi import AbiError, decode
from ledger.chain.contract import anchor_registry, word_to_name
from ledger.chain.logs import read_logs, topic_of
from ledger.chain.rpc import Rpc, hex_bytes, quantity
from ledger.chain.view import contradiction
from ledger.errors import ChainError

Key = tuple[str, int]
"""Party and sequence: what names an anchor."""


@dataclass(frozen=True)
class Told:
    """One Anchored event as a node told it; the descriptor hashes to the batch id."""

    party: str
    sequence: int
    batch_id: str
    revision: int
    size: int
    root: str
    previous: int
    descriptor: bytes
    block: int
    block_hash: str
    transaction: str

    @property
    def key(self) -> Key:
        """What names the anchor."""
        return self.party, self.sequence


@dataclass(frozen=True)
class History:
    """All anchors up to the block `until`, where the last of them stands; 0 if there is none."""

    until: int = 0
    told: Mapping[Key, Told] = field(default_factory=dict)


class Memory:
    """What readers of one registry keep between readings, so that each reads new events only. Several threads may share one.

    Only what was proved whole is put here, and it is proved again with each reading: after a reorganisation it does not fit
    any more and is read anew.
    """

    def __init__(self) -> None:
        self.kept = History()

    def keep(self, history: History) -> None:
        """Remember a history that was proved whole, unless a longer one is known."""
        if history.until > self.kept.until:
            self.kept = history

    def forget(self) -> None:
        """Begin anew."""
        self.kept = History()


def read_history(rpc: Rpc, contract: str, until: int, known: History) -> History:
    """The events up to the block `until`, in which the last anchor stands; those of `known` are not read again.

    ChainError `chain.event_missing` where the node gives none although the one after it, or storage, says that there is one;
    `chain.contradiction` if it gives one twice. That none is missing is shown by storage, not here.
    """
    if until <= known.until:
        return History(until, {key: it for key, it in known.told.items() if it.block <= until})
    where = f"{rpc.where} {contract}"
    told = dict(known.told)
    topics = [anchor_registry().events["Anchored"].topic]
    last = until
    while last > known.until:
        first = max(known.until + 1, last - logs.RANGE + 1)
        page = [read_told(log, where) for log in read_logs(rpc, contract, first, last, topics)]
        for it in page:
            if it.key in told:
                raise contradiction(
                    f"{it.party}#{it.sequence} 有两条事件", f"{it.party}#{it.sequence} has two events", where
                )
            told[it.key] = it
        if all(it.block != last for it in page):
            raise event_missing(last, where)
        previous = min(it.previous for it in page)
        if previous >= first:
            raise event_missing(previous, where)
        last = previous
    return History(until, told)


def read_told(log: Mapping[str, Any], where: str) -> Told:
    """An Anchored event; ChainError `chain.contradiction` if its descriptor is not that of its batch id, or it is none of ours."""
    name = word_to_name(topic_of(log, 2, where))
    sequence = int.from_bytes(topic_of(log, 3, where), "big")
    batch_id = topic_of(log, 1, where).hex()
    try:
        values = decode(anchor_registry().events["Anchored"].data, hex_bytes(log.get("data"), "log data"))
    except AbiError as error:
        raise contradiction(
            f"{name}#{sequence} 的事件不可能由合约发出（{error}）",
            f"no contract of ours gave the event of {name}#{sequence} ({error})",
            where,
        ) from error
    revision, size, root, previous, descriptor, _ = values
    if hashlib.sha256(descriptor).hexdigest() != batch_id:
        raise contradiction(
            f"{name}#{sequence} 的批次描述与批次号不符",
            f"the descriptor of {name}#{sequence} does not hash to its batch id",
            where,
        )
    return Told(
        name,
        sequence,
        batch_id,
        revision,
        size,
        root.hex(),
        previous,
        descriptor,
        quantity(log.get("blockNumber"), "blockNumber"),
        str(log.get("blockHash")),
        str(log.get("transactionHash")),
    )


def event_missing(block: int, where: str, name: str = "") -> ChainError:
    """The error for a node that keeps an event back."""
    of_zh, of_en = (f" {name} ", f" of {name}") if name else ("", "")
    return ChainError(
        "chain.event_missing",
        f"节点截至区块 {block} 没有给出{of_zh}的上链事件；可能已清理旧日志，请换一个完整节点",
        f"the node gives no event{of_en} up to block {block}; it may have dropped old logs: use a node that keeps them",
        where,
    )
