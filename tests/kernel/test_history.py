"""The fold against a dictionary, with tags that agree in one half or the other; one key is found without it as with it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.batch.history import History
from ledger.store.entryfile import NO_VERSION

HALVES = (bytes(8), bytes(7) + b"\x01", b"\x80" + bytes(7), b"\xff" * 8)
TAGS = [high + low for high in HALVES for low in HALVES]
NOWHERE = bytes(15) + b"\x07"
# A batch has one entry a key: tag -> (commitment, withdrawn, row version).
BATCH = st.dictionaries(
    st.sampled_from(TAGS), st.tuples(st.integers(0, 255), st.booleans(), st.sampled_from([NO_VERSION, -1, 0, 7]))
)


def arrays(batch: dict[bytes, tuple[int, bool, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows = b"".join(bytes(16) + tag + bytes([value]) * 32 for tag, (value, _, _) in batch.items())
    withdrawn = np.array([it[1] for it in batch.values()], np.bool_)
    return (
        np.frombuffer(rows, np.uint8).reshape(-1, 64),
        withdrawn,
        np.array([it[2] for it in batch.values()], np.int64),
    )


@given(st.lists(BATCH, max_size=4), st.booleans())
def test_the_fold_is_that_of_a_dictionary(batches: list[dict[bytes, tuple[int, bool, int]]], versioned: bool) -> None:
    made = [arrays(batch) for batch in batches]
    history = History([it[:2] for it in made], [it[2] if versioned else None for it in made])
    # Before the fold is made, and after.
    for _ in range(2):
        for tag in (*TAGS, NOWHERE):
            seen = [(v.batch, v.entry[32], v.withdrawn) for v in history.of_tag(tag)]
            assert seen == [(at, b[tag][0], b[tag][1]) for at, b in enumerate(batches) if tag in b]
            for version in history.of_tag(tag):
                assert made[version.batch][0][version.index].tobytes() == version.entry
        history.prepare()
    keys = sorted({tag for batch in batches for tag in batch})
    assert len(history) == len(keys)
    assert [history.tag(at) for at in range(len(keys))] == keys
    assert [history.find(tag) for tag in keys] == list(range(len(keys)))
    assert history.find(NOWHERE) == -1
    last = [next(b[tag] for b in reversed(batches) if tag in b) for tag in keys]
    assert history.live.tolist() == [not withdrawn for _, withdrawn, _ in last]
    assert [history.latest(at).commitment[0] for at in range(len(keys))] == [value for value, _, _ in last]
    if versioned and batches:
        assert history.row_versions is not None
        assert history.row_versions.tolist() == [version for _, _, version in last]
    else:
        assert history.row_versions is None
    for at, tag in enumerate(keys):
        assert history.versions(at) == history.of_tag(tag)


@pytest.mark.parametrize("count", [1, 2, 3, 1000])
def test_many_random_tags_with_many_versions(count: int) -> None:
    chance = np.random.default_rng(count)
    entries = chance.integers(0, 256, (count, 64), np.uint8)
    again = entries[chance.permutation(count)[: count // 2 + 1]].copy()
    again[:, 40] ^= 1
    history = History([(entries, np.zeros(count, np.bool_)), (again, np.ones(len(again), np.bool_))])
    changed = {row[16:32].tobytes() for row in again}
    for row in entries:
        tag = row[16:32].tobytes()
        assert len(history.versions(history.find(tag))) == 1 + (tag in changed)
        assert bool(history.live[history.find(tag)]) is (tag not in changed)
