"""A province and a city on one real chain, made through the command line once; each test damages a copy."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ledger.chain import node as nodes
from ledger.chain.account import create_account
from ledger.chain.local import LocalChain
from ledger.chain.rpc import Rpc
from ledger.cli import main

FIELDS = ("uscc", "name", "registered_on", "company_type", "capital", "province", "region")


@dataclass(frozen=True)
class Answer:
    """What one command line did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def duizhang(*words: object) -> Answer:
    """Run one command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    return Answer(code, out.getvalue(), err.getvalue())


def done(*words: object) -> Answer:
    """Run one command line that must succeed."""
    answer = duizhang(*words)
    assert answer.code == 0, f"{words}: {answer.code}\n{answer.out}\n{answer.err}"
    return answer


def row(number: int, name: str = "") -> dict[str, str]:
    """A registration row with a code of its own."""
    values = (
        f"91440101MA5{number:07d}",
        name or f"企业{number}",
        "2020-01-02",
        "有限责任公司",
        "100万元",
        "广东",
        "广州",
    )
    return dict(zip(FIELDS, values, strict=True))


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*FIELDS, "operation", "reason"], restval="")
        writer.writeheader()
        for values in rows:
            writer.writerow({"operation": "upsert", **values})
    return path


def withdrawn(number: int) -> dict[str, str]:
    return {"uscc": row(number)["uscc"], "operation": "withdraw", "reason": "revoked"}


@dataclass(frozen=True)
class Shared:
    """`before` is a copy of the province taken before its last batch B2; `chain` keeps the chain they all share."""

    root: Path
    chain: LocalChain

    @property
    def province(self) -> Path:
        return self.root / "province"

    @property
    def city(self) -> Path:
        return self.root / "city"

    @property
    def before(self) -> Path:
        return self.root / "before"


@pytest.fixture(scope="package")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """B0 was revised by the province after the city received it; B1 was received; B2 only sent, with a withdrawal."""
    root = tmp_path_factory.mktemp("shared")
    made = Shared(root, LocalChain(root / "province" / "chain"))
    with contextlib.ExitStack() as stack:
        stack.callback(_kill, made.chain.home)
        # Key stretching is the library's and has its own test; at full strength it would be most of the time.
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr("ledger.setup.create_account", functools.partial(create_account, work_factor=2))
        done("init", made.province, "--party", "guangdong")
        done("-C", made.province, "party", "add", "guangzhou", "--out", root / "join.json")
        done("init", made.city, "--join", root / "join.json")
        with sqlite3.connect(root / "city.db") as database:
            database.execute(
                f"CREATE TABLE registration ({', '.join(f'{name} TEXT' for name in FIELDS)}, batch_no TEXT)"
            )
        database.close()
        with (made.city / "duizhang.toml").open("a", encoding="utf-8") as config:
            config.write(
                f'[source.registration]\nurl = "sqlite:///{root}/city.db"\ntable = "registration"\n'
                'origin = "delivery"\nbatch_column = "batch_no"\n'
            )
        b0 = write_csv(root / "b0.csv", [row(number) for number in range(5)])
        b0b = write_csv(root / "b0b.csv", [row(number) for number in range(4)])
        b1 = write_csv(root / "b1.csv", [row(number) for number in range(100, 130)])
        b2 = write_csv(root / "b2.csv", [row(100, "更名"), row(200), withdrawn(101)])
        for number, file in (("B0", b0), ("B1", b1)):
            done("-C", made.province, "send", "registration", file, "--batch", number, "--to", "guangzhou")
            done("-C", made.city, "receive", "registration", file, "--batch", number, "--from", "guangdong", "--load")
        done("-C", made.province, "send", "registration", b0b, "--batch", "B0", "--to", "guangzhou")
        copy(made, made.province, made.before)
        done("-C", made.province, "send", "registration", b2, "--batch", "B2", "--to", "guangzhou")
        yield made


def _kill(home: Path) -> None:
    for node in nodes.nodes_of(home):
        os.kill(node.pid, signal.SIGKILL)


def copy(shared: Shared, workspace: Path, target: Path) -> Path:
    """A copy of a workspace that shares the chain."""
    shutil.copytree(workspace, target, ignore=shutil.ignore_patterns("chain"))
    config = target / "duizhang.toml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace('home = "chain"', f"home = {json.dumps(str(shared.chain.home))}"), encoding="utf-8")
    return target


@pytest.fixture
def province(shared: Shared, tmp_path: Path) -> Path:
    """A copy of the province, to be damaged."""
    return copy(shared, shared.province, tmp_path / "province")


@pytest.fixture
def city(shared: Shared, tmp_path: Path) -> Path:
    """A copy of the city, to be damaged."""
    return copy(shared, shared.city, tmp_path / "city")


@pytest.fixture
def node(shared: Shared) -> Iterator[Rpc]:
    """The chain's node; what a test does to the chain is undone afterwards."""
    with Rpc(shared.chain.ensure_running()) as rpc:
        snapshot = rpc.call("evm_snapshot")
        yield rpc
        assert rpc.call("evm_revert", snapshot)


def sql(workspace: Path, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Do to the store what no constraint of ours would let happen."""
    database = sqlite3.connect(workspace / "store" / "ledger.db")
    try:
        database.execute("PRAGMA ignore_check_constraints = ON")
        rows = database.execute(statement, values).fetchall()
        database.commit()
    finally:
        database.close()
    return rows


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file with mode and content, but the lock."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mode, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock"
    }
