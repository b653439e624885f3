"""The archive of a batch: each record's canonical bytes and, for a delivery, the row as delivered, encrypted.

docs/formats/archive.md gives every byte. In short: records are gathered into frames of about a mebibyte, each frame
compressed (zstd) and sealed with AES-256-GCM under a random key of this file; that key is wrapped by the archive key
and kept in the store. Batch label, frame number and kind are authenticated with each frame, and a last frame lists all
others: a file that was cut off, put together from others, or moved to another batch is refused by name.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from ledger.errors import InputError, StoreError
from ledger.store.entryfile import NO_FRAME
from ledger.store.files import NewFile, os_errors
from ledger.store.wrap import KEY_BYTES, unwrap_key, wrap_key

TAG_BYTES = 16  # of a key_tag
# Small enough to open one record quickly and to stay inside zstd's window, large enough to compress well.
FRAME_BYTES = 1 << 20
# A frame with one very long record may exceed FRAME_BYTES; no reader ever inflates more than this.
FRAME_LIMIT = 1 << 28

_MAGIC = b"duizhang-archive/1\n"
_HEAD = struct.Struct(">IB")  # rows, whether raw rows follow
_PLAIN_SIZE = struct.Struct(">I")
_INDEX_HEAD = struct.Struct(">IQ")  # frames, records
_INDEX_ROW = struct.Struct(">II")  # sealed length, records
_TAIL = struct.Struct(">I8s")  # sealed length of the index, end mark
_END = b"duiz-end"
_INDEX_NUMBER = NO_FRAME  # so no frame of records ever has it


class ArchiveRef(NamedTuple):
    """What the store keeps of an archive: the file's name in its folder, and its key, wrapped (hex)."""

    file_name: str
    key_wrapped: str


class Frame(NamedTuple):
    """The records of one frame in the order they were appended; `raw` is None where no raw rows were given."""

    key_tags: NDArray[np.uint8]  # (n, 16)
    canonical: list[bytes]
    raw: list[bytes] | None


class Archived(NamedTuple):
    """One record."""

    canonical: bytes
    raw: bytes | None


class _Span(NamedTuple):
    offset: int
    length: int
    records: int


