from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ledger.errors import InputError, StoreError
from ledger.store import archive
from ledger.store.archive import Archived, ArchiveReader, ArchiveRef, ArchiveWriter
from ledger.store.wrap import archive_key_id, unwrap_key, wrap_key
from tests.store.conftest import as_nobody, make_entries

KEY = bytes(range(32))
LABEL = b"00ff/lawful"


def tags(count: int, seed: int = 1) -> np.ndarray:
    return np.ascontiguousarray(make_entries(count, seed)[:, 16:32])


def records(count: int) -> tuple[list[bytes], list[bytes]]:
    canonical = [f'{{"record":{{"name":"企业{i}","n":"{"x" * (i % 50)}"}}}}'.encode() for i in range(count)]
    return canonical, [f'["企业{i}",""]'.encode() if i % 4 else b"" for i in range(count)]


def write(folder: Path, count: int = 10, label: bytes = LABEL, **options: bool) -> ArchiveRef:
    canonical, raw = records(count)
    with ArchiveWriter(folder / "a.archive", label, KEY) as writer:
        writer.append(tags(count), canonical, raw if options.get("raw", True) else None)
        return writer.finish()


def read(folder: Path, ref: ArchiveRef, label: bytes = LABEL, key: bytes = KEY) -> list[archive.Frame]:
    with ArchiveReader(folder / ref.file_name, ref.key_wrapped, key, label) as reader:
        return list(reader)


@pytest.fixture
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "FRAME_BYTES", 200)


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("kind", ["lists", "arrays", "large arrays", "slices"])
def test_every_record_comes_back_from_the_frame_it_was_put_in(
    tmp_path: Path, small_frames: None, kind: str, raw: bool
) -> None:
    key_tags, (canonical, delivered) = tags(100), records(100)
    given: Callable[[list[bytes]], object] = {
        "lists": lambda values: values,
        "arrays": lambda values: pa.array(values, pa.binary()),
        "large arrays": lambda values: pa.array(values, pa.large_binary()),
        "slices": lambda values: pa.array([b"before", *values, b"after"], pa.binary()).slice(1, len(values)),
    }[kind]
    with ArchiveWriter(tmp_path / "a.archive", LABEL, KEY) as writer:
        parts = [
            writer.append(
                key_tags[start : start + 30],
                given(canonical[start : start + 30]),
                given(delivered[start : start + 30]) if raw else None,
            )
            for start in range(0, 100, 30)
        ]
        ref = writer.finish()
    frames = np.concatenate(parts)
    assert frames.dtype == np.uint32
    with ArchiveReader(tmp_path / ref.file_name, ref.key_wrapped, KEY, LABEL) as reader:
        assert reader.records == 100
        assert reader.frames == frames.max() + 1 > 10
        for row in np.random.default_rng(2).permutation(100):
            expected = Archived(canonical[row], delivered[row] if raw else None)
            assert reader.find(key_tags[row].tobytes(), int(frames[row])) == expected
        whole = list(reader)
    assert [record for frame in whole for record in frame.canonical] == canonical
    np.testing.assert_array_equal(np.concatenate([frame.key_tags for frame in whole]), key_tags)
    assert [frame.raw is not None for frame in whole] == [raw] * len(whole)


def test_nothing_can_be_archived(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path / "a.archive", LABEL, KEY) as writer:
        assert len(writer.append(tags(0), [], [])) == 0
        assert len(writer.append(tags(0), pa.array([], pa.binary()))) == 0
        ref = writer.finish()
    with ArchiveReader(tmp_path / ref.file_name, ref.key_wrapped, KEY, LABEL) as reader:
        assert (reader.frames, reader.records, list(reader)) == (0, 0, [])


def test_empty_byte_strings_are_kept(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path / "a.archive", LABEL, KEY) as writer:
        writer.append(tags(2), [b"", b""], pa.array([b"", b""], pa.binary()))
        ref = writer.finish()
    assert read(tmp_path, ref)[0].canonical == [b"", b""]
    assert read(tmp_path, ref)[0].raw == [b"", b""]


