"""A delivered file into a batch: all bad rows are listed, or set aside in a quarantine file; a row is never dropped in silence."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ledger.batch.build import BadRow, Builder, Built
from ledger.catalog import Catalog
from ledger.errors import InputError
from ledger.progress import watched
from ledger.source.files import ReadOptions, RowsFile, open_file
from ledger.store.files import write_atomic

_LISTED = 1000  # more lines than anyone reads; the count is always exact


@dataclass(frozen=True)
class FileOptions:
    """How to read a delivered file (see `ReadOptions`); `quarantine` is where bad rows go, None where they stop the batch."""

    path: Path
    encoding: str = "utf-8"
    operation_column: str | None = None
    quarantine: Path | None = None
    sheet: str | None = None
    header_row: int = 1

    def open(self, catalog: Catalog) -> RowsFile:
        """The file, opened as records of `catalog`; see `source.files.open_file`."""
        return open_file(
            self.path, catalog, ReadOptions(self.encoding, self.operation_column, self.sheet, self.header_row)
        )


def build_from_file(file: RowsFile, builder: Builder, quarantine: Path | None) -> Built:
    """The batch in `file`.

    InputError `file.bad_rows` lists every row that has no entry, unless `quarantine` takes them (it must not exist yet; it is
    written whole, mode 0600, only after the file as a whole was found good). `builder.bad` then holds them.
    """
    if quarantine is not None and quarantine.exists():
        raise InputError(
            "file.quarantine_exists",
            "隔离文件已存在，不予覆盖；请换名或移走",
            "the quarantine file exists and is not overwritten; name another or move it away",
            str(quarantine),
        )
    builder.add_all(watched("读取文件", "reading the file", file.scan(), file.about_rows))
    if builder.bad and quarantine is None:
        raise bad_rows(builder.bad, file.where)
    built = builder.finish(file.where, file.scan)
    if builder.bad and quarantine is not None:
        write_atomic(quarantine, _quarantine(file.header.cells, builder.bad), overwrite=False)
    return built


def _quarantine(header: Sequence[str], bad: Sequence[BadRow]) -> bytes:
    """The bad rows in their own layout plus four columns that say where, what and why."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow([*header, "_line", "_field", "_rule", "_reason"])
    for row in sorted(bad, key=lambda row: row.number):
        cells = list(row.cells or ())
        # A short row is padded, so that the four columns stand under their titles; a long one keeps all its cells.
        cells += [""] * (len(header) - len(cells))
        why = row.unreadable
        writer.writerow([*cells, row.number, why.field, why.code, f"{why.zh} {why.en}"])
    return text.getvalue().encode("utf-8", "surrogateescape")


def bad_rows(bad: Sequence[BadRow], where: str) -> InputError:
    """The refusal that lists every bad row with line, field, value, reason and rule."""
    shown = sorted(bad, key=lambda row: row.number)[:_LISTED]
    more_zh = f"\n  ……另有 {len(bad) - _LISTED} 行" if len(bad) > _LISTED else ""
    more_en = f"\n  … and {len(bad) - _LISTED} more" if len(bad) > _LISTED else ""
    return InputError(
        "file.bad_rows",
        f"{len(bad)} 行不合规（可用 --quarantine 文件名 隔离后继续）："
        + "".join(f"\n  第 {row.number} 行 {_place(row)}{row.unreadable.zh} [{row.unreadable.code}]" for row in shown)
        + more_zh,
        f"{len(bad)} row(s) have no normal form (--quarantine FILE sets them aside and goes on):"
        + "".join(f"\n  line {row.number} {_place(row)}{row.unreadable.en} [{row.unreadable.code}]" for row in shown)
        + more_en,
        where,
    )


def _place(row: BadRow) -> str:
    why = row.unreadable
    return f"{why.field} = “{why.value}” " if why.field else ""
