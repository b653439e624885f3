"""What a delivered file is: by its first bytes, which decide, and by its ending, which must not contradict them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO, Literal

from ledger.errors import InputError
from ledger.source.compressed import compression_of, open_bytes, open_stream, os_error

Kind = Literal["csv", "xlsx", "parquet"]

ENDINGS = (".csv", ".csv.gz", ".csv.bz2", ".csv.xz", ".csv.zst", ".xlsx", ".parquet")
"""What a delivered file may be called; the inbox takes files with these endings, in any case."""

_SAVE_ZH, _SAVE_EN = "请在 Excel 或 WPS 中另存为 .xlsx", "save it as .xlsx in Excel or WPS"
_UNPACK_ZH, _UNPACK_EN = "请先解压", "unpack it first"
_EXPORT_ZH, _EXPORT_EN = "请导出为 CSV、.xlsx 或 Parquet", "export CSV, .xlsx or Parquet"
_MARKUP = rb"(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*)*"
_ODD: tuple[tuple[re.Pattern[bytes], str, str, str, str], ...] = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), zh, en, todo_zh, todo_en)
    for pattern, zh, en, todo_zh, todo_en in (
        (_MARKUP + rb"<\?xml.{0,2000}?urn:schemas-microsoft-com:office:spreadsheet",
         "XML 表格（Excel 2003）", "an XML spreadsheet (Excel 2003)", _SAVE_ZH, _SAVE_EN),
        (_MARKUP + rb"<(?:!doctype\s+html|html|head|meta|body|table|style|div)\b",
         "网页（HTML）", "an HTML page", _SAVE_ZH, _SAVE_EN),
        (rb"\s*MIME-Version:", "网页（MHTML）", "a web archive (MHTML)", _SAVE_ZH, _SAVE_EN),
        (_MARKUP + rb"<\?xml\b", "XML", "XML", _EXPORT_ZH, _EXPORT_EN),
        (rb"%PDF-", "PDF", "PDF", _EXPORT_ZH, _EXPORT_EN),
        (rb"SQLite format 3\x00", "SQLite 数据库", "a SQLite database", _EXPORT_ZH, _EXPORT_EN),
        (rb"Rar!\x1a\x07", "RAR 压缩包", "a RAR archive", _UNPACK_ZH, _UNPACK_EN),
        (rb"7z\xbc\xaf\x27\x1c", "7z 压缩包", "a 7z archive", _UNPACK_ZH, _UNPACK_EN),
        (rb"\x1f\x9d|\x1f\xa0", "compress 压缩文件（.Z）", "a .Z file of compress", _UNPACK_ZH, _UNPACK_EN),
        (rb"ARROW1|Obj\x01|ORC", "Arrow、Avro 或 ORC 文件", "an Arrow, Avro or ORC file", _EXPORT_ZH, _EXPORT_EN),
        (rb"\x09\x08\x10\x00\x00\x06\x05\x00|\x09[\x00\x02\x04]\x06\x00",
         "旧版 .xls 工作簿", "an old .xls workbook", _SAVE_ZH, _SAVE_EN),
    )
)  # fmt: skip
_OLE = bytes.fromhex("d0cf11e0a1b11ae1")
_ENDING = {
    ".csv": "text", ".txt": "text", ".tsv": "text", ".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd",
    ".xlsx": "zip", ".xlsm": "zip", ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
_NAMES = {
    "text": ("文本（CSV）", "text (CSV)", ".csv"), "gzip": ("gzip 压缩文件", "a gzip file", ".csv.gz"),
    "bzip2": ("bzip2 压缩文件", "a bzip2 file", ".csv.bz2"), "xz": ("xz 压缩文件", "an xz file", ".csv.xz"),
    "zstd": ("zstd 压缩文件", "a zstd file", ".csv.zst"), "zip": ("ZIP（如 .xlsx 工作簿）", "a ZIP (as .xlsx is)", ".xlsx"),
    "parquet": ("Parquet", "Parquet", ".parquet"),
}  # fmt: skip


def kind_of(path: Path) -> Kind:
    """How to read the file.

    InputError `file.kind` for what cannot be read, saying what it is and what to do; `file.ending` where the name says
    something else than the content; `csv.file` if it cannot be opened.
    """
    where = str(path)
    with open_bytes(path) as file:
        try:
            start = file.read(4096)
            found = _content(start, file, where)
        except OSError as error:
            raise os_error(error, where) from error
    suffix = path.suffix.lower()
    wanted = _ENDING.get(suffix)
    if (wanted is not None and wanted != found) or suffix in (".xls", ".xlsb", ".et", ".ods", ".htm", ".html", ".xml"):
        zh, en, ending = _NAMES[found]
        raise InputError(
            "file.ending",
            f"文件名以 {suffix} 结尾，内容却是{zh}；若内容无误请改名为 {ending}，否则请重新导出（Excel 文件请另存为 .xlsx）",
            f"the name ends with {suffix}, the content is {en}; rename it to {ending} if the content is right, else "
            "export it again (from Excel: save it as .xlsx)",
            where,
        )
    if found in ("gzip", "bzip2", "xz", "zstd"):
        _check_inside(path)
        return "csv"
    return "xlsx" if found == "zip" else "parquet" if found == "parquet" else "csv"


def _content(start: bytes, file: BinaryIO | None, where: str) -> str:
    packed = compression_of(start)
    if packed is not None:
        return packed
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return "zip"
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.startswith(b"PARE"):
        raise _odd("加密的 Parquet", "an encrypted Parquet file", "请不加密导出", "export it without encryption", where)
    if start.startswith(_OLE):
        if file is not None and _holds(file, "EncryptedPackage".encode("utf-16-le")):
            raise _odd(
                "加密的工作簿（设有打开密码）",
                "a workbook with a password",
                "请取消打开密码后另存为 .xlsx",
                "remove the password and save it as .xlsx",
                where,
            )
        raise _odd("旧版 .xls 工作簿", "an old .xls workbook", _SAVE_ZH, _SAVE_EN, where)
    for pattern, zh, en, todo_zh, todo_en in _ODD:
        if pattern.match(start):
            raise _odd(zh, en, todo_zh, todo_en, where)
    return "text"


def _odd(zh: str, en: str, todo_zh: str, todo_en: str, where: str) -> InputError:
    return InputError(
        "file.kind", f"文件内容是{zh}，不能读取；{todo_zh}", f"the file is {en}, which is not read; {todo_en}", where
    )


def _holds(file: BinaryIO, wanted: bytes) -> bool:
    file.seek(0)
    kept = b""
    while data := file.read(1 << 20):
        if wanted in kept + data:
            return True
        kept = data[-len(wanted) :]
    return False


def _check_inside(path: Path) -> None:
    """Only text is unpacked on the way."""
    stream = open_stream(path)
    try:
        start = stream.read(4096)
    finally:
        stream.close()
    where = str(path)
    found = _content(start, None, where)
    if found != "text":
        zh, en, _ = _NAMES[found]
        raise _odd(f"压缩的{zh}", f"{en}, compressed", _UNPACK_ZH, _UNPACK_EN, where)
