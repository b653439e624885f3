"""Descriptors (F7): every form checked both when one is made and when one is read."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from ledger import jcs
from ledger.descriptor import Descriptor, batch_number, parse_descriptor
from ledger.errors import InputError

GOOD = Descriptor(
    batch="2024-01",
    catalog="permits/12",
    catalog_digest="0123456789abcdef" * 4,
    key_id="0123456789abcdef",
    kind="delivery",
    period="2024-01-01/2024-01-31",
    receiver="0x" + "b" * 40,
    sender="0x" + "a" * 40,
)


def members(descriptor: Descriptor) -> dict[str, str]:
    return dict(vars(descriptor))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"kind": "sealed", "receiver": ""},
        {"kind": "correction"},
        {"kind": "correction", "receiver": ""},
        {"kind": "snapshot"},
        {"kind": "snapshot", "receiver": ""},
        {"period": ""},
        {"period": "2024-02-29"},
        {"period": "2024-02-29/2024-02-29"},
        {"period": "0001-01-01/9999-12-31"},
        {"batch": "~"},
        {"batch": "A B!"},
        {"catalog": "a/2147483647"},
        {"catalog": "a_-9/1"},
    ],
)
def test_a_good_descriptor_is_written_and_read_back(change: dict[str, str]) -> None:
    descriptor = replace(GOOD, **change)
    data = descriptor.encode()
    assert parse_descriptor(data) == descriptor
    assert parse_descriptor(data).encode() == data
    assert descriptor.batch_id == hashlib.sha256(data).digest()
    assert descriptor.catalog_id == descriptor.catalog.split("/")[0]


def test_the_bytes_are_the_members_in_order() -> None:
    by_hand = (
        '{"batch":"2024-01","catalog":"permits/12","catalog_digest":"' + "0123456789abcdef" * 4 + '",'
        '"key_id":"0123456789abcdef","kind":"delivery","period":"2024-01-01/2024-01-31",'
        '"receiver":"0xbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb","sender":"0xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",'
        '"suite":"sha256"}'
    )
    assert GOOD.encode().decode() == by_hand


BAD = [
    ("batch", ""), ("batch", " "), ("batch", "a"), ("batch", " A"), ("batch", "A "), ("batch", "A\n"), ("batch", "批"), ("batch", "Ａ"),
    ("batch", "A\x7f"), ("batch", "A\tB"), ("batch", "\x00"),
    ("catalog", ""), ("catalog", "permits"), ("catalog", "permits/"), ("catalog", "/1"), ("catalog", "permits/0"), ("catalog", "permits/01"),
    ("catalog", "permits/2147483648"), ("catalog", "permits/99999999999"), ("catalog", "Permits/1"), ("catalog", "permits/1/1"),
    ("catalog", "permits/1\n"), ("catalog", "p" * 33 + "/1"), ("catalog", "permits/-1"), ("catalog", "permits/１"),
    ("catalog_digest", ""), ("catalog_digest", "0" * 63), ("catalog_digest", "0" * 65), ("catalog_digest", "A" * 64),
    ("catalog_digest", "0x" + "0" * 62), ("catalog_digest", "0" * 64 + "\n"),
    ("key_id", ""), ("key_id", "0" * 15), ("key_id", "0" * 17), ("key_id", "G" * 16), ("key_id", "A" * 16),
    ("kind", ""), ("kind", "Delivery"), ("kind", "bridge"),
    ("period", "2024"), ("period", "2024-1-1"), ("period", "20240101"), ("period", "2023-02-29"), ("period", "0000-01-01"),
    ("period", "2024-01-02/2024-01-01"), ("period", "2024-01-01/"), ("period", "/2024-01-01"), ("period", "/"), ("period", "2024-W01-1"),
    ("period", "2024-01-01/2024-01-02/2024-01-03"), ("period", "2024-01-01 "), ("period", "2024-01-01/2024-02-30"), ("period", "２024-01-01"),
    ("sender", ""), ("sender", "0x" + "0" * 40), ("sender", "0x" + "A" * 40), ("sender", "a" * 40), ("sender", "0x" + "a" * 39),
    ("sender", "0X" + "a" * 40), ("sender", "0x" + "a" * 41), ("sender", "0x" + "a" * 40 + "\n"),
    ("receiver", ""), ("receiver", "0x" + "0" * 40), ("receiver", "0x" + "B" * 40), ("receiver", "b" * 40), ("receiver", "0x" + "a" * 40),
    ("suite", ""), ("suite", "sha512"), ("suite", "SHA256"),
]  # fmt: skip


@pytest.mark.parametrize(("member", "value"), BAD)
def test_a_member_that_strays_is_neither_written_nor_read(member: str, value: str) -> None:
    bad = replace(GOOD, **{member: value})
    with pytest.raises(InputError) as caught:
        bad.encode()
    assert caught.value.code == f"descriptor.{member}"
    with pytest.raises(InputError) as caught:
        bad.batch_id.hex()
    assert caught.value.code == f"descriptor.{member}"
    with pytest.raises(InputError) as caught:
        parse_descriptor(jcs.dump(members(bad)), "batch 1")
    assert (caught.value.code, caught.value.where) == (f"descriptor.{member}", "batch 1")


@pytest.mark.parametrize("kind", ["sealed"])
def test_a_sealed_batch_with_a_receiver_is_refused(kind: str) -> None:
    with pytest.raises(InputError) as caught:
        replace(GOOD, kind=kind).encode()
    assert caught.value.code == "descriptor.receiver"


@pytest.mark.parametrize("kind", ["correction", "snapshot"])
def test_no_kind_has_its_sender_as_receiver(kind: str) -> None:
    with pytest.raises(InputError) as caught:
        replace(GOOD, kind=kind, receiver=GOOD.sender).encode()
    assert caught.value.code == "descriptor.receiver"


def test_1024_bytes_are_the_limit() -> None:
    room = 1024 - len(replace(GOOD, batch="B").encode())
    longest = replace(GOOD, batch="B" * (room + 1))
    assert len(longest.encode()) == 1024
    assert parse_descriptor(longest.encode()) == longest
    too_long = replace(GOOD, batch="B" * (room + 2))
    with pytest.raises(InputError) as caught:
        too_long.encode()
    assert caught.value.code == "descriptor.size"
    with pytest.raises(InputError) as caught:
        parse_descriptor(jcs.dump(members(too_long)))
    assert caught.value.code == "descriptor.size"


@pytest.mark.parametrize(
    ("code", "old", "new"),
    [
        ("not_canonical", b'"kind":', b'"kind": '),
        ("not_canonical", b"2024-01\"", b"2024\\u002d01\""),
        ("not_canonical", b'"suite":"sha256"}', b'"suite":"sha256"}\n'),
        ("repeated_member", b'"suite":"sha256"', b'"suite":"sha256","suite":"sha256"'),
        ("json", b'"suite":"sha256"}', b'"suite":"sha256"'),
        ("json", b'"suite":"sha256"}', b'"suite":"sha256"}}'),
        ("encoding", b"2024-01\"", b"\xff\""),
        ("number", b'"sha256"', b"1.5"),
        ("members", b'"sha256"', b"1"),
        ("members", b'"sha256"', b"null"),
        ("members", b',"suite":"sha256"', b""),
        ("members", b'"suite":"sha256"', b'"suite":"sha256","time":"1"'),
        ("members", b'"key_id"', b'"key"'),
    ],
)  # fmt: skip
def test_bytes_that_stray_are_refused(code: str, old: bytes, new: bytes) -> None:
    data = GOOD.encode()
    assert data.count(old) == 1
    with pytest.raises(InputError) as caught:
        parse_descriptor(data.replace(old, new))
    assert caught.value.code == f"descriptor.{code}"


def test_a_descriptor_is_an_object() -> None:
    for data in (b"[]", b"null", b'"x"', b"{}", b"", b"0"):
        with pytest.raises(InputError):
            parse_descriptor(data)


@pytest.mark.parametrize(
    ("text", "number"),
    [("2024-01", "2024-01"), (" a1\n", "A1"), ("ｂ１", "B1"), ("a b", "A B"), ("①", "1"), ("\u3000x\u3000", "X")],
)
def test_a_batch_number_is_brought_into_normal_form(text: str, number: str) -> None:
    assert batch_number(text) == number
    assert batch_number(number) == number


@pytest.mark.parametrize("text", ["", " ", "\u3000", "批1", "a\tb", "a\nb", "\x7f", "\x00", "\ud800", "ß"])
def test_a_batch_number_is_printable_ascii(text: str) -> None:
    with pytest.raises(InputError) as caught:
        batch_number(text)
    assert caught.value.code == "descriptor.batch"
    assert caught.value.en.isascii()
