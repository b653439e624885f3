"""The small pattern language of a catalog's `public_pattern` (formats F1), parsed strictly and matched in full.

    pattern     = alternative *( "|" alternative )
    alternative = 1*( ( literal | class | "(" pattern ")" ) [ "{" n "}" | "{" n "," m "}" ] )      1 <= n <= m <= 255
    literal     = one of 0-9 A-Z a-z _ / space -
    class       = "[" 1*( member | end "-" end ) "]"      members as literals but "-"; ends ascending, of one kind

Whatever strays from it is refused with its place. Matching takes time polynomial in the length of the value whatever
the pattern, because each part is tried once at each place: a backtracking engine serves only where nothing backtracks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LITERALS = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_/ -")
KINDS = ("0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")
MAX_LENGTH = 1024
"""Characters of a pattern; far beyond any code scheme, and bounds the parser's work."""
MAX_DEPTH = 64
"""Groups within groups; bounds the recursion of parser and matcher."""
COUNT = re.compile(r"\{([1-9][0-9]{0,2})(?:,([1-9][0-9]{0,2}))?\}")


class PatternError(ValueError):
    """The text is not a pattern of this language; `zh` and `en` say what stands where (characters counted from 1)."""

    def __init__(self, place: int, zh: str, en: str) -> None:
        super().__init__(f"character {place + 1}: {en}")
        self.zh = f"第 {place + 1} 个字符：{zh}"
        self.en = f"character {place + 1}: {en}"


@dataclass(frozen=True)
class Chars:
    """One character out of a set."""

    members: frozenset[str]


@dataclass(frozen=True)
class Sequence:
    """One part after the other."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Either:
    """One of several parts."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Repeat:
    """A part from `least` to `most` times."""

    part: Node
    least: int
    most: int


Node = Chars | Sequence | Either | Repeat


@dataclass(frozen=True)
class Pattern:
    """A parsed pattern; `matches` says whether it covers a whole value."""

    text: str
    root: Node
    shortest: int
    longest: int
    regex: re.Pattern[str] | None

    def matches(self, value: str) -> bool:
        if not self.shortest <= len(value) <= self.longest:
            return False
        if self.regex is not None:
            return self.regex.fullmatch(value) is not None
        return bool(_ends(self.root, 0, value, {}) >> len(value) & 1)


def parse(text: str) -> Pattern:
    """The pattern written in `text`; PatternError for anything outside the grammar above."""
    if len(text) > MAX_LENGTH:
        raise PatternError(
            MAX_LENGTH, f"模式超过 {MAX_LENGTH} 个字符", f"the pattern is longer than {MAX_LENGTH} characters"
        )
    root, place = _alternatives(text, 0, 0)
    if place < len(text):
        raise PatternError(place, "多余的 )", "a ) without its (")
    shortest, longest = _lengths(root)
    # With one choice at most, and that not repeated, `re` has nothing to backtrack over; it is much faster there. The
    # grammar is a subset of its own, so the text can be handed over as it stands.
    safe = _choices(root, 1) <= 1
    return Pattern(text, _merged(root), shortest, longest, re.compile(text) if safe else None)


def _alternatives(text: str, place: int, depth: int) -> tuple[Node, int]:
    if depth > MAX_DEPTH:
        raise PatternError(place, f"括号嵌套超过 {MAX_DEPTH} 层", f"groups are nested more than {MAX_DEPTH} deep")
    options: list[Node] = []
    while True:
        option, place = _sequence(text, place, depth)
        options.append(option)
        if place >= len(text) or text[place] != "|":
            return (options[0] if len(options) == 1 else Either(tuple(options))), place
        place += 1


def _sequence(text: str, place: int, depth: int) -> tuple[Node, int]:
    parts: list[Node] = []
    while place < len(text) and text[place] not in "|)":
        part, place = _atom(text, place, depth)
        if place < len(text) and text[place] == "{":
            part, place = _count(part, text, place)
        parts.append(part)
    if not parts:
        raise PatternError(place, "模式、分组或选项为空", "an empty pattern, group or alternative")
    return (parts[0] if len(parts) == 1 else Sequence(tuple(parts))), place


def _atom(text: str, place: int, depth: int) -> tuple[Node, int]:
    char = text[place]
    if char == "(":
        inner, end = _alternatives(text, place + 1, depth + 1)
        if end >= len(text):
            raise PatternError(place, "( 没有对应的 )", "a ( without its )")
        return inner, end + 1
    if char == "[":
        return _class(text, place)
    if char == "{":
        raise PatternError(
            place,
            "次数只能跟在字面字符、字符类或分组之后",
            "a count only follows a literal, a class or a group, never another count",
        )
    if char not in LITERALS:
        raise PatternError(place, f"不允许的字符 {char!a}", f"the character {char!a} is not allowed")
    return Chars(frozenset(char)), place + 1


