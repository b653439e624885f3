"""The compiled contracts: selectors, topics and types from the artefacts that are shipped beside this file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from ledger.chain.abi import AbiError, Type, decode, encode, parse_type

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")


@dataclass(frozen=True)
class Function:
    """One function of the contract; `encode(*values)` gives the call data, `decode(data)` the returned values."""

    selector: bytes
    inputs: tuple[Type, ...]
    outputs: tuple[Type, ...]

    def encode(self, *values: Any) -> bytes:
        """Call data: selector and arguments. AbiError if a value does not fit."""
        return self.selector + encode(self.inputs, values)

    def decode(self, data: bytes) -> tuple[Any, ...]:
        """The values returned; AbiError if `data` is not exactly their encoding."""
        return decode(self.outputs, data)


@dataclass(frozen=True)
class Event:
    """One event: the first topic (0x-hex) and the types of what is not indexed."""

    topic: str
    data: tuple[Type, ...]


@dataclass(frozen=True)
class Contract:
    """The artefact, ready to use. `code_sha256` is the SHA-256 of the code as eth_getCode gives it, in hex."""

    bytecode: bytes
    code_sha256: str
    functions: Mapping[str, Function]
    events: Mapping[str, Event]
    errors: Mapping[bytes, tuple[str, tuple[Type, ...]]]


@cache
def anchor_registry() -> Contract:
    """The AnchorRegistry that this version deploys and reads."""
    return _load("AnchorRegistry")


@cache
def dispute_registry() -> Contract:
    """The DisputeRegistry that this version deploys and reads."""
    return _load("DisputeRegistry")


def _load(contract: str) -> Contract:
    artefact = json.loads(resources.files(__package__).joinpath(f"{contract}.json").read_text(encoding="utf-8"))
    selectors = {signature.split("(")[0]: sel for signature, sel in artefact["methodIdentifiers"].items()}
    error_selectors = {signature.split("(")[0]: sel for signature, sel in artefact["errorSelectors"].items()}
    topics = {signature.split("(")[0]: topic for signature, topic in artefact["eventTopics"].items()}
    functions: dict[str, Function] = {}
    events: dict[str, Event] = {}
    errors: dict[bytes, tuple[str, tuple[Type, ...]]] = {}
    for entry in artefact["abi"]:
        name = entry.get("name", "")
        if entry["type"] == "function" and not name.startswith("supports"):
            functions[name] = Function(
                bytes.fromhex(selectors[name]),
                tuple(parse_type(argument) for argument in entry["inputs"]),
                tuple(parse_type(argument) for argument in entry["outputs"]),
            )
        elif entry["type"] == "event":
            unindexed = tuple(parse_type(argument) for argument in entry["inputs"] if not argument["indexed"])
            events[name] = Event("0x" + topics[name], unindexed)
        elif entry["type"] == "error":
            types = tuple(parse_type(argument) for argument in entry["inputs"])
            errors[bytes.fromhex(error_selectors[name])] = (name, types)
    code = bytes.fromhex(artefact["deployedBytecode"][2:])
    return Contract(
        bytes.fromhex(artefact["bytecode"][2:]), hashlib.sha256(code).hexdigest(), functions, events, errors
    )


def name_to_word(name: str) -> bytes:
    """A party's name as the contract keeps it: ASCII, left-aligned in 32 bytes; AbiError for what is no name."""
    if not _NAME.fullmatch(name):
        raise AbiError(f"{name!r} is not [a-z][a-z0-9_-]{{0,31}}")
    return name.encode("ascii").ljust(32, b"\0")


def word_to_name(word: bytes) -> str:
    """The inverse of `name_to_word`. The contract admits no other words: one that is no name becomes visible hex."""
    name = word.rstrip(b"\0").decode("latin-1")
    return name if _NAME.fullmatch(name) else "0x" + word.hex()
