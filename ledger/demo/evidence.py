"""The auditor's chapter: one record proved and verified; a forged proof and a forged registry refused.

The forger is given everything but the province's key: he edits a proof file, and he builds a chain and a contract of his own on
which he calls himself by the province's name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ledger import jcs
from ledger.catalog import Catalog
from ledger.demo.deliveries import write_upserts
from ledger.demo.rows import Row
from ledger.demo.stage import Stage

FORGER = "forger"
PROOF, TRUST = "proof.json", "trust.json"
STEPS = 10
_FORGED_CAPITAL = "99,999(万元人民币)"


def prove(stage: Stage, catalog: Catalog, province: str, city: str, row: Row) -> None:
    """Prove `row`, which was delivered in B2, to an auditor, and let a forger try twice."""
    with stage.chapter("出证：给审计一条记录的存证", "one record proved to an auditor") as facts:
        stage.tell(
            f"审计要核实 {row['name']}（{row['uscc']}）：市方出存证文件；信任文件由审计自己向省方取得",
            f"The auditor asks about {row['name']} ({row['uscc']}): the city makes a proof file; the auditor gets the trust file "
            "from the province himself",
        )
        stage.command("-C", city, "prove", catalog.id, row["uscc"], "--out", PROOF)
        stage.command("-C", province, "trust", "export", "--out", TRUST)
        rpc = _rpc(stage, province)
        # The steps in one line each; the sentence at the end in full.
        stage.command("verify", PROOF, "--trust", TRUST, "--rpc", rpc, clip=STEPS)
        told = stage.document("verify", PROOF, "--trust", TRUST, "--rpc", rpc)
        delivered = {field: value or None for field, value in row.items()}
        stage.expect(
            told["verdict"] == "proved" and told["record"]["values"] == delivered and len(told["vouched_by"]) == 2,
            f"应证明记录 {row['uscc']}，双方作证；实为 {told['verdict']}，作证方 {told['vouched_by']}",
            f"record {row['uscc']} should be proved by both parties; the verdict is {told['verdict']} by {told['vouched_by']}",
        )
        stage.good(
            "退出码 0；十步全部通过，省、市双方的上链都作证", "exit code 0; all steps passed, both parties vouch"
        )
        facts["proved"] = {"uscc": row["uscc"], "vouched_by": told["vouched_by"]}
    with stage.chapter("两次伪造，都被拒绝", "two forgeries, both refused") as facts:
        facts["forged_proof"] = _forged_proof(stage, rpc, row)
        facts["forged_registry"] = _forged_registry(stage, catalog, province, city, row)


def _rpc(stage: Stage, party: str) -> str:
    return str(stage.document("-C", party, "chain", "status")["rpc"])


def _forged_proof(stage: Stage, rpc: str, row: Row) -> str:
    """The value in the proof file is another; returns the step at which it is refused."""
    stage.tell(
        f"伪造一：把存证文件里的注册资金由 {row['capital']} 改成 {_FORGED_CAPITAL}（forged.json），其余不动",
        f"Forgery 1: the capital in the proof file is changed from {row['capital']} to {_FORGED_CAPITAL} (forged.json)",
    )
    Path("forged.json").write_bytes(forge(Path(PROOF).read_bytes(), {"capital": _FORGED_CAPITAL}))
    step = _refused(stage, "forged.json", rpc, 1, "entry")
    stage.good(
        "退出码 1：改过的值打不开链上的条目",
        "exit code 1: the changed value does not open the entry",
    )
    return step


def forge(proof: bytes, values: Mapping[str, str]) -> bytes:
    """The proof file with other values in its opened record, otherwise well-formed."""
    document = json.loads(proof)
    opened = json.loads(document["record"]["canonical"])
    opened["record"] |= values
    document["record"]["canonical"] = jcs.dump(opened).decode()
    return jcs.dump(document) + b"\n"


def _forged_registry(stage: Stage, catalog: Catalog, province: str, city: str, row: Row) -> str:
    """A proof that is right in itself, from a registry of the forger's; returns the step at which it is refused."""
    stage.tell(
        f"伪造二：另建一条链、一份同样的合约，自称 {province}，把改过的记录上链、出证",
        f"Forgery 2: a chain and a contract of his own, on which he calls himself {province} and anchors the changed record",
    )
    write_upserts(Path("forged.csv"), catalog, [row | {"capital": _FORGED_CAPITAL}])
    stage.command("init", FORGER, "--party", province, show=0)
    stage.command("-C", FORGER, "party", "add", city, "--out", "forged-join.json", show=0)
    stage.command("-C", FORGER, "send", catalog.id, "forged.csv", "--batch", "B2", "--to", city, show=1)
    stage.command("-C", FORGER, "prove", catalog.id, row["uscc"], "--out", "forged-chain.json", show=0)
    claimed = Path("forged-chain.json")
    claimed.write_bytes(_claim_chain(claimed.read_bytes(), Path(PROOF).read_bytes()))
    stage.tell(
        "再把文件里的链号和合约改成真链的，并让审计去问自己的节点：",
        "he also writes the real chain and contract into the file, and has the auditor ask his own node:",
    )
    step = _refused(stage, str(claimed), _rpc(stage, FORGER), 2, "chain")
    stage.good(
        "退出码 2：节点不是信任文件中的那条链，以下各步一律不看",
        "exit code 2: the node does not serve the chain of the trust file, nothing further is looked at",
    )
    return step


def _claim_chain(forged: bytes, genuine: bytes) -> bytes:
    document = json.loads(forged)
    document["chain"] = json.loads(genuine)["chain"]
    return jcs.dump(document) + b"\n"


def _refused(stage: Stage, file: str, rpc: str, code: int, step: str) -> str:
    """Verify `file`, which must fail at `step` with exit code `code`; returns the step."""
    words = ("verify", file, "--trust", TRUST, "--rpc", rpc)
    stage.command(*words, expect=code, show=-1)
    told = stage.document(*words, expect=code)
    failed = [str(done["name"]) for done in told["steps"] if done["result"] == "fail"]
    stage.expect(
        failed == [step],
        f"{file} 应在 {step} 一步被拒绝，实为 {failed}",
        f"{file} should be refused at step {step}; it was at {failed}",
    )
    return step
