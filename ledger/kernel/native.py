"""Hashing at the speed of the processor, if native/hash.c could be compiled; the same bytes from the standard library if not.

`tags`, `commitments`, `root`, `subroots` and `objects` are all there is. A compiled one that does not give the published bytes of its own check is not used.
"""

from __future__ import annotations

import ctypes
import hashlib
import hmac
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import rfc8785
from numpy.typing import NDArray

from ledger import merkle
from ledger.native import load

TAG_BYTES = 16
_ROOT_BLOCK = 1 << 16
_CHECKED_LEAVES = 3 * 256 + 5
Bytes2D = NDArray[np.uint8]


def engine() -> str:
    """What hashes here: `native+sha` (the processor's own instructions), `native`, or `reference`."""
    found = _load()
    if found is None:
        return "reference"
    return "native+sha" if found.dz_instructions() else "native"


def functions() -> Any:
    """The compiled library, checked; None where there is none."""
    return _load()


def tags(key: bytes, messages: Any) -> Bytes2D:
    """The first 16 bytes of the HMAC-SHA-256 under `key` (32 bytes) of each of `messages` (pa.binary()), (n, 16)."""
    found = _load()
    if found is not None:
        return _run(found.dz_tags, key, messages, TAG_BYTES)
    mac = _Hmac(key)
    return _matrix([mac.digest(message) for message in messages.to_pylist()])[:, :TAG_BYTES]


def commitments(key: bytes, records: Any) -> Bytes2D:
    """SHA-256(salt, d) with d = SHA-256(record) and salt = HMAC(d): the commitments of canonical bytes (F4), (n, 32)."""
    found = _load()
    if found is not None:
        return _run(found.dz_commitments, key, records, 32)
    mac, sha256 = _Hmac(key), hashlib.sha256
    digests = [sha256(record).digest() for record in records.to_pylist()]
    return _matrix([sha256(mac.digest(digest) + digest).digest() for digest in digests])


def root(entries: Bytes2D) -> bytes:
    """The root of the tree over (n, 64) entries in the order given (F5); see `merkle.root_of`."""
    found = _load()
    if found is None:
        return merkle.root_of(_rows(entries))[1]
    whole = np.ascontiguousarray(entries, np.uint8)
    _check(whole, 64)
    out = ctypes.create_string_buffer(32)
    found.dz_root(ctypes.c_void_p(whole.ctypes.data), ctypes.c_int64(len(whole)), out, 0)
    return out.raw


def subroots(entries: Bytes2D) -> Bytes2D:
    """The tiles of the tree over (n, 64) entries, one row each; see `merkle.tiles_of`. Their fold is the root: nothing is hashed twice."""
    found = _load()
    if found is None:
        return _matrix(merkle.tiles_of(_rows(entries)))
    whole = np.ascontiguousarray(entries, np.uint8)
    _check(whole, 64)
    return _subroots(found, whole, merkle.TILE)


