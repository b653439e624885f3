"""`snapshot`: the fold of a stream on chain; with --from, what we hold against the sender's."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ledger.cli.delivery import anchor_json
from ledger.cli.speech import note, print_json, say
from ledger.cli.workspace import job

if TYPE_CHECKING:
    from ledger.catalog import Catalog
    from ledger.snapshot import Answered, Taken


def run(args: argparse.Namespace) -> int:
    """Take a snapshot of our own or of a stream we send, or answer one that was sent to us."""
    from ledger.snapshot import announce, receive, snapshot_own

    with job(args) as opened:
        catalog = opened.workspace.catalog(args.catalog)
        if args.sender is not None:
            answered = receive(opened, catalog, sender=args.sender, number=args.batch)
        elif args.to is not None:
            taken = announce(opened, catalog, to=args.to, number=args.batch)
        else:
            taken = snapshot_own(opened, catalog, number=args.batch)
    if args.sender is not None:
        if args.json:
            print_json(_answered_json(catalog, answered))
        else:
            _tell_answered(catalog, answered)
        return answered.verdict.exit_code
    if args.json:
        print_json(_taken_json(catalog, taken))
    else:
        _tell_taken(catalog, taken, args.to)
    return 0


def _taken_json(catalog: Catalog, taken: Taken) -> dict[str, object]:
    return {
        "catalog": catalog.name,
        "batch": taken.number,
        "batch_id": taken.batch_id,
        "upto": taken.upto,
        "size": taken.record.size,
        "root": taken.record.root,
        "anchor": anchor_json(taken.record),
        "fresh": taken.fresh,
    }


def _tell_taken(catalog: Catalog, taken: Taken, to: str | None) -> None:
    record = taken.record
    goes = "" if to is None else f" → {to}"
    done = say("快照已上链", "snapshot anchored") if taken.fresh else say("快照已在链上", "snapshot already on chain")
    print(
        say(
            f"{done}：{catalog.id} {taken.number}{goes}，截至批次 {taken.upto}，{record.size} 条，第 {record.revision} 版，区块 {record.block}",
            f"{done}: {catalog.id} {taken.number}{goes}, up to batch {taken.upto}, {record.size} entries, revision {record.revision}, "
            f"block {record.block}",
        )
    )
    print(say(f"批次标识 {taken.batch_id}", f"batch id {taken.batch_id}"))
    print(say(f"根 {record.root}", f"root {record.root}"))
    if not taken.fresh:
        note(
            "今天已有内容相同的快照，未重复上链",
            "today's snapshot says just this: nothing was anchored again",
        )
    elif record.revision > 1:
        note(
            f"这是第 {record.revision} 版（其间有批次修订），此前各版仍可见",
            f"this is revision {record.revision} (a batch was revised meanwhile); earlier ones stay visible",
        )


def _answered_json(catalog: Catalog, answered: Answered) -> dict[str, object]:
    return {
        "catalog": catalog.name,
        "batch": answered.batch.descriptor.batch,
        "batch_id": answered.batch.batch_id,
        "from": answered.batch.stream.sender,
        "upto": answered.batch.upto,
        "verdict": str(answered.verdict),
        "announced": anchor_json(answered.batch.announced),
        "anchor": anchor_json(answered.record),
        "comparison": answered.comparison.as_json(),
        "notes": [say(zh, en) for zh, en in answered.notes],
    }


def _tell_answered(catalog: Catalog, answered: Answered) -> None:
    from ledger.cli.comparing import findings_table
    from ledger.cli.verdicts import verdict_words

    batch, held, sent = answered.batch, answered.record, answered.batch.sent[-1]
    print(
        say(
            f"快照 {batch.descriptor.batch}（来自 {batch.stream.sender}，截至批次 {batch.upto}）：{verdict_words(answered.verdict)}",
            f"snapshot {batch.descriptor.batch} (from {batch.stream.sender}, up to batch {batch.upto}): {verdict_words(answered.verdict)}",
        )
    )
    print(say(f"对方上链 {sent.size} 条，根 {sent.root}", f"announced {sent.size} entries, root {sent.root}"))
    print(
        say(
            f"本方上链 {held.size} 条，根 {held.root}（第 {held.revision} 版，区块 {held.block}）",
            f"we hold   {held.size} entries, root {held.root} (revision {held.revision}, block {held.block})",
        )
    )
    if answered.comparison.findings:
        print(findings_table(answered.comparison.findings))
    for zh, en in (*answered.notes, *answered.comparison.notes):
        note(zh, en)
