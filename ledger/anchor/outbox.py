"""Signed transactions, stored before they are sent (design section 6).

    sign -> store raw, hash, nonce -> send -> receipt -> final -> (embedded chain: dump) -> confirmed

A restart finds the stored bytes and enters the same path further along. A time-out means unknown: the receipt is looked up, then the
same bytes are sent again; they can take effect once. What took effect is decided by reading the contract, in `claims`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ledger.anchor.link import Link
from ledger.chain.finality import Reorganised, final_height, is_final
from ledger.chain.identity import Block
from ledger.chain.transactions import Outcome, next_nonce, prepare, receipt, send_raw, wait_for_receipt
from ledger.errors import ChainError
from ledger.store import models
from ledger.store.db import Store

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

RECEIPT_SECONDS = 30.0
FINAL_SECONDS = 120.0
"""How long a job waits for finality before it ends with exit 2; the next run goes on from there."""
UNFINISHED: tuple[models.TransactionState, ...] = ("signed", "sent", "mined")


@dataclass(frozen=True)
class Final:
    """Transactions that are final and, on the embedded chain, safely dumped.

    `remembered` is the block to remember, `height` the last block whose anchors may be called confirmed.
    """

    transactions: tuple[models.Transaction, ...]
    remembered: Block
    height: int


def store_signed(
    session: Session,
    link: Link,
    account: LocalAccount,
    purpose: models.Purpose,
    data: bytes,
    *,
    to: str | None,
    moment: str,
) -> models.Transaction:
    """Try, sign and store a transaction; it is sent by `settle`. ChainError if the contract would refuse it."""
    address = str(account.address).lower()
    waiting = session.scalar(
        select(func.max(models.Transaction.nonce)).where(
            models.Transaction.address == address, models.Transaction.state.in_(UNFINISHED)
        )
    )
    nonce = max(next_nonce(link.rpc, address), -1 if waiting is None else waiting + 1)
    signed = prepare(link.rpc, account, chain_id=link.identity.chain_id, to=to, data=data, nonce=nonce)
    row = models.Transaction(
        purpose=purpose,
        address=address,
        nonce=signed.nonce,
        raw=signed.raw.hex(),
        hash=signed.hash.removeprefix("0x"),
        state="signed",
        created_at=moment,
        updated_at=moment,
    )
    session.add(row)
    session.flush()
    return row


def unfinished(session: Session) -> list[models.Transaction]:
    """Stored transactions whose outcome is not yet confirmed, by nonce."""
    chosen = select(models.Transaction).where(models.Transaction.state.in_(UNFINISHED))
    return list(session.scalars(chosen.order_by(models.Transaction.address, models.Transaction.nonce)))


def settle(store: Store, link: Link, now: Callable[[], str]) -> Final:
    """Bring every stored transaction to the point where it is final (and dumped), or replaced by another of its nonce.

    ChainError `chain.pending` if the node does not tell in time: nothing is lost, the next run asks again.
    """
    with store.read() as session:
        rows = unfinished(session)
    for row in rows:
        _mine(store, link, row, now)
    with store.read() as session:
        mined = [row for row in unfinished(session) if row.state == "mined"]
    remembered = None
    if link.local is not None:
        # Only what is in a written dump survives a kill of the node, so nothing is confirmed before. A node killed just now comes
        # back from an older dump here: the look at each block below then finds it gone.
        number, block_hash = link.local.checkpoint()
        remembered = Block(number, block_hash.removeprefix("0x"))
    for row in mined:
        _wait_final(store, link, row, now)
    if remembered is None:
        return Final(tuple(mined), _last_block(link, mined), final_height(link.rpc, link.finality))
    for row in mined:
        if _block_of(row).number > remembered.number:
            raise ChainError(
                "chain.pending",
                f"交易 0x{row.hash} 尚未写入链的存盘；下次运行会继续",
                f"transaction 0x{row.hash} is not in the chain's dump yet; the next run goes on",
                link.rpc.where,
            )
    return Final(tuple(mined), remembered, remembered.number)


def _mine(store: Store, link: Link, row: models.Transaction, now: Callable[[], str]) -> None:
    """From stored bytes to a receipt; `row` is brought up to date."""
    name = f"0x{row.hash}"
    found = receipt(link.rpc, name)
    if found is None:
        if next_nonce(link.rpc, row.address) > row.nonce:
            # Looked up once more: it may have been mined between the two questions.
            found = receipt(link.rpc, name)
            if found is None:
                _update(store, row, now, state="replaced", block_number=None, block_hash=None)
                return
        else:
            # What a restart finds if we die here: the same bytes, to be sent again.
            _update(store, row, now, state="sent", block_number=None, block_hash=None)
            sent = send_raw(link.rpc, bytes.fromhex(row.raw))
            if sent.outcome not in (Outcome.ACCEPTED, Outcome.ALREADY_KNOWN):
                _update(store, row, now, error=sent.en)
            found = wait_for_receipt(link.rpc, name, RECEIPT_SECONDS)
            if found is None and sent.outcome is Outcome.REFUSED:
                raise ChainError(
                    "chain.refused",
                    f"节点拒绝交易 {name}：{sent.zh}",
                    f"the node refuses transaction {name}: {sent.en}",
                    link.rpc.where,
                )
    if found is None:
        raise ChainError(
            "chain.pending",
            f"交易 {name} 尚无回执，结果未知；已保存，下次运行会继续查询",
            f"transaction {name} has no receipt yet, its outcome is unknown; it is stored, the next run asks again",
            link.rpc.where,
        )
    _update(
        store,
        row,
        now,
        state="mined",
        block_number=found.block,
        block_hash=found.block_hash.removeprefix("0x"),
        error=None if found.ok else "reverted",
    )


def _wait_final(store: Store, link: Link, row: models.Transaction, now: Callable[[], str]) -> None:
    deadline = time.monotonic() + FINAL_SECONDS
    block = _block_of(row)
    while True:
        try:
            if is_final(link.rpc, link.finality, block.number, f"0x{block.hash}"):
                return
        except Reorganised:
            _update(store, row, now, state="sent", block_number=None, block_hash=None)
            raise
        if time.monotonic() >= deadline:
            raise ChainError(
                "chain.pending",
                f"交易 0x{row.hash} 已打包，尚未达到终局条件 {link.finality}；下次运行会继续",
                f"transaction 0x{row.hash} is mined but not yet final under {link.finality}; the next run goes on",
                link.rpc.where,
            )
        time.sleep(0.2)


def _last_block(link: Link, mined: Sequence[models.Transaction]) -> Block:
    # Nothing new: the identity block, which is older than any remembered one and so changes nothing.
    return max((_block_of(row) for row in mined), key=lambda block: block.number, default=link.identity.block)


def _block_of(row: models.Transaction) -> Block:
    if row.block_number is None or row.block_hash is None:
        raise ValueError(f"transaction 0x{row.hash} is {row.state} and has no block")
    return Block(row.block_number, row.block_hash)


def _update(store: Store, row: models.Transaction, now: Callable[[], str], **values: object) -> None:
    with store.write() as session:
        stored = session.get_one(models.Transaction, row.id)
        for name, value in {**values, "updated_at": now()}.items():
            setattr(stored, name, value)
            setattr(row, name, value)
