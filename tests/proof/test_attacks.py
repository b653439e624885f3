"""Every way to make a bad proof file out of a good one that we could think of, on a real chain: each refused at its step."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ledger import merkle
from tests.proof.conftest import Stage, edited, told

Change = Callable[[Any], object]

ATTACKS: dict[str, tuple[Change, tuple[str, str, str]]] = {
    "the index is the next one": (
        lambda top: top.update(index=top["index"] ^ 1),
        ("contradicted", "path", "path.root"),
    ),
    "the index lies past the anchored size": (
        lambda top: top.update(index=5),
        ("contradicted", "path", "path.index"),
    ),
    "index and path are those of a larger tree": (
        lambda top: top.update(index=top["index"] + 8, path=[*top["path"], "00" * 32]),
        ("contradicted", "path", "path.index"),
    ),
    "the path lacks its last hash": (
        lambda top: top["path"].pop(),
        ("contradicted", "path", "path.length"),
    ),
    "the path lacks its first hash": (
        lambda top: top["path"].pop(0),
        ("contradicted", "path", "path.length"),
    ),
    "the path has one hash more": (
        lambda top: top["path"].append(top["path"][-1]),
        ("contradicted", "path", "path.length"),
    ),
    "the path is empty": (
        lambda top: top["path"].clear(),
        ("contradicted", "path", "path.length"),
    ),
    "the path is in another order": (
        lambda top: top["path"].reverse(),
        ("contradicted", "path", "path.root"),
    ),
    "one bit of the path is another": (
        lambda top: top["path"].__setitem__(0, f"{int(top['path'][0], 16) ^ 1:064x}"),
        ("contradicted", "path", "path.root"),
    ),
    "the key tag of the entry is another": (
        lambda top: top.update(entry=top["entry"][:32] + "00" * 16 + top["entry"][64:]),
        ("contradicted", "path", "path.root"),
    ),
    "the subject tag of the entry is another": (
        lambda top: top.update(entry="11" * 16 + top["entry"][32:]),
        ("contradicted", "entry", "evidence.subject_tag"),
    ),
    "the commitment of the entry is another": (
        lambda top: top.update(entry=top["entry"][:64] + "22" * 32),
        ("contradicted", "entry", "evidence.commitment"),
    ),
    "the salt is another": (
        lambda top: top["record"].update(salt="00" * 32),
        ("contradicted", "entry", "evidence.commitment"),
    ),
    "a value is another": (
        lambda top: top["record"].update(canonical=top["record"]["canonical"].replace("12.50", "99.50")),
        ("contradicted", "entry", "evidence.commitment"),
    ),
    "a value is not in normal form": (
        lambda top: top["record"].update(canonical=top["record"]["canonical"].replace("12.50", "12.5")),
        ("undetermined", "record", "canonical.not_normal"),
    ),
    "the catalog has another name for a field": (
        lambda top: top.update(catalog=top["catalog"].replace("holder", "keeper")),
        ("contradicted", "descriptor", "evidence.catalog_digest"),
    ),
    "the catalog is another version": (
        lambda top: top.update(catalog=top["catalog"].replace('"version":1', '"version":2')),
        ("contradicted", "descriptor", "evidence.catalog_name"),
    ),
    "the batch number is another": (
        lambda top: top.update(descriptor=top["descriptor"].replace('"B1"', '"B9"')),
        ("contradicted", "registry", "evidence.not_anchored"),
    ),
    "the period is another": (
        lambda top: top.update(descriptor=top["descriptor"].replace('"period":""', '"period":"2022-03-04"')),
        ("contradicted", "registry", "evidence.not_anchored"),
    ),
    "the chain id is another": (
        lambda top: top["chain"].update(chain_id=1),
        ("undetermined", "chain", "proof.other_chain"),
    ),
    "the contract is another": (
        lambda top: top["chain"].update(contract="0x" + "12" * 20),
        ("undetermined", "chain", "proof.other_chain"),
    ),
    "a hint names another sequence": (
        lambda top: top["anchors"][0].update(sequence=2),
        ("contradicted", "registry", "evidence.hint"),
    ),
    "a hint names another revision": (
        lambda top: top["anchors"][0].update(revision=2),
        ("contradicted", "registry", "evidence.hint"),
    ),
    "a hint names another block": (
        lambda top: top["anchors"][1].update(block=1),
        ("contradicted", "registry", "evidence.hint"),
    ),
    "a hint names another party": (
        lambda top: top["anchors"][1].update(party="foshan"),
        ("contradicted", "registry", "evidence.hint"),
    ),
    "the version of the format is unknown": (
        lambda top: top.update(format="duizhang-proof/2"),
        ("undetermined", "proof_file", "proof.format"),
    ),
    "the kind is unknown": (
        lambda top: top.update(kind="absence"),
        ("undetermined", "proof_file", "proof.kind"),
    ),
    "a member is added": (
        lambda top: top.update(size=5),
        ("undetermined", "proof_file", "proof.members"),
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_proof_is_refused_when(name: str, stage: Stage, good: bytes) -> None:
    change, expected = ATTACKS[name]
    forged = edited(good, change)
    assert forged != good
    result = stage.verify(forged)
    assert told(result) == expected, result.zh
    assert result.exit_code == {"contradicted": 1, "undetermined": 2}[expected[0]]
    assert (result.error is None) is (expected[0] == "contradicted")
    assert result.evidence is None


def test_another_record_of_the_batch_does_not_stand_at_this_index(stage: Stage, good: bytes) -> None:
    theirs = json.loads(stage.prove("A-2"))
    forged = edited(good, lambda top: top.update(entry=theirs["entry"], record=theirs["record"]))
    assert told(stage.verify(forged)) == ("contradicted", "path", "path.root")


def test_an_inner_node_is_no_entry(stage: Stage, good: bytes) -> None:
    top = json.loads(good)
    leaf, sibling = merkle.leaf_hash(bytes.fromhex(top["entry"])), bytes.fromhex(top["path"][0])
    pair = leaf + sibling if top["index"] % 2 == 0 else sibling + leaf

    def lift(top: Any) -> None:
        top.update(entry=pair.hex(), index=top["index"] // 2, path=top["path"][1:])

    assert told(stage.verify(edited(good, lift))) == ("contradicted", "entry", "evidence.commitment")


def test_a_record_is_not_proved_in_another_batch(stage: Stage, good: bytes) -> None:
    theirs = json.loads(stage.prove("A-1", "--batch", "B2"))
    moved = edited(good, lambda top: top.update(descriptor=theirs["descriptor"]))
    assert told(stage.verify(moved)) == ("contradicted", "registry", "evidence.hint")
    hinted = edited(moved, lambda top: top.update(anchors=theirs["anchors"]))
    assert told(stage.verify(hinted))[:2] == ("contradicted", "path")


@pytest.mark.parametrize("tail", [b"x", b"\n", b" ", b"{}\n", b"\x00"])
def test_trailing_bytes_are_refused(tail: bytes, stage: Stage, good: bytes) -> None:
    assert told(stage.verify(good + tail))[:2] == ("undetermined", "proof_file")
    assert told(stage.verify(good, trust=stage.trust + tail))[:2] == ("undetermined", "trust_file")


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9, 1.0])
def test_a_file_cut_off_is_refused(part: float, stage: Stage, good: bytes) -> None:
    assert told(stage.verify(good[: int(part * (len(good) - 1))]))[:2] == ("undetermined", "proof_file")
    cut = stage.trust[: int(part * (len(stage.trust) - 1))]
    assert told(stage.verify(good, trust=cut))[:2] == ("undetermined", "trust_file")
