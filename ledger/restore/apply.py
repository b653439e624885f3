"""`restore --apply`: the plan carried out in one transaction of the source, only on rows that still hold what the plan saw.

Order: the intent is recorded, the source is changed and read back within its transaction, then the outcome is recorded; so a kill
leaves either nothing changed or a restore without an outcome, which `status` and the next brief name.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

import numpy as np

from ledger.batch.book import now
from ledger.batch.job import Job
from ledger.errors import InputError, LedgerError, SourceError
from ledger.kernel.chunk import Chunk
from ledger.kernel.entries import Kernel
from ledger.kernel.sorting import TAG
from ledger.restore.plan import Item, Plan, rows_of, texts_of
from ledger.source.write import Locator, Writer, open_writer
from ledger.store import models

Result = Literal["restored", "changed", "gone", "there", "several", "unknown_columns"]
"""What became of an item: `restored`; the row was `changed` since the plan, is `gone`, is `there` again (a missing one), is there
`several` times; or a column that must not be null is not known (`unknown_columns`)."""

RESULTS: Mapping[Result, tuple[str, str]] = {
    "restored": ("已恢复", "restored"),
    "changed": ("计划之后又被改动，未动", "changed since the plan: left alone"),
    "gone": ("计划之后被删除，未动", "deleted since the plan: left alone"),
    "there": ("计划之后又出现，未动", "there again since the plan: left alone"),
    "several": ("计划之后出现多行，未动", "there several times since the plan: left alone"),
    "unknown_columns": (
        "表中有必填列不在目录内，无法补行",
        "the table has columns that must be filled and are not known: not inserted",
    ),
}


@dataclass(frozen=True)
class Outcome:
    """An item, what became of it, and for `unknown_columns` which."""

    item: Item
    result: Result
    columns: tuple[str, ...] = ()


def apply_plan(job: Job, plan: Plan, *, by: str) -> tuple[Outcome, ...]:
    """Carry out the plan; all that can be restored or, if the source refuses or changes what is written, nothing.

    SourceError `restore.differs` if a row read back is not what was anchored, `restore.others_changed` if other rows changed with it; those of `write.open_writer`.
    """
    if not by.strip():
        raise InputError("restore.by", "--apply 须以 --by 说明经办人", "--apply needs --by: who says so", "--by")
    restore_id = _intend(job, plan, by.strip())
    try:
        outcomes = _write(job, plan)
    except LedgerError as error:
        _close(job, restore_id, "failed", {**_document(plan, ()), "error": error.code})
        raise
    _close(job, restore_id, "applied", _document(plan, outcomes))
    return outcomes


def _write(job: Job, plan: Plan) -> tuple[Outcome, ...]:
    source = job.workspace.source(plan.catalog)
    kernel = Kernel(plan.catalog, plan.keys)
    with open_writer(
        source.url,
        source.table,
        plan.catalog,
        columns=source.columns,
        batch_column=source.batch_column,
        base=job.workspace.root,
    ) as writer:
        before = _Others()
        present = _present(writer, kernel, plan, before)
        unknown = _unknown_columns(writer)
        outcomes = tuple(_restore(writer, item, present.get(item.key_tag, []), unknown) for item in plan.items)
        restored = {outcome.item.key_tag: outcome.item for outcome in outcomes if outcome.result == "restored"}
        _read_back(writer, kernel, plan, restored, before)
    return outcomes


class _Others:
    """The rows that are not in the plan, whatever their order: how many, and a sum of their hashes."""

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0

    def add(self, chunk: Chunk, planned: Collection[int]) -> None:
        """Take in a chunk's rows but the `planned` ones, as they were read."""
        columns = [column.to_pylist() for column in chunk.fields.values()]
        for row, texts in enumerate(zip(*columns, strict=True)):
            if row not in planned:
                self.rows += 1
                self._sum += int.from_bytes(sha256(repr(texts).encode("utf-8", "surrogatepass")).digest())

    def same(self, other: _Others) -> bool:
        """Whether both saw the same rows."""
        return (self.rows, self._sum) == (other.rows, other._sum)


def _present(
    writer: Writer, kernel: Kernel, plan: Plan, others: _Others
) -> dict[bytes, list[tuple[Locator, dict[str, str | None]]]]:
    """Where the planned keys are now, and what their rows hold."""
    wanted = {item.key_tag for item in plan.items}
    found: dict[bytes, list[tuple[Locator, dict[str, str | None]]]] = {}
    for locators, chunk in writer.rows(list(plan.catalog.by_name)):
        planned = dict(rows_of(kernel, chunk, wanted))
        for row, tag in planned.items():
            found.setdefault(tag, []).append((locators[row], texts_of(chunk, row)))
        others.add(chunk, planned)
    return found


