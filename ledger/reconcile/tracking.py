"""Findings as people work them: what is new, who has it, what was explained, what is settled (design section 3).

A finding is named by catalog, key and kind, so its state outlives the reconciliation that saw it first, and the same night's noise
is not read twice. A finding whose key cannot be read has no name and is new each time. No state makes a difference lawful: an
explained finding still counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta, timezone
from hashlib import sha256
from typing import Any

from sqlalchemy import bindparam, insert, or_, select, update
from sqlalchemy.orm import Session

from ledger.batch.book import now
from ledger.errors import InputError
from ledger.reconcile.findings import Finding, Verdict
from ledger.reconcile.source import Reconciliation
from ledger.store import models
from ledger.store.db import Store

OFFICE_ZONE = timezone(timedelta(hours=8))
"""China standard time: an explanation ends with the office's day."""
CERTAIN = (Verdict.MATCHED, Verdict.DIFFERENCES)
"""Verdicts that name every finding there is; after another one, a finding that was not seen may still be there."""


_TABLE = models.Base.metadata.tables["finding"]
_UPDATE = (
    update(_TABLE)
    .where(_TABLE.c.id == bindparam("to_id"))
    .values({column.name: bindparam(f"to_{column.name}") for column in _TABLE.c if column.name != "id"})
)


MAX_EXPLAINED_DAYS = 366


@dataclass(frozen=True)
class Identity:
    """What names a finding within its catalog."""

    key_tag: str
    kind: str


def track(session: Session, report: Reconciliation, *, run_id: str, in_brief: bool = False) -> Reconciliation:
    """Write down what a reconciliation saw, and return its report with the state of each finding.

    `new` are those this one is the first to see; `in_brief`, those that no brief has told of. What it no longer finds is settled, if
    it looked at everything and could tell.
    """
    moment = now()
    catalog_id = report.catalog.partition("/")[0]
    known = {
        Identity(row.key_tag, row.kind): dict(row._mapping)
        for row in session.execute(select(_TABLE).where(_TABLE.c.catalog_id == catalog_id))
    }
    changed: list[dict[str, Any]] = []
    new: list[dict[str, Any]] = []
    seen: set[Identity] = set()
    findings: list[Finding] = []
    today = _today()
    for finding in report.findings:
        if finding.key_tag is None:
            findings.append(replace(finding, state="new"))
            continue
        name = Identity(finding.key_tag, str(finding.kind))
        seen.add(name)
        content = _content(finding)
        row = known.get(name)
        if row is not None and row["read_mark"] > report.read_mark:
            # A newer reading has spoken of it: this one is history.
            findings.append(replace(finding, state="open" if row["state"] in ("new", "settled") else str(row["state"])))
            continue
        if row is None:
            row = {"catalog_id": catalog_id, "key_tag": name.key_tag, "kind": name.kind, **_begun(run_id, moment)}
            new.append(row)
        else:
            changed.append(row)
            if row["state"] == "settled":
                row.update(_begun(run_id, moment))
            elif row["state"] == "explained" and (row["explained_until"] < today or _is_other(row, content)):
                # What was explained for a time is news again when the time is over; another difference was never explained.
                row.update(
                    state="new",
                    explained_until=None,
                    changed_at=moment,
                    first_seen_at=moment,
                    first_run=run_id,
                    told_at=None,
                )
        row.update(
            key=_key(finding), batch=finding.batch, last_seen_at=moment, last_run=run_id, read_mark=report.read_mark
        )
        row["content"] = content or row.get("content")
        findings.append(replace(finding, state=_state(row, run_id, in_brief=in_brief)))
        if in_brief:
            row["told_at"] = row["told_at"] or moment
    if report.verdict in CERTAIN and report.scope.whole:
        others = {name.key_tag: name.kind for name in seen}
        for name, row in known.items():
            if name not in seen and row["state"] != "settled" and row["read_mark"] <= report.read_mark:
                settled_by = f"kind {others[name.key_tag]}" if name.key_tag in others else _settled_by(report, row)
                row.update(state="settled", explained_until=None, settled_at=moment, settled_by=settled_by)
                row["read_mark"] = report.read_mark
                changed.append(row)
    # Not row by row: a night can find as many as there are rows.
    if new:
        session.execute(insert(_TABLE), new)
    if changed:
        session.execute(_UPDATE, [{f"to_{column}": value for column, value in row.items()} for row in changed])
    return replace(report, findings=tuple(findings), ledger=None)


def listed(
    store: Store,
    *,
    catalog_id: str | None = None,
    kinds: Sequence[str] = (),
    states: Sequence[str] = (),
    after: int = 0,
    limit: int | None = None,
) -> list[models.Tracked]:
    """Findings by id, those after `after`, that stand in one of `states` (see `standing`); by default all that are not settled."""
    row = models.Tracked
    chosen = select(row).where(row.id > after).order_by(row.id)
    if catalog_id is not None:
        chosen = chosen.where(row.catalog_id == catalog_id)
    if kinds:
        chosen = chosen.where(row.kind.in_(kinds))
    told = row.told_at.is_not(None) | (row.first_run != row.last_run)
    standing_in = {
        "new": (row.state == "new") & ~told,
        "open": (row.state == "new") & told,
        **{state: row.state == state for state in ("assigned", "explained", "settled")},
    }
    chosen = chosen.where(or_(*(standing_in[state] for state in states)) if states else row.state != "settled")
    with store.read() as session:
        return list(session.scalars(chosen.limit(limit)))


