"""Values to contract call data and back: the Solidity contract ABI ("Formal Specification of the Encoding").

Only what the registry uses: uintN, bool, address, bytes32, bytes, tuples and dynamic arrays. Decoding is strict: the
one encoding that a Solidity contract produces and nothing else, so that a hostile node can neither smuggle two readings
into one answer nor blow a short answer up into a large value. Python values: int, bool, "0x" + 40 lower-case hex
digits, bytes, tuple, list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class AbiError(ValueError):
    """Data that is not the encoding of the expected types, or a value that does not fit its type."""


@dataclass(frozen=True)
class Type:
    """`kind` is uint, bool, address, bytes32, bytes, tuple or array; `bits` of a uint; `parts` of a tuple or array."""

    kind: str
    bits: int = 0
    parts: tuple[Type, ...] = ()

    @property
    def dynamic(self) -> bool:
        """True if the head holds an offset and the value stands in the tail."""
        return self.kind in ("bytes", "array") or any(part.dynamic for part in self.parts)

    @property
    def head(self) -> int:
        """Bytes the value takes in the head."""
        if self.kind == "tuple" and not self.dynamic:
            return sum(part.head for part in self.parts)
        return 32


def parse_type(entry: Mapping[str, Any]) -> Type:
    """The type of one argument as the compiler's JSON ABI describes it; AbiError for a type not listed above."""
    name = str(entry["type"])
    if name.endswith("[]"):
        return Type("array", parts=(parse_type({**entry, "type": name[:-2]}),))
    if name == "tuple":
        return Type("tuple", parts=tuple(parse_type(part) for part in entry["components"]))
    if name in ("bool", "address", "bytes32", "bytes"):
        return Type(name)
    if name.startswith("uint") and name[4:].isdigit():
        return Type("uint", bits=int(name[4:]))
    raise AbiError(f"type {name} is not supported")


def encode(types: Sequence[Type], values: Sequence[Any]) -> bytes:
    """The encoding of `values` as one argument list; AbiError if one does not fit."""
    if len(types) != len(values):
        raise AbiError(f"{len(values)} values for {len(types)} types")
    heads: list[bytes] = []
    tails: list[bytes] = []
    end = sum(kind.head for kind in types)
    for kind, value in zip(types, values, strict=True):
        body = _encode_one(kind, value)
        if kind.dynamic:
            heads.append(end.to_bytes(32, "big"))
            tails.append(body)
            end += len(body)
        else:
            heads.append(body)
    return b"".join(heads + tails)


def decode(types: Sequence[Type], data: bytes) -> tuple[Any, ...]:
    """The values of which `data` is the encoding; AbiError if it is not exactly that."""
    values, end = _decode_list(types, data, 0)
    if end != len(data):
        raise AbiError(f"{len(data) - end} bytes after the last value")
    return tuple(values)


def _encode_one(kind: Type, value: Any) -> bytes:
    match kind.kind:
        case "uint":
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << kind.bits:
                raise AbiError(f"{value!r} is not a uint{kind.bits}")
            return value.to_bytes(32, "big")
        case "bool":
            return int(bool(value)).to_bytes(32, "big")
        case "address":
            raw = bytes.fromhex(value.removeprefix("0x"))
            if len(raw) != 20:
                raise AbiError(f"{value!r} is not an address")
            return raw.rjust(32, b"\0")
        case "bytes32":
            if len(value) != 32:
                raise AbiError(f"{len(value)} bytes for a bytes32")
            return bytes(value)
        case "bytes":
            return len(value).to_bytes(32, "big") + bytes(value) + b"\0" * (-len(value) % 32)
        case "array":
            return len(value).to_bytes(32, "big") + encode(kind.parts * len(value), value)
        case _:
            return encode(kind.parts, value)


def _decode_list(types: Sequence[Type], data: bytes, start: int) -> tuple[list[Any], int]:
    """The values whose heads begin at `start`, and where their last tail ends."""
    position = start
    end = start + sum(kind.head for kind in types)
    if end > len(data):
        raise AbiError(f"{len(data)} bytes, at least {end} needed")
    values: list[Any] = []
    for kind in types:
        if kind.dynamic:
            # Solidity lays tails out without gaps, in order: then no two offsets can share bytes.
            if start + _word(data, position) != end:
                raise AbiError(f"offset at byte {position} does not lead to the next value")
            value, end = _decode_tail(kind, data, end)
        elif kind.kind == "tuple":
            parts, _ = _decode_list(kind.parts, data, position)
            value = tuple(parts)
        else:
            value = _decode_word(kind, data[position : position + 32], position)
        values.append(value)
        position += kind.head
    return values, end


def _decode_tail(kind: Type, data: bytes, start: int) -> tuple[Any, int]:
    if kind.kind == "tuple":
        parts, end = _decode_list(kind.parts, data, start)
        return tuple(parts), end
    length = _word(data, start)
    start += 32
    if kind.kind == "array":
        if length * kind.parts[0].head > len(data) - start:
            raise AbiError(f"array of {length} at byte {start} is longer than the data")
        return _decode_list(kind.parts * length, data, start)
    end = start + length + -length % 32
    if end > len(data):
        raise AbiError(f"{length} bytes at byte {start} are more than the data has")
    if any(data[start + length : end]):
        raise AbiError(f"padding before byte {end} is not zero")
    return data[start : start + length], end


def _decode_word(kind: Type, word: bytes, position: int) -> Any:
    if kind.kind == "bytes32":
        return word
    number = int.from_bytes(word, "big")
    bits = {"bool": 1, "address": 160}.get(kind.kind, kind.bits)
    if number >> bits:
        raise AbiError(f"word at byte {position} is no {kind.kind} of {bits} bits")
    if kind.kind == "bool":
        return bool(number)
    return number if kind.kind == "uint" else "0x" + word[12:].hex()


def _word(data: bytes, position: int) -> int:
    if position + 32 > len(data):
        raise AbiError(f"{len(data)} bytes, at least {position + 32} needed")
    return int.from_bytes(data[position : position + 32], "big")
