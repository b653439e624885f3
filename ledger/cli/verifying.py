"""`verify`: the steps, each with pass, fail or not done, and one sentence. Works outside a workspace."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ledger.chain.view import time_utc
from ledger.cli.speech import error_json, message, print_json, say, visible
from ledger.errors import NotBuiltError
from ledger.verdict import Evidence, Step, SubjectEvidence, Verification, title
from ledger.verify import verify


def run(args: argparse.Namespace) -> int:
    """Verify one file; exit 0 proved, 1 the evidence contradicts, 2 could not tell."""
    if args.checkpoint is not None:
        raise NotBuiltError("verify --checkpoint")
    trust = None if args.trust is None else Path(args.trust)
    result = verify(Path(args.file), trust, args.rpc or os.environ.get("DUIZHANG_RPC"), require=args.require)
    if args.json:
        print_json(as_json(result))
    else:
        _tell(result)
    return result.exit_code


def as_json(result: Verification) -> dict[str, object]:
    """The outcome in the words of the JSON output."""
    told: dict[str, object] = {
        "verdict": result.verdict,
        "steps": [_step_json(step) for step in result.steps],
        "vouched_by": [],
        "as_of": None,
    }
    if isinstance(result.evidence, SubjectEvidence):
        told |= _subject_json(result.evidence)
    elif result.evidence is not None:
        told |= _evidence_json(result.evidence)
    told["sentence"] = say(result.zh, result.en)
    if result.error is not None:
        told |= error_json(result.error.code, message(result.error), result.error.where)
    return told


def _step_json(step: Step) -> dict[str, object]:
    zh, en = title(step.name)
    told: dict[str, object] = {
        "number": step.number,
        "name": step.name,
        "title": say(zh, en),
        "result": step.result,
        "detail": say(step.zh, step.en),
    }
    return told | {"code": step.code} if step.code else told


def _subject_json(it: SubjectEvidence) -> dict[str, object]:
    return {
        **_common(it),
        "subject": {
            "code": it.proof.subject,
            "records": len(it.opened),
            "without_subject": it.unnamed,
            "superseded": dict(it.superseded),
            "left_behind": it.left_behind,
        },
        "records": [dict(opened.values) for opened in it.opened],
    }


def _evidence_json(it: Evidence) -> dict[str, object]:
    told = _common(it)
    batch = told["batch"]
    if isinstance(batch, dict):
        batch["index"] = it.proof.index
    return {
        **told,
        "record": {"kind": it.opened.kind, "values": dict(it.opened.values), "reason": it.opened.reason},
    }


def _common(it: Evidence | SubjectEvidence) -> dict[str, object]:
    descriptor, stream = it.proof.descriptor, it.batch.stream
    return {
        "vouched_by": [record.party for record in it.anchors],
        "as_of": time_utc(max(record.time for record in it.anchors)),
        "anchors": [
            {
                "party": record.party,
                "sequence": record.sequence,
                "revision": record.revision,
                "size": record.size,
                "root": record.root,
                "block": record.block,
                "time": time_utc(record.time),
            }
            for record in it.anchors
        ],
        "batch": {
            "number": descriptor.batch,
            "id": it.batch.batch_id,
            "catalog": descriptor.catalog,
            "kind": descriptor.kind,
            "period": descriptor.period,
            "sender": stream.sender,
            "receiver": stream.receiver,
        },
        "chain": {
            "chain_id": it.proof.chain_id,
            "contract": it.proof.contract,
            "block": it.block,
            "time": time_utc(it.time),
            "client": it.client,
            "development": it.development,
        },
    }


def _tell(result: Verification) -> None:
    words = {
        "pass": say("通过  ", "pass    "),
        "fail": say("不通过", "FAIL    "),
        "not_done": say("未做  ", "not done"),
    }
    for step in result.steps:
        zh, en = title(step.name)
        detail = say(step.zh, step.en)
        code = f" [{step.code}]" if step.code else ""
        shown = f"{say('：', ': ')}{detail}" if detail else ""
        print(visible(f"{step.number:>2}  {words[step.result]}  {say(zh, en)}{code}{shown}"))
    print()
    print(visible(say(result.zh, result.en)))
