"""status: what is anchored, pending and overdue; it reads only, and says what it knows when the chain is away."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ledger.batch import job as job_module
from ledger.chain.local import LocalChain
from ledger.errors import ChainError
from ledger.status import read_status
from ledger.store.files import WorkspaceLock
from ledger.workspace import Workspace

from .conftest import Shared, done, duizhang, row, sql, tree, write_csv


def status(workspace: Path) -> dict[str, Any]:
    found: dict[str, Any] = done("-C", workspace, "status", "--json").json
    return found


def batches(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    (stream,) = found["streams"]
    assert (stream["catalog"], stream["sender"], stream["receiver"]) == ("registration", "guangdong", "guangzhou")
    return {batch["number"]: batch for batch in stream["batches"]}


def test_both_sides_see_the_same_batches_in_the_senders_order(province: Path, city: Path) -> None:
    sent, received = batches(status(province)), batches(status(city))
    assert list(sent) == list(received) == ["B0", "B1", "B2"]
    assert {number: batch["state"] for number, batch in sent.items()} == {
        "B0": "roots_differ",
        "B1": "roots_equal",
        "B2": "awaiting",
    }
    assert {number: batch["state"] for number, batch in received.items()} == {
        "B0": "roots_differ",
        "B1": "roots_equal",
        "B2": "announced",
    }
    assert sent["B0"]["ours"]["revision"] == received["B0"]["theirs"]["revision"] == 2
    assert sent["B0"]["theirs"] == received["B0"]["ours"]
    assert sent["B0"]["revised_after_receipt"]
    assert (sent["B1"]["kind"], sent["B1"]["size"], len(sent["B1"]["root"])) == ("delivery", 30, 64)
    assert sent["B2"]["theirs"] is None


def test_what_is_overdue_is_named(province: Path, city: Path) -> None:
    def attention(workspace: Path) -> list[tuple[str, str]]:
        return [(it["code"], it["where"].split()[-1]) for it in status(workspace)["attention"]]

    assert attention(city) == [("overdue.differs", "B0"), ("overdue.receive", "B2")]
    assert attention(province) == [("sent.differs", "B0")]


def test_the_last_confirmed_anchor_and_the_chain_are_shown(shared: Shared, province: Path) -> None:
    found = status(province)
    assert found["last_anchor"]["batch"] == "B2"
    assert found["last_anchor"]["confirmed"] == found["last_anchor"]["on_chain"] == 4
    assert found["chain"]["running"] is True
    assert found["chain"]["saved_block"] == found["chain"]["block"] == found["last_anchor"]["block"]
    assert Path(found["chain"]["home"]) == shared.chain.home
    assert "error" not in found


def test_an_open_claim_is_pending_and_after_a_day_overdue(
    province: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(job: object) -> None:
        raise ChainError("test.killed", "", "killed before anything was sent")

    monkeypatch.setattr(job_module.Job, "anchor", killed)
    file = write_csv(tmp_path / "b3.csv", [row(300)])
    assert duizhang("-C", province, "send", "registration", file, "--batch", "B3", "--to", "guangzhou").code == 2
    found = status(province)
    assert batches(found)["B3"]["state"] == "pending"
    assert batches(found)["B3"]["size"] == 1
    assert [it["code"] for it in found["pending"]] == ["claim.open"]
    assert "overdue.claim" not in [it["code"] for it in found["attention"]]
    for hours, overdue in ((23, False), (25, True)):
        later = read_status(Workspace(province), datetime.now(UTC) + timedelta(hours=hours))
        assert ("overdue.claim" in [it.code for it in later.attention]) is overdue


def test_unfinished_transactions_and_interrupted_runs_are_pending(province: Path) -> None:
    sql(province, "UPDATE outbox SET state = 'sent', block_number = NULL, block_hash = NULL WHERE id = 7")
    sql(province, "INSERT INTO run (command, started_at) VALUES ('nightly', '2026-01-01T00:00:00Z')")
    assert [it["code"] for it in status(province)["pending"]] == ["outbox.unfinished", "run.unfinished"]


def test_a_batch_that_readers_refuse_is_shown_with_the_reason(province: Path) -> None:
    """guangzhou's address is exchanged in the reader's eyes: the descriptor's receiver never held a name."""
    from ledger.batch import stream as streams

    original = streams.RegistryView.holder
    (receiver,) = sql(province, "SELECT receiver FROM batch WHERE number = 'B1'")[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            streams.RegistryView,
            "holder",
            lambda self, address, position: None if address == receiver else original(self, address, position),
        )
        found = status(province)
    assert {it["code"] for it in found["refused"]} == {"batch.stranger"}
    assert {batch["state"] for batch in batches(found).values()} == {"refused"}


def test_status_works_while_another_job_holds_the_workspace_and_changes_nothing(city: Path) -> None:
    before = tree(city)
    with WorkspaceLock(city / "lock", "nightly"):
        status(city)
    assert tree(city) == before


def test_without_the_chain_it_ends_with_2_and_shows_what_the_store_knows(province: Path) -> None:
    config = province / "duizhang.toml"
    text = config.read_text(encoding="utf-8").replace('"embedded"', '"http://127.0.0.1:1"')
    config.write_text(text, encoding="utf-8")
    answer = duizhang("-C", province, "status", "--json")
    assert answer.code == 2
    found = answer.json
    assert found["error"]["code"] == "chain.unreachable"
    known = batches(found)
    assert {number: batch["state"] for number, batch in known.items()} == dict.fromkeys(("B0", "B1", "B2"), "unknown")
    assert known["B0"]["ours"]["revision"] == 2
    assert known["B1"]["theirs"] is None
    assert found["last_anchor"]["on_chain"] is None
    shown = duizhang("-C", province, "status")
    assert shown.code == 2
    assert "chain.unreachable" in shown.err
    assert "B1" in shown.out


def test_the_text_says_in_words_what_the_states_are(city: Path) -> None:
    shown = done("-C", city, "status").out
    assert "待接收" in shown
    assert "根一致" in shown
    assert "[overdue.receive] registration B2" in shown
    assert "awaiting" not in shown


def test_a_chain_that_was_stopped_is_started(shared: Shared, city: Path) -> None:
    assert LocalChain(shared.chain.home).down()
    assert status(city)["chain"]["running"] is True


def test_a_missing_store_is_an_error(city: Path) -> None:
    (city / "store" / "ledger.db").unlink()
    answer = duizhang("-C", city, "status", "--json")
    assert (answer.code, answer.json["error"]["code"]) == (2, "store.missing")
