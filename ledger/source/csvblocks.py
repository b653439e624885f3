"""A CSV file's bytes as blocks of whole records, in UTF-8 whatever the file is in; the header comes first, alone."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ledger.errors import InputError
from ledger.source.compiled import Cut, Cutter
from ledger.source.compressed import Stream, os_error
from ledger.source.csvsyntax import Parser, Plain, Record, find_plain, unclosed

BLOCK_BYTES = 8 << 20
"""Bytes read at a time, about 20,000 rows: bounds memory, and is enough for a column at a time to pay."""
MAX_ROW_BYTES = 64 << 20
"""Bytes of one row; a file with a longer one is refused. Bounds what an unbalanced quote can swallow."""


@dataclass(frozen=True)
class Block:
    """Whole records, the first line counted from 1: `cut`, columns already; `data` with `plain`; or else `records`, taken apart already."""

    first_line: int
    data: bytes
    plain: Plain | None
    records: Sequence[Record]
    cut: Cut | None = None


Fill = Callable[[memoryview], int]
"""Puts the next bytes of a file at the start of a buffer; says how many, none at the end only."""


def blocks(fill: Fill, where: str, block_bytes: int, header_row: int = 1) -> Iterator[Block]:
    """The header's block (one record), then those of the rest of the file.

    The physical lines above `header_row` are passed over, whatever they hold. InputError `csv.empty`, `csv.quote`,
    `csv.row_size`.
    """
    held, line, final, cutter = _Held(fill, block_bytes), 1, False, None
    while not final:
        final = not held.read()
        if cutter is None:
            data = held.copy()
            if line < header_row:
                passed, data = _pass_lines(data, header_row - line, final=final)
                line += passed
                held.keep(data)
                if line < header_row:
                    continue
            parser = Parser(data, final=final, where=where, first_line=line)
            record = next(parser.records(), None)
            start = line
            line += parser.line
            held.drop(parser.place)
            if record is None:
                _check_size(data[parser.place :], parser.open_quote, where, line)
                continue
            cutter = Cutter(len(record.cells))
            yield Block(start + record.line, b"", None, [record])
        cut = cutter.cut(held.buffer, held.size, final=final)
        if cut is not None:
            yield Block(line, b"", None, (), cut)
            line += cut.line_count
            held.drop(cut.size)
            continue
        data = held.copy()
        plain = find_plain(data, final=final)
        if plain is not None:
            yield Block(line, data[: plain.size], plain, ())
            line, data = line + plain.line_count, data[plain.size :]
        elif data:
            parser = Parser(data, final=final, where=where, first_line=line)
            records = list(parser.records())
            yield Block(line, b"", None, records)
            line, data = line + parser.line, data[parser.place :]
            _check_size(data, parser.open_quote, where, line)
        held.keep(data)
    if cutter is None:
        raise InputError("csv.empty", "文件为空，没有表头", "the file is empty: it has no header", where)


class _Held:
    """The bytes that were read and have not been given out: the first `size` of `buffer`, which is the same from block to block."""

    def __init__(self, fill: Fill, block_bytes: int) -> None:
        self.buffer = bytearray()
        self.size = 0
        self._fill = fill
        self._block_bytes = block_bytes

    def read(self) -> int:
        """Read on; how many bytes there were."""
        wanted = self.size + self._block_bytes
        if len(self.buffer) < wanted:
            self.buffer = self.buffer[: self.size] + bytes(wanted - self.size)
        with memoryview(self.buffer) as all_of_it:
            found = self._fill(all_of_it[self.size : wanted])
        self.size += found
        return found

    def copy(self) -> bytes:
        """A copy."""
        return bytes(memoryview(self.buffer)[: self.size])

    def drop(self, count: int) -> None:
        """Of the first `count` bytes nothing is needed any more."""
        rest = self.buffer[count : self.size]
        self.buffer[: len(rest)] = rest
        self.size = len(rest)

    def keep(self, rest: bytes) -> None:
        """Nothing but these bytes, the last of what is held, is needed."""
        self.drop(self.size - len(rest))


_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\n|\r)")


def _pass_lines(data: bytes, count: int, *, final: bool) -> tuple[int, bytes]:
    """How many of `count` lines were passed over, and what follows them; of an unfinished line only its end is kept."""
    place = 0
    for passed in range(count):
        found = _LINE.match(data, place)
        # A CR at the end of what was read may be half of a CRLF.
        if found is None or (found.end() == len(data) and data.endswith(b"\r") and not final):
            return passed, data[place:] if data.endswith(b"\r") else b""
        place = found.end()
    return count, data[place:]


def _check_size(rest: bytes, open_quote: int | None, where: str, line: int) -> None:
    if len(rest) <= MAX_ROW_BYTES:
        return
    if open_quote is not None:
        raise unclosed(where, open_quote)
    raise InputError(
        "csv.row_size",
        f"一行超过 {MAX_ROW_BYTES >> 20} MiB",
        f"a row has more than {MAX_ROW_BYTES >> 20} MiB",
        f"{where}:{line}",
    )


def utf8_reader(file: Stream, encoding: str, where: str) -> Fill:
    """Reads on from the start of the file, without its byte order mark.

    What is not text in `encoding` stays as it is (utf-8), or becomes surrogates in UTF-8's form (gb18030): never text.
    InputError `csv.encoding` for the mark of another encoding, `csv.file` if reading fails.
    """
    file.seek(0)
    start = b""
    while len(start) < 4 and (more := _read(file, 4 - len(start), where)):
        start += more
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(
            "csv.encoding",
            "文件是 UTF-16；请另存为 UTF-8 的 CSV",
            "the file is UTF-16; save it as CSV in UTF-8",
            where,
        )
    marked = start.startswith(codecs.BOM_UTF8)
    if encoding == "utf-8":
        file.seek(len(codecs.BOM_UTF8) if marked else 0)
        return lambda buffer: _readinto(file, buffer, where)
    if marked:
        raise InputError(
            "csv.encoding",
            "文件带有 UTF-8 标记，不是 GB18030；请去掉 --encoding gb18030",
            "the file bears the mark of UTF-8, so it is not GB18030; leave out --encoding gb18030",
            where,
        )
    file.seek(4 if start == "\ufeff".encode("gb18030") else 0)
    return _Gb18030(file, where)


class _Gb18030:
    """See `utf8_reader`."""

    def __init__(self, file: Stream, where: str) -> None:
        self._file = file
        self._where = where
        self._decoder = codecs.getincrementaldecoder("gb18030")("surrogateescape")
        self._left = memoryview(b"")

    def __call__(self, buffer: memoryview) -> int:
        while not self._left:
            data = _read(self._file, len(buffer), self._where)
            text = self._decoder.decode(data, final=not data)
            self._left = memoryview(text.encode("utf-8", "surrogatepass"))
            if not data:
                break
        given = self._left[: len(buffer)]
        buffer[: len(given)] = given
        self._left = self._left[len(given) :]
        return len(given)


def _readinto(file: Stream, buffer: memoryview, where: str) -> int:
    try:
        if isinstance(file, io.BufferedReader):
            return file.readinto(buffer)
    except OSError as error:
        raise os_error(error, where) from error
    data = _read(file, len(buffer), where)
    buffer[: len(data)] = data
    return len(data)


def _read(file: Stream, size: int, where: str) -> bytes:
    try:
        return file.read(size)
    except OSError as error:
        raise os_error(error, where) from error


def encoding_of(name: str, where: str) -> str:
    """`utf-8` or `gb18030` for one of their names; InputError `csv.encoding_name` for any other."""
    plain = name.strip().lower().replace("_", "-")
    if plain in ("utf-8", "utf8", "utf-8-sig"):
        return "utf-8"
    if plain in ("gb18030", "gbk", "gb2312"):
        # GB18030 reads whatever its two predecessors wrote.
        return "gb18030"
    raise InputError(
        "csv.encoding_name",
        f"不支持编码 {name[:40]!r}，只有 utf-8 和 gb18030",
        f"encoding {name[:40]!r} is not known; there are utf-8 and gb18030",
        where,
    )


def advice_zh(encoding: str) -> str:
    """What to try when bytes are not text in `encoding`."""
    return "若文件为 GBK/GB18030 编码，请加 --encoding gb18030" if encoding == "utf-8" else "文件可能是 UTF-8 或已损坏"


def advice_en(encoding: str) -> str:
    """The same in English."""
    if encoding == "utf-8":
        return "if the file is GBK or GB18030, say --encoding gb18030"
    return "the file may be UTF-8, or is damaged"
