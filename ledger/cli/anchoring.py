"""`anchor`, `accept`, `withdraw`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ledger.cli.delivery import anchor_json
from ledger.cli.speech import note, print_json, say
from ledger.cli.workspace import job

if TYPE_CHECKING:
    from ledger.catalog import Catalog
    from ledger.sealing import Anchored


def run(args: argparse.Namespace) -> int:
    """Run `anchor`, `accept` or `withdraw`."""
    return _anchor(args) if args.command == "anchor" else _consent(args)


def _anchor(args: argparse.Namespace) -> int:
    from ledger.reconcile.findings import Verdict
    from ledger.sealing import seal

    sealed: list[tuple[Catalog, Anchored | None, Verdict]] = []
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
            sealed.append((catalog, anchored, report.verdict))
    if args.json:
        print_json({"anchored": [{"catalog": c.name, "verdict": str(v), **_json(a)} for c, a, v in sealed]})
    else:
        for catalog, anchored, verdict in sealed:
            if anchored is None:
                print(say(f"{catalog.id}：没有新行", f"{catalog.id}: no new rows"))
            else:
                _tell(catalog, anchored)
            if verdict is not Verdict.MATCHED:
                note(f"{catalog.id} 有差异未处理，请运行 reconcile", f"{catalog.id} has findings: run reconcile")
        if not sealed:
            print(say("待上链内容已全部处理", "whatever was ready is anchored"))
    return max((verdict.exit_code for _, _, verdict in sealed), default=0)


def _consent(args: argparse.Namespace) -> int:
    from ledger.sealing import accept, withdraw

    act = accept if args.command == "accept" else withdraw
    with job(args) as opened:
        catalog = opened.workspace.catalog(args.catalog)
        anchored = act(opened, catalog, args.key, reason=args.reason, by=args.by)
    if args.json:
        print_json({"catalog": catalog.name, **_json(anchored)})
    else:
        _tell(catalog, anchored)
    return 0


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
