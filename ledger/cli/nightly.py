"""`nightly`: the job, and the brief that is read in the morning (briefs/<day>.json and .txt)."""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ledger.cli import speech
from ledger.cli.delivery import anchor_json, received_json, tell_received
from ledger.cli.reconciling import tell
from ledger.cli.speech import compact, print_json, say
from ledger.cli.workspace import job
from ledger.reconcile.findings import CHINESE, Kind

if TYPE_CHECKING:
    from ledger.batch.job import Job
    from ledger.nightly import Night
    from ledger.store.models import Restore


def run(args: argparse.Namespace) -> int:
    """Run the night's work, write the brief, print it; the exit code is the worst of all parts."""
    from ledger.nightly import run_nightly
    from ledger.restore.log import told
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
        told(opened.store, night.restores)
        # The brief is written: whatever happens to the notices, the morning has it.
        notices = _notify(opened, night)
    if args.json:
        print_json({**document, "notices": notices})
    else:
        print(text, end="")
    return max(night.exit_code, 2 if any(it["state"] == "waiting" for it in notices) else 0)


def _notify(opened: Job, night: Night) -> list[dict[str, object]]:
    """Store this night's notices, send all that wait, say in a line each channel that could not be told; the outcomes."""
    from ledger.errors import LedgerError
    from ledger.notify.outcome import night_document
    from ledger.notify.queue import Told, add_notices, send_waiting

    told: list[Told] = []
    try:
        outcome = night_document(
            party=opened.party,
            day=night.day,
            exit_code=night.exit_code,
            received=night.received,
            reconciled=night.reconciled,
            failures=[(failure.what, failure.error) for failure in night.failures],
        )
        add_notices(opened.store, opened.workspace.config.notify, outcome, datetime.now(UTC))
        told = send_waiting(opened.workspace, opened.store)
    except LedgerError as error:
        told.append(Told("", "", "waiting", error))
    except Exception as error:
        # A fault of ours here must not keep the brief from being printed.
        text = f"{type(error).__name__}: {error}"
        told.append(
            Told("", "", "waiting", LedgerError("internal", f"程序内部错误：{text}", f"internal error: {text}"))
        )
    waiting: dict[str, list[LedgerError]] = {}
    for it in told:
        if it.state == "waiting" and it.error is not None:
            waiting.setdefault(it.channel or "-", []).append(it.error)
    for channel, errors in sorted(waiting.items()):
        why = errors[-1]
        speech.note(
            f"通知未能送出（{channel}，{len(errors)} 条）：[{why.code}] {why.where} {why.zh}；下次夜间作业再试",
            f"not told ({channel}, {len(errors)} notices): [{why.code}] {why.where} {why.en}; tried again by the next nightly",
        )
    return [
        {"id": it.id, "channel": it.channel, "state": it.state}
        | (
            speech.error_json(it.error.code, speech.message(it.error), it.error.where)
            if it.error is not None
            else {"error": None}
        )
        for it in told
    ]


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
    from ledger.restore.log import restore_json

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
        "compared": [it.as_json() for it in night.compared],
        "overdue": [it.as_json() for it in night.overdue],
        "closed": [
            {"catalog": it.descriptor.catalog, "batch": it.descriptor.batch, "from": it.stream.sender}
            for it in night.closed
        ],
        "reconciled": [report.as_json() for report in night.reconciled],
        **{
            member: [
                {"catalog": catalog.name, "batch": one.number, "anchor": anchor_json(one.record)}
                for catalog, one in night.sealed
                if one.kind == kind
            ]
            for member, kind in (("sealed", "sealed"), ("corrected", "correction"))
        },
        "restores": [restore_json(restore) for restore in night.restores],
        "due": [due.as_json() for due in night.due],
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
    from ledger.between import open_in
    from ledger.cli.comparing import tell as tell_comparison
    from ledger.delivery.due import shown_due

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
        for late in night.overdue:
            print(say(f"\n逾期：{late.zh}", f"\noverdue: {late.en}"))
        for batch in night.closed:
            number, sender = batch.descriptor.batch, batch.stream.sender
            print(
                say(
                    f"\n到期关闭：{sender} 的批次 {number}，此后入库的不再补登，仍有差异",
                    f"\nclosed at its deadline: batch {number} of {sender}; what lands later is not anchored, and it still differs",
                )
            )
        for restore in night.restores:
            _tell_restore(restore)
        for received in night.received:
            print()
            tell_received(received)
        for compared in night.compared:
            if open_in(compared):
                print()
                tell_comparison(compared, brief=True)
        for report in night.reconciled:
            print()
            tell(report, brief=True)
        for catalog, one in night.sealed:
            print(
                say(
                    f"\n封存 {catalog.id} 批次 {one.number}：{one.record.size} 条新行",
                    f"\nsealed {catalog.id} batch {one.number}: {one.record.size} new rows",
                )
                if one.kind == "sealed"
                else say(
                    f"\n更正 {catalog.id} 批次 {one.number}：{one.record.size} 条已更新的行",
                    f"\ncorrected {catalog.id} batch {one.number}: {one.record.size} updated rows",
                )
            )
        if night.due:
            print(say("\n应发送的撤回：", "\nwithdrawals to be sent:"))
        for due in night.due:
            print(f"  {due.catalog_id} → {due.party}  {shown_due(due)}")
        if not looked:
            print(say("未配置任何数据源", "no source is configured"))
    return out.getvalue()


def _tell_restore(restore: Restore) -> None:
    items = json.loads(restore.document)["items"]
    done = sum(item["result"] == "restored" for item in items)
    outcome = {
        "applied": (
            f"恢复 {done} 行，未动 {len(items) - done} 行",
            f"{done} rows restored, {len(items) - done} left alone",
        ),
        "failed": ("失败，未写入任何内容", "it failed, nothing was written"),
        "intent": (
            "被中断，没有记录结果；实际内容以下面的对账为准",
            "cut off without an outcome; the reconciliation below says what there is",
        ),
    }[restore.state]
    print(
        say(
            f"\n恢复 {restore.catalog_id}（{restore.approved_by}，{restore.started_at}）：{outcome[0]}",
            f"\nrestore of {restore.catalog_id} ({restore.approved_by}, {restore.started_at}): {outcome[1]}",
        )
    )
    for item in items:
        print(f"  {say(CHINESE[Kind(item['kind'])], item['kind'])} {compact(item['key'])}  {' '.join(item['fields'])}")