def test_a_record_longer_than_a_frame_gets_one_of_its_own(tmp_path: Path, small_frames: None) -> None:
    long = os.urandom(5_000)
    with ArchiveWriter(tmp_path / "a.archive", LABEL, KEY) as writer:
        frames = writer.append(tags(3), [b"short", long, b"short"])
        ref = writer.finish()
    assert frames.tolist() == [0, 1, 2]
    assert read(tmp_path, ref)[1].canonical == [long]


def test_a_record_no_frame_may_hold_is_refused_by_its_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "FRAME_LIMIT", 1_000)
    key_tags = tags(2)
    with ArchiveWriter(tmp_path / "a.archive", LABEL, KEY) as writer:
        writer.append(key_tags[:1], [b"x" * (1_000 - 25)])
        with pytest.raises(InputError) as refused:
            writer.append(key_tags, [b"", b"x" * (1_000 - 24)])
    assert refused.value.code == "archive.record_too_long"
    assert key_tags[1].tobytes().hex() in refused.value.en


def test_the_file_is_private_and_shows_no_content(tmp_path: Path) -> None:
    ref = write(tmp_path)
    path = tmp_path / ref.file_name
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    data = path.read_bytes()
    assert "企业".encode() not in data
    assert tags(10)[0].tobytes() not in data
    assert KEY not in data


def test_an_archive_left_unfinished_disappears(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path / "a.archive", LABEL, KEY) as writer:
        writer.append(tags(3), records(3)[0])
    assert os.listdir(tmp_path) == []


def test_a_second_archive_of_one_name_stands_beside_the_first(tmp_path: Path) -> None:
    # The first run may have died before it stored its key: its file must not stand in the way.
    first, second = write(tmp_path), write(tmp_path)
    assert first.file_name != second.file_name
    assert len(read(tmp_path, first)) == len(read(tmp_path, second)) == 1


def test_a_finished_archive_takes_no_second_finish(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path / "a.archive", LABEL, KEY) as writer:
        writer.finish()
        with pytest.raises(RuntimeError):
            writer.finish()


@pytest.mark.parametrize("wrong", ["tags", "width", "raw", "null"])
def test_columns_that_do_not_belong_together_are_a_programming_error(tmp_path: Path, wrong: str) -> None:
    key_tags: np.ndarray = tags(3)
    canonical: object = [b"1", b"2", b"3"]
    raw: object = None
    match wrong:
        case "tags":
            key_tags = key_tags[:2]
        case "width":
            key_tags = key_tags[:, :15]
        case "raw":
            raw = [b"1"]
        case "null":
            canonical = pa.array([b"1", None, b"3"], pa.binary())
    with ArchiveWriter(tmp_path / "a.archive", LABEL, KEY) as writer, pytest.raises(ValueError, match=r"must be|null"):
        writer.append(key_tags, canonical, raw)


# The format of docs/formats/archive.md, read by a second implementation that knows the page only


