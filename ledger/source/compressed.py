"""A delivered file's bytes, unpacked on the way if they are compressed: .gz, .bz2, .xz, .zst.

Every byte of the file has to belong to a whole compressed stream: the standard library's own file objects pass over
what follows the last one in silence, so the streams are followed here. What unpacks to far more than it may is refused
before it is read.
"""

from __future__ import annotations

import bz2
import io
import lzma
import os
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pyarrow as pa

from ledger.errors import InputError

MAX_UNPACKED = 64 << 30
"""Bytes a compressed file may unpack to: bounds the time a hostile one takes; memory is bounded by reading in blocks."""
MAX_RATIO = 250
"""How many times its size a file may unpack to. Records differ in their keys, so tables reach 30; a bomb needs 1,000."""
RATIO_FROM = 32 << 20
"""Bytes from which on the ratio counts: a small file may be as regular as it likes."""
XZ_MEMORY = 256 << 20
"""Bytes the dictionary of an .xz file may take; `xz -9` asks for 64 MiB."""
_STEP = 1 << 20

_MAGIC: tuple[tuple[str, re.Pattern[bytes]], ...] = (
    ("gzip", re.compile(rb"\x1f\x8b")),
    # The block's own mark too: a text may begin with BZh9.
    ("bzip2", re.compile(rb"BZh[1-9](?:\x31\x41\x59\x26\x53\x59|\x17\x72\x45\x38\x50\x90)")),
    ("xz", re.compile(rb"\xfd7zXZ\x00")),
    ("zstd", re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL)),
)


class Stream(Protocol):
    """Bytes that can be read again from the start."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, none at the end only."""

    def seek(self, place: int, /) -> object:
        """Go on reading at `place` bytes from the start."""

    def fileno(self) -> int:
        """The file they come from."""

    def close(self) -> None:
        """Close that file."""


def compression_of(start: bytes) -> str | None:
    """`gzip`, `bzip2`, `xz` or `zstd` by the first bytes of a file; None if it is none of them."""
    return next((name for name, magic in _MAGIC if magic.match(start)), None)


def open_stream(path: Path) -> Stream:
    """The file for reading, unpacked if its first bytes say that it is compressed.

    InputError `csv.file` that says what is in the way; reading raises `compressed.<rule>`: `truncated`, `damaged`,
    `trailing`, `ratio`, `size`, `memory`.
    """
    file = open_bytes(path)
    try:
        kind = compression_of(file.read(16))
        file.seek(0)
    except OSError as error:
        file.close()
        raise os_error(error, str(path)) from error
    return file if kind is None else _Unpacked(file, kind, str(path))


def about_lines(path: Path, looked_at: int = 1 << 20) -> int | None:
    """About how many lines a file has, from how long its first are; None if it is compressed or cannot be read."""
    try:
        with path.open("rb") as file:
            sample = file.read(looked_at)
            size = os.fstat(file.fileno()).st_size
    except OSError:
        return None
    if not sample or compression_of(sample[:16]) is not None:
        return None
    return size * sample.count(b"\n") // len(sample)


def open_bytes(path: Path) -> BinaryIO:
    """The file for reading as it is; InputError `csv.file` that says what is in the way."""
    try:
        return path.open("rb")
    except OSError as error:
        raise os_error(error, str(path)) from error


def os_error(error: OSError, where: str) -> InputError:
    """What the operating system refused, in words."""
    if isinstance(error, FileNotFoundError):
        zh, en = "文件不存在", "there is no such file"
    elif isinstance(error, PermissionError):
        zh, en = "没有读取该文件的权限", "no permission to read this file"
    elif isinstance(error, IsADirectoryError):
        zh, en = "这是文件夹，不是文件", "this is a folder, not a file"
    else:
        zh, en = f"读取失败：{error.strerror}", f"reading failed: {error.strerror}"
    return InputError("csv.file", zh, en, where)