class ArchiveWriter:
    """Writes one archive, a frame at a time; a context manager.

    The file appears only when `finish` is called; leaving the block without it removes what was written. Its name is
    that of `path` with 16 random hex digits before the suffix, told by `ArchiveRef`: a run that was interrupted after
    `finish`, whose key is lost, never stands in the way of the next. Records of the key tags `left_out` are never written:
    they were erased.
    """

    def __init__(self, path: Path, label: bytes, archive_key: bytes, left_out: frozenset[bytes] = frozenset()) -> None:
        self.path = path.with_name(f"{path.stem}-{secrets.token_hex(8)}{path.suffix}")
        self._label = label
        self._left_out = left_out
        key = secrets.token_bytes(KEY_BYTES)
        self._wrapped = wrap_key(key, label, archive_key)
        self._cipher = AESGCM(key)
        self._spans: list[_Span] = []
        self._offset = len(_MAGIC)
        self._finished = False
        with os_errors(self.path):
            self._new = NewFile(self.path)
            try:
                self._new.handle.write(_MAGIC)
            except BaseException:
                self._new.discard()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        self.abort()
        return False

    def append(
        self,
        key_tags: NDArray[np.uint8],
        canonical: Sequence[bytes] | pa.Array,
        raw: Sequence[bytes] | pa.Array | None = None,
    ) -> NDArray[np.uint32]:
        """Add records and return the frame of each, uint32 (n,), as an entry file keeps it: `NO_FRAME` for one that is left out.

        `key_tags` is uint8 (n, 16); `canonical` and `raw` hold n byte strings each, none of them null. InputError
        `archive.record_too_long` for a record that no frame may hold; `store.*` when writing fails.
        """
        count = len(key_tags)
        if key_tags.dtype != np.uint8 or key_tags.shape != (count, TAG_BYTES):
            raise ValueError(f"key_tags must be uint8 (n, 16), not {key_tags.dtype} {key_tags.shape}")
        if len(canonical) != count or (raw is not None and len(raw) != count):
            raise ValueError("there must be one key_tag, one canonical and one raw row for each record")
        frames = np.full(count, NO_FRAME, np.uint32)
        kept = np.flatnonzero(~among(key_tags, self._left_out))
        if len(kept) == count:
            return self._append(key_tags, canonical, raw)
        frames[kept] = self._append(key_tags[kept], _taken(canonical, kept), None if raw is None else _taken(raw, kept))
        return frames

    def _append(
        self,
        key_tags: NDArray[np.uint8],
        canonical: Sequence[bytes] | pa.Array,
        raw: Sequence[bytes] | pa.Array | None,
    ) -> NDArray[np.uint32]:
        count = len(key_tags)
        lengths = _lengths(canonical)
        raw_lengths = None if raw is None else _lengths(raw)
        sizes = lengths + (0 if raw_lengths is None else raw_lengths + 4) + (TAG_BYTES + 4)
        if count and int(sizes.max()) + _HEAD.size > FRAME_LIMIT:
            row = int(sizes.argmax())
            raise InputError(
                "archive.record_too_long",
                f"记录（key_tag {key_tags[row].tobytes().hex()}）长 {sizes[row]} 字节，超过归档上限 {FRAME_LIMIT}",
                f"the record with key_tag {key_tags[row].tobytes().hex()} takes {sizes[row]} bytes; the archive takes "
                f"at most {FRAME_LIMIT} a record",
                str(self.path),
            )
        frames = np.empty(count, np.uint32)
        ends = np.cumsum(sizes)
        start = 0
        while start < count:
            before = int(ends[start - 1]) if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, before + FRAME_BYTES, side="right")))
            parts = [
                _HEAD.pack(stop - start, raw is not None),
                key_tags[start:stop].tobytes(),
                lengths[start:stop].astype(">u4").tobytes(),
                b"" if raw_lengths is None else raw_lengths[start:stop].astype(">u4").tobytes(),
                *_items(canonical, start, stop),
                *([] if raw is None else _items(raw, start, stop)),
            ]
            frames[start:stop] = self._write(b"".join(parts), stop - start)
            start = stop
        return frames

    def _write(self, plain: bytes, records: int) -> int:
        # The size comes first, so that a reader never inflates more than it was told and allows.
        return self._seal(_PLAIN_SIZE.pack(len(plain)) + pa.Codec("zstd", 3).compress(plain, asbytes=True), records)

    def copy_without(self, reader: ArchiveReader, key_tags: Collection[bytes]) -> int:
        """Write every frame of `reader` again but the records of these key tags; returns how many were left out.

        The frames keep their numbers, so what entry files say of the others stays true; a frame may end up empty.
        """
        if self._spans:
            raise RuntimeError("this archive has frames of its own")
        gone = frozenset(key_tags)
        before = reader.records
        for number in range(reader.frames):
            frame = reader.frame(number)
            kept = np.flatnonzero(~among(frame.key_tags, gone))
            if len(kept) == len(frame.key_tags):
                self._seal(reader.packed(number), len(kept))
                continue
            raw = None if frame.raw is None else [frame.raw[row] for row in kept.tolist()]
            canonical = [frame.canonical[row] for row in kept.tolist()]
            if len(kept):
                # A part of a frame is never more than one frame.
                self._append(frame.key_tags[kept], canonical, raw)
            else:
                self._write(_HEAD.pack(0, raw is not None), 0)
        return before - sum(span.records for span in self._spans)

    def _seal(self, packed: bytes, records: int) -> int:
        number = len(self._spans)
        sealed = self._cipher.encrypt(_nonce(number), packed, _associated(self._label, number))
        with os_errors(self.path):
            self._new.handle.write(sealed)
        self._spans.append(_Span(self._offset, len(sealed), records))
        self._offset += len(sealed)
        return number

    def finish(self) -> ArchiveRef:
        """Write the index, sync, and let the file appear."""
        if self._finished:
            raise RuntimeError("this archive is finished already")
        index = _INDEX_HEAD.pack(len(self._spans), sum(span.records for span in self._spans))
        index += b"".join(_INDEX_ROW.pack(span.length, span.records) for span in self._spans)
        sealed = self._cipher.encrypt(_nonce(_INDEX_NUMBER), index, _associated(self._label, _INDEX_NUMBER))
        self._finished = True
        with os_errors(self.path):
            try:
                self._new.handle.write(sealed + _TAIL.pack(len(sealed), _END))
                self._new.publish(overwrite=False)
            finally:
                self._new.discard()
        return ArchiveRef(self.path.name, self._wrapped)

    def abort(self) -> None:
        """Remove what was written; nothing once finished."""
        self._finished = True
        self._new.discard()


