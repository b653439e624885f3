"""Rows into a plain .xlsx workbook: one sheet, text cells only, so that Excel computes, rounds and reformats nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from ledger.errors import InputError

MAX_ROWS = 1_048_575
"""Rows below the header that a sheet has room for."""
MAX_CELL = 32_767
"""What Excel keeps of a text, in UTF-16."""
CUT = "…〔已截断 cut〕"
"""Ends a text that was longer."""

# What XML cannot hold or would change, and what looks like an escape itself (ECMA-376 part 1, 22.9.2.19).
_ESCAPED = re.compile("[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")
_PIECE = re.compile("_x[0-9A-F]{4}_|.", re.DOTALL)


def write_rows(
    target: Path | BinaryIO, header: Sequence[str], rows: Iterable[Sequence[str | None]], title: str = "对账"
) -> None:
    """Write a workbook with `header` and `rows` to a path (replaced whole, or not at all) or a binary stream.

    Every cell is text, whatever it looks like; null and "" are empty cells. A text past 32,767 characters is cut and
    ends with `CUT`. InputError `sheet.rows` past 1,048,575 rows; nothing is written then.
    """
    # Slow to import, and most commands never write one.
    from openpyxl import Workbook  # noqa: PLC0415
    from openpyxl.cell import WriteOnlyCell  # noqa: PLC0415

    book = Workbook(write_only=True)
    sheet = book.create_sheet(title)
    sheet.freeze_panes = "A2"

    def cells(texts: Sequence[str | None]) -> list[Any]:
        found: list[Any] = []
        for text in texts:
            cell = WriteOnlyCell(sheet, _escaped(text)) if text else None
            if cell is not None:
                # openpyxl takes "=…" for a formula and "#N/A" for an error.
                cell.data_type = "s"
            found.append(cell)
        return found

    sheet.append(cells(header))
    for number, row in enumerate(rows):
        if number == MAX_ROWS:
            sheet.close()
            raise InputError(
                "sheet.rows",
                f"超过 {MAX_ROWS} 行，Excel 工作表放不下；请用 --format csv",
                f"more than {MAX_ROWS} rows, which is what a sheet has room for; use --format csv",
            )
        sheet.append(cells(row))
    if not isinstance(target, Path):
        book.save(target)
        return
    part = target.with_name(f"{target.name}.part")
    try:
        with part.open("wb") as stream:
            book.save(stream)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _escaped(text: str) -> str:
    units = len(text.encode("utf-16-le", "surrogatepass")) // 2
    plain = _ESCAPED.sub(lambda found: f"_x{ord(found[0]):04X}_", text)
    if units <= MAX_CELL and len(plain) <= MAX_CELL:
        return plain
    # openpyxl would cut at 32,767 characters of what is written, escapes counted seven times.
    kept, room = [], MAX_CELL - len(CUT)
    for piece in _PIECE.findall(plain):
        room -= len(piece) + (piece > "\uffff")
        if room < 0:
            break
        kept.append(piece)
    return "".join(kept) + CUT
