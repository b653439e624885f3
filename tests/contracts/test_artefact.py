"""The committed artefact is what the committed source compiles to, and the check that says so can fail."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def check(root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "scripts" / "compile_contracts"), "--check"]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The project's sources of the artefact, to be changed at will."""
    contracts = [f"contracts/{path.name}" for path in (ROOT / "contracts").glob("*.sol")]
    for name in ("scripts/compile_contracts", "contracts/solc-wrapper", *contracts):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    (tmp_path / "contracts" / "node_modules").symlink_to(ROOT / "contracts" / "node_modules")
    (tmp_path / "ledger" / "chain").mkdir(parents=True)
    for name in ("AnchorRegistry.json", "DisputeRegistry.json"):
        shutil.copy2(ROOT / "ledger/chain" / name, tmp_path / "ledger/chain")
    return tmp_path


def test_the_committed_artefact_is_up_to_date() -> None:
    done = check(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def change_source(root: Path) -> None:
    source = root / "contracts" / "AnchorRegistry.sol"
    source.write_text(source.read_text().replace("MAX_DESCRIPTOR = 1024", "MAX_DESCRIPTOR = 1025"))


def change_comment(root: Path) -> None:
    with (root / "contracts" / "AnchorRegistry.sol").open("a") as source:
        source.write("// another word\n")


@pytest.mark.parametrize(
    ("change", "named", "unchanged"),
    [
        (change_source, "deployedBytecode differs", "abi differs"),
        (change_comment, "sources differs", "deployedBytecode differs"),
    ],
)
def test_a_changed_source_without_a_new_artefact_is_refused_and_named(
    copy: Path, change: Callable[[Path], None], named: str, unchanged: str
) -> None:
    change(copy)
    done = check(copy)
    assert done.returncode == 1, done.stdout + done.stderr
    assert named in done.stdout
    assert unchanged not in done.stdout
    assert done.stderr == ""


def test_a_source_that_does_not_compile_cleanly_is_refused(copy: Path) -> None:
    with (copy / "contracts" / "AnchorRegistry.sol").open("a") as source:
        source.write("contract Unfinished { function f() external { uint256 unused; } }\n")
    done = check(copy)
    assert done.returncode == 1
    assert "Warning" in done.stderr


def script() -> Any:
    loader = SourceFileLoader("compile_contracts", str(ROOT / "scripts" / "compile_contracts"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_an_artefact_that_was_edited_is_named(copy: Path) -> None:
    path = copy / "ledger/chain/AnchorRegistry.json"
    fresh = json.loads(path.read_text())
    differences = script().differences
    assert differences(path, fresh) == []
    path.write_text(json.dumps(fresh))
    assert "edited by hand" in differences(path, fresh)[0]
    path.write_text(json.dumps({**fresh, "abi": fresh["abi"][:-1]}))
    assert "abi differs" in differences(path, fresh)[0]
    path.write_text("{")
    assert "cannot be read" in differences(path, fresh)[0]
    path.unlink()
    assert "cannot be read" in differences(path, fresh)[0]
