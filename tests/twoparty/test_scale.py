"""Many records, differences of all kinds planted at random: exactly these come out, from the chain and the own database alone."""

from __future__ import annotations

import os
import random

from tests.conftest import permit, withdrawn
from tests.twoparty.conftest import Channel, found

RECORDS = int(os.environ.get("DUIZHANG_SCALE_RECORDS", "3000"))


def test_sixty_differences_of_all_kinds_are_named_and_no_other(channel: Channel) -> None:
    chance = random.Random(60)
    rows = [permit(n) for n in range(1, RECORDS + 1)]
    channel.send("B1", rows)
    picked = chance.sample(range(RECORDS), 40)
    lost, altered = set(picked[:20]), picked[20:]
    added = [permit(RECORDS + n) for n in range(1, 16)]
    changed = {n: permit(n + 1, "改动公司", fee=str(n)) for n in altered}
    channel.land("B1", [changed.get(n, row) for n, row in enumerate(rows) if n not in lost] + added)
    kept = chance.sample(sorted(set(range(RECORDS)) - set(picked)), 5)
    channel.receive("B1")
    # Withdrawn by the sender, and the rows are still there.
    channel.send("B2", [withdrawn(n + 1) for n in kept])
    channel.receive("B2")
    code, told = channel.between(channel.city)
    assert (code, told["verdict"]) == (1, "differences")
    assert all(batch["certified"] for batch in told["batches"])
    planted = (
        [("only_theirs", None)] * 20
        + [("differs", f"A-{n + 1}") for n in altered]
        + [("only_ours", row["no"]) for row in added]
    )
    assert found(told, "B1") == sorted(planted, key=lambda it: (it[0], it[1] or ""))
    assert found(told, "B2") == sorted(("not_withdrawn", f"A-{n + 1}") for n in kept)
    code, told = channel.between(channel.province)
    assert found(told, "B1") == sorted(
        [("only_ours", f"A-{n + 1}") for n in lost]
        + [("differs", f"A-{n + 1}") for n in altered]
        + [("only_theirs", None)] * 15,
        key=lambda it: (it[0], it[1] or ""),
    )


def test_five_hundred_are_a_part_until_the_entries_are_exchanged(channel: Channel) -> None:
    chance = random.Random(500)
    rows = [permit(n) for n in range(1, RECORDS + 1)]
    channel.send("B1", rows)
    lost = set(chance.sample(range(RECORDS), 500))
    channel.land("B1", [row for n, row in enumerate(rows) if n not in lost])
    assert channel.receive("B1")[1]["verdict"] == "differences_partial"
    code, told = channel.between(channel.city)
    assert (code, told["verdict"], told["batches"][0]["certified"]) == (1, "differences_partial", False)
    entries = str(channel.pair.folder / "B1.parquet")
    channel.province.ok("export", "entries", "permits", "--with", "guangzhou", "--batch", "B1", "--out", entries)
    channel.city.ok("import", "entries", "permits", entries, "--with", "guangdong", "--batch", "B1")
    code, told = channel.between(channel.city)
    assert (code, told["verdict"]) == (1, "differences")
    assert found(told, "B1") == [("only_theirs", None)] * 500
    held = str(channel.pair.folder / "held.parquet")
    channel.city.ok("export", "entries", "permits", "--with", "guangdong", "--batch", "B1", "--out", held)
    channel.province.ok("import", "entries", "permits", held, "--with", "guangzhou", "--batch", "B1")
    code, told = channel.between(channel.province)
    assert found(told, "B1") == sorted(("only_ours", f"A-{n + 1}") for n in lost)
