"""`erase`: removes the plaintext of named records for good, and says where it still stands."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ledger.cli.speech import compact, note, print_json, say
from ledger.cli.workspace import job

if TYPE_CHECKING:
    from ledger.erase.erase import Erased
    from ledger.erase.named import Named


def run(args: argparse.Namespace) -> int:
    """Erase; 0 if no plaintext is left here as far as can be told, 1 where it still stands, 2 where nobody could look."""
    from ledger.erase.erase import erase

    with job(args) as opened:
        catalog = opened.workspace.catalog(args.catalog)
        done = erase(opened, catalog, args.key, reason=args.reason, by=args.by)
    if args.json:
        print_json(_json(done))
    else:
        _tell(done)
    return done.exit_code


def _json(done: Erased) -> dict[str, object]:
    return {
        "catalog": done.catalog.name,
        "erased": [
            {
                "key": dict(named.shown),
                "again": named in done.again,
                "in_source": _rows(done, named),
                "streams": [
                    {
                        "sender": stream.stream.sender,
                        "receiver": stream.stream.receiver,
                        "key_tags": sorted(tag.hex() for tag, it in stream.tags.items() if it is named),
                        "versions": stream.versions(named),
                    }
                    for stream in done.streams
                    if stream.has(named)
                ],
            }
            for named in done.named
        ],
        "archives": done.archives,
        "files": list(done.traces.holding),
        "unread": list(done.traces.unread),
        "delivered": [
            {"batch": it.batch, "file": it.file_name, "received_at": it.received_at} for it in done.delivered
        ],
        "due": [due.as_json() for due in done.due],
        "notes": [say(zh, en) for zh, en in _notes(done)],
    }


def _rows(done: Erased, named: Named) -> int | None:
    return (done.traces.rows or {}).get(named.record_key)


def _notes(done: Erased) -> list[tuple[str, str]]:
    notes = [*done.notes]
    if done.traces.why is not None:
        notes.append(
            (
                f"数据源未能查看，不知其中是否还有这些行：{done.traces.why[0]}",
                f"the source could not be looked at, it may hold these rows: {done.traces.why[1]}",
            )
        )
    return notes


def _tell(done: Erased) -> None:
    for named in done.named:
        told = [
            f"{stream.stream.sender}→{stream.stream.receiver or '-'} ×{stream.versions(named)}"
            for stream in done.streams
            if stream.has(named)
        ]
        what = (
            say("此前已删除，再次清理", "erased before, cleared again")
            if named in done.again
            else say("已删除原文", "erased")
        )
        print(f"{what}：{compact(named.shown)}  {', '.join(told)}")
    print(
        say(
            f"改写归档 {done.archives} 个；链上承诺与条目不变，此后对账显示“已删除原文”而非“缺失”",
            f"{done.archives} archives written anew; commitments and entries stay; reconciliations say erased, never missing",
        )
    )
    for named in done.named:
        rows = _rows(done, named)
        if rows:
            print(
                say(
                    f"数据源中仍有该记录 {compact(named.shown)}（{rows} 行）：请由其所属系统删除",
                    f"the source still has {compact(named.shown)} ({rows} row(s)): have it deleted there",
                )
            )
    for due in done.due:
        print(
            say(
                f"{due.party} 仍合法持有：请向其发送撤回（{due.reason}），标签 {due.key_tag}",
                f"{due.party} still holds it lawfully: send a withdrawal ({due.reason}), tag {due.key_tag}",
            )
        )
    for name in done.traces.holding:
        print(say(f"仍含该记录的文件，请自行清理：{name}", f"a file that still holds it, yours to clear: {name}"))
    for name in done.traces.unread:
        print(say(f"无法查看、可能含有该记录的文件：{name}", f"a file nobody could look into: {name}"))
    for it in done.delivered:
        print(
            say(
                f"曾接收的下发文件，其所在位置本程序不知：{it.file_name}（批次 {it.batch}，{it.received_at}）",
                f"a delivered file, kept we know not where: {it.file_name} (batch {it.batch}, {it.received_at})",
            )
        )
    for zh, en in _notes(done):
        note(zh, en)
