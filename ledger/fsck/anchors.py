"""The store against the chain: what it claims to have anchored is there, and nothing of ours is there that it does not know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ledger.anchor.claims import OPEN
from ledger.anchor.link import known_chain
from ledger.chain.identity import Block, Identity, check_identity
from ledger.chain.local import LocalChain
from ledger.chain.registry import AnchorRecord, Registry, RegistryView
from ledger.chain.rpc import Rpc, hex_bytes
from ledger.chain.view import time_utc
from ledger.errors import ChainError
from ledger.fsck.report import Check, Remark, Report
from ledger.fsck.tables import Tables
from ledger.store import models
from ledger.store.db import Store
from ledger.workspace import Workspace

_BLOCKS_AT_ONCE = 100


@dataclass(frozen=True)
class Reading:
    """The chain as fsck found it: a connection to the node, and one reading of the registry."""

    rpc: Rpc
    view: RegistryView


@contextmanager
def open_chain(report: Report, workspace: Workspace, store: Store) -> Iterator[Reading | None]:
    """Check the chain's identity, the remembered block, and that its events and storage tell one history.

    Gives None where the chain could not be read; the checks say why. Needs no account: nothing is signed.
    """
    chain = report.open("chain", "链的身份与记住的区块", "the chain's identity and the remembered block")
    registry = report.open("registry", "合约：事件与存储一致", "the contract: events and storage agree")
    identity: Identity | None = None
    remembered: Block | None = None
    rpc: Rpc | None = None
    with chain.guard():
        with store.read() as session:
            identity, remembered = known_chain(session, workspace)
        config = workspace.config.chain
        rpc = Rpc(LocalChain(workspace.chain_home).ensure_running() if config.embedded else config.rpc)
        try:
            check_identity(rpc, identity)
        except ChainError:
            rpc.close()
            rpc = None
            raise
    if rpc is None or identity is None:
        _not_reached(registry)
        yield None
        return
    with rpc:
        with chain.guard():
            check_identity(rpc, identity, remembered)
        if remembered is not None:
            chain.seen(
                f"链 {identity.chain_id}，合约 {identity.contract}，记住的区块 {remembered.number}",
                f"chain {identity.chain_id}, contract {identity.contract}, remembered block {remembered.number}",
            )
        view: RegistryView | None = None
        with registry.guard():
            contract = Registry(rpc, identity.contract)
            view = contract.view()
            contract.audit(view)
            registry.seen(
                f"区块 {view.block}，{len(view.parties)} 个参与方，{sum(map(len, view.anchors.values()))} 次上链",
                f"block {view.block}, {len(view.parties)} parties, {sum(map(len, view.anchors.values()))} anchors",
            )
        yield None if view is None else Reading(rpc, view)


def check_anchors(report: Report, workspace: Workspace, tables: Tables, reading: Reading | None) -> None:
    """Claims against anchors in both directions, the blocks of confirmed transactions, and the senders' anchors."""
    claims = report.open("claims", "台账的上链登记与链一致", "the store's claims are what the chain holds")
    anchors = report.open("anchors", "本方的每次上链台账都知道", "the store knows every anchor of this party")
    lawful = report.open("lawful", "合法条目集与发送方的上链", "lawful sets and their senders' anchors")
    blocks = report.open("blocks", "已确认交易所在的区块", "the blocks of confirmed transactions")
    if reading is None:
        for check in (claims, anchors, lawful, blocks):
            _not_reached(check)
        return
    _check_claims(claims, workspace.party, tables, reading.view)
    check_known(anchors, workspace.party, tables, reading.view)
    _check_lawful(lawful, workspace.party, tables, reading.view)
    with blocks.guard():
        _check_blocks(blocks, tables, reading.rpc)


def _not_reached(check: Check) -> None:
    check.cannot("chain.not_read", "链未能读取，未核对", "the chain could not be read; not checked")


# ---- the store's claims, on chain ----


