"""The saved state of the local chain: what of anvil's dump is kept, and how it reaches the disk.

anvil's own way to save truncates and rewrites its file in place, so that a kill leaves half a file; here the old dump stays
until a complete new one has replaced it. Every restart of anvil adds a block 0 of its own to the dump, and which of them the
next start takes is chance: only the oldest, to which block 1 points, is kept.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ledger.errors import ChainError

Dump = dict[str, Any]
Header = Mapping[str, Any]

# What the dump's headers and eth_getBlockByNumber spell alike and what no two blocks of different chains share.
_IDENTITY = ("number", "parentHash", "stateRoot", "transactionsRoot", "receiptsRoot", "timestamp", "mixHash")


def unpack(raw: bytes) -> Dump:
    """The dump that `anvil_dumpState` gave as `raw` (gzip of JSON), cleaned: one block 0, blocks in order.

    ChainError `chain.dump_refused` unless it is whole: blocks 0 to its best block, each there once.
    """
    try:
        dump = json.loads(gzip.decompress(raw))
        blocks = dump["blocks"]
        first = min((b for b in blocks if _number(b) == 0), key=lambda b: int(b["header"]["timestamp"], 16))
        rest = sorted((b for b in blocks if _number(b) > 0), key=_number)
        best = int(dump["best_block_number"])
        state_of = int(dump["block"]["number"], 16)
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        raise _refused(f"无法解析（{error!r}）", f"it cannot be read ({error!r})") from error
    if [_number(b) for b in rest] != list(range(1, best + 1)) or state_of != best:
        raise _refused(
            f"区块不完整：最新区块 {best}，状态属于区块 {state_of}，共 {len(rest)} 个后续区块",
            f"blocks are missing: best block {best}, state of block {state_of}, {len(rest)} blocks after block 0",
        )
    return {**dump, "blocks": [first, *rest]}


def head(dump: Dump) -> Header:
    """The header of the last block in a cleaned dump."""
    header: Header = dump["blocks"][-1]["header"]
    return header


def number_of(header: Header) -> int:
    """The block number of a header, as the dump or as JSON-RPC spells it."""
    return int(header["number"], 16)


def same_block(a: Header, b: Header) -> bool:
    """True if two headers, from a dump or from JSON-RPC, are those of one and the same block."""
    return all(a.get(member) == b.get(member) for member in _IDENTITY)


def holds(dump: Dump, header: Header) -> bool:
    """True if the block with this header is part of the dump's chain."""
    number = number_of(header)
    if number >= len(dump["blocks"]):
        return False
    return number == 0 or same_block(dump["blocks"][number]["header"], header)


def load(path: Path) -> Dump | None:
    """The dump in a file that `save` wrote; None if there is none or it is damaged."""
    try:
        dump: Dump = json.loads(path.read_bytes())
        head(dump)
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None
    return dump


def save(path: Path, dump: Dump) -> None:
    """Put `dump` at `path`: after a crash at any moment the file is wholly the old one or wholly the new one.

    ChainError `chain.dump_not_written` if the disk refuses (full, read-only); the old dump then stands.
    """
    replace(path, json.dumps(dump, separators=(",", ":")).encode())


def replace(path: Path, data: bytes) -> None:
    """Write, fsync, rename, fsync the folder: in this order nothing half-written ever has the name `path`."""
    # A fixed name: what a killed writer left behind is overwritten by the next one, which holds the chain's lock.
    temporary = path.with_name(path.name + ".new")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ChainError(
            "chain.dump_not_written",
            f"无法保存本地链：{error.strerror or error}；请检查磁盘空间与目录权限，原有存档未受影响",
            f"the local chain cannot be saved: {error.strerror or error}; check disk space and permissions. "
            "What was saved before is untouched",
            str(path),
        ) from error


def _number(block: Mapping[str, Any]) -> int:
    return int(block["header"]["number"], 16)


def _refused(zh: str, en: str) -> ChainError:
    return ChainError(
        "chain.dump_refused",
        f"节点给出的链存档不可用，未保存：{zh}",
        f"the node's dump cannot be used and was not saved: {en}",
    )
