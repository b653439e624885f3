"""From the anchored snapshot to the auditor's verdict: who vouches, as of when, what is not covered (formats F8)."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ledger.batch import tiles
from tests.conftest import Pair, permit
from tests.forged import FORGERIES, forged, without_tiles

CLEAN, TWICE, ONCE = "914401001234599999", "914401001234500001", "914401001234500003"


def rows() -> list[dict[str, str]]:
    """Company 1 has two permits, company 3 one; two rows name no company, one a natural person's business."""
    return [
        permit(1),
        {**permit(2), "uscc": TWICE},
        permit(3),
        {**permit(4), "uscc": ""},
        {**permit(5), "uscc": ""},
        {**permit(6), "uscc": "92440101MA5000000X"},
    ]


@pytest.fixture
def snapshot(pair: Pair) -> Pair:
    """One delivery that landed, and a snapshot that both anchored."""
    pair.deliver("B1", rows())
    pair.province.ok("snapshot", "permits", "--to", "guangzhou")
    pair.city.ok("snapshot", "permits", "--from", "guangdong")
    return pair


def made(pair: Pair, code: str, *options: str, name: str = "proof.json") -> Path:
    path = pair.folder / name
    path.unlink(missing_ok=True)
    pair.city.ok("prove", "permits", "--subject", code, *options, "--out", str(path))
    return path


def checked(pair: Pair, path: Path, *options: str) -> tuple[int, Any]:
    trust = pair.folder / "trust.json"
    if not trust.exists():
        pair.province.ok("trust", "export", "--out", str(trust))
    rpc = pair.province.ok("chain", "status")["rpc"]
    ran = pair.city.run("verify", str(path), "--trust", str(trust), "--rpc", rpc, *options, "--json")
    return ran.code, ran.json


def test_all_records_of_a_company_or_that_there_are_none(snapshot: Pair) -> None:
    for code, count in ((TWICE, 2), (ONCE, 1), (CLEAN, 0)):
        status, told = checked(snapshot, made(snapshot, code), "--require", "2")
        assert (status, told["verdict"]) == (0, "proved"), told
        assert told["subject"] == {
            "code": code,
            "records": count,
            "without_subject": 2,
            "superseded": {},
            "left_behind": 0,
        }
        assert told["vouched_by"] == ["guangdong", "guangzhou"]
        assert [step["result"] for step in told["steps"]] == ["pass"] * 10
    assert [record["no"] for record in told["records"]] == []
    ran = snapshot.city.run("verify", str(made(snapshot, CLEAN)), "--trust", str(snapshot.folder / "trust.json"))
    assert ran.code == 2  # no node was named: not done is not passed


def test_one_party_alone_is_said_to_be_alone_and_is_not_two(pair: Pair) -> None:
    pair.deliver("B1", rows())
    pair.province.ok("snapshot", "permits", "--to", "guangzhou")
    path = pair.folder / "p.json"
    pair.province.ok("prove", "permits", "--subject", CLEAN, "--out", str(path))
    status, told = checked(pair, path)
    assert (status, told["vouched_by"]) == (0, ["guangdong"])
    assert "单方陈述" in told["sentence"]
    status, told = checked(pair, path, "--require", "2")
    assert (status, told["verdict"], told["error"]["code"]) == (2, "undetermined", "verify.require")


def test_an_old_snapshot_is_not_passed_off_as_the_newest(snapshot: Pair) -> None:
    old = made(snapshot, CLEAN, name="old.json")
    snapshot.deliver("B2", [{**permit(7), "uscc": CLEAN}])
    snapshot.province.ok("snapshot", "permits", "--to", "guangzhou")
    status, told = checked(snapshot, old)
    assert (status, told["verdict"]) == (0, "proved")
    assert list(told["subject"]["superseded"]) == ["guangdong"]
    assert "不代表其现状" in told["sentence"]
    # The city has not looked at the new one yet: what it can prove is the old one, and it says so.
    ran = snapshot.city.run("prove", "permits", "--subject", CLEAN, "--out", str(snapshot.folder / "still.json"))
    assert "之后已有快照" in ran.err
    snapshot.city.ok("snapshot", "permits", "--from", "guangdong")
    status, told = checked(snapshot, made(snapshot, CLEAN), "--require", "2")
    assert told["subject"]["records"] == 1


