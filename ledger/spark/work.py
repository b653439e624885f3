"""What the executors do: rows into entries, sorted entries into subtrees. Knows no pyspark but the number of its own partition.

A refusal is sent back as a row, not raised: it is an answer, and Spark would try it again. A partition of the source ends with a tally of its
rows; one without a tally was not read.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ledger import sketch as sketches
from ledger.catalog import Catalog
from ledger.errors import ChainError, InputError, LedgerError, SourceError, StoreError
from ledger.kernel.chunk import Chunk
from ledger.kernel.entries import Kernel, Result
from ledger.kernel.sorting import TAG, TagIndex, words_of
from ledger.keys import CatalogKeys
from ledger.record import Unreadable
from ledger.source.values import BATCH, ROW_VERSION
from ledger.spark import subtree

ENTRY, KEYED, KEYLESS, TALLY, ERROR = range(5)
"""Kinds of rows that come back: a row with an entry; an unreadable row whose key can be read; one whose key cannot; a partition's count of rows;
why it could not be read."""

SCANNED = "kind int, split int, number long, entry binary, tag binary, versioned boolean, note string"
_MORE = "record_key binary, batch string, version long"
COUNTED = "part int, count long, first binary, last binary"
BUILT = "part int, count long, nodes binary, counts binary, sums binary, checks binary"

Batches = Iterable[Any]
Work = Callable[[Batches], Iterator[Any]]
_NODE = np.dtype([("first", "<i8"), ("level", "<i4"), ("hash", "V32")])
_SOURCES = ("kernel/*.py", "source/*.py", "spark/*.py", "native/*.[ch]", "native/*.py", "record.py", "keys.py", "catalog.py", "pattern.py", "jcs.py", "errors.py", "interruption.py", "sketch.py", "merkle.py")  # fmt: skip


class Splits(Protocol):
    """A source cut into parts, each read by one task; can be sent to executors."""

    def chunks(self, split: int, batches: Batches) -> Iterator[Chunk]:
        """The rows of one part, numbered from 1 or from where the part begins in the source."""


@cache
def code_digest() -> str:
    """What decides the bytes of entries, as it stands in this process: an executor with other code than the driver's is refused."""
    digest = hashlib.sha256(f"{sys.version_info[:2]} {pa.__version__} {np.__version__}".encode())
    root = Path(__file__).parent.parent
    for pattern in _SOURCES:
        for path in sorted(root.glob(pattern)):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def picked(catalog: Catalog) -> str:
    """The columns of rows that come whole: what `scan` says of them, and each declared field's text as the source gave it."""
    return ", ".join([SCANNED, _MORE, *(f"{place(at)} string" for at in range(len(catalog.fields)))])


def place(field: int) -> str:
    """The column of a declared field among those that come whole."""
    return f"f{field}"


def scan(splits: Splits, keys: CatalogKeys, code: str, *, reasons: bool) -> Work:
    """Each row's entry (`SCANNED`); with `reasons`, of unreadable rows why."""

    def one(split: int, chunk: Chunk, result: Result) -> Any:
        return _columns(split, chunk, result, reasons=reasons)

    return _over(splits, keys, code, lambda: one, schema_of(SCANNED))


def pick(splits: Splits, keys: CatalogKeys, code: str, tags: bytes, *, refused: bool) -> Work:
    """The rows that carry one of `tags` (16 bytes each), whole (`picked`); with `refused`, those whose key cannot be read as well."""

    def make() -> Callable[[int, Chunk, Result], Any]:
        index = TagIndex(np.frombuffer(tags, np.uint8).reshape(-1, 16))

        def one(split: int, chunk: Chunk, result: Result) -> Any:
            return _picked(split, chunk, result, index, refused=refused)

        return one

    return _over(splits, keys, code, make, schema_of(picked(keys.catalog)))


def count(batches: Batches) -> Iterator[Any]:
    """How many entries a sorted partition has, and its first and last (`COUNTED`)."""
    found = _entries(batches)
    yield pa.RecordBatch.from_pylist(
        [{
            "part": _partition(), "count": len(found),
            "first": found[0].tobytes() if len(found) else None, "last": found[-1].tobytes() if len(found) else None,
        }],
        schema=pa.schema([("part", pa.int32()), ("count", pa.int64()), ("first", pa.binary()), ("last", pa.binary())]),
    )  # fmt: skip