def _check_claims(check: Check, party: str, tables: Tables, view: RegistryView) -> None:
    for batch_row in tables.batches.values():
        _check_addresses(check, batch_row, view, tables.name(batch_row.id))
    claimed = {claim.entry_set_id for claim in tables.claims}
    for entry_set in tables.sets.values():
        owner = tables.batches.get(entry_set.batch_id)
        if owner is not None and _author(owner, entry_set) == party and entry_set.id not in claimed:
            check.broken(
                "claim.missing",
                "本方的条目集没有上链登记",
                "this entry set of ours has no claim",
                f"entry_set {entry_set.id} · {tables.name(entry_set.batch_id)}",
            )
    for claim in tables.claims:
        where = f"claim {claim.id} · {tables.name(claim.batch_id)}"
        batch, claimed_set = tables.batches.get(claim.batch_id), tables.sets.get(claim.entry_set_id)
        if batch is None or claimed_set is None or claimed_set.batch_id != claim.batch_id:
            check.broken(
                "claim.dangling",
                "上链登记所指的批次或条目集不存在",
                "the claim's batch or entry set is not there",
                where,
            )
            continue
        author = _author(batch, claimed_set)
        if author != party:
            check.broken(
                "claim.not_ours",
                f"上链登记属于 {author or '（无）'}，不是本方 {party}",
                f"the claim is {author or 'nobody'}'s to make, this party is {party}",
                where,
            )
            continue
        if claim.state == "confirmed":
            _check_confirmed(check, claim, claimed_set, view, party, where)
        elif claim.state in OPEN:
            _check_open(check, claim, claimed_set, view, party, where)
        else:
            check.notes.append(
                Remark(
                    "claim.overtaken",
                    "该登记未生效：当时链上已有别的版次",
                    "this claim took no effect: the chain held another revision then",
                    where,
                )
            )
    check.seen(f"{len(tables.claims)} 条登记", f"{len(tables.claims)} claims")


def _author(batch: models.Batch, entry_set: models.EntrySet) -> str:
    return batch.sender_party if entry_set.role == "lawful" else batch.receiver_party


def _check_addresses(check: Check, batch: models.Batch, view: RegistryView, where: str) -> None:
    for name, address in ((batch.sender_party, batch.sender), (batch.receiver_party, batch.receiver)):
        if name and address not in {holding.account for holding in view.parties.get(name, ())}:
            check.broken(
                "batch.party",
                f"台账称账户 {address} 属于 {name}，链上从未如此登记",
                f"the store says that {address} is {name}'s; on chain it never was",
                where,
            )


def _check_confirmed(
    check: Check, claim: models.Claim, entry_set: models.EntrySet, view: RegistryView, party: str, where: str
) -> None:
    revisions = view.revisions(claim.batch_id, party)
    record = next((record for record in revisions if record.revision == claim.revision), None)
    if record is None:
        check.broken(
            "claim.not_on_chain",
            f"登记为已确认的第 {claim.revision} 版不在链上（链上有 {len(revisions)} 版）",
            f"revision {claim.revision}, recorded as confirmed, is not on chain ({len(revisions)} revisions there)",
            where,
        )
        return
    pairs = [
        ("size", entry_set.size, record.size),
        ("root", entry_set.root, record.root),
        ("sequence", claim.sequence, record.sequence),
        ("position", claim.position, record.position),
        ("block_number", claim.block_number, record.block),
        ("chain_time", claim.chain_time, time_utc(record.time)),
    ]
    for name, stored, on_chain in pairs:
        if stored != on_chain:
            check.broken(
                f"claim.{name}",
                f"第 {record.revision} 版的 {name}：台账为 {stored}，链上为 {on_chain}",
                f"{name} of revision {record.revision}: the store has {stored}, the chain {on_chain}",
                where,
            )


def _check_open(
    check: Check, claim: models.Claim, entry_set: models.EntrySet, view: RegistryView, party: str, where: str
) -> None:
    revisions = view.revisions(claim.batch_id, party)
    if claim.known_revisions > len(revisions):
        check.broken(
            "claim.known_revisions",
            f"待上链的登记以为链上已有 {claim.known_revisions} 版，实有 {len(revisions)} 版",
            f"this open claim counts on {claim.known_revisions} revisions on chain; there are {len(revisions)}",
            where,
        )
        return
    mined = bool(revisions) and (revisions[-1].size, revisions[-1].root) == (entry_set.size, entry_set.root)
    check.pending.append(
        Remark(
            "claim.mined" if mined else "claim.open",
            "已在链上，尚未登记为已确认；下一次作业会办完" if mined else "尚未上链；下一次作业会办完",
            "on chain, not yet recorded as confirmed; the next job finishes it"
            if mined
            else "not on chain yet; the next job finishes it",
            where,
        )
    )


# ---- the chain's anchors, in the store ----


