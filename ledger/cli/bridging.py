"""`bridge`: a stream goes on under another catalog version or exchange key; with --from, the sender's bridge is taken over."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ledger.cli.delivery import anchor_json
from ledger.cli.speech import note, print_json, say
from ledger.cli.workspace import job
from ledger.errors import InputError

if TYPE_CHECKING:
    from ledger.catalog import Catalog
    from ledger.series.bridge import Bridged, Left
    from ledger.series.takeover import TakenOver

_WHY: Mapping[str, tuple[str, str]] = {
    "missing": ("表中已无此行", "no row of it is left"),
    "altered": ("行与上链版本不符", "its row does not verify"),
    "repeated": ("主键有多行", "several rows have its key"),
    "unreadable": (
        "行在新版目录下无法读取，或主键重复",
        "its row cannot be read under the new version, or shares its key",
    ),
    "erased": ("原文已删除", "it was erased"),
    "not_carried": ("发送方未随迁", "the sender did not carry it"),
    "": ("", ""),
}
_SHOWN = 100


def run(args: argparse.Namespace) -> int:
    """Make a bridge, or take one over; the exit code is 0, or that of what we hold against the sender's new half."""
    from ledger.series.bridge import bridge
    from ledger.series.takeover import take_over

    if args.entries is not None and args.sender is None:
        raise InputError(
            "bridge.entries",
            "--entries 只与 --from 同用：接续对方的衔接时",
            "--entries goes with --from: to take over the other party's bridge",
            "--entries",
        )
    with job(args) as opened:
        catalog = opened.workspace.catalog(args.catalog)
        if args.sender is None:
            made = bridge(opened, catalog, to=args.to)
        else:
            file = None if args.entries is None else Path(args.entries)
            taken = take_over(opened, catalog, sender=args.sender, entries=file)
    if args.sender is None:
        if args.json:
            print_json(_bridged_json(catalog, made))
        else:
            _tell_bridged(catalog, made)
        return 0
    if args.json:
        print_json(_taken_json(catalog, args.sender, taken))
    else:
        _tell_taken(catalog, args.sender, taken)
    return taken.verdict.exit_code


def _left_json(left: Sequence[Left]) -> list[dict[str, object]]:
    return [
        {"key_tag": it.key_tag, "key": None if it.key is None else dict(it.key), "why": it.why or None} for it in left
    ]


def _bridged_json(catalog: Catalog, made: Bridged) -> dict[str, object]:
    return {
        "catalog": catalog.name,
        "from": made.before,
        "to": made.after,
        "old": {"batch": made.old.number, "anchor": anchor_json(made.old.record)},
        "new": {"batch": made.new.number, "anchor": anchor_json(made.new.record)},
        "carried": made.new.record.size,
        "not_carried": _left_json(made.left),
        "fresh": made.fresh,
        "notes": [say(zh, en) for zh, en in made.notes],
    }


def _tell_bridged(catalog: Catalog, made: Bridged) -> None:
    done = say("已衔接", "bridged") if made.fresh else say("此前已衔接", "bridged before")
    print(
        say(
            f"{done}：{catalog.id}，{made.before} → {made.after}，随迁 {made.new.record.size} 条，未随迁 {len(made.left)} 条",
            f"{done}: {catalog.id}, {made.before} → {made.after}, {made.new.record.size} carried, {len(made.left)} not carried",
        )
    )
    for half, zh, en in ((made.old, "旧系列", "old series"), (made.new, "新系列", "new series")):
        record = half.record
        print(
            say(
                f"{zh}：批次 {half.number}，{record.size} 条，根 {record.root}，区块 {record.block}",
                f"{en}: batch {half.number}, {record.size} entries, root {record.root}, block {record.block}",
            )
        )
    _tell_left(made.left)
    for zh, en in made.notes:
        note(zh, en)


def _taken_json(catalog: Catalog, sender: str, taken: TakenOver) -> dict[str, object]:
    batch = taken.batch
    return {
        "catalog": catalog.name,
        "sender": sender,
        "from": taken.before,
        "to": taken.after,
        "batch": batch.descriptor.batch,
        "verdict": str(taken.verdict),
        "carried": taken.carried,
        "not_carried": _left_json(taken.left),
        "old": None if taken.old is None else taken.old.comparison.as_json(),
        "new": None if taken.new is None else taken.new.comparison.as_json(),
        "fresh": taken.fresh,
        "notes": [say(zh, en) for zh, en in (*taken.notes, *(() if taken.new is None else taken.new.notes))],
    }


def _tell_taken(catalog: Catalog, sender: str, taken: TakenOver) -> None:
    from ledger.cli.comparing import findings_table
    from ledger.cli.verdicts import verdict_words

    done = say("已接续", "taken over") if taken.fresh else say("此前已接续", "taken over before")
    words = verdict_words(taken.verdict)
    print(
        say(
            f"{done}：{catalog.id}（来自 {sender}），{taken.before} → {taken.after}，对方随迁 {taken.carried} 条，未随迁 {len(taken.left)} 条；本方所持：{words}",
            f"{done}: {catalog.id} (from {sender}), {taken.before} → {taken.after}, the sender carried {taken.carried}, not {len(taken.left)}; "
            f"what we hold: {words}",
        )
    )
    notes = taken.notes
    if taken.new is not None:
        if taken.new.comparison.findings:
            print(findings_table(taken.new.comparison.findings))
        notes = (*notes, *taken.new.notes, *taken.new.comparison.notes)
    _tell_left(taken.left)
    for zh, en in notes:
        note(zh, en)


def _tell_left(left: Sequence[Left]) -> None:
    if not left:
        return
    reasons = Counter(it.why for it in left)
    told = "、".join(f"{say(*_WHY[why])} {count}" for why, count in sorted(reasons.items()) if why)
    print(
        say(
            f"未随迁的仍按旧系列比对{f'（{told}）' if told else ''}：",
            f"not carried, and still compared under the old series{f' ({told})' if told else ''}:",
        )
    )
    for it in left[:_SHOWN]:
        key = "-" if it.key is None else " ".join(f"{name}={value}" for name, value in it.key.items())
        print(f"  {it.key_tag}  {key}  {say(*_WHY[it.why])}".rstrip())
    if len(left) > _SHOWN:
        print(say(f"  ……另有 {len(left) - _SHOWN} 条，见 --json", f"  … and {len(left) - _SHOWN} more, see --json"))
