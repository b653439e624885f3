"""`restore`: the plan (a table field by field, JSON or SQL), and with --apply what became of it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ledger.cli.speech import compact, note, print_json, say, table
from ledger.cli.workspace import job
from ledger.errors import InputError
from ledger.reconcile.findings import CHINESE

if TYPE_CHECKING:
    from ledger.config import SourceConfig
    from ledger.reconcile.source import Reconciliation
    from ledger.restore.apply import Outcome
    from ledger.restore.plan import Change, Item, LeftOut, Plan


def run(args: argparse.Namespace) -> int:
    """Plan, and with --apply carry out. A dry run ends with 1 if there is something to restore; --apply with the exit code of the
    reconciliation that follows, at least 1 where a row was left alone."""
    from ledger.batch.book import now
    from ledger.reconcile.runs import record
    from ledger.reconcile.source import reconcile
    from ledger.restore.apply import apply_plan, exit_code
    from ledger.restore.plan import make_plan

    style = "json" if args.json else (args.format or "table")
    if args.apply and not (args.by or "").strip():
        raise InputError("restore.by", "--apply 须以 --by 说明经办人", "--apply needs --by: who says so", "--by")
    with job(args) as opened:
        catalog = opened.workspace.catalog(args.catalog)
        source = opened.workspace.source(catalog)
        plan = make_plan(opened, catalog, args.key)
        if not args.apply:
            _show(style, plan, source)
            return 1 if plan.items or plan.left_out else 0
        outcomes = apply_plan(opened, plan, by=args.by)
        started_at = now()
        report = reconcile(opened, catalog)
        keep = opened.workspace.config.api.keep_reconciliations
        report = record(opened.store, report, requested_by="restore", started_at=started_at, keep=keep)
    _show_outcome(style, plan, source, outcomes, report)
    return exit_code(outcomes, report.verdict.exit_code)


def _show(style: str, plan: Plan, source: SourceConfig) -> None:
    if style == "json":
        print_json(_plan_json(plan, source))
    elif style == "sql":
        _tell_sql(plan, source)
        _tell_left_out(plan)
    else:
        _tell(plan)
        _tell_left_out(plan)
        if plan.items:
            note(
                "以上只是演练，未写入任何内容；确认后加 --apply --by 姓名",
                "this was a dry run, nothing was written; to do it, add --apply --by NAME",
            )


def _plan_json(plan: Plan, source: SourceConfig) -> dict[str, object]:
    from ledger.restore.sql import statements

    return {
        "catalog": plan.catalog.name,
        "applied": False,
        "items": [
            _item_json(plan, item) | {"statement": {"sql": statement.sql, "parameters": statement.parameters}}
            for item, statement in zip(plan.items, statements(plan, source), strict=True)
        ],
        "left_out": [_left_out_json(left) for left in plan.left_out],
        "erased": list(plan.report.erased),
    }


def _item_json(plan: Plan, item: Item) -> dict[str, object]:
    return {
        "kind": str(item.kind),
        "key": {name: plan.shown(name, value) for name, value in item.key.items()},
        "batch": item.batch,
        "changes": [
            {
                "field": change.field,
                "observed": plan.shown(change.field, change.observed),
                "expected": plan.shown(change.field, change.expected),
            }
            for change in item.changes
        ],
    }


def _left_out_json(left: LeftOut) -> dict[str, object]:
    return {"finding": left.finding.as_json(), "why": say(left.zh, left.en)}


def _show_outcome(
    style: str, plan: Plan, source: SourceConfig, outcomes: tuple[Outcome, ...], report: Reconciliation
) -> None:
    from ledger.cli.verdicts import verdict_words
    from ledger.restore.apply import RESULTS

    if style == "json":
        print_json(
            {
                "catalog": plan.catalog.name,
                "applied": True,
                "items": [
                    _item_json(plan, it.item) | {"result": it.result, "columns": list(it.columns)} for it in outcomes
                ],
                "left_out": [_left_out_json(left) for left in plan.left_out],
                "erased": list(plan.report.erased),
                "reconciled": report.as_json(),
            }
        )
        return
    headers = (say("类型", "kind"), say("主键", "key"), say("字段", "fields"), say("结果", "result"))
    rows = [
        (
            say(CHINESE[it.item.kind], str(it.item.kind)),
            _key(plan, it.item),
            " ".join(change.field for change in it.item.changes),
            " ".join((say(*RESULTS[it.result]), *it.columns)),
        )
        for it in outcomes
    ]
    if rows:
        print(table(headers, rows))
    else:
        print(say("没有可恢复的行", "there is nothing to restore"))
    _tell_left_out(plan)
    print(
        say(
            f"恢复后对账 {report.catalog}：{verdict_words(report.verdict)}，差异 {len(report.findings)} 处",
            f"reconciled afterwards: {report.catalog}: {verdict_words(report.verdict)}, {len(report.findings)} findings",
        )
    )


def _tell(plan: Plan) -> None:
    """Field by field, a row of the table each."""
    if not plan.items:
        print(say("没有可恢复的行", "there is nothing to restore"))
        return
    headers = (
        say("类型", "kind"),
        say("主键", "key"),
        say("批次", "batch"),
        say("字段", "field"),
        say("现值", "holds"),
        say("恢复为", "restore to"),
    )
    rows: list[tuple[object, ...]] = []
    for item in plan.items:
        for at, change in enumerate(item.changes):
            first = (say(CHINESE[item.kind], str(item.kind)), _key(plan, item), item.batch) if not at else ("", "", "")
            rows.append(
                (*first, change.field, _value(plan, change.field, change.observed, item), _expected(plan, change))
            )
    print(table(headers, rows))


def _expected(plan: Plan, change: Change) -> str:
    shown = plan.shown(change.field, change.expected)
    return "∅" if shown is None else shown


def _value(plan: Plan, name: str, value: str | None, item: Item) -> str:
    if item.observed is None:
        return "-"
    shown = plan.shown(name, value)
    return "∅" if shown is None else shown


def _key(plan: Plan, item: Item) -> str:
    return compact({name: plan.shown(name, value) for name, value in item.key.items()})


def _tell_sql(plan: Plan, source: SourceConfig) -> None:
    from ledger.restore.sql import statements

    backslashes = source.url.startswith(("mysql", "mariadb"))
    for statement in statements(plan, source):
        line = f"{statement.literal(backslashes=backslashes)};"
        if statement.masked:
            print(
                say(
                    "-- 含个人信息，已遮蔽，不能照此执行：",
                    "-- holds personal values, which are masked; not to be run as it is:",
                )
            )
            line = "".join(f"-- {part}\n" for part in line.split("\n")).rstrip("\n")
        print(line)


def _tell_left_out(plan: Plan) -> None:
    erased = plan.report.counts.erased
    if erased:
        note(f"不恢复：本方已删除原文的记录 {erased} 条", f"not restored: {erased} record(s) that were erased here")
    for left in plan.left_out:
        finding = left.finding
        key = compact(finding.key) if finding.key is not None else (finding.key_tag or f"row {finding.row}")
        kind = (CHINESE[finding.kind], str(finding.kind))
        note(f"不恢复 {kind[0]} {key}：{left.zh}", f"not restored: {kind[1]} {key}: {left.en}")
