"""The API does what its own description says, whatever it is sent (schemathesis, all checks), with and without a token."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import Server

SETTINGS = """
# No schema can say that a day must exist, or that a cursor must be one that was given out: 422 is right for those.
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", "401", "403", "404", "409", "422", "429"]
"""
EXAMPLES = os.environ.get("DUIZHANG_EXAMPLES", "2")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("scope", ["admin", "verify", ""])
def test_schemathesis_finds_nothing(server: Server, run: Any, tmp_path: Path, scope: str) -> None:
    command = [
        str(Path(sys.executable).parent / "schemathesis"),
        "run",
        f"{server.url}/openapi.json",
        "--checks",
        "all",
    ]
    command += [
        "--max-examples",
        EXAMPLES,
        "--seed",
        "7",
        "--no-color",
        "--request-timeout",
        "60",
        "--suppress-health-check",
        "all",
    ]
    if scope != "admin":
        # They are refused before anything else happens: fewer will do.
        command += ["--phases", "examples,fuzzing"]
    if scope:
        command += ["--header", f"Authorization: Bearer {server.token(scope)}"]
    (tmp_path / "schemathesis.toml").write_text(SETTINGS)
    told = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert told.returncode == 0, told.stdout[-12_000:] + told.stderr[-2000:]
    assert "Tested: 32" in told.stdout, told.stdout[-3000:]