class ArchiveReader:
    """Opens one archive; a context manager. Any frame is read alone, and iterating gives all of them in order.

    Opening checks the key and the index, so a missing end or added bytes show at once. InputError `archive.wrong_key`
    (another archive key; both ids are named); StoreError `store.archive_missing`, `store.archive_key_damaged` (the
    wrapped key was changed or is another batch's), `store.archive_damaged` (with the frame),
    `store.archive_record_missing`.
    """

    def __init__(self, path: Path, key_wrapped: str, archive_key: bytes, label: bytes) -> None:
        self.path = path
        self._label = label
        self._cipher = AESGCM(unwrap_key(key_wrapped, label, archive_key, path))
        self._last: tuple[int, Frame] | None = None
        self._rows: tuple[int, dict[bytes, int]] | None = None
        with os_errors(path):
            try:
                self._handle = open(path, "rb")  # noqa: SIM115 - kept open; closed by `close`
            except FileNotFoundError as error:
                raise StoreError(
                    "store.archive_missing",
                    f"归档文件 {path} 不见了；请从备份恢复",
                    "the archive file is gone; put it back from a backup",
                    str(path),
                ) from error
        try:
            self._spans = self._read_index()
        except BaseException:
            self._handle.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        self.close()
        return False

    def close(self) -> None:
        """Close the file."""
        self._handle.close()

    @property
    def frames(self) -> int:
        """How many frames there are; they are numbered from 0."""
        return len(self._spans)

    @property
    def records(self) -> int:
        """How many records there are in all."""
        return sum(span.records for span in self._spans)

    def __iter__(self) -> Iterator[Frame]:
        for number in range(self.frames):
            yield self.frame(number)

    def frame(self, number: int) -> Frame:
        """All records of one frame. The frame read last is kept, so neighbours cost nothing."""
        if self._last is not None and self._last[0] == number:
            return self._last[1]
        if not 0 <= number < self.frames:
            raise self._damaged(f"there is no frame {number}, the file has {self.frames}", f"没有第 {number} 帧")
        span = self._spans[number]
        packed = self.packed(number)
        size = _PLAIN_SIZE.unpack_from(packed)[0] if len(packed) >= _PLAIN_SIZE.size else FRAME_LIMIT + 1
        if size > FRAME_LIMIT:
            raise self._damaged(
                f"frame {number} claims {size} bytes, the limit is {FRAME_LIMIT}", f"第 {number} 帧过大"
            )
        try:
            plain = pa.Codec("zstd").decompress(packed[_PLAIN_SIZE.size :], decompressed_size=size, asbytes=True)
            frame = _parse_frame(plain, span.records)
        except (OSError, ValueError, struct.error) as error:
            raise self._damaged(f"frame {number}: {error}", f"第 {number} 帧内容有误") from error
        self._last = (number, frame)
        return frame

    def packed(self, number: int) -> bytes:
        """One frame decrypted, still compressed."""
        span = self._spans[number]
        return self._open_sealed(number, span.offset, span.length)

    def find(self, key_tag: bytes, frame: int) -> Archived:
        """The record of `key_tag` in that frame."""
        found = self.frame(frame)
        if self._rows is None or self._rows[0] != frame:
            # Of a tag that occurs twice, its first.
            tags = [tag.tobytes() for tag in found.key_tags]
            self._rows = (frame, {tag: row for row, tag in reversed(list(enumerate(tags)))})
        row = self._rows[1].get(key_tag)
        if row is None:
            raise StoreError(
                "store.archive_record_missing",
                f"归档文件 {self.path} 第 {frame} 帧中没有 key_tag {key_tag.hex()}",
                f"frame {frame} of the archive has no record with key_tag {key_tag.hex()}",
                str(self.path),
            )
        return Archived(found.canonical[row], None if found.raw is None else found.raw[row])

    def _open_sealed(self, number: int, offset: int, length: int) -> bytes:
        with os_errors(self.path):
            self._handle.seek(offset)
            sealed = self._handle.read(length)
        try:
            return self._cipher.decrypt(_nonce(number), sealed, _associated(self._label, number))
        except InvalidTag as error:
            if number == _INDEX_NUMBER:
                raise self._damaged("its index is not what was written", "索引与写入时不同") from error
            raise self._damaged(f"frame {number} is not what was written", f"第 {number} 帧与写入时不同") from error

    def _read_index(self) -> tuple[_Span, ...]:
        with os_errors(self.path):
            size = self._handle.seek(0, 2)
            self._handle.seek(0)
            magic = self._handle.read(len(_MAGIC))
            self._handle.seek(max(size - _TAIL.size, 0))
            tail = self._handle.read(_TAIL.size)
        if magic != _MAGIC:
            raise self._damaged("it does not begin as an archive of version 1", "开头不是归档格式 1")
        if size < len(_MAGIC) + _TAIL.size or not tail.endswith(_END):
            raise self._damaged("its end is missing or followed by other bytes", "结尾缺失或有多余内容")
        length = _TAIL.unpack(tail)[0]
        start = size - _TAIL.size - length
        if start < len(_MAGIC):
            raise self._damaged("it is too short for its index", "长度不足")
        index = self._open_sealed(_INDEX_NUMBER, start, length)
        count, records = _INDEX_HEAD.unpack_from(index)
        spans = []
        offset = len(_MAGIC)
        for sealed_length, held in _INDEX_ROW.iter_unpack(index[_INDEX_HEAD.size :]):
            spans.append(_Span(offset, sealed_length, held))
            offset += sealed_length
        # The index is authentic; that the frames fill the file as it says shows bytes that were added or taken away.
        if offset != start or len(spans) != count or sum(span.records for span in spans) != records:
            raise self._damaged("its frames do not fill it as its index says", "各帧长度与索引不符")
        return tuple(spans)

    def _damaged(self, why: str, zh: str) -> StoreError:
        return StoreError(
            "store.archive_damaged",
            f"归档文件 {self.path} 已损坏：{zh}；请从备份恢复",
            f"the archive file is damaged: {why}; put it back from a backup",
            str(self.path),
        )


