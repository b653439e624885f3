"""What is misconfigured and how to mend it, said before anything fails (design section 7).

Every question is asked, whatever the others answered. Nothing is created, started or changed: of an embedded chain that is
not running only the saved state is looked at, and what needs the chain is `skipped`, never called fine.
"""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from ledger.chain.account import account_address, load_account
from ledger.chain.doctor import diagnose
from ledger.config import load_config
from ledger.doctor.diagnosis import Diagnosis, fine, problem, skipped, warning, wrong
from ledger.errors import LedgerError
from ledger.keys import parse_key
from ledger.store.files import read_private
from ledger.workspace import OWN, Workspace, known_catalogs, read_catalog

PYTHON = (3, 11)
LEAST_FREE_BYTES = 512 << 20
"""Below this a nightly of a large table may fill the disk half-way."""


def examine(root: Path, *, named: bool) -> list[Diagnosis]:
    """All findings about this machine, and about the workspace at `root` if it is one.

    `named`: somebody said that there is a workspace (`-C`, DUIZHANG_HOME), so that its absence is a problem.
    """
    found = [*judge_python(sys.version_info[:3]), *judge_kernel(), *_disk(root)]
    if not (root / "duizhang.toml").exists():
        found += judge_machine(needed=True)
        code = "workspace.missing"
        if named:
            zh, en = "这里没有工作区（缺 duizhang.toml）", "there is no workspace here (no duizhang.toml)"
            mend = f"duizhang init {shlex.quote(str(root))}"
            found.append(problem("workspace", code, zh, en, mend, mend, str(root)))
        else:
            zh, en = "当前目录不是工作区，只检查了本机", "not in a workspace; only this machine was looked at"
            found.append(skipped("workspace", code, zh, en, "duizhang -C DIR doctor", "duizhang -C DIR doctor"))
        return found
    workspace = None
    try:
        workspace = Workspace(root)
        found.append(fine("config", f"duizhang.toml 可读，参与方 {workspace.party}", f"party {workspace.party}"))
    except LedgerError as error:
        found.append(wrong("config", error))
    found += judge_machine(needed=workspace is None or workspace.config.chain.embedded)
    found += [*_folders(root), *_key_files(root), *_catalogs(root)]
    if workspace is None:
        found.append(
            skipped(
                "store, sources, chain",
                "doctor.no_config",
                "须先改正 duizhang.toml",
                "duizhang.toml must be mended first",
                "改正后再运行 duizhang doctor",
                "mend it, then run duizhang doctor again",
            )
        )
        return found
    # Needs SQLAlchemy and the chain's modules, which a broken set-up may lack: imported when everything above was said.
    from ledger.doctor.notify import examine_notify  # noqa: PLC0415
    from ledger.doctor.workspace import examine_workspace  # noqa: PLC0415

    return [*found, *_account(workspace), *examine_workspace(workspace), *examine_notify(workspace)]


# ---- this machine ----


def judge_python(version: tuple[int, ...]) -> list[Diagnosis]:
    """A Python too old for this program."""
    shown = ".".join(map(str, version))
    if version[:2] < PYTHON:
        wanted = ".".join(map(str, PYTHON))
        return [
            problem(
                "python",
                "doctor.python",
                f"Python {shown} 过旧，需要 {wanted} 以上",
                f"Python {shown} is too old; {wanted} is needed",
                f"安装 Python {wanted} 以上，再运行 scripts/setup",
                f"install Python {wanted} or newer, then run scripts/setup",
                sys.executable,
            )
        ]
    return [fine("python", f"Python {shown}", f"Python {shown}")]


def judge_kernel() -> list[Diagnosis]:
    """Whether the compiled part is used."""
    # Needs pyarrow, which a broken set-up may lack.
    from ledger.kernel.native import engine  # noqa: PLC0415

    kind = engine()
    if kind == "reference":
        zh, en = (
            "未使用编译部分：结果相同，但读取与计算慢数倍",
            "the compiled part is not used: the same results, several times as slow",
        )
        mend_zh, mend_en = (
            "安装 C 编译器（gcc）后再运行 scripts/setup",
            "install a C compiler (gcc), then run scripts/setup",
        )
        return [warning("kernel", "doctor.kernel", zh, en, mend_zh, mend_en, os.environ.get("DUIZHANG_KERNEL", ""))]
    return [fine("kernel", f"编译部分可用（{kind}）", f"the compiled part is used ({kind})")]


def judge_machine(*, needed: bool) -> list[Diagnosis]:
    """Whether the local chain can run here; of no concern (`needed` false) where the chain's node is elsewhere."""
    if not needed:
        zh, en = "使用外部链节点，本机不需要本地链程序", "the chain's node is elsewhere; no local chain is needed here"
        return [fine("machine", zh, en)]
    problems = [problem("machine", it.code, it.zh, it.en, it.remedy_zh, it.remedy_en) for it in diagnose()]
    return problems or [fine("machine", "系统库与 anvil 可用", "system library and anvil are usable")]