def check_known(check: Check, party: str, tables: Tables, view: RegistryView) -> None:
    """Each anchor of `party` is in the store, confirmed or open, and no revision repeats the one before it."""
    confirmed = {(claim.batch_id, claim.revision) for claim in tables.claims if claim.state == "confirmed"}
    waiting = {
        (claim.batch_id, entry_set.size, entry_set.root)
        for claim in tables.claims
        if claim.state in OPEN and (entry_set := tables.sets.get(claim.entry_set_id)) is not None
    }
    records = view.anchors.get(party, ())
    before: dict[str, AnchorRecord] = {}
    for record in records:
        known = (record.batch_id, record.revision) in confirmed
        if not known and (record.batch_id, record.size, record.root) not in waiting:
            check.broken(
                "store.rolled_back",
                f"链上有本方第 {record.sequence} 次上链（第 {record.revision} 版，区块 {record.block}，{record.size} 条），"
                "台账没有：台账被换成旧备份，或账户在别处使用",
                f"the chain holds anchor {record.sequence} of this party (revision {record.revision}, block {record.block}, "
                f"{record.size} entries), the store does not: it is an old backup, or the account is used elsewhere",
                tables.name(record.batch_id),
            )
        last = before.get(record.batch_id)
        if last is not None and (last.size, last.root) == (record.size, record.root):
            check.broken(
                "chain.repeated",
                f"第 {last.revision} 版与第 {record.revision} 版内容相同，合约不会如此",
                f"revisions {last.revision} and {record.revision} say the same, which the contract never does",
                tables.name(record.batch_id),
            )
        before[record.batch_id] = record
    check.seen(f"链上 {len(records)} 次", f"{len(records)} on chain")


def _check_lawful(check: Check, party: str, tables: Tables, view: RegistryView) -> None:
    confirmed = {claim.batch_id for claim in tables.claims if claim.state == "confirmed"}
    count = 0
    for entry_set in tables.sets.values():
        batch = tables.batches.get(entry_set.batch_id)
        if entry_set.role != "lawful" or batch is None:
            continue
        count += 1
        where = f"{entry_set.entries_file} · {tables.name(batch.id)}"
        values = [(record.size, record.root) for record in view.revisions(batch.id, batch.sender_party)]
        mine = (entry_set.size, entry_set.root)
        if mine in values[-1:]:
            continue
        if mine in values:
            check.notes.append(
                Remark(
                    "lawful.revised",
                    f"{batch.sender_party} 之后又改过该批次：这一条目集不再是其现行内容",
                    f"{batch.sender_party} revised this batch since: this set is no longer what it says now",
                    where,
                )
            )
        elif batch.sender_party != party and batch.id in confirmed:
            check.broken(
                "lawful.never_anchored",
                f"{batch.sender_party} 从未上链过这样的条数与根",
                f"{batch.sender_party} never anchored this size and root",
                where,
            )
        elif batch.sender_party != party:
            check.notes.append(
                Remark(
                    "lawful.not_on_chain",
                    f"链上（现在）没有 {batch.sender_party} 的相应上链；本方也未就该批次上链",
                    f"the chain has (now) no such anchor of {batch.sender_party}; we have not anchored this batch either",
                    where,
                )
            )
    check.seen(f"{count} 个合法条目集", f"{count} lawful sets")


def _check_blocks(check: Check, tables: Tables, rpc: Rpc) -> None:
    rows = [row for row in tables.outbox if row.state == "confirmed"]
    numbers = sorted({int(row.block_number) for row in rows if row.block_number is not None})
    hashes: dict[int, str] = {}
    for start in range(0, len(numbers), _BLOCKS_AT_ONCE):
        page = numbers[start : start + _BLOCKS_AT_ONCE]
        found: Sequence[object] = rpc.batch([("eth_getBlockByNumber", (hex(number), False)) for number in page])
        for number, block in zip(page, found, strict=True):
            hashes[number] = hex_bytes(block.get("hash"), "block hash").hex() if isinstance(block, dict) else "-"
    for row in rows:
        on_chain = hashes.get(row.block_number or 0, "-")
        if on_chain != row.block_hash:
            check.broken(
                "outbox.block",
                f"登记为已确认，所在区块 {row.block_number} 应为 {row.block_hash}，链上为 {on_chain}",
                f"recorded as confirmed in block {row.block_number} ({row.block_hash}); the chain has {on_chain} there",
                f"outbox {row.id} 0x{row.hash}",
            )
    check.seen(f"{len(rows)} 笔，{len(numbers)} 个区块", f"{len(rows)} transactions, {len(numbers)} blocks")