class _Unpacked:
    """See `open_stream`."""

    def __init__(self, file: BinaryIO, kind: str, where: str) -> None:
        self._file = file
        self._kind = kind
        self._where = where
        self.seek(0)

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()

    def seek(self, place: int, /) -> None:
        self._file.seek(0)
        self._given = 0
        self._left = b""
        self._next = self._zstd() if self._kind == "zstd" else self._members()
        while self._given < place and self.read(place - self._given):
            pass

    def read(self, size: int, /) -> bytes:
        parts: list[bytes] = []
        while size > 0:
            try:
                data = self._left or self._next()
            except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
                raise self._refusal(error) from error
            if not data:
                break
            data, self._left = data[:size], data[size:]
            parts.append(data)
            size -= len(data)
            self._given += len(data)
            self._check_size()
        return b"".join(parts)

    def _check_size(self) -> None:
        given, taken = self._given + len(self._left), self._file.tell()
        if given > MAX_UNPACKED:
            raise InputError(
                "compressed.size",
                f"解压后超过 {MAX_UNPACKED >> 30} GiB，拒绝读取",
                f"unpacks to more than {MAX_UNPACKED >> 30} GiB and is not read",
                self._where,
            )
        if given > RATIO_FROM and given > MAX_RATIO * taken:
            raise InputError(
                "compressed.ratio",
                f"解压比例超过 {MAX_RATIO} 倍（{taken} 字节解出 {given} 字节），疑似压缩炸弹；如确为数据，请解压后再交付",
                f"unpacks to more than {MAX_RATIO} times its size ({taken} bytes gave {given}), as only a bomb does; "
                "if it is data, deliver it unpacked",
                self._where,
            )

    def _members(self) -> Callable[[], bytes]:
        """The next bytes of one compressed stream after the other."""
        unpacker: Any = None
        packed = b""
        begun = False

        def more() -> bytes:
            nonlocal unpacker, packed, begun
            while True:
                if unpacker is None:
                    packed = packed if len(packed) >= 16 else packed + self._file.read(_STEP)
                    if not packed:
                        return b""
                    if begun and compression_of(packed) != self._kind:
                        raise InputError(
                            "compressed.trailing",
                            "压缩数据之后还有其他内容：文件可能损坏或被拼接，请重新压缩",
                            "something else follows the compressed data: the file may be damaged or glued together; "
                            "compress it again",
                            self._where,
                        )
                    unpacker, begun = _unpacker(self._kind), True
                if not packed and unpacker.needs_input:
                    packed = self._file.read(_STEP)
                    if not packed:
                        raise EOFError
                data: bytes = unpacker.decompress(packed, _STEP)
                packed = b""
                if unpacker.eof:
                    packed, unpacker = unpacker.unused_data, None
                if data:
                    return data

        return more

    def _zstd(self) -> Callable[[], bytes]:
        # Arrow's stream goes on over several frames and refuses what is none.
        stream = pa.CompressedInputStream(pa.PythonFile(_Borrowed(self._file), "r"), "zstd")
        return lambda: bytes(stream.read(_STEP))

    def _refusal(self, error: Exception) -> InputError:
        if isinstance(error, EOFError) or "Truncated" in str(error):
            return InputError(
                "compressed.truncated",
                f"{self._kind} 压缩文件不完整，末尾缺失；请重新传输",
                f"the {self._kind} file is cut short; transfer it again",
                self._where,
            )
        if isinstance(error, OSError) and error.errno is not None:
            return os_error(error, self._where)
        if "emory usage limit" in str(error):
            return InputError(
                "compressed.memory",
                f"解压所需内存超过 {XZ_MEMORY >> 20} MiB；请用较低级别重新压缩",
                f"needs more than {XZ_MEMORY >> 20} MiB of memory to unpack; compress it at a lower level",
                self._where,
            )
        return InputError(
            "compressed.damaged",
            f"{self._kind} 压缩数据已损坏；请重新传输",
            f"the {self._kind} data are damaged; transfer the file again",
            self._where,
        )


class _Borrowed(io.RawIOBase):
    """A file that Arrow reads from and does not close."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        return self._file.read(size)


def _unpacker(kind: str) -> Any:
    if kind == "bzip2":
        return bz2.BZ2Decompressor()
    if kind == "xz":
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
    return _Gunzip()


class _Gunzip:
    """One member of a .gz file, in the words of the other two decompressors."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(31)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    def decompress(self, data: bytes, most: int) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, most)
