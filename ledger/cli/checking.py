"""`fsck`: verdict first, then each check, then everything that was found."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ledger.cli.speech import print_json, say, table
from ledger.cli.workspace import here

if TYPE_CHECKING:
    from ledger.fsck.report import Check, Remark, Report


def run(args: argparse.Namespace) -> int:
    """Check the store; 0 clean, 1 damage found, 2 could not tell."""
    from ledger.fsck import fsck

    report = fsck(here(args))
    if args.json:
        print_json(as_json(report))
    else:
        tell(report)
    return report.exit_code


def as_json(report: Report) -> dict[str, object]:
    """The report as JSON; `undetermined` lists what could not be told, and why."""
    return {
        "verdict": report.verdict,
        "party": report.party,
        "checks": [
            {"number": check.number, "name": check.name, "result": check.result, "detail": _detail(check)}
            for check in report.checks
        ],
        "damage": _remarks(report.gather("damage")),
        "undetermined": _remarks(report.gather("unknown")),
        "pending": _remarks(report.gather("pending")),
        "notes": _remarks(report.gather("notes")),
    }


def tell(report: Report) -> None:
    """The report for a person."""
    words = {
        "clean": say("完好", "clean"),
        "damaged": say("有损坏", "damaged"),
        "undetermined": say("无法判定", "undetermined"),
    }
    print(say(f"台账自查：{words[report.verdict]}", f"fsck: {words[report.verdict]}"))
    results = {
        "pass": say("通过", "pass"),
        "fail": say("损坏", "FAIL"),
        "undetermined": say("未能核对", "undetermined"),
    }
    headers = (say("序", "no"), say("检查", "check"), say("结果", "result"), say("范围", "seen"))
    rows = [(check.number, say(check.zh, check.en), results[check.result], _detail(check)) for check in report.checks]
    print(table(headers, rows))
    _list(say("损坏", "damage"), report.gather("damage"))
    _list(say("未能核对", "could not tell"), report.gather("unknown"))
    _list(
        say("待办（不是损坏，下一次作业会办完）", "pending (no damage: the next job finishes it)"),
        report.gather("pending"),
    )
    _list(say("附注", "notes"), report.gather("notes"))


def _detail(check: Check) -> str:
    counts = ((check.damage, "处损坏", "damaged"), (check.unknown, "处未能核对", "undetermined"))
    parts = [say(check.seen_zh, check.seen_en)] if check.seen_zh else []
    parts += [say(f"{len(found)} {zh}", f"{len(found)} {en}") for found, zh, en in counts if found]
    return say("；", "; ").join(parts)


def _remarks(remarks: Sequence[Remark]) -> list[dict[str, str]]:
    return [{"code": it.code, "message": say(it.zh, it.en), "where": it.where} for it in remarks]


def _list(title: str, remarks: Sequence[Remark]) -> None:
    if not remarks:
        return
    print(f"\n{title}:")
    for remark in remarks:
        place = f"{remark.where}: " if remark.where else ""
        print(f"  [{remark.code}] {place}{say(remark.zh, remark.en)}")
