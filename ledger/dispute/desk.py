"""The dispute registry of the workspace's chain: reading it, sending to it, keeping the documents whose hashes go there."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from ledger.anchor.claims import finish
from ledger.anchor.outbox import store_signed
from ledger.batch.book import now
from ledger.batch.job import Job
from ledger.chain.account import load_account
from ledger.chain.disputes import DisputeRegistry, DisputeView
from ledger.errors import ChainError, InputError
from ledger.store import models
from ledger.store.files import os_errors, write_atomic


def dispute_registry(job: Job) -> DisputeRegistry:
    """The registry named in [chain] disputes, checked: our code, reading our anchor registry. InputError `dispute.no_registry`."""
    address = job.workspace.config.chain.disputes
    if address is None:
        raise InputError(
            "dispute.no_registry",
            "本工作区未配置争议合约：请向建链一方索取地址，填入 duizhang.toml 的 [chain] disputes",
            "this workspace knows no dispute registry: ask whoever made the chain for its address and put it into [chain] disputes",
            str(job.workspace.root / "duizhang.toml"),
        )
    registry = DisputeRegistry(job.link.rpc, address)
    registry.check(job.link.identity.contract)
    return registry


def send(job: Job, purpose: models.Purpose, data: bytes, done: Callable[[DisputeView], bool]) -> DisputeView:
    """Send a transaction to the dispute registry, through the outbox; what the registry shows afterwards.

    Killed anywhere, the next run finishes the stored transaction. ChainError `chain.reverted` unless it is `done` then.
    """
    registry = dispute_registry(job)
    # Whoever may not act is told so before anything is signed.
    _ = job.address
    account = load_account(job.workspace.keystore, job.workspace.password_file)
    with job.store.write() as session:
        row = store_signed(session, job.link, account, purpose, data, to=registry.address, moment=now())
    finish(job.store, job.link)
    view = registry.view()
    if not done(view):
        raise ChainError(
            "chain.reverted",
            f"交易 0x{row.hash}（{purpose}）没有生效",
            f"transaction 0x{row.hash} ({purpose}) had no effect",
            job.link.rpc.where,
        )
    return view


def keep_evidence(job: Job, data: bytes) -> str:
    """Keep a document under `evidence/<SHA-256>.json` (0600), which it may be in already; its SHA-256 in hex."""
    digest = sha256(data).hexdigest()
    path = evidence_path(job, digest)
    with os_errors(path):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        present = path.is_file() and path.read_bytes() == data
    if not present:
        write_atomic(path, data, overwrite=True)
    return digest


def evidence_path(job: Job, digest: str) -> Path:
    """Where the document of that hash is kept, if it was made here."""
    return job.workspace.root / "evidence" / f"{digest}.json"