def build(starts: Sequence[int], cells: int | None) -> Work:
    """The subtrees over a sorted partition whose first entry is leaf `starts[partition]`, and its part of the sketch (`BUILT`)."""

    def run(batches: Batches) -> Iterator[Any]:
        part = _partition()
        found = _entries(batches)
        if not ascending(found):
            raise RuntimeError("a partition is not strictly ascending")
        nodes = np.array([(it.first, it.level, it.hash) for it in subtree.cover(found, starts[part])], _NODE)
        sketch = None if cells is None else sketches.build(found, cells)
        row = {
            "part": part, "count": len(found), "nodes": nodes.tobytes(),
            "counts": None if sketch is None else sketch.counts.astype("<i8").tobytes(),
            "sums": None if sketch is None else np.ascontiguousarray(sketch.entries).tobytes(),
            "checks": None if sketch is None else sketch.checks.astype("<u4").tobytes(),
        }  # fmt: skip
        names = ("nodes", "counts", "sums", "checks")
        schema = pa.schema([("part", pa.int32()), ("count", pa.int64()), *((name, pa.binary()) for name in names)])
        yield pa.RecordBatch.from_pylist([row], schema=schema)

    return run


def nodes_of(data: bytes) -> list[subtree.Node]:
    """The nodes that `build` sent."""
    return [subtree.Node(int(it["first"]), int(it["level"]), it["hash"].tobytes()) for it in np.frombuffer(data, _NODE)]


def sketch_of(row: dict[str, Any]) -> sketches.Sketch:
    """The part of the sketch that `build` sent."""
    counts = np.frombuffer(row["counts"], "<i8").astype(np.int64)
    sums = np.frombuffer(row["sums"], np.uint64).reshape(-1, 8)
    return sketches.Sketch(counts, sums, np.frombuffer(row["checks"], "<u4").astype(np.uint32))


def ascending(entries: NDArray[np.uint8]) -> bool:
    """Whether each entry (n, 64) is greater than the one before it."""
    words = words_of(entries)
    greater = np.zeros(max(0, len(words) - 1), np.bool_)
    equal = ~greater
    for column in range(words.shape[1]):
        greater |= equal & (words[1:, column] > words[:-1, column])
        equal &= words[1:, column] == words[:-1, column]
    return bool(greater.all())


def error_of(note: str) -> LedgerError:
    """The refusal that an executor sent."""
    told = json.loads(note)
    kinds = {it.__name__: it for it in (InputError, SourceError, StoreError, ChainError)}
    return kinds.get(told["kind"], LedgerError)(told["code"], told["zh"], told["en"], told["where"])


def unreadable_of(note: str) -> Unreadable:
    """Why a row has no entry."""
    return Unreadable(*json.loads(note))


