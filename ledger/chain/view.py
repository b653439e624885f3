"""The registry at one block, as values; and the proof that a reading of it is whole. Pure: no I/O.

Addresses are "0x" + 40 lower-case hex digits; batch ids and roots 64 hex digits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from ledger.errors import ChainError

_END = 1 << 64


@dataclass(frozen=True)
class Holding:
    """One account's tenure of a name, from `position` on."""

    account: str
    position: int
    block: int
    time: int


@dataclass(frozen=True)
class AnchorRecord:
    """One anchor as storage holds it. `revision` and `sequence` count from 1; `time` is the chain's, advisory."""

    party: str
    batch_id: str
    revision: int
    size: int
    root: str
    sequence: int
    time: int
    block: int
    position: int


@dataclass(frozen=True)
class RegistryView:
    """The registry at one block. Both maps have every party, in the order of registration; tuples oldest first."""

    block: int
    time: int
    position: int
    parties: Mapping[str, tuple[Holding, ...]]
    anchors: Mapping[str, tuple[AnchorRecord, ...]]

    def address(self, name: str) -> str:
        """The account that holds `name` at this block; ChainError `chain.no_party` if nobody ever did."""
        if name not in self.parties:
            known = "、".join(self.parties) or "（无）"
            raise ChainError(
                "chain.no_party",
                f"链上没有参与方 {name}；已登记：{known}",
                f"no party {name} is registered on the chain; registered: {', '.join(self.parties) or '(none)'}",
            )
        return self.parties[name][-1].account

    def holder(self, address: str, position: int) -> str | None:
        """The name that `address` held at that position, or None: not yet, no longer, never."""
        tenure = self._tenures.get(address.lower())
        return tenure[0] if tenure is not None and tenure[1] <= position < tenure[2] else None

    def party_of(self, address: str) -> str | None:
        """The name that `address` holds at this block, or None."""
        return self.holder(address, self.position)

    def revisions(self, batch_id: str, party: str) -> tuple[AnchorRecord, ...]:
        """All anchors of `party` about that batch, oldest first; empty if there is none."""
        return self._by_batch.get((batch_id, party), ())

    def first(self, batch_id: str, party: str) -> AnchorRecord | None:
        """The first anchor of `party` about that batch: it fixes the order."""
        return next(iter(self.revisions(batch_id, party)), None)

    def last(self, batch_id: str, party: str) -> AnchorRecord | None:
        """The last anchor of `party` about that batch: the one that counts."""
        return next(reversed(self.revisions(batch_id, party)), None)

    @cached_property
    def _tenures(self) -> dict[str, tuple[str, int, int]]:
        tenures: dict[str, tuple[str, int, int]] = {}
        for name, holdings in self.parties.items():
            ends = [holding.position for holding in holdings[1:]] + [_END]
            for holding, end in zip(holdings, ends, strict=True):
                tenures[holding.account] = (name, holding.position, end)
        return tenures

    @cached_property
    def _by_batch(self) -> dict[tuple[str, str], tuple[AnchorRecord, ...]]:
        found: dict[tuple[str, str], list[AnchorRecord]] = {}
        for party, records in self.anchors.items():
            for record in records:
                found.setdefault((record.batch_id, party), []).append(record)
        return {key: tuple(records) for key, records in found.items()}


def check_whole(view: RegistryView, where: str = "") -> None:
    """Raise ChainError `chain.contradiction` unless nothing is missing from `view` and nothing is there twice.

    The contract gives each registration, move and anchor the next position, each anchor of a party the next sequence
    and each claim about a batch the next revision: a reading in which one of the three has a gap is not the contract's.
    `where` names node and contract in the message.
    """
    accounts: set[str] = set()
    taken: list[int] = []
    for name, holdings in view.parties.items():
        _check_ascending(name, [holding.position for holding in holdings], where)
        taken += [holding.position for holding in holdings]
        for holding in holdings:
            if holding.account in accounts:
                raise contradiction(
                    f"账户 {holding.account} 两次出现在登记中", f"account {holding.account} was registered twice", where
                )
            accounts.add(holding.account)
    for name, records in view.anchors.items():
        counts: dict[str, int] = {}
        for sequence, record in enumerate(records, 1):
            counts[record.batch_id] = counts.get(record.batch_id, 0) + 1
            if record.sequence != sequence or record.revision != counts[record.batch_id]:
                raise contradiction(
                    f"{name} 的第 {sequence} 条上链记录编号为 {record.sequence}、版次为 {record.revision}",
                    f"anchor {sequence} of {name} is numbered {record.sequence} and revision {record.revision}",
                    where,
                )
        _check_ascending(name, [record.position for record in records], where)
        taken += [record.position for record in records]
    if sorted(taken) != list(range(1, view.position + 1)):
        raise contradiction(
            f"登记与上链记录的位置号应恰为 1 至 {view.position}，实有 {len(taken)} 个",
            f"registrations and anchors must take exactly the positions 1 to {view.position}; there are {len(taken)}",
            where,
        )


def time_utc(seconds: int) -> str:
    """A block's time as UTC text; chains that count milliseconds (over 10^11) are read as such."""
    try:
        moment = datetime.fromtimestamp(seconds / 1000 if seconds > 10**11 else seconds, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise ChainError(
            "chain.time", f"链上时间 {seconds} 不是时间", f"the chain's time {seconds} is no time"
        ) from error
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def contradiction(zh: str, en: str, where: str = "") -> ChainError:
    """The error for a node that says two things that cannot both be so."""
    return ChainError(
        "chain.contradiction",
        f"链上数据自相矛盾，不可采信：{zh}",
        f"the chain contradicts itself and cannot be relied on: {en}",
        where,
    )


def _check_ascending(name: str, positions: Sequence[int], where: str) -> None:
    if list(positions) != sorted(positions):
        raise contradiction(f"{name} 的记录次序错乱", f"the records of {name} are out of order", where)
