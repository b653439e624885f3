"""A cell of a workbook into text (F2, "written as text"), or why it has none. Pure.

Excel keeps numbers as binary floats and rounds what is typed to 15 digits; a number counts only as far as those digits
tell it, and where text is wanted only if the cell shows that very number. What Excel shows and what it holds may differ
in every other case, and nobody could say which of the two was sent.
"""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import cache

from openpyxl.styles.numbers import LITERAL_GROUP, LOCALE_GROUP, is_date_format, is_timedelta_format

from ledger.catalog import Field
from ledger.record import Refusal, text_of
from ledger.source.xlsxsheet import Cell, Strings, unescaped

MAX_CELL = 32_767
"""What Excel keeps of a text, in UTF-16; it cuts the rest off."""

_NUMBER = re.compile(r"-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_ISO = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})(?:T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,6})0*)?)?")
_DECORATION = re.compile(rf"{LITERAL_GROUP}|{LOCALE_GROUP}|\\.|_.|\*.")
_PLAIN = re.compile(r"(#,##)?(#*)(0*)(?:\.(0*)(#*))?")
_LIMIT = 10**15
_DAY_MS = 86_400_000
_LAST_DAY = 2_958_465
_SLACK = Fraction(1, 100)
"""Milliseconds by which a time may miss a whole one: a date and time take 15 digits, which leaves 0.005."""

_FORMULA = Refusal(
    "cell.formula",
    "公式没有计算结果；请在 Excel 中打开保存一次，或复制后选择性粘贴为值",
    "a formula that was never computed; open and save it in Excel, or paste it as values",
)
_ERROR = Refusal("cell.error", "单元格是 Excel 错误值；请改正", "an error value of Excel; correct the cell")
_BOOLEAN = Refusal(
    "value.type",
    "布尔值（TRUE/FALSE）没有规范形式，请存为文字",
    "a boolean (TRUE/FALSE) has no normal form; make it text",
)
_LENGTH = Refusal(
    "cell.length",
    f"超过 Excel 单元格的 {MAX_CELL} 个字符，再次保存会被截断；请用 CSV 或 Parquet",
    f"longer than the {MAX_CELL} characters Excel keeps in a cell; use CSV or Parquet",
)
_SURROGATE = Refusal("text.unsafe", "含有 U+0000 或不成对的代理字符", "contains U+0000 or an unpaired surrogate")
_PRECISION = Refusal(
    "cell.precision",
    "数值超过 15 位有效数字，Excel 已丢失精度；该列须设为文本格式后重新录入或导出",
    "has more than 15 significant digits, so Excel lost precision; the column must be text, entered or exported anew",
)
_FORMAT = Refusal(
    "cell.format",
    "单元格显示的内容与其数值不同（数字格式如 00000、百分比、科学计数、千分位）；请将该列改为文本，内容写成所显示的样子",
    "shows something else than the number it holds (a format such as 00000, percent, scientific, thousands); make the "
    "column text and write what is shown",
)
_SCALED = Refusal(
    "cell.format",
    "数字格式显示的是另一个数（百分比，或以千、万为单位），无法判断以哪个为准；请改为常规格式",
    "its format shows another number (percent, or in thousands), so nobody can say which is meant; use the General format",
)
_TIME = Refusal(
    "cell.time", "只有时间或时长、没有日期，没有规范形式；请存为文字", "a time or duration without a day; make it text"
)
_DATE_RANGE = Refusal(
    "cell.date",
    "不是有效日期（Excel 的 1900-02-29、第 0 天、负数或 9999 年之后）；请改正",
    "is no real day (Excel's 29 February 1900, day 0, negative, or past the year 9999); correct it",
)
_FINE = Refusal(
    "cell.date",
    "时间细于毫秒，Excel 不能精确保存；该列须设为文本",
    "a time finer than a millisecond, which Excel does not hold exactly; make the column text",
)
_SHOWN_DATE = Refusal(
    "value.type",
    "单元格是日期或时间，与该字段的类型不符；请将该列改为文本，内容写成应有的样子",
    "is a date or time, which does not go into a field of this type; make the column text and write what is meant",
)
_NOT_DATE = Refusal(
    "value.type",
    "单元格是数值而不是日期；请将该列设为日期格式，或改为文本 YYYY-MM-DD",
    "is a number and no date; give the column a date format, or make it text, YYYY-MM-DD",
)


