"""`status` and `doctor`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ledger.cli.speech import error_json, message, note, print_json, say, table
from ledger.cli.workspace import here

if TYPE_CHECKING:
    from ledger.doctor.diagnosis import Diagnosis
    from ledger.status import Notice, Side, Status, StreamState


def run(args: argparse.Namespace) -> int:
    """Run `status` or `doctor`."""
    return _status(args) if args.command == "status" else _doctor(args)


# ---- status ----


def _status(args: argparse.Namespace) -> int:
    from ledger.status import read_status

    status = read_status(here(args))
    if args.json:
        print_json(status_json(status))
    else:
        _tell_status(status)
    return status.exit_code


def status_json(status: Status) -> dict[str, object]:
    """The status as JSON; `error` is there only if the chain could not be read."""
    from ledger.status import batch_json

    answer: dict[str, object] = {
        "party": status.party,
        "chain": dict(status.chain),
        "last_anchor": None if status.last_anchor is None else dict(status.last_anchor),
        "streams": [
            {
                "catalog": stream.catalog,
                "sender": stream.sender,
                "receiver": stream.receiver,
                "batches": [batch_json(batch) for batch in stream.batches],
            }
            for stream in status.streams
        ],
        "pending": _notices(status.pending),
        "attention": _notices(status.attention),
        "refused": _notices(status.refused),
    }
    if status.error is not None:
        answer |= error_json(status.error.code, message(status.error), status.error.where)
    return answer


def _notices(notices: Sequence[Notice]) -> list[dict[str, str]]:
    return [{"code": it.code, "message": say(it.zh, it.en), "where": it.where} for it in notices]


def _tell_status(status: Status) -> None:
    chain = status.chain
    if status.error is not None:
        note(
            f"链未能读取，以下只是台账所知：[{status.error.code}] {status.error.zh}",
            f"the chain could not be read; this is what the store knows: [{status.error.code}] {status.error.en}",
        )
    print(say(f"参与方 {status.party}，账户 {chain['account']}", f"party {status.party}, account {chain['account']}"))
    where = say(
        f"链 {chain['chain_id']}，合约 {chain['contract']}", f"chain {chain['chain_id']}, contract {chain['contract']}"
    )
    if chain["embedded"]:
        running = say("运行中", "running") if chain["running"] else say("未运行", "not running")
        where += say(
            f"；本地开发链{running}，已保存至区块 {chain['saved_block']}",
            f"; local development chain {running}, saved up to block {chain['saved_block']}",
        )
    print(where)
    last = status.last_anchor
    if last is None:
        print(say("本方尚无已确认的上链", "nothing of ours is confirmed yet"))
    else:
        print(
            say(
                f"最近一次确认：{last['catalog']} {last['batch']} 第 {last['revision']} 版，区块 {last['block']}，"
                f"链上时间 {last['chain_time']}，共 {last['confirmed']} 次",
                f"last confirmed: {last['catalog']} {last['batch']} revision {last['revision']}, block {last['block']}, "
                f"chain time {last['chain_time']}; {last['confirmed']} in all",
            )
        )
    for stream in status.streams:
        _tell_stream(stream)
    _list(say("待办", "pending"), status.pending)
    _list(say("须关注", "attention"), status.attention)
    _list(say("链上不计的批次", "batches on chain that do not count"), status.refused)
    if not status.pending and not status.attention:
        print()
        print(say("没有待办与逾期。", "nothing is pending or overdue."))


def _tell_stream(stream: StreamState) -> None:
    print()
    receiver = stream.receiver or say("（本方数据源）", "(own source)")
    print(f"{stream.catalog}  {stream.sender} → {receiver}")
    headers = [
        say("批次", "batch"),
        say("类型", "kind"),
        say("条数", "size"),
        say("根", "root"),
        say("本方", "ours"),
        say("对方", "theirs"),
        say("状态", "state"),
    ]
    states = {
        "pending": say("待上链", "pending"),
        "anchored": say("已上链", "anchored"),
        "awaiting": say("对方未登记", "awaiting the receiver"),
        "announced": say("待接收", "announced, not received"),
        "unannounced": say("对方未宣告", "not announced"),
        "roots_equal": say("根一致", "roots equal"),
        "roots_differ": say("根不一致", "roots differ"),
        "refused": say("链上不计", "does not count"),
        "unknown": say("未知", "unknown"),
    }
    rows = []
    for batch in stream.batches:
        state = states[batch.state]
        if batch.announced_late:
            state += say("，宣告晚于接收", ", announced late")
        if batch.revised_after_receipt:
            state += say("，接收后又修订", ", revised after receipt")
        if batch.superseded:
            state += say("，已有更新的快照", ", superseded")
        if batch.settled_by is not None:
            state += say(f"，已由快照 {batch.settled_by} 了结", f", settled by snapshot {batch.settled_by}")
        root = "-" if batch.root is None else f"{batch.root[:12]}…"
        size = "-" if batch.size is None else batch.size
        rows.append((batch.number, batch.kind, size, root, _side(batch.ours), _side(batch.theirs), state))
    print(table(headers, rows))


def _side(side: Side | None) -> str:
    if side is None:
        return "-"
    return say(f"第 {side.revision} 版", f"rev {side.revision}")


def _list(title: str, notices: Sequence[Notice]) -> None:
    if notices:
        print(f"\n{title}:")
    for notice in notices:
        print(f"  [{notice.code}] {notice.where}: {say(notice.zh, notice.en)}")


# ---- doctor ----


def _doctor(args: argparse.Namespace) -> int:
    from ledger.doctor import examine

    named = args.workspace or os.environ.get("DUIZHANG_HOME")
    found = examine(Path(named or "."), named=named is not None)
    problems = sum(it.result == "problem" for it in found)
    if args.json:
        print_json(
            {
                "verdict": "problems" if problems else "ok",
                "problems": problems,
                "checks": [
                    {
                        "name": it.name,
                        "result": it.result,
                        "code": it.code,
                        "message": say(it.zh, it.en),
                        "mend": say(it.mend_zh, it.mend_en),
                        "where": it.where,
                    }
                    for it in found
                ],
            }
        )
    else:
        _tell_doctor(found, problems)
    return 1 if problems else 0


def _tell_doctor(found: Sequence[Diagnosis], problems: int) -> None:
    marks = {
        "ok": say("正常", "ok"),
        "warning": say("注意", "warning"),
        "problem": say("问题", "PROBLEM"),
        "skipped": say("未检查", "not checked"),
    }
    for it in found:
        place = f"（{it.where}）" if it.where and it.where not in say(it.zh, it.en) else ""
        print(f"[{marks[it.result]}] {_named(it.name)}: {say(it.zh, it.en)}{place}")
        if it.mend_zh:
            print(say(f"        改正：{it.mend_zh}", f"        mend: {it.mend_en}"))
    skipped = sum(it.result == "skipped" for it in found)
    rest = say(f"；{skipped} 项未检查", f"; {skipped} not checked") if skipped else ""
    print()
    print(say(f"{problems} 个问题{rest}", f"{problems} problem(s){rest}"))


_NAMES = {
    "disk": "磁盘",
    "machine": "本机",
    "workspace": "工作区",
    "config": "配置",
    "folders": "文件夹",
    "keys": "密钥文件",
    "account": "账户",
    "catalogs": "目录",
    "store": "台账库",
    "sources": "数据源",
    "source": "数据源",
    "chain": "链",
    "chain dump": "本地链存档",
    "role": "链上身份",
    "clock": "时钟",
    "time zone": "时区",
    "exchange key": "交换密钥",
    "notify": "通知",
    "store, sources, chain": "台账库、数据源、链",
}


def _named(name: str) -> str:
    """What was looked at, for a person; the last word may be a catalog or a party."""
    if name in _NAMES:
        return say(_NAMES[name], name)
    kind, _, which = name.rpartition(" ")
    return say(f"{_NAMES.get(kind, kind)} {which}".strip(), name)
