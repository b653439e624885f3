"""`nightly`: the job, and the brief that is read in the morning (briefs/<day>.json and .txt)."""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ledger.cli import speech
from ledger.cli.delivery import anchor_json, received_json, tell_received
from ledger.cli.reconciling import tell
from ledger.cli.speech import print_json, say
from ledger.cli.workspace import job

if TYPE_CHECKING:
    from ledger.batch.job import Job
    from ledger.nightly import Night


def run(args: argparse.Namespace) -> int:
    """Run the night's work, write the brief, print it; the exit code is the worst of all parts."""
    from ledger.nightly import run_nightly
    from ledger.store.files import os_errors, write_atomic

    with job(args) as opened:
        night = run_nightly(opened)
        document = brief_json(opened, night)
        text = brief_text(opened, night)
        folder = opened.workspace.root / "briefs"
        with os_errors(folder):
            folder.mkdir(mode=0o700, exist_ok=True)
        _keep_earlier(folder, night.day)
        write_atomic(folder / f"{night.day}.json", json.dumps(document, ensure_ascii=False, indent=1).encode() + b"\n")
        write_atomic(folder / f"{night.day}.txt", text.encode())
    if args.json:
        print_json(document)
    else:
        print(text, end="")
    return night.exit_code


def _keep_earlier(folder: Path, day: str) -> None:
    """An earlier brief of the same day stays, under the next number: what it found must not vanish with a later run."""
    if not (folder / f"{day}.json").exists():
        return
    number = next(n for n in itertools.count(1) if not (folder / f"{day}-{n}.json").exists())
    for ending in ("txt", "json"):
        if (folder / f"{day}.{ending}").exists():
            (folder / f"{day}.{ending}").rename(folder / f"{day}-{number}.{ending}")


def brief_json(opened: Job, night: Night) -> dict[str, object]:
    """The brief as a document; values of personal fields never stand in it."""
    return {
        "format": "duizhang-brief/1",
        "party": opened.party,
        "day": night.day,
        "started_at": night.started_at,
        "finished_at": night.finished_at,
        "exit_code": night.exit_code,
        "chain": {
            "chain_id": opened.link.identity.chain_id,
            "contract": opened.link.identity.contract,
            "block": opened.view.block,
        },
        "received": [{"catalog": r.batch.descriptor.catalog, **received_json(r)} for r in night.received],
        "reconciled": [report.as_json() for report in night.reconciled],
        "sealed": [
            {"catalog": catalog.name, "batch": sealed.number, "anchor": anchor_json(sealed.record)}
            for catalog, sealed in night.sealed
        ],
        "failures": [
            {
                "what": failure.what,
                **speech.error_json(failure.error.code, speech.message(failure.error), failure.error.where),
            }
            for failure in night.failures
        ],
    }


def brief_text(opened: Job, night: Night) -> str:
    """The brief for a person: what could not be done first, then what differs, then what was done."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        looked = night.failures or night.received or night.reconciled
        outcome = (
            say("全部一致", "all matched") if looked else say("没有可核对的数据源", "no source to compare"),
            say("有差异", "differences"),
            say("有事项无法判定", "something could not be told"),
        )
        print(
            say(
                f"对账简报 {night.day}  参与方 {opened.party}：{outcome[night.exit_code]}",
                f"brief {night.day}  party {opened.party}: {outcome[night.exit_code]}",
            )
        )
        print(
            say(
                f"链 {opened.link.identity.chain_id} 区块 {opened.view.block}",
                f"chain {opened.link.identity.chain_id} block {opened.view.block}",
            )
        )
        for failure in night.failures:
            print(
                say(
                    f"\n未完成 {failure.what}：{failure.error.zh} [{failure.error.code}]",
                    f"\nnot done: {failure.what}: {failure.error.en} [{failure.error.code}]",
                )
            )
        for received in night.received:
            print()
            tell_received(received)
        for report in night.reconciled:
            print()
            tell(report)
        for catalog, sealed in night.sealed:
            print(
                say(
                    f"\n封存 {catalog.id} 批次 {sealed.number}：{sealed.record.size} 条新行",
                    f"\nsealed {catalog.id} batch {sealed.number}: {sealed.record.size} new rows",
                )
            )
        if not looked:
            print(say("未配置任何数据源", "no source is configured"))
    return out.getvalue()
