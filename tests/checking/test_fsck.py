"""fsck: a sound workspace is clean; what a killed job left open is pending, not damage; the chain is held against the store."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.batch import job as job_module
from ledger.chain.local import LocalChain
from ledger.chain.registry import AnchorRecord, RegistryView
from ledger.chain.rpc import Rpc
from ledger.errors import ChainError
from ledger.fsck.anchors import check_known
from ledger.fsck.report import Report
from ledger.fsck.tables import Tables
from ledger.store.entryfile import Entries
from ledger.store.files import WorkspaceLock
from tests.conftest import Pair, permit

from .conftest import Shared, copy, done, duizhang, row, sql, tree, write_csv
from .fsck_runs import codes, damaged, entry_file, fsck, rewrite, undetermined

CHECKS = [
    "keys", "store", "database", "rows", "batches", "entries", "archives", "consents", "snapshots", "files", "outbox", "chain",
    "registry", "claims", "anchors", "lawful", "blocks",
]  # fmt: skip


# ---- sound workspaces ----


@pytest.mark.parametrize("side", ["province", "city"])
def test_an_untouched_workspace_is_clean_and_fsck_leaves_it_as_it_is(side: str, request: pytest.FixtureRequest) -> None:
    workspace = request.getfixturevalue(side)
    before = tree(workspace)
    code, report = fsck(workspace)
    assert (code, report["damage"], report["undetermined"], report["pending"]) == (0, [], [], [])
    assert [check["name"] for check in report["checks"]] == CHECKS
    assert [check["number"] for check in report["checks"]] == list(range(1, len(CHECKS) + 1))
    assert {check["result"] for check in report["checks"]} == {"pass"}
    assert tree(workspace) == before


@pytest.mark.parametrize("side", ["province", "city"])
def test_a_batch_that_its_sender_revised_is_a_note(side: str, request: pytest.FixtureRequest) -> None:
    _, report = fsck(request.getfixturevalue(side))
    assert [(note["code"], "B0" in note["where"]) for note in report["notes"]] == [("lawful.revised", True)]


def test_the_text_names_every_check_and_the_verdict(province: Path) -> None:
    entry_file(province, "B1").unlink()
    answer = duizhang("-C", province, "fsck", "--lang", "en")
    assert answer.code == 1
    assert answer.out.startswith("fsck: damaged\n")
    assert "[store.entries_missing]" in answer.out
    assert all(f"\n{number}   " in answer.out for number in range(1, 10))


def test_fsck_starts_a_killed_chain_and_is_clean(shared: Shared, city: Path) -> None:
    shared.chain.down()
    assert fsck(city)[0] == 0


def test_an_own_source_with_accepted_changes_and_withdrawals_is_clean(own: Pair) -> None:
    for number in range(3):
        own.sql("INSERT INTO permits VALUES (?, ?, ?, ?, ?)", *permit(number).values())
    own.city.ok("anchor", "permits")
    own.sql("UPDATE permits SET holder = '乙公司' WHERE no = 'A-1'")
    own.city.ok("accept", "permits", "A-1", "--reason", "更名", "--by", "li")
    own.sql("DELETE FROM permits WHERE no = 'A-2'")
    own.city.ok("withdraw", "permits", "A-2", "--reason", "expired", "--by", "li")
    code, report = fsck(own.city.home)
    assert (code, report["notes"]) == (0, [])
    seen = {check["name"]: check["detail"] for check in report["checks"]}
    assert seen["consents"].startswith("2 ")
    states = own.city.ok("status")["streams"][0]["batches"]
    assert [(batch["kind"], batch["state"]) for batch in states] == [
        ("sealed", "anchored"),
        ("correction", "anchored"),
        ("correction", "anchored"),
    ]


# ---- the chain ----


def storage_slot(node: Rpc, contract: str, word: str) -> str:
    """The storage slot of the contract that holds this word."""
    state = json.loads(gzip.decompress(bytes.fromhex(node.call("anvil_dumpState", False)[2:])))
    storage = state["accounts"][contract]["storage"]
    (slot,) = [slot for slot, value in storage.items() if int(value, 16) == int(word, 16)]
    return f"0x{int(slot, 16):064x}"


def test_a_root_rewritten_in_the_contracts_storage(province: Path, node: Rpc) -> None:
    (root,) = sql(province, "SELECT root FROM entry_set JOIN batch ON batch.id = batch_id WHERE number = 'B2'")[0]
    (contract,) = sql(province, "SELECT contract FROM chain")[0]
    slot = storage_slot(node, contract, root)
    node.call("anvil_setStorageAt", contract, slot, "0x" + "ab" * 32)
    damaged(province, "chain.contradiction", "claim.root")


def test_other_code_at_the_contracts_address(province: Path, node: Rpc) -> None:
    (contract,) = sql(province, "SELECT contract FROM chain")[0]
    node.call("anvil_setCode", contract, "0x6001600155")
    code, report = fsck(province)
    assert (code, codes(report)) == (1, {"chain.other_code"})
    assert "chain.not_read" in codes(report, "undetermined")


def test_a_remembered_block_that_is_not_on_chain(province: Path) -> None:
    sql(province, "UPDATE chain SET block_hash = ?", "0" * 64)
    damaged(province, "chain.lost")


def test_another_chain_and_no_chain_at_all_are_not_damage(province: Path) -> None:
    sql(province, "UPDATE chain SET chain_id = 5")
    undetermined(province, "chain.other_chain")
    config = province / "duizhang.toml"
    config.write_text(
        config.read_text(encoding="utf-8").replace('"embedded"', '"http://127.0.0.1:1"'), encoding="utf-8"
    )
    undetermined(province, "chain.unreachable")


def test_damage_in_the_store_is_found_without_the_chain(province: Path) -> None:
    config = province / "duizhang.toml"
    config.write_text(
        config.read_text(encoding="utf-8").replace('"embedded"', '"http://127.0.0.1:1"'), encoding="utf-8"
    )
    entry_file(province, "B1").unlink()
    damaged(province, "store.entries_missing")


def test_an_anchor_of_this_account_that_no_job_of_the_store_made(
    shared: Shared, province: Path, tmp_path: Path, node: Rpc
) -> None:
    """A second workspace with the same account anchors; the store of the first learns of it from fsck."""
    other = copy(shared, shared.province, tmp_path / "other")
    file = write_csv(tmp_path / "b9.csv", [row(900)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalChain, "checkpoint", _not_saved)
        answer = duizhang("-C", other, "send", "registration", file, "--batch", "B9", "--to", "guangzhou")
    assert "test.killed" in answer.err
    damaged(province, "store.rolled_back")


def test_a_contract_that_tells_one_revision_twice() -> None:
    """The real one cannot: equal values are a no-op there."""
    first = AnchorRecord("guangdong", "ab" * 32, 1, 1, "cd" * 32, 1, 0, 2, 2)
    second = replace(first, revision=2, sequence=2, block=3, position=3)
    view = RegistryView(3, 0, 3, {"guangdong": ()}, {"guangdong": (first, second)})
    check = Report("guangdong").open("anchors", "", "")
    check_known(check, "guangdong", Tables({}, {}, {}, [], [], []), view)
    assert [it.code for it in check.damage] == ["store.rolled_back", "store.rolled_back", "chain.repeated"]


# ---- what a killed job leaves ----


_checkpoint = LocalChain.checkpoint


def _not_saved(self: LocalChain) -> tuple[int, str]:
    state = self.status()
    if state.block == state.saved_block:
        return _checkpoint(self)
    raise ChainError("test.killed", "", "killed after something was mined, before the dump was written")


def _killed(*_: object) -> None:
    raise ChainError("test.killed", "", "killed before anything was sent")


def test_an_intent_that_was_never_sent_is_pending(
    province: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_csv(tmp_path / "b3.csv", [row(300)])
    monkeypatch.setattr(job_module.Job, "anchor", _killed)
    assert duizhang("-C", province, "send", "registration", file, "--batch", "B3", "--to", "guangzhou").code == 2
    before = tree(province)
    code, report = fsck(province)
    assert (code, report["damage"]) == (0, [])
    assert [(it["code"], "B3" in it["where"]) for it in report["pending"]] == [("claim.open", True)]
    assert tree(province) == before


def test_an_anchor_that_was_mined_but_not_saved_is_pending(
    province: Path, tmp_path: Path, node: Rpc, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_csv(tmp_path / "b3.csv", [row(300)])
    monkeypatch.setattr(LocalChain, "checkpoint", _not_saved)
    assert duizhang("-C", province, "send", "registration", file, "--batch", "B3", "--to", "guangzhou").code == 2
    code, report = fsck(province)
    assert (code, report["damage"]) == (0, [])
    assert codes(report, "pending") == {"claim.mined", "outbox.unfinished"}


def test_a_lawful_set_whose_sender_is_not_on_chain_is_a_note_as_long_as_we_anchored_nothing(
    shared: Shared, city: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chain that was killed may have lost the sender's anchor; he sends it again."""
    monkeypatch.setattr(job_module.Job, "anchor", _killed)
    file = shared.root / "b2.csv"
    assert duizhang("-C", city, "receive", "registration", file, "--batch", "B2", "--from", "guangdong").code == 2
    rewrite(city, "B2", lambda it: Entries(it.entries[1:], it.withdrawn[1:], it.frames[1:]))
    _, report = fsck(city)
    assert "lawful.not_on_chain" in codes(report, "notes")
    assert "lawful.never_anchored" not in codes(report)


