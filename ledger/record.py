"""One value, one row: normal form and canonical bytes (formats F2, F3). The plain reference.

In go a value as a file or database gave it and the catalog that declares its field; out comes a string or None, or a
`Refusal` with the reason. Rows then become the canonical bytes that are hashed. The batch path (`ledger/kernel/`) does
the same a column at a time and is held equal to this module byte for byte.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Literal

from ledger import jcs
from ledger.catalog import Catalog, Field, FieldType
from ledger.errors import InputError

REASONS = ("repaired", "revoked", "expired", "erased", "error")
"""Why a record was withdrawn (F3): 信用修复、撤销、到期、删除、差错."""

STRIPPED = "".join(
    chr(point)
    for low, high in (
        (0x09, 0x0D), (0x1C, 0x20), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A),
        (0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000),
    )
    for point in range(low, high + 1)
)  # fmt: skip
"""What is stripped at both ends (F2), written out because `str.strip` follows the Unicode tables of its Python."""

MAX_DIGITS = 65
"""Digits of an integer or decimal: what MySQL's DECIMAL holds, the widest exact type of the databases we meet."""
MASK = "***"
"""Stands for the value of a field marked `personal`."""
MAX_SHOWN = 60
"""Characters of a refused value that are shown."""
MAX_WRITTEN = 200_000
"""Digits of a database number written out: PostgreSQL's widest has 147,455, an exponent could ask for gigabytes."""
MAX_CANONICAL = 64 << 20
"""Bytes of one opened record: the longest row a file may have fits, a gigabyte of hostile JSON does not."""

UNSAFE = re.compile("[\x00\ud800-\udfff]")
# Written so that a failed match backs off once per character: a value of a million zeros and a letter must not hang.
INTEGER = re.compile(r"(-?)0*([1-9][0-9]*|0)")
DECIMAL = re.compile(r"(-?)0*([1-9][0-9]*|0)(?:\.([0-9]+))?")
DAY = re.compile(
    r"(?:([0-9]{4})-([0-9]{2})-([0-9]{2})|([0-9]{4})/([0-9]{2})/([0-9]{2})|([0-9]{4})([0-9]{2})([0-9]{2}))"
    r"(?:[ T]00:00(?::00(?:\.0+)?)?)?"
)
INSTANT = re.compile(
    r"([0-9]{4})([-/])([0-9]{2})\2([0-9]{2})[T ]([01][0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9])(?:\.([0-9]{1,6})0*)?)?"
    r"(?:Z|([+-])([01][0-9]|2[0-3]):?([0-5][0-9]))?"
)

OUTSIDE = ("换算成 UTC 后年份不在 0001–9999", "in UTC its year is outside 0001-9999")

RECORD = jcs.Kind("canonical", "存证记录原文", "canonical bytes", limit=MAX_CANONICAL)


class Refusal(ValueError):
    """A value has no normal form. `code` names the rule (`date.form`); neither message ever holds the value."""

    def __init__(self, code: str, zh: str, en: str) -> None:
        super().__init__(f"{code}: {en}")
        self.code = code
        self.zh = zh
        self.en = en


@dataclass(frozen=True)
class Unreadable:
    """The first field of a row that has no normal form, or is a null key field; `value` can be shown to anyone."""

    field: str
    value: str
    code: str
    zh: str
    en: str


@dataclass(frozen=True)
class Opened:
    """Canonical bytes taken apart: all fields of a record, or the key fields of a withdrawal and its reason."""

    kind: Literal["record", "withdrawal"]
    values: Mapping[str, str | None]
    reason: str | None = None


