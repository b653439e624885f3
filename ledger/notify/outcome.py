"""What a notice says: the night's outcome in numbers, and the mail's text made from it. Never a key or a value of a record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ledger.delivery.receive import Received
from ledger.errors import LedgerError
from ledger.reconcile.findings import CHINESE, STATES, Counts, Kind
from ledger.reconcile.source import Reconciliation

FORMAT = "duizhang-notice/1"
OUTCOMES: Mapping[int, tuple[str, str, str]] = {
    0: ("matched", "全部一致", "all matched"),
    1: ("differences", "有差异", "differences"),
    2: ("undetermined", "有事项无法判定", "something could not be told"),
}
_NO_SOURCE = ("no_source", "没有可核对的数据源", "no source to compare")
_VERDICTS = {
    "matched": "一致",
    "matched_in_scope": "所查部分一致",
    "differences": "有差异",
    "differences_partial": "有差异（未必完整）",
    "undetermined": "无法判定",
}
_STATES = {"new": "新", "open": "未处理", "assigned": "已分派", "explained": "已说明"}
_MORE: Mapping[str, str] = {
    "source": "数据源行", "ledger": "存证", "matched": "一致", "accepted": "已认可", "updated": "已更新", "newly_seen": "新增",
}  # fmt: skip
MAX_LISTED = 200
"""Failures and batches listed; a mail of thousands of lines is not read, the brief has them all."""


def night_document(
    *,
    party: str,
    day: str,
    exit_code: int,
    received: Iterable[Received],
    reconciled: Sequence[Reconciliation],
    failures: Sequence[tuple[str, LedgerError]],
) -> dict[str, Any]:
    """The notice of one night (docs/operations.md, Notify); `failures` pairs what could not be done with the reason."""
    arrived = [
        {
            "catalog": it.batch.descriptor.catalog,
            "batch": it.batch.descriptor.batch,
            "sender": it.batch.stream.sender,
            "verdict": str(it.verdict),
            "differences": len(it.findings),
        }
        for it in received
    ]
    looked = bool(arrived or reconciled or failures)
    return {
        "format": FORMAT,
        "party": party,
        "day": day,
        "exit_code": exit_code,
        "outcome": (OUTCOMES[exit_code] if looked else _NO_SOURCE)[0],
        "catalogs": [_catalog(report) for report in reconciled],
        "received": arrived[:MAX_LISTED],
        "failures": [{"code": error.code, "what": _plain(what)} for what, error in failures[:MAX_LISTED]],
        "not_listed": max(0, len(arrived) - MAX_LISTED) + max(0, len(failures) - MAX_LISTED),
    }


def _catalog(report: Reconciliation) -> dict[str, Any]:
    states = Counter(finding.state for finding in report.findings)
    return {
        "catalog": report.catalog,
        "verdict": str(report.verdict),
        "counts": {name: getattr(report.counts, name) for name in Counts.__dataclass_fields__},
        "findings": {"total": len(report.findings), **{state: states[state] for state in STATES}},
    }


def subject_of(document: Mapping[str, Any]) -> str:
    """The mail's subject, one line."""
    return f"对账 {document['party']} {document['day']}：{_outcome(document)[1]}"


def text_of(document: Mapping[str, Any]) -> str:
    """The mail's text: Chinese, then the same in English."""
    return "\n".join([*_lines(document, chinese=True), "", "-- ", *_lines(document, chinese=False), ""])


def _lines(document: Mapping[str, Any], *, chinese: bool) -> list[str]:
    def say(zh: str, en: str) -> str:
        return zh if chinese else en

    party, day = document["party"], document["day"]
    _, zh, en = _outcome(document)
    lines = [say(f"对账简报 {day}  参与方 {party}：{zh}", f"brief {day}  party {party}: {en}"), ""]
    for it in document["failures"]:
        lines.append(say(f"未完成 {it['what']} [{it['code']}]", f"not done: {it['what']} [{it['code']}]"))
    for it in document["received"]:
        verdict = say(_VERDICTS.get(it["verdict"], it["verdict"]), it["verdict"])
        lines.append(
            say(
                f"接收 {it['catalog']} 批次 {it['batch']}（来自 {it['sender']}）：{verdict}，差异 {it['differences']}",
                f"received {it['catalog']} batch {it['batch']} from {it['sender']}: {verdict}, {it['differences']} differences",
            )
        )
    for it in document["catalogs"]:
        verdict = say(_VERDICTS.get(it["verdict"], it["verdict"]), it["verdict"])
        lines.append(f"{it['catalog']}{say('：', ': ')}{verdict}")
        counts = [(say(_count_name(name), name), number) for name, number in it["counts"].items() if number]
        lines.append("  " + say("，", ", ").join(f"{name} {number}" for name, number in counts))
        found = it["findings"]
        if found["total"]:
            parts = say("，", ", ").join(f"{say(_STATES[s], s)} {found[s]}" for s in STATES if found[s])
            lines.append(
                say(f"  差异 {found['total']} 条", f"  findings {found['total']}") + (f" ({parts})" if parts else "")
            )
    if document["not_listed"]:
        lines.append(say(f"另有 {document['not_listed']} 项未列出", f"{document['not_listed']} more not listed"))
    where = f"briefs/{day}.txt"
    lines += [
        "",
        say(
            f"明细见工作区 {where}；差异：duizhang finding list", f"see {where} in the workspace; duizhang finding list"
        ),
    ]
    return lines


def _outcome(document: Mapping[str, Any]) -> tuple[str, str, str]:
    word = document["outcome"]
    return next(it for it in (*OUTCOMES.values(), _NO_SOURCE) if it[0] == word)


def _count_name(name: str) -> str:
    if name in _MORE:
        return _MORE[name]
    if name in set(Kind):
        return CHINESE[Kind(name)]
    return {
        "duplicate_rows": "重复行",
        "duplicate_anchored": "存证中重复",
        "unreadable_anchored": "存证中无法读取",
        "accepted_removals": "认可的移除",
        "erased": "已删除原文",
    }.get(name, name)


def _plain(what: str) -> str:
    """A name (of a file, for one) on one line and as text: it may come from whoever put the file there."""
    line = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in what)
    return line.encode("utf-8", "replace").decode()[:300]
