"""Findings as files for other programs: CSV, JSON lines, XLSX. What a spreadsheet would run as a formula is text in each.

The CSV is RFC 4180 in UTF-8 (no BOM), with a line of column names; cells that begin like a formula get a leading apostrophe.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from ledger.sheet import write_rows

COLUMNS = ("kind", "key", "key_tag", "row", "rows", "expected", "observed", "batch", "reason", "state")
"""Members of a finding's JSON, in the order of the columns."""

_FORMULA = tuple("=+-@\t\r\n＝＋－＠")


def cell(value: object) -> str:
    """A value as text that a spreadsheet shows and does not run."""
    text = _text(value)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) or text.startswith(_FORMULA) else text


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


def write_xlsx(findings: Iterable[Mapping[str, object]], target: Path | BinaryIO) -> None:
    """Write a workbook of text cells; InputError `sheet.rows` if a sheet has no room for all of them."""
    write_rows(target, COLUMNS, ([_text(finding.get(name)) for name in COLUMNS] for finding in findings))


def _text(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