def test_a_reader_made_from_the_page_opens_the_file(tmp_path: Path, small_frames: None) -> None:
    ref = write(tmp_path, 20)
    wrapped = bytes.fromhex(ref.key_wrapped)
    assert len(wrapped) == 68
    assert wrapped[:8] == sha256(b"duizhang/1/archive-key-id" + KEY).digest()[:8]
    file_key = AESGCM(KEY).decrypt(wrapped[8:20], wrapped[20:], b"duizhang/1/archive-key" + LABEL)
    data = (tmp_path / ref.file_name).read_bytes()
    assert data.startswith(b"duizhang-archive/1\n")
    assert data.endswith(b"duiz-end")
    (length,) = struct.unpack(">I", data[-12:-8])
    last = 4294967295
    index = AESGCM(file_key).decrypt(
        last.to_bytes(12, "big"),
        data[-12 - length : -12],
        b"duizhang/1/archive-index" + last.to_bytes(4, "big") + LABEL,
    )
    count, total = struct.unpack(">IQ", index[:12])
    assert total == 20
    assert count > 3
    found = []
    assert len(index) == 12 + 8 * count
    offset = 19
    for i in range(count):
        sealed, rows = struct.unpack(">II", index[12 + 8 * i : 20 + 8 * i])
        packed = AESGCM(file_key).decrypt(
            i.to_bytes(12, "big"),
            data[offset : offset + sealed],
            b"duizhang/1/archive-frame" + i.to_bytes(4, "big") + LABEL,
        )
        (size,) = struct.unpack(">I", packed[:4])
        plain = pa.decompress(packed[4:], size, codec="zstd", asbytes=True)
        assert struct.unpack(">IB", plain[:5]) == (rows, 1)
        lengths = struct.unpack(f">{2 * rows}I", plain[5 + 16 * rows : 5 + 24 * rows])
        at = 5 + 24 * rows
        strings = []
        for width in lengths:
            strings.append(plain[at : at + width])
            at += width
        assert at == len(plain)
        offset += sealed
        found += zip(strings[:rows], strings[rows:], strict=True)
    assert offset == len(data) - 12 - length
    assert found == list(zip(*records(20), strict=True))


# Attacks


def frame_spans(folder: Path, ref: ArchiveRef) -> list[tuple[int, int]]:
    with ArchiveReader(folder / ref.file_name, ref.key_wrapped, KEY, LABEL) as reader:
        return [(span.offset, span.offset + span.length) for span in reader._spans]


def exchange(data: bytes, first: tuple[int, int], second: tuple[int, int]) -> bytes:
    (a, b), (c, d) = first, second
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


CHANGES: dict[str, Callable[[bytes, list[tuple[int, int]]], bytes]] = {
    "empty": lambda data, spans: b"",
    "only the beginning": lambda data, spans: data[:19],
    "cut off by one byte": lambda data, spans: data[:-1],
    "cut off after a frame": lambda data, spans: data[: spans[2][1]],
    "cut off inside a frame": lambda data, spans: data[: spans[2][1] - 5],
    "a line feed added": lambda data, spans: data + b"\n",
    "its end added again": lambda data, spans: data + data[-12:],
    "a frame left out": lambda data, spans: data[: spans[1][0]] + data[spans[1][1] :],
    "a frame repeated": lambda data, spans: data[: spans[1][1]] + data[spans[1][0] :],
    "bytes between frames and index": lambda data, spans: data[: spans[-1][1]] + b"x" + data[spans[-1][1] :],
    "the index in the place of a frame": lambda data, spans: data[: spans[0][0]] + data[spans[-1][1] :],
    "frames exchanged": lambda data, spans: exchange(data, spans[0], spans[1]),
    "another version": lambda data, spans: data.replace(b"archive/1\n", b"archive/2\n", 1),
    "an index longer than the file": lambda data, spans: data[:-12] + b"\xff\xff\xff\xff" + data[-8:],
    "an index without length": lambda data, spans: data[:-12] + b"\0\0\0\0" + data[-8:],
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_archive_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    # Frames of equal length, so that exchanging two leaves all offsets right.
    monkeypatch.setattr(archive, "FRAME_BYTES", 100)
    with ArchiveWriter(tmp_path / "a.archive", LABEL, KEY) as writer:
        writer.append(tags(5), [bytes([i]) * 80 for i in range(5)])
        ref = writer.finish()
    spans = frame_spans(tmp_path, ref)
    assert len(spans) == 5
    assert len({stop - start for start, stop in spans}) == 1
    path = tmp_path / ref.file_name
    path.write_bytes(CHANGES[name](path.read_bytes(), spans))
    with pytest.raises(StoreError) as refused:
        read(tmp_path, ref)
    assert refused.value.code == "store.archive_damaged"
    assert str(path) in refused.value.zh
    assert refused.value.where == str(path)


def test_one_flipped_bit_anywhere_is_noticed(tmp_path: Path, small_frames: None) -> None:
    ref = write(tmp_path, 6)
    path = tmp_path / ref.file_name
    data = path.read_bytes()
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :])
        with pytest.raises(StoreError) as refused:
            read(tmp_path, ref)
        assert refused.value.code == "store.archive_damaged"


