"""Own sources with a row version: what is updated, what stays a finding, and what is anchored of it (design section 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ledger import sealing
from ledger.kernel.chunk import Chunk
from ledger.kernel.entries import Kernel, Result
from ledger.reconcile import kept
from tests.conftest import Pair, permit

ROWS = [permit(n) for n in range(1, 7)]


@pytest.fixture
def versioned(own: Pair) -> Pair:
    """An own source of six rows, each under row version 10, not anchored yet."""
    own.sql("ALTER TABLE permits ADD COLUMN v INTEGER")
    with (own.city.home / "duizhang.toml").open("a", encoding="utf-8") as config:
        config.write('row_version_column = "v"\n')
    for row in ROWS:
        add(own, row, 10)
    return own


@pytest.fixture
def sealed(versioned: Pair) -> Pair:
    """The same, anchored."""
    assert versioned.city.ok("anchor", "permits")["anchored"][0]["correction"] is None
    return versioned


def add(own: Pair, row: dict[str, str], version: int | None) -> None:
    """A new row."""
    own.sql("INSERT INTO permits VALUES (?, ?, ?, ?, ?, ?)", *row.values(), version)


def change(own: Pair, number: int, holder: str, version: object) -> None:
    """Another holder under another version."""
    own.sql("UPDATE permits SET holder = ?, v = ? WHERE no = ?", holder, version, f"A-{number}")


def report(own: Pair) -> Any:
    """What `reconcile` says, both sums checked."""
    ran = own.city.run("reconcile", "permits", "--json")
    assert all(left == right for left, right in ran.json["balance"].values()), ran.json["balance"]
    return ran.json


def kinds(own: Pair) -> list[tuple[str, str]]:
    """(kind, key) of each finding."""
    return [(f["kind"], f["key"]["no"]) for f in report(own)["findings"]]


def test_a_changed_row_of_a_higher_version_is_updated_listed_and_no_finding(sealed: Pair) -> None:
    change(sealed, 3, "乙公司", 11)
    ran = sealed.city.run("reconcile", "permits", "--json")
    assert (ran.code, ran.json["verdict"], ran.json["findings"]) == (0, "matched", [])
    assert ran.json["updated"] == [{"no": "A-3"}]
    assert (ran.json["counts"]["updated"], ran.json["counts"]["matched"], report(sealed)["counts"]["ledger"]) == (
        1,
        5,
        6,
    )
    assert "A-3" in sealed.city.run("reconcile", "permits").out


@pytest.mark.parametrize("version", [10, 9, -1, None])
def test_without_a_higher_version_a_changed_row_stays_altered(sealed: Pair, version: int | None) -> None:
    change(sealed, 3, "乙公司", version)
    for step in ("reconcile", "anchor", "nightly", "anchor"):
        assert sealed.city.run(step, *(() if step == "nightly" else ("permits",))).code == 1
        assert kinds(sealed) == [("altered", "A-3")]
        assert report(sealed)["updated"] == []


def test_an_unchanged_row_of_a_higher_version_matches_and_is_not_anchored_again(sealed: Pair) -> None:
    sealed.sql("UPDATE permits SET v = 99")
    assert report(sealed)["counts"]["matched"] == 6
    done = sealed.city.ok("anchor", "permits")["anchored"][0]
    assert (done["batch"], done["correction"]) == (None, None)


def test_each_row_is_held_to_its_own_version(versioned: Pair) -> None:
    for n in range(1, 7):
        versioned.sql("UPDATE permits SET v = ? WHERE no = ?", 100 - 10 * n, f"A-{n}")
    versioned.city.ok("anchor", "permits")
    versioned.sql("UPDATE permits SET holder = '乙公司', v = 65")
    # Anchored under 90 80 70 60 50 40.
    assert kinds(versioned) == [("altered", "A-1"), ("altered", "A-2"), ("altered", "A-3")]
    assert report(versioned)["updated"] == [{"no": "A-4"}, {"no": "A-5"}, {"no": "A-6"}]


def test_a_version_may_be_a_moment(own: Pair) -> None:
    own.sql("ALTER TABLE permits ADD COLUMN changed_at TIMESTAMP")
    with (own.city.home / "duizhang.toml").open("a", encoding="utf-8") as config:
        config.write('row_version_column = "changed_at"\n')
    for row in ROWS:
        own.sql("INSERT INTO permits VALUES (?, ?, ?, ?, ?, '2022-03-04 10:00:00')", *row.values())
    own.city.ok("anchor", "permits")
    own.sql("UPDATE permits SET holder = '乙公司', changed_at = '2022-03-04 10:00:00.000001' WHERE no = 'A-1'")
    own.sql("UPDATE permits SET holder = '乙公司', changed_at = '2022-03-04 09:59:59' WHERE no = 'A-2'")
    assert kinds(own) == [("altered", "A-2")]
    assert report(own)["updated"] == [{"no": "A-1"}]


def test_updated_rows_become_a_correction_and_new_rows_a_sealed_batch(sealed: Pair) -> None:
    change(sealed, 3, "乙公司", 11)
    add(sealed, permit(7), 1)
    before = report(sealed)
    assert (before["newly_seen"], before["updated"]) == ([{"no": "A-7"}], [{"no": "A-3"}])
    done = sealed.city.ok("anchor", "permits")["anchored"][0]
    assert done["batch"].startswith("S")
    assert done["correction"]["batch"].startswith("C")
    assert (done["anchor"]["size"], done["correction"]["anchor"]["size"]) == (1, 1)
    assert report(sealed)["counts"]["matched"] == 7
    assert sealed.city.run("fsck").code == 0
    # The version of the correction is the one that counts now.
    change(sealed, 3, "丙公司", 11)
    assert kinds(sealed) == [("altered", "A-3")]
    change(sealed, 3, "丙公司", 12)
    assert kinds(sealed) == []
    assert report(sealed)["counts"]["updated"] == 1


def test_updated_rows_alone_do_not_disturb_the_night(sealed: Pair) -> None:
    change(sealed, 3, "乙公司", 11)
    ran = sealed.city.run("nightly", "--json")
    assert (ran.code, ran.json["sealed"]) == (0, [])
    assert [one["batch"][0] for one in ran.json["corrected"]] == ["C"]
    assert ran.json["reconciled"][0]["updated"] == [{"no": "A-3"}]
    assert report(sealed)["counts"]["matched"] == 6


def test_a_row_set_back_under_a_higher_version_is_updated_and_under_a_lower_one_stale(sealed: Pair) -> None:
    change(sealed, 3, "乙公司", 11)
    sealed.city.ok("anchor", "permits")
    change(sealed, 3, "甲公司", 11)
    assert kinds(sealed) == [("stale", "A-3")]
    change(sealed, 3, "甲公司", 12)
    assert kinds(sealed) == []
    assert report(sealed)["updated"] == [{"no": "A-3"}]
    sealed.city.ok("anchor", "permits")
    assert report(sealed)["counts"]["matched"] == 6


def test_a_withdrawn_key_that_comes_back_is_not_withdrawn_whatever_its_version(sealed: Pair) -> None:
    sealed.sql("DELETE FROM permits WHERE no = 'A-3'")
    sealed.city.ok("withdraw", "permits", "A-3", "--reason", "revoked", "--by", "张三")
    add(sealed, permit(3, "乙公司"), 1000)
    for _ in range(2):
        assert kinds(sealed) == [("not_withdrawn", "A-3")]
        assert sealed.city.run("anchor", "permits").code == 1


def test_repeated_and_unreadable_rows_of_higher_versions_stay_findings(sealed: Pair) -> None:
    change(sealed, 2, "乙公司", 11)
    add(sealed, permit(2, "丙公司"), 12)
    sealed.sql("UPDATE permits SET decided_on = '2022-02-30', v = 11 WHERE no = 'A-5'")
    for _ in range(2):
        assert kinds(sealed) == [("duplicate", "A-2"), ("unreadable", "A-5")]
        done = sealed.city.run("anchor", "permits", "--json")
        assert (done.code, done.json["anchored"][0]["correction"]) == (1, None)


def test_only_the_updated_row_is_anchored_beside_an_altered_one(sealed: Pair) -> None:
    change(sealed, 2, "乙公司", 11)
    change(sealed, 3, "乙公司", 10)
    done = sealed.city.run("anchor", "permits", "--json").json["anchored"][0]
    assert done["correction"]["anchor"]["size"] == 1
    assert kinds(sealed) == [("altered", "A-3")]


def test_accept_records_the_version_and_refuses_what_is_updated_anyway(sealed: Pair) -> None:
    change(sealed, 2, "乙公司", 11)
    ran = sealed.city.run("accept", "permits", "A-2", "--reason", "x", "--by", "y", "--json", "--lang", "en")
    assert (ran.code, ran.json["error"]["code"]) == (2, "accept.nothing")
    assert "updated" in ran.json["error"]["message"]
    change(sealed, 3, "乙公司", 5)
    sealed.city.ok("accept", "permits", "A-3", "--reason", "x", "--by", "y")
    change(sealed, 3, "丙公司", 6)
    assert report(sealed)["updated"] == [{"no": "A-2"}, {"no": "A-3"}]


def test_switched_on_later_nothing_is_updated_until_it_was_anchored_again(own: Pair) -> None:
    for row in ROWS:
        own.sql("INSERT INTO permits VALUES (?, ?, ?, ?, ?)", *row.values())
    own.city.ok("anchor", "permits")
    own.sql("ALTER TABLE permits ADD COLUMN v INTEGER")
    own.sql("UPDATE permits SET v = 1 WHERE no <> 'A-6'")
    with (own.city.home / "duizhang.toml").open("a", encoding="utf-8") as config:
        config.write('row_version_column = "v"\n')
    assert any("row version" in note["en"] for note in report(own)["notes"])
    change(own, 1, "乙公司", 2)
    assert kinds(own) == [("altered", "A-1")]
    done = own.city.run("anchor", "permits", "--json").json["anchored"][0]
    # The altered row stays as it is; the one without a version has none to record.
    assert done["correction"]["anchor"]["size"] == 4
    assert kinds(own) == [("altered", "A-1")]
    assert not any("row version" in note["en"] for note in report(own)["notes"])
    assert own.city.run("anchor", "permits", "--json").json["anchored"][0]["correction"] is None
    change(own, 2, "乙公司", 2)
    change(own, 6, "乙公司", 2)
    assert kinds(own) == [("altered", "A-1"), ("altered", "A-6")]
    assert report(own)["updated"] == [{"no": "A-2"}]


def test_switched_off_again_every_change_is_a_finding(sealed: Pair) -> None:
    config = sealed.city.home / "duizhang.toml"
    config.write_text(config.read_text(encoding="utf-8").replace('row_version_column = "v"\n', ""), encoding="utf-8")
    change(sealed, 3, "乙公司", 11)
    assert kinds(sealed) == [("altered", "A-3")]


class Stopped(Exception):
    """The process died here."""


def _before_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object, **__: object) -> None:
        raise Stopped

    monkeypatch.setattr(sealing, "propose", die)


def _after_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object, **__: object) -> None:
        raise Stopped

    monkeypatch.setattr(sealing, "_anchor", die)


def _between_the_two_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    real = sealing.propose
    calls = iter([real])

    def second_dies(*args: Any, **kwargs: Any) -> None:
        call = next(calls, None)
        if call is None:
            raise Stopped
        call(*args, **kwargs)

    monkeypatch.setattr(sealing, "propose", second_dies)


@pytest.mark.parametrize("die", [_before_the_commit, _between_the_two_claims, _after_the_commit])
def test_wherever_it_dies_the_next_run_anchors_both_batches_once(
    sealed: Pair, monkeypatch: pytest.MonkeyPatch, die: Callable[[pytest.MonkeyPatch], None]
) -> None:
    change(sealed, 3, "乙公司", 11)
    add(sealed, permit(7), 1)
    with monkeypatch.context() as patched:
        die(patched)
        assert sealed.city.run("anchor", "permits").code == 2
    assert sealed.city.run("anchor", "permits").code == 0
    told = report(sealed)
    assert (told["counts"]["matched"], told["newly_seen"], told["updated"]) == (7, [], [])
    assert sorted(batch["batch"][0] for batch in told["batches"]) == ["C", "S", "S"]
    assert sealed.city.run("fsck").code == 0


def test_fsck_and_proofs_stand_after_a_correction(sealed: Pair) -> None:
    change(sealed, 3, "乙公司", 11)
    sealed.city.ok("anchor", "permits")
    out = sealed.folder / "proof.json"
    sealed.city.ok("prove", "permits", "A-3", "--out", str(out))
    assert "乙公司" in out.read_text(encoding="utf-8")
    assert sealed.city.ok("fsck")["verdict"] == "clean"


def test_a_source_that_gives_other_rows_the_second_time_gets_nothing_anchored(
    sealed: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fickle(Kernel):
        def run(self, chunk: Chunk) -> Result:
            result = super().run(chunk)
            result.entries[:, 40] ^= 1
            return result

    change(sealed, 3, "乙公司", 11)
    before = report(sealed)["batches"]
    with monkeypatch.context() as patched:
        patched.setattr(sealing, "Kernel", Fickle)
        patched.setattr(kept, "KEPT_ROWS", 0)
        for words in (("anchor", "permits"), ("nightly",)):
            ran = sealed.city.run(*words, "--json")
            assert ran.code == 2
            assert "source.changed" in ran.out
    assert report(sealed)["batches"] == before
    assert report(sealed)["updated"] == [{"no": "A-3"}]
