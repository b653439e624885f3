"""Canonical JSON (RFC 8785, "JCS"): the one way in and the one way out.

`dump` gives the bytes. `load` takes bytes apart and refuses whatever is not exactly the bytes that `dump` would have
given: other white space, other escapes, another order, repeated members, fractions, integers past 2^53 - 1. So two
different byte strings never mean the same thing, and an edited character is either seen here or changes a value.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

import rfc8785

from ledger.errors import InputError

MAX_INTEGER = 2**53 - 1
"""Largest integer that JCS can write exactly (RFC 8785 section 3.2.2.3, I-JSON)."""
MAX_DEPTH = 16
"""Lists and objects within each other; no format of ours goes past 5. Not left to the JSON parser: libraries raise
Python's recursion limit, and then hostile nesting ends the process instead of the parse."""
TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
"""A string, or a bracket outside of strings; possessive, so that it never goes back over a long string."""


@dataclass(frozen=True)
class Kind:
    """What is being read, for limits and messages: `code` is the prefix of error codes, `limit` counts bytes."""

    code: str
    zh: str
    en: str
    limit: int
    line_feed: bool = False

    def refuse(self, rule: str, zh: str, en: str, where: str = "") -> InputError:
        """The error for a broken `rule` of this kind, to be raised by the caller."""
        return InputError(f"{self.code}.{rule}", f"{self.zh}：{zh}", f"{self.en}: {en}", where)


def dump(value: Any) -> bytes:
    """RFC 8785 bytes of strings, integers up to 2^53 - 1, null, booleans, lists and dicts of these.

    ValueError for anything that has no such form (a lone surrogate, a larger integer, NaN).
    """
    return rfc8785.dumps(value)


def load(data: bytes, kind: Kind, where: str = "") -> Any:
    """The value of `data`, which must be exactly `dump(value)` (with `kind.line_feed`: plus one line feed).

    InputError `<kind>.size`, `.encoding`, `.depth`, `.json`, `.repeated_member`, `.number` or `.not_canonical`.
    """
    if len(data) > kind.limit:
        raise kind.refuse(
            "size",
            f"共 {len(data)} 字节，超过上限 {kind.limit} 字节",
            f"{len(data)} bytes, more than the limit of {kind.limit}",
            where,
        )
    body = data
    if kind.line_feed:
        if not data.endswith(b"\n"):
            raise kind.refuse(
                "not_canonical",
                "末尾缺少换行符，文件可能被截断",
                "does not end with a line feed; it may have been cut off",
                where,
            )
        body = data[:-1]
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise kind.refuse(
            "encoding", f"第 {error.start} 字节处不是 UTF-8", f"not UTF-8 at byte {error.start}", where
        ) from error

    if _depth(text) > MAX_DEPTH:
        raise kind.refuse("depth", f"嵌套超过 {MAX_DEPTH} 层", f"nested more than {MAX_DEPTH} deep", where)

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise kind.refuse("repeated_member", f"成员 {name!a} 重复", f"member {name!a} occurs twice", where)
            found[name] = value
        return found

    def no_fraction(literal: str) -> NoReturn:
        raise kind.refuse(
            "number",
            f"{literal[:40]} 不是整数",
            f"{literal[:40]} is not an integer; no other number occurs here",
            where,
        )

    def whole(literal: str) -> int:
        # 17 characters hold every integer of I-JSON; measured before int(), which refuses very long ones on its own.
        if len(literal) > 17 or abs(int(literal)) > MAX_INTEGER:
            raise kind.refuse(
                "number", f"整数 {literal[:40]} 超出 2^53-1", f"integer {literal[:40]} is past 2^53 - 1", where
            )
        return int(literal)

    try:
        value = json.loads(
            text, object_pairs_hook=members, parse_float=no_fraction, parse_int=whole, parse_constant=no_fraction
        )
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at character {error.pos}"
        raise kind.refuse("json", f"不是合法的 JSON（{reason}）", f"not JSON: {reason}", where) from error
    try:
        same = dump(value) == body
    except ValueError:
        same = False
    if not same:
        raise kind.refuse(
            "not_canonical",
            "不等于自身的 RFC 8785 规范形式，内容可能被改动",
            "is not its own RFC 8785 form; it was written by something else or edited",
            where,
        )
    return value


def _depth(text: str) -> int:
    deepest = depth = 0
    for token in TOKEN.finditer(text):
        if token[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token[0] in "]}":
            depth -= 1
    return deepest
