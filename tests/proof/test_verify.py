"""A good proof: what each step says, the sentence, and the command around it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ledger import jcs
from ledger.chain.rpc import Rpc, RpcAnswered
from ledger.cli import main
from ledger.verdict import STEPS
from ledger.verify import verify
from tests.proof.conftest import Stage, edited, told

ROOT = Path(__file__).parents[2]
HEAVY = (
    "sqlalchemy", "alembic", "web3", "eth_account", "eth_abi", "eth_hash", "fastapi", "starlette", "pyarrow", "numpy",
    "cryptography", "rich",
)  # fmt: skip


def test_a_good_proof_passes_every_step_and_both_sides_vouch(stage: Stage, good: bytes) -> None:
    result = stage.verify(good)
    assert [(step.number, step.name, step.result) for step in result.steps] == [
        (number, name, "pass") for number, (name, _, _) in enumerate(STEPS, 1)
    ]
    assert result.exit_code == 0
    assert result.evidence is not None
    assert [record.party for record in result.evidence.anchors] == ["guangdong", "guangzhou"]
    assert result.evidence.opened.values["no"] == "A-3"
    times = [record.time for record in result.evidence.anchors]
    assert times == sorted(times)


def test_the_sentence_says_what_by_whom_as_of_when_and_that_a_development_chain_binds_nobody_who_runs_it(
    stage: Stage, good: bytes
) -> None:
    result = stage.verify(good)
    for text, words in (
        (
            result.zh,
            ("批次 B1", "permits/1", "记录 no=A-3", "guangdong", "guangzhou", "截至区块", "不能约束该链的运营方"),
        ),
        (
            result.en,
            ("batch B1", "permits/1", "record no=A-3", "guangdong", "guangzhou", "as of block", "does not bind"),
        ),
    ):
        assert all(word in text for word in words), text
        assert "\n" not in text
    assert result.zh.count("。") == 1


@pytest.mark.parametrize("client", ["Geth/v1.14.0", None])
def test_another_node_is_not_called_a_development_chain_and_a_silent_one_is_not_called_a_real_one(
    stage: Stage, good: bytes, client: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Rpc.call

    def call(self: Rpc, method: str, *params: Any) -> Any:
        return client if method == "web3_clientVersion" else asked(self, method, *params)

    monkeypatch.setattr(Rpc, "call", call)
    result = stage.verify(good)
    assert result.evidence is not None
    assert result.evidence.development is (None if client is None else False)
    assert ("运营方" in result.zh) is (client is None)


def test_a_record_of_an_own_source_is_proved_by_its_one_side(stage: Stage) -> None:
    proof = stage.prove('{"office":"t-1","inspector":"张三"}', catalog="inspections")
    result = stage.verify(proof)
    assert result.verdict == "proved"
    assert result.evidence is not None
    assert [record.party for record in result.evidence.anchors] == ["guangzhou"]


def test_a_withdrawal_is_proved_as_one(stage: Stage) -> None:
    result = stage.verify(stage.prove("A-5", "--batch", "B2"))
    assert result.verdict == "proved"
    assert "撤回（revoked）" in result.zh
    assert "withdrawal (revoked)" in result.en


# ---- the command ----


def test_verify_needs_no_workspace_and_loads_no_database_chain_or_web_library(stage: Stage, good: bytes) -> None:
    stage.file("proof.json", good)
    stage.file("trust.json", stage.trust)
    (stage.folder / "empty").mkdir()
    script = (
        "import sys; from ledger.cli import main; "
        f"code = main(['verify', '../proof.json', '--trust', '../trust.json', '--rpc', {stage.rpc!r}]); "
        f"print('loaded', sorted({{name.split('.')[0] for name in sys.modules}} & set({HEAVY!r}))); sys.exit(code)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=stage.folder / "empty",
        env={"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.endswith("loaded []\n")
    assert "已证明" in ran.stdout


def test_the_json_names_verdict_steps_vouchers_time_and_sentence(
    stage: Stage, good: bytes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    proof, trust = stage.file("proof.json", good), stage.file("trust.json", stage.trust)
    monkeypatch.setenv("DUIZHANG_RPC", stage.rpc)
    assert main(["verify", str(proof), "--trust", str(trust), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["verdict"] == "proved"
    assert [set(step) for step in answer["steps"]] == [{"number", "name", "title", "result", "detail"}] * 10
    assert answer["vouched_by"] == ["guangdong", "guangzhou"]
    assert answer["as_of"] == answer["anchors"][1]["time"] >= answer["anchors"][0]["time"]
    assert answer["record"]["values"]["holder"] == "甲公司"
    assert answer["chain"]["development"] is True
    assert "error" not in answer


def test_every_step_is_printed_and_what_was_not_done_never_reads_as_passed(
    stage: Stage, good: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    proof = stage.file("proof.json", good)
    assert main(["--lang", "en", "verify", str(proof), "--rpc", stage.rpc]) == 2
    lines = capsys.readouterr().out.splitlines()
    words = [line[4:12].strip() for line in lines[:10]]
    assert words == ["pass", "not done", "pass", "pass", "pass", *["not done"] * 5]
    assert lines[-1].startswith("Undetermined: no trust file")


def test_without_a_trust_file_the_verdict_is_undetermined_even_for_a_forgery(
    stage: Stage, good: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    forged = stage.file("forged.json", edited(good, lambda top: top["record"].update(salt="00" * 32)))
    assert main(["verify", str(forged), "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["verdict"] == "undetermined"
    assert answer["error"]["code"] == "evidence.commitment"
    assert answer["vouched_by"] == []


def test_without_a_node_it_says_how_to_name_one(
    stage: Stage, good: bytes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DUIZHANG_RPC", raising=False)
    proof, trust = stage.file("proof.json", good), stage.file("trust.json", stage.trust)
    assert main(["verify", str(proof), "--trust", str(trust), "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["error"]["code"] == "verify.no_rpc"
    assert "DUIZHANG_RPC" in answer["error"]["message"]
    assert [step["result"] for step in answer["steps"]] == ["pass"] * 5 + ["not_done"] * 5


def test_a_checkpoint_is_refused_by_name(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "x", "--checkpoint", "y", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "not_built"


def test_a_file_that_is_not_there_is_named(stage: Stage) -> None:
    result = verify(stage.folder / "none.json", None, None)
    assert told(result) == ("undetermined", "proof_file", "verify.unreadable")
    assert "none.json" in result.zh


def test_control_characters_of_a_record_or_of_a_node_never_reach_the_terminal(
    stage: Stage, good: bytes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def colour(top: Any) -> None:
        opened = json.loads(top["record"]["canonical"])
        opened["record"]["holder"] = "a\x1b[31mb"
        top["record"]["canonical"] = jcs.dump(opened).decode()

    def refuse(self: Rpc, method: str, *_: Any) -> Any:
        raise RpcAnswered(method, -1, "\x1b[31mproved", "", self.where)

    main(["verify", str(stage.file("c.json", edited(good, colour)))])
    monkeypatch.setattr(Rpc, "call", refuse)
    trust = stage.file("trust.json", stage.trust)
    main(["verify", str(stage.file("proof.json", good)), "--trust", str(trust), "--rpc", stage.rpc])
    printed = capsys.readouterr()
    assert "31mb" in printed.out
    assert "31mproved" in printed.out
    assert "\x1b" not in printed.out + printed.err