def _disk(root: Path) -> Iterator[Diagnosis]:
    folder = root if root.exists() else Path()
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        zh, en = f"无法查询磁盘空间：{error.strerror}", f"disk space cannot be asked for: {error.strerror}"
        yield warning("disk", "doctor.disk", zh, en, where=str(folder))
        return
    shown = f"{free / (1 << 30):.1f} GiB"
    if free < LEAST_FREE_BYTES:
        yield problem(
            "disk",
            "doctor.disk",
            f"磁盘剩余 {shown}，不足 {LEAST_FREE_BYTES >> 20} MiB，夜间作业可能中途写满",
            f"{shown} free, less than {LEAST_FREE_BYTES >> 20} MiB: a nightly may fill the disk half-way",
            f"清理磁盘，或把工作区移到更大的磁盘：df -h {shlex.quote(str(folder))}",
            f"free space, or move the workspace to a larger disk: df -h {shlex.quote(str(folder))}",
            str(folder),
        )
    else:
        yield fine("disk", f"剩余 {shown}", f"{shown} free")


# ---- what lies in the workspace ----


def _elsewhere(root: Path) -> bool:
    """Whether the store is no file of this workspace; what is wrong with the settings is said elsewhere."""
    try:
        return not load_config(root / "duizhang.toml").store_url.startswith("sqlite")
    except LedgerError:
        return False


def _folders(root: Path) -> Iterator[Diagnosis]:
    bad = False
    for name in ("keys", "store", "entries", "archive"):
        folder = root / name
        where = str(folder)
        if name == "store" and not folder.exists() and _elsewhere(root):
            continue
        if not folder.is_dir():
            # Without keys nothing works; the next writing job makes the others, except the store's.
            if name in ("keys", "store"):
                bad = True
                yield problem(
                    "folders", "doctor.folder", f"缺少目录 {name}", f"the folder {name} is missing",
                    "从备份恢复该目录", "restore the folder from a backup", where,
                )  # fmt: skip
            continue
        mode = stat.S_IMODE(folder.stat().st_mode)
        mend = f"chmod 700 {shlex.quote(where)}"
        if mode & 0o077:
            bad = True
            zh, en = f"目录权限为 {mode:04o}，其他用户可进入", f"mode {mode:04o}: other users may enter this folder"
            make = problem if name == "keys" else warning
            yield make("folders", "doctor.folder_mode", zh, en, mend, mend, where)
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            bad = True
            zh, en = "本用户不能读写该目录", "this user may not read and write the folder"
            owner = f"chown -R $(id -un) {shlex.quote(where)}"
            yield problem("folders", "doctor.folder_access", zh, en, owner, owner, where)
    if not bad:
        yield fine("folders", "目录齐全，权限正确", "folders are there, with the right modes")


def _key_files(root: Path) -> Iterator[Diagnosis]:
    folder = root / "keys"
    wanted = [folder / OWN / "1.key", folder / "archive.key"]
    try:
        others = sorted(path for path in folder.glob("*/*.key") if path not in wanted)
        private = sorted(folder.glob("*/join.json"))
    except OSError:
        others, private = [], []
    bad = False
    for path in [*wanted, *others, *private]:
        try:
            data = read_private(path)
            if path not in private:
                parse_key(data, str(path))
        except LedgerError as error:
            bad = True
            yield wrong("keys", error)
    if not bad:
        count = len(wanted) + len(others)
        yield fine("keys", f"{count} 个密钥文件，格式与权限正确", f"{count} key files, in form, mode 0600")


def _account(workspace: Workspace) -> Iterator[Diagnosis]:
    try:
        address = account_address(workspace.keystore)
        load_account(workspace.keystore, workspace.password_file)
    except LedgerError as error:
        yield wrong("account", error)
        return
    configured = workspace.config.chain.account
    if address != configured:
        yield problem(
            "account",
            "config.account",
            f"[chain] account 为 {configured}，keys/account.json 是 {address}",
            f"[chain] account is {configured}, keys/account.json holds {address}",
            f'把 duizhang.toml 中 [chain] account 改为 "{address}"，或放回原来的 keys/account.json',
            f'set [chain] account = "{address}" in duizhang.toml, or put the former keys/account.json back',
            str(workspace.root / "duizhang.toml"),
        )
        return
    yield fine("account", f"账户 {address} 可签名", f"account {address} can sign")


def _catalogs(root: Path) -> Iterator[Diagnosis]:
    bad = False
    for path in _toml(root / "catalogs"):
        try:
            read_catalog(path)
        except LedgerError as error:
            bad = True
            yield wrong("catalogs", error)
    if bad:
        return
    try:
        known = known_catalogs(root / "catalogs")
    except LedgerError as error:
        yield wrong("catalogs", error)
        return
    yield fine("catalogs", f"目录 {'、'.join(known)}", f"catalogs {', '.join(known)}")


def _toml(folder: Path) -> Iterable[Path]:
    try:
        return sorted(folder.glob("*.toml"))
    except OSError:
        return ()
