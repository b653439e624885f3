"""Logs of one contract, in ranges that a node answers. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ledger.chain.rpc import Rpc, RpcAnswered, hex_bytes, quantity
from ledger.chain.view import contradiction
from ledger.errors import ChainError

# Widest range of blocks asked for in one eth_getLogs: nodes and gateways that limit it allow at least this.
RANGE = 2000
"""Blocks in one question at most."""


def read_logs(rpc: Rpc, contract: str, first: int, last: int, topics: list[str]) -> list[dict[str, Any]]:
    """The contract's logs of these blocks with one of these first topics, in order; ranges a node refuses are halved."""
    logs: list[dict[str, Any]] = []
    span = RANGE
    where = f"{rpc.where} {contract}"
    while first <= last:
        until = min(last, first + span - 1)
        query = {"address": contract, "fromBlock": hex(first), "toBlock": hex(until), "topics": [topics]}
        try:
            page = rpc.call("eth_getLogs", query)
        except RpcAnswered:
            if span == 1:
                raise
            span = max(1, min(span, until - first + 1) // 2)
            continue
        if not isinstance(page, list):
            raise ChainError(
                "chain.no_contract",
                "节点对 eth_getLogs 的回答不是列表",
                "the node's answer to eth_getLogs is no list",
                where,
            )
        page = [log for log in page if not log.get("removed")]
        if not all(first <= quantity(log.get("blockNumber"), "blockNumber") <= until for log in page):
            raise contradiction(
                "节点给出了所问区块以外的事件", "the node gave an event of a block that was not asked for", where
            )
        logs += page
        first = until + 1
    for log in logs:
        if str(log.get("address", "")).lower() != contract or (log.get("topics") or [None])[0] not in topics:
            raise contradiction("节点给出了未请求的事件", "the node gave an event that was not asked for", where)
    return logs


def topic_of(log: Mapping[str, Any], number: int, where: str = "") -> bytes:
    """One topic of a log, 32 bytes; `where` names node and contract in the message."""
    topics = log.get("topics")
    if not isinstance(topics, list) or len(topics) <= number:
        raise contradiction("事件缺少主题", "an event lacks topics", where)
    return hex_bytes(topics[number], "log topic").rjust(32, b"\0")


def spans(blocks: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ranges of at most RANGE blocks that cover `blocks` (ascending) and begin and end at one of them."""
    first = last = -1
    for block in blocks:
        if first < 0 or block - first >= RANGE:
            if first >= 0:
                yield first, last
            first = block
        last = block
    if first >= 0:
        yield first, last
