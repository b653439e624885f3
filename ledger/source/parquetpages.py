"""How wide the values of a Parquet column can become, from its pages and not from what the file says of them.

Arrow decodes values much faster one after the other than into a dictionary, but then a value that stands in the file once and is
referred to a million times is in memory a million times. So the pages are looked at first: their headers (Thrift's compact protocol), which
tell how they are encoded, and the dictionary.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, BinaryIO

import pyarrow as pa

from ledger.native import load

MAX_PAGES = 10_000
"""Pages of a column of one row group that are looked at; a writer makes them of about 1 MiB or 20,000 rows."""
MAX_HEADER = 1 << 16
"""Bytes of a page's header, which may hold its least and its greatest value."""
MAX_DICTIONARY = 16 << 20
"""Bytes of a dictionary that is looked at; writers stop at about 1 MiB."""
_HEADER_STEP = 512
_SMALL = 4096
"""A dictionary of no more bytes is its own bound."""

_DATA, _INDEX, _DICTIONARY, _DATA_2 = range(4)
_CODED = (2, 8)
# Every byte of a value stands in its page: PLAIN and DELTA_LENGTH_BYTE_ARRAY. With DELTA_BYTE_ARRAY its beginning may be that of the one before.
_SPELT_OUT = (0, 6)
# What Arrow calls LZ4 here is LZ4_RAW; the older form of that name it calls UNKNOWN.
_CODECS = {
    "UNCOMPRESSED": None,
    "SNAPPY": "snappy",
    "GZIP": "gzip",
    "ZSTD": "zstd",
    "BROTLI": "brotli",
    "LZ4": "lz4_raw",
}


def widest(file: BinaryIO, chunk: Any) -> int | None:
    """A bound, on the average over any page, of the bytes of a value in one column of one row group (pyarrow.parquet.ColumnChunkMetaData) of
    text; None where none can be given, and a dictionary must be made."""
    if chunk.physical_type != "BYTE_ARRAY" or chunk.compression not in _CODECS:
        return None
    bound = 0
    try:
        for page in _pages(file, chunk):
            if page.kind == _DICTIONARY:
                found = _dictionary(file, page, _CODECS[chunk.compression])
            elif page.encoding in _SPELT_OUT:
                found = page.unpacked // max(page.values, 1) + 1
            elif page.encoding in _CODED:
                found = 0
            else:
                return None
            bound = max(bound, found)
    except (_OddError, pa.ArrowException, OSError):
        # Whatever is wrong with the file, the reader will say.
        return None
    return bound


class _OddError(Exception):
    """Not as this module expects it."""


@dataclass(frozen=True)
class _Page:
    kind: int
    encoding: int
    values: int
    place: int
    packed: int
    unpacked: int


def _pages(file: BinaryIO, chunk: Any) -> Iterator[_Page]:
    """Every page that Arrow would read."""
    first = chunk.dictionary_page_offset if chunk.has_dictionary_page else None
    place = chunk.data_page_offset
    if first is not None and 0 < first < place:
        place = first
    end, seen, count = place + chunk.total_compressed_size, 0, 0
    while seen < chunk.num_values and place < end:
        count += 1
        if count > MAX_PAGES:
            raise _OddError
        page = _header(file, place)
        yield page
        place = page.place + page.packed
        if page.kind != _DICTIONARY:
            seen += page.values


def _header(file: BinaryIO, place: int) -> _Page:
    size = _HEADER_STEP
    while True:
        file.seek(place)
        data = file.read(size)
        try:
            header, end = _struct(data, 0, 0)
            break
        except IndexError:
            if len(data) < size or size >= MAX_HEADER:
                raise _OddError from None
            size = min(8 * size, MAX_HEADER)
    kind = _number(header, 1)
    about = header.get({_DATA: 5, _DICTIONARY: 7, _DATA_2: 8}.get(kind, -1))
    if not isinstance(about, dict):
        raise _OddError
    encoding = _number(about, 4 if kind == _DATA_2 else 2)
    return _Page(kind, encoding, _number(about, 1), place + end, packed=_number(header, 3), unpacked=_number(header, 2))


def _number(fields: dict[int, Any], name: int) -> int:
    found = fields.get(name)
    if type(found) is not int or not 0 <= found < 2**31:
        raise _OddError
    return found


def _dictionary(file: BinaryIO, page: _Page, codec: str | None) -> int:
    if codec is None and page.packed != page.unpacked:
        # Arrow takes what is not compressed by its length in the file, whatever the header says it unpacks to.
        raise _OddError
    if page.unpacked <= _SMALL:
        return page.unpacked
    if page.unpacked > MAX_DICTIONARY:
        raise _OddError
    file.seek(page.place)
    data = file.read(page.packed)
    if codec is not None:
        data = pa.Codec(codec).decompress(data, page.unpacked, asbytes=True)
    function = longest_of()
    found = (
        _longest(data, page.values)
        if function is None
        else function(data, *map(ctypes.c_int64, (len(data), page.values)))
    )
    if found < 0:
        raise _OddError
    return found


def _struct(data: bytes, place: int, depth: int) -> tuple[dict[int, Any], int]:
    """A struct of Thrift's compact protocol, by the numbers of its fields, and where it ends; IndexError if `data` ends first."""
    if depth > 8:
        raise _OddError
    fields: dict[int, Any] = {}
    name = 0
    while True:
        byte = data[place]
        place += 1
        if byte == 0:
            return fields, place
        if byte >> 4:
            name += byte >> 4
        else:
            name, place = _signed(data, place)
        if name in fields:
            raise _OddError
        fields[name], place = _value(data, place, byte & 15, depth)


def _value(data: bytes, place: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (1, 2):
        return kind == 1, place
    if kind == 3:
        return data[place], place + 1
    if kind in (4, 5, 6):
        return _signed(data, place)
    if kind == 7:
        return None, place + 8
    if kind == 8:
        size, place = _unsigned(data, place)
        return None, place + size
    if kind == 12:
        return _struct(data, place, depth + 1)
    # No page header has a list or a map.
    raise _OddError


def _unsigned(data: bytes, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, place
        shift += 7
        if shift > 63:
            raise _OddError


def _signed(data: bytes, place: int) -> tuple[int, int]:
    number, place = _unsigned(data, place)
    return (number >> 1) ^ -(number & 1), place


def _longest(data: bytes, count: int) -> int:
    """`dz_longest`."""
    longest = place = 0
    for _ in range(count):
        size = int.from_bytes(data[place : place + 4], "little")
        longest, place = max(longest, size), place + 4 + size
        if place > len(data):
            return -1
    return longest if place == len(data) else -1


@cache
def longest_of() -> Any | None:
    """`dz_longest`, or None."""
    function = getattr(load(), "dz_longest", None)
    if function is None:
        return None
    function.restype = ctypes.c_int64
    data = b"\x01\0\0\0a\x03\0\0\0abc\0\0\0\0"
    asked = [function(data, ctypes.c_int64(len(data)), ctypes.c_int64(count)) for count in range(5)]
    return function if asked == [_longest(data, count) for count in range(5)] else None
