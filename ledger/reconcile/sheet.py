"""Findings as files for other programs: CSV, JSON lines, XLSX. What a spreadsheet would run as a formula is text in each.

The CSV is RFC 4180 in UTF-8 (no BOM), with a line of column names; cells that begin like a formula get a leading apostrophe.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import IO

from openpyxl import Workbook
from openpyxl.cell import WriteOnlyCell

COLUMNS = ("kind", "key", "key_tag", "row", "rows", "expected", "observed", "batch", "reason", "state")
"""Members of a finding's JSON, in the order of the columns."""

_MAX_ROWS = 1_048_575  # of a sheet, the line of names left out
_MAX_CELL = 32_767
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def cell(value: object) -> str:
    """A value as text that a spreadsheet shows and does not run."""
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"'{text}" if text.startswith(_FORMULA) else text


def csv_line(values: Iterable[object]) -> str:
    """One line, ended by CR LF."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow([cell(value) for value in values])
    return line.getvalue()


def csv_lines(findings: Iterable[Mapping[str, object]]) -> Iterator[str]:
    """The whole file, a line at a time; `findings` are those of the JSON output."""
    yield csv_line(COLUMNS)
    for finding in findings:
        yield csv_line(finding.get(name) for name in COLUMNS)


def json_lines(findings: Iterable[Mapping[str, object]]) -> Iterator[str]:
    """One JSON object a line."""
    for finding in findings:
        yield json.dumps(finding, ensure_ascii=False) + "\n"


def write_xlsx(findings: Iterable[Mapping[str, object]], target: IO[bytes]) -> None:
    """Write a workbook of text cells; more rows than a sheet holds go on in further sheets."""
    book = Workbook(write_only=True)
    sheet = book.create_sheet("findings")
    sheet.append(COLUMNS)
    rows = 0
    for finding in findings:
        if rows == _MAX_ROWS:
            sheet, rows = book.create_sheet(), 0
            sheet.append(COLUMNS)
        made = []
        for name in COLUMNS:
            it = WriteOnlyCell(sheet, _plain(finding.get(name)))
            # Of text that begins with = openpyxl would make a formula.
            it.data_type = "s"
            made.append(it)
        sheet.append(made)
        rows += 1
    book.save(target)


def _plain(value: object) -> str:
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    # XML has no place for control characters; a cut is shown.
    text = "".join(c if c.isprintable() or c in "\n\t" else f"\\u{ord(c):04x}" for c in text)
    return text if len(text) <= _MAX_CELL else text[: _MAX_CELL - 1] + "…"
