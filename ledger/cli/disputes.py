"""`dispute open`, `answer`, `close`, `list`, `show`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ledger.chain.view import time_utc
from ledger.cli.speech import note, print_json, say, table, visible
from ledger.cli.workspace import job, reading

if TYPE_CHECKING:
    from ledger.dispute.act import Answered
    from ledger.dispute.cases import Case

_SHOWN = 20


def run(args: argparse.Namespace) -> int:
    """Run one action; `list` ends with 1 if an answer is overdue."""
    return {"open": _open, "answer": _answer, "close": _close, "list": _list, "show": _show}[args.action](args)


def _open(args: argparse.Namespace) -> int:
    from ledger.dispute.act import open_dispute

    with job(args) as opened:
        catalog = opened.workspace.catalog(args.catalog)
        case = open_dispute(opened, catalog, args.counterpart, number=args.batch, keys=args.key)
    if args.json:
        print_json(case.as_json())
    else:
        it = case.dispute
        print(
            say(
                f"争议 {it.id} 已上链：批次 {args.batch}，{len(it.findings)} 处差异，请 {it.respondent} 答复",
                f"dispute {it.id} is on chain: batch {args.batch}, {len(it.findings)} finding(s), for {it.respondent} to answer",
            )
        )
        _tell_due(case)
        print(
            say(
                f"证据（对账单）：evidence/{it.evidence}.json", f"evidence (the statement): evidence/{it.evidence}.json"
            )
        )
    return 0


def _answer(args: argparse.Namespace) -> int:
    from ledger.dispute.act import answer

    choice = "resend" if args.resend is not None else "concede" if args.concede else "reject"
    out = None if args.out is None else Path(args.out)
    evidence = None if args.evidence is None else Path(args.evidence)
    with job(args) as opened:
        done = answer(opened, args.id, choice=choice, resend_as=args.resend, out=out, evidence=evidence)
    if args.json:
        print_json({**done.case.as_json(), "fresh": done.fresh, "resent": _resent_json(done)})
    else:
        _tell_answered(args, done)
    return 0


def _resent_json(done: Answered) -> dict[str, object] | None:
    it = done.resent
    if it is None:
        return None
    return {"batch": it.number, "batch_id": it.batch_id, "records": it.records, "left_out": list(it.left_out)}


def _tell_answered(args: argparse.Namespace, done: Answered) -> None:
    word = _words(done.case.dispute.answers[-1].choice)
    print(say(f"争议 {args.id} 的答复已上链：{word}", f"the answer to dispute {args.id} is on chain: {word}"))
    if done.resent is not None:
        it = done.resent
        print(
            say(
                f"更正批次 {it.number} 已上链：{it.records} 条"
                + (f"；交换通道用的文件：{args.out}" if args.out else ""),
                f"correction batch {it.number} is on chain: {it.records} record(s)"
                + (f"; for the channel: {args.out}" if args.out else ""),
            )
        )
        if it.left_out:
            note(
                f"{len(it.left_out)} 个主键本方没有有效版本，未重发",
                f"of {len(it.left_out)} key(s) we have no live version: not sent",
            )
        if not args.out:
            note(
                "未写文件（--out）：请另行把这些记录交给交换通道",
                "no file was written (--out): bring these records to the channel yourself",
            )


def _close(args: argparse.Namespace) -> int:
    from ledger.dispute.act import close

    outcome = "settled" if args.settled_by is not None else "accepted" if args.accepted else "withdrawn"
    with job(args) as opened:
        case = close(opened, args.id, outcome=outcome, settled_by=args.settled_by)
    if args.json:
        print_json(case.as_json())
        return 0
    print(say(f"争议 {args.id} 已了结：{_words(outcome)}", f"dispute {args.id} is closed: {outcome}"))
    closing = case.dispute.closing
    if closing is not None and closing.batch_id:
        it = case.dispute
        print(
            say(
                f"依据批次 {args.settled_by}：{it.opener} 第 {closing.sequences[0]} 次上链、{it.respondent} 第 {closing.sequences[1]} 次上链，条数和根相同",
                f"by batch {args.settled_by}: anchor {closing.sequences[0]} of {it.opener} and anchor {closing.sequences[1]} of "
                f"{it.respondent}, equal in size and root",
            )
        )
    return 0


def _list(args: argparse.Namespace) -> int:
    from ledger.dispute.cases import cases

    with reading(args) as opened:
        found = cases(opened, closed=args.all)
        party = opened.party
    late = [it for it in found if it.overdue and it.counts and party in (it.dispute.opener, it.dispute.respondent)]
    if args.json:
        print_json({"disputes": [it.as_json() for it in found], "overdue": [it.dispute.id for it in late]})
        return 1 if late else 0
    if not found:
        print(say("没有未了结的争议（--all 含已了结的）", "no open dispute (--all shows closed ones)"))
        return 0
    head = [
        say("编号", "id"),
        say("目录", "catalog"),
        say("批次", "batch"),
        say("提出方 → 答复方", "opener → respondent"),
        say("差异", "findings"),
        say("状态", "state"),
        say("期限", "due"),
    ]
    print(table(head, [_line(it) for it in found]))
    return 1 if late else 0


def _line(it: Case) -> list[object]:
    told = None if it.batch is None else it.batch.descriptor
    state = _words(it.state) if it.counts else say("不作数", "does not count")
    when = "" if it.due is None else it.due.isoformat()
    if it.overdue:
        when += say(" 已逾期", " overdue")
    return [
        it.dispute.id,
        "-" if told is None else told.catalog_id,
        it.dispute.batch_id[:16] if told is None else told.batch,
        f"{it.dispute.opener} → {it.dispute.respondent}",
        len(it.dispute.findings),
        state,
        when,
    ]


def _show(args: argparse.Namespace) -> int:
    from ledger.dispute.cases import case_of
    from ledger.dispute.desk import dispute_registry

    with reading(args) as opened:
        case = case_of(opened, dispute_registry(opened).view(), args.id)
        batches = {it.batch_id: it.descriptor.batch for it in opened.streams.by_batch.values()}
    if args.json:
        print_json(case.as_json())
        return 0
    it = case.dispute
    number = batches.get(it.batch_id, it.batch_id[:16])
    print(
        say(
            f"争议 {it.id}：{it.opener} 对 {it.respondent}，批次 {visible(number)}，{_words(case.state)}",
            f"dispute {it.id}: {it.opener} against {it.respondent}, batch {visible(number)}, {case.state}",
        )
    )
    if not case.counts:
        note(
            "提出方和答复方不是该批次的收发双方，不作数",
            "opener and respondent are not the two sides of that batch: it does not count",
        )
    print(
        say(
            f"{time_utc(it.time)} 区块 {it.block}：提出，{len(it.findings)} 处差异，证据 {it.evidence}",
            f"{time_utc(it.time)} block {it.block}: opened, {len(it.findings)} finding(s), evidence {it.evidence}",
        )
    )
    for kind, tag in it.findings[:_SHOWN]:
        print(f"  {_words(kind)} [{tag}]")
    if len(it.findings) > _SHOWN:
        print(f"  … {len(it.findings)}")
    for one in it.answers:
        with_batch = f" {batches.get(one.batch_id, one.batch_id[:16])}" if one.batch_id else ""
        print(
            say(
                f"{time_utc(one.time)} 区块 {one.block}：{it.respondent} 答复 {_words(one.choice)}{with_batch}",
                f"{time_utc(one.time)} block {one.block}: {it.respondent} answered {one.choice}{with_batch}",
            )
        )
    _tell_due(case)
    closing = it.closing
    if closing is not None:
        by = f" {batches.get(closing.batch_id, closing.batch_id[:16])}" if closing.batch_id else ""
        print(
            say(
                f"{time_utc(closing.time)} 区块 {closing.block}：{it.opener} 了结，{_words(closing.outcome)}{by}",
                f"{time_utc(closing.time)} block {closing.block}: closed by {it.opener}, {closing.outcome}{by}",
            )
        )
        if closing.batch_id:
            print(
                say(
                    f"引用 {it.opener} 第 {closing.sequences[0]} 次、{it.respondent} 第 {closing.sequences[1]} 次上链",
                    f"refers to anchor {closing.sequences[0]} of {it.opener} and anchor {closing.sequences[1]} of {it.respondent}",
                )
            )
    return 0


def _tell_due(case: Case) -> None:
    if case.due is not None:
        late = say("，已逾期", ", overdue") if case.overdue else ""
        print(say(f"答复期限 {case.due}{late}（工作日）", f"answer due {case.due}{late} (working days)"))
    if case.undated is not None:
        note(*case.undated)


def _words(word: str) -> str:
    words = {
        "open": "待答复",
        "answered": "已答复",
        "closed": "已了结",
        "concede": "承认",
        "reject": "不认可",
        "resend": "重发",
        "settled": "已由批次了结",
        "withdrawn": "撤回",
        "accepted": "接受答复",
        "only_sender": "仅发送方有",
        "only_receiver": "仅接收方有",
        "differs": "内容不同",
        "not_withdrawn": "应撤未撤",
    }
    return say(words.get(word, word), word)