def test_a_damaged_frame_is_named_and_the_others_stay_readable(tmp_path: Path, small_frames: None) -> None:
    ref = write(tmp_path, 20)
    path = tmp_path / ref.file_name
    start, _ = frame_spans(tmp_path, ref)[2]
    data = bytearray(path.read_bytes())
    data[start] ^= 1
    path.write_bytes(data)
    with ArchiveReader(path, ref.key_wrapped, KEY, LABEL) as reader:
        reader.frame(1)
        reader.frame(3)
        with pytest.raises(StoreError, match="frame 2 ") as refused:
            reader.frame(2)
    assert "第 2 帧" in refused.value.zh


def test_a_file_of_another_batch_does_not_open(tmp_path: Path) -> None:
    ref = write(tmp_path)
    with pytest.raises(StoreError) as refused:
        read(tmp_path, ref, label=b"00ff/held")
    assert refused.value.code == "store.archive_key_damaged"


def test_a_frame_under_another_label_does_not_open(tmp_path: Path) -> None:
    # As when someone with the archive key wrapped a file's key for another batch.
    ref = write(tmp_path)
    file_key = unwrap_key(ref.key_wrapped, LABEL, KEY, tmp_path)
    moved = ArchiveRef(ref.file_name, wrap_key(file_key, b"11ff/lawful", KEY))
    with pytest.raises(StoreError) as refused:
        read(tmp_path, moved, label=b"11ff/lawful")
    assert refused.value.code == "store.archive_damaged"


def test_two_files_of_one_label_cannot_be_exchanged(tmp_path: Path) -> None:
    first, second = write(tmp_path), write(tmp_path)
    with pytest.raises(StoreError) as refused:
        read(tmp_path, ArchiveRef(second.file_name, first.key_wrapped))
    assert refused.value.code == "store.archive_damaged"


def test_another_archive_key_is_refused_with_both_ids(tmp_path: Path) -> None:
    ref = write(tmp_path)
    other = bytes(32)
    with pytest.raises(InputError) as refused:
        read(tmp_path, ref, key=other)
    assert refused.value.code == "archive.wrong_key"
    for text in (refused.value.zh, refused.value.en):
        assert archive_key_id(KEY).hex() in text
        assert archive_key_id(other).hex() in text


@pytest.mark.parametrize(
    "change", ["flipped nonce", "flipped key", "flipped tag", "cut off", "longer", "no hex", "empty"]
)
def test_a_changed_wrapped_key_is_refused(tmp_path: Path, change: str) -> None:
    ref = write(tmp_path)
    data = bytearray.fromhex(ref.key_wrapped)
    text = {
        "flipped nonce": lambda: bytes([*data[:10], data[10] ^ 1, *data[11:]]).hex(),
        "flipped key": lambda: bytes([*data[:30], data[30] ^ 1, *data[31:]]).hex(),
        "flipped tag": lambda: bytes([*data[:67], data[67] ^ 1]).hex(),
        "cut off": data[:-1].hex,
        "longer": lambda: data.hex() + "00",
        "no hex": lambda: "x" * 136,
        "empty": lambda: "",
    }[change]()
    with pytest.raises(StoreError) as refused:
        read(tmp_path, ArchiveRef(ref.file_name, text))
    assert refused.value.code == "store.archive_key_damaged"


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    ref = write(tmp_path)
    (tmp_path / ref.file_name).unlink()
    with pytest.raises(StoreError) as refused:
        read(tmp_path, ref)
    assert refused.value.code == "store.archive_missing"
    assert refused.value.where.endswith(ref.file_name)