def _class(text: str, start: int) -> tuple[Node, int]:
    members: set[str] = set()
    place = start + 1
    while place < len(text) and text[place] != "]":
        first = text[place]
        if first == "-" or first not in LITERALS:
            raise PatternError(place, f"字符类中不允许 {first!a}", f"{first!a} is not allowed at this place in a class")
        if text[place + 1 : place + 2] != "-":
            members.add(first)
            place += 1
            continue
        last = text[place + 2 : place + 3]
        kind = next((kind for kind in KINDS if first in kind), "")
        if not last or last not in kind or last <= first:
            raise PatternError(
                place,
                f"区间 {text[place : place + 3]!a} 的两端须同类且递增",
                f"the ends of the range {text[place : place + 3]!a} must be of one kind and ascending",
            )
        members.update(kind[kind.index(first) : kind.index(last) + 1])
        place += 3
    if place >= len(text):
        raise PatternError(start, "[ 没有对应的 ]", "a [ without its ]")
    if not members:
        raise PatternError(start, "字符类为空", "an empty class")
    return Chars(frozenset(members)), place + 1


def _count(part: Node, text: str, place: int) -> tuple[Node, int]:
    found = COUNT.match(text, place)
    least = int(found[1]) if found else 0
    most = int(found[2] or found[1]) if found else 0
    if not found or not 1 <= least <= most <= 255:
        raise PatternError(
            place, "次数须写作 {n} 或 {n,m}，1 ≤ n ≤ m ≤ 255", "a count is {n} or {n,m} with 1 <= n <= m <= 255"
        )
    return Repeat(part, least, most), found.end()


def _merged(node: Node) -> Node:
    """The same language with (x{1,b}){n,m} written x{n,mb}, so that the plain way to nest counts costs nothing.

    There is no gap: j + 1 times x{1,b} begins with j + 1 times x, which is no more than j times b and one.
    """
    if isinstance(node, Repeat):
        part = _merged(node.part)
        if isinstance(part, Repeat) and part.least == 1:
            return Repeat(part.part, node.least, node.most * part.most)
        return Repeat(part, node.least, node.most)
    if isinstance(node, Sequence):
        return Sequence(tuple(_merged(part) for part in node.parts))
    if isinstance(node, Either):
        return Either(tuple(_merged(part) for part in node.parts))
    return node


def _lengths(node: Node) -> tuple[int, int]:
    """Characters of the shortest and the longest match."""
    if isinstance(node, Chars):
        return 1, 1
    if isinstance(node, Repeat):
        low, high = _lengths(node.part)
        return low * node.least, high * node.most
    bounds = [_lengths(part) for part in node.parts]
    if isinstance(node, Sequence):
        return sum(low for low, _ in bounds), sum(high for _, high in bounds)
    return min(low for low, _ in bounds), max(high for _, high in bounds)


def _choices(node: Node, times: int) -> int:
    """How often a backtracking engine would meet a choice: 0 or 1 is harmless, more is not looked into."""
    if isinstance(node, Chars):
        return 0
    if isinstance(node, Repeat):
        own = times if node.most > node.least else 0
        return own + _choices(node.part, times * node.most)
    own = times if isinstance(node, Either) else 0
    return own + sum(_choices(part, times) for part in node.parts)


def _ends(node: Node, start: int, value: str, known: dict[tuple[int, int], int]) -> int:
    """The lengths that `node` can match from `start`, as a bit set (bit k: it can match k characters)."""
    if isinstance(node, Chars):
        return 2 if start < len(value) and value[start] in node.members else 0
    place = (id(node), start)
    if place in known:
        return known[place]
    lengths = 0
    if isinstance(node, Either):
        for part in node.parts:
            lengths |= _ends(part, start, value, known)
    elif isinstance(node, Sequence):
        lengths = 1
        for part in node.parts:
            reached = 0
            for length in _bits(lengths):
                reached |= _ends(part, start + length, value, known) << length
            lengths = reached
    else:
        lengths = _repeated(node, start, value, known)
    known[place] = lengths
    return lengths


def _repeated(node: Repeat, start: int, value: str, known: dict[tuple[int, int], int]) -> int:
    if isinstance(node.part, Chars):
        stop = start
        while stop < len(value) and stop - start < node.most and value[stop] in node.part.members:
            stop += 1
        return sum(1 << length for length in range(node.least, stop - start + 1))
    # times[k]: after how many repetitions k characters can be used up, as a bit set. Nothing matches the empty string,
    # so going upwards through k meets each place after everything that leads to it.
    times = {0: 1}
    lengths = 0
    allowed = (1 << min(node.most, len(value) - start) + 1) - 1
    for used in range(len(value) - start + 1):
        counts = times.pop(used, 0)
        if counts >> node.least:
            lengths |= 1 << used
        onward = counts << 1 & allowed
        if onward:
            for length in _bits(_ends(node.part, start + used, value, known)):
                times[used + length] = times.get(used + length, 0) | onward
    return lengths


def _bits(number: int) -> list[int]:
    return [place for place in range(number.bit_length()) if number >> place & 1]
