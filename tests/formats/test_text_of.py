"""Database values written as text: the pairs of F2, and nothing else."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.catalog import FieldType
from ledger.record import Refusal, text_of

TYPES: tuple[FieldType, ...] = get_args(FieldType)
NUMERIC = ("text", "code", "enum", "integer", "decimal")
NOON = datetime(2022, 3, 4, 12, 30, 5, 120000)
MIDNIGHT = datetime(2022, 3, 4)
CHINA = timezone(timedelta(hours=8))


@pytest.mark.parametrize("type_", TYPES)
def test_text_and_null_pass_through_unchanged(type_: FieldType) -> None:
    assert text_of(None, type_) is None
    for text in ("", " x ", "\x00", "2022"):
        assert text_of(text, type_) == text


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize(
    ("value", "types", "wanted"),
    [
        (0, NUMERIC, "0"),
        (-12, NUMERIC, "-12"),
        (10**64, NUMERIC, "1" + "0" * 64),
        (Decimal("1.50"), NUMERIC, "1.5"),
        (Decimal("1E+3"), NUMERIC, "1000"),
        (Decimal("1E-3"), NUMERIC, "0.001"),
        (Decimal("100"), NUMERIC, "100"),
        (Decimal("100.00"), NUMERIC, "100"),
        (Decimal("-0"), NUMERIC, "0"),
        (Decimal("-0.00"), NUMERIC, "0"),
        (Decimal("0E+5"), NUMERIC, "0"),
        (Decimal("-1E+1"), NUMERIC, "-10"),
        (Decimal("12345678901234567890123456789012345678901234567890.5"), NUMERIC, "12345678901234567890123456789012345678901234567890.5"),
        (date(2022, 3, 4), ("date", "text", "enum"), "2022-03-04"),
        (date(1, 1, 1), ("date", "text", "enum"), "0001-01-01"),
        (NOON, ("datetime",), "2022-03-04 12:30:05.12"),
        (NOON.replace(microsecond=0), ("datetime",), "2022-03-04 12:30:05"),
        (NOON.replace(microsecond=1), ("datetime",), "2022-03-04 12:30:05.000001"),
        (NOON.replace(tzinfo=CHINA), ("datetime",), "2022-03-04 04:30:05.12Z"),
        (NOON.replace(tzinfo=UTC), ("datetime",), "2022-03-04 12:30:05.12Z"),
        (MIDNIGHT, ("datetime", "date"), "2022-03-04 00:00:00"),
        (MIDNIGHT.replace(tzinfo=UTC), ("datetime",), "2022-03-04 00:00:00Z"),
        (MIDNIGHT.replace(tzinfo=CHINA), ("datetime",), "2022-03-03 16:00:00Z"),
        (MIDNIGHT.replace(microsecond=1), ("datetime",), "2022-03-04 00:00:00.000001"),
        (datetime(1, 1, 1), ("datetime", "date"), "0001-01-01 00:00:00"),
    ],
)  # fmt: skip
def test_a_pair_is_written_or_refused(value: object, types: tuple[str, ...], wanted: str, type_: FieldType) -> None:
    if type_ in types:
        assert text_of(value, type_) == wanted
    else:
        with pytest.raises(Refusal) as caught:
            text_of(value, type_)
        assert caught.value.code == "value.type"


class Subclass(datetime):
    """Like pandas.Timestamp, which holds nanoseconds that its parent's fields do not show."""


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize(
    "value",
    [
        True, False, 0.0, 1.5, float("nan"), float("inf"), b"x", bytearray(b"x"), memoryview(b"x"), [], ["x"], {}, {"a": 1}, (),
        time(12, 0), timedelta(1), 1j, object(), np.float64(1.5), np.int64(1), np.bool_(True), np.datetime64("2022-03-04"),
        Subclass(2022, 3, 4),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_every_other_value_is_refused_in_every_type(value: object, type_: FieldType) -> None:
    with pytest.raises(Refusal) as caught:
        text_of(value, type_)
    assert caught.value.code == "value.type"
    assert caught.value.zh


@pytest.mark.parametrize("type_", NUMERIC)
@pytest.mark.parametrize("text", ["NaN", "sNaN", "-NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_is_refused(text: str, type_: FieldType) -> None:
    with pytest.raises(Refusal) as caught:
        text_of(Decimal(text), type_)
    assert caught.value.code == "value.number"


def test_a_number_that_would_fill_the_memory_is_refused() -> None:
    for value in (Decimal("1E+999999"), Decimal("1E-999999"), 1 << 3_000_000):
        with pytest.raises(Refusal) as caught:
            text_of(value, "text")
        assert caught.value.code == "value.number"
    assert text_of(10**9000, "text") == "1" + "0" * 9000


def test_a_time_outside_the_years_in_utc_is_refused() -> None:
    for value in (datetime(1, 1, 1, tzinfo=CHINA), datetime(9999, 12, 31, 23, tzinfo=timezone(-timedelta(hours=8)))):
        with pytest.raises(Refusal) as caught:
            text_of(value, "datetime")
        assert caught.value.code == "value.year"


@given(st.integers())
def test_an_integer_is_written_as_python_writes_it(value: int) -> None:
    assert text_of(value, "integer") == str(value)


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_a_decimal_keeps_its_value_and_nothing_else(value: Decimal) -> None:
    text = text_of(value, "decimal")
    assert text is not None
    assert Decimal(text) == value
    assert "E" not in text.upper()
    assert text != "-0"
    assert not ("." in text and text.endswith(("0", ".")))
    assert text_of(value.normalize() if len(value.as_tuple().digits) <= 28 else value, "decimal") == text
