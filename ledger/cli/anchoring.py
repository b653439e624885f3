"""`anchor`, `accept`, `withdraw`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ledger.cli.delivery import anchor_json
from ledger.cli.speech import note, print_json, say
from ledger.cli.workspace import job

if TYPE_CHECKING:
    from ledger.catalog import Catalog
    from ledger.reconcile.approval import Proposed
    from ledger.reconcile.findings import Verdict
    from ledger.sealing import Anchored


def run(args: argparse.Namespace) -> int:
    """Run `anchor`, `accept` or `withdraw`."""
    return _anchor(args) if args.command == "anchor" else _consent(args)


def _anchor(args: argparse.Namespace) -> int:
    from ledger.reconcile.findings import Verdict
    from ledger.sealing import seal

    done: list[tuple[Catalog, tuple[Anchored, ...], Verdict]] = []
    with job(args) as opened:
        workspace = opened.workspace
        wanted = [workspace.catalog(name) for name in args.catalog] or [
            workspace.catalog(name) for name, source in workspace.config.sources.items() if source.origin == "own"
        ]
        for catalog in wanted:
            if workspace.source(catalog).origin != "own":
                # Opening the job has anchored whatever was ready; nothing is ever sealed from a delivery source.
                note(
                    f"{catalog.id} 的行由他方下发，不封存；待上链内容已处理",
                    f"rows of {catalog.id} come from a sender and are never sealed; what was ready is anchored",
                )
                continue
            report, anchored = seal(opened, catalog)
            done.append((catalog, anchored, report.verdict))
    if args.json:
        print_json({"anchored": [_done_json(catalog, anchored, verdict) for catalog, anchored, verdict in done]})
    else:
        for catalog, anchored, verdict in done:
            if not anchored:
                print(say(f"{catalog.id}：没有新行", f"{catalog.id}: no new rows"))
            for one in anchored:
                _tell(catalog, one)
            if verdict is not Verdict.MATCHED:
                note(f"{catalog.id} 有差异未处理，请运行 reconcile", f"{catalog.id} has findings: run reconcile")
        if not done:
            print(say("待上链内容已全部处理", "whatever was ready is anchored"))
    return max((verdict.exit_code for _, _, verdict in done), default=0)


def _consent(args: argparse.Namespace) -> int:
    from ledger.reconcile.approval import Proposed
    from ledger.sealing import accept, withdraw

    act = accept if args.command == "accept" else withdraw
    with job(args) as opened:
        catalog = opened.workspace.catalog(args.catalog)
        outcome = act(opened, catalog, args.key, reason=args.reason, by=args.by)
    if isinstance(outcome, Proposed):
        if args.json:
            print_json({"catalog": catalog.name, "proposed": outcome.as_json()})
        else:
            _tell_proposed(catalog, outcome)
        return 1
    if args.json:
        print_json({"catalog": catalog.name, **_json(outcome)})
    else:
        _tell(catalog, outcome)
    return 0


def _done_json(catalog: Catalog, anchored: tuple[Anchored, ...], verdict: Verdict) -> dict[str, object]:
    """The sealed batch in the members of its own, the correction beside it; null where there was nothing to anchor."""
    by_kind = {one.kind: one for one in anchored}
    correction = by_kind.get("correction")
    return {
        "catalog": catalog.name,
        "verdict": str(verdict),
        **_json(by_kind.get("sealed")),
        "correction": None if correction is None else _json(correction),
    }


def _json(anchored: Anchored | None) -> dict[str, object]:
    if anchored is None:
        return {"batch": None, "batch_id": None, "anchor": None}
    return {"batch": anchored.number, "batch_id": anchored.batch_id, "anchor": anchor_json(anchored.record)}


def _tell(catalog: Catalog, anchored: Anchored) -> None:
    record = anchored.record
    print(
        say(
            f"已上链：{catalog.id} 批次 {anchored.number}，{record.size} 条，区块 {record.block}",
            f"anchored: {catalog.id} batch {anchored.number}, {record.size} entries, block {record.block}",
        )
    )
    print(say(f"根 {record.root}", f"root {record.root}"))


def _tell_proposed(catalog: Catalog, proposed: Proposed) -> None:
    request = proposed.request
    labels = [asked.label for asked in request.asked]
    what = say("认可改动" if request.action == "accept" else "撤回", request.action)
    print(
        say(
            f"已由 {request.by} 提出：{catalog.id} {what} {'、'.join(labels)}；尚未生效",
            f"proposed by {request.by}: {what} {', '.join(labels)} of {catalog.id}; nothing is lawful yet",
        )
    )
    if proposed.replaced:
        replaced = [asked.label for asked in proposed.replaced]
        note(
            f"{'、'.join(replaced)} 此前的提议所指内容已不同，已由本次取代",
            f"the earlier proposal of {', '.join(replaced)} was about something else; this one takes its place",
        )
    note(
        "本工作区要求两人：请另一人以自己的 --by 执行同一命令",
        "this workspace asks for two people: another person must run the same command under his own --by",
    )
