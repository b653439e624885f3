"""Verdicts in words, for every command that tells one."""

from __future__ import annotations

from ledger.cli.speech import say
from ledger.reconcile.findings import Verdict


def verdict_words(verdict: Verdict) -> str:
    """The verdict for a person."""
    return {
        Verdict.MATCHED: say("一致", "matched"),
        Verdict.MATCHED_IN_SCOPE: say("所查范围内一致", "matched in the scope asked for"),
        Verdict.DIFFERENCES: say("有差异（清单完整）", "differences (the list is complete)"),
        Verdict.DIFFERENCES_PARTIAL: say("有差异（清单不完整）", "differences (the list is not complete)"),
        Verdict.UNDETERMINED: say("无法判定", "undetermined"),
    }[verdict]
