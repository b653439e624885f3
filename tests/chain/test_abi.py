"""The contract ABI: equal to eth-abi on everything the registry uses, and strict where that is lenient."""

from __future__ import annotations

from typing import Any

import eth_abi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.chain.abi import AbiError, Type, decode, encode, parse_type
from ledger.chain.contract import anchor_registry, name_to_word, word_to_name

UINT64 = Type("uint", bits=64)
WORD = Type("bytes32")
BYTES = Type("bytes")
ADDRESS = Type("address")
CLAIM = Type("tuple", parts=(BYTES, Type("uint", bits=32), UINT64, WORD, BYTES))
HOLDING = Type("tuple", parts=(ADDRESS, UINT64, UINT64, UINT64))
UINT = Type("uint", bits=256)


def array(of: Type) -> Type:
    return Type("array", parts=(of,))


CASES: list[tuple[Type, str]] = [
    (UINT64, "uint64"),
    (UINT, "uint256"),
    (Type("bool"), "bool"),
    (ADDRESS, "address"),
    (WORD, "bytes32"),
    (BYTES, "bytes"),
    (array(WORD), "bytes32[]"),
    (array(BYTES), "bytes[]"),
    (array(CLAIM), "(bytes,uint32,uint64,bytes32,bytes)[]"),
    (array(HOLDING), "(address,uint64,uint64,uint64)[]"),
    (CLAIM, "(bytes,uint32,uint64,bytes32,bytes)"),
    (HOLDING, "(address,uint64,uint64,uint64)"),
    (array(array(UINT64)), "uint64[][]"),
]


def values_of(kind: Type) -> st.SearchStrategy[Any]:
    match kind.kind:
        case "uint":
            return st.integers(0, 2**kind.bits - 1)
        case "bool":
            return st.booleans()
        case "address":
            return st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex())
        case "bytes32":
            return st.binary(min_size=32, max_size=32)
        case "bytes":
            return st.binary(max_size=100)
        case "array":
            return st.lists(values_of(kind.parts[0]), max_size=4)
        case _:
            return st.tuples(*(values_of(part) for part in kind.parts))


@given(st.data())
def test_encoding_equals_eth_abi_and_decodes_back(data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.sampled_from(CASES), max_size=4))
    kinds = [kind for kind, _ in chosen]
    values = [data.draw(values_of(kind)) for kind in kinds]
    encoded = encode(kinds, values)
    assert encoded == eth_abi.encode([name for _, name in chosen], values)
    assert list(decode(kinds, encoded)) == values


@given(st.data())
def test_data_cut_off_or_prolonged_is_refused(data: st.DataObject) -> None:
    kind, _ = data.draw(st.sampled_from(CASES))
    encoded = encode([kind], [data.draw(values_of(kind))])
    with pytest.raises(AbiError):
        decode([kind], encoded[: data.draw(st.integers(0, len(encoded) - 1))])
    with pytest.raises(AbiError):
        decode([kind], encoded + data.draw(st.binary(min_size=1, max_size=64)))


@given(st.data())
def test_no_two_encodings_have_one_meaning(data: st.DataObject) -> None:
    """Whatever byte is changed: refused, or decoded to something that encodes to exactly the changed bytes."""
    kind, _ = data.draw(st.sampled_from(CASES))
    encoded = bytearray(encode([kind], [data.draw(values_of(kind))]))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        values = decode([kind], bytes(encoded))
    except AbiError:
        return
    assert encode([kind], values) == bytes(encoded)


def word(number: int) -> bytes:
    return number.to_bytes(32, "big")


@pytest.mark.parametrize(
    ("kinds", "data"),
    [
        ([UINT64], word(2**64)),
        ([Type("bool")], word(2)),
        ([ADDRESS], word(2**160)),
        ([BYTES], word(32) + word(1) + b"a" + b"\0" * 30 + b"x"),
        ([BYTES], word(64) + word(0) + word(0)),
        ([BYTES], word(32) + word(2**255)),
        ([array(WORD)], word(32) + word(2**64)),
        ([array(BYTES)], word(32) + word(2) + word(64) + word(64) + word(0)),
        ([BYTES, BYTES], word(64) + word(64) + word(0)),
        ([UINT], b""),
        ([BYTES], word(32)),
    ],
)
def test_each_stray_form_is_refused(kinds: list[Type], data: bytes) -> None:
    with pytest.raises(AbiError):
        decode(kinds, data)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (UINT64, 2**64),
        (UINT64, -1),
        (UINT64, True),
        (UINT64, "1"),
        (ADDRESS, "0x" + "00" * 19),
        (WORD, b"short"),
        (CLAIM, (b"", 0, 0, bytes(32))),
    ],
)
def test_a_value_that_does_not_fit_is_refused(kind: Type, value: object) -> None:
    with pytest.raises(AbiError):
        encode([kind], [value])


def test_a_type_that_is_not_supported_is_refused() -> None:
    with pytest.raises(AbiError):
        parse_type({"type": "int128"})


@pytest.mark.parametrize("name", ["a", "guang-dong_1", "a" * 32])
def test_a_name_fills_a_word_and_comes_back(name: str) -> None:
    assert len(name_to_word(name)) == 32
    assert word_to_name(name_to_word(name)) == name


@pytest.mark.parametrize("name", ["", "A", "a" * 33, "a b", "市", "a\0"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(AbiError):
        name_to_word(name)


@pytest.mark.parametrize("raw", [b"\x1b[2J", b"a\0b", b"", b"\xff" * 32])
def test_a_word_that_is_no_name_is_shown_as_hex(raw: bytes) -> None:
    padded = raw.ljust(32, b"\0")
    assert word_to_name(padded) == "0x" + padded.hex()


def test_the_artefact_knows_every_function_event_and_error_that_is_used() -> None:
    contract = anchor_registry()
    assert {"register", "move", "anchor", "read", "parties", "holdings", "anchors", "revisions"} <= set(
        contract.functions
    )
    assert set(contract.events) >= {"Registered", "Moved", "Anchored"}
    assert len(contract.errors) >= 13
