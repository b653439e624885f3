"""What keeps the local chain from running here is said before anything is tried."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger.chain.doctor import diagnose, judge_anvil, judge_platform, libc_version


def codes(system: str, machine: str, libc: str) -> list[str]:
    return [problem.code for problem in judge_platform(system, machine, libc)]


@pytest.mark.parametrize("libc", ["glibc 2.35", "glibc 2.36", "glibc 2.40", "glibc 3.0", "glibc 2.36-rc1"])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "AMD64", "arm64"])
def test_a_machine_that_can_run_it_has_no_problem(libc: str, machine: str) -> None:
    assert codes("Linux", machine, libc) == []


@pytest.mark.parametrize("libc", ["glibc 2.34", "glibc 2.9", "glibc 2.28", "glibc 1.99"])
def test_a_system_library_that_is_too_old_is_named_with_both_versions(libc: str) -> None:
    (problem,) = judge_platform("Linux", "x86_64", libc)
    assert problem.code == "doctor.libc"
    for text in (problem.zh, problem.en):
        assert libc.removeprefix("glibc ") in text
        assert "2.35" in text
    assert "Debian 12" in problem.remedy_zh
    assert "Debian 12" in problem.remedy_en


@pytest.mark.parametrize("libc", ["", "musl 1.2", "glibc"])
def test_a_machine_without_glibc_is_named(libc: str) -> None:
    assert codes("Linux", "x86_64", libc) == ["doctor.libc"]


def test_an_architecture_without_anvil_is_named() -> None:
    assert codes("Linux", "riscv64", "glibc 2.40") == ["doctor.architecture"]
    assert codes("Linux", "i686", "glibc 2.28") == ["doctor.architecture", "doctor.libc"]


def test_macos_has_no_glibc_and_needs_none() -> None:
    assert codes("Darwin", "arm64", "") == []


def test_this_machine_runs_it() -> None:
    assert libc_version().startswith("glibc ")
    assert diagnose() == []


def test_an_anvil_that_is_missing_or_does_not_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUIZHANG_ANVIL", str(tmp_path / "anvil"))
    assert [problem.code for problem in judge_anvil()] == ["doctor.anvil_missing"]
    (tmp_path / "anvil").write_text("#!/bin/sh\necho \"version 'GLIBC_2.35' not found\" >&2; exit 1\n")
    assert [problem.code for problem in judge_anvil()] == ["doctor.anvil_missing"]
    (tmp_path / "anvil").chmod(0o755)
    (problem,) = judge_anvil()
    assert problem.code == "doctor.anvil_broken"
    assert "GLIBC_2.35" in problem.en
    (tmp_path / "anvil").write_text("#!/bin/sh\necho something else\n")
    assert [problem.code for problem in judge_anvil()] == ["doctor.anvil_broken"]
    (tmp_path / "anvil").write_bytes(b"\x7fELF")
    assert [problem.code for problem in judge_anvil()] == ["doctor.anvil_broken"]
