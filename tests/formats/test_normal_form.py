"""Normal form of a value (F2), type by type, and of a row."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.catalog import Catalog, Field, parse_catalog
from ledger.errors import InputError
from ledger.record import MASK, STRIPPED, Refusal, Unreadable, normal, normal_row

PLAIN = parse_catalog(b'id = "a"\nversion = 1\nkey = ["k"]\n[[field]]\nname = "k"\ntype = "text"\n', "")
# Every character but U+0000, surrogates, private use and what this Unicode version leaves unassigned.
ASSIGNED = [chr(p) for p in range(1, sys.maxunicode + 1) if unicodedata.category(chr(p)) not in ("Cs", "Co", "Cn")]
TYPES = ["text", "code", "enum", "integer", "decimal", "date", "datetime"]


def form(text: str | None, type_: str, scale: int | None = None, catalog: Catalog = PLAIN) -> str | None:
    return normal(text, Field("f", type_, scale), catalog)  # type: ignore[arg-type]


def refused(text: str, type_: str, scale: int | None = None) -> str:
    with pytest.raises(Refusal) as caught:
        form(text, type_, scale)
    assert caught.value.zh
    assert caught.value.en
    return caught.value.code


# --- every type ---


@pytest.mark.parametrize("type_", TYPES)
def test_null_and_blank_are_null(type_: str) -> None:
    for blank in (None, "", " ", "\u3000\t\r\n", "\u2028\u2029\x85\xa0"):
        assert form(blank, type_, 2) is None


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("bad", ["\x00", "\ud800", "x\udfff", "\ud83d\ude00", "1\x00", " \x00 ", "2022-03-04\udc00"])
def test_nul_and_surrogates_are_refused_in_every_type(type_: str, bad: str) -> None:
    assert refused(bad, type_, 2) == "text.unsafe"


def test_exactly_the_listed_characters_are_stripped() -> None:
    listed = {
        0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x1C, 0x1D, 0x1E, 0x1F, 0x20, 0x85, 0xA0, 0x1680,
        0x2000, 0x2001, 0x2002, 0x2003, 0x2004, 0x2005, 0x2006, 0x2007, 0x2008, 0x2009, 0x200A,
        0x2028, 0x2029, 0x202F, 0x205F, 0x3000,
    }  # fmt: skip
    assert {ord(char) for char in STRIPPED} == listed
    for char in ASSIGNED:
        point = ord(char)
        # A combining mark would join its neighbour in NFC; put something between that does not combine.
        got = form(f"{char}\u200bx\u200b{char}", "text")
        if point in listed:
            assert got == "\u200bx\u200b", hex(point)
        else:
            want = unicodedata.normalize("NFC", char)
            assert got == f"{want}\u200bx\u200b{want}", hex(point)


def test_a_byte_order_mark_and_a_zero_width_space_stay() -> None:
    assert form("\ufeffa\u200b", "text") == "\ufeffa\u200b"


@pytest.mark.parametrize(
    ("given_", "wanted"),
    [
        ("cafe\u0301", "café"),
        ("e\u0301", "\u00e9"),
        ("\u212b", "\u00c5"),
        ("a\r\nb\rc\nd\r\r\ne", "a\nb\nc\nd\n\ne"),
        ("\r\na\r", "a"),
        (" \u3000a  b\t", "a  b"),
        ("①", "①"),
        ("ＡＢ", "ＡＢ"),
        ("\x01a\x1b", "\x01a\x1b"),
        ("\u0301a", "\u0301a"),
        (" \u0301", "\u0301"),
    ],
)
def test_text_and_enum_keep_everything_else(given_: str, wanted: str) -> None:
    assert form(given_, "text") == wanted
    assert form(given_, "enum") == wanted


# --- code ---


@pytest.mark.parametrize(
    ("given_", "wanted"),
    [
        ("ab-1z", "AB-1Z"),
        ("ａｂ１", "AB1"),
        ("①", "1"),
        ("ﬁ", "FI"),
        ("ß", "ß"),
        ("Ⅷ", "VIII"),
        ("½", "½"),  # its NFKC holds U+2044, so it stays as it was
        ("K", "K"),  # the Kelvin sign
        ("ſ", "S"),
        ("粤Ａ1", "粤Ａ1"),
        ("粤a", "粤a"),
        ("İ", "İ"),
        ("a\u00a0b", "A B"),
        ("\u00a8", "\u00a8"),  # its NFKC is a space and a combining mark, not ASCII
        ("a\x1fb", "A\x1fB"),
        ("\u2002a", "A"),
    ],
)
def test_code(given_: str, wanted: str) -> None:
    assert form(given_, "code") == wanted


def test_a_code_is_stripped_again_after_nfkc() -> None:
    # No character is known whose NFKC is blank ASCII though NFC and strip leave it; so look at all of them.
    for char in ASSIGNED:
        got = form(char, "code")
        assert got is None or got.strip(STRIPPED) == got, hex(ord(char))
        assert form(got, "code") == got, hex(ord(char))


# --- numbers ---


@pytest.mark.parametrize(
    ("given_", "wanted"),
    [
        ("0", "0"), ("-0", "0"), ("000", "0"), ("-000", "0"), ("007", "7"), ("-007", "-7"), (" 12 ", "12"),
        ("9" * 65, "9" * 65), ("-" + "9" * 65, "-" + "9" * 65), ("0" * 64 + "1", "1"), ("100", "100"),
    ],
)  # fmt: skip
def test_integer(given_: str, wanted: str) -> None:
    assert form(given_, "integer") == wanted


@pytest.mark.parametrize(
    "text",
    ["+1", "1.0", "1.", "1e3", "1_000", "1,000", "0x1f", "--1", "- 1", "1 2", "１２", "٣", "一", "-", "1\n2", "²"],
)
def test_what_is_no_integer(text: str) -> None:
    assert refused(text, "integer") == "integer.form"


def test_an_integer_has_65_digits_at_most_as_given() -> None:
    assert refused("9" * 66, "integer") == "integer.digits"
    assert refused("0" * 65 + "1", "integer") == "integer.digits"


@pytest.mark.parametrize(
    ("given_", "scale", "wanted"),
    [
        ("1", 2, "1.00"), ("1.5", 2, "1.50"), ("01.50", 2, "1.50"), ("0.5", 0, None), ("1.0", 0, "1"), ("-1.000", 0, "-1"),
        ("-0", 2, "0.00"), ("-0.000000", 2, "0.00"), ("000.10", 1, "0.1"), ("-000.10", 1, "-0.1"), ("0", 0, "0"), ("-0.0", 0, "0"),
        ("1.2300", 2, "1.23"), ("1.2301", 2, None), ("0.001", 2, None), ("12345678901234567890.5", 1, "12345678901234567890.5"),
        ("9" * 63, 2, "9" * 63 + ".00"), ("9" * 64, 2, None), ("9" * 27, 38, "9" * 27 + "." + "0" * 38), ("9" * 28, 38, None),
        ("0." + "0" * 64, 0, "0"), ("0." + "0" * 65, 0, None), ("0" * 65, 0, "0"), ("0" * 66, 0, None),
        ("0" * 60 + "1", 38, "1." + "0" * 38), ("9" * 65, 0, "9" * 65), ("9" * 66, 0, None),
        ("-" + "9" * 63 + ".00", 2, "-" + "9" * 63 + ".00"),
    ],
)  # fmt: skip
def test_decimal(given_: str, scale: int, wanted: str | None) -> None:
    if wanted is None:
        assert refused(given_, "decimal", scale) in {"decimal.scale", "decimal.digits"}
    else:
        assert form(given_, "decimal", scale) == wanted


@pytest.mark.parametrize(
    "text",
    [".5", "5.", "1e3", "1E3", "+1", "NaN", "Infinity", "1,000.00", "1_0", "１.５", "1．5", "1.2.3", "--1", "-", ".", "1. 5"],
)  # fmt: skip
def test_what_is_no_decimal(text: str) -> None:
    assert refused(text, "decimal", 6) == "decimal.form"


def test_long_hostile_numbers_are_refused_at_once() -> None:
    for text in ("0" * 1_000_000 + "x", "0" * 500_000 + "1" * 500_000 + "x", "1." + "0" * 1_000_000 + "x"):
        assert refused(text, "integer") == "integer.form"
        assert refused(text, "decimal", 2) == "decimal.form"
    assert refused("2022-03-04 00:00:00." + "0" * 1_000_000 + "1", "date") == "date.form"
    assert refused("2022-03-04 00:00:00." + "0" * 1_000_000 + "1", "datetime") == "datetime.form"


# --- dates and times ---


@pytest.mark.parametrize(
    "text",
    [
        "2024-02-29", "2024/02/29", "20240229", "2024-02-29 00:00", "2024-02-29T00:00", "2024/02/29 00:00:00",
        "20240229T00:00:00", "20240229 00:00:00.0", "2024-02-29 00:00:00.0000000000", " 2024-02-29\n",
    ],
)  # fmt: skip
def test_date(text: str) -> None:
    assert form(text, "date") == "2024-02-29"


@pytest.mark.parametrize(
    "text",
    [
        "2024-2-9", "24-02-09", "2024-02/29", "2024/02-29", "2024 02 29", "2024.02.29", "2024-02-29 00",
        "2024-02-29 00:00:00.", "2024-02-29 00:00:00.1", "2024-02-29 00:00:01", "2024-02-29 00:01", "2024-02-29 24:00",
        "2024-02-29  00:00", "2024-02-29t00:00", "2024-02-29T00:00Z", "2024-02-29 00:00+08:00", "2024-02-29 00:00:00.0Z",
        "２０２４-02-29", "2024-02-2９", "+2024-02-29", "-2024-02-29", "12024-02-29", "2024-W09-4", "2024-060", "2024060",
        "29/02/2024", "2024年02月29日", "2024-02-29\u00a000:00",
    ],
)  # fmt: skip
def test_what_is_no_date(text: str) -> None:
    assert refused(text, "date") == "date.form"


@pytest.mark.parametrize("text", ["2023-02-29", "2024-02-30", "2024-13-01", "2024-00-01", "2024-01-00", "00000101"])
def test_a_date_is_a_real_day(text: str) -> None:
    assert refused(text, "date") == "date.day"


def test_the_first_and_last_day() -> None:
    assert form("0001-01-01", "date") == "0001-01-01"
    assert form("99991231", "date") == "9999-12-31"
    assert refused("0000-12-31", "date") == "date.day"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2022-03-07 09:30", "2022-03-07T01:30:00Z"),
        ("2022/03/07T09:30:05", "2022-03-07T01:30:05Z"),
        ("2022-03-07 09:30:05.1", "2022-03-07T01:30:05.1Z"),
        ("2022-03-07 09:30:05.100000", "2022-03-07T01:30:05.1Z"),
        ("2022-03-07 09:30:05.000000", "2022-03-07T01:30:05Z"),
        ("2022-03-07 09:30:05.0000010000", "2022-03-07T01:30:05.000001Z"),
        ("2022-03-07 09:30:05.12345600000000", "2022-03-07T01:30:05.123456Z"),
        ("2022-03-07T09:30Z", "2022-03-07T09:30:00Z"),
        ("2022-03-07T09:30+08:00", "2022-03-07T01:30:00Z"),
        ("2022-03-07T09:30+0800", "2022-03-07T01:30:00Z"),
        ("2022-03-07T09:30-00:00", "2022-03-07T09:30:00Z"),
        ("2022-03-07T09:30:05.5-2359", "2022-03-08T09:29:05.5Z"),
        ("2022-12-31 23:59:59.999999-0030", "2023-01-01T00:29:59.999999Z"),
        ("0001-01-01 08:00", "0001-01-01T00:00:00Z"),
        ("9999-12-31 23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
        ("1988-07-01 12:00:00", "1988-07-01T04:00:00Z"),  # no historic summer time: the offset is fixed
    ],
)
def test_datetime(text: str, wanted: str) -> None:
    assert form(text, "datetime") == wanted


def test_a_time_without_zone_takes_the_offset_of_the_catalog(one_field: Callable[..., Catalog]) -> None:
    for offset, wanted in [("+00:00", "12:00"), ("-03:30", "15:30"), ("+23:59", "12:01"), ("-00:00", "12:00")]:
        catalog = one_field("datetime", top=f'utc_offset = "{offset}"')
        got = form("2022-03-07 12:00", "datetime", catalog=catalog)
        assert got == (f"2022-03-0{6 if offset == '+23:59' else 7}T{wanted}:00Z")


@pytest.mark.parametrize(
    "text",
    [
        "2022-03-04", "20220304", "20220304 05:06", "20220304T050607", "2022-03-04 05", "2022-03-04 24:00", "2022-03-04 23:60",
        "2022-03-04 23:59:60", "2022-03-04t05:06", "2022-03-04  05:06", "2022-03/04 05:06", "2022-03-04 5:06", "2022-03-04 05:6",
        "2022-03-04 05:06:7", "2022-03-04 05:06:07,5", "2022-03-04 05:06:07.", "2022-03-04 05:06.5", "2022-03-04 05:06:07.1234567",
        "2022-03-04 05:06:07.0000001", "2022-03-04 05:06 Z", "2022-03-04 05:06z", "2022-03-04 05:06+08", "2022-03-04 05:06+8:00",
        "2022-03-04 05:06+24:00", "2022-03-04 05:06+08:60", "2022-03-04 05:06 +08:00", "2022-03-04 05:06UTC",
        "2022-03-04 ０5:06", "2022-03-04\u00a005:06", "2022-03-04 05:06:07+08:00:00", "05:06", "2022-03-04 05:06+08:0", "12022-03-04 05:06",
    ],
)  # fmt: skip
def test_what_is_no_datetime(text: str) -> None:
    assert refused(text, "datetime") == "datetime.form"


@pytest.mark.parametrize("text", ["2022-02-29 05:06", "2022-13-01 05:06", "0000-01-01 05:06"])
def test_a_datetime_is_on_a_real_day(text: str) -> None:
    assert refused(text, "datetime") == "datetime.day"


@pytest.mark.parametrize(
    "text",
    ["0001-01-01 00:00:00+08:00", "0001-01-01 07:59:59", "9999-12-31 23:59:59-00:01", "0001-01-01 00:00+00:01"],
)
def test_a_datetime_stays_in_the_years_of_the_calendar_in_utc_too(text: str) -> None:
    assert refused(text, "datetime") == "datetime.year"


# --- properties ---

ALPHABET = st.one_of(
    st.characters(codec=None),
    st.sampled_from("\x00\r\n\t \u3000\u0301\ufeff０９.-+:TZ/019ａß" + STRIPPED),
)
LOOKALIKE = st.one_of(
    st.text(ALPHABET, max_size=12),
    st.from_regex(r"-?[0-9]{1,70}(\.[0-9]{1,70})?", fullmatch=True),
    st.from_regex(
        r"[0-9]{4}[-/][01][0-9][-/][0-3][0-9]([ T][012][0-9]:[0-6][0-9](:[0-6][0-9](\.[0-9]{1,8})?)?(Z|[+-][0-2][0-9]:?[0-6][0-9])?)?",
        fullmatch=True,
    ),
)


@settings(max_examples=600, deadline=None)
@given(LOOKALIKE, st.sampled_from(TYPES), st.integers(0, 38))
def test_a_normal_form_is_its_own_normal_form(text: str, type_: str, scale: int) -> None:
    try:
        got = form(text, type_, scale)
    except Refusal:
        return
    assert got is None or (got != "" and unicodedata.is_normalized("NFC", got) and got.strip(STRIPPED) == got)
    assert form(got, type_, scale) == got


@settings(max_examples=300, deadline=None)
@given(LOOKALIKE, st.sampled_from(TYPES), st.text(st.sampled_from(STRIPPED), max_size=3))
def test_blanks_around_a_value_change_nothing(text: str, type_: str, blank: str) -> None:
    def outcome(value: str) -> str | None:
        try:
            return form(value, type_, 2)
        except Refusal as refusal:
            return f"refused {refusal.code}"

    assert outcome(blank + text + blank) == outcome(text)


# --- rows ---


def catalog_of(*fields: str) -> Catalog:
    head = 'id = "a"\nversion = 1\nkey = ["k"]\n'
    return parse_catalog((head + "".join(f"[[field]]\n{field}\n" for field in fields)).encode(), "a.toml")


def test_a_row_has_every_declared_field_in_declared_order() -> None:
    catalog = catalog_of('name = "z"\ntype = "date"', 'name = "k"\ntype = "code"', 'name = "a"\ntype = "text"')
    row = normal_row(catalog, {"a": " ", "k": "ｘ1", "other": "ignored", "z": "20240101"})
    assert row == {"z": "2024-01-01", "k": "X1", "a": None}
    assert list(row) == ["z", "k", "a"]


def test_the_first_bad_field_in_declared_order_is_named() -> None:
    catalog = catalog_of('name = "z"\ntype = "date"', 'name = "k"\ntype = "code"', 'name = "a"\ntype = "integer"')
    bad = normal_row(catalog, {"a": "x", "k": "", "z": "2024-02-30"})
    assert isinstance(bad, Unreadable)
    assert (bad.field, bad.value, bad.code) == ("z", "2024-02-30", "date.day")
    bad = normal_row(catalog, {"a": "x", "k": " ", "z": None})
    assert isinstance(bad, Unreadable)
    assert (bad.field, bad.value, bad.code) == ("k", " ", "key.null")


def test_personal_values_are_masked_wherever_they_would_show() -> None:
    catalog = catalog_of('name = "k"\ntype = "integer"\npersonal = true', 'name = "a"\ntype = "date"\npersonal = true')
    for values in ({"k": "440106-SECRET", "a": None}, {"k": "1", "a": "SECRET"}, {"k": "1", "a": 1.5}):
        bad = normal_row(catalog, values)
        assert isinstance(bad, Unreadable)
        assert bad.value == MASK
        assert "SECRET" not in repr(bad)
    bad = normal_row(catalog, {"k": None, "a": None})
    assert isinstance(bad, Unreadable)
    assert (bad.value, bad.code) == (MASK, "key.null")


def test_no_refusal_repeats_the_value() -> None:
    for type_, text in [("integer", "S3CRET"), ("decimal", "S3CRET"), ("date", "S3CRET"), ("datetime", "S3CRET")]:
        with pytest.raises(Refusal) as caught:
            form(text, type_, 2)
        assert "S3CRET" not in caught.value.zh + caught.value.en + str(caught.value)


def test_a_shown_value_is_one_short_printable_line() -> None:
    catalog = catalog_of('name = "k"\ntype = "integer"')
    for value in ("x" * 1000, "a\nb\x00\x1b[31m\u202e\ud800" * 30, b"\xff" * 1000, 1e300, 1 << 3_000_000):
        bad = normal_row(catalog, {"k": value})
        assert isinstance(bad, Unreadable)
        assert len(bad.value) <= 60
        assert bad.value.isprintable()
    bad = normal_row(catalog, {"k": "a\nb"})
    assert isinstance(bad, Unreadable)
    assert bad.value == "a\\u000ab"


def test_a_row_that_lacks_a_declared_field_is_an_error_not_a_finding() -> None:
    with pytest.raises(InputError) as caught:
        normal_row(catalog_of('name = "k"\ntype = "text"'), {"K": "1"})
    assert caught.value.code == "record.field_missing"