def test_an_open_claim_that_counts_on_revisions_the_chain_does_not_have(
    province: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_csv(tmp_path / "b3.csv", [row(300)])
    monkeypatch.setattr(job_module.Job, "anchor", _killed)
    duizhang("-C", province, "send", "registration", file, "--batch", "B3", "--to", "guangzhou")
    sql(province, "UPDATE claim SET known_revisions = 2 WHERE state = 'intent'")
    damaged(province, "claim.known_revisions")


def test_an_overtaken_claim_and_an_interrupted_run_are_no_damage(
    province: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_csv(tmp_path / "b3.csv", [row(300)])
    monkeypatch.setattr(job_module.Job, "anchor", _killed)
    duizhang("-C", province, "send", "registration", file, "--batch", "B3", "--to", "guangzhou")
    sql(province, "UPDATE claim SET state = 'overtaken' WHERE state = 'intent'")
    sql(province, "INSERT INTO run (command, started_at) VALUES ('nightly', '2026-01-01T00:00:00Z')")
    code, report = fsck(province)
    assert (code, report["damage"]) == (0, [])
    assert "claim.overtaken" in codes(report, "notes")
    assert codes(report, "pending") == {"run.interrupted"}


def test_a_second_job_at_once_is_refused(province: Path) -> None:
    with WorkspaceLock(province / "lock", "nightly"):
        answer = duizhang("-C", province, "fsck", "--json")
    assert answer.code == 2
    assert answer.json["error"]["code"] == "workspace.busy"


def test_the_workspace_can_go_on_after_fsck(province: Path, node: Rpc, monkeypatch: pytest.MonkeyPatch) -> None:
    fsck(province)
    assert done("-C", province, "status", "--json").json["pending"] == []
