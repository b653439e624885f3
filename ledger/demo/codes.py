"""Check characters of the unified social credit code (GB 32100-2015) and of the organisation code in it (GB 11714-1997).

A code has 18 characters: registration authority 1, category 1, region 6 (GB/T 2260), organisation code 9 with its own check
character, check character 1.
"""

from __future__ import annotations

ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"
"""The 31 characters of GB 32100: no I, O, S, V, Z. The value of a character is its place."""
_WEIGHTS = tuple(pow(3, at, 31) for at in range(17))
_ORGANISATION_WEIGHTS = (3, 7, 9, 10, 5, 8, 4, 2)


def check_character(first: str) -> str:
    """The 18th character for the first 17 (GB 32100-2015, MOD 31)."""
    total = sum(ALPHABET.index(character) * weight for character, weight in zip(first, _WEIGHTS, strict=True))
    return ALPHABET[-total % 31]


def organisation_check_character(first: str) -> str:
    """The 9th character for the first 8 of an organisation code (GB 11714-1997, MOD 11): 0-9 or X."""
    # Its own alphabet is 0-9A-Z with A = 10, unlike that of the code around it.
    total = sum(int(character, 36) * weight for character, weight in zip(first, _ORGANISATION_WEIGHTS, strict=True))
    return "0123456789X"[-total % 11]


def credit_code(authority: str, category: str, region: str, organisation: str) -> str:
    """The whole code; `organisation` are the 8 characters without check character."""
    first = f"{authority}{category}{region}{organisation}{organisation_check_character(organisation)}"
    return first + check_character(first)
