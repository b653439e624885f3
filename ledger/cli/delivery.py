"""`send` and `receive`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ledger.cli.records import tell_left_out
from ledger.cli.speech import note, print_json, say
from ledger.cli.workspace import job

if TYPE_CHECKING:
    from ledger.batch.intake import FileOptions
    from ledger.chain.registry import AnchorRecord
    from ledger.delivery.receive import Received


def run(args: argparse.Namespace) -> int:
    """Run `send` or `receive`."""
    return _send(args) if args.command == "send" else _receive(args)


def _file(args: argparse.Namespace) -> FileOptions | None:
    from ledger.batch.intake import FileOptions

    if args.file is None:
        return None
    quarantine = None if args.quarantine is None else Path(args.quarantine)
    return FileOptions(Path(args.file), args.encoding, args.operation_column, quarantine, args.sheet, args.header_row)


def anchor_json(record: AnchorRecord | None) -> dict[str, object] | None:
    """An anchor in the words of the JSON output."""
    if record is None:
        return None
    return {
        "party": record.party,
        "sequence": record.sequence,
        "revision": record.revision,
        "size": record.size,
        "root": record.root,
        "block": record.block,
        "time": record.time,
    }


def _send(args: argparse.Namespace) -> int:
    from ledger.delivery.send import send

    with job(args) as opened:
        catalog = opened.workspace.catalog(args.catalog)
        sent = send(
            opened,
            catalog,
            _file(args),
            number=args.batch,
            to=args.party,
            period=args.period,
            correction=args.correction,
            cells=args.cells,
        )
    anchor = sent.anchored
    if args.json:
        print_json(
            {
                "catalog": catalog.name,
                "batch": sent.number,
                "batch_id": sent.batch_id,
                "size": anchor.size,
                "root": anchor.root,
                "anchor": anchor_json(anchor),
                "set_aside": sent.set_aside,
                "ignored_columns": list(sent.ignored),
                "notes": [say(zh, en) for zh, en in sent.notes],
            }
        )
    else:
        print(
            say(
                f"已上链：{catalog.id} 批次 {sent.number} → {args.party}，{anchor.size} 条，第 {anchor.revision} 版，区块 {anchor.block}",
                f"anchored: {catalog.id} batch {sent.number} → {args.party}, {anchor.size} entries, revision {anchor.revision}, "
                f"block {anchor.block}",
            )
        )
        print(say(f"批次标识 {sent.batch_id}", f"batch id {sent.batch_id}"))
        print(say(f"根 {anchor.root}", f"root {anchor.root}"))
        if anchor.revision > 1:
            note(
                f"这是第 {anchor.revision} 版，此前各版仍可见",
                f"this is revision {anchor.revision}; earlier ones stay visible",
            )
        for zh, en in sent.notes:
            note(zh, en)
        tell_left_out(sent.set_aside, sent.ignored)
    return 1 if sent.set_aside else 0


def _receive(args: argparse.Namespace) -> int:
    from ledger.delivery.receive import receive

    with job(args) as opened:
        catalog = opened.workspace.catalog(args.catalog)
        received = receive(
            opened, catalog, _file(args), number=args.batch, sender=args.party, load=args.load, final=args.final
        )
    if args.json:
        print_json({"catalog": catalog.name, **received_json(received)})
    else:
        tell_received(received)
    return received.exit_code


def received_json(received: Received) -> dict[str, object]:
    """The outcome of a receive in the words of the JSON output."""
    return {
        "batch": received.batch.descriptor.batch,
        "batch_id": received.batch.batch_id,
        "from": received.batch.stream.sender,
        "verdict": str(received.verdict),
        "announced": anchor_json(received.batch.announced),
        "anchor": anchor_json(received.anchored),
        "provisional": received.anchored is not None and received.anchored.root != received.batch.sent[-1].root,
        "announced_late": received.batch.announced_late,
        "findings": [finding.as_json() for finding in received.findings],
        "settled": received.settled,
        "file_matches": received.delivered.lawful if received.delivered else None,
        "set_aside": received.delivered.set_aside if received.delivered else 0,
        "ignored_columns": list(received.delivered.ignored) if received.delivered else [],
        "notes": [say(zh, en) for zh, en in received.notes],
    }


def tell_received(received: Received) -> None:
    """The outcome of a receive for a person."""
    from ledger.cli.reconciling import findings_table
    from ledger.cli.verdicts import verdict_words

    announced = received.batch.sent[-1]
    print(
        say(
            f"批次 {received.batch.descriptor.batch}（来自 {received.batch.stream.sender}）：{verdict_words(received.verdict)}",
            f"batch {received.batch.descriptor.batch} (from {received.batch.stream.sender}): {verdict_words(received.verdict)}",
        )
    )
    print(
        say(
            f"对方上链 {announced.size} 条，根 {announced.root}",
            f"announced {announced.size} entries, root {announced.root}",
        )
    )
    if received.anchored is not None:
        held = received.anchored
        print(
            say(
                f"本方上链 {held.size} 条，根 {held.root}（第 {held.revision} 版，区块 {held.block}）",
                f"we hold   {held.size} entries, root {held.root} (revision {held.revision}, block {held.block})",
            )
        )
    if received.batch.announced_late:
        note(
            "announced_late：发送方晚于本方首次上链，不算事先宣告",
            "announced_late: the sender anchored only after we had: it was not announced before",
        )
    if received.findings:
        print(findings_table(received.findings))
    if received.settled:
        note(
            f"其中 {received.settled} 个主键已由后续批次承接",
            f"{received.settled} of the keys are carried by a later batch",
        )
    for zh, en in received.notes:
        note(zh, en)
    if received.delivered is not None:
        tell_left_out(received.delivered.set_aside, received.delivered.ignored)
