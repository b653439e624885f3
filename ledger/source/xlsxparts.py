"""A workbook as what it is: a ZIP of XML parts, read from the outside in and within limits.

openpyxl is not used for reading: its read-only mode passes over rows that stand out of order or outside the declared
dimension, does not tell an empty cell from a formula that was never computed, keeps merged cells to itself, alters text
that holds `x005F_`, and knows neither strict workbooks nor the dates of Chinese formats. Cells are therefore taken from
the XML; what a number format means is still openpyxl's to say (`xlsxcells.py`).
"""

from __future__ import annotations

import posixpath
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO
from xml.etree.ElementTree import Element, ParseError
from xml.parsers import expat

import defusedxml.ElementTree as defused
from defusedxml.common import DefusedXmlException

from ledger.errors import InputError
from ledger.source.compressed import os_error

MAX_PARTS = 10_000
"""Parts of a workbook; a sheet needs about three."""
MAX_PART = 16 << 30
"""Bytes a part may unpack to: a full sheet of 200 columns has about ten gigabytes. Bounds time, not memory."""
MAX_SMALL = 4 << 20
"""Bytes of the parts that are read as a tree: the list of sheets and the relations between parts."""
MAX_RATIO = 300
"""How many times its packed size a part may unpack to; sheets reach 40, of empty cells 150. A bomb needs 1,000."""
RATIO_FROM = 32 << 20
MAX_DEPTH = 64
"""How deep elements may lie in one another; a cell lies at 7."""
MAX_TOKEN = 4 << 20
"""Bytes of one tag or comment: expat looks at an unfinished one again with each piece it is given."""
_STEP = 1 << 18

_MAIN = ("http://schemas.openxmlformats.org/spreadsheetml/2006/main", "http://purl.oclc.org/ooxml/spreadsheetml/main")
_DOC_RELS = (
    "http://schemas.openxmlformats.org/officeDocument/2006/relationships",
    "http://purl.oclc.org/ooxml/officeDocument/relationships",
)


@dataclass(frozen=True)
class Sheet:
    """A worksheet of the workbook: its name and part; `hidden` if Excel does not show it."""

    name: str
    part: str
    hidden: bool


@dataclass(frozen=True)
class Workbook:
    """What the workbook says of itself; `strings` and `styles` are parts, None where it has none."""

    sheets: tuple[Sheet, ...]
    from_1904: bool
    strings: str | None
    styles: str | None


