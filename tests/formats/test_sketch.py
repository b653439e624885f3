"""The difference sketch against the published vectors and a second implementation, straight from the text of formats F6."""

from __future__ import annotations

import hashlib
import hmac
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import merkle, sketch
from ledger.errors import InputError
from ledger.keys import ExchangeKey

VECTORS: Any = json.loads((Path(__file__).parents[1] / "vectors" / "licences" / "licences.json").read_text("utf-8"))
SKETCH: Any = VECTORS["sketch"]
KEY = ExchangeKey(bytes.fromhex(VECTORS["exchange_key"]))
BATCH_ID, ROOT = bytes.fromhex(VECTORS["descriptor"]["batch_id"]), bytes.fromhex(VECTORS["tree"]["root"])


def array(entries: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(sorted(entries)), np.uint8).reshape(-1, 64)


def entries_of(names: list[str]) -> np.ndarray:
    return array([bytes.fromhex(name) for name in names])


def made(count: int, seed: int) -> list[bytes]:
    return [random.Random(f"{seed} {n}").randbytes(64) for n in range(count)]


# ---- the second implementation ----

Cells = list[list[Any]]


def plain(entries: list[bytes], m: int) -> Cells:
    cells: Cells = [[0, bytes(64), 0] for _ in range(m)]
    for entry in entries:
        add(cells, entry, 1)
    return cells


def places(entry: bytes, m: int) -> tuple[list[int], int]:
    h = hashlib.sha256(b"\x00" + entry).digest()
    u = [int.from_bytes(h[i : i + 4], "big") for i in range(0, 20, 4)]
    return [j * (m // 4) + u[j] % (m // 4) for j in range(4)], u[4]


def add(cells: Cells, entry: bytes, sign: int) -> None:
    where, check = places(entry, len(cells))
    for at in where:
        count, xored, checks = cells[at]
        cells[at] = [count + sign, bytes(a ^ b for a, b in zip(xored, entry, strict=True)), checks ^ check]


def in_bytes(cells: Cells) -> bytes:
    return b"".join(c.to_bytes(4, "big", signed=True) + x + k.to_bytes(4, "big") for c, x, k in cells)


def plain_peel(ours: Cells, theirs: Cells) -> tuple[set[bytes], set[bytes], bool]:
    m = len(ours)
    cells: Cells = [
        [a[0] - b[0], bytes(x ^ y for x, y in zip(a[1], b[1], strict=True)), a[2] ^ b[2]]
        for a, b in zip(ours, theirs, strict=True)
    ]
    found: dict[bytes, int] = {}
    while True:
        fresh: dict[bytes, int] = {}
        for at, (count, xored, checks) in enumerate(cells):
            where, check = places(xored, m)
            if count not in (1, -1) or check != checks or at not in where:
                continue
            if xored in found or fresh.get(xored, count) != count:
                return _signed(found, 1), _signed(found, -1), False
            fresh[xored] = count
        if not fresh:
            residue = any(c or any(x) or k for c, x, k in cells)
            return _signed(found, 1), _signed(found, -1), not residue
        if len(found) + len(fresh) > m:
            return _signed(found, 1), _signed(found, -1), False
        for entry, sign in fresh.items():
            add(cells, entry, -sign)
        found |= fresh


def _signed(found: dict[bytes, int], sign: int) -> set[bytes]:
    return {entry for entry, its in found.items() if its == sign}


def as_set(entries: np.ndarray) -> set[bytes]:
    return {entry.tobytes() for entry in entries}


# ---- vectors ----


def test_the_published_sketch() -> None:
    entries = entries_of(VECTORS["tree"]["sorted_entries"])
    assert sketch.default_cells(entries) == SKETCH["cells"]
    clear = sketch.build(entries, SKETCH["cells"]).encode()
    assert clear.hex() == SKETCH["clear"]
    assert sketch.encrypt(clear, KEY, BATCH_ID, ROOT).hex() == SKETCH["encrypted"]
    assert places(entries[0].tobytes(), 32) == (SKETCH["cells_of_sorted_entry_0"], SKETCH["check_of_sorted_entry_0"])


def test_the_published_difference() -> None:
    ours, told = entries_of(VECTORS["tree"]["sorted_entries"]), SKETCH["other_side"]
    theirs = sketch.parse(bytes.fromhex(told["clear"]), int(told["size"]))
    found = sketch.decode(ours, theirs, int(told["size"]), bytes.fromhex(told["root"]))
    assert found.certified
    assert [entry.tobytes().hex() for entry in found.only_ours] == told["only_ours"]
    assert [entry.tobytes().hex() for entry in found.only_theirs] == told["only_theirs"]
    assert [pair[0, 16:32].tobytes().hex() for pair in found.differs] == told["differs_key_tags"]


# ---- against the text ----


@settings(max_examples=60, deadline=None)
@given(
    common=st.integers(0, 40),
    ours=st.integers(0, 12),
    theirs=st.integers(0, 12),
    quarter=st.integers(1, 20),
    seed=st.integers(0, 10**6),
)
def test_it_is_what_the_text_says(common: int, ours: int, theirs: int, quarter: int, seed: int) -> None:
    m = 4 * quarter
    shared, mine, other = made(common, seed), made(ours, seed + 1), made(theirs, seed + 2)
    a, b = sorted(shared + mine), sorted(shared + other)
    assert sketch.build(array(a), m).encode() == in_bytes(plain(a, m))
    peeled = sketch.peel(sketch.build(array(a), m).minus(sketch.build(array(b), m)))
    expected = plain_peel(plain(a, m), plain(b, m))
    assert (as_set(peeled.only_ours), as_set(peeled.only_theirs), peeled.complete) == expected
    size, root = merkle.root_of(b)
    found = sketch.certify(array(a), peeled, size, root)
    assert found.certified == (expected[0] == set(mine) and expected[1] == set(other) and expected[2])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), flips=st.integers(1, 30))