def test_a_record_that_is_not_in_the_frame_is_named(tmp_path: Path) -> None:
    ref = write(tmp_path)
    with ArchiveReader(tmp_path / ref.file_name, ref.key_wrapped, KEY, LABEL) as reader:
        with pytest.raises(StoreError) as refused:
            reader.find(b"\xee" * 16, 0)
        assert refused.value.code == "store.archive_record_missing"
        assert "ee" * 16 in refused.value.en
        for number in (1, -1, 0xFFFFFFFF):
            with pytest.raises(StoreError, match=f"no frame {number}"):
                reader.frame(number)


def seal_one(folder: Path, packed: bytes, rows: int) -> ArchiveRef:
    """An archive whose only frame holds `packed`, made by someone who has the keys."""
    writer = ArchiveWriter(folder / "a.archive", LABEL, KEY)
    sealed = writer._cipher.encrypt(bytes(12), packed, b"duizhang/1/archive-frame" + bytes(4) + LABEL)
    writer._new.handle.write(sealed)
    writer._spans.append(archive._Span(19, len(sealed), rows))
    return writer.finish()


def pack(plain: bytes, size: int | None = None) -> bytes:
    return struct.pack(">I", len(plain) if size is None else size) + pa.compress(plain, codec="zstd", asbytes=True)


GOOD = struct.pack(">IB", 1, 0) + bytes(16) + struct.pack(">I", 3) + b"abc"
FRAMES = {
    # content, the records its index says, what the refusal says
    "inflates to more than it says": (pack(bytes(10_000_000), size=100), 1, "ZSTD"),
    "says more than it inflates to": (pack(GOOD, size=len(GOOD) + 1), 1, "ZSTD"),
    "says more than the limit": (pack(GOOD, size=(1 << 28) + 1), 1, "the limit is 268435456"),
    "no zstd": (struct.pack(">I", 8) + b"garbage!", 1, "ZSTD"),
    "empty": (b"", 1, "the limit is"),
    "more records than its index says": (pack(GOOD), 0, "it holds 1 records, its index says 0"),
    "bytes after the records": (pack(GOOD + b"x"), 1, "do not add up"),
    "lengths past the end": (pack(GOOD[:-1]), 1, "do not add up"),
    "too short for its records": (pack(struct.pack(">IB", 1_000_000, 0)), 1_000_000, "buffer"),
}


def test_the_frames_below_differ_from_a_good_one(tmp_path: Path) -> None:
    assert read(tmp_path, seal_one(tmp_path, pack(GOOD), 1))[0].canonical == [b"abc"]


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_sealed_with_the_right_key_is_still_checked(tmp_path: Path, name: str) -> None:
    packed, rows, why = FRAMES[name]
    ref = seal_one(tmp_path, packed, rows)
    with pytest.raises(StoreError, match=f"frame 0.*{why}") as refused:
        read(tmp_path, ref)
    assert refused.value.code == "store.archive_damaged"


def test_a_full_disk_leaves_no_archive(small_disk: Path) -> None:
    with ArchiveWriter(small_disk / "a.archive", LABEL, KEY) as writer, pytest.raises(StoreError) as refused:
        writer.append(tags(3), [os.urandom(500_000) for _ in range(3)])
    assert refused.value.code == "store.disk_full"
    assert os.listdir(small_disk) == []


def test_a_folder_without_permission_is_named(open_folder: Path) -> None:
    with as_nobody(), pytest.raises(StoreError) as refused:
        ArchiveWriter(open_folder / "a.archive", LABEL, KEY)
    assert refused.value.code == "store.permission"
    assert str(open_folder) in refused.value.where