class Cells:
    """Texts of the cells of one workbook; `formats` are the number formats of its styles."""

    def __init__(self, strings: Strings, formats: list[str], *, from_1904: bool) -> None:
        self._strings = strings
        self._formats = formats
        self._from_1904 = from_1904

    def known(self, cell: Cell) -> bool:
        """Whether the cell's kind, style and string are in the workbook; a cell that refers elsewhere is damage."""
        if cell.style >= len(self._formats):
            return False
        if cell.kind == "s" and cell.text is not None:
            return (
                cell.text.isascii()
                and cell.text.isdigit()
                and len(cell.text) < 12
                and int(cell.text) < len(self._strings)
            )
        return cell.kind in ("n", "b", "e", "s", "str", "inlineStr", "d")

    def text(self, cell: Cell, field: Field | None) -> str | None:
        """The text of a known cell for `field`, None if it is empty; for `field` None whatever text it has.

        Refusal `cell.<rule>` (`formula`, `error`, `length`, `precision`, `format`, `time`, `date`, `number`),
        `value.type`, `text.unsafe`.
        """
        kind, text = cell.kind, cell.text
        if text is None or (text == "" and kind not in ("str", "inlineStr")):
            if cell.formula and field is not None:
                raise _FORMULA
            return None
        if kind in ("s", "str", "inlineStr"):
            if self.size(cell) > 7 * MAX_CELL:
                # Past this it is too long however it is written.
                raise _LENGTH
            return _checked(self._strings[int(text)] if kind == "s" else unescaped(text))
        if field is None:
            return self._any_text(cell, text)
        if kind == "n":
            return self._number(text, self._formats[cell.style], field)
        if kind == "d":
            return _written(_iso(text, self._formats[cell.style]), field)
        raise _BOOLEAN if kind == "b" else _ERROR

    def size(self, cell: Cell) -> int:
        """About how many bytes a known cell's text takes."""
        if cell.kind == "s" and cell.text:
            return self._strings.size(int(cell.text))
        return len(cell.text or "")

    def shown(self, cell: Cell) -> str:
        """What was in a cell that has no text, as near as can be told; of a text that is too long what Excel keeps."""
        if cell.kind == "s" and cell.text:
            return self._strings.head(int(cell.text), 3 * MAX_CELL)[:MAX_CELL]
        if cell.kind == "b":
            return "TRUE" if cell.text == "1" else "FALSE"
        text = (cell.text or "")[: 7 * MAX_CELL]
        return (unescaped(text) if cell.kind in ("str", "inlineStr") else text)[:MAX_CELL]

    def _any_text(self, cell: Cell, text: str) -> str:
        try:
            if cell.kind == "n":
                dated = is_date_format(self._formats[cell.style])
                return self._number(text, self._formats[cell.style], _DATED if dated else _NUMERIC) or ""
            if cell.kind == "d":
                return str(_iso(text, self._formats[cell.style]))
        except Refusal:
            pass
        return _checked(self.shown(cell))

    def _number(self, text: str, format: str, field: Field) -> str | None:
        if not _NUMBER.fullmatch(text):
            raise Refusal("cell.number", "不是有效的数值", "is no valid number")
        if is_date_format(format):
            return _written(self._moment(text, format), field)
        value = float(text)
        if abs(value) >= _LIMIT or float(short := f"{value:.15g}") != value:
            raise _PRECISION
        if field.type in ("date", "datetime"):
            raise _NOT_DATE
        plain = text_of(Decimal(short), "decimal") or "0"
        if field.type in ("integer", "decimal"):
            if _scales(format):
                raise _SCALED
        elif not _shows(plain, format):
            raise _FORMAT
        return plain

    def _moment(self, text: str, format: str) -> date | datetime:
        if is_timedelta_format(format) or not _has_day(format):
            raise _TIME
        value = float(text)
        if abs(value) >= _LIMIT:
            raise _DATE_RANGE
        exact = Fraction(value) * _DAY_MS
        whole = round(exact)
        if abs(exact - whole) > _SLACK:
            raise _FINE
        day, rest = divmod(whole, _DAY_MS)
        if day > _LAST_DAY or day < 0 or (not self._from_1904 and day in (0, 60)):
            # Excel takes 1900 for a leap year, so that it has a day 60; day 0 is a time alone.
            raise _TIME if day == 0 and rest else _DATE_RANGE
        if self._from_1904:
            begin = date(1904, 1, 1)
        else:
            begin = date(1899, 12, 31) if day < 60 else date(1899, 12, 30)
        try:
            on = begin + timedelta(days=day)
        except OverflowError:
            raise _DATE_RANGE from None
        if rest or _has_time(format):
            return datetime(on.year, on.month, on.day) + timedelta(milliseconds=rest)
        return on


