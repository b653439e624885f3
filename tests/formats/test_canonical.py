"""Canonical bytes (F3) and canonical JSON: one spelling for one meaning, and a reader who accepts no other."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import jcs
from ledger.catalog import Catalog, parse_catalog
from ledger.errors import InputError
from ledger.record import REASONS, canonical, open_canonical, record_key, withdrawal

CATALOG = parse_catalog(
    b"""
id = "permits"
version = 2
key = ["b", "a"]
[[field]]
name = "b"
type = "code"
[[field]]
name = "a"
type = "text"
[[field]]
name = "on"
type = "date"
[[field]]
name = "fee"
type = "decimal"
scale = 1
""",
    "",
)
ROW = {"b": "B1", "a": "号", "on": None, "fee": "1.0"}
RECORD = '{"catalog":"permits/2","record":{"a":"号","b":"B1","fee":"1.0","on":null}}'
WITHDRAWAL = '{"catalog":"permits/2","key":{"a":"号","b":"B1"},"withdrawn":"error"}'


def test_names_are_sorted_and_every_declared_field_is_there() -> None:
    assert canonical(CATALOG, ROW).decode() == RECORD


def test_a_record_with_other_fields_than_declared_is_not_written() -> None:
    for row in ({**ROW, "x": "1"}, {"a": "1", "b": "1"}, {}):
        with pytest.raises(ValueError, match="has the fields"):
            canonical(CATALOG, row)


def test_the_record_key_knows_no_version_and_no_other_field() -> None:
    assert record_key(CATALOG, ROW).decode() == '{"catalog":"permits","key":{"a":"号","b":"B1"}}'
    assert record_key(CATALOG, {"a": "号", "b": "B1"}) == record_key(CATALOG, ROW)


def test_a_key_with_a_null_field_is_not_written() -> None:
    for value in (None, ""):
        with pytest.raises(ValueError, match="is null"):
            record_key(CATALOG, {**ROW, "a": value})


def test_a_withdrawal_names_key_and_reason() -> None:
    for reason in REASONS:
        data = withdrawal(CATALOG, {"a": "号", "b": "B1"}, reason)
        assert data.decode() == WITHDRAWAL.replace("error", reason)
        assert open_canonical(CATALOG, data).reason == reason
    assert REASONS == ("repaired", "revoked", "expired", "erased", "error")


def test_an_unlisted_reason_is_refused() -> None:
    for reason in ("", "Revoked", "repaired ", "修复"):
        with pytest.raises(InputError) as caught:
            withdrawal(CATALOG, {"a": "1", "b": "1"}, reason)
        assert caught.value.code == "withdrawal.reason"


def test_only_the_escapes_of_the_formats_page_are_written() -> None:
    text = "".join(map(chr, [*range(1, 0x20), 0x22, 0x5C, 0x2F, 0x7F, 0x80, 0x2028, 0xFFFF, 0x1F4DC]))
    by_hand = (
        r"\u0001\u0002\u0003\u0004\u0005\u0006\u0007\b\t\n\u000b\f\r\u000e\u000f\u0010\u0011\u0012\u0013\u0014\u0015\u0016"
        r"\u0017\u0018\u0019\u001a\u001b\u001c\u001d\u001e\u001f" + '\\"' + "\\\\" + "/\x7f\x80\u2028\uffff\U0001f4dc"
    )
    assert jcs.dump(text).decode() == f'"{by_hand}"'


@pytest.mark.parametrize(
    ("code", "data"),
    [
        # not its own RFC 8785 form
        ("not_canonical", RECORD.replace(":null", ": null")),
        ("not_canonical", RECORD + "\n"),
        ("not_canonical", " " + RECORD),
        ("not_canonical", RECORD.replace("B1", "\\u00421")),
        ("not_canonical", RECORD.replace("号", "\\u53f7")),
        ("not_canonical", RECORD.replace('"a":"号","b":"B1"', '"b":"B1","a":"号"')),
        ("not_canonical", RECORD.replace("号", "\\/")),
        ("not_canonical", RECORD.replace("号", "\\ud800")),
        ("not_canonical", RECORD.replace("号", "\\u001F")),
        ("repeated_member", RECORD.replace('"a":"号"', '"a":"号","a":"号"')),
        ("repeated_member", RECORD.replace('"a":"号"', '"a":"号","\\u0061":"x"')),
        ("repeated_member", '{"catalog":"permits/2",' + RECORD[1:]),
        ("json", RECORD[:-1]),
        ("json", RECORD + RECORD),
        ("json", ""),
        ("json", "\ufeff" + RECORD),
        ("depth", "[" * 100_000),
        ("json", RECORD.replace("号", "\t")),
        ("number", RECORD.replace("null", "1.5")),
        ("number", RECORD.replace("null", "1e3")),
        ("number", RECORD.replace("null", "NaN")),
        ("number", RECORD.replace("null", "-Infinity")),
        ("number", RECORD.replace("null", "9" * 5000)),
        ("number", RECORD.replace("null", "9007199254740992")),
        # another shape
        ("members", "null"),
        ("members", "[]"),
        ("members", "{}"),
        ("members", '{"catalog":"permits/2"}'),
        ("members", '{"record":{}}'),
        ("members", '{"catalog":"permits/2","key":{"a":"号","b":"B1"}}'),
        ("members", RECORD[:-1] + ',"version":1}'),
        ("members", RECORD[:-1] + ',"withdrawn":"error"}'),
        # another catalog
        ("catalog", RECORD.replace("permits/2", "permits/1")),
        ("catalog", RECORD.replace("permits/2", "permit/2")),
        ("catalog", RECORD.replace('"permits/2"', "null")),
        # other fields
        ("fields", RECORD.replace('"on":null', '"no":null')),
        ("fields", RECORD.replace(',"on":null', "")),
        ("fields", RECORD.replace('"on":null', '"on":null,"x":null')),
        ("fields", '{"catalog":"permits/2","record":[]}'),
        ("fields", WITHDRAWAL.replace('"a":"号",', "")),
        ("fields", WITHDRAWAL.replace('"b":"B1"', '"b":"B1","on":null')),
        # other values
        ("value", RECORD.replace("null", "1")),
        ("value", RECORD.replace("null", "true")),
        ("value", RECORD.replace("null", "[]")),
        ("value", RECORD.replace("null", "{}")),
        ("key_null", RECORD.replace('"号"', "null")),
        ("key_null", WITHDRAWAL.replace('"号"', "null")),
        ("not_normal", RECORD.replace("null", '""')),
        ("not_normal", RECORD.replace("null", '"2024-02-30"')),
        ("not_normal", RECORD.replace("null", '"20240229"')),
        ("not_normal", RECORD.replace("null", '"null"')),
        ("not_normal", RECORD.replace("B1", "b1")),
        ("not_normal", RECORD.replace("B1", "Ｂ1")),
        ("not_normal", RECORD.replace("号", " 号")),
        ("not_normal", RECORD.replace("号", "e\u0301")),
        ("not_normal", RECORD.replace("号", "\\r")),
        ("not_normal", RECORD.replace("号", "\\u0000")),
        ("not_normal", RECORD.replace("1.0", "1")),
        ("not_normal", RECORD.replace("1.0", "-0.0")),
        ("not_normal", WITHDRAWAL.replace("B1", "b1")),
        ("reason", WITHDRAWAL.replace("error", "Error")),
        ("reason", WITHDRAWAL.replace('"error"', "null")),
        ("reason", WITHDRAWAL.replace('"error"', '["error"]')),
    ],
)
def test_bytes_that_stray_are_refused_by_name(code: str, data: str) -> None:
    with pytest.raises(InputError) as caught:
        open_canonical(CATALOG, data.encode())
    assert caught.value.code == f"canonical.{code}"


def test_bytes_that_are_not_utf8_or_too_many_are_refused() -> None:
    for code, data in [
        ("encoding", RECORD.encode().replace("号".encode(), b"\xed\xa0\x80")),
        ("size", b" " * (64 << 20) + b" "),
    ]:
        with pytest.raises(InputError) as caught:
            open_canonical(CATALOG, data)
        assert caught.value.code == f"canonical.{code}"


def test_hostile_nesting_is_refused_and_never_ends_the_process() -> None:
    kind = jcs.Kind("x", "甲", "x", limit=4 << 20)
    before = sys.getrecursionlimit()
    # As libraries for Ethereum do on import; the JSON parser would then run out of stack.
    sys.setrecursionlimit(1_000_000)
    try:
        for depth in (17, 900, 100_000):
            for data in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, "[" * depth, '["]",' * depth):
                with pytest.raises(InputError) as caught:
                    jcs.load(data.encode(), kind)
                assert caught.value.code == "x.depth"
    finally:
        sys.setrecursionlimit(before)
    assert jcs.load(b"[" * 16 + b"]" * 16, kind) is not None
    # Brackets in strings nest nothing, whatever the escapes before the closing quote.
    for text in ("[" * 99, '"[' * 99, "\\[" * 99, '\\"[' * 99, "{\n" * 99):
        assert jcs.load(jcs.dump([text]), kind) == [text]


def test_many_brackets_side_by_side_are_not_deep() -> None:
    assert jcs.load(b"[" + b"[]," * 999 + b"[]]", jcs.Kind("x", "甲", "x", limit=1 << 20)) == [[]] * 1000


def test_what_was_written_opens_to_the_same(one_field: Callable[..., Catalog]) -> None:
    assert open_canonical(CATALOG, RECORD.encode()).values == ROW
    opened = open_canonical(CATALOG, WITHDRAWAL.encode())
    assert (opened.kind, opened.values, opened.reason) == ("withdrawal", {"a": "号", "b": "B1"}, "error")


@given(st.recursive(
    st.none() | st.booleans() | st.integers(-jcs.MAX_INTEGER, jcs.MAX_INTEGER) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4),
    max_leaves=12,
))  # fmt: skip
def test_canonical_json_is_read_back_and_its_other_spellings_are_not(value: object) -> None:
    kind = jcs.Kind("x", "甲", "x", limit=1 << 20)
    data = jcs.dump(value)
    assert jcs.load(data, kind) == value
    assert jcs.dump(jcs.load(data, kind)) == data
    for other in (json.dumps(value, indent=1).encode(), json.dumps(value).encode(), data + b" "):
        if other != data:
            with pytest.raises(InputError):
                jcs.load(other, kind)


def test_the_limit_counts_the_last_byte() -> None:
    for line_feed, extra in ((False, b""), (True, b"\n")):
        kind = jcs.Kind("x", "甲", "x", limit=4 + len(extra), line_feed=line_feed)
        assert jcs.load(b'"ab"' + extra, kind) == "ab"
        with pytest.raises(InputError) as caught:
            jcs.load(b'"abc"' + extra, kind)
        assert caught.value.code == "x.size"


def test_a_missing_or_second_line_feed_is_refused() -> None:
    kind = jcs.Kind("x", "甲", "x", limit=99, line_feed=True)
    for data in (b"1", b"1\n\n", b"1\r\n", b"", b"\n"):
        with pytest.raises(InputError):
            jcs.load(data, kind)
