"""The workspace's chain, opened and checked before every job (design section 6)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy.orm import Session

from ledger.chain.account import account_address
from ledger.chain.finality import Finality, parse_finality
from ledger.chain.history import Memory
from ledger.chain.identity import Block, Identity, check_identity
from ledger.chain.local import LocalChain
from ledger.chain.registry import Registry
from ledger.chain.rpc import Rpc
from ledger.errors import InputError, StoreError
from ledger.store import models
from ledger.store.db import Store
from ledger.workspace import Workspace


@dataclass(frozen=True)
class Link:
    """A checked connection. `local` is the embedded chain, None for a node of somebody else's; `account` our address."""

    rpc: Rpc
    url: str
    registry: Registry
    identity: Identity
    finality: Finality
    account: str
    local: LocalChain | None


@contextmanager
def open_link(workspace: Workspace, store: Store, memory: Memory | None = None) -> Iterator[Link]:
    """Start the embedded chain if need be, connect, and check chain id, contract code, identity and remembered block.

    `memory` is what an earlier link of the same workspace saw of the registry's events.
    ChainError `chain.*` if anything is not as remembered: then no job may go on.
    """
    with store.read() as session:
        identity, remembered = known_chain(session, workspace)
    local = LocalChain(workspace.chain_home) if workspace.config.chain.embedded else None
    url = local.ensure_running() if local is not None else workspace.config.chain.rpc
    account = account_address(workspace.keystore)
    if account != workspace.config.chain.account:
        raise InputError(
            "config.account",
            f"[chain] account 为 {workspace.config.chain.account}，keys/account.json 为 {account}",
            f"[chain] account is {workspace.config.chain.account}, keys/account.json holds {account}",
            str(workspace.root / "duizhang.toml"),
        )
    with Rpc(url) as rpc:
        check_identity(rpc, identity, remembered)
        finality = parse_finality(workspace.config.chain.finality, str(workspace.root / "duizhang.toml"))
        yield Link(rpc, url, Registry(rpc, identity.contract, memory), identity, finality, account, local)


def known_chain(session: Session, workspace: Workspace) -> tuple[Identity, Block]:
    """The chain's identity and the remembered block, from the store; the contract must be the configured one."""
    row = session.get(models.Chain, 1)
    if row is None:
        raise StoreError(
            "store.no_chain",
            "台账库没有链的身份记录：工作区未初始化完",
            "the store knows no chain: this workspace was not initialised to the end",
            str(workspace.root),
        )
    if row.contract != workspace.config.chain.contract:
        raise InputError(
            "config.contract",
            f"[chain] contract 为 {workspace.config.chain.contract}，台账登记的是 {row.contract}",
            f"[chain] contract is {workspace.config.chain.contract}, the store was made for {row.contract}",
            str(workspace.root / "duizhang.toml"),
        )
    origin = Block(row.origin_number, row.origin_hash)
    return Identity(row.chain_id, row.contract, row.code_sha256, origin), Block(row.block_number, row.block_hash)
