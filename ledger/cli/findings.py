"""`finding list`, `finding assign`, `finding explain`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from ledger.cli.speech import compact, print_json, say, table
from ledger.cli.workspace import here
from ledger.errors import InputError
from ledger.reconcile.findings import CHINESE, Kind

if TYPE_CHECKING:
    from ledger.store.models import Tracked

_STATES = {"new": "新", "open": "未处理", "assigned": "已分派", "explained": "已说明", "settled": "已了结"}


def run(args: argparse.Namespace) -> int:
    """Run one of the actions. A list is an answer, not a check: it ends with 0."""
    from ledger.reconcile import tracking

    workspace = here(args)
    if args.action == "list":
        if args.catalog is not None:
            workspace.catalog(args.catalog)
        kinds = [_kind(text) for text in args.kind or ()]
        with closing(workspace.open_store("read")) as store:
            rows = tracking.listed(store, catalog_id=args.catalog, kinds=kinds, states=args.state or ())
        _show(args, rows)
        return 0
    with closing(workspace.open_store("update")) as store:
        if args.action == "assign":
            rows = tracking.assign(store, args.id, to=args.to, by=args.by)
        else:
            rows = tracking.explain(store, args.id, until=args.until, reason=args.reason, by=args.by)
    _show(args, rows)
    return 0


def _kind(text: str) -> str:
    for kind in Kind:
        if text in (str(kind), CHINESE[kind]):
            return str(kind)
    known = ", ".join(Kind)
    raise InputError(
        "finding.kind", f"没有类型 {text!r}；有：{known}", f"no kind {text!r}; there are: {known}", "--kind"
    )


def _show(args: argparse.Namespace, rows: Sequence[Tracked]) -> None:
    from ledger.reconcile.tracking import tracked_json

    if args.json:
        print_json({"findings": [tracked_json(row) for row in rows]})
        return
    if not rows:
        print(say("没有差异", "no findings"))
        return
    headers = (
        say("编号", "id"),
        say("目录", "catalog"),
        say("类型", "kind"),
        say("主键", "key"),
        say("批次", "batch"),
        say("首次发现", "first seen"),
        say("状态", "state"),
        say("说明", "remark"),
    )
    print(table(headers, [_row(row) for row in rows]))


def _row(row: Tracked) -> tuple[object, ...]:
    from ledger.reconcile.tracking import standing

    key = say(f"标签 {row.key_tag}", f"tag {row.key_tag}") if row.key is None else compact(json.loads(row.key))
    return (
        row.id,
        row.catalog_id,
        say(CHINESE[Kind(row.kind)], row.kind),
        key,
        row.batch or "-",
        row.first_seen_at,
        say(_STATES[standing(row)], standing(row)),
        _remark(row),
    )


def _remark(row: Tracked) -> str:
    if row.state == "assigned":
        return row.assigned_to or ""
    if row.state == "explained":
        return say(f"至 {row.explained_until}：{row.reason}", f"until {row.explained_until}: {row.reason}")
    if row.state == "settled":
        how = row.settled_by or ""
        return say(
            f"{row.settled_at}，{'数据源已改正' if how == 'source' else how.replace('batch', '批次')}",
            f"{row.settled_at} by {how}",
        )
    return ""
