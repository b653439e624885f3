"""What a reconciliation says: findings, counts that balance, a verdict (design sections 3 and 7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """Findings of the database against the ledger, in order of precedence: the first that fits names the key's finding."""

    DUPLICATE = "duplicate"
    UNREADABLE = "unreadable"
    NOT_WITHDRAWN = "not_withdrawn"
    STALE = "stale"
    ALTERED = "altered"
    MISSING = "missing"
    UNANCHORED = "unanchored"


class Verdict(StrEnum):
    """The outcome; `differences` is certified complete, `differences_partial` is not, `undetermined` could not tell.

    `matched_in_scope`: what was asked for matches, and that was not everything.
    """

    MATCHED = "matched"
    MATCHED_IN_SCOPE = "matched_in_scope"
    DIFFERENCES = "differences"
    DIFFERENCES_PARTIAL = "differences_partial"
    UNDETERMINED = "undetermined"

    @property
    def exit_code(self) -> int:
        """0 matched, 1 differences found, 2 could not tell."""
        return {Verdict.MATCHED: 0, Verdict.MATCHED_IN_SCOPE: 0, Verdict.UNDETERMINED: 2}.get(self, 1)


CHINESE: Mapping[Kind, str] = {
    Kind.DUPLICATE: "重复",
    Kind.UNREADABLE: "无法读取",
    Kind.NOT_WITHDRAWN: "应撤未撤",
    Kind.STALE: "旧版本",
    Kind.ALTERED: "被改动",
    Kind.MISSING: "缺失",
    Kind.UNANCHORED: "未上链",
}


STATES = ("new", "open", "assigned", "explained")
"""How a report states its findings: `new` was never told before, `open` was and nobody has it."""


@dataclass(frozen=True)
class Finding:
    """One difference about one key.

    `key` maps key fields to values (personal ones masked), None where only the tag is known; `row` is the physical line or row
    number of a row whose key cannot be read, else None. `expected` and `observed` are commitments in hex, or field values when
    asked for. `batch` is the number of the batch that carries the expected version. `rows` counts the rows of a duplicate. `reason`
    tells why a row cannot be read, or why it should be gone (`field` is empty then). `state` is how it stands (tracking.STATES),
    None until the report is on record.
    """

    kind: Kind
    key: Mapping[str, str] | None
    key_tag: str | None = None
    row: int | None = None
    rows: int = 1
    expected: object = None
    observed: object = None
    batch: str | None = None
    reason: Mapping[str, str] | None = None
    state: str | None = None
    sort_key: tuple[str, ...] = field(default=(), repr=False, compare=False)

    def as_json(self) -> dict[str, object]:
        """The finding in the words of the JSON output; members that do not apply are left out."""
        out: dict[str, object] = {"kind": str(self.kind), "key": dict(self.key) if self.key is not None else None}
        if self.key is None and self.key_tag is not None:
            out["key_tag"] = self.key_tag
        if self.row is not None:
            out["row"] = self.row
        if self.kind is Kind.DUPLICATE:
            out["rows"] = self.rows
        out["expected"] = self.expected
        out["observed"] = self.observed
        out["batch"] = self.batch
        if self.reason is not None:
            out["reason"] = dict(self.reason)
        if self.state is not None:
            out["state"] = self.state
        return out


GONE: Mapping[str, Mapping[str, str]] = {
    value: {"field": "", "value": value, "code": f"gone.{value}", "zh": zh, "en": en}
    for value, zh, en in (
        ("repaired", "已修复，已撤回：删除该行", "repaired, withdrawn: delete the row"),
        ("revoked", "已撤销，已撤回：删除该行", "revoked, withdrawn: delete the row"),
        ("expired", "已到期，已撤回：删除该行", "expired, withdrawn: delete the row"),
        (
            "erased",
            "发送方已删除，已撤回：删除该行，再执行 duizhang erase",
            "erased by its sender, withdrawn: delete the row, then run duizhang erase",
        ),
        ("error", "差错，已撤回：删除该行", "sent in error, withdrawn: delete the row"),
        (
            "erased_here",
            "本方已删除其原文，该行仍在或又出现：删除该行",
            "its plaintext was erased here, the row is still there or back: delete it",
        ),
    )
}
"""Reasons of a `not_withdrawn`: those of withdrawals (formats F3), and `erased_here` of a record that this party erased."""


SOURCE_TERMS = (
    ("matched", "一致"),
    ("accepted", "已认可"),
    ("updated", "已更新"),
    ("altered", "被改动"),
    ("stale", "旧版本"),
    ("not_withdrawn", "应撤未撤"),
    ("unanchored", "未上链"),
    ("newly_seen", "新增"),
    ("unreadable", "无法读取"),
    ("duplicate_rows", "重复行"),
)
LEDGER_TERMS = (
    *SOURCE_TERMS[:5],
    ("missing", "缺失"),
    ("duplicate_anchored", "重复"),
    ("unreadable_anchored", "无法读取"),
)
"""The terms of the two sums of design section 3, which must balance, with their Chinese names."""


@dataclass(frozen=True)
class Counts:
    """Row and key counts of one reconciliation. `duplicate` counts keys, `duplicate_rows` their rows.

    `accepted_removals` and `erased` stand outside both sums: an erased record is no live key, whether its row is gone (counted here)
    or still there (`not_withdrawn`).
    """

    source: int = 0
    ledger: int = 0
    matched: int = 0
    accepted: int = 0
    updated: int = 0
    altered: int = 0
    stale: int = 0
    not_withdrawn: int = 0
    missing: int = 0
    unanchored: int = 0
    newly_seen: int = 0
    unreadable: int = 0
    duplicate: int = 0
    duplicate_rows: int = 0
    duplicate_anchored: int = 0
    unreadable_anchored: int = 0
    accepted_removals: int = 0
    erased: int = 0

    @property
    def source_sum(self) -> int:
        """What `source` must equal."""
        return sum(getattr(self, name) for name, _ in SOURCE_TERMS)

    @property
    def ledger_sum(self) -> int:
        """What `ledger` must equal."""
        return sum(getattr(self, name) for name, _ in LEDGER_TERMS)

    @property
    def balanced(self) -> bool:
        """True if both sums hold; a report whose counts do not balance must never be shown as an answer."""
        return self.source == self.source_sum and self.ledger == self.ledger_sum
