"""Types, personal data, key and subject of sampled columns. A guess is only made if every value of the sample bears it out."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date

from ledger.advice import PERSONAL_NAMES, PERSONAL_TITLES
from ledger.catalog import MAX_SCALE, Catalog, Field, FieldType
from ledger.record import DECIMAL, Refusal, normal

PLAIN = Catalog("draft", 1, (), ())
"""Decides normal forms of a sample: the default offset from UTC, no field."""

_CODES = re.compile(
    r"号|码|编号|代码|证书|电话|手机|邮编|(?:^|_)(?:no|code|id|number|phone|mobile|uscc|postcode)(?:$|_)"
)
_DAYS = re.compile(r"日期|时间|有效期|日$|(?:^|_)(?:date|day|on|from|until|at|time)(?:$|_)")
_PERSONS = (
    *PERSONAL_TITLES,
    "当事人",
    "经办人",
    "自然人",
    "股东",
    "法人姓名",
    "监护人",
    "户主",
    "住所",
    "家庭",
    "银行卡",
    "银行账号",
)
_NOT_PERSONS = ("法定代表人证件类型", "证件类型", "联系人数", "机构电话", "单位电话")
USCC = re.compile(r"[0-9A-HJ-NPQRTUWXY]{2}[0-9]{6}[0-9A-HJ-NPQRTUWXY]{10}")
_ID_CARD = re.compile(r"[1-8][0-9]{5}((?:18|19|20)[0-9]{2})([0-9]{2})([0-9]{2})[0-9]{3}[0-9X]")
_OLD_ID_CARD = re.compile(r"[1-8][0-9]{5}([0-9]{2})([0-9]{2})([0-9]{2})[0-9]{3}")
_MOBILE = re.compile(r"(?:\+?86[- ]?)?1[3-9][0-9]{9}")
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_SURNAMES = frozenset(
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何高林罗郑梁谢宋唐许韩冯邓曹彭曾肖田董袁潘于蒋蔡余杜叶程苏魏吕丁任沈姚卢姜崔钟谭陆汪范金石廖贾夏韦"
    "付方白邹孟熊秦邱江尹薛闫段雷侯龙史陶黎贺顾毛郝龚邵万钱严覃武戴莫孔向汤欧阳司徒"
)
_PLACES = re.compile(r"(?:省|市|区|县|镇|乡|村|街道|局|厅|处|所|院|公司|厂|店)$")
_HAN_NAME = re.compile(r"[\u4e00-\u9fff]{2,4}")
_ALNUM = re.compile(r"[0-9A-Za-z][0-9A-Za-z./()_-]*")
MOST_KEY_COLUMNS = 24
"""Columns that are tried in pairs; more would take long and say little."""


@dataclass(frozen=True)
class Column:
    """A sampled column: its heading, its field's name, the values as text, and what the table declares of it.

    `fits` are the types its values may go into at all (a file's: every type); `declared` and `scale` what a database says.
    """

    title: str
    name: str
    texts: Sequence[str | None]
    fits: Sequence[FieldType]
    declared: FieldType | None = None
    scale: int | None = None
    in_primary_key: bool = False


@dataclass(frozen=True)
class Guess:
    """What a field is taken to be. `empty`: the sample had no value, so nothing is known."""

    type: FieldType
    scale: int | None = None
    empty: bool = False


def guess_type(column: Column) -> Guess:
    """The narrowest type that every value of the sample has a normal form in, and that heading and looks speak for."""
    texts = [text for text in column.texts if text is not None and text.strip()]
    if column.declared not in (None, "text"):
        return _declared(column, texts)
    if not texts:
        return Guess("text", empty=True)
    about = f"{column.title} {column.name}"
    day = bool(_DAYS.search(column.title) or _DAYS.search(column.name))
    code = bool(_CODES.search(column.title) or _CODES.search(column.name))
    if (day or any("-" in it or "/" in it for it in texts)) and _all(texts, "date"):
        return Guess("date")
    if _all(texts, "datetime"):
        return Guess("datetime")
    scale = _scale(texts)
    if scale is not None:
        padded = any(re.match(r"-?0[0-9]", text.strip()) for text in texts)
        alike = scale == 0 and len({len(text.strip()) for text in texts}) == 1 and len(texts[0].strip()) >= 6
        if padded or code or alike:
            return Guess("code")
        if scale == 0 and _all(texts, "integer"):
            return Guess("integer")
        if _all(texts, "decimal", scale):
            return Guess("decimal", scale)
        return Guess("code")
    if code and "名" not in about:
        return Guess("code")
    if all(_ALNUM.fullmatch(text.strip()) and re.search("[0-9]", text) for text in texts):
        return Guess("code")
    return Guess("text")


def _declared(column: Column, texts: Sequence[str]) -> Guess:
    """What a database declares holds, unless its values say otherwise (SQLite's may)."""
    declared = column.declared or "text"
    if declared == "decimal":
        seen = _scale(texts) or 0
        scale = column.scale if column.scale is not None and 0 <= column.scale <= MAX_SCALE else seen
        if texts and scale < seen:
            scale = seen
        if _all(texts, "decimal", scale):
            return Guess("decimal", scale)
    elif _all(texts, declared):
        return Guess(declared)
    return Guess("text", empty=not texts)


def _scale(texts: Iterable[str]) -> int | None:
    """The largest number of fraction digits, if all are plain numbers."""
    scale = 0
    for text in texts:
        found = DECIMAL.fullmatch(text.strip())
        if found is None:
            return None
        scale = max(scale, len(found[3] or ""))
    return scale if scale <= MAX_SCALE else None


def _all(texts: Iterable[str], type: FieldType, scale: int | None = None) -> bool:
    return all(has_form(text, Field("draft", type, scale)) for text in texts)


def has_form(text: str | None, field: Field) -> bool:
    """Whether a value has a normal form in a field."""
    try:
        normal(text, field, PLAIN)
    except Refusal:
        return False
    return True


# ---- people ----


def looks_personal(column: Column) -> bool:
    """Whether the field should be masked: its heading says so, or its values look like numbers or names of people."""
    if any(word in column.title for word in _PERSONS) or any(word in column.name for word in PERSONAL_NAMES):
        return not any(word in column.title for word in _NOT_PERSONS)
    texts = [text.strip().upper() for text in column.texts if text is not None and text.strip()]
    if any(_is_id_card(text) for text in texts) and not _most(texts, lambda text: bool(USCC.fullmatch(text)), 1.0):
        return True
    if _most(texts, lambda text: bool(_ID_CARD.fullmatch(text)), 0.5):
        return True
    if _most(texts, lambda text: bool(_MOBILE.fullmatch(text)), 0.5):
        return True
    return len(set(texts)) >= 3 and _most(texts, _is_name, 0.8)


def _is_id_card(text: str) -> bool:
    """A number with a real day of birth and, of 18 digits, the right check digit (GB 11643)."""
    found = _ID_CARD.fullmatch(text)
    if found is not None:
        total = sum(int(digit) * weight for digit, weight in zip(text[:17], _WEIGHTS, strict=True))
        return _is_day(found[1], found[2], found[3]) and "10X98765432"[total % 11] == text[17]
    return False


def _is_day(year: str, month: str, day: str) -> bool:
    try:
        date(int(year), int(month), int(day))
    except ValueError:
        return False
    return True


def _is_name(text: str) -> bool:
    return bool(_HAN_NAME.fullmatch(text)) and text[0] in _SURNAMES and not _PLACES.search(text)


def _most(texts: Sequence[str], test: Callable[[str], bool], share: float) -> bool:
    return bool(texts) and sum(map(test, texts)) >= share * len(texts)


# ---- subject, key ----


def is_uscc(column: Column) -> bool:
    """Whether the column holds unified social credit codes, nearly all."""
    texts = [text.strip().upper() for text in column.texts if text is not None and text.strip()]
    if not texts:
        return column.name == "uscc"
    return _most(texts, lambda text: bool(USCC.fullmatch(text)), 0.9)


def guess_key(columns: Sequence[Column], fields: Sequence[Field]) -> tuple[tuple[str, ...], str]:
    """The key's fields and how they were found: `primary_key`, `unique`, `pair`, or `none` where nothing is unique."""
    declared = tuple(f.name for c, f in zip(columns, fields, strict=True) if c.in_primary_key)
    if declared:
        return declared, "primary_key"
    if not columns[0].texts:
        likely = [f.name for c, f in zip(columns, fields, strict=True) if is_uscc(c) or f.type == "code"]
        named = [
            f.name for c, f in zip(columns, fields, strict=True) if _CODES.search(c.title) or _CODES.search(c.name)
        ]
        return ((*likely, *named, fields[0].name)[0],), "none"
    forms: dict[str, list[str | None]] = {}
    order = sorted(range(len(fields)), key=lambda at: (_rank(columns[at], fields[at]), at))
    for at in order:
        values = [normal(text, fields[at], PLAIN) for text in columns[at].texts]
        if None not in values:
            forms[fields[at].name] = values
            if len(set(values)) == len(values):
                return (fields[at].name,), "unique"
    for first, second in itertools.combinations(list(forms)[:MOST_KEY_COLUMNS], 2):
        if len(set(zip(forms[first], forms[second], strict=True))) == len(forms[first]):
            return (first, second), "pair"
    return (next(iter(forms), fields[0].name),), "none"


def _rank(column: Column, field: Field) -> tuple[bool, int, bool, bool]:
    """Numbers that somebody gave a thing make better keys than what it is called, when it was or what it cost; people's least."""
    types = {"code": 0, "integer": 1, "enum": 2, "text": 2, "date": 3, "datetime": 3, "decimal": 4}
    # A running number of the list is unique in every list and means another row in the next.
    serial = column.name == "serial" or column.title in ("序号", "行号")
    coded = bool(_CODES.search(column.title) or _CODES.search(column.name))
    return serial, types[field.type], not coded, field.personal


def heading_is_data(title: str) -> bool:
    """Whether a heading looks like a value: then the file has no header, and its first record must not become titles."""
    text = title.strip()
    number = bool(DECIMAL.fullmatch(text)) and len(text) > 4
    return number or bool(
        USCC.fullmatch(text)
        or _ID_CARD.fullmatch(text.upper())
        or _OLD_ID_CARD.fullmatch(text)
        or _MOBILE.fullmatch(text)
        or (has_form(text, Field("x", "date")) and text)
        or (has_form(text, Field("x", "datetime")) and text)
    )
