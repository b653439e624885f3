"""Check characters of credit codes, against published codes and against the standards' formulas written out again."""

from __future__ import annotations

import pytest

from ledger.demo.codes import check_character, credit_code, organisation_check_character

# Codes that listed companies, authorities and a trade union publish themselves.
PUBLISHED = [
    "914403001922038216",
    "9144030010001686XA",
    "91440400192548256N",
    "9144010163320680X7",
    "9144030071526726XG",
    "9144030010001694XX",
    "11440100007483180K",
    "81440000742971228Y",
    "11420000MB15291767",
]
# Published in forms and sample data with a check character that is wrong.
WRONG = ["91110108717809965C", "91110000800088421P", "9133010057462616XH", "91440101MA59J1K15C"]


def uscc_holds(code: str) -> bool:
    """GB 32100-2015, 5.4: the weighted sum over all 18 characters, the last with weight 1, is a multiple of 31."""
    weights = [1, 3, 9, 27, 19, 26, 16, 17, 20, 29, 25, 13, 8, 24, 10, 30, 28, 1]
    values = {**{str(n): n for n in range(10)}}
    values |= dict(zip("ABCDEFGHJKLMNPQRTUWXY", range(10, 31), strict=True))
    return sum(values[c] * w for c, w in zip(code, weights, strict=True)) % 31 == 0


def organisation_holds(code: str) -> bool:
    """GB 11714-1997: C9 = 11 - (sum of value x weight) mod 11, written X for 10 and 0 for 11."""
    values = [ord(c) - ord("0") if c.isdigit() else ord(c) - ord("A") + 10 for c in code[:8]]
    check = 11 - sum(v * w for v, w in zip(values, [3, 7, 9, 10, 5, 8, 4, 2], strict=True)) % 11
    return code[8] == {10: "X", 11: "0"}.get(check, str(check))


@pytest.mark.parametrize("code", PUBLISHED)
def test_published_codes_are_made_again_from_their_parts(code: str) -> None:
    assert uscc_holds(code)
    assert organisation_holds(code[8:17])
    assert check_character(code[:17]) == code[17]
    assert organisation_check_character(code[8:16]) == code[16]
    assert credit_code(code[0], code[1], code[2:8], code[8:16]) == code


@pytest.mark.parametrize("code", WRONG)
def test_wrong_published_codes_are_not(code: str) -> None:
    assert not uscc_holds(code)
    assert check_character(code[:17]) != code[17]


def test_every_remainder_of_the_organisation_code_gives_its_character() -> None:
    seen = set()
    for number in range(200):
        first = f"{number:08}"
        character = organisation_check_character(first)
        assert organisation_holds(first + character)
        seen.add(character)
    assert seen == set("0123456789X")
