"""Every line of docs/api.md does what the page says, against a real server."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import httpx

from tests.api.conftest import Server

DOC = Path(__file__).parents[2] / "docs" / "api.md"


def test_every_line_runs(server: Server, run: Any, tmp_path: Path) -> None:
    lines = re.findall(r"^    ((?:curl|export (?!API)).*)$", DOC.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(lines) > 20
    script = "set -eu\n" + "\n".join(f"echo '# {number}' >&2\n{line}" for number, line in enumerate(lines))
    env = {
        "API": server.url,
        "AUTH": f"Authorization: Bearer {server.token('read', 'reconcile')}",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LC_ALL": "C.UTF-8",
    }
    ran = subprocess.run(["bash", "-c", script], env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    failed = lines[int(re.findall(r"# (\d+)", ran.stderr)[-1])]
    assert ran.returncode == 0, (failed, ran.stderr[-500:])
    assert (tmp_path / "findings.xlsx").read_bytes()[:2] == b"PK"
    assert json.loads((tmp_path / "proof.json").read_text())["format"] == "duizhang-proof/1"
    assert '"verdict":"proved"' in ran.stdout
    assert "event: final" in ran.stdout


def test_every_address_of_the_api_is_on_the_page(server: Server) -> None:
    text = DOC.read_text(encoding="utf-8")
    for path in httpx.get(f"{server.url}/openapi.json").json()["paths"]:
        if path == "/v1/catalogs/{id}/proof":
            continue  # the form with ?key= of what is shown with the key in the path
        shown = re.escape(path).replace(r"\{key\}", "A-1").replace(r"\{id\}", "(permits|\\$RUN|1)")
        shown = shown.replace(r"\{party\}", "guangdong").replace(r"\{number\}", "1")
        shown = shown.replace(r"\{batch_id\}", r"\$BATCH")
        if path == "/v1/catalogs/{id}":
            shown = "/v1/catalogs"
        assert re.search(rf"\$API{shown}\b", text), path
