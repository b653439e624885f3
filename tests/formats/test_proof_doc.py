"""docs/formats/proof.md: its examples are real files and its tables name every member and limit."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ledger import proof as module
from ledger.proof import dump_proof, dump_trust, parse_proof, parse_trust
from ledger.record import MAX_CANONICAL

PAGE = (Path(__file__).parents[2] / "docs" / "formats" / "proof.md").read_text(encoding="utf-8")


def example(name: str) -> bytes:
    found = re.findall(rf"<!-- example: {name} -->\n```json\n(.*?\n)```", PAGE, re.DOTALL)
    assert len(found) == 1
    return str(found[0]).encode()


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def members(value: Any, prefix: str = "") -> set[str]:
    if isinstance(value, dict):
        return {f"{prefix}{name}" for name in value} | {
            m for n, v in value.items() for m in members(v, f"{prefix}{n}.")
        }
    if isinstance(value, list) and value:
        return members(value[0], f"{prefix[:-1]}[].")
    return set()


def test_the_examples_are_files_that_this_version_writes() -> None:
    assert dump_proof(parse_proof(example("proof"))) == example("proof")
    assert dump_trust(parse_trust(example("trust"))) == example("trust")


def test_the_example_proof_is_the_fourth_leaf_of_the_published_vectors(vectors: dict[str, Any]) -> None:
    shown = parse_proof(example("proof"))
    assert shown.descriptor.batch_id.hex() == vectors["descriptor"]["batch_id"]
    assert shown.entry.hex() == vectors["tree"]["sorted_entries"][3]
    assert [hashed.hex() for hashed in shown.path] == vectors["tree"]["path_of_index_3"]
    module.check_path(shown, vectors["tree"]["size"], bytes.fromhex(vectors["tree"]["root"]))


def test_every_member_has_its_row() -> None:
    rows = set(re.findall(r"^\| `([^`]+)` \|", section("Proof of presence"), re.MULTILINE))
    assert rows == members(json.loads(example("proof")))
    rows = set(re.findall(r"^\| `([^`]+)` \|", section("Trust file"), re.MULTILINE))
    assert rows == set(json.loads(example("trust")))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (module.PROOF.limit, "| 144 MiB |"),
        (module.TRUST.limit, "| 1 MiB |"),
        (module.MAX_PATH, "| 53 hashes |"),
        (module.MAX_ANCHORS, "| 1 to 64 |"),
        (module.MAX_PARTIES, "| 1 to 4,096 |"),
        (MAX_CANONICAL, "| 64 MiB |"),
        (module.MAX_TOML, "| 1,048,576 characters |"),
    ],
)
def test_the_page_gives_the_limits_of_the_code(value: int, written: str) -> None:
    assert PAGE.count(written) == 1
    number = int(re.sub(r"[^0-9]", "", written.rsplit(" to ", maxsplit=1)[-1]))
    assert value == number * (1 << 20 if "MiB" in written else 1)
