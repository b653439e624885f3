"""Which part of a stream a reconciliation is asked for: one batch, or the batches of some days (design section 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from ledger.batch.stream import AnnouncedBatch, StreamId
from ledger.catalog import Catalog
from ledger.descriptor import DAY, batch_number
from ledger.errors import InputError


@dataclass(frozen=True)
class Scope:
    """A part of a stream: the keys whose live version, withdrawals included, stands in one of its batches.

    Either `batch`, a number in normal form, or days, both included: `since`, `until`, or both. With none of them the scope is the
    whole stream.
    """

    batch: str | None = None
    since: date | None = None
    until: date | None = None

    @property
    def whole(self) -> bool:
        """True if nothing is left out."""
        return self.batch is None and self.since is None and self.until is None

    def as_json(self) -> dict[str, str]:
        """What was asked for: `batch`, or `since` and `until`; empty for the whole stream."""
        days = {"since": self.since, "until": self.until}
        named = {} if self.batch is None else {"batch": self.batch}
        return named | {name: day.isoformat() for name, day in days.items() if day is not None}

    @classmethod
    def from_json(cls, document: Mapping[str, str | None]) -> Scope:
        """The scope that `as_json` told."""
        return parse_scope(document.get("batch"), document.get("since"), document.get("until"))

    def covers(self, batch: AnnouncedBatch, catalog: Catalog) -> bool:
        """True if `batch` is of this scope. Its days are those of its period, else the catalog's day of its first anchor."""
        if self.batch is not None:
            return batch.descriptor.batch == self.batch
        first, last = days_of(batch, catalog)
        return (self.since is None or last >= self.since) and (self.until is None or first <= self.until)

    def pick(self, stream: StreamId, batches: Sequence[AnnouncedBatch], catalog: Catalog) -> frozenset[str]:
        """The batch ids of those that are of this scope.

        InputError `scope.batch_unknown` names the batches there are if `batch` is none of them: nothing asked for is never fine.
        """
        picked = frozenset(batch.batch_id for batch in batches if self.covers(batch, catalog))
        if self.batch is not None and not picked:
            there = [batch.descriptor.batch for batch in batches]
            raise InputError(
                "scope.batch_unknown",
                f"{stream.catalog_id} 没有批次 {self.batch}；现有：{'、'.join(there) or '无'}",
                f"{stream.catalog_id} has no batch {self.batch}; there are: {', '.join(there) or 'none'}",
                "--batch",
            )
        if not self.whole and not picked:
            raise InputError(
                "scope.empty",
                f"{stream.catalog_id} 在所给日期内没有批次，没有可以核对的内容",
                f"{stream.catalog_id} has no batch of these days: there is nothing to check",
                "--since",
            )
        return picked


WHOLE = Scope()
"""Nothing left out."""


def parse_scope(batch: str | None, since: str | None, until: str | None) -> Scope:
    """The scope that somebody asked for in words; days are YYYY-MM-DD.

    InputError `scope.batch`, `scope.day`, `scope.order` (since after until), `scope.batch_and_days`.
    """
    first, last = _day("--since", since), _day("--until", until)
    if batch is not None and (first or last):
        raise InputError(
            "scope.batch_and_days",
            "--batch 不能与 --since、--until 同用：一个批次不需要再按日期限定",
            "--batch does not go with --since and --until: one batch needs no days",
            "--batch",
        )
    if first is not None and last is not None and first > last:
        raise InputError(
            "scope.order", f"--since {first} 晚于 --until {last}", f"--since {first} is after --until {last}", "--since"
        )
    if batch is None:
        return Scope(None, first, last)
    try:
        return Scope(batch_number(batch))
    except InputError as error:
        raise InputError("scope.batch", error.zh, error.en, "--batch") from error


def days_of(batch: AnnouncedBatch, catalog: Catalog) -> tuple[date, date]:
    """First and last day a batch is about: its period, else the catalog's day of the sender's first anchor (of the first anchor
    there is, where the sender has none)."""
    if batch.descriptor.period:
        first, _, last = batch.descriptor.period.partition("/")
        return date.fromisoformat(first), date.fromisoformat(last or first)
    anchor = (batch.sent or batch.received)[0]
    day = (datetime.fromtimestamp(anchor.time, UTC) + catalog.offset).date()
    return day, day


def _day(option: str, text: str | None) -> date | None:
    if text is None:
        return None
    try:
        # fromisoformat takes weeks and days without dashes as well.
        day = date.fromisoformat(text) if DAY.fullmatch(text) else None
    except ValueError:
        day = None
    if day is None:
        raise InputError(
            "scope.day",
            f"{option} 的“{text}”不是 YYYY-MM-DD 日期",
            f"{option} {text!r} is not a day YYYY-MM-DD",
            option,
        )
    return day
