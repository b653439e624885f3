"""Two parties on one real chain, for every test that needs the whole spine.

The workspaces are made once a session and copied for each test, chain included.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ledger.chain.local import LocalChain
from ledger.cli import main
from tests.databases import mariadb, postgres, postgres18

__all__ = ["mariadb", "postgres", "postgres18"]

CATALOG = """
id = "permits"
version = 1
title = "许可（测试）"
key = ["no"]
subject = { field = "uscc", visibility = "public", public_pattern = "9[13][0-9A-Z]{16}" }

[[field]]
name = "no"
title = "文号"
type = "code"

[[field]]
name = "uscc"
title = "代码"
type = "code"

[[field]]
name = "holder"
title = "名称"
type = "text"

[[field]]
name = "decided_on"
title = "决定日期"
type = "date"

[[field]]
name = "fee"
title = "费用"
type = "decimal"
scale = 2
"""
FIELDS = ("no", "uscc", "holder", "decided_on", "fee")


@dataclass(frozen=True)
class Ran:
    """What one command gave back."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as one JSON document."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Party:
    """One workspace, driven through its command line."""

    home: Path

    def run(self, *words: str) -> Ran:
        """`duizhang -C home words…` in this process."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main(["-C", str(self.home), *words])
        return Ran(code, out.getvalue(), err.getvalue())

    def ok(self, *words: str) -> Any:
        """The same with --json, which must end with 0."""
        ran = self.run(*words, "--json")
        assert ran.code == 0, ran
        return ran.json

    def reconcile(self) -> tuple[int, list[tuple[str, str]], Mapping[str, int]]:
        """Exit code, (kind, key or row) of each finding, counts."""
        ran = self.run("reconcile", "permits", "--json")
        assert "error" not in ran.json, ran
        found = [
            (f["kind"], f["key"]["no"] if f["key"] else f"row {f['row']}" if "row" in f else f["key_tag"])
            for f in ran.json["findings"]
        ]
        counts = ran.json["counts"]
        assert ran.json["balance"]["source_rows"][0] == ran.json["balance"]["source_rows"][1]
        assert ran.json["balance"]["ledger_keys"][0] == ran.json["balance"]["ledger_keys"][1]
        return ran.code, found, counts


@dataclass(frozen=True)
class Pair:
    """Province and city, the city's database, and a folder for files."""

    province: Party
    city: Party
    database: Path
    folder: Path

    def sql(self, statement: str, *values: object) -> None:
        """Change the city's database behind the ledger's back."""
        with sqlite3.connect(self.database) as connection:
            connection.execute(statement, values)
        connection.close()

    def file(self, name: str, rows: Sequence[Mapping[str, str]]) -> str:
        """Write a delivery and return its path."""
        path = self.folder / name
        columns = [*FIELDS, *(c for c in ("operation", "reason") if any(c in row for row in rows))]
        with path.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, columns, restval="")
            writer.writeheader()
            for row in rows:
                writer.writerow({"operation": "upsert", **row} if "operation" in columns else row)
        return str(path)

    def deliver(self, number: str, rows: Sequence[Mapping[str, str]]) -> None:
        """Send a batch and load it on the other side; both must match."""
        path = self.file(f"{number}.csv", rows)
        self.province.ok("send", "permits", path, "--batch", number, "--to", "guangzhou")
        got = self.city.ok("receive", "permits", path, "--batch", number, "--from", "guangdong", "--load")
        assert got["verdict"] == "matched"


def permit(number: int, holder: str = "甲公司", fee: str = "12.50") -> dict[str, str]:
    """One valid row."""
    return {
        "no": f"A-{number}",
        "uscc": f"9144010012345{number:05d}",
        "holder": holder,
        "decided_on": "2022-03-04",
        "fee": fee,
    }


def withdrawn(number: int, reason: str = "revoked") -> dict[str, str]:
    """One withdrawal row."""
    return {"no": f"A-{number}", "operation": "withdraw", "reason": reason}


@pytest.fixture(scope="session")
def _template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("template")
    assert main(["init", str(root / "province"), "--party", "guangdong", "--json"]) == 0
    province = Party(root / "province")
    province.ok("party", "add", "guangzhou", "--out", str(root / "join.json"))
    assert main(["init", str(root / "city"), "--join", str(root / "join.json"), "--json"]) == 0
    province.ok("chain", "down")
    for name in ("province", "city"):
        (root / name / "catalogs" / "permits.toml").write_text(CATALOG, encoding="utf-8")
    return root


@contextmanager
def paired(template: Path, folder: Path) -> Iterator[Pair]:
    """A copy in `folder` of both workspaces and the chain, with an empty city database (source of origin delivery)."""
    for name in ("province", "city"):
        shutil.copytree(template / name, folder / name)
    config = folder / "city" / "duizhang.toml"
    database = folder / "city.db"
    text = config.read_text(encoding="utf-8").replace(str(template), str(folder))
    source = f'\n[source.permits]\nurl = "sqlite:///{database}"\ntable = "permits"\norigin = "delivery"\n'
    config.write_text(text + source, encoding="utf-8")
    connection = sqlite3.connect(database)
    connection.execute(f"CREATE TABLE permits ({', '.join(f'{name} TEXT' for name in FIELDS)})")
    connection.close()
    try:
        yield Pair(Party(folder / "province"), Party(folder / "city"), database, folder)
    finally:
        LocalChain(folder / "province" / "chain").down()


@pytest.fixture
def pair(_template: Path, tmp_path: Path) -> Iterator[Pair]:
    """A fresh copy of both workspaces, the chain and an empty city database (source of origin delivery)."""
    with paired(_template, tmp_path) as made:
        yield made


@pytest.fixture
def own(pair: Pair) -> Pair:
    """The same with the city's table as a source of its own."""
    config = pair.city.home / "duizhang.toml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace('origin = "delivery"\n', 'origin = "own"\n'), encoding="utf-8")
    return pair
