"""A sender that holds the key and builds what sketch it likes: it can keep the list from being complete, never make a wrong one certified."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pytest

from ledger import sketch as sketches
from ledger.batch.build import Built
from ledger.keys import ExchangeKey
from tests.conftest import permit
from tests.twoparty.conftest import Channel

ROWS = [permit(n) for n in range(1, 31)]
CELLS = 64
Make = Callable[[Built], bytes]


def of(entries: np.ndarray) -> bytes:
    return sketches.build(entries[sketches.sort_entries(entries)], CELLS).encode()


def stranger(built: Built) -> np.ndarray:
    """An entry that neither side has."""
    made = built.entries[:1].copy()
    made[0, 20:] ^= 0x5A
    return made


def planted(built: Built) -> bytes:
    """In place of one of the lost records, so that the count is right."""
    return of(np.concatenate([built.entries[1:], stranger(built)]))


def recounted(built: Built) -> bytes:
    cells = bytearray(sketches.build(built.entries, CELLS).encode())
    cells[3] ^= 1
    return bytes(cells)


def negative(built: Built) -> bytes:
    sketch = sketches.build(built.entries, CELLS)
    counts = sketch.counts.copy()
    counts[0] -= 1000
    counts[1] += 1000
    return sketches.Sketch(counts, sketch.entries, sketch.checks).encode()


def jammed(built: Built) -> bytes:
    """Right counts, noise in every cell: nothing peels."""
    sketch = sketches.build(built.entries, CELLS)
    noise = np.frombuffer(os.urandom(CELLS * 64), np.uint64).reshape(CELLS, 8)
    return sketches.Sketch(sketch.counts, sketch.entries ^ noise, sketch.checks).encode()


def hiding(built: Built) -> bytes:
    """Tells of everything but two of the records that were lost, and of two strangers in their place."""
    other = stranger(built)
    other[0, 40] ^= 1
    return of(np.concatenate([built.entries[2:], stranger(built), other]))


HOSTILE: dict[str, Make] = {
    "noise": lambda built: os.urandom(CELLS * sketches.CELL_SIZE),
    "counts that do not add up": recounted,
    "a negative count": negative,
    "jammed": jammed,
    "an entry neither side has": planted,
    "differences hidden": hiding,
    "empty": lambda built: bytes(CELLS * sketches.CELL_SIZE),
}


@pytest.fixture(params=sorted(HOSTILE))
def hostile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    make = HOSTILE[request.param]

    def sketch_for(key: ExchangeKey, batch_id: bytes, built: Built, cells: int | None = None) -> bytes:
        return sketches.encrypt(make(built), key, batch_id, bytes.fromhex(built.root))

    monkeypatch.setattr("ledger.delivery.send.sketch_for", sketch_for)


@pytest.mark.usefixtures("hostile")
def test_a_hostile_sketch_never_makes_a_list_complete_and_never_makes_two_batches_equal(channel: Channel) -> None:
    channel.send("B1", ROWS)
    channel.land("B1", ROWS[4:])
    code, told = channel.receive("B1")
    assert (code, told["verdict"]) == (1, "differences_partial")
    code, told = channel.between(channel.city)
    assert (code, told["verdict"], told["batches"][0]["certified"]) == (1, "differences_partial", False)
    assert told["batches"][0]["notes"]
    # And where all landed, the roots say so, whatever the sketch says.
    channel.land("B1", ROWS[:4])
    assert channel.receive("B1")[1]["verdict"] == "matched"
    assert channel.between(channel.city)[1]["verdict"] == "matched"


@pytest.mark.usefixtures("hostile")
def test_the_entry_file_ends_what_a_hostile_sketch_began(channel: Channel) -> None:
    channel.send("B1", ROWS)
    channel.land("B1", ROWS[4:])
    channel.receive("B1")
    entries = str(channel.pair.folder / "B1.parquet")
    channel.province.ok("export", "entries", "permits", "--with", "guangzhou", "--batch", "B1", "--out", entries)
    channel.city.ok("import", "entries", "permits", entries, "--with", "guangdong", "--batch", "B1")
    code, told = channel.between(channel.city)
    assert (code, told["verdict"], len(told["batches"][0]["findings"])) == (1, "differences", 4)
