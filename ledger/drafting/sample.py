"""The first rows of a file or table, as columns of text, read by the same readers that will read it for good."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ledger.catalog import Catalog, Field, FieldType
from ledger.drafting.guess import Column, heading_is_data
from ledger.drafting.names import field_names
from ledger.errors import InputError, SourceError
from ledger.kernel.chunk import Chunk
from ledger.record import Unreadable, tidy
from ledger.source.files import ReadOptions, open_file
from ledger.source.layout import FITS
from ledger.source.table import describe_table, open_table

SAMPLE_ROWS = 10_000
_ALL: tuple[FieldType, ...] = ("text", "code", "integer", "decimal", "date", "datetime", "enum")


@dataclass(frozen=True)
class Rows:
    """Values of a chunk's readable rows, by field, and what could not be read: (row, field) pairs; "" if no field's fault."""

    count: int
    fields: Mapping[str, Sequence[str | None]]
    refused: Sequence[tuple[int, str]]


class Origin(Protocol):
    """Where the sample comes from."""

    @property
    def where(self) -> str:
        """The place, for messages and the draft's first line."""

    def columns(self) -> tuple[list[Column], list[tuple[str, str]]]:
        """Sampled columns, and those left out with the reason's code."""

    def read(self, catalog: Catalog, titles: Mapping[str, str]) -> Rows:
        """The same rows, read as records of `catalog`; `titles` maps field names to columns."""


class FileOrigin:
    """A delivered file."""

    def __init__(self, path: Path, options: ReadOptions) -> None:
        self._path, self._options = path, options
        self.where = str(path)

    def columns(self) -> tuple[list[Column], list[tuple[str, str]]]:
        """Every column but operation and reason. InputError `draft.no_header` if the first row looks like a record."""
        # A catalog without fields: every column is ignored, and stands in the chunk as it was delivered.
        with open_file(self._path, Catalog("draft", 1, (), ()), self._options) as file:
            header = file.header
            kept = [at for at in range(len(header.cells)) if at not in (header.operation, header.reason)]
            # A file is read by its headings: a column without one cannot be named.
            left_out = [(f"#{at + 1}", "unnamed") for at in kept if not tidy(header.cells[at])]
            kept = [at for at in kept if tidy(header.cells[at])]
            titles = [header.cells[at] for at in kept]
            if any(heading_is_data(title) for title in titles):
                raise InputError(
                    "draft.no_header",
                    "首行像是数据而不是表头；请加上表头，或用 --header-row 指明表头所在行",
                    "the first row looks like a record, not like a header; add one, or say --header-row where it is",
                    file.where,
                )
            texts: list[list[str | None]] = [[] for _ in kept]
            for chunk, rows in _first(file.scan()):
                usable = [row for row in rows if row not in chunk.refused and row not in chunk.withdrawals]
                for cells in chunk.raw.rows(usable) if chunk.raw is not None else ():
                    for column, at in zip(texts, kept, strict=True):
                        column.append(cells[at])
        if not kept:
            raise InputError("draft.no_columns", "没有可用的列", "has no column to make a field of", self.where)
        names, _ = field_names(titles)
        return [Column(t, n, v, _ALL) for t, n, v in zip(titles, names, texts, strict=True)], left_out

    def read(self, catalog: Catalog, titles: Mapping[str, str]) -> Rows:
        """See `Origin`."""
        with open_file(self._path, catalog, self._options) as file:
            return _rows(file.scan(), catalog)


class TableOrigin:
    """A table or view. `given` maps field names to columns where the settings do so already; `without` are no fields."""

    def __init__(
        self, url: str, table: str, base: Path | None, given: Mapping[str, str], without: Sequence[str]
    ) -> None:
        self._url, self._table, self._base = url, table, base
        self._given = {column: name for name, column in given.items()}
        self._without = without
        self.where = table

    def columns(self) -> tuple[list[Column], list[tuple[str, str]]]:
        """Every column whose type F2 has a form for. SourceError `source.<rule>`, InputError `draft.no_columns`."""
        shape = describe_table(self._url, self._table, self._base)
        left_out = [(c.name, "type") for c in shape.columns if c.type is None and c.name not in self._without]
        kept = [c for c in shape.columns if c.type is not None and c.name not in self._without]
        if not kept:
            raise InputError("draft.no_columns", "没有可用的列", "has no column to make a field of", self.where)
        drafted, _ = field_names([self._given.get(c.name, c.name) for c in kept])
        fields = tuple(Field(n, c.type or "text", c.scale) for n, c in zip(drafted, kept, strict=True))
        rows = self.read(Catalog("draft", 1, (), fields), {n: c.name for n, c in zip(drafted, kept, strict=True)})
        columns = [
            Column(c.name, n, rows.fields[n], _fits(c.type or "text"), c.type, c.scale, c.in_primary_key)
            for n, c in zip(drafted, kept, strict=True)
        ]
        return columns, left_out

    def read(self, catalog: Catalog, titles: Mapping[str, str]) -> Rows:
        """See `Origin`."""
        with self._opened(catalog, titles) as chunks:
            return _rows(chunks, catalog)

    @contextmanager
    def _opened(self, catalog: Catalog, titles: Mapping[str, str]) -> Iterator[Iterator[Chunk]]:
        try:
            with open_table(self._url, self._table, catalog, columns=titles, base=self._base) as source:
                yield source.scan()
        except SourceError as error:
            self.where = error.where or self.where
            raise


def _fits(type: FieldType) -> Sequence[FieldType]:
    kind = {"integer": "integer", "decimal": "decimal", "date": "date", "datetime": "timestamp"}.get(type, "text")
    return FITS[kind]  # type: ignore[index]


def _first(chunks: Iterator[Chunk]) -> Iterator[tuple[Chunk, range]]:
    """Chunks of the first SAMPLE_ROWS rows, each with the indices that count."""
    left = SAMPLE_ROWS
    try:
        for chunk in chunks:
            rows = range(min(left, len(chunk)))
            yield chunk, rows
            left -= len(rows)
            if not left:
                return
    finally:
        # At once, not some time later: a database serves one scan after the other.
        if isinstance(chunks, Generator):
            chunks.close()


def _rows(chunks: Iterator[Chunk], catalog: Catalog) -> Rows:
    fields: dict[str, list[str | None]] = {field.name: [] for field in catalog.fields}
    refused: list[tuple[int, str]] = []
    count = 0
    for chunk, rows in _first(chunks):
        # A withdrawal has a key only: its other cells say nothing.
        upserts = [row not in chunk.withdrawals for row in rows]
        refused += [(count + row, _fault(chunk.refused[row])) for row in rows if upserts[row] and row in chunk.refused]
        for name, texts in fields.items():
            texts.extend(itertools.compress(chunk.fields[name].slice(0, len(rows)).to_pylist(), upserts))
        count += len(rows)
    return Rows(count, fields, refused)


def _fault(refused: Unreadable) -> str:
    """The field whose type cannot hold the value; "" where the row itself is damaged and no type would help."""
    return "" if refused.code.startswith("row.") else refused.field