def text_of(value: object, type: FieldType) -> str | None:
    """A database value written as text (F2, first paragraph); text itself and None pass through unchanged.

    Exact numbers (int, Decimal) go with text, code, enum, integer and decimal; dates with date, text and enum;
    timestamps with datetime, and with date if they are a midnight without zone. Refusal `value.type` for every other
    pair (booleans and binary floats always), `value.number` for NaN and infinities, `value.year` for a timestamp whose
    year in UTC is outside 0001-9999.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        raise Refusal("value.type", "布尔值没有规范形式，请存为文字", "a boolean has no normal form; store it as text")
    if isinstance(value, float):
        raise Refusal(
            "value.type",
            "二进制浮点数不精确，没有规范形式；请把该列声明为 TEXT 或精确小数",
            "a binary float is not exact and has no normal form; declare the column TEXT or an exact decimal",
        )
    if isinstance(value, (int, Decimal)) and type in ("text", "code", "enum", "integer", "decimal"):
        return _number(value)
    # Exactly these classes: a subclass may hold more than it writes (nanoseconds).
    if value.__class__ is datetime and isinstance(value, datetime):
        midnight = value.tzinfo is None and (value.hour, value.minute, value.second, value.microsecond) == (0, 0, 0, 0)
        if type == "datetime" or (type == "date" and midnight):
            return _timestamp(value)
    elif value.__class__ is date and isinstance(value, date) and type in ("date", "text", "enum"):
        return f"{value.year:04d}-{value.month:02d}-{value.day:02d}"
    name = value.__class__.__name__
    raise Refusal(
        "value.type",
        f"数据库类型 {name} 不能用于 {type} 字段；请把该列声明为 TEXT",
        f"a database value of type {name} does not go into a field of type {type}; declare the column TEXT",
    )


def _number(value: int | Decimal) -> str:
    if isinstance(value, Decimal) and not value.is_finite():
        raise Refusal("value.number", "NaN 或无穷大没有规范形式", "NaN and infinities have no normal form")
    if not value:
        return "0"
    # Measured before anything is written out: a few bytes can ask for gigabytes.
    places = value.bit_length() // 4 if isinstance(value, int) else len(value.as_tuple().digits) + abs(value.adjusted())
    if places > MAX_WRITTEN:
        raise Refusal("value.number", f"写出后超过 {MAX_WRITTEN} 位", f"has more than {MAX_WRITTEN} digits written out")
    text = format(Decimal(value), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _timestamp(value: datetime) -> str:
    if value.utcoffset() is None:
        return _clock(value, " ")
    try:
        return _clock(value.astimezone(UTC), " ") + "Z"
    except OverflowError:
        raise Refusal("value.year", *OUTSIDE) from None


def _clock(value: datetime, between: str) -> str:
    text = (
        f"{value.year:04d}-{value.month:02d}-{value.day:02d}{between}"
        f"{value.hour:02d}:{value.minute:02d}:{value.second:02d}"
    )
    return f"{text}.{value.microsecond:06d}".rstrip("0") if value.microsecond else text


def normal(text: str | None, field: Field, catalog: Catalog) -> str | None:
    """The normal form of `text` in `field` (F2): a string, never empty, or None. Refusal if it has none.

    A normal form is its own normal form.
    """
    if text is None:
        return None
    found = UNSAFE.search(text)
    if found:
        raise Refusal("text.unsafe", "含有 U+0000 或不成对的代理字符", "contains U+0000 or an unpaired surrogate")
    text = tidy(text)
    if not text:
        return None
    if field.type in ("text", "enum"):
        return text
    if field.type == "code":
        return code_form(text)
    if field.type == "integer":
        return _integer(text)
    if field.type == "decimal":
        if field.scale is None:
            raise ValueError(f"field {field.name} is a decimal without a scale")
        return _decimal(text, field.scale)
    if field.type == "date":
        return _date(text)
    return _datetime(text, catalog.offset)


def tidy(text: str) -> str:
    """What F2 does to every type: NFC, line ends to LF, stripped at both ends; may be empty."""
    return unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n").strip(STRIPPED)


def code_form(text: str) -> str | None:
    """The last step of `code`: the NFKC if it is ASCII, in upper case and stripped again; otherwise `text` itself."""
    plain = unicodedata.normalize("NFKC", text)
    if plain.isascii():
        return plain.upper().strip(STRIPPED) or None
    return text


def _integer(text: str) -> str:
    found = INTEGER.fullmatch(text)
    if not found:
        raise Refusal(
            "integer.form",
            "不是整数：只允许半角数字和前面的减号",
            "is not an integer: only ASCII digits, with a minus before them if need be",
        )
    if len(text) - len(found[1]) > MAX_DIGITS:
        raise Refusal("integer.digits", f"超过 {MAX_DIGITS} 位数字", f"has more than {MAX_DIGITS} digits")
    return found[2] if found[2] == "0" else found[1] + found[2]


def _decimal(text: str, scale: int) -> str:
    found = DECIMAL.fullmatch(text)
    if not found:
        raise Refusal(
            "decimal.form",
            "不是小数：只允许半角数字、前面的减号和一个小数点（两侧都有数字）",
            "is not a decimal: only ASCII digits, a minus before them, and one point with digits on both sides",
        )
    sign, whole, fraction = found[1], found[2], found[3] or ""
    given = len(text) - len(sign) - (1 if fraction else 0)
    if given > MAX_DIGITS:
        raise Refusal("decimal.digits", f"超过 {MAX_DIGITS} 位数字", f"has more than {MAX_DIGITS} digits")
    if fraction[scale:].strip("0"):
        raise Refusal(
            "decimal.scale",
            f"小数超过目录声明的 {scale} 位，绝不舍入",
            f"has more fraction digits than the {scale} the catalog declares; never rounded",
        )
    kept = fraction[:scale].ljust(scale, "0")
    if len(whole) + len(kept) > MAX_DIGITS:
        raise Refusal(
            "decimal.digits",
            f"写成 {scale} 位小数后超过 {MAX_DIGITS} 位数字",
            f"has more than {MAX_DIGITS} digits when written with {scale} fraction digits",
        )
    if not (whole + kept).strip("0"):
        sign = ""
    return f"{sign}{whole}.{kept}" if scale else sign + whole


def _day(year: str, month: str, day: str, code: str) -> date:
    try:
        return date(int(year), int(month), int(day))
    except ValueError:
        raise Refusal(code, "公历中没有这一天", "is not a day of the calendar, years 0001-9999") from None


def _date(text: str) -> str:
    found = DAY.fullmatch(text)
    if not found:
        raise Refusal(
            "date.form",
            "不是日期：须为 YYYY-MM-DD、YYYY/MM/DD 或 YYYYMMDD，其后至多是零点",
            "is not a date: YYYY-MM-DD, YYYY/MM/DD or YYYYMMDD, followed by midnight at most",
        )
    year, month, day = (part for part in found.groups() if part is not None)
    return _day(year, month, day, "date.day").isoformat()


def _datetime(text: str, offset: timedelta) -> str:
    found = INSTANT.fullmatch(text)
    if not found:
        raise Refusal(
            "datetime.form",
            "不是时间：须为 YYYY-MM-DD hh:mm[:ss[.f]]，可带 Z 或 ±hh:mm",
            "is not a time: YYYY-MM-DD hh:mm[:ss[.f]], maybe with Z or ±hh:mm, microseconds at the finest",
        )
    year, _, month, day, hour, minute, second, fraction, sign, zone_hour, zone_minute = found.groups()
    on = _day(year, month, day, "datetime.day")
    micro = int((fraction or "").ljust(6, "0"))
    local = datetime(on.year, on.month, on.day, int(hour), int(minute), int(second or 0), micro)
    if sign is not None:
        ahead = timedelta(hours=int(zone_hour), minutes=int(zone_minute))
        offset = -ahead if sign == "-" else ahead
    elif text.endswith("Z"):
        offset = timedelta(0)
    try:
        instant = local - offset
    except OverflowError:
        raise Refusal("datetime.year", *OUTSIDE) from None
    return _clock(instant, "T") + "Z"


def normal_row(catalog: Catalog, values: Mapping[str, object]) -> dict[str, str | None] | Unreadable:
    """All declared fields of a row in normal form, in declared order; or the first of them that cannot be read.

    A null key field makes the row unreadable too (`key.null`). Other members of `values` are ignored; InputError
    `record.field_missing` if a declared field is not in it at all.
    """
    row: dict[str, str | None] = {}
    for field in catalog.fields:
        if field.name not in values:
            raise InputError(
                "record.field_missing",
                f"缺少目录 {catalog.name} 声明的字段 {field.name}",
                f"the field {field.name} declared by {catalog.name} is not there",
                catalog.name,
            )
        value = values[field.name]
        try:
            row[field.name] = normal(text_of(value, field.type), field, catalog)
        except Refusal as refusal:
            return Unreadable(field.name, shown(field, value), refusal.code, refusal.zh, refusal.en)
        if row[field.name] is None and field.name in catalog.key:
            return Unreadable(field.name, shown(field, value), "key.null", "主键字段为空", "is a key field and is null")
    return row


def shown(field: Field, value: object) -> str:
    """`value` for people: masked if the field is personal, on one line, at most 60 characters."""
    if field.personal:
        return MASK
    if value is None:
        return ""
    if isinstance(value, bytes | bytearray | memoryview):
        value = bytes(value[:MAX_SHOWN]).hex()
    # Past Python's own limit on the digits it writes, a number is shown as what it is.
    text = str(value) if not isinstance(value, int) or value.bit_length() < 10_000 else "int"
    line = "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text[: MAX_SHOWN + 1])
    return line if len(line) <= MAX_SHOWN else line[: MAX_SHOWN - 1] + "…"


def canonical(catalog: Catalog, row: Mapping[str, str | None]) -> bytes:
    """The canonical bytes of a record (F3); `row` has every declared field in normal form and nothing else."""
    if row.keys() != catalog.by_name.keys():
        raise ValueError(f"a record of {catalog.name} has the fields {sorted(catalog.by_name)}, not {sorted(row)}")
    return jcs.dump({"catalog": catalog.name, "record": dict(row)})


def withdrawal(catalog: Catalog, key: Mapping[str, str], reason: str) -> bytes:
    """The canonical bytes of a withdrawal (F3); `key` has the key fields in normal form.

    InputError `withdrawal.reason` for a reason that is not listed.
    """
    if reason not in REASONS:
        raise InputError(
            "withdrawal.reason",
            f"撤回原因 {reason[:40]!a} 不在列表中：{' '.join(REASONS)}",
            f"withdrawal reason {reason[:40]!a} is not one of {' '.join(REASONS)}",
            catalog.name,
        )
    return jcs.dump({"catalog": catalog.name, "key": _key(catalog, key), "withdrawn": reason})


def record_key(catalog: Catalog, row: Mapping[str, str | None]) -> bytes:
    """The bytes that name a record over all its versions (F3), catalog versions too; other fields are ignored."""
    return jcs.dump({"catalog": catalog.id, "key": _key(catalog, row)})


def _key(catalog: Catalog, row: Mapping[str, str | None]) -> dict[str, str]:
    key: dict[str, str] = {}
    for name in catalog.key:
        value = row[name]
        if not value:
            raise ValueError(f"{catalog.name}: key field {name} is null; normal_row refuses such a row")
        key[name] = value
    return key


def open_canonical(catalog: Catalog, data: bytes, where: str = "") -> Opened:
    """Canonical bytes taken apart, for a reader who trusts none of them (F8).

    They must be their own RFC 8785 form, name this catalog and version, hold exactly its fields (a withdrawal: its key
    fields and a listed reason), each equal to its own normal form, no key field null: else InputError
    `canonical.<rule>`. That `catalog` is the one the batch was anchored under is the caller's to check, by its digest.
    """

    def refuse(rule: str, zh: str, en: str) -> InputError:
        return RECORD.refuse(rule, zh, en, where)

    top = jcs.load(data, RECORD, where)
    if not isinstance(top, dict) or set(top) not in ({"catalog", "record"}, {"catalog", "key", "withdrawn"}):
        raise refuse("members", "既不是记录也不是撤回", "neither {catalog, record} nor {catalog, key, withdrawn}")
    if top["catalog"] != catalog.name:
        named = f"{str(top['catalog'])[:80]!a}"
        raise refuse("catalog", f"属于目录 {named}，不是 {catalog.name}", f"of catalog {named}, not {catalog.name}")
    is_record = "record" in top
    names = set(catalog.by_name if is_record else catalog.key)
    values = top["record" if is_record else "key"]
    if not isinstance(values, dict) or set(values) != names:
        raise refuse("fields", f"字段须恰为 {sorted(names)}", f"the fields must be exactly {sorted(names)}")
    for name, value in values.items():
        field = catalog.by_name[name]
        if value is None and name in catalog.key:
            raise refuse("key_null", f"主键字段 {name} 为空", f"the key field {name} is null")
        if not isinstance(value, str | None):
            raise refuse("value", f"字段 {name} 既不是文字也不是 null", f"field {name} is neither a string nor null")
        try:
            same = normal(value, field, catalog) == value
        except Refusal:
            same = False
        if not same:
            raise refuse("not_normal", f"字段 {name} 的值不是规范形式", f"field {name} is not in normal form")
    if is_record:
        return Opened("record", values)
    if top["withdrawn"] not in REASONS:
        raise refuse("reason", f"撤回原因须为 {' '.join(REASONS)} 之一", f"the reason is one of {' '.join(REASONS)}")
    return Opened("withdrawal", values, top["withdrawn"])
