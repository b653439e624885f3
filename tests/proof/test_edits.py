"""Every single character of a proof file and of a trust file matters: each is replaced, each third also left out and doubled."""

from __future__ import annotations

import json

import pytest

from tests.proof.conftest import Stage, edited

DIGITS, HEX, LETTERS, CAPITALS = "0123456789", "abcdef", "ghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
NEXT = {one: two for run in (DIGITS, HEX, LETTERS, CAPITALS) for one, two in zip(run, run[1:] + run[0], strict=True)}


def neighbour(char: str) -> str:
    """Another character that the same form most likely admits: a digit for a digit, a hex letter for one, else a letter."""
    return NEXT.get(char, "x")


def edits(data: bytes, at: int) -> list[bytes]:
    text = data.decode()
    before, char, after = text[:at], text[at], text[at + 1 :]
    others = (neighbour(char),) if at % 3 else (neighbour(char), "", char + char)
    return [(before + other + after).encode() for other in others]


def refused(stage: Stage, good: bytes, data: bytes, *, trust: bool) -> list[bytes]:
    """The edits that pass although they should not."""
    passed = []
    for edit in (edit for at in range(len(data.decode())) for edit in edits(data, at)):
        assert edit != data
        result = stage.verify(good, trust=edit) if trust else stage.verify(edit)
        if result.verdict == "proved" or (trust and result.verdict != "undetermined"):
            passed.append(edit)
    return passed


def test_an_edit_of_any_character_of_a_proof_file_is_refused(stage: Stage, good: bytes) -> None:
    assert stage.verify(good).verdict == "proved"
    assert refused(stage, good, good, trust=False) == []


def test_an_edit_of_any_character_of_a_trust_file_leaves_nothing_determined(stage: Stage, good: bytes) -> None:
    assert refused(stage, good, stage.trust, trust=True) == []


@pytest.mark.parametrize("trust", [False, True])
def test_no_member_can_be_left_out(trust: bool, stage: Stage, good: bytes) -> None:
    data = stage.trust if trust else good
    for name in json.loads(data):
        cut = edited(data, lambda top, name=name: top.pop(name))
        result = stage.verify(good, trust=cut) if trust else stage.verify(cut)
        assert result.verdict == "undetermined", name