def among(key_tags: NDArray[np.uint8], wanted: Collection[bytes]) -> NDArray[np.bool_]:
    """Which rows of `key_tags`, (n, 16), are among the `wanted`."""
    found = np.zeros(len(key_tags), np.bool_)
    if wanted and len(key_tags):
        # As two numbers: equal first halves are rare, so the second is looked at for few rows.
        halves = np.ascontiguousarray(key_tags).view("<u8")
        sought = np.frombuffer(b"".join(wanted), np.uint8).reshape(-1, TAG_BYTES)
        likely = np.flatnonzero(np.isin(halves[:, 0], np.ascontiguousarray(sought).view("<u8")[:, 0]))
        found[likely] = [key_tags[row].tobytes() in wanted for row in likely.tolist()]
    return found


def _parse_frame(plain: bytes, records: int) -> Frame:
    rows, has_raw = _HEAD.unpack_from(plain)
    if rows != records:
        raise ValueError(f"it holds {rows} records, its index says {records}")
    at = _HEAD.size
    tags = np.frombuffer(plain, np.uint8, rows * TAG_BYTES, at).reshape(-1, TAG_BYTES)
    at += rows * TAG_BYTES
    columns = []
    for _ in range(2 if has_raw else 1):
        columns.append(np.frombuffer(plain, ">u4", rows, at).astype(np.int64))
        at += 4 * rows
    if at + sum(int(column.sum()) for column in columns) != len(plain):
        raise ValueError("its lengths do not add up")
    strings = []
    for lengths in columns:
        ends = at + np.cumsum(lengths)
        strings.append([plain[end - length : end] for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)])
        at = int(ends[-1]) if rows else at
    return Frame(tags, strings[0], strings[1] if has_raw else None)


def _lengths(values: Sequence[bytes] | pa.Array) -> NDArray[np.int64]:
    if isinstance(values, pa.Array):
        if values.null_count:
            raise ValueError("an archived row is null")
        return np.asarray(pc.binary_length(values), np.int64)
    return np.fromiter(map(len, values), np.int64, len(values))


def _taken(values: Sequence[bytes] | pa.Array, rows: NDArray[np.int64]) -> Sequence[bytes] | pa.Array:
    return values.take(pa.array(rows)) if isinstance(values, pa.Array) else [values[row] for row in rows.tolist()]


def _items(values: Sequence[bytes] | pa.Array, start: int, stop: int) -> Sequence[bytes]:
    if isinstance(values, pa.Array):
        # Their bytes lie next to each other in Arrow's buffer; one slice of it spares an object for each row.
        part = values.slice(start, stop - start)
        width = "<i8" if pa.types.is_large_binary(part.type) or pa.types.is_large_string(part.type) else "<i4"
        offsets = np.frombuffer(part.buffers()[1], width)[part.offset : part.offset + len(part) + 1]
        data = part.buffers()[2]
        return [b"" if data is None else data.slice(int(offsets[0]), int(offsets[-1] - offsets[0])).to_pybytes()]
    return values[start:stop]


def _nonce(number: int) -> bytes:
    # Each file has a key of its own, so a frame's number is a nonce that cannot repeat.
    return number.to_bytes(12, "big")


def _associated(label: bytes, number: int) -> bytes:
    kind = b"index" if number == _INDEX_NUMBER else b"frame"
    return b"duizhang/1/archive-" + kind + number.to_bytes(4, "big") + label
