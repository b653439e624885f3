"""When a block counts for ever (design section 6). Standard library only.

`instant`: as soon as it is there (chains without forks, the local chain). `depth:N`: when N blocks stand on it.
`finalized`: when the node's tag says so. In each case the block is read again by its number and must still have its hash.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ledger.chain.rpc import Rpc, RpcAnswered, quantity
from ledger.errors import ChainError, InputError

_FORM = re.compile(r"instant|finalized|depth:([1-9][0-9]{0,5})")


class Reorganised(ChainError):
    """The block is no longer part of the chain: its transactions must be sent again, oldest first."""


@dataclass(frozen=True)
class Finality:
    """A network's finality policy; `depth` is 0 unless `kind` is depth."""

    kind: Literal["instant", "depth", "finalized"]
    depth: int = 0

    def __str__(self) -> str:
        return f"depth:{self.depth}" if self.kind == "depth" else self.kind


def parse_finality(text: str, where: str = "") -> Finality:
    """The policy written as "instant", "depth:N" (1 to 999,999) or "finalized"."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise InputError(
            "config.finality",
            f"finality 应为 instant、depth:N 或 finalized，现为 {text!r}",
            f"finality must be instant, depth:N or finalized, not {text!r}",
            where,
        )
    if match[1]:
        return Finality("depth", int(match[1]))
    return Finality("instant" if text == "instant" else "finalized")


def is_final(rpc: Rpc, policy: Finality, number: int, block_hash: str) -> bool:
    """True if the block is final, False if it must still wait.

    Reorganised if the chain has another block, or none, at that number: then nothing of it may be relied on.
    """
    # The height first: a block that is replaced after this line has not yet been called final by it.
    height = final_height(rpc, policy)
    block = rpc.call("eth_getBlockByNumber", hex(number), False)
    found = str(block.get("hash")) if isinstance(block, dict) else None
    if found is None or found.lower() != block_hash.lower():
        raise Reorganised(
            "chain.reorganised",
            f"区块 {number} 已不是 {block_hash}（现为 {found or '无'}）：链发生重组，其中的交易须重新发送",
            f"block {number} is no longer {block_hash} (now {found or 'none'}): the chain was reorganised, and what was "
            "in it must be sent again",
            rpc.where,
        )
    return number <= height


def final_height(rpc: Rpc, policy: Finality) -> int:
    """The number of the newest block that is final now, -1 while none is."""
    if policy.kind != "finalized":
        return quantity(rpc.call("eth_blockNumber"), "eth_blockNumber") - policy.depth
    try:
        block = rpc.call("eth_getBlockByNumber", "finalized", False)
    except RpcAnswered as error:
        raise ChainError(
            "chain.no_finalized",
            f'该节点不支持 finalized 标记（{error.rpc_message}）；请改用 finality = "depth:N"',
            f'this node does not know the tag finalized ({error.rpc_message}); set finality = "depth:N"',
            rpc.where,
        ) from error
    # Null while nothing is final yet.
    return quantity(block["number"], "block number") if isinstance(block, dict) else -1
