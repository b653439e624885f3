"""One real chain for all tests of proofs: province and city, deliveries, an own-sealed batch, an auditor's trust file."""

from __future__ import annotations

import functools
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount

from ledger import jcs
from ledger.chain.account import create_account
from ledger.chain.local import LocalChain
from ledger.chain.rpc import Rpc
from ledger.chain.transactions import prepare, send_raw, wait_for_receipt
from ledger.cli import main
from ledger.verdict import Verification
from ledger.verify import verify
from tests.conftest import FIELDS, Pair, Party, permit, withdrawn

# A key of two fields, one of them personal; the subject is protected.
INSPECTIONS = """
id = "inspections"
version = 1
key = ["office", "inspector"]
subject = { field = "inspector", visibility = "protected" }

[[field]]
name = "office"
type = "code"

[[field]]
name = "inspector"
type = "text"
personal = true

[[field]]
name = "result"
type = "text"
"""


@dataclass(frozen=True)
class Stage:
    """The pair, its running chain, and the auditor's trust file."""

    pair: Pair
    rpc: str
    trust: bytes
    folder: Path

    def prove(self, *words: str, party: str = "city", catalog: str = "permits") -> bytes:
        """A good proof file, made by that party's command line."""
        path = self.folder / "made.json"
        path.unlink(missing_ok=True)
        side: Party = getattr(self.pair, party)
        side.ok("prove", catalog, *words, "--out", str(path))
        return path.read_bytes()

    def verify(self, proof: bytes, trust: bytes | None = None, rpc: str | None = None) -> Verification:
        """Verify these bytes; the good trust file and the running chain unless others are named."""
        return verify(
            self.file("proof.json", proof),
            self.file("trust.json", self.trust if trust is None else trust),
            self.rpc if rpc is None else rpc,
        )

    def file(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    def act(self, account: LocalAccount, data: bytes, to: str | None) -> str:
        """Send a transaction of anybody's; the address of the contract it made, or ""."""
        with Rpc(self.rpc) as rpc:
            chain_id = int(rpc.call("eth_chainId"), 16)
            signed = prepare(rpc, account, chain_id=chain_id, to=to, data=data)
            send_raw(rpc, signed.raw)
            receipt = wait_for_receipt(rpc, signed.hash)
        assert receipt is not None
        assert receipt.ok
        return receipt.contract or ""


def edited(data: bytes, change: Callable[[Any], object]) -> bytes:
    """A proof or trust file after `change` was made to its members, well formed in itself."""
    top = json.loads(data)
    change(top)
    return jcs.dump(top) + b"\n"


def told(result: Verification) -> tuple[str, str, str]:
    """Verdict, and name and code of the step that failed."""
    step = next((step for step in result.steps if step.result == "fail"), None)
    return (result.verdict, step.name, step.code) if step else (result.verdict, "", "")


@pytest.fixture(scope="package")
def stage(_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """B1 delivers five permits, B2 changes A-1 and withdraws A-5; the city seals two inspections of its own."""
    root = tmp_path_factory.mktemp("proof")
    for name in ("province", "city"):
        shutil.copytree(_template / name, root / name)
        (root / name / "catalogs" / "inspections.toml").write_text(INSPECTIONS, encoding="utf-8")
    database = root / "city.db"
    config = root / "city" / "duizhang.toml"
    text = config.read_text(encoding="utf-8").replace(str(_template), str(root))
    for name, origin in (("permits", "delivery"), ("inspections", "own")):
        text += f'\n[source.{name}]\nurl = "sqlite:///{database}"\ntable = "{name}"\norigin = "{origin}"\n'
    config.write_text(text, encoding="utf-8")
    with sqlite3.connect(database) as connection:
        connection.execute(f"CREATE TABLE permits ({', '.join(f'{name} TEXT' for name in FIELDS)})")
        connection.execute("CREATE TABLE inspections (office TEXT, inspector TEXT, result TEXT)")
        connection.execute("INSERT INTO inspections VALUES ('T-1', '张三', '合格'), ('T-2', '李四', NULL)")
    connection.close()
    pair = Pair(Party(root / "province"), Party(root / "city"), database, root)
    chain = LocalChain(root / "province" / "chain")
    try:
        pair.deliver("B1", [permit(n) for n in range(1, 6)])
        pair.deliver("B2", [{**permit(1, "甲公司更名"), "operation": "upsert"}, withdrawn(5)])
        pair.city.ok("anchor", "inspections")
        trust = root / "trust-made.json"
        pair.province.ok("trust", "export", "--out", str(trust))
        yield Stage(pair, chain.ensure_running(), trust.read_bytes(), root)
    finally:
        chain.down()


@pytest.fixture(scope="package")
def good(stage: Stage) -> bytes:
    """The proof of A-3 in B1."""
    return stage.prove("A-3")


@pytest.fixture(scope="package")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Another workspace with a chain of its own, whose party also calls itself guangdong."""
    root = tmp_path_factory.mktemp("other")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ledger.setup.create_account", functools.partial(create_account, work_factor=2))
        assert main(["init", str(root / "w"), "--party", "guangdong", "--json"]) == 0
    party = Party(root / "w")
    chain = LocalChain(root / "w" / "chain")
    try:
        party.ok("trust", "export", "--out", str(root / "t.json"))
        pair = Pair(party, party, root / "none.db", root)
        yield Stage(pair, chain.ensure_running(), (root / "t.json").read_bytes(), root)
    finally:
        chain.down()


@pytest.fixture(scope="package")
def forger(stage: Stage) -> LocalAccount:
    """A third party, lawfully registered as foshan, that is no side of any batch here."""
    path = stage.folder / "foshan.json"
    stage.pair.province.ok("party", "add", "foshan", "--out", str(path))
    # The file itself is sealed; what the workspace keeps of it is not.
    kept = stage.pair.province.home / "keys" / "foshan" / "join.json"
    account: LocalAccount = Account.from_key(bytes.fromhex(json.loads(kept.read_text())["account_key"]))
    return account