class Package:
    """The parts of an opened file. InputError `xlsx.<rule>`: `damaged`, `encrypted`, `ratio`, `size`, `xml`, `dtd`;
    `file.kind` for a ZIP that is no workbook."""

    def __init__(self, file: BinaryIO, where: str) -> None:
        self.where = where
        try:
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, OverflowError) as error:
            raise self._refusal(error) from error
        parts = self._zip.infolist()
        if len(parts) > MAX_PARTS:
            raise InputError("xlsx.size", f"部件超过 {MAX_PARTS} 个", f"has more than {MAX_PARTS} parts", where)
        self._parts: dict[str, zipfile.ZipInfo] = {}
        for part in parts:
            # Names count in any case; some writers use the other slash.
            name = part.filename.replace("\\", "/").lower()
            if name in self._parts:
                raise self.damaged(f"部件 {part.filename[:80]!a} 有两份", f"has two parts {part.filename[:80]!a}")
            self._parts[name] = part

    def chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of a part, checked against its CRC by the time they end."""
        part = self._parts.get(name.lower())
        if part is None:
            raise self.damaged(f"缺少部件 {name[:80]!a}", f"lacks the part {name[:80]!a}")
        if part.flag_bits & 1:
            raise InputError(
                "xlsx.encrypted",
                "工作簿已加密；请去掉密码后另存为 .xlsx",
                "the workbook is encrypted; save it as .xlsx without a password",
                self.where,
            )
        # The reader takes no more than the declared size, whatever the packed data hold.
        if part.file_size > MAX_PART:
            raise InputError(
                "xlsx.size",
                f"部件 {name} 解压后超过 {MAX_PART >> 30} GiB",
                f"{name} unpacks to more than {MAX_PART >> 30} GiB",
                self.where,
            )
        if part.file_size > RATIO_FROM and part.file_size > MAX_RATIO * max(part.compress_size, 1):
            raise InputError(
                "xlsx.ratio",
                f"部件 {name} 的解压比例超过 {MAX_RATIO} 倍（{part.compress_size} 字节解出 {part.file_size} 字节），疑似压缩炸弹",
                f"{name} unpacks to more than {MAX_RATIO} times its size ({part.compress_size} bytes to "
                f"{part.file_size}), as only a bomb does",
                self.where,
            )
        try:
            with self._zip.open(part) as stream:
                while data := stream.read(_STEP):
                    yield data
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
            raise self._refusal(error) from error

    def workbook(self) -> Workbook:
        """The workbook part and what it refers to."""
        main = next((target for kind, target in self._relations("").values() if kind == "officeDocument"), None)
        if main is None or main.lower() not in self._parts:
            raise self._no_workbook()
        if main.lower().endswith(".bin"):
            raise _no_xlsx("二进制工作簿 .xlsb", "a binary workbook (.xlsb)", self.where)
        root = self._tree(main)
        if _local(root.tag, _MAIN) != "workbook":
            raise self._no_workbook()
        relations = self._relations(main)
        sheets = []
        from_1904 = False
        for element in root.iter():
            tag = _local(element.tag, _MAIN)
            if tag == "workbookPr":
                from_1904 = element.get("date1904") in ("1", "true", "on")
            elif tag == "sheet":
                relation = next(
                    (element.get(f"{{{space}}}id") for space in _DOC_RELS if element.get(f"{{{space}}}id")), ""
                )
                kind, target = relations.get(relation or "", ("", ""))
                if kind == "worksheet":
                    sheets.append(Sheet(element.get("name", ""), target, element.get("state", "visible") != "visible"))
        if not sheets:
            raise self.damaged("没有工作表", "has no worksheet")
        by_kind = dict(relations.values())
        return Workbook(tuple(sheets), from_1904, by_kind.get("sharedStrings"), by_kind.get("styles"))

    def damaged(self, zh: str, en: str, row: int | None = None) -> InputError:
        """The refusal of a workbook that is not as it should be."""
        where = self.where if row is None else f"{self.where}:{row}"
        return InputError(
            "xlsx.damaged",
            f"工作簿已损坏或写法不规范：{zh}；请用 Excel 或 WPS 打开后另存为 .xlsx",
            f"the workbook is damaged or oddly written: {en}; open it in Excel or WPS and save it as .xlsx",
            where,
        )

    def _no_workbook(self) -> InputError:
        names = set(self._parts)
        if "mimetype" in names or "content.xml" in names:
            return _no_xlsx("OpenDocument 文档（.ods）", "an OpenDocument file (.ods)", self.where)
        if any(name.startswith(("word/", "ppt/")) for name in names):
            return _no_xlsx("Word 或 PowerPoint 文档", "a Word or PowerPoint document", self.where)
        return InputError(
            "file.kind",
            "文件是 ZIP 压缩包，不是 Excel 工作簿；请先解压，再交付其中的文件",
            "the file is a ZIP and no workbook; unpack it and deliver the file inside",
            self.where,
        )

    def _relations(self, part: str) -> Mapping[str, tuple[str, str]]:
        """What a part refers to: id -> (last word of the kind, part)."""
        folder, name = posixpath.split(part)
        path = posixpath.join(folder, "_rels", f"{name}.rels")
        if path.lower() not in self._parts:
            if part:
                return {}
            raise self._no_workbook()
        found = {}
        for element in self._tree(path):
            if element.get("TargetMode") == "External":
                continue
            target = element.get("Target", "").replace("\\", "/")
            resolved = posixpath.normpath(posixpath.join("/", folder, target)).lstrip("/")
            found[element.get("Id", "")] = (element.get("Type", "").rsplit("/", 1)[-1], resolved)
        return found

    def _tree(self, name: str) -> Element:
        data = b""
        for piece in self.chunks(name):
            data += piece
            if len(data) > MAX_SMALL:
                raise InputError(
                    "xlsx.size",
                    f"部件 {name} 超过 {MAX_SMALL >> 20} MiB",
                    f"{name} exceeds {MAX_SMALL >> 20} MiB",
                    self.where,
                )
        try:
            return defused.fromstring(data, forbid_dtd=True)
        except DefusedXmlException as error:
            raise _dtd(name, self.where) from error
        except (ParseError, RecursionError, ValueError, LookupError) as error:
            raise self.damaged(f"{name} 不是有效的 XML", f"{name} is not valid XML") from error

    def _refusal(self, error: Exception) -> InputError:
        if isinstance(error, OSError) and not isinstance(error, zipfile.BadZipFile) and error.errno is not None:
            return os_error(error, self.where)
        return InputError(
            "xlsx.damaged",
            "ZIP 数据已损坏或不完整；请重新传输，或用 Excel 打开后另存为 .xlsx",
            "its ZIP data are damaged or cut short; transfer it again, or open it in Excel and save it as .xlsx",
            self.where,
        )


Start = Callable[[str, Mapping[str, str], int], None]
End = Callable[[str, int], None]


def walk(package: Package, part: str, start: Start, end: End, text: Callable[[str], None]) -> Iterator[None]:
    """Push a part through expat, pausing after each piece; names come without their namespace, and as "?" from a
    foreign one, with the depth of the element, the root's being 1.

    Like defusedxml it refuses every document type, so no entity can be declared; that one is two to three times slower
    on sheets. InputError `xlsx.dtd`, `xlsx.damaged`.
    """
    parser = expat.ParserCreate("utf-8", " ")
    parser.buffer_text = True
    depth = 0
    names = _Names()

    def begin(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise package.damaged(f"{part} 嵌套过深", f"{part} is nested too deep")
        start(names[name], attributes, depth)

    def finish(name: str) -> None:
        nonlocal depth
        end(names[name], depth)
        depth -= 1

    def doctype(*_: Any) -> None:
        raise _dtd(part, package.where)

    parser.StartElementHandler = begin
    parser.EndElementHandler = finish
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = doctype
    given = 0
    try:
        for data in package.chunks(part):
            if not given and (data.startswith((b"\xfe\xff", b"\xff\xfe")) or b"\0" in data[:4]):
                # Excel writes UTF-8 only, and the sheet is searched as such before it is parsed.
                raise package.damaged(f"{part} 不是 UTF-8", f"{part} is not UTF-8")
            parser.Parse(data, False)
            given += len(data)
            if given - parser.CurrentByteIndex > MAX_TOKEN + _STEP:
                raise package.damaged(f"{part} 中有超长的标记", f"{part} holds a tag without end")
            yield
        parser.Parse(b"", True)
        yield
    except expat.ExpatError as error:
        raise package.damaged(f"{part} 不是有效的 XML", f"{part} is not valid XML") from error


class _Names(dict[str, str]):
    """Element names as expat gives them -> without namespace."""

    def __missing__(self, name: str) -> str:
        space, _, local = name.rpartition(" ")
        found = local if space in _MAIN else "?"
        if len(self) < 10_000:
            self[name] = found
        return found


def _local(tag: str, spaces: tuple[str, ...]) -> str:
    space, _, local = tag.removeprefix("{").rpartition("}")
    return local if space in spaces else "?"


def _no_xlsx(zh: str, en: str, where: str) -> InputError:
    return InputError(
        "file.kind",
        f"文件内容是{zh}，不能读取；请在 Excel 或 WPS 中另存为 .xlsx",
        f"the file is {en}, which is not read; save it as .xlsx in Excel or WPS",
        where,
    )


def _dtd(part: str, where: str) -> InputError:
    return InputError(
        "xlsx.dtd",
        f"部件 {part} 含有文档类型声明（DTD），可能是攻击；拒绝读取",
        f"{part} declares a document type (DTD), as an attack would; it is not read",
        where,
    )
