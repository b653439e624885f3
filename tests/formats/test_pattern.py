"""The pattern language of public_pattern: exactly that, matched in full, in bounded time."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.pattern import PatternError, parse


@pytest.mark.parametrize(
    ("text", "matching", "others"),
    [
        ("9[13][0-9A-Z]{16}", ["914401001234567890"], ["9144010012345678", "92" + "0" * 16, "91" + "a" * 16, ""]),
        ("a", ["a"], ["", "aa", "A", "b", "a\n", "\na"]),
        ("a|bc|d", ["a", "bc", "d"], ["ab", "abcd", "bcd", ""]),
        ("a(b|c){2}d", ["abbd", "acbd"], ["abd", "abbbd"]),
        ("[0-9]{1,3}", ["1", "123"], ["", "1234", "１"]),
        ("(ab){2,3}", ["abab", "ababab"], ["ab", "abababab", "aba"]),
        ("-", ["-"], [" "]),
        ("a-b", ["a-b"], ["b"]),
        ("[a-cx/_ ]", ["a", "b", "c", "x", "/", "_", " "], ["-", "d", "A"]),
        ("[A-ZA-C0]", ["Z", "0"], ["1"]),
        ("(a{2}){3}", ["aaaaaa"], ["aaaa", "aaaaa", "aaaaaaa"]),
        ("(a{1,2}){3}", ["aaa", "aaaa", "aaaaaa"], ["aa", "aaaaaaa"]),
        ("(a{2,3}){2}", ["aaaa", "aaaaa", "aaaaaa"], ["aaa", "aaaaaaa"]),
        ("(a{3,4}){1,3}", ["aaa", "aaaa", "a" * 6, "a" * 12], ["aa", "a" * 5, "a" * 13]),
        ("(a|bbb){2}", ["aa", "abbb", "bbbbbb"], ["a", "bbb", "bb"]),
        ("(a{3}){1,2}", ["aaa", "aaaaaa"], ["aaaa", "aaaaa"]),
        ("(a{1,2}b{1,2}){1,2}", ["ab", "aabb", "abab", "aabbab"], ["a", "aaab", "ababab", "ba"]),
        ("((a|aa)(a|aa)){2}", ["aaaa", "aaaaaa", "aaaaaaaa"], ["aaa", "aaaaaaaaa"]),
        ("(a|ab)(c|bcd)(d|e)", ["acd", "abcd", "abcde", "abcdd"], ["abc", "abcdde"]),
        ("[0-9]{255}", ["7" * 255], ["7" * 254, "7" * 256]),
    ],
)
def test_a_pattern_matches_in_full(text: str, matching: list[str], others: list[str]) -> None:
    pattern = parse(text)
    assert [value for value in matching if not pattern.matches(value)] == []
    assert [value for value in others if pattern.matches(value)] == []


@pytest.mark.parametrize(
    "text",
    [
        "", "()", "a()", "(|a)", "(a|)", "|", "a|", "|a", "a||b", "[]", "a[]",
        "(", ")", "(a", "a)", "((a)", "[", "]", "[a", "a]", "{", "}", "a}", "{2}", "|{2}", "({2})",
        "a{}", "a{0}", "a{0,1}", "a{2,1}", "a{256}", "a{1,256}", "a{1,}", "a{,2}", "a{1, 2}", "a{01}", "a{1", "a{-1}",
        "a{1}{2}", "(a){2}{3}", "[a]{1}{1}", "a{1,2}{1}", "a{１}",
        ".", "a.b", "a*", "a+", "a?", "^a", "a$", "\\d", "\\\\", "a\\", "(?:a)", "(?P<n>a)", "(?i)a", "#", "a,b", "a:b", "é", "中",
        "a\n", "\x00", "a\t",
        "[^a]", "[a-]", "[-a]", "[-]", "[a-c-e]", "[c-a]", "[a-a]", "[a-Z]", "[A-z]", "[0-z]", "[9-0]", "[_-a]",
        "[ -a]", "[a--]", "[---]", "[[a]]", "[a|b]", "[(a)]", "[a.]", "[\\d]", "[a{2}]", "[é]", "[0-９]",
    ],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(PatternError):
        parse(text)


def test_sizes_are_bounded() -> None:
    assert parse("a" * 1024).matches("a" * 1024)
    with pytest.raises(PatternError):
        parse("a" * 1025)
    assert parse("(" * 64 + "a" + ")" * 64).matches("a")
    with pytest.raises(PatternError):
        parse("(" * 65 + "a" + ")" * 65)


@pytest.mark.parametrize(
    ("text", "matching", "other"),
    [
        ("((a{1,255}){1,255}){1,255}", "a" * 5000, "a" * 5000 + "b"),
        ("(((a{1,9}){2,9}){1,9}){2,9}b", "a" * 100 + "b", "a" * 101),
        ("((ab{1,9}){2,9}){2,9}", "abb" * 60, "abb" * 60 + "a"),
        ("((a|a)(a|a)){255}", "a" * 510, "a" * 509 + "b"),
        ("(a|aa){255}", "a" * 400, "a" * 400 + "b"),
        ("a{1,255}" * 12 + "b", "a" * 255 + "b", "a" * 256),
        ("a{1,255}" * 6 + "b", "a" * 255 + "b", "a" * 256),
        ("(a{1,2}|a{1,2}){200}b", "a" * 300 + "b", "a" * 301),
    ],
)
def test_no_pattern_can_hang(text: str, matching: str, other: str) -> None:
    # A backtracking engine does not live to see the end of most of these; the runner's time limit decides.
    pattern = parse(text)
    assert (pattern.matches(matching), pattern.matches(other)) == (True, False)


LITERAL = st.sampled_from("ab01-/")
CLASS = st.sampled_from(["[ab]", "[0-9]", "[a-c1]"])
COUNT = st.sampled_from(["", "{1}", "{2}", "{1,3}", "{2,4}"])


def _combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    group = inner.map(lambda text: f"({text})")
    part = st.tuples(st.one_of(LITERAL, CLASS, group), COUNT).map("".join)
    sequence = st.lists(part, min_size=1, max_size=3).map("".join)
    return st.lists(sequence, min_size=1, max_size=2).map("|".join)


PATTERN = st.recursive(LITERAL, _combined, max_leaves=6)


@settings(max_examples=200, deadline=None)
@given(PATTERN, st.text("ab01-/", max_size=7), st.data())
def test_it_agrees_with_a_regular_expression_engine(text: str, random: str, data: st.DataObject) -> None:
    engine = re.compile(text)
    pattern = parse(text)
    for value in (random, data.draw(st.from_regex(engine, fullmatch=True, alphabet="ab01-/23c"))):
        if len(value) <= 12:
            assert pattern.matches(value) is (engine.fullmatch(value) is not None)
