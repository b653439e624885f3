"""Workbooks written part by part, so that a test can say exactly what stands in the XML."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
RELS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"
HEAD = '<?xml version="1.0" encoding="UTF-8"?>'


def text(value: str, ref: str = "") -> str:
    """A cell of inline text."""
    at = f' r="{ref}"' if ref else ""
    return f'<c{at} t="inlineStr"><is><t xml:space="preserve">{escape(value)}</t></is></c>'


def number(value: str, style: int = 0) -> str:
    """A cell of a number in a style."""
    return f'<c s="{style}"><v>{value}</v></c>'


def row(*cells: str, at: int | None = None) -> str:
    """A row of cells."""
    where = "" if at is None else f' r="{at}"'
    return f"<row{where}>{''.join(cells)}</row>"


def sheet(*rows: str, after: str = "", before: str = "") -> str:
    """A worksheet part."""
    return f'{HEAD}<worksheet xmlns="{MAIN}">{before}<sheetData>{"".join(rows)}</sheetData>{after}</worksheet>'


def styles(*formats: str | int) -> str:
    """A styles part: style 0 is General, the next are those given (a code, or the number of a built-in one)."""
    codes = [code for code in formats if isinstance(code, str)]
    declared = "".join(f'<numFmt numFmtId="{164 + at}" formatCode={quoteattr(code)}/>' for at, code in enumerate(codes))
    used = [0, *(164 + codes.index(code) if isinstance(code, str) else code for code in formats)]
    return (
        f'{HEAD}<styleSheet xmlns="{MAIN}"><numFmts>{declared}</numFmts>'
        f"<cellXfs>{''.join(f'<xf numFmtId={quoteattr(str(n))}/>' for n in used)}</cellXfs></styleSheet>"
    )


def strings(*items: str) -> str:
    """A part of shared strings; each item is the inside of its `si`."""
    return f'{HEAD}<sst xmlns="{MAIN}">{"".join(f"<si>{item}</si>" for item in items)}</sst>'


def workbook(
    path: Path,
    sheets: Mapping[str, str] | Sequence[str] | str,
    *,
    styles: str | None = None,
    strings: str | None = None,
    from_1904: bool = False,
    states: Mapping[str, str] | None = None,
    extra: Mapping[str, bytes | str] | None = None,
    compression: int = zipfile.ZIP_DEFLATED,
) -> Path:
    """Write the workbook; `sheets` are worksheet parts by name."""
    if isinstance(sheets, str):
        sheets = {"Sheet1": sheets}
    elif not isinstance(sheets, Mapping):
        sheets = {f"Sheet{n}": part for n, part in enumerate(sheets, 1)}
    parts: dict[str, bytes | str] = {}
    listed, relations = "", ""
    for n, (name, part) in enumerate(sheets.items(), 1):
        state = f' state="{states[name]}"' if states and name in states else ""
        listed += f'<sheet name={quoteattr(name)} sheetId="{n}" r:id="rId{n}"{state}/>'
        relations += f'<Relationship Id="rId{n}" Type="{RELS}/worksheet" Target="worksheets/sheet{n}.xml"/>'
        parts[f"xl/worksheets/sheet{n}.xml"] = part
    for kind, part in (("styles", styles), ("sharedStrings", strings)):
        if part is not None:
            relations += f'<Relationship Id="{kind}" Type="{RELS}/{kind}" Target="/xl/{kind}.xml"/>'
            parts[f"xl/{kind}.xml"] = part
    parts["_rels/.rels"] = (
        f'{HEAD}<Relationships xmlns="{PACKAGE}"><Relationship Id="a" Type="{RELS}/officeDocument" '
        'Target="xl/workbook.xml"/></Relationships>'
    )
    parts["xl/workbook.xml"] = (
        f'{HEAD}<workbook xmlns="{MAIN}" xmlns:r="{RELS}"><workbookPr date1904="{int(from_1904)}"/>'
        f"<sheets>{listed}</sheets></workbook>"
    )
    parts["xl/_rels/workbook.xml.rels"] = f'{HEAD}<Relationships xmlns="{PACKAGE}">{relations}</Relationships>'
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in {**parts, **(extra or {})}.items():
            file.writestr(name, content)
    return path
