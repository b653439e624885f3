"""Working the differences: what is new, who has it, what was explained, what is settled; kept across reconciliations."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from ledger.reconcile import runs, tracking
from ledger.reconcile.scope import Scope
from ledger.store import models
from ledger.workspace import Workspace
from tests.conftest import Pair, permit

LATER = (datetime.now(UTC) + timedelta(days=30)).date().isoformat()


def reconcile(pair: Pair, *words: str) -> dict[str, Any]:
    ran = pair.city.run("reconcile", "permits", *words, "--json")
    assert "error" not in ran.json, ran
    return dict(ran.json)


def states(report: dict[str, Any]) -> dict[str, str]:
    return {f["key"]["no"]: f["state"] for f in report["findings"]}


def tracked(pair: Pair, *words: str) -> list[dict[str, Any]]:
    return list(pair.city.ok("finding", "list", *words)["findings"])


@pytest.fixture
def damaged(pair: Pair) -> Pair:
    """Three rows delivered; one altered, one missing."""
    pair.deliver("B1", [permit(1), permit(2), permit(3)])
    pair.sql("UPDATE permits SET fee = '9' WHERE no = 'A-1'")
    pair.sql("DELETE FROM permits WHERE no = 'A-2'")
    return pair


def test_a_finding_is_new_once_and_then_open(damaged: Pair) -> None:
    first = reconcile(damaged)
    assert states(first) == {"A-1": "new", "A-2": "new"}
    assert first["states"] == {"new": 2, "open": 0, "assigned": 0, "explained": 0}
    second = reconcile(damaged)
    assert states(second) == {"A-1": "open", "A-2": "open"}
    damaged.sql("DELETE FROM permits WHERE no = 'A-3'")
    assert states(reconcile(damaged)) == {"A-1": "open", "A-2": "open", "A-3": "new"}


def test_a_list_tells_new_and_open_as_the_reports_do(damaged: Pair) -> None:
    reconcile(damaged)
    damaged.sql("DELETE FROM permits WHERE no = 'A-3'")
    reconcile(damaged)
    assert [row["key"]["no"] for row in tracked(damaged, "--state", "new")] == ["A-3"]
    assert [row["state"] for row in tracked(damaged, "--state", "open")] == ["open", "open"]
    damaged.city.run("nightly")
    assert tracked(damaged, "--state", "new") == [], "the brief has told of them"


def test_findings_are_assigned_explained_and_counted_in_their_own_column(damaged: Pair) -> None:
    reconcile(damaged)
    one, two = tracked(damaged)
    assert (one["kind"], one["key"], one["state"], one["batch"]) == ("altered", {"no": "A-1"}, "new", "B1")
    (got,) = damaged.city.ok("finding", "assign", str(one["id"]), "--to", "李四", "--by", "张三")["findings"]
    assert (got["state"], got["assigned_to"], got["changed_by"]) == ("assigned", "李四", "张三")
    tomorrow = (datetime.now(UTC) + timedelta(days=2)).date().isoformat()
    damaged.city.ok("finding", "explain", str(two["id"]), "--until", tomorrow, "--reason", "迁移中", "--by", "张三")
    ran = damaged.city.run("reconcile", "permits", "--json")
    assert ran.code == 1, "an explained finding still counts"
    assert states(ran.json) == {"A-1": "assigned", "A-2": "explained"}
    assert ran.json["states"] == {"new": 0, "open": 0, "assigned": 1, "explained": 1}
    assert ran.json["verdict"] == "differences"
    assert ran.json["counts"]["altered"] == ran.json["counts"]["missing"] == 1


def test_an_explanation_that_is_over_makes_it_new_again(damaged: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    reconcile(damaged)
    one, _ = tracked(damaged)
    today = tracking._today()
    damaged.city.ok("finding", "explain", str(one["id"]), "--until", today, "--reason", "今日处理", "--by", "张三")
    assert states(reconcile(damaged))["A-1"] == "explained", "the day itself is included"
    later = (datetime.fromisoformat(today) + timedelta(days=1)).date().isoformat()
    monkeypatch.setattr(tracking, "_today", lambda: later)
    assert states(reconcile(damaged))["A-1"] == "new"
    assert states(reconcile(damaged))["A-1"] == "open"


def test_what_is_put_right_is_settled_and_what_comes_back_is_new(damaged: Pair) -> None:
    reconcile(damaged)
    damaged.sql("UPDATE permits SET fee = '12.50' WHERE no = 'A-1'")
    reconcile(damaged)
    (left,) = tracked(damaged)
    assert left["key"] == {"no": "A-2"}
    (settled,) = tracked(damaged, "--state", "settled")
    assert (settled["key"], settled["settled_by"]) == ({"no": "A-1"}, "source")
    refused = damaged.city.run("finding", "assign", str(settled["id"]), "--to", "a", "--by", "b", "--json")
    assert (refused.code, refused.json["error"]["code"]) == (2, "finding.settled")
    damaged.sql("UPDATE permits SET fee = '7' WHERE no = 'A-1'")
    assert states(reconcile(damaged)) == {"A-1": "new", "A-2": "open"}
    assert {row["id"] for row in tracked(damaged)} == {settled["id"], left["id"]}, (
        "the same difference keeps its number"
    )


def test_a_correction_batch_settles_by_name(damaged: Pair) -> None:
    reconcile(damaged)
    damaged.deliver("B2", [permit(1, fee="9.00")])
    reconcile(damaged)
    (settled,) = tracked(damaged, "--state", "settled")
    assert settled["settled_by"] == "batch B2"


def test_another_kind_of_difference_is_another_finding(damaged: Pair) -> None:
    reconcile(damaged)
    damaged.sql("DELETE FROM permits WHERE no = 'A-1'")
    assert states(reconcile(damaged)) == {"A-1": "new", "A-2": "open"}
    kinds = {
        (row["key"]["no"], row["kind"], row["state"])
        for row in tracked(damaged, "--state", "new", "--state", "open", "--state", "settled")
    }
    assert kinds == {("A-1", "altered", "settled"), ("A-1", "missing", "new"), ("A-2", "missing", "open")}


def test_what_could_not_be_told_settles_nothing(damaged: Pair) -> None:
    reconcile(damaged)
    path = damaged.file("B2.csv", [permit(9)])
    damaged.province.ok("send", "permits", path, "--batch", "B2", "--to", "guangzhou")
    damaged.sql("UPDATE permits SET fee = '12.50' WHERE no = 'A-1'")
    assert reconcile(damaged)["verdict"] == "differences_partial"
    assert {row["key"]["no"] for row in tracked(damaged)} == {"A-1", "A-2"}


def test_part_of_the_source_settles_nothing(damaged: Pair) -> None:
    damaged.deliver("B2", [permit(4)])
    reconcile(damaged)
    assert reconcile(damaged, "--batch", "B2")["verdict"] == "matched_in_scope"
    assert {row["key"]["no"] for row in tracked(damaged)} == {"A-1", "A-2"}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["assign", "999", "--to", "a", "--by", "b"], "finding.unknown"),
        (["assign", "1", "--to", " ", "--by", "b"], "finding.empty"),
        (["explain", "1", "--until", "2020-01-01", "--reason", "x", "--by", "b"], "finding.until_past"),
        (["explain", "1", "--until", "20991231", "--reason", "x", "--by", "b"], "finding.until"),
        (["explain", "1", "--until", "2099-02-30", "--reason", "x", "--by", "b"], "finding.until"),
        (["explain", "1", "--until", LATER, "--reason", "", "--by", "b"], "finding.empty"),
        (["explain", "1", "--until", "9999-12-31", "--reason", "x", "--by", "b"], "finding.until_far"),
        (["list", "--kind", "lost"], "finding.kind"),
        (["list", "nothing"], "catalog.unknown"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(damaged: Pair, words: list[str], code: str) -> None:
    reconcile(damaged)
    before = tracked(damaged)
    ran = damaged.city.run("finding", *words, "--json")
    assert (ran.code, ran.json["error"]["code"]) == (2, code)
    assert tracked(damaged) == before


def test_all_or_none_are_assigned(damaged: Pair) -> None:
    reconcile(damaged)
    one, _ = tracked(damaged)
    ran = damaged.city.run("finding", "assign", str(one["id"]), "999", "--to", "a", "--by", "b", "--json")
    assert ran.json["error"]["code"] == "finding.unknown"
    assert {row["state"] for row in tracked(damaged)} == {"new"}


def test_the_brief_tells_each_difference_once_as_news(damaged: Pair) -> None:
    first = damaged.city.run("nightly", "--json").json["reconciled"][0]
    assert set(states(first).values()) == {"new"}
    reconcile(damaged)
    damaged.sql("DELETE FROM permits WHERE no = 'A-3'")
    reconcile(damaged)
    # Seen by a command in the meantime, but no brief has told of it.
    second = damaged.city.run("nightly", "--json").json["reconciled"][0]
    assert states(second) == {"A-1": "open", "A-2": "open", "A-3": "new"}


def test_the_brief_counts_what_somebody_has_and_does_not_read_it_again(damaged: Pair) -> None:
    reconcile(damaged)
    one, _ = tracked(damaged)
    damaged.city.ok("finding", "assign", str(one["id"]), "--to", "李四", "--by", "张三")
    text = damaged.city.run("nightly").out
    assert "差异 2 = 新 1 + 未处理 0 + 已分派 1 + 已说明 0" in text
    assert "A-2" in text
    assert "A-1" not in text
    assert "A-1" in damaged.city.run("reconcile", "permits").out, "a command shows all"


def test_an_explanation_is_of_one_difference_and_not_of_the_next(damaged: Pair) -> None:
    reconcile(damaged)
    one, _ = tracked(damaged)
    damaged.city.ok("finding", "explain", str(one["id"]), "--until", LATER, "--reason", "更名", "--by", "张三")
    assert states(reconcile(damaged))["A-1"] == "explained"
    assert states(reconcile(damaged, "--show-values"))["A-1"] == "explained"
    damaged.sql("UPDATE permits SET holder = '攻击者', fee = '999999' WHERE no = 'A-1'")
    assert states(reconcile(damaged))["A-1"] == "new"


def test_an_older_reading_that_ends_later_changes_nothing(damaged: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged.sql("UPDATE permits SET fee = '12.50' WHERE no = 'A-1'")
    honest = runs.record

    def late(store: Any, report: Any, **told: Any) -> Any:
        # While this report was on its way, the row was altered and the night has seen it.
        monkeypatch.setattr(runs, "record", honest)
        damaged.sql("UPDATE permits SET fee = '7' WHERE no = 'A-1'")
        workspace = Workspace(damaged.city.home)
        run_id = runs.enqueue(store, "permits", Scope(), "api").id
        assert runs.claim(store, "w") is not None
        assert runs.perform(workspace, run_id, "w") == 1
        return honest(store, report, **told)

    monkeypatch.setattr(runs, "record", late)
    assert states(reconcile(damaged)) == {"A-2": "open"}
    assert {(row["key"]["no"], row["state"]) for row in tracked(damaged)} == {("A-1", "new"), ("A-2", "new")}


def test_a_row_that_differs_otherwise_now_was_not_put_right(damaged: Pair) -> None:
    reconcile(damaged)
    damaged.sql("INSERT INTO permits SELECT * FROM permits WHERE no = 'A-1'")
    reconcile(damaged)
    (settled,) = tracked(damaged, "--state", "settled")
    assert (settled["kind"], settled["settled_by"]) == ("altered", "kind duplicate")


def test_status_counts_them(damaged: Pair) -> None:
    reconcile(damaged)
    told = {it["code"]: it for it in damaged.city.ok("status")["attention"]}
    assert told["findings.open"]["where"] == "permits"


# ---- reconciliations on record ----


def test_field_values_that_were_shown_are_not_kept(damaged: Pair) -> None:
    shown = reconcile(damaged, "--show-values")
    assert shown["findings"][0]["observed"]["fee"] == "9.00"
    with closing(Workspace(damaged.city.home).open_store("read")) as store:
        (row,) = runs.listed(store)
        documents = [found.document for found in runs.found(store, row.id)]
    assert len(documents) == 2
    assert "9.00" not in "".join([*documents, row.report or ""])


def test_the_queue_gives_each_to_one_worker_and_one_a_catalog(damaged: Pair) -> None:
    with closing(Workspace(damaged.city.home).open_store("update")) as store:
        first = runs.enqueue(store, "permits", Scope(), "api")
        assert runs.enqueue(store, "permits", Scope(), "api").id == first.id, "the same that still waits"
        other = runs.enqueue(store, "permits", Scope(batch="B1"), "api")
        assert other.id != first.id
        taken = runs.claim(store, "w1")
        assert taken is not None
        assert taken.id == first.id
        assert runs.claim(store, "w2") is None, "one running of a catalog"
        assert runs.enqueue(store, "permits", Scope(), "api").id not in (first.id, other.id)
        assert runs.beat(store, first.id, "w1", 7)
        assert not runs.beat(store, first.id, "w2", 9)
        found = runs.get(store, first.id)
        assert found is not None
        assert (found.progress_rows, found.state) == (7, "running")


def test_a_lost_worker_is_replaced_once(damaged: Pair) -> None:
    with closing(Workspace(damaged.city.home).open_store("update")) as store:
        run_id = runs.enqueue(store, "permits", Scope(), "api").id
        for expected in ("queued", "interrupted"):
            assert runs.claim(store, "w") is not None
            assert runs.recover(store) == []
            assert runs.recover(store, stale_seconds=-1) == [run_id]
            row = runs.get(store, run_id)
            assert row is not None
            assert row.state == expected
        assert row.error is not None
        assert json.loads(row.error)["code"] == "reconciliation.interrupted"


def test_giving_back_uses_up_no_attempt(damaged: Pair) -> None:
    with closing(Workspace(damaged.city.home).open_store("update")) as store:
        run_id = runs.enqueue(store, "permits", Scope(), "api").id
        for _ in range(3):
            assert runs.claim(store, "w") is not None
            runs.release(store, run_id, "somebody else")
            assert runs.get(store, run_id).state == "running"  # type: ignore[union-attr]
            runs.release(store, run_id, "w", told_to_stop=True)
            row = runs.get(store, run_id)
            assert row is not None
            assert (row.state, row.attempts, row.worker) == ("queued", 0, None)


def test_a_claimed_reconciliation_is_performed_beside_a_locked_workspace(damaged: Pair) -> None:
    workspace = Workspace(damaged.city.home)
    with workspace.locked("nightly"), closing(workspace.open_store("update")) as store:
        run_id = runs.enqueue(store, "permits", Scope(), "api").id
        assert runs.claim(store, "w") is not None
        assert runs.perform(workspace, run_id, "w") == 1
        row = runs.get(store, run_id)
        assert row is not None
        assert (row.state, row.verdict, row.exit_code) == ("finished", "differences", 1)
        assert json.loads(row.report or "")["counts"]["altered"] == 1
        assert [f.kind for f in runs.found(store, run_id)] == ["altered", "missing"]
        assert runs.count_found(store, run_id, kind="missing") == 1
        assert [f.ordinal for f in runs.found(store, run_id, after=0)] == [1]
        assert runs.found(store, run_id, state="open") == []


def test_an_error_is_the_outcome_and_somebody_elses_run_is_left_alone(damaged: Pair) -> None:
    workspace = Workspace(damaged.city.home)
    damaged.database.rename(damaged.folder / "away.db")
    with closing(workspace.open_store("update")) as store:
        run_id = runs.enqueue(store, "permits", Scope(), "api").id
        assert (
            damaged.city.run("run-reconciliation", run_id, "--json").json["error"]["code"] == "reconciliation.not_ours"
        )
        assert runs.claim(store, "w") is not None
        assert runs.perform(workspace, run_id, "w") == 2
        row = runs.get(store, run_id)
        assert row is not None
        assert (row.state, row.verdict) == ("failed", None)
        assert json.loads(row.error or "")["code"] == "source.missing"


def test_an_outcome_is_written_only_by_its_worker(damaged: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(damaged.city.home)
    with closing(workspace.open_store("update")) as store:
        run_id = runs.enqueue(store, "permits", Scope(), "api").id
        assert runs.claim(store, "w1") is not None
        honest = runs._reconcile

        def slow(*args: Any) -> Any:
            report = honest(*args)
            runs.recover(store, stale_seconds=-1)
            assert runs.claim(store, "w2") is not None
            return report

        monkeypatch.setattr(runs, "_reconcile", slow)
        assert runs.perform(workspace, run_id, "w1") == 2
        row = runs.get(store, run_id)
        assert row is not None
        assert (row.state, row.worker) == ("running", "w2")
        assert runs.found(store, run_id) == []


def test_old_ones_are_pruned(damaged: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "PRUNED_AFTER_SECONDS", -1.0)
    config = damaged.city.home / "duizhang.toml"
    config.write_text(config.read_text("utf-8") + "\n[api]\nkeep_reconciliations = 2\n", "utf-8")
    damaged.city.run("nightly")
    for _ in range(4):
        reconcile(damaged)
    with closing(Workspace(damaged.city.home).open_store("read")) as store:
        kept = runs.listed(store)
        assert [row.requested_by for row in kept] == ["reconcile", "reconcile"]
        with store.read() as session:
            found = set(session.scalars(select(models.Found.reconciliation_id)))
    assert found == {row.id for row in kept}