_DATED, _NUMERIC = Field("cell", "datetime"), Field("cell", "decimal", scale=0)


def _checked(text: str) -> str:
    if len(text) > MAX_CELL or len(text.encode("utf-16-le", "surrogatepass")) > 2 * MAX_CELL:
        raise _LENGTH
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _SURROGATE from None
    return text


def _written(moment: date | datetime, field: Field) -> str | None:
    if field is _DATED:
        return str(moment)
    try:
        return text_of(moment, field.type)
    except Refusal:
        raise _SHOWN_DATE from None


def _iso(text: str, format: str) -> date | datetime:
    found = _ISO.fullmatch(text)
    if found is None:
        raise _TIME
    year, month, day, hour, minute, second, fraction = found.groups()
    try:
        moment = datetime(
            int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0),
            int((fraction or "").ljust(6, "0")),
        )  # fmt: skip
    except ValueError:
        raise _DATE_RANGE from None
    midnight = moment.time() == moment.min.time()
    return moment.date() if midnight and not _has_time(format) else moment


@cache
def _first(format: str) -> str:
    """The first section of a number format without what is only decoration."""
    return _DECORATION.sub("", format.split(";", maxsplit=1)[0])


def _has_day(format: str) -> bool:
    # m alone may be minutes; d and y cannot be anything else, and e is the year of Chinese formats.
    bare = _first(format).lower()
    return any(letter in bare for letter in "dye") or ("m" in bare and not any(letter in bare for letter in "hs"))


def _has_time(format: str) -> bool:
    return any(letter in _first(format).lower() for letter in "hs")


@cache
def _scales(format: str) -> bool:
    bare = _first(format)
    return "%" in format or re.search(r"[0#?],+(?![0#?,])", bare) is not None


@cache
def _sections(format: str) -> tuple[str, ...]:
    """The sections that may show a number, without colours and padding; quoted text stays, because it is shown."""
    return tuple(re.sub(r"\[[A-Za-z]+\]|_.|\*.", "", part).strip() for part in format.split(";"))


def _shows(plain: str, format: str) -> bool:
    """Whether a cell of this format shows `plain` and nothing else."""
    sections = _sections(format)
    if len(sections) > 1 and (plain.startswith("-") or (plain == "0" and len(sections) > 2)):
        return False
    section = sections[0]
    if section.lower() in ("general", "@", "g/通用格式"):
        return True
    found = _PLAIN.fullmatch(section)
    if found is None:
        return False
    whole, _, fraction = plain.removeprefix("-").partition(".")
    groups, _, zeros, least, more = found.groups()
    if (groups and len(whole) > 3) or len(zeros) > len(whole) or (whole == "0" and not zeros):
        return False
    least, more = least or "", more or ""
    return len(least) <= len(fraction) <= len(least) + len(more)
