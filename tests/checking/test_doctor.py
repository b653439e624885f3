"""doctor: each thing that is misconfigured is named with the command that mends it; nothing is created or changed."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ledger.chain import doctor as machine
from ledger.chain.registry import Roles
from ledger.doctor import judge_kernel, judge_machine, judge_python
from ledger.doctor.diagnosis import mend_for
from ledger.doctor.workspace import judge_clock, judge_roles, judge_zone
from ledger.errors import InputError

from .conftest import Shared, done, duizhang, sql, tree


def doctor(*words: object) -> tuple[int, list[dict[str, str]]]:
    answer = duizhang(*words, "doctor", "--json")
    checks: list[dict[str, str]] = answer.json["checks"]
    problems = [it for it in checks if it["result"] == "problem"]
    assert answer.code == (1 if problems else 0)
    assert answer.json["problems"] == len(problems)
    assert all(it["mend"] and it["message"] for it in problems)
    return answer.code, checks


def problems(workspace: Path, *expected: str) -> list[dict[str, str]]:
    """doctor ends with 1 and names exactly these codes; the problems with the first of them."""
    code, checks = doctor("-C", workspace)
    found = [it for it in checks if it["result"] == "problem"]
    assert {it["code"] for it in found} == set(expected)
    assert code == 1
    return [it for it in found if it["code"] == expected[0]]


def replace(workspace: Path, old: str, new: str) -> None:
    config = workspace / "duizhang.toml"
    text = config.read_text(encoding="utf-8")
    assert old in text
    config.write_text(text.replace(old, new), encoding="utf-8")


# ---- sound ----


@pytest.mark.parametrize("side", ["province", "city"])
def test_a_sound_workspace_has_no_problem_and_is_left_as_it_is(
    shared: Shared, side: str, request: pytest.FixtureRequest
) -> None:
    shared.chain.ensure_running()
    workspace = request.getfixturevalue(side)
    before = tree(workspace)
    code, checks = doctor("-C", workspace)
    assert code == 0
    assert {"config", "keys", "account", "store", "catalogs", "chain", "role", "clock"} <= {it["name"] for it in checks}
    assert "skipped" not in {it["result"] for it in checks}
    assert tree(workspace) == before
    assert not (workspace / "lock").exists() or (workspace / "lock").read_bytes() == b""


def test_a_stopped_chain_is_not_started_and_what_needs_it_is_not_called_fine(shared: Shared, city: Path) -> None:
    shared.chain.down()
    before = tree(shared.chain.home)
    code, checks = doctor("-C", city)
    assert code == 0
    assert shared.chain.status().url is None
    assert tree(shared.chain.home) == before
    assert [it["code"] for it in checks if it["result"] == "skipped"] == ["doctor.chain_not_running"]
    assert "role" not in {it["name"] for it in checks}
    assert "chain dump" in {it["name"] for it in checks}


def test_outside_a_workspace_only_the_machine_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DUIZHANG_HOME", raising=False)
    code, checks = doctor()
    assert code == 0
    assert [it["name"] for it in checks] == ["python", "kernel", "disk", "machine", "workspace"]
    assert list(tmp_path.iterdir()) == []


def test_a_workspace_that_was_named_and_is_not_there_is_a_problem(tmp_path: Path) -> None:
    (remark,) = problems(tmp_path / "none", "workspace.missing")
    assert remark["mend"] == f"duizhang init {tmp_path / 'none'}"
    assert not (tmp_path / "none").exists()


# ---- the machine ----


@pytest.mark.parametrize(
    ("libc", "code"), [("", "doctor.libc"), ("musl 1.2", "doctor.libc"), ("glibc 2.31", "doctor.libc")]
)
def test_a_missing_or_too_old_system_library_is_named(
    libc: str, code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "libc_version", lambda: libc)
    monkeypatch.setattr(machine.platform, "system", lambda: "Linux")
    monkeypatch.chdir(tmp_path)
    exit_code, checks = doctor()
    (remark,) = [it for it in checks if it["result"] == "problem"]
    assert (exit_code, remark["code"]) == (1, code)
    assert "2.35" in remark["message"]


def test_a_system_library_does_not_matter_where_the_node_is_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "libc_version", lambda: "")
    assert [it.result for it in judge_machine(needed=False)] == ["ok"]
    assert {it.result for it in judge_machine(needed=True)} == {"problem"}


def test_a_missing_anvil_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DUIZHANG_ANVIL", str(tmp_path / "anvil"))
    assert [it.code for it in judge_machine(needed=True)] == ["doctor.anvil_missing"]


def test_an_old_python_is_named() -> None:
    assert [it.result for it in judge_python((3, 11, 0))] == ["ok"]
    assert [it.code for it in judge_python((3, 10, 12))] == ["doctor.python"]


def test_a_disk_that_is_nearly_full(province: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        total: int
        used: int
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(1 << 30, 1 << 30, 1 << 20))
    problems(province, "doctor.disk")


def test_a_disk_that_cannot_be_asked_is_a_warning(province: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(folder: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(shutil, "disk_usage", refused)
    _, checks = doctor("-C", province)
    assert [(it["code"], it["result"]) for it in checks if it["name"] == "disk"] == [("doctor.disk", "warning")]


# ---- the workspace ----


def deny(monkeypatch: pytest.MonkeyPatch, denied: Path) -> None:
    """As if this user might not write there; the tests may run as root, whom nothing is denied."""
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != denied and real(path, mode))


def test_folders_that_are_gone_or_belong_to_somebody_else(province: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deny(monkeypatch, province / "entries")
    (remark,) = problems(province, "doctor.folder_access")
    assert remark["where"].endswith("entries")
    shutil.rmtree(province / "keys")
    assert {"doctor.folder", "key.missing"} <= {it["code"] for it in doctor("-C", province)[1]}


def test_a_store_that_may_not_be_written(province: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deny(monkeypatch, province / "store" / "ledger.db")
    problems(province, "store.read_only")


def test_a_workspace_without_any_source_is_a_warning(province: Path, city: Path) -> None:
    def codes(workspace: Path) -> set[str]:
        return {it["code"] for it in doctor("-C", workspace)[1] if it["result"] == "warning"}

    assert "doctor.no_sources" in codes(province)
    assert "doctor.no_sources" not in codes(city)


def test_a_typing_error_in_the_settings_does_not_hide_what_else_is_wrong(province: Path) -> None:
    replace(province, "[chain]", "[chain]\nfinalty = 1")
    (province / "keys" / "archive.key").chmod(0o644)
    (remark,) = problems(province, "config.unknown_member", "key.permissions")
    assert "finalty" in remark["message"]
    _, checks = doctor("-C", province)
    assert "doctor.no_config" in {it["code"] for it in checks if it["result"] == "skipped"}


@pytest.mark.parametrize("name", ["archive.key", "own/1.key", "guangzhou/1.key"])
def test_a_key_file_that_others_can_read_is_mended_by_the_command_shown(province: Path, name: str) -> None:
    path = province / "keys" / name
    path.chmod(0o640)
    remarks = problems(province, "key.permissions")
    assert {it["mend"] for it in remarks} == {f"chmod 600 {path}"}
    path.chmod(0o600)
    assert doctor("-C", province)[0] == 0


def test_a_missing_key_and_an_open_folder(province: Path) -> None:
    (province / "keys" / "own" / "1.key").unlink()
    (province / "keys").chmod(0o755)
    problems(province, "key.missing", "doctor.folder_mode")


def test_a_password_that_does_not_open_the_account(province: Path) -> None:
    (province / "keys" / "account.password").write_text("wrong\n")
    problems(province, "account.password")


def test_an_account_that_is_not_the_configured_one(province: Path, city: Path) -> None:
    for name in ("account.json", "account.password"):
        shutil.copy(city / "keys" / name, province / "keys" / name)
    problems(province, "config.account")


def test_a_broken_catalog_file_is_named(province: Path) -> None:
    (province / "catalogs" / "own.toml").write_text('id = "own_catalog"\n')
    (remark,) = problems(province, "catalog.field")
    assert remark["where"].endswith("own.toml")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda path: path.unlink(), "store.missing"),
        (lambda path: path.write_bytes(b"not a database, certainly" * 100), "store.damaged"),
        (lambda path: sql(path.parents[1], "UPDATE alembic_version SET version_num = '9999'"), "store.newer"),
        (lambda path: sql(path.parents[1], "DELETE FROM chain"), "store.no_chain"),
    ],
)
def test_a_store_that_cannot_be_used(province: Path, change: Callable[[Path], object], code: str) -> None:
    sql(province, "PRAGMA wal_checkpoint(TRUNCATE)")
    change(province / "store" / "ledger.db")
    problems(province, code)
    _, checks = doctor("-C", province)
    assert [it["code"] for it in checks if it["result"] == "skipped"] == ["doctor.not_reached"]


def test_sources_that_cannot_be_read_are_named_each_with_what_is_missing(city: Path, tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "other.db")
    database.execute("CREATE TABLE firms (uscc TEXT, name TEXT)")
    database.close()
    replace(city, "city.db", "gone.db")
    (remark,) = problems(city, "source.missing")
    assert "gone.db" in remark["message"]
    lines = (city / "duizhang.toml").read_text(encoding="utf-8").splitlines()
    url = next(line for line in lines if "gone.db" in line and line.startswith("url"))
    replace(city, url, f'url = "sqlite:///{tmp_path}/other.db"')
    (remark,) = problems(city, "source.table_missing")
    assert "firms" in remark["message"]
    replace(city, 'table = "registration"', 'table = "firms"')
    (remark,) = problems(city, "source.column_missing")
    assert "registered_on" in remark["message"]
    assert "[source." in remark["mend"]
    with (city / "duizhang.toml").open("a") as config:
        config.write('[source.licence]\nurl = "sqlite:///x.db"\ntable = "t"\norigin = "own"\n')
    problems(city, "source.column_missing", "catalog.unknown")


# ---- chain, keys, clocks ----


def test_a_node_that_does_not_answer(province: Path) -> None:
    replace(province, '"embedded"', '"http://127.0.0.1:1"')
    problems(province, "chain.unreachable")


def test_another_chain_and_a_lost_block_are_told_apart(shared: Shared, province: Path) -> None:
    shared.chain.ensure_running()
    sql(province, "UPDATE chain SET block_hash = ?", "0" * 64)
    problems(province, "chain.lost")
    sql(province, "UPDATE chain SET chain_id = 7")
    problems(province, "chain.other_chain")


def test_a_dump_that_is_gone_or_older_than_what_was_confirmed(shared: Shared, province: Path) -> None:
    sql(province, "UPDATE chain SET block_number = 5000")
    shared.chain.down()
    problems(province, "chain.lost")
    home = province / "chain"
    shutil.copytree(shared.chain.home, home)
    (home / "dump.json").unlink()
    lines = (province / "duizhang.toml").read_text(encoding="utf-8").splitlines()
    text = next(line for line in lines if line.startswith("home"))
    replace(province, text, 'home = "chain"')
    problems(province, "chain.dump_missing")


def test_an_exchange_key_that_the_streams_need_and_is_not_there(shared: Shared, city: Path) -> None:
    shared.chain.ensure_running()
    key = city / "keys" / "guangdong" / "1.key"
    key.write_text("0" * 64)
    key.chmod(0o600)
    (remark,) = problems(city, "key.wrong")
    assert remark["name"] == "exchange key guangdong"
    key.unlink()
    problems(city, "key.no_exchange_key")


def test_an_account_that_holds_another_name_or_no_role() -> None:
    account = "0x" + "12" * 20

    def judged(registrar: bool, party: bool, name: str) -> tuple[str, str]:
        it = judge_roles(Roles(registrar, party, name), "guangzhou", account)
        return it.result, it.code

    assert judged(False, True, "guangzhou") == ("ok", "")
    assert judged(False, True, "shenzhen") == ("problem", "chain.not_a_party")
    assert judged(True, True, "") == ("problem", "chain.not_a_party")
    assert judged(False, False, "guangzhou") == ("problem", "chain.no_role")


def test_clocks_and_time_zones_are_warnings() -> None:
    def clock(block_time: int, embedded: bool) -> list[str]:
        return [it.code or it.result for it in judge_clock(block_time, 1_000_000.0, embedded=embedded)]

    assert clock(1_000_060, True) == ["ok"]
    assert clock(1_000_500, True) == ["doctor.clock"]
    assert clock(900_000, True) == ["ok"]
    assert clock(900_000, False) == ["doctor.clock"]
    assert list(judge_zone("+08:00", {"registration": "+08:00"})) == []
    (zone,) = judge_zone("+00:00", {"registration": "+08:00"})
    assert (zone.code, zone.result) == ("doctor.time_zone", "warning")


def test_every_code_has_something_to_do() -> None:
    for code in ("config.toml", "store.unheard_of", "source.io", "chain.unheard_of", "unheard.of"):
        zh, en = mend_for(InputError(code, "甲", "a", "/some/where"))
        assert zh
        assert en
        assert "{" not in zh + en


def test_the_text_ends_with_the_number_of_problems(province: Path) -> None:
    (province / "keys" / "archive.key").chmod(0o644)
    answer = duizhang("-C", province, "doctor", "--lang", "en")
    assert answer.code == 1
    assert "mend: chmod 600" in answer.out
    assert answer.out.rstrip().splitlines()[-1].startswith("1 problem(s)")


def test_doctor_mends_nothing_by_itself(province: Path) -> None:
    (province / "keys" / "archive.key").chmod(0o644)
    shutil.rmtree(province / "entries")
    before = tree(province)
    doctor("-C", province)
    assert tree(province) == before
    assert not (province / "entries").exists()
    done("-C", province, "catalog", "list")


def test_json_has_every_member(province: Path) -> None:
    answer: Any = duizhang("-C", province, "doctor", "--json").json
    assert set(answer) == {"verdict", "problems", "checks"}
    assert all(set(it) == {"name", "result", "code", "message", "mend", "where"} for it in answer["checks"])


def test_whether_the_compiled_part_is_used_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = judge_kernel()
    assert (found.result, found.name) == ("ok", "kernel")
    assert "native" in found.en
    monkeypatch.setattr("ledger.kernel.native._load", lambda: None)
    (found,) = judge_kernel()
    assert (found.result, found.code) == ("warning", "doctor.kernel")
    assert "scripts/setup" in found.mend_en