def test_no_sketch_makes_a_wrong_list_certified(seed: int, flips: int) -> None:
    """Whoever holds the key writes what he likes into the cells: the anchored root decides."""
    dice = random.Random(seed)
    shared, lost, planted = made(30, seed), made(3, seed + 1), made(3, seed + 2)
    ours, theirs = sorted(shared), sorted(shared + lost)
    size, root = merkle.root_of(theirs)
    cells = plain(dice.choice([theirs, sorted(shared + planted), sorted(lost)]), 64)
    for _ in range(flips):
        add(cells, dice.choice(shared + lost + planted), dice.choice([1, -1]))
    told = np.frombuffer(in_bytes(cells), sketch._CELL)
    words = np.frombuffer(told["entries"].tobytes(), np.uint64).reshape(-1, 8)
    hostile = sketch.Sketch(told["count"].astype(np.int64), words.copy(), told["checks"].astype(np.uint32))
    found = sketch.decode(array(ours), hostile, size, root)
    if found.certified:
        assert (as_set(found.only_ours), as_set(found.only_theirs)) == (set(), set(lost))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 10, 60, 150, 154, 155, 156, 400])
def test_the_default_is_the_least_that_decodes_or_256(count: int) -> None:
    entries = made(count, 7)
    cells = min(256, -(-(1.5 * count + 24) // 4) * 4)
    while cells < 256 and plain_peel(plain(entries, int(cells)), plain([], int(cells))) != (set(entries), set(), True):
        cells += 4
    assert sketch.default_cells(array(entries)) == cells


def test_encryption_is_its_own_inverse_and_bound_to_batch_root_key_and_size() -> None:
    clear = sketch.build(array(made(9, 1)), 32).encode()
    sealed = sketch.encrypt(clear, KEY, BATCH_ID, ROOT)
    assert sketch.encrypt(sealed, KEY, BATCH_ID, ROOT) == clear
    others = [
        sketch.encrypt(clear, ExchangeKey(bytes(32)), BATCH_ID, ROOT),
        sketch.encrypt(clear, KEY, ROOT, ROOT),
        sketch.encrypt(clear, KEY, BATCH_ID, BATCH_ID),
        sketch.encrypt(clear + bytes(288), KEY, BATCH_ID, ROOT)[: len(clear)],
    ]
    assert len({sealed, clear, *others}) == 6
    info = b"duizhang/1/sketch" + BATCH_ID + ROOT + (32).to_bytes(4, "big")
    extracted = hmac.digest(bytes(32), KEY.secret, "sha256")
    secret = hmac.digest(extracted, info + b"\x01", "sha256")
    stream = Cipher(algorithms.AES(secret), modes.CTR(bytes(16))).encryptor()
    assert sealed == stream.update(clear)


# ---- hostile ones, by name ----


def malformed(data: bytes, size: int) -> bool:
    with pytest.raises(InputError) as refused:
        sketch.parse(data, size)
    return refused.value.code == "sketch.malformed"


def test_what_no_batch_gives_is_malformed() -> None:
    entries = made(20, 3)
    good = in_bytes(plain(entries, 32))
    assert len(sketch.parse(good, 20)) == 32
    assert malformed(b"", 20)
    assert malformed(good[:-1], 20)
    assert malformed(good + bytes(72), 20)  # 33 cells
    assert malformed(bytes(72 * 1804), 0)
    assert malformed(good, 21)
    negative = plain(entries, 32)
    negative[0][0] -= 100
    negative[1][0] += 100
    assert malformed(in_bytes(negative), 20)
    for cells in (0, 2, 6, 1804, -4):
        with pytest.raises(InputError):
            sketch.build(array(entries), cells)


def test_an_entry_that_comes_again_in_a_later_round_stops_it() -> None:
    """One entry four times over: taken out, it shows again with the other sign, for ever."""
    entry = made(1, 5)[0]
    cells = plain([], 16)
    where, check = places(entry, 16)
    for at in where[:2]:
        cells[at] = [1, entry, check]
    expected = plain_peel(cells, plain([], 16))
    assert expected[2] is False
    told = np.frombuffer(in_bytes(cells), sketch._CELL)
    words = np.frombuffer(told["entries"].tobytes(), np.uint64).reshape(-1, 8)
    peeled = sketch.peel(sketch.Sketch(told["count"].astype(np.int64), words.copy(), told["checks"].astype(np.uint32)))
    assert (as_set(peeled.only_ours), as_set(peeled.only_theirs), peeled.complete) == expected


def test_both_signs_in_one_round_stop_it_and_add_nothing() -> None:
    entry = made(1, 6)[0]
    cells = plain([], 16)
    where, check = places(entry, 16)
    cells[where[0]], cells[where[1]] = [1, entry, check], [-1, entry, check]
    told = np.frombuffer(in_bytes(cells), sketch._CELL)
    words = np.frombuffer(told["entries"].tobytes(), np.uint64).reshape(-1, 8)
    peeled = sketch.peel(sketch.Sketch(told["count"].astype(np.int64), words.copy(), told["checks"].astype(np.uint32)))
    assert (len(peeled.only_ours), len(peeled.only_theirs), peeled.complete) == (0, 0, False)


def test_one_of_ours_planted_as_theirs_and_a_key_tag_twice_are_not_certified() -> None:
    ours = sorted(made(8, 9))
    theirs = sorted(made(8, 9)[:6])
    size, root = merkle.root_of(theirs)
    planted = sketch.Peeled(array(made(8, 9)[6:7]), array(ours[:1]), complete=True)
    assert not sketch.certify(array(ours), planted, size, root).certified
    not_ours = sketch.Peeled(array(made(1, 99)), array([]), complete=True)
    assert not sketch.certify(array(ours), not_ours, size, root).certified
    twin = ours[0][:32] + bytes(32)
    size, root = merkle.root_of(sorted([*ours, twin]))
    twice = sketch.Peeled(array([]), array([twin]), complete=True)
    assert not sketch.certify(array(ours), twice, size, root).certified


def test_sets_that_are_both_known_are_compared_without_a_sketch() -> None:
    ours, theirs = made(30, 1)[:25], made(30, 1)[5:]
    found = sketch.compare(array(ours), array(theirs))
    assert (as_set(found.only_ours), as_set(found.only_theirs)) == (set(ours) - set(theirs), set(theirs) - set(ours))
    assert sketch.compare(array(ours), array(ours)).certified
    assert len(sketch.compare(array([]), array(theirs)).only_theirs) == 25
