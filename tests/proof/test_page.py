"""docs/verify.md shows the steps there are and the output there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ledger.cli import main
from ledger.verdict import STEPS
from tests.proof.conftest import Stage

PAGE = (Path(__file__).parents[2] / "docs" / "verify.md").read_text(encoding="utf-8")


def test_the_page_lists_every_step_under_its_number() -> None:
    listed = re.findall(r"^\| (\d+) \| `(\w+)` \|", PAGE, re.MULTILINE)
    assert listed == [(str(number), name) for number, (name, _, _) in enumerate(STEPS, 1)]


def test_the_example_is_what_the_command_prints(stage: Stage, good: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    """But for hashes, addresses, times and other numbers, which differ with each chain."""
    proof, trust = stage.file("proof.json", good), stage.file("trust.json", stage.trust)
    assert main(["--lang", "en", "verify", str(proof), "--trust", str(trust), "--rpc", stage.rpc]) == 0
    example = PAGE.split("<!-- example: verify -->\n```console\n")[1].split("```")[0]
    shown = example.partition("\n")[2]
    assert numberless(shown) == numberless(capsys.readouterr().out)


def numberless(text: str) -> str:
    # What other tests on this chain may have added to the batch: an anchor of a third party.
    text = re.sub(r"; anchors of third parties do not count: \w+", "", text)
    return re.sub(r"0x[0-9a-f]{40}|[0-9a-f]{64}|\d{4}-\d\d-\d\dT[0-9:]{8}Z|\d+", "#", text)