def fixed(column: Any, width: int) -> NDArray[np.uint8]:
    """A pa.binary() column of values of `width` bytes as (n, width), zeros where it is null."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not array.null_count:
        _, offsets, data = array.buffers()
        ends = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
        if len(array) and not (np.diff(ends) == width).all():
            raise ValueError(f"a value is not {width} bytes")
        if not len(array):
            return np.zeros((0, width), np.uint8)
        return np.frombuffer(data, np.uint8)[ends[0] : ends[-1]].reshape(-1, width)
    out = np.zeros((len(array), width), np.uint8)
    for at, value in enumerate(array.to_pylist()):
        if value is not None:
            out[at] = np.frombuffer(value, np.uint8)
    return out


def binary(rows: NDArray[np.uint8]) -> Any:
    """(n, k) bytes as pa.binary()."""
    count, width = rows.shape
    data = np.ascontiguousarray(rows)
    ends = np.arange(count + 1, dtype=np.int32) * np.int32(width)
    return pa.BinaryArray.from_buffers(pa.binary(), count, [None, pa.py_buffer(ends), pa.py_buffer(data)])


def _over(
    splits: Splits, keys: CatalogKeys, code: str, make: Callable[[], Callable[[int, Chunk, Result], Any]], schema: Any
) -> Work:
    def run(batches: Batches) -> Iterator[Any]:
        split, total = _partition(), 0
        try:
            if code_digest() != code:
                raise SourceError(
                    "spark.version",
                    "执行器上的 duizhang 与本机不是同一版本，结果不可信；请在各节点安装同一版本",
                    "an executor runs another duizhang than this one, so what it makes cannot be trusted; install the same everywhere",
                )
            work = make()
            kernel = Kernel(keys.catalog, keys)
            for chunk in splits.chunks(split, batches):
                total += len(chunk)
                made = work(split, chunk, kernel.run(chunk))
                if made.num_rows:
                    yield made
            yield _single(TALLY, split, total, f"{socket.gethostname()} {os.getpid()}", schema)
        except LedgerError as error:
            told = {
                "kind": type(error).__name__,
                "code": error.code,
                "zh": error.zh,
                "en": error.en,
                "where": error.where,
            }
            yield _single(ERROR, split, 0, json.dumps(told), schema)

    return run


def _partition() -> int:
    from pyspark import TaskContext  # noqa: PLC0415  only in an executor

    return int(TaskContext.get().partitionId())


def _entries(batches: Batches) -> NDArray[np.uint8]:
    parts = [fixed(batch.column(0), 64) for batch in batches]
    return np.concatenate([np.zeros((0, 64), np.uint8), *parts])


def _columns(split: int, chunk: Chunk, result: Result, *, reasons: bool) -> Any:
    refused = sorted(result.refused)
    entries = len(result.rows)
    keyed = [row in result.refused_keys for row in refused]
    rows = np.concatenate([result.rows, np.array(refused, np.int64)])
    kinds = np.full(len(rows), ENTRY, np.int32)
    kinds[entries:] = np.where(keyed, KEYED, KEYLESS) if refused else 0
    nothing = pa.nulls(len(refused), pa.binary())
    own_tags = pa.array([result.refused_keys[row][0] if row in result.refused_keys else None for row in refused], pa.binary())  # fmt: skip
    version = chunk.extra.get(ROW_VERSION)
    versioned = np.zeros(len(rows), np.bool_)
    if version is not None:
        versioned = version.is_valid().to_numpy(zero_copy_only=False)[rows]
    notes = [_note(result.refused[row]) if reasons else None for row in refused]
    return pa.RecordBatch.from_arrays(
        [
            pa.array(kinds), pa.array(np.full(len(rows), split, np.int32)), pa.array(chunk.numbers[rows]),
            pa.concat_arrays([binary(result.entries), nothing]),
            pa.concat_arrays([binary(np.ascontiguousarray(result.entries[:, TAG])), own_tags]),
            pa.array(versioned), pa.concat_arrays([pa.nulls(entries, pa.string()), pa.array(notes, pa.string())]),
        ],
        names=_names(SCANNED),
    )  # fmt: skip


def _picked(split: int, chunk: Chunk, result: Result, index: TagIndex, *, refused: bool) -> Any:
    found = np.flatnonzero(index.lookup(np.ascontiguousarray(result.entries[:, TAG])) >= 0)
    own = {row: tag for row, (tag, _) in result.refused_keys.items()}
    tags = np.frombuffer(b"".join(own.values()), np.uint8).reshape(-1, 16)
    kept = {row for row, at in zip(own, index.lookup(tags).tolist(), strict=True) if at >= 0}
    if refused:
        kept |= {row for row in result.refused if row not in own}
    part = replace(
        result.part(found),
        refused={row: why for row, why in result.refused.items() if row in kept},
        refused_keys={row: key for row, key in result.refused_keys.items() if row in kept},
    )
    base = _columns(split, chunk, part, reasons=True)
    bad = sorted(part.refused)
    rows = pa.array(np.concatenate([part.rows, np.array(bad, np.int64)]))
    own_keys = pa.array([part.refused_keys[row][1] if row in part.refused_keys else None for row in bad], pa.binary())
    extra = [
        chunk.extra[name].take(rows) if name in chunk.extra else pa.nulls(len(rows), type)
        for name, type in ((BATCH, pa.string()), (ROW_VERSION, pa.int64()))
    ]
    names = list(result.catalog.by_name)
    columns = [
        *base.columns,
        pa.concat_arrays([pa.nulls(len(part.rows), pa.binary()), own_keys]),
        *extra,
        *(chunk.fields[name].take(rows) for name in names),
    ]
    return pa.RecordBatch.from_arrays(columns, names=_names(picked(result.catalog)))


def _single(kind: int, split: int, number: int, note: str, schema: Any) -> Any:
    row = {"kind": kind, "split": split, "number": number, "note": note}
    return pa.RecordBatch.from_pylist([row], schema=schema)


def _note(why: Unreadable) -> str:
    return json.dumps([why.field, why.value, why.code, why.zh, why.en])


def _names(ddl: str) -> list[str]:
    return [column.split()[0] for column in ddl.split(", ")]


_TYPES = {"int": pa.int32(), "long": pa.int64(), "binary": pa.binary(), "boolean": pa.bool_(), "string": pa.string()}


def schema_of(ddl: str) -> Any:
    """The same columns for Arrow."""
    return pa.schema([(name, _TYPES[type]) for name, type in (column.split() for column in ddl.split(", "))])