def test_a_delivery_is_no_snapshot_and_another_sender_or_catalog_no_evidence(snapshot: Pair) -> None:
    path = made(snapshot, CLEAN)
    document = json.loads(path.read_bytes())
    descriptor = json.loads(document["descriptor"])
    for member, value, code in (
        ("kind", "delivery", "evidence.not_snapshot"),
        ("sender", "0x" + "99" * 20, "evidence.not_anchored"),
        ("batch", "P20200101-1:B1", "evidence.not_anchored"),
        ("catalog_digest", "00" * 32, "evidence.catalog_digest"),
    ):
        changed = {**document, "descriptor": _jcs({**descriptor, member: value})}
        path.write_bytes((_jcs(changed) + "\n").encode())
        status, told = checked(snapshot, path)
        assert (status, told["verdict"]) == (1, "contradicted"), (member, told)
        assert [step["code"] for step in told["steps"] if step["result"] == "fail"] == [code]


def _jcs(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def test_a_revised_snapshot_takes_the_proof_away(snapshot: Pair) -> None:
    path = made(snapshot, CLEAN)
    snapshot.sql("DELETE FROM permits WHERE no = 'A-3'")
    assert snapshot.city.run("snapshot", "permits", "--from", "guangdong").code == 1
    status, told = checked(snapshot, path)
    assert (status, told["vouched_by"]) == (0, ["guangdong"])
    status, told = checked(snapshot, path, "--require", "2")
    assert status == 2


def test_of_whom_nothing_can_be_proved_is_refused_by_name(snapshot: Pair) -> None:
    for words, code in (
        (("permits", "--subject", "92440101MA5000000X"), "prove.subject_protected"),
        (("permits", "--subject", "  "), "prove.subject_form"),
        (("permits", "--subject", CLEAN, "--batch", "B1"), "prove.no_snapshot"),
        (("permits", "--subject", CLEAN, "--with", "nobody"), "prove.no_snapshot"),
        (("permits", "A-1", "--subject", CLEAN), "usage"),
    ):
        ran = snapshot.city.run("prove", *words, "--json")
        assert (ran.code, ran.json["error"]["code"]) == (2, code), words


def test_an_erased_record_leaves_no_completeness(snapshot: Pair) -> None:
    snapshot.sql("DELETE FROM permits WHERE no = 'A-3'")
    snapshot.city.ok("erase", "permits", "A-3", "--reason", "本人申请", "--by", "张三")
    ran = snapshot.city.run("prove", "permits", "--subject", ONCE, "--json")
    assert (ran.code, ran.json["error"]["code"]) == (2, "prove.not_archived")


@pytest.mark.parametrize("name", FORGERIES)
def test_from_a_forged_snapshot_nothing_is_proved(snapshot: Pair, name: str) -> None:
    change, code = FORGERIES[name]
    ((number, role),) = snapshots(snapshot)
    before = {code: made(snapshot, code).read_bytes() for code in (TWICE, ONCE, CLEAN)}
    for subject in (TWICE, ONCE, CLEAN):
        with forged(snapshot.city.home, number, change, role):
            ran = snapshot.city.run(
                "prove", "permits", "--subject", subject, "--out", str(snapshot.folder / "no.json"), "--json"
            )
        assert ran.code == 2
        assert ran.json["error"]["code"] == code
        assert not (snapshot.folder / "no.json").exists()
    with forged(snapshot.city.home, number, without_tiles, role):
        assert {code: made(snapshot, code).read_bytes() for code in (TWICE, ONCE, CLEAN)} == before


def test_a_proof_about_a_subject_does_not_hash_the_tree(snapshot: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(entries: object) -> None:
        raise AssertionError(f"hashed {entries}")

    monkeypatch.setattr(tiles, "tree_of", never)
    made(snapshot, TWICE)
    made(snapshot, CLEAN)


def snapshots(pair: Pair) -> list[tuple[str, str]]:
    """Number and role of the snapshots that the city has entries of."""
    with closing(sqlite3.connect(pair.city.home / "store" / "ledger.db")) as store:
        chosen = "SELECT number, role FROM entry_set s JOIN batch b ON b.id = s.batch_id WHERE kind = 'snapshot'"
        return store.execute(chosen).fetchall()[:1]