def assign(store: Store, ids: Sequence[int], *, to: str, by: str) -> list[models.Tracked]:
    """Give findings to somebody; all of them or, if one cannot be, none (InputError `finding.*`)."""
    name, who = _given("--to", to), _given("--by", by)
    with store.write() as session:
        rows = _open_rows(session, ids)
        for row in rows:
            row.state, row.assigned_to, row.explained_until, row.reason = "assigned", name, None, None
            row.changed_by, row.changed_at = who, now()
    return rows


def explain(store: Store, ids: Sequence[int], *, until: str, reason: str, by: str) -> list[models.Tracked]:
    """Say why findings are there and until when that holds, the day included; all of them or none (InputError `finding.*`)."""
    day, why, who = _until(until), _given("--reason", reason), _given("--by", by)
    with store.write() as session:
        rows = _open_rows(session, ids)
        for row in rows:
            row.state, row.explained_until, row.reason = "explained", day, why
            row.changed_by, row.changed_at = who, now()
    return rows


def standing(row: models.Tracked) -> str:
    """How a finding stands, in the words of the reports: `open` once more than the first reconciliation, or a brief, told of it."""
    told = row.told_at is not None or row.first_run != row.last_run
    return "open" if row.state == "new" and told else row.state


def tracked_json(row: models.Tracked) -> dict[str, object]:
    """A finding as it is worked, in the words of the JSON output."""
    return {
        "id": row.id,
        "catalog": row.catalog_id,
        "kind": row.kind,
        "key": None if row.key is None else json.loads(row.key),
        "key_tag": row.key_tag,
        "batch": row.batch,
        "state": standing(row),
        "assigned_to": row.assigned_to,
        "explained_until": row.explained_until,
        "reason": row.reason,
        "changed_by": row.changed_by,
        "changed_at": row.changed_at,
        "first_seen_at": row.first_seen_at,
        "last_seen_at": row.last_seen_at,
        "settled_at": row.settled_at,
        "settled_by": row.settled_by,
    }


def _begun(run_id: str, moment: str) -> dict[str, str | None]:
    """A finding that nobody has seen before, or that is back."""
    untouched = (
        "assigned_to",
        "explained_until",
        "reason",
        "changed_by",
        "changed_at",
        "told_at",
        "settled_at",
        "settled_by",
    )
    return dict.fromkeys(untouched) | {
        "state": "new",
        "first_seen_at": moment,
        "first_run": run_id,
    }


def _state(row: Mapping[str, Any], run_id: str, *, in_brief: bool) -> str:
    if row["state"] != "new":
        return str(row["state"])
    fresh = row["told_at"] is None if in_brief else row["first_run"] == run_id
    return "new" if fresh else "open"


def _content(finding: Finding) -> str | None:
    """What was expected and observed, as one hash; None where values were shown instead of commitments."""
    told = (finding.expected, finding.observed)
    if not all(it is None or isinstance(it, str) for it in told):
        return None
    reason = (
        None if finding.reason is None else [finding.reason["field"], finding.reason["value"], finding.reason["code"]]
    )
    return sha256(json.dumps([*told, finding.rows, reason], ensure_ascii=False).encode()).hexdigest()


def _is_other(row: Mapping[str, Any], content: str | None) -> bool:
    return content is not None and row["content"] is not None and bool(content != row["content"])


def _settled_by(report: Reconciliation, row: Mapping[str, Any]) -> str:
    """The batch that carries the key now, if it is not the one the finding was about; an erasure; else the source was put right."""
    if row["key_tag"] in report.erased:
        return "erasure"
    batch = report.live_batch(bytes.fromhex(row["key_tag"]))
    return f"batch {batch}" if batch is not None and batch != row["batch"] else "source"


def _open_rows(session: Session, ids: Sequence[int]) -> list[models.Tracked]:
    wanted = list(dict.fromkeys(ids))
    rows = {row.id: row for row in session.scalars(select(models.Tracked).where(models.Tracked.id.in_(wanted)))}
    for number in wanted:
        if number not in rows:
            raise InputError(
                "finding.unknown",
                f"没有编号为 {number} 的差异；finding list 可列出",
                f"there is no finding {number}; finding list shows them",
                "ID",
            )
        if rows[number].state == "settled":
            raise InputError(
                "finding.settled",
                f"差异 {number} 已于 {rows[number].settled_at} 了结，无须处理",
                f"finding {number} was settled at {rows[number].settled_at}; there is nothing to work",
                "ID",
            )
    return [rows[number] for number in wanted]


def _until(text: str) -> str:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or day.isoformat() != text:
        raise InputError(
            "finding.until", f"“{text}”不是 YYYY-MM-DD 日期", f"{text!r} is not a day YYYY-MM-DD", "--until"
        )
    if text < _today():
        raise InputError(
            "finding.until_past",
            f"{text} 已过，说明不会生效",
            f"{text} is past: the explanation would never hold",
            "--until",
        )
    if text > (date.fromisoformat(_today()) + timedelta(days=MAX_EXPLAINED_DAYS)).isoformat():
        raise InputError(
            "finding.until_far",
            f"{text} 超过 {MAX_EXPLAINED_DAYS} 天：说明须定期复核",
            f"{text} is more than {MAX_EXPLAINED_DAYS} days away: an explanation must be looked at again",
            "--until",
        )
    return text


def _given(option: str, text: str) -> str:
    if not text.strip():
        raise InputError("finding.empty", f"{option} 不得为空", f"{option} must not be empty", option)
    return text.strip()


def _key(finding: Finding) -> str | None:
    return None if finding.key is None else json.dumps(dict(finding.key), ensure_ascii=False)


def _today() -> str:
    return datetime.now(UTC).astimezone(OFFICE_ZONE).date().isoformat()
