"""Entries in order, key tags that occur twice, and where a key tag stands: judged by Python's own bytes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ledger.kernel import sorting
from ledger.kernel.sorting import EntryIndex, duplicate_tags, order_of, sort_entries


@pytest.fixture(params=["compiled", "numpy"], autouse=True, scope="module")
def engine(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each way there is; a compiled one that is missing here is a failure, for CI has a compiler."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "numpy":
            patch.setattr(sorting, "_library", lambda: None)
        else:
            assert sorting._library() is not None
        yield


# Few distinct bytes, NUL and 0xFF among them, so that long prefixes and whole tags coincide.
few = st.sampled_from(
    [b"\0" * 8, b"\0" * 7 + b"\1", b"\1" + b"\0" * 7, b"\x7f" + b"\xff" * 7, b"\x80" * 8, b"\xff" * 8]
)
entry = st.lists(few, min_size=8, max_size=8).map(b"".join)
tag = st.lists(few, min_size=2, max_size=2).map(b"".join)


def matrix(rows: list[bytes], width: int) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(rows), np.uint8).reshape(-1, width)


def entries_with(tags: list[bytes]) -> NDArray[np.uint8]:
    return matrix([bytes(16) + tag + bytes(32) for tag in tags], 64)


@given(st.lists(entry, max_size=30))
def test_the_order_is_that_of_the_bytes(rows: list[bytes]) -> None:
    entries = matrix(rows, 64)
    assert [entries[i].tobytes() for i in sort_entries(entries)] == sorted(rows)


@given(st.lists(entry, min_size=1, max_size=10), st.integers(0, 63), st.integers(1, 255))
def test_one_byte_anywhere_decides_the_order(rows: list[bytes], place: int, more: int) -> None:
    rows = [*rows, *(row[:place] + bytes([row[place] ^ more]) + row[place + 1 :] for row in rows)]
    entries = matrix(rows, 64)
    assert [entries[i].tobytes() for i in sort_entries(entries)] == sorted(rows)


@given(st.lists(entry, max_size=10))
def test_equal_entries_keep_their_order(rows: list[bytes]) -> None:
    rows = rows * 2
    assert sort_entries(matrix(rows, 64)).tolist() == sorted(range(len(rows)), key=lambda i: rows[i])


@given(st.lists(tag, max_size=20))
def test_key_tags_that_occur_twice_are_grouped_by_their_first_row(tags: list[bytes]) -> None:
    groups: dict[bytes, list[int]] = {}
    for row, each in enumerate(tags):
        groups.setdefault(each, []).append(row)
    expected = [rows for rows in groups.values() if len(rows) > 1]
    assert [group.tolist() for group in duplicate_tags(entries_with(tags))] == expected


def test_only_the_key_tag_makes_a_duplicate() -> None:
    rows = [bytes([1]) * 16 + bytes(16) + bytes([2]) * 32, bytes([3]) * 16 + bytes(16) + bytes([4]) * 32, b"\1" * 64]
    assert [group.tolist() for group in duplicate_tags(matrix(rows, 64))] == [[0, 1]]


@given(st.lists(tag, unique=True, max_size=20), st.lists(tag, max_size=20))
def test_a_lookup_finds_each_tag_or_says_that_it_is_not_there(tags: list[bytes], wanted: list[bytes]) -> None:
    index = EntryIndex(entries_with(tags))
    places = {each: row for row, each in enumerate(tags)}
    assert len(index) == len(tags)
    assert index.lookup(matrix(wanted, 16)).tolist() == [places.get(each, -1) for each in wanted]


def test_a_tag_of_many_is_found_among_random_ones() -> None:
    generator = np.random.default_rng(7)
    entries = generator.integers(0, 256, (5000, 64), np.uint8)
    index = EntryIndex(entries)
    assert (index.lookup(entries[:, 16:32]) == np.arange(5000)).all()
    assert (index.lookup(generator.integers(0, 256, (5000, 16), np.uint8)) == -1).all()


def test_an_index_of_a_repeated_tag_is_refused() -> None:
    with pytest.raises(ValueError, match="occurs twice"):
        EntryIndex(entries_with([b"\0" * 16, b"\1" * 16, b"\0" * 16]))


@pytest.mark.parametrize("count", [23, 24, 25, 26, 1000, 5000])
@pytest.mark.parametrize("prefix", [0, 8, 16, 40])
def test_many_rows_with_a_common_beginning(count: int, prefix: int) -> None:
    generator = np.random.default_rng(count)
    entries = generator.integers(0, 256, (count, 64), np.uint8)
    entries[: count // 2, :prefix] = 0
    entries[count // 3 : count // 2, : prefix + 8] = 255
    rows = [entry.tobytes() for entry in entries]
    assert sort_entries(entries).tolist() == sorted(range(count), key=lambda i: rows[i])
    # A part of the columns, whose rows do not lie together.
    assert order_of(entries[:, 8:24]).tolist() == sorted(range(count), key=lambda i: rows[i][8:24])
    twice = np.concatenate([entries, entries[:7]])
    groups: dict[bytes, list[int]] = {}
    for row, each in enumerate(twice):
        groups.setdefault(each[16:32].tobytes(), []).append(row)
    assert [group.tolist() for group in duplicate_tags(twice)] == [it for it in groups.values() if len(it) > 1]


def test_tags_that_agree_in_either_half_are_told_apart() -> None:
    halves = [bytes([n]) * 8 for n in range(40)]
    tags = [a + b for a in halves for b in halves]
    index = EntryIndex(entries_with(tags))
    assert index.lookup(matrix(tags[::-1], 16)).tolist() == list(range(len(tags)))[::-1]
    assert index.lookup(matrix([b"x" * 16], 16)).tolist() == [-1]
