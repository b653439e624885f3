"""`reconcile`: the report, as a table, JSON, JSON lines or CSV."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ledger.cli.speech import compact, note, print_json, say, table
from ledger.cli.workspace import job
from ledger.errors import NotBuiltError
from ledger.reconcile.findings import CHINESE, Finding, Kind, Verdict

if TYPE_CHECKING:
    from ledger.reconcile.source import Reconciliation


def run(args: argparse.Namespace) -> int:
    """Reconcile the catalog's source; the exit code is the verdict's."""
    from ledger.reconcile.source import reconcile

    for later in ("with", "batch", "since", "until"):
        if getattr(args, f"later_{later}") is not None:
            raise NotBuiltError(f"reconcile --{later}")
    if args.format in ("xlsx", "html"):
        raise NotBuiltError(f"reconcile --format {args.format}")
    style = "json" if args.json else (args.format or "table")
    with job(args) as opened:
        catalog = opened.workspace.catalog(args.catalog)
        result = reconcile(opened, catalog, show_values=args.show_values)
    if style == "json":
        print_json(result.as_json())
    elif style == "jsonl":
        for finding in result.findings:
            print(json.dumps(finding.as_json(), ensure_ascii=False))
        _tell_notes(result)
    elif style == "csv":
        _print_csv(result.findings)
        _tell_notes(result)
    else:
        tell(result)
    return result.verdict.exit_code


def verdict_words(verdict: Verdict) -> str:
    """The verdict for a person."""
    return {
        Verdict.MATCHED: say("一致", "matched"),
        Verdict.DIFFERENCES: say("有差异（清单完整）", "differences (the list is complete)"),
        Verdict.DIFFERENCES_PARTIAL: say("有差异（清单不完整）", "differences (the list is not complete)"),
        Verdict.UNDETERMINED: say("无法判定", "undetermined"),
    }[verdict]


def tell(result: Reconciliation) -> None:
    """Verdict first, then what was compared, counts with both sums, findings, what weakens the answer."""
    counts = result.counts
    print(
        say(
            f"对账 {result.catalog}：{verdict_words(result.verdict)}",
            f"reconcile {result.catalog}: {verdict_words(result.verdict)}",
        )
    )
    against = result.against
    print(
        say(
            f"依据：链 {against['chain_id']}，合约 {against['contract']}，区块 {against['block']}；数据源 {against['source']}",
            f"against: chain {against['chain_id']}, contract {against['contract']}, block {against['block']}; source {against['source']}",
        )
    )
    print(
        say(
            f"数据源 {counts.source} 行 = 一致 {counts.matched} + 已认可 {counts.accepted} + 已更新 {counts.updated} + 被改动 {counts.altered}"
            f" + 旧版本 {counts.stale} + 应撤未撤 {counts.not_withdrawn} + 未上链 {counts.unanchored} + 新增 {counts.newly_seen}"
            f" + 无法读取 {counts.unreadable} + 重复行 {counts.duplicate_rows}",
            f"source rows {counts.source} = matched {counts.matched} + accepted {counts.accepted} + updated {counts.updated} + altered {counts.altered}"
            f" + stale {counts.stale} + not_withdrawn {counts.not_withdrawn} + unanchored {counts.unanchored} + newly_seen {counts.newly_seen}"
            f" + unreadable {counts.unreadable} + duplicate_rows {counts.duplicate_rows}",
        )
    )
    print(
        say(
            f"台账 {counts.ledger} 键 = 一致 {counts.matched} + 已认可 {counts.accepted} + 已更新 {counts.updated} + 被改动 {counts.altered}"
            f" + 旧版本 {counts.stale} + 缺失 {counts.missing} + 重复 {counts.duplicate_anchored} + 无法读取 {counts.unreadable_anchored}",
            f"ledger keys {counts.ledger} = matched {counts.matched} + accepted {counts.accepted} + updated {counts.updated} + altered {counts.altered}"
            f" + stale {counts.stale} + missing {counts.missing} + duplicate {counts.duplicate_anchored} + unreadable {counts.unreadable_anchored}",
        )
    )
    if result.findings:
        print()
        print(findings_table(result.findings))
    _tell_notes(result)


def findings_table(findings: Sequence[Finding]) -> str:
    """Findings as a table a person can act on."""
    headers = (
        say("类型", "kind"),
        say("主键", "key"),
        say("批次", "batch"),
        say("应为", "expected"),
        say("实为", "observed"),
        say("怎么办", "what to do"),
    )
    return table(headers, [_row(finding) for finding in findings])


def _row(finding: Finding) -> tuple[str, ...]:
    where = (
        compact(finding.key)
        if finding.key is not None
        else say(f"第 {finding.row} 行", f"row {finding.row}")
        if finding.row
        else f"tag {finding.key_tag}"
    )
    kind = say(CHINESE[finding.kind], str(finding.kind))
    if finding.kind is Kind.DUPLICATE:
        kind += f" ×{finding.rows}"
    observed = _short(finding.observed)
    if finding.reason is not None:
        observed = f"{finding.reason['field']}={finding.reason['value']}"
    return (kind, where, finding.batch or "-", _short(finding.expected), observed, _advice(finding))


def _advice(finding: Finding) -> str:
    if finding.reason is not None:
        return say(finding.reason["zh"], finding.reason["en"])
    return {
        Kind.DUPLICATE: say("只保留一行", "keep one row"),
        Kind.UNREADABLE: say("改正该值", "correct the value"),
        Kind.NOT_WITHDRAWN: say("对方已撤回：删除该行", "it was withdrawn: delete the row"),
        Kind.STALE: say("更新到最新下发版本", "bring the row to the latest version"),
        Kind.ALTERED: say("恢复为下发值；本方数据可 accept", "put the delivered value back; own data: accept"),
        Kind.MISSING: say("补回该行；本方数据可 withdraw", "put the row back; own data: withdraw"),
        Kind.UNANCHORED: say("对方从未下发：查清来源后删除", "never sent: find out where it came from, delete it"),
    }[finding.kind]


def _short(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        return " ".join(f"{name}={shown}" for name, shown in value.items() if shown is not None)
    text = str(value)
    return f"{text[:12]}…" if len(text) > 12 else text


def _tell_notes(result: Reconciliation) -> None:
    for zh, en in result.notes:
        note(zh, en)


def _print_csv(findings: Sequence[Finding]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\r\n")
    writer.writerow(["kind", "key", "key_tag", "row", "rows", "expected", "observed", "batch", "reason"])
    for finding in findings:
        told = finding.as_json()
        cells = [
            told.get(name)
            for name in ("kind", "key", "key_tag", "row", "rows", "expected", "observed", "batch", "reason")
        ]
        writer.writerow([_cell(cell) for cell in cells])


def _cell(value: object) -> str:
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    # A spreadsheet would run a cell that begins like a formula.
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
