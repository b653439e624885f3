"""The dump: what is kept of it, and what is refused as no whole chain."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from ledger.chain import dump as dumps
from ledger.errors import ChainError


def block(number: int, time: int = 100, state: str = "0x00") -> dict[str, Any]:
    return {
        "header": {
            "number": hex(number),
            "timestamp": hex(time),
            "parentHash": f"0x{number:x}",
            "stateRoot": state,
            "transactionsRoot": "0x",
            "receiptsRoot": "0x",
            "mixHash": "0x",
        }
    }


def made(*blocks: dict[str, Any], best: int = 2, state_of: int = 2) -> dict[str, Any]:
    return {"block": {"number": hex(state_of)}, "best_block_number": best, "accounts": {}, "blocks": list(blocks)}


def unpacked(dump: object) -> dumps.Dump:
    return dumps.unpack(gzip.compress(json.dumps(dump).encode()))


def test_blocks_are_put_in_order_and_only_the_oldest_block_0_is_kept() -> None:
    cleaned = unpacked(made(block(2), block(0, 300), block(0, 20), block(1), block(0, 100)))
    assert [dumps.number_of(b["header"]) for b in cleaned["blocks"]] == [0, 1, 2]
    assert cleaned["blocks"][0]["header"]["timestamp"] == hex(20)
    assert dumps.number_of(dumps.head(cleaned)) == 2
    assert cleaned["accounts"] == {}


@pytest.mark.parametrize(
    "dump",
    [
        made(block(0), block(2)),
        made(block(0), block(1)),
        made(block(1), block(2)),
        made(block(0), block(1), block(2), block(2)),
        made(block(0), block(1), block(2), block(3)),
        made(block(0), block(1), block(2), state_of=1),
        made(block(0), block(1), block(2), best=3),
        {},
        [],
        {"blocks": [{}]},
    ],
)
def test_a_dump_that_is_no_whole_chain_is_refused(dump: object) -> None:
    with pytest.raises(ChainError) as caught:
        unpacked(dump)
    assert caught.value.code == "chain.dump_refused"


@pytest.mark.parametrize(
    "raw", [b"", b"plain", gzip.compress(b"not json", mtime=0), gzip.compress(b"{}" * 99, mtime=0)[:-9]]
)
def test_bytes_that_are_no_dump_are_refused(raw: bytes) -> None:
    with pytest.raises(ChainError) as caught:
        dumps.unpack(raw)
    assert caught.value.code == "chain.dump_refused"


def test_a_dump_holds_its_own_blocks_and_no_others() -> None:
    dump = unpacked(made(block(0), block(1), block(2)))
    for number in range(3):
        assert dumps.holds(dump, block(number)["header"])
    assert not dumps.holds(dump, block(3)["header"])
    for member in ("parentHash", "stateRoot", "transactionsRoot", "receiptsRoot", "timestamp", "mixHash"):
        assert not dumps.holds(dump, {**block(2)["header"], member: "0xff"})


def test_a_saved_dump_comes_back_and_a_damaged_one_does_not(tmp_path: Path) -> None:
    dump = unpacked(made(block(0), block(1), block(2)))
    path = tmp_path / "dump.json"
    assert dumps.load(path) is None
    dumps.save(path, dump)
    assert dumps.load(path) == dump
    data = path.read_bytes()
    for damaged in (b"", data[:-1], b"[]", b'{"blocks":[]}'):
        path.write_bytes(damaged)
        assert dumps.load(path) is None
