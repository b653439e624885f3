"""`reconcile`: the report, as a table, JSON, JSON lines, CSV or a workbook."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ledger.cli.speech import compact, note, print_json, say, table
from ledger.cli.verdicts import verdict_words
from ledger.cli.workspace import job
from ledger.errors import InputError, NotBuiltError
from ledger.reconcile.findings import CHINESE, LEDGER_TERMS, SOURCE_TERMS, STATES, Finding, Kind

if TYPE_CHECKING:
    from ledger.reconcile.findings import Counts
    from ledger.reconcile.source import Reconciliation


_SHOWN_KEYS = 20


def run(args: argparse.Namespace) -> int:
    """Reconcile the catalog's source; the exit code is the verdict's."""
    from ledger.batch.book import now
    from ledger.reconcile.runs import record
    from ledger.reconcile.scope import parse_scope
    from ledger.reconcile.source import reconcile

    if args.counterpart is not None:
        from ledger.cli.comparing import run as compare

        return compare(args)
    scope = parse_scope(args.batch, args.since, args.until)
    if args.format == "html":
        raise NotBuiltError("reconcile --format html")
    style = "json" if args.json else (args.format or "table")
    # Before the work, not after it.
    target = _workbook(args.out) if style == "xlsx" else None
    if args.out is not None and target is None:
        raise InputError("usage", "--out 只与 --format xlsx 同用", "--out goes with --format xlsx", "--out")
    with job(args) as opened:
        catalog = opened.workspace.catalog(args.catalog)
        started_at = now()
        result = reconcile(opened, catalog, show_values=args.show_values, scope=scope)
        keep = opened.workspace.config.api.keep_reconciliations
        result = record(opened.store, result, requested_by="reconcile", started_at=started_at, keep=keep)
    if style == "json":
        print_json(result.as_json())
    elif style == "jsonl":
        for finding in result.findings:
            print(json.dumps(finding.as_json(), ensure_ascii=False))
        _tell_notes(result)
    elif style == "csv":
        _print_csv(result.findings)
        _tell_notes(result)
    elif target is not None:
        _write_workbook(result.findings, target)
        _tell_notes(result)
    else:
        tell(result)
    return result.verdict.exit_code


def tell(result: Reconciliation, *, brief: bool = False) -> None:
    """Verdict first, then what was compared, counts with both sums, findings, what weakens the answer.

    In a `brief` findings that somebody has or has explained are counted and not read again.
    """
    counts = result.counts
    part = "" if result.scope.whole else say(f"（仅{_scope_words(result)}）", f" (only {_scope_words(result)})")
    print(
        say(
            f"对账 {result.catalog}{part}：{verdict_words(result.verdict)}",
            f"reconcile {result.catalog}{part}: {verdict_words(result.verdict)}",
        )
    )
    against = result.against
    print(
        say(
            f"依据：链 {against['chain_id']}，合约 {against['contract']}，区块 {against['block']}；数据源 {against['source']}",
            f"against: chain {against['chain_id']}, contract {against['contract']}, block {against['block']}; source {against['source']}",
        )
    )
    _tell_sum(say("数据源行", "source rows"), counts.source, counts, SOURCE_TERMS)
    _tell_sum(say("台账主键", "ledger keys"), counts.ledger, counts, LEDGER_TERMS)
    if counts.erased:
        print(
            say(
                f"本方已删除原文 {counts.erased}（不在两个合计之内，不算缺失）",
                f"erased here {counts.erased} (outside both sums, not missing)",
            )
        )
    if result.updated_keys:
        shown = [compact(key) for key in result.updated_keys[:_SHOWN_KEYS]]
        more = f" … {len(result.updated_keys)}" if len(result.updated_keys) > _SHOWN_KEYS else ""
        print(say(f"已更新：{'、'.join(shown)}{more}", f"updated: {', '.join(shown)}{more}"))
    if result.findings:
        _tell_states(result.findings)
    shown_findings = [
        finding for finding in result.findings if not brief or finding.state not in ("assigned", "explained")
    ]
    if shown_findings:
        print()
        print(findings_table(shown_findings, own=against["origin"] == "own"))
    _tell_notes(result)


def _tell_states(findings: Sequence[Finding]) -> None:
    """How the findings stand, each state in its own column: an explained one still counts."""
    counted = [(state, sum(finding.state == state for finding in findings)) for state in STATES]
    told = " + ".join(f"{_state(state)} {count}" for state, count in counted)
    print(f"{say('差异', 'findings')} {len(findings)} = {told}")


def _state(state: str | None) -> str:
    words = {"new": "新", "open": "未处理", "assigned": "已分派", "explained": "已说明"}
    return "" if state is None else say(words[state], state)


def _scope_words(result: Reconciliation) -> str:
    asked = result.scope.as_json()
    if "batch" in asked:
        return say(f"批次 {asked['batch']}", f"batch {asked['batch']}")
    since, until = asked.get("since", ""), asked.get("until", "")
    return say(f"{since or '…'} 至 {until or '…'} 的批次", f"batches of {since or '…'} to {until or '…'}")


def _tell_sum(name: str, total: int, counts: Counts, terms: Sequence[tuple[str, str]]) -> None:
    """One of the two sums that must balance; terms that are zero are left out, except the first."""
    shown = [(zh, en, getattr(counts, en)) for en, zh in terms]
    told = " + ".join(f"{say(zh, en)} {value}" for at, (zh, en, value) in enumerate(shown) if value or not at)
    print(f"{name} {total} = {told}")


def findings_table(findings: Sequence[Finding], *, own: bool = False) -> str:
    """Findings as a table a person can act on; `own` for a source of this party's own rows."""
    headers = (
        say("类型", "kind"),
        say("主键", "key"),
        say("批次", "batch"),
        say("应为", "expected"),
        say("实为", "observed"),
        say("怎么办", "what to do"),
    )
    rows = [_row(finding, own=own) for finding in findings]
    if all(finding.state is None for finding in findings):
        return table(headers, rows)
    stated = [(_state(finding.state), *row) for finding, row in zip(findings, rows, strict=True)]
    return table((say("状态", "state"), *headers), stated)


