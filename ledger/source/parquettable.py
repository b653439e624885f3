"""Parquet files as a table: one file, or all `*.parquet` of a folder, in the order of their names.

`url = "parquet:////srv/city"`, `table = "registration"` is the folder (or `registration.parquet` the file) in /srv/city. Whoever
replaces files there writes a new file and renames it; a file that is no longer the one that was opened stops the read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from ledger.catalog import Catalog, Field, FieldType
from ledger.errors import InputError, SourceError
from ledger.kernel.chunk import Chunk
from ledger.record import Unreadable
from ledger.source.csvheader import Header
from ledger.source.layout import VERSION_KINDS, ColumnShape, Kind, Layout, TableShape, resolve_columns
from ledger.source.parquet import ParquetFile
from ledger.source.values import BATCH, ROW_VERSION, normals_of, versions_of

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

ENDING = ".parquet"
_SUGGESTED: Mapping[Kind, FieldType] = {
    "text": "text", "integer": "integer", "decimal": "decimal", "date": "date", "timestamp": "datetime", "zoned": "datetime",
}  # fmt: skip


@dataclass(frozen=True)
class Member:
    """One file as it was when the table was opened; `groups` are the rows of its row groups."""

    path: Path
    state: tuple[int, int, int]
    groups: tuple[int, ...]


@dataclass(frozen=True)
class ParquetTable:
    """The files and how they are read; holds nothing open, so it can be sent elsewhere. See `open_source`."""

    where: str
    catalog: Catalog
    layout: Layout
    members: tuple[Member, ...]
    version_type: FieldType | None = None
    notes: Sequence[tuple[str, str]] = ()

    @property
    def ignored(self) -> Sequence[str]:
        """Columns neither declared nor the batch or row version column."""
        return self.layout.ignored

    @property
    def rows(self) -> int:
        """How many rows the files declare."""
        return sum(sum(member.groups) for member in self.members)

    def about_rows(self) -> int:
        """The same."""
        return self.rows

    def scan(self) -> Iterator[Chunk]:
        """All rows, file after file; `Chunk.numbers` counts them from 1. The same rows each time, or SourceError `source.changed`."""
        first = 1
        for member in self.members:
            yield from self.part(member, range(len(member.groups)), first)
            first += sum(member.groups)

    def part(self, member: Member, groups: Sequence[int], first: int) -> Iterator[Chunk]:
        """The rows of some row groups of one file, numbered from `first`."""
        self._same(member)
        with self._open(member) as file:
            self._same(member)
            for chunk in file.scan(list(groups)):
                refused = dict(chunk.refused)
                extra = self._extra(file, chunk, refused)
                yield replace(chunk, numbers=chunk.numbers + (first - 1), refused=refused, extra=extra, raw=None)
            self._same(member)

    def _open(self, member: Member) -> ParquetFile:
        return _opened(member.path, self.catalog, lambda names: self._header(names, member.path), self._also())

    def _also(self) -> dict[str, Field]:
        found = {}
        if self.layout.version_column is not None and self.version_type is not None:
            found[self.layout.version_column] = Field(self.layout.version_column, self.version_type)
        if self.layout.batch_column is not None:
            found[self.layout.batch_column] = Field(self.layout.batch_column, "code")
        return found

    def _header(self, names: Sequence[str], path: Path) -> Header:
        places = {name: place for place, name in enumerate(names)}
        wanted = [*self.layout.columns.values(), self.layout.batch_column, self.layout.version_column]
        lacking = [name for name in wanted if name is not None and name not in places]
        if lacking or len(places) != len(names):
            told = ", ".join(lacking) or "?"
            raise SourceError(
                "source.column_missing",
                f"缺少列 {told}，或列名重复；各文件的列须相同",
                f"lacks the columns {told}, or repeats one; the files of a table have the same columns",
                str(path),
            )
        fields = {name: places[column] for name, column in self.layout.columns.items()}
        return Header(tuple(names), fields, None, None, self.layout.ignored)

    def _same(self, member: Member) -> None:
        if _state(member.path) != member.state:
            raise SourceError(
                "source.changed",
                "读取期间文件被替换或修改，请重新运行",
                "the file was replaced or changed while the table was read; run again",
                str(member.path),
            )

    def _extra(self, file: ParquetFile, chunk: Chunk, refused: dict[int, Unreadable]) -> dict[str, Any]:
        if chunk.raw is None:
            return {}
        names, columns = list(file.schema.names), chunk.raw.columns
        extra: dict[str, Any] = {}
        batch, version = self.layout.batch_column, self.layout.version_column
        if batch is not None:
            extra[BATCH] = normals_of(columns[names.index(batch)], Field(batch, "code"), self.catalog, refused)
        if version is not None:
            kind = kind_of_type(file.schema.field(version).type) or "text"
            texts = columns[names.index(version)]
            bad = pa.array([row in refused for row in range(len(chunk))], pa.bool_())
            texts = pc.if_else(bad, pa.scalar(None, pa.string()), texts)
            extra[ROW_VERSION] = versions_of(texts, kind, version, self.catalog, refused)
        return extra


@contextmanager
def open_source(
    url: URL,
    table: str,
    catalog: Catalog,
    *,
    columns: Mapping[str, str] | None = None,
    batch_column: str | None = None,
    row_version_column: str | None = None,
    base: Path | None = None,
) -> Iterator[ParquetTable]:
    """Read the files of `table` as records of `catalog`; parameters as in `table.open_table`.

    SourceError `source.<rule>`: `table_missing column_missing column_shared column_type changed`; InputError `source.url`,
    `parquet.<rule>`.
    """
    place = _path_of(url, table, base)
    paths = _files(place)
    where = str(place)
    with _opened(paths[0], *_ANY) as file:
        schema = file.schema
    layout = resolve_columns(
        list(schema.names), catalog, table=table, reference=where, is_view=False, columns=columns or {},
        batch_column=batch_column, row_version_column=row_version_column, where=where,
    )  # fmt: skip
    blank = ParquetTable(where, catalog, layout, (), _version_type(schema, layout.version_column, where))
    members = []
    for path in paths:
        state = _state(path)
        with blank._open(Member(path, state, ())) as file:
            members.append(Member(path, state, tuple(file.groups())))
    opened = replace(blank, members=tuple(members))
    for member in opened.members:
        opened._same(member)
    yield opened


def describe_table(url: URL, table: str, base: Path | None = None) -> TableShape:
    """The columns of the first file."""
    with _opened(_files(_path_of(url, table, base))[0], *_ANY) as file:
        shapes = []
        for name, type in zip(file.schema.names, file.schema.types, strict=True):
            kind = kind_of_type(type)
            scale = type.scale if pa.types.is_decimal(type) else None
            shapes.append(
                ColumnShape(name, str(type), None if kind is None else _SUGGESTED[kind], nullable=True, scale=scale, in_primary_key=False)
            )  # fmt: skip
        return TableShape(tuple(shapes))


def kind_of_type(type: Any) -> Kind | None:
    """What the values of an Arrow type are, None if they have no form."""
    type = type.value_type if pa.types.is_dictionary(type) else type
    is_type = pa.types
    if is_type.is_string(type) or is_type.is_large_string(type) or is_type.is_string_view(type):
        return "text"
    if is_type.is_integer(type):
        return "integer"
    if is_type.is_decimal(type):
        return "decimal"
    if is_type.is_date(type):
        return "date"
    if is_type.is_timestamp(type):
        return "zoned" if type.tz else "timestamp"
    return None


_NOTHING = Catalog("none", 1, (), ())
_ANY: tuple[Catalog, Any, Mapping[str, Field]] = (
    _NOTHING,
    lambda names: Header(tuple(names), {}, None, None, tuple(names)),
    {},
)


def _opened(path: Path, catalog: Catalog, header: Any, also: Mapping[str, Field]) -> ParquetFile:
    return ParquetFile(path, catalog, header=header, also=also)


def _version_type(schema: Any, column: str | None, where: str) -> FieldType | None:
    if column is None:
        return None
    kind = kind_of_type(schema.field(column).type)
    if kind is None or kind not in VERSION_KINDS:
        raise SourceError(
            "source.column_type",
            f"列 {column} 不能作 row_version_column；须为整数、日期或时间类型",
            f"column {column} cannot be the row_version_column: it must be an integer, a date or a timestamp",
            where,
        )
    return _SUGGESTED[kind]


def _path_of(url: URL, table: str, base: Path | None) -> Path:
    if not url.database or url.host or url.query:
        raise InputError(
            "source.url",
            "须为 parquet:////绝对路径 或 parquet:///相对路径（文件所在的文件夹），不带主机和参数",
            "must be parquet:////absolute/folder or parquet:///relative/folder, without host and options",
            "url",
        )
    return (base or Path()) / url.database / table


def _files(place: Path) -> list[Path]:
    found = sorted(it for it in place.glob(f"*{ENDING}") if it.is_file()) if place.is_dir() else [place]
    if not found or not found[0].is_file():
        raise SourceError(
            "source.table_missing",
            f"没有该 Parquet 文件，也没有内含 *{ENDING} 的文件夹",
            f"there is no such Parquet file, nor a folder of that name with *{ENDING} in it",
            str(place),
        )
    return [it.resolve() for it in found]


def _state(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_size, found.st_mtime_ns, found.st_ino
