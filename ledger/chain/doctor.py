"""Can the local chain run on this machine? Asked by `doctor` and at set-up, before anything fails half-way."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from dataclasses import dataclass

from ledger.chain.node import find_anvil
from ledger.errors import ChainError

GLIBC = (2, 35)
"""What anvil 1.7.1 is linked against: Debian 12 and Ubuntu 22.04 have it, Debian 11 and RHEL 8 do not."""
_MACHINES = ("x86_64", "amd64", "aarch64", "arm64")


@dataclass(frozen=True)
class Problem:
    """Something that keeps the local chain from running, and what the operator can do about it."""

    code: str
    zh: str
    en: str
    remedy_zh: str
    remedy_en: str


def diagnose() -> list[Problem]:
    """What is wrong with this machine for the local chain; empty if it can run."""
    problems = judge_platform(platform.system(), platform.machine(), libc_version())
    return problems or judge_anvil()


def libc_version() -> str:
    """The C library as "glibc 2.36", or "" if it is not glibc."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        return ""


def judge_platform(system: str, machine: str, libc: str) -> list[Problem]:
    """Problems of an operating system, an architecture and a C library (as `libc_version` spells it)."""
    elsewhere = (
        "请改用 Debian 12 / Ubuntu 22.04 或更新的系统，或在 duizhang.toml 的 [chain] rpc 中填写其他机器上的链节点",
        "use Debian 12, Ubuntu 22.04 or newer, or name a chain's node on another machine in [chain] rpc of duizhang.toml",
    )
    problems: list[Problem] = []
    if machine.lower() not in _MACHINES:
        problems.append(
            Problem(
                "doctor.architecture",
                f"本地链程序 anvil 没有 {machine} 版本",
                f"there is no anvil, the program of the local chain, for {machine}",
                *elsewhere,
            )
        )
    if system == "Linux":
        version = re.fullmatch(r"glibc (\d+)\.(\d+).*", libc)
        wanted = f"{GLIBC[0]}.{GLIBC[1]}"
        if version is None:
            problems.append(
                Problem(
                    "doctor.libc",
                    f"本地链程序 anvil 需要系统库 glibc {wanted} 以上，本机没有 glibc",
                    f"anvil, the program of the local chain, needs the system library glibc {wanted}; there is none here",
                    *elsewhere,
                )
            )
        elif (int(version[1]), int(version[2])) < GLIBC:
            problems.append(
                Problem(
                    "doctor.libc",
                    f"系统库 glibc 为 {version[1]}.{version[2]}，本地链程序 anvil 需要 {wanted} 以上",
                    f"the system library glibc is {version[1]}.{version[2]}; anvil, the program of the local chain, needs "
                    f"{wanted}",
                    *elsewhere,
                )
            )
    return problems


def judge_anvil() -> list[Problem]:
    """Problems of the anvil that would be run: not there, or not able to say its version."""
    install = (
        "请运行 scripts/setup，或 npm install @foundry-rs/anvil@1.7.1 后将 DUIZHANG_ANVIL 设为其路径",
        "run scripts/setup, or npm install @foundry-rs/anvil@1.7.1 and set DUIZHANG_ANVIL to its path",
    )
    try:
        anvil = find_anvil()
    except ChainError as error:
        return [Problem("doctor.anvil_missing", error.zh, error.en, *install)]
    try:
        done = subprocess.run([str(anvil), "--version"], capture_output=True, text=True, timeout=20, check=False)
        said = (done.stdout + done.stderr).strip()
        runs = done.returncode == 0 and "anvil" in said.lower()
    except (OSError, subprocess.SubprocessError) as error:
        runs, said = False, str(error)
    if runs:
        return []
    return [
        Problem(
            "doctor.anvil_broken",
            f"{anvil} 无法运行：{said[:200]}",
            f"{anvil} does not run: {said[:200]}",
            *install,
        )
    ]