def _row(finding: Finding, *, own: bool) -> tuple[str, ...]:
    if finding.key is not None:
        where = compact(finding.key)
    elif finding.row is not None:
        where = say(f"第 {finding.row} 行", f"row {finding.row}")
    else:
        where = say(f"标签 {finding.key_tag}", f"tag {finding.key_tag}")
    kind = say(CHINESE[finding.kind], str(finding.kind))
    if finding.kind is Kind.DUPLICATE:
        kind += f" ×{finding.rows}"
    expected, observed = _short(finding.expected, finding.observed), _short(finding.observed, finding.expected)
    if finding.reason is not None:
        observed = f"{finding.reason['field']}={finding.reason['value']}" if finding.reason["field"] else observed
    return (kind, where, finding.batch or "-", expected, observed, _advice(finding, own=own))


def _advice(finding: Finding, *, own: bool) -> str:
    if finding.reason is not None:
        return say(finding.reason["zh"], finding.reason["en"])
    put_back = (
        say("恢复原值，或 accept", "put the value back, or accept")
        if own
        else say("恢复为下发值", "put the delivered value back")
    )
    return {
        Kind.DUPLICATE: say("只保留一行", "keep one row"),
        Kind.UNREADABLE: say("改正该值", "correct the value"),
        Kind.NOT_WITHDRAWN: say("已撤回：删除该行", "it was withdrawn: delete the row"),
        Kind.STALE: put_back if own else say("更新到最新下发版本", "apply the latest version"),
        Kind.ALTERED: put_back,
        Kind.MISSING: say("补回该行，或 withdraw", "put the row back, or withdraw")
        if own
        # Known by its tag alone, it never was here: only the sender can name it.
        else say("补回该行", "put the row back")
        if finding.key is not None
        else say(
            "请发送方重发（reconcile --with，dispute open）",
            "ask the sender to send it again (reconcile --with, dispute open)",
        ),
        Kind.UNANCHORED: say("从未下发：查清来源", "never sent: find out where it came from"),
    }[finding.kind]


def _short(value: object, other: object) -> str:
    """A commitment's beginning; of field values those that differ from the other side's, all where there is no other."""
    if value is None:
        return "-"
    if isinstance(value, dict):
        beside = other if isinstance(other, dict) else {}
        return " ".join(
            f"{name}={'∅' if shown is None else shown}"
            for name, shown in value.items()
            if not beside or beside.get(name) != shown
        )
    text = str(value)
    return f"{text[:12]}…" if len(text) > 12 else text


def _tell_notes(result: Reconciliation) -> None:
    for zh, en in result.notes:
        note(zh, en)


def _print_csv(findings: Sequence[Finding]) -> None:
    from ledger.reconcile.sheet import csv_lines

    for line in csv_lines(finding.as_json() for finding in findings):
        sys.stdout.write(line)


def _workbook(out: str | None) -> Path | BinaryIO:
    """Where the workbook goes: the file named, else standard output, if that takes bytes and nobody looks at them."""
    if out is not None:
        return Path(out)
    stream: BinaryIO | None = getattr(sys.stdout, "buffer", None)
    if stream is None or sys.stdout.isatty():
        raise InputError(
            "reconcile.xlsx_terminal",
            "xlsx 不能输出到终端：请用 --out FILE，或重定向到文件",
            "xlsx does not go to a terminal: use --out FILE, or redirect it to a file",
            "--format xlsx",
        )
    return stream


def _write_workbook(findings: Sequence[Finding], target: Path | BinaryIO) -> None:
    from ledger.reconcile.sheet import write_xlsx
    from ledger.store.files import os_errors

    with os_errors(target if isinstance(target, Path) else Path("-")):
        write_xlsx((finding.as_json() for finding in findings), target)
