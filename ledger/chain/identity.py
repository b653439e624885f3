"""Is this still the chain that we know (design section 6)? Asked before every job, never answered from a cache.

The local node's block 0 is not stable, so identity is the chain id, the contract's code, and a block with number 1 or more
whose hash we know. The remembered block, the last one that we know to be final, tells a chain that lost its newest part.
Standard library only.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from ledger.chain.contract import anchor_registry
from ledger.chain.rpc import Rpc, hex_bytes, quantity
from ledger.errors import ChainError


@dataclass(frozen=True)
class Block:
    """A block's number and its hash: 64 hex digits, lower case, no 0x."""

    number: int
    hash: str


@dataclass(frozen=True)
class Identity:
    """What makes a chain ours. `code_sha256` is the SHA-256 of what eth_getCode gives, in hex; `block.number` ≥ 1."""

    chain_id: int
    contract: str
    code_sha256: str
    block: Block


def check_identity(rpc: Rpc, identity: Identity, remembered: Block | None = None) -> None:
    """Return if the node serves this chain with this contract, and the remembered block where one is given.

    Else one of the ChainErrors `chain.other_chain` (another chain id, or another block at the identity block's number),
    `chain.empty` (ends before the identity block), `chain.no_contract`, `chain.other_code`, `chain.other_version` (the trusted
    contract, but not one that this version reads), `chain.lost` (the remembered block is not there).
    """
    found_id = chain_id(rpc)
    if found_id != identity.chain_id:
        raise ChainError(
            "chain.other_chain",
            f"链号应为 {identity.chain_id}，节点为 {found_id}：连到了另一条链，请检查节点地址",
            f"the chain id must be {identity.chain_id}, the node has {found_id}: this is another chain, check the address",
            rpc.where,
        )
    origin = block_at(rpc, identity.block.number)
    if origin is None:
        raise ChainError(
            "chain.empty",
            f"链上没有区块 {identity.block.number}：链是空的或已重置",
            f"the chain has no block {identity.block.number}: it is empty, or was started anew",
            rpc.where,
        )
    if origin.hash != identity.block.hash:
        raise ChainError(
            "chain.other_chain",
            f"区块 {identity.block.number} 的哈希应为 {identity.block.hash}，实为 {origin.hash}：是另一条链",
            f"block {identity.block.number} must have the hash {identity.block.hash}, it has {origin.hash}: "
            "this is another chain",
            rpc.where,
        )
    code = code_sha256(rpc, identity.contract)
    if code is None:
        raise ChainError(
            "chain.no_contract",
            f"链上该地址没有合约：{identity.contract}",
            f"there is no contract at {identity.contract} on this chain",
            rpc.where,
        )
    if code != identity.code_sha256:
        raise ChainError(
            "chain.other_code",
            f"合约 {identity.contract} 的代码与所信任的不同（SHA-256 应为 {identity.code_sha256}，实为 {code}）",
            f"the code of {identity.contract} is not the trusted one (SHA-256 must be {identity.code_sha256}, is {code})",
            rpc.where,
        )
    if code != anchor_registry().code_sha256:
        raise ChainError(
            "chain.other_version",
            f"合约 {identity.contract} 是所信任的，但属于本程序的另一版本（代码 SHA-256 {code}），本版本不能读取；请用建链时的版本",
            f"the contract {identity.contract} is the trusted one, but of another version of this program (code SHA-256 {code}), "
            "which this version cannot read: use the version that made the chain",
            rpc.where,
        )
    if remembered is not None:
        _check_remembered(rpc, remembered)


def _check_remembered(rpc: Rpc, remembered: Block) -> None:
    found = block_at(rpc, remembered.number)
    if found == remembered:
        return
    number = remembered.number
    state = (
        ("链变短了", "the chain is shorter") if found is None else (f"现为 {found.hash}", f"it now has {found.hash}")
    )
    raise ChainError(
        "chain.lost",
        f"链上找不到已确认的区块 {number}（{remembered.hash}；{state[0]}）：链丢失了已确认的内容，停止一切作业",
        f"the confirmed block {number} ({remembered.hash}) is not on the chain ({state[1]}): confirmed anchors are lost, "
        "all jobs stop",
        rpc.where,
    )


def chain_id(rpc: Rpc) -> int:
    """The chain id the node states now."""
    return quantity(rpc.call("eth_chainId"), "eth_chainId")


def block_at(rpc: Rpc, number: int | str) -> Block | None:
    """The block with that number or tag ("latest"), or None."""
    block = rpc.call("eth_getBlockByNumber", hex(number) if isinstance(number, int) else number, False)
    if not isinstance(block, dict):
        return None
    return Block(quantity(block.get("number"), "block number"), hex_bytes(block.get("hash"), "block hash").hex())


def code_sha256(rpc: Rpc, address: str) -> str | None:
    """SHA-256, in hex, of the code at an address; None if there is none."""
    code = hex_bytes(rpc.newest("eth_getCode", address, "latest"), "eth_getCode")
    return hashlib.sha256(code).hexdigest() if code else None