def _unknown_columns(writer: Writer) -> tuple[str, ...]:
    known = {*writer.layout.columns.values(), writer.layout.batch_column}
    return tuple(name for name in writer.required() if name not in known)


def _restore(
    writer: Writer, item: Item, rows: list[tuple[Locator, dict[str, str | None]]], unknown: tuple[str, ...]
) -> Outcome:
    if len(rows) > 1:
        return Outcome(item, "several")
    if item.observed is None:
        if rows:
            return Outcome(item, "there")
        if unknown:
            return Outcome(item, "unknown_columns", unknown)
        batch = item.batch if writer.layout.batch_column is not None else None
        writer.insert(item.expected, batch)
        return Outcome(item, "restored")
    if not rows:
        return Outcome(item, "gone")
    locator, texts = rows[0]
    if texts != item.observed:
        return Outcome(item, "changed")
    if writer.update(locator, {change.field: change.expected for change in item.changes}) is None:
        return Outcome(item, "gone")
    return Outcome(item, "restored")


def _read_back(writer: Writer, kernel: Kernel, plan: Plan, restored: Mapping[bytes, Item], before: _Others) -> None:
    """Whatever the database did to a value on the way (a type, a trigger) shows here and rolls everything back."""
    right: set[bytes] = set()
    if not restored:
        return
    writer.settle()
    after = _Others()
    wanted = {item.key_tag for item in plan.items}
    for _, chunk in writer.rows(list(plan.catalog.by_name)):
        after.add(chunk, dict(rows_of(kernel, chunk, wanted)))
        result = kernel.run(chunk)
        tags = np.ascontiguousarray(result.entries[:, TAG])
        for at in range(len(result.rows)):
            item = restored.get(tags[at].tobytes())
            if item is not None:
                if item.key_tag in right or result.entries[at].tobytes() != item.entry:
                    found = {name: result.values[name][at].as_py() for name in item.expected}
                    raise _differs(plan, item, writer.where, found)
                right.add(item.key_tag)
    for tag, item in restored.items():
        if tag not in right:
            raise _differs(plan, item, writer.where)
    if not after.same(before):
        raise SourceError(
            "restore.others_changed",
            "写入时其他行也随之改变（触发器？），已全部回滚",
            "other rows changed with what was written (a trigger?); all was rolled back",
            writer.where,
        )


def _differs(plan: Plan, item: Item, where: str, found: Mapping[str, str | None] | None = None) -> SourceError:
    label = plan.label(item)
    name = next((name for name, value in (found or {}).items() if value != item.expected[name]), None)
    zh = en = ""
    if name is not None and found is not None:
        wrote, came = plan.shown(name, item.expected[name]), plan.shown(name, found[name])
        zh = f"，字段 {name}：写入 {wrote!r}，读回 {came!r}；请把该列声明为 TEXT，并检查触发器"
        en = f", field {name}: wrote {wrote!r}, read back {came!r}; declare the column TEXT and look for triggers"
    return SourceError(
        "restore.differs",
        f"记录 {label} 写入后读回的内容与存证不符{zh or '（触发器，或列的类型？）'}；已全部回滚",
        f"record {label}, read back after writing, is not what was anchored{en or ' (a trigger, or a column type?)'}; all was rolled back",
        where,
    )


def _intend(job: Job, plan: Plan, by: str) -> int:
    with job.store.write() as session:
        row = models.Restore(
            catalog_id=plan.catalog.id,
            approved_by=by,
            state="intent",
            document=json.dumps(_document(plan, ()), ensure_ascii=False),
            started_at=now(),
        )
        session.add(row)
        session.flush()
        return row.id


def _close(job: Job, restore_id: int, state: models.RestoreState, document: Mapping[str, object]) -> None:
    with job.store.write() as session:
        row = session.get_one(models.Restore, restore_id)
        row.state, row.finished_at = state, now()
        row.document = json.dumps(document, ensure_ascii=False)


def _document(plan: Plan, outcomes: tuple[Outcome, ...]) -> dict[str, object]:
    """What the log keeps: keys (masked), kinds, names of fields, results; never a value."""
    results = {outcome.item.key_tag: outcome.result for outcome in outcomes}
    return {
        "items": [
            {
                "key": {name: plan.shown(name, value) for name, value in item.key.items()},
                "key_tag": item.key_tag.hex(),
                "kind": str(item.kind),
                "fields": [change.field for change in item.changes],
                "result": results.get(item.key_tag),
            }
            for item in plan.items
        ]
    }


def exit_code(outcomes: tuple[Outcome, ...], reconciled: int) -> int:
    """That of the reconciliation afterwards; at least 1 where a row was left alone."""
    return max(reconciled, int(any(outcome.result != "restored" for outcome in outcomes)))
