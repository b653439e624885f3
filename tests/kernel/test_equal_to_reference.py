"""The kernel equals the plain reference, byte for byte, on whatever text a source can deliver."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Callable, Sequence

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.catalog import Catalog, Field, parse_catalog
from ledger.kernel.columns import Normaliser
from ledger.record import STRIPPED, Refusal, normal

Check = Callable[[Catalog, Sequence[Sequence[str | None]]], None]
STRIP = list(STRIPPED)
HOSTILE = [
    *STRIP, "\ufeff", "\u200b", "\0", "\x01", "\x08", "\x1b", "\x7f", "\r", "\r\n", "\n", '"', '""', "\\", "\\n", "/", "'",
    "e\u0301", "\u0301", "\u0323\u0307", "\u0307\u0323", "\u1100\u1161\u11a8", "\u0344", "\u2126", "\u212b", "\ufa0c",
    "\u2f802", "\u302a", "\u3099", "か\u3099", "ﬁ", "①", "Ⅻ", "㈱", "㎡", "Ａ", "ｚ", "９", "－", "．", "：", "／", "\u3000",
    "〔", "《", "、", "。", "中", "龥", "䀀", "㐀", "𠀀", "📜", "👩\u200d👩\u200d👧", "\U0010ffff", "ß", "ı", "ſ", "K", "x", "9",
    "0", "-", ".", "+", ",", "E", "T", "Z", ":", "a" * 300, "中" * 300,
]  # fmt: skip
text = st.one_of(
    st.none(),
    st.text(max_size=8),
    st.lists(st.sampled_from(HOSTILE), max_size=5).map("".join),
    st.lists(st.characters(exclude_categories=("Cs",)), max_size=6).map("".join),
)
around = st.sampled_from(["", "", "", " ", "\u3000", "\t", "\u200b", "\ufeff", "\r\n"])


def wrapped(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(around, inner, around).map("".join)


digits = st.text("0123456789", max_size=70) | st.text("0123456789０１²٣", max_size=6)
number = st.tuples(
    st.sampled_from(["", "", "-", "+", "--"]), digits, st.sampled_from(["", "", ".", ",", "e"]), digits
).map("".join)
year = st.sampled_from(
    ["0000", "0001", "0002", "1900", "2000", "2023", "2024", "9998", "9999", "20", "20240", "２０２４"]
)
two = st.integers(0, 99).map("{:02d}".format) | st.sampled_from(
    ["00", "01", "02", "12", "28", "29", "31", "23", "24", "59"]
)
between = st.sampled_from(["-", "-", "/", "", "."])
date = st.builds(lambda y, s, m, t, d: f"{y}{s}{m}{t}{d}", year, between, two, between, two) | st.dates().map(str)
midnight = st.sampled_from(["", " 00:00", "T00:00:00", " 00:00:00.0", "  00:00", " 00:00:00Z", " 00:01"])
zone = st.sampled_from(["", "", "Z", "z", "+08:00", "-0530", "+23:59", "-23:59", "+24:00", " +08:00"])
clock = st.builds(
    lambda h, m, s, f: f"{h}:{m}{s}{f}",
    two,
    two,
    st.one_of(st.just(""), two.map(":{}".format)),
    st.sampled_from(["", ".", ".5", ".000000", ".123456", ".1234560", ".1234567", ".00000000", ",5"]),
)
moment = st.builds(
    lambda d, s, c, z: f"{d}{s}{c}{z}", date, st.sampled_from([" ", "T", "t", "  "]), clock, zone
) | st.datetimes().map(lambda at: at.isoformat(" ", "seconds"))
uscc = st.sampled_from(["91AB", "93zz", "92AB", "９１ab", "91A"])

ROW = st.tuples(
    text | st.just("甲"),
    text | st.sampled_from(["gz", "穗司许", "ＡＢ"]),
    text | wrapped(uscc),
    text,
    wrapped(number) | text,
    wrapped(number) | text,
    wrapped(number) | text,
    wrapped(st.tuples(date, midnight).map("".join)) | text,
    wrapped(moment) | text,
    text,
)
READABLE_ROW = st.tuples(
    st.sampled_from(["a", "b ", "甲"]),
    st.sampled_from(["gz", "穗", "ＡＢ"]),
    text.filter(lambda value: "\0" not in (value or "")),
    text.filter(lambda value: "\0" not in (value or "")),
    st.none() | st.integers().map(str),
    st.none() | st.decimals(-(10**20), 10**20, places=2).map("{:f}".format),
    st.none() | st.integers(-(10**30), 10**30).map(str),
    st.none() | st.dates().map(str),
    st.none() | st.datetimes().map(str),
    text.filter(lambda value: "\0" not in (value or "")),
)


@given(rows=st.lists(ROW | READABLE_ROW, max_size=12))
@settings(max_examples=120, deadline=None)
def test_any_rows_of_any_text_give_the_reference_entries(
    check_equal: Check, every_type: Catalog, rows: list[tuple[str | None, ...]]
) -> None:
    check_equal(every_type, rows)


@given(rows=st.lists(READABLE_ROW, max_size=12))
@settings(max_examples=80, deadline=None)
def test_readable_rows_of_hostile_text_give_the_reference_entries(
    check_equal: Check, every_type: Catalog, rows: list[tuple[str | None, ...]]
) -> None:
    check_equal(every_type, rows)


def column_forms(field: Field, catalog: Catalog, values: list[str | None]) -> list[object]:
    forms, refused = Normaliser(field, catalog).run(pa.array(values, pa.string()))
    listed = forms.to_pylist()
    return listed if refused is None else [Refusal if bad else form for form, bad in zip(listed, refused, strict=True)]


def reference_forms(field: Field, catalog: Catalog, values: list[str | None]) -> list[object]:
    forms: list[object] = []
    for value in values:
        try:
            forms.append(normal(value, field, catalog))
        except Refusal:
            forms.append(Refusal)
    return forms


@pytest.mark.parametrize("kind", ["text", "code"])
@pytest.mark.parametrize("form", ["{}", "a{}", "{}a", "中{}中"])
def test_every_character_of_the_first_two_planes_is_treated_as_the_reference_does(
    kind: str, form: str, every_type: Catalog
) -> None:
    points = [code for code in range(0x1, 0x20000) if not 0xD800 <= code <= 0xDFFF]
    field = Field("field", kind)  # type: ignore[arg-type]
    normaliser = Normaliser(field, every_type)
    for start in range(0, len(points), 4096):
        values: list[str | None] = [form.format(chr(code)) for code in points[start : start + 4096]]
        # One column of many would hide a character behind its neighbours: whatever is odd sends the whole column to the
        # closer look. So the plain characters are looked at by themselves too.
        plain = [v for v in values if v is not None and unicodedata.is_normalized("NFC", v)]
        for column in (values, plain):
            forms, refused = normaliser.run(pa.array(column, pa.string()))
            assert refused is None
            assert forms.to_pylist() == reference_forms(field, every_type, list(column))


DAYS = [
    f"{y}{s}{m:02d}{t}{d:02d}"
    for y, m, d, (s, t) in itertools.product(
        ("0000", "0001", "0004", "0100", "1900", "2000", "2023", "2024", "9998", "9999"),
        range(14),
        range(33),
        ("--", "//", "-/", "/-"),
    )
]


def test_every_day_that_is_or_is_not_in_the_calendar_is_treated_as_the_reference_does(every_type: Catalog) -> None:
    field = Field("field", "date")
    assert column_forms(field, every_type, list(DAYS)) == reference_forms(field, every_type, list(DAYS))


@pytest.mark.parametrize("offset", ["+08:00", "-23:59", "+23:59", "+00:00"])
@pytest.mark.parametrize("clock", [" 00:00:00", "T23:59:59", " 07:59:59Z", " 24:00:00", " 08:60:00", "T08:00:60Z"])
def test_every_day_with_a_time_is_treated_as_the_reference_does(offset: str, clock: str) -> None:
    catalog = parse_catalog(
        f'id = "d"\nversion = 1\nkey = ["at"]\nutc_offset = "{offset}"\n[[field]]\nname = "at"\ntype = "datetime"\n'.encode(),
        "d.toml",
    )
    values: list[str | None] = [day + clock for day in DAYS]
    assert column_forms(catalog.fields[0], catalog, values) == reference_forms(catalog.fields[0], catalog, values)


def test_times_of_every_form_keep_their_rows_in_one_column(every_type: Catalog) -> None:
    forms = ["2024-01-02 03:04:05", "2024/01/03T03:04:05Z", "2024-01-04 03:04", "", "2024-01-05 03:04:05+00:00"]
    values: list[str | None] = [form.replace("03:04", f"03:{minute:02d}") for minute in range(60) for form in forms]
    field = Field("field", "datetime")
    assert column_forms(field, every_type, values) == reference_forms(field, every_type, values)


@pytest.mark.parametrize("scale", [0, 1, 2, 38])
def test_numbers_at_every_limit_of_digits_are_treated_as_the_reference_does(scale: int, every_type: Catalog) -> None:
    wholes = ["0", "1", "00", "01", "9" * (64 - scale), "9" * (65 - scale), "9" * (66 - scale), "9" * 65, "9" * 66]
    fractions = [
        "",
        ".",
        ".0",
        ".5",
        "." + "0" * scale,
        "." + "7" * scale,
        "." + "7" * scale + "0",
        "." + "7" * (scale + 1),
    ]
    values: list[str | None] = [s + w + f for s, w, f in itertools.product(("", "-", "+"), wholes, fractions)]
    for field in (Field("field", "decimal", scale), Field("field", "integer")):
        assert column_forms(field, every_type, values) == reference_forms(field, every_type, values)


def test_odd_values_beyond_what_is_remembered_still_have_their_normal_form(
    every_type: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.kernel.columns.MAX_REMEMBERED", 3)
    normaliser = Normaliser(Field("field", "date"), every_type)
    for _ in range(3):
        values = [f"2024/01/{day:02d}" for day in range(1, 32)]
        forms, refused = normaliser.run(pa.array(values, pa.string()))
        assert refused is None
        assert forms.to_pylist() == [value.replace("/", "-") for value in values]


def test_a_slice_of_a_larger_column_is_read_where_it_lies(every_type: Catalog) -> None:
    field = Field("field", "text")
    values = [" a ", None, "中\u0301", "", "b", "\u3000c", "é", None]
    whole = pa.array(values, pa.string())
    for start, stop in itertools.combinations(range(len(values) + 1), 2):
        forms, _ = Normaliser(field, every_type).run(whole[start:stop])
        assert forms.to_pylist() == reference_forms(field, every_type, values[start:stop])


def test_a_catalog_without_subject_and_one_that_is_protected_equal_the_reference(
    check_equal: Check,
) -> None:
    for subject in (
        "",
        'subject = { field = "who", visibility = "protected" }',
        'subject = { field = "who", visibility = "public" }',
    ):
        catalog = parse_catalog(
            f'id = "s"\nversion = 1\nkey = ["no"]\n{subject}\nfield = [{{ name = "no", type = "text" }}, '
            '{ name = "who", type = "code" }]\n'.encode(),
            "s.toml",
        )
        check_equal(catalog, [("1", "91AB"), ("2", ""), ("3", "张三"), ("", "x"), ("4", "\0")])