def _subroots(found: Any, entries: Bytes2D, each: int, portable: int = 0) -> Bytes2D:
    out = np.empty((-(-len(entries) // each), 32), np.uint8)
    found.dz_subroots(
        ctypes.c_void_p(entries.ctypes.data),
        ctypes.c_int64(len(entries)),
        ctypes.c_int64(each),
        ctypes.c_void_p(out.ctypes.data),
        portable,
    )
    return out


def objects(members: Sequence[tuple[bytes, Any]], tail: bytes) -> Any | None:
    """Rows as JSON objects, pa.binary(): for each member what stands before its value and the values, pa.string() of one length, written
    as RFC 8785 strings, or `null`; then `tail`. None where the reference must do it (`canonical`)."""
    found = _load()
    arrays = [values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values for _, values in members]
    if found is None or not arrays or any(array.type != pa.string() for array in arrays):
        return None
    return _objects(found, [before for before, _ in members], arrays, tail)


class _Column(ctypes.Structure):
    """`Column` of hash.c."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("offsets", ctypes.c_void_p),
        ("valid", ctypes.c_void_p),
        ("first", ctypes.c_int64),
        ("before", ctypes.c_char_p),
        ("before_size", ctypes.c_int64),
    )


def _objects(found: Any, befores: Sequence[bytes], arrays: Sequence[Any], tail: bytes) -> Any | None:
    count = len(arrays[0])
    if any(len(array) != count for array in arrays):
        raise ValueError("columns of one length")
    if not count:
        return pa.array([], pa.binary())
    columns = (_Column * len(arrays))()
    for column, before, array in zip(columns, befores, arrays, strict=True):
        valid, offsets, data = array.buffers()
        column.offsets = offsets.address + 4 * array.offset
        # A buffer of nothing has no address; one that is never read does as well.
        column.data = offsets.address if data is None or not data.size else data.address
        column.valid = None if valid is None or not array.null_count else valid.address
        column.first = array.offset
        column.before, column.before_size = before, len(before)
    ends = np.empty(count + 1, np.int32)
    sizes = ctypes.c_int64(len(arrays)), ctypes.c_int64(len(tail)), ctypes.c_int64(count)
    total = found.dz_json_ends(columns, *sizes, ctypes.c_void_p(ends.ctypes.data))
    if total < 0:
        return None
    out = pa.allocate_buffer(total)
    found.dz_json(columns, sizes[0], tail, *sizes[1:], ctypes.c_void_p(out.address))
    return pa.BinaryArray.from_buffers(pa.binary(), count, [None, pa.py_buffer(ends), out])


class _Hmac:
    """HMAC-SHA-256 under one key of at most 64 bytes (RFC 2104): both padded blocks are hashed once and copied."""

    def __init__(self, key: bytes) -> None:
        block = key.ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def digest(self, message: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()


def _run(function: Any, key: bytes, messages: Any, width: int, portable: int = 0) -> Bytes2D:
    if len(key) != 32:
        raise ValueError("a key has 32 bytes")
    array = messages.combine_chunks() if isinstance(messages, pa.ChunkedArray) else messages
    if array.type != pa.binary() or array.null_count:
        raise ValueError(f"messages are pa.binary() without null, not {array.type}")
    out = np.empty((len(array), width), np.uint8)
    if not len(array):
        return out
    _, offsets, data = array.buffers()
    # A buffer of nothing has no address; one that is never read does as well.
    at = offsets.address if data is None or not data.size else data.address
    function(
        key,
        ctypes.c_void_p(at),
        ctypes.c_void_p(offsets.address + 4 * array.offset),
        ctypes.c_int64(len(array)),
        ctypes.c_void_p(out.ctypes.data),
        ctypes.c_int64(width),
        portable,
    )
    return out


@cache
def _load() -> Any:
    found = load()
    if found is None:
        return None
    try:
        for name in (
            "dz_tags",
            "dz_commitments",
            "dz_root",
            "dz_subroots",
            "dz_json",
            "dz_entries",
            "dz_order",
            "dz_lookup",
        ):
            getattr(found, name).restype = None
        found.dz_json_ends.restype = found.dz_index.restype = ctypes.c_int64
        found.dz_instructions.restype = ctypes.c_int
    except AttributeError:
        return None
    return found if _is_right(found) else None


def _is_right(found: Any) -> bool:
    """Both of its SHA-256 against the standard library, over lengths on either side of every padding."""
    key = bytes(range(32))
    messages = [bytes([length]) * length for length in (0, 1, 55, 56, 63, 64, 65, 119, 120, 200)]
    array = pa.array(messages, pa.binary())
    digests = [hashlib.sha256(message).digest() for message in messages]
    salts = [hmac.digest(key, digest, "sha256") for digest in digests]
    committed = [hashlib.sha256(salt + digest).digest() for salt, digest in zip(salts, digests, strict=True)]
    tagged = [hmac.digest(key, message, "sha256")[:TAG_BYTES] for message in messages]
    # More than the leaves that are hashed level by level, so that pieces are joined as well.
    leaves = [number.to_bytes(64, "big") for number in range(_CHECKED_LEAVES)]
    flat = np.frombuffer(b"".join(leaves), np.uint8)
    for portable in (0, 1):
        out = ctypes.create_string_buffer(32)
        found.dz_root(ctypes.c_void_p(flat.ctypes.data), ctypes.c_int64(len(leaves)), out, portable)
        if out.raw != merkle.root_of(leaves)[1]:
            return False
        parts = [merkle.root_of(leaves[at : at + 4])[1] for at in range(0, len(leaves), 4)]
        if [row.tobytes() for row in _subroots(found, flat.reshape(-1, 64), 4, portable)] != parts:
            return False
        if [row.tobytes() for row in _run(found.dz_tags, key, array, TAG_BYTES, portable)] != tagged:
            return False
        if [row.tobytes() for row in _run(found.dz_commitments, key, array, 32, portable)] != committed:
            return False
    values = ['"\\', "".join(map(chr, range(0x80))), None, "许可 𠮷", ""]
    written = [b'{"a":' + (b"null" if it is None else rfc8785.dumps(it)) + b"}" for it in values]
    made = _objects(found, [b'{"a":'], [pa.array(values)], b"}")
    return made is not None and made.to_pylist() == written


def _check(entries: Bytes2D, width: int) -> None:
    if entries.ndim != 2 or entries.shape[1] != width:
        raise ValueError(f"entries are (n, {width}) bytes, not {entries.shape}")


def _rows(entries: Bytes2D) -> Any:
    for start in range(0, len(entries), _ROOT_BLOCK):
        block = entries[start : start + _ROOT_BLOCK].tobytes()
        for at in range(0, len(block), 64):
            yield block[at : at + 64]


def _matrix(digests: list[bytes]) -> Bytes2D:
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
