"""The local chain: nothing confirmed is lost, whatever is killed when."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledger.chain import dump as dumps
from ledger.chain import node as nodes
from ledger.chain.rpc import Rpc
from ledger.chain.transactions import encode_anchor
from ledger.errors import ChainError

from .conftest import Deployed, claim


def refused(code: str, action: Callable[[], Any]) -> ChainError:
    with pytest.raises(ChainError) as caught:
        action()
    assert caught.value.code == code, caught.value.en
    assert caught.value.zh
    return caught.value


def mine(url: str, blocks: int = 1) -> None:
    with Rpc(url) as rpc:
        rpc.call("anvil_mine", hex(blocks))


def test_what_was_saved_survives_kill_9_round_after_round(deployed: Deployed) -> None:
    saved: list[tuple[int, str]] = []
    for number in range(6):
        deployed.anchor(claim(b"batch %d" % number))
        saved.append(deployed.chain.checkpoint())
        deployed.anchor(claim(b"never saved %d" % number))
        deployed = deployed.restarted()
        view = deployed.registry.view()
        assert len(view.anchors["guangzhou"]) == number + 1
        deployed.registry.audit(view)
        for block, block_hash in saved:
            assert deployed.rpc.call("eth_getBlockByNumber", hex(block), False)["hash"] == block_hash


def test_a_dump_keeps_one_block_0_however_often_the_node_was_restarted(deployed: Deployed) -> None:
    first = deployed.rpc.call("eth_getBlockByNumber", "0x1", False)
    for _ in range(2):
        # Another second, so that the block 0 of the restarted node is another one.
        time.sleep(1.01)
        deployed = deployed.restarted()
        mine(deployed.chain.ensure_running())
        deployed.chain.checkpoint()
    saved = dumps.load(deployed.chain.home / "dump.json")
    assert saved is not None
    numbers = [dumps.number_of(block["header"]) for block in saved["blocks"]]
    assert numbers == list(range(len(numbers)))
    deployed = deployed.restarted()
    genesis = deployed.rpc.call("eth_getBlockByHash", first["parentHash"], False)
    assert genesis["number"] == "0x0"


def test_the_node_killed_at_random_moments_of_anchoring_and_saving_loses_nothing_confirmed(deployed: Deployed) -> None:
    """A killer strikes again and again while anchors are sent, resent and saved; each ends on chain exactly once."""
    stopped = threading.Event()
    kills: list[int] = []

    def killer() -> None:
        while not stopped.wait(random.uniform(0.02, 0.8)):
            for node in nodes.nodes_of(deployed.chain.home):
                try:
                    os.kill(node.pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                kills.append(node.pid)

    thread = threading.Thread(target=killer)
    thread.start()
    confirmed: list[str] = []
    try:
        while len(confirmed) < 6 or len(kills) < 5:
            descriptor = b"batch %d" % len(confirmed)
            try:
                deployed.rpc = Rpc(deployed.chain.ensure_running())
                deployed.anchor(claim(descriptor))
                # The node may have been killed and started again in between: only what the saved chain holds counts.
                number, _ = deployed.chain.checkpoint()
                last = deployed.registry.view().anchors["guangzhou"][-1]
            except (ChainError, AssertionError, IndexError):
                continue
            if last.batch_id == hashlib.sha256(descriptor).hexdigest() and last.block <= number:
                confirmed.append(last.batch_id)
    finally:
        stopped.set()
        thread.join()
    found = [record.batch_id for record in deployed.restarted().registry.view().anchors["guangzhou"]]
    assert found[: len(confirmed)] == confirmed
    # The last one may have been saved, and its saver stopped before it could call it confirmed.
    assert len(set(found)) == len(found) <= len(confirmed) + 1


def test_raw_transactions_replayed_on_a_chain_from_an_earlier_dump_anchor_exactly_once(deployed: Deployed) -> None:
    outbox = []
    for number in range(5):
        signed = deployed.prepare(encode_anchor([claim(b"batch %d" % number)]))
        deployed.send(signed)
        outbox.append(signed)
        if number == 1:
            deployed.chain.checkpoint()
    before = deployed.registry.view().anchors["guangzhou"]
    deployed = deployed.restarted()
    assert len(deployed.registry.view().anchors["guangzhou"]) == 2
    for signed in [*outbox, *outbox]:
        deployed.send(signed)
    after = deployed.registry.view().anchors["guangzhou"]
    assert [(r.batch_id, r.sequence, r.revision) for r in after] == [
        (r.batch_id, r.sequence, r.revision) for r in before
    ]


def test_a_saver_killed_between_writing_and_renaming_leaves_the_old_dump(deployed: Deployed) -> None:
    """The folder after a kill in the middle: half a temporary file, the old dump whole; the next save succeeds."""
    saved = deployed.chain.checkpoint()
    before = (deployed.chain.home / "dump.json").read_bytes()
    deployed.anchor(claim(b"batch"))
    script = (
        "import os, signal, sys; from pathlib import Path; from ledger.chain.local import LocalChain\n"
        "Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "LocalChain(Path(sys.argv[1])).checkpoint()"
    )
    done = subprocess.run([sys.executable, "-c", script, str(deployed.chain.home)], check=False)
    assert done.returncode == -signal.SIGKILL
    temporary = deployed.chain.home / "dump.json.new"
    assert temporary.exists()
    assert (deployed.chain.home / "dump.json").read_bytes() == before
    temporary.write_bytes(temporary.read_bytes()[:1000])
    assert deployed.chain.checkpoint()[0] == saved[0] + 1
    assert not temporary.exists()
    assert len(deployed.restarted().registry.view().anchors["guangzhou"]) == 1


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_dump(deployed: Deployed, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (deployed.chain.home / "dump.json").read_bytes()
    deployed.anchor(claim(b"batch"))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full) if step == "fsync" else patch.setattr(Path, "replace", full)
        refused("chain.dump_not_written", deployed.chain.checkpoint)
    assert (deployed.chain.home / "dump.json").read_bytes() == before
    assert not (deployed.chain.home / "dump.json.new").exists()
    deployed.chain.checkpoint()


def test_a_dump_is_on_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def seen_fsync(descriptor: int) -> None:
        steps.append("fsync folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "fsync file")
        fsync(descriptor)

    def seen_replace(self: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(Path, "replace", seen_replace)
    dumps.replace(tmp_path / "dump.json", b"{}")
    assert steps == ["fsync file", "rename", "fsync folder"]
