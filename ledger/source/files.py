"""A delivered file of any format we read: CSV (plain or compressed), XLSX, Parquet. The same rows give the same chunks'
fields whatever they come in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from ledger.catalog import Catalog
from ledger.errors import InputError
from ledger.kernel.chunk import Chunk
from ledger.source.csvfile import open_csv
from ledger.source.csvheader import Header
from ledger.source.kinds import ENDINGS, kind_of


@dataclass(frozen=True)
class ReadOptions:
    """How to read a file.

    encoding          of a CSV: `utf-8` or `gb18030`
    operation_column  see `csvheader.resolve_header`
    sheet             of a workbook: needed if several hold something
    header_row        where to look for the header, from 1: the first row from there on that is not empty (not Parquet)
    """

    encoding: str = "utf-8"
    operation_column: str | None = None
    sheet: str | None = None
    header_row: int = 1


class RowsFile(Protocol):
    """A file of one catalog's records, opened and its header understood; for a `with` statement."""

    header: Header
    notes: Sequence[tuple[str, str]]
    """Remarks (Chinese, English) on what was read although somebody might not expect it."""

    @property
    def where(self) -> str:
        """The path, and the sheet if there are several."""

    @property
    def ignored(self) -> Sequence[str]:
        """Columns that are neither declared nor operation nor reason."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None
    ) -> None: ...

    def about_rows(self) -> int | None:
        """About how many rows there are; None where only reading them would tell. For progress alone."""

    def scan(self) -> Iterator[Chunk]:
        """All rows in the file's order, the same each time, `Chunk.raw` there; `Chunk.numbers` are physical lines of a
        CSV, rows of a sheet, or rows of a Parquet file counted from 1."""


def open_file(path: Path, catalog: Catalog, options: ReadOptions | None = None) -> RowsFile:
    """Open a file of `catalog`'s records, whatever it is in.

    InputError `file.header_row`, `file.kind` and `file.ending` (`kinds.kind_of`), `csv.<rule>` for the header and for a CSV
    (`csvfile.open_csv`), `compressed.<rule>`, `xlsx.<rule>`, `parquet.<rule>`.
    """
    path, options = Path(path), options or ReadOptions()
    if options.header_row < 1:
        raise InputError("file.header_row", "表头行号从 1 起", "rows of the header count from 1", str(path))
    kind = kind_of(path)
    if kind == "csv":
        return open_csv(
            path,
            catalog,
            encoding=options.encoding,
            operation_column=options.operation_column,
            header_row=options.header_row,
        )
    # Each needs a library of its own, slow to import, that a CSV does without.
    if kind == "xlsx":
        from ledger.source.xlsx import XlsxFile  # noqa: PLC0415

        return XlsxFile(
            path,
            catalog,
            sheet=options.sheet,
            operation_column=options.operation_column,
            header_row=options.header_row,
        )
    from ledger.source.parquet import ParquetFile  # noqa: PLC0415

    return ParquetFile(path, catalog, operation_column=options.operation_column)


def bare_name(name: str) -> str | None:
    """A file's name without the ending of a format we read; None if it has none of them."""
    found = [ending for ending in ENDINGS if name.lower().endswith(ending) and len(name) > len(ending)]
    return name[: -len(max(found, key=len))] if found else None
