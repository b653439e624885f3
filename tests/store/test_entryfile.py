from __future__ import annotations

import errno
import gc
import os
import stat
import traceback
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ledger.errors import StoreError
from ledger.kernel import native
from ledger.store import entryfile
from ledger.store.entryfile import NO_FRAME, NO_VERSION, read_entries, write_entries
from tests.store.conftest import as_nobody, make_entries


def columns(count: int) -> tuple[np.ndarray, np.ndarray]:
    frames = (np.arange(count) // 7).astype(np.uint32)
    frames[::5] = NO_FRAME
    return np.arange(count) % 3 == 0, frames


def write(path: Path, entries: np.ndarray) -> str:
    return write_entries(path, entries, *columns(len(entries)))


@pytest.mark.parametrize("count", [0, 1, 2, 65_535, 65_536, 65_537, 131_073])
def test_what_is_written_is_read_back_around_the_size_of_a_row_group(tmp_path: Path, count: int) -> None:
    entries = make_entries(count)
    withdrawn, frames = columns(count)
    digest = write_entries(tmp_path / "e.parquet", entries, withdrawn, frames)
    assert digest == sha256((tmp_path / "e.parquet").read_bytes()).hexdigest()
    rows = read_entries(tmp_path / "e.parquet", digest)
    np.testing.assert_array_equal(rows.entries, entries)
    np.testing.assert_array_equal(rows.withdrawn, withdrawn)
    np.testing.assert_array_equal(rows.frames, frames)
    np.testing.assert_array_equal(rows.key_tags, entries[:, 16:32])
    assert rows.entries.shape == (count, 64)
    assert stat.S_IMODE((tmp_path / "e.parquet").stat().st_mode) == 0o600


@pytest.mark.parametrize("count", [1, 65_536, 65_537])
def test_row_versions_are_read_back_those_that_are_not_known_too(tmp_path: Path, count: int) -> None:
    versions = np.arange(count, dtype=np.int64) * -7
    versions[0] = np.iinfo(np.int64).max
    versions[1::3] = NO_VERSION
    digest = write_entries(tmp_path / "e.parquet", make_entries(count), *columns(count), versions)
    found = read_entries(tmp_path / "e.parquet", digest).row_versions
    np.testing.assert_array_equal(found, versions)
    nulls = pq.read_table(tmp_path / "e.parquet").column("row_version").null_count
    assert nulls == int((versions == NO_VERSION).sum())


def test_without_a_known_row_version_the_file_is_what_it_was_before_there_were_any(tmp_path: Path) -> None:
    entries = make_entries(10)
    first = write(tmp_path / "a.parquet", entries)
    none = np.full(10, NO_VERSION, np.int64)
    assert write_entries(tmp_path / "b.parquet", entries, *columns(10), none) == first
    assert read_entries(tmp_path / "a.parquet", first).row_versions is None
    assert write_entries(tmp_path / "c.parquet", entries, *columns(10), none + 1) != first


@pytest.mark.parametrize("wrong", [np.zeros(3, np.int64), np.zeros(10, np.int32), np.zeros(10, np.uint64)])
def test_row_versions_of_another_shape_are_refused(tmp_path: Path, wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="row_versions"):
        write_entries(tmp_path / "a.parquet", make_entries(10), *columns(10), wrong)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("count", [0, 1, 1024, 1025, 70_000])
def test_tiles_are_read_back_and_the_same_rows_give_the_same_bytes(tmp_path: Path, count: int) -> None:
    entries = make_entries(count)
    tiles = native.subroots(entries)
    digest = write_entries(tmp_path / "e.parquet", entries, *columns(count), None, tiles)
    assert write_entries(tmp_path / "f.parquet", entries, *columns(count), None, tiles) == digest
    found = read_entries(tmp_path / "e.parquet", digest)
    np.testing.assert_array_equal(found.entries, entries)
    if count:
        assert found.tiles is not None
        np.testing.assert_array_equal(found.tiles, tiles)
        # Any reader of Parquet gets at them.
        assert (
            pq.read_metadata(tmp_path / "e.parquet").metadata[b"duizhang.tiles/1024"].decode() == tiles.tobytes().hex()
        )
    else:
        assert found.tiles is None


def test_a_file_from_before_there_were_tiles_is_read_and_written_as_it_was(tmp_path: Path) -> None:
    digest = write(tmp_path / "a.parquet", make_entries(10))
    assert read_entries(tmp_path / "a.parquet", digest).tiles is None
    assert pq.read_metadata(tmp_path / "a.parquet").metadata is None


@pytest.mark.parametrize(
    "wrong", [np.zeros((0, 32), np.uint8), np.zeros((2, 32), np.uint8), np.zeros((1, 31), np.uint8)]
)
def test_tiles_of_another_shape_are_refused(tmp_path: Path, wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="tiles"):
        write_entries(tmp_path / "a.parquet", make_entries(10), *columns(10), None, wrong)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("told", ["", "ab" * 31, "ab" * 33, "ab" * 64, "xy" * 32, "许" * 32])
def test_what_is_no_list_of_tiles_is_damage(tmp_path: Path, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Told:
        """Tiles whose hex is something else."""

        dtype, shape = np.dtype(np.uint8), (1, 32)

        def __len__(self) -> int:
            return 1

        def tobytes(self) -> Told:
            return self

        def hex(self) -> str:
            return told

    digest = write_entries(tmp_path / "a.parquet", make_entries(10), *columns(10), None, Told())  # type: ignore[arg-type]
    with pytest.raises(StoreError) as refused:
        read_entries(tmp_path / "a.parquet", digest)
    assert refused.value.code == "store.entries_damaged"


def test_the_same_rows_give_the_same_bytes_and_may_be_written_again(tmp_path: Path) -> None:
    entries = make_entries(100)
    first = write(tmp_path / "a.parquet", entries)
    inode = (tmp_path / "a.parquet").stat().st_ino
    assert write(tmp_path / "b.parquet", entries) == first
    assert write(tmp_path / "a.parquet", entries) == first
    assert (tmp_path / "a.parquet").stat().st_ino == inode
    assert sorted(os.listdir(tmp_path)) == ["a.parquet", "b.parquet"]


def test_a_view_into_a_larger_array_is_written_as_its_rows(tmp_path: Path) -> None:
    wide = np.zeros((50, 80), np.uint8)
    wide[:, :64] = make_entries(50)
    digest = write(tmp_path / "a.parquet", wide[:, :64])
    np.testing.assert_array_equal(read_entries(tmp_path / "a.parquet", digest).entries, wide[:, :64])


def test_an_entry_file_is_never_changed(tmp_path: Path) -> None:
    digest = write(tmp_path / "a.parquet", make_entries(10))
    with pytest.raises(StoreError) as refused:
        write(tmp_path / "a.parquet", make_entries(11))
    assert refused.value.code == "store.entries_conflict"
    assert digest in refused.value.en
    assert len(read_entries(tmp_path / "a.parquet", digest).entries) == 10
    assert os.listdir(tmp_path) == ["a.parquet"]


def test_the_arrays_that_were_read_cannot_be_written_to(tmp_path: Path) -> None:
    rows = read_entries(tmp_path / "a.parquet", write(tmp_path / "a.parquet", make_entries(3)))
    for array in (rows.entries, rows.withdrawn, rows.frames):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def disorders() -> dict[str, tuple[np.ndarray, str]]:
    """Entries in wrong order, by name; the first difference stands in every eight-byte word once."""
    cases: dict[str, tuple[np.ndarray, str]] = {}
    good = make_entries(70_000)
    for name, row in {"first": 0, "last": 69_998, "across row groups": 65_535, "before that": 65_534}.items():
        swapped = good.copy()
        swapped[[row, row + 1]] = good[[row + 1, row]]
        cases[f"two entries exchanged, {name}"] = (swapped, "store.entries_order")
    for byte in range(64):
        pair = np.zeros((2, 64), np.uint8)
        pair[0, byte] = 1
        pair[1, byte + 1 :] = 255
        cases[f"descends at byte {byte}"] = (pair, "store.entries_order")
    three = np.zeros((3, 64), np.uint8)
    three[0, 0] = 1
    three[1, 8:] = 200
    three[2, 8:] = 201
    cases["descends at the first word while another pair is equal there"] = (three, "store.entries_order")
    twice = np.repeat(make_entries(1), 2, axis=0)
    cases["an entry twice"] = (twice, "store.entries_order")
    same_tag = make_entries(5)
    same_tag[3, 16:32] = same_tag[1, 16:32]
    cases["a key_tag twice"] = (same_tag, "store.entries_duplicate")
    return cases


DISORDERS = disorders()


@pytest.mark.parametrize("name", DISORDERS)
def test_entries_that_are_no_tree_are_refused(tmp_path: Path, name: str) -> None:
    entries, code = DISORDERS[name]
    with pytest.raises(StoreError) as refused:
        write(tmp_path / "a.parquet", entries)
    assert refused.value.code == code
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("byte", range(32))
def test_entries_that_ascend_at_one_byte_only_are_accepted(tmp_path: Path, byte: int) -> None:
    # The counterpart of "descends at byte"; past byte 31 two entries of one batch never differ first.
    pair = np.zeros((2, 64), np.uint8)
    pair[0, byte + 1 :] = 255
    pair[1, byte] = 1
    write(tmp_path / "a.parquet", pair)


def test_key_tags_that_share_their_first_half_are_two_keys(tmp_path: Path) -> None:
    entries = make_entries(5)
    entries[3, 16:24] = entries[1, 16:24]
    write(tmp_path / "a.parquet", entries)


def test_a_key_tag_is_named_when_it_occurs_twice(tmp_path: Path) -> None:
    entries, _ = DISORDERS["a key_tag twice"]
    with pytest.raises(StoreError, match=entries[1, 16:32].tobytes().hex()):
        write(tmp_path / "a.parquet", entries)


@pytest.mark.parametrize("wrong", ["entries", "width", "withdrawn", "frames", "frame type", "both short"])
def test_arrays_that_do_not_belong_together_are_a_programming_error(tmp_path: Path, wrong: str) -> None:
    entries = make_entries(4)
    withdrawn, frames = columns(4)
    match wrong:
        case "entries":
            entries = entries.astype(np.int16)
        case "width":
            entries = entries[:, :63]
        case "withdrawn":
            withdrawn = withdrawn[:3]
        case "frames":
            frames = frames[:3]
        case "frame type":
            frames = frames.astype(np.int64)
        case "both short":
            withdrawn, frames = withdrawn[:3], frames[:3]
    with pytest.raises(ValueError, match="must be"):
        write_entries(tmp_path / "a.parquet", entries, withdrawn, frames)


# Damage


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as refused:
        read_entries(tmp_path / "gone.parquet", "00" * 32)
    assert refused.value.code == "store.entries_missing"
    assert refused.value.where == str(tmp_path / "gone.parquet")


@pytest.mark.parametrize("damage", ["flipped", "cut off", "longer", "empty", "another batch's"])
def test_a_changed_file_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.parquet"
    digest = write(path, make_entries(10))
    data = path.read_bytes()
    write(tmp_path / "b.parquet", make_entries(10, seed=2))
    path.write_bytes(
        {
            "flipped": data[:100] + bytes([data[100] ^ 1]) + data[101:],
            "cut off": data[:-1],
            "longer": data + b"\n",
            "empty": b"",
            "another batch's": (tmp_path / "b.parquet").read_bytes(),
        }[damage]
    )
    with pytest.raises(StoreError) as refused:
        read_entries(path, digest)
    assert refused.value.code == "store.entries_damaged"
    assert str(path) in refused.value.zh


def table(entries: np.ndarray, **changed: pa.Array) -> pa.Table:
    withdrawn, frames = columns(len(entries))
    given = {
        "entry": pa.array([row.tobytes() for row in entries], pa.binary(64)),
        "withdrawn": pa.array(withdrawn),
        "frame": pa.array(frames),
    }
    given.update(changed)
    return pa.table(given)


FOREIGN = {
    "text": b"not Parquet at all",
    "nullable columns": table(make_entries(3)),
    "an entry too short": table(make_entries(3), entry=pa.array([b"x" * 63] * 3, pa.binary(63))),
    "a null": table(make_entries(3), withdrawn=pa.array([True, None, False])),
    "a further column": table(make_entries(3)).append_column("more", pa.array([1, 2, 3])),
    "row versions of another type": table(make_entries(3)).append_column(
        "row_version", pa.array([1, 2, 3], pa.int32())
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_the_store_vouches_for_must_still_be_an_entry_file(tmp_path: Path, name: str) -> None:
    # As when store and file were both changed: the SHA-256 fits, the format does not.
    path = tmp_path / "a.parquet"
    content = FOREIGN[name]
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        pq.write_table(content, path)
    with pytest.raises(StoreError) as refused:
        read_entries(path, sha256(path.read_bytes()).hexdigest())
    assert refused.value.code == "store.entries_damaged"


@pytest.mark.parametrize("name", ["two entries exchanged, first", "a key_tag twice"])
def test_a_file_the_store_vouches_for_must_still_be_in_order(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as unchecked:
        unchecked.setattr(entryfile, "_check_order", lambda entries, path: None)
        digest = write(tmp_path / "a.parquet", DISORDERS[name][0])
    with pytest.raises(StoreError) as refused:
        read_entries(tmp_path / "a.parquet", digest)
    assert refused.value.code == "store.entries_damaged"


def test_a_full_disk_leaves_no_entry_file(small_disk: Path) -> None:
    with pytest.raises(StoreError) as refused:
        write(small_disk / "a.parquet", make_entries(30_000))
    assert refused.value.code == "store.disk_full"
    assert refused.value.where == str(small_disk / "a.parquet")
    assert os.listdir(small_disk) == []


@pytest.mark.parametrize("failing", range(1, 12))
def test_an_error_while_writing_is_told_once_and_never_by_a_destructor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    # Arrow formats the traceback of an error it was given, also when it meets it again in a destructor. There a nested
    # parse ends the process: CPython 3.11, "AST constructor recursion depth mismatch".
    formatted: list[object] = []
    writes = 0

    class Full:
        def __init__(self, handle: BinaryIO) -> None:
            self._handle = handle

        def write(self, data: object) -> int:
            nonlocal writes
            writes += 1
            if writes >= failing:
                raise OSError(errno.ENOSPC, "injected")
            return self._handle.write(data)

        def __getattr__(self, name: str) -> object:
            return getattr(self._handle, name)

    real = os.fdopen
    monkeypatch.setattr(os, "fdopen", lambda *given: Full(real(*given)))
    monkeypatch.setattr(traceback, "format_exception", lambda *given, **options: formatted.append(given) or [])
    try:
        write(tmp_path / "a.parquet", make_entries(70_000))
        code = None
    except StoreError as error:
        code = error.code
    gc.collect()
    assert writes >= failing
    assert code == "store.disk_full"
    assert formatted == []
    assert os.listdir(tmp_path) == []


def test_a_file_without_permission_is_named(open_folder: Path) -> None:
    digest = write(open_folder / "a.parquet", make_entries(3))
    with as_nobody(), pytest.raises(StoreError) as refused:
        read_entries(open_folder / "a.parquet", digest)
    assert refused.value.code == "store.permission"
    assert refused.value.where == str(open_folder / "a.parquet")
