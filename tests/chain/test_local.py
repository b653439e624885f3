"""The local chain: what is refused, that it is one node and the right one, and what saving and stopping do."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ledger.chain import dump as dumps
from ledger.chain import local as local_module
from ledger.chain import node as nodes
from ledger.chain.local import LocalChain
from ledger.chain.rpc import Rpc
from ledger.errors import ChainError

from .conftest import Deployed, claim, kill_nodes, root


def refused(code: str, action: Callable[[], Any]) -> ChainError:
    with pytest.raises(ChainError) as caught:
        action()
    assert caught.value.code == code, caught.value.en
    assert caught.value.zh
    return caught.value


def mine(url: str, blocks: int = 1) -> None:
    with Rpc(url) as rpc:
        for _ in range(blocks):
            rpc.call("anvil_mine", "0x1")


# ---- what is refused ----


def test_a_created_chain_without_its_dump_is_refused_never_started_empty(deployed: Deployed) -> None:
    kill_nodes(deployed.chain.home)
    (deployed.chain.home / "dump.json").unlink()
    error = refused("chain.dump_missing", deployed.chain.ensure_running)
    assert "dump.json" in error.where
    assert nodes.nodes_of(deployed.chain.home) == []
    refused("chain.dump_missing", deployed.chain.checkpoint)


def test_a_dump_that_was_cut_off_is_refused_with_what_the_node_said(deployed: Deployed) -> None:
    kill_nodes(deployed.chain.home)
    dump = deployed.chain.home / "dump.json"
    dump.write_bytes(dump.read_bytes()[:5000])
    error = refused("chain.not_started", deployed.chain.ensure_running)
    assert "EOF" in error.en
    assert nodes.nodes_of(deployed.chain.home) == []


def test_a_running_chain_that_lacks_the_last_saved_block_is_not_saved_over_it(deployed: Deployed) -> None:
    older = (deployed.chain.home / "dump.json").read_bytes()
    deployed.anchor(claim(b"batch"))
    number, _ = deployed.chain.checkpoint()
    newer = (deployed.chain.home / "dump.json").read_bytes()
    kill_nodes(deployed.chain.home)
    (deployed.chain.home / "dump.json").write_bytes(older)
    url = deployed.chain.ensure_running()
    (deployed.chain.home / "dump.json").write_bytes(newer)
    assert f"block {number}" in refused("chain.lost", deployed.chain.checkpoint).en
    # As high as the saved one, but another block.
    mine(url, 2)
    refused("chain.lost", deployed.chain.checkpoint)
    assert (deployed.chain.home / "dump.json").read_bytes() == newer


def test_a_damaged_dump_under_a_running_node_is_healed_by_the_next_save(deployed: Deployed) -> None:
    (deployed.chain.home / "dump.json").write_bytes(b"{")
    deployed.chain.checkpoint()
    assert deployed.restarted().registry.view().address("guangzhou") == deployed.address


def test_creating_twice_is_refused(chain: LocalChain) -> None:
    refused("chain.exists", lambda: LocalChain.create(chain.home))
    kill_nodes(chain.home)
    refused("chain.exists", lambda: LocalChain.create(chain.home))


def test_creating_over_a_chain_that_lost_its_settings_is_refused(deployed: Deployed) -> None:
    (deployed.chain.home / "chain.toml").unlink()
    dump = (deployed.chain.home / "dump.json").read_bytes()
    refused("chain.folder", lambda: LocalChain.create(deployed.chain.home))
    assert (deployed.chain.home / "dump.json").read_bytes() == dump


def test_creating_begins_again_after_a_create_that_was_killed(home: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from ledger.chain import dump; from ledger.chain.local import *\n"
        "replace = dump.replace\n"
        "def stop(path, data):\n"
        "    if path.name == 'chain.toml': os.kill(os.getpid(), signal.SIGKILL)\n"
        "    replace(path, data)\n"
        "dump.replace = stop\n"
        "LocalChain.create(Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", script, str(home)], check=False)
    assert (home / "dump.json").exists()
    refused("chain.not_created", LocalChain(home).ensure_running)
    left = nodes.nodes_of(home)
    assert len(left) == 1
    chain = LocalChain.create(home)
    assert left[0] not in nodes.nodes_of(home)
    assert chain.status().block == 0


def test_a_folder_without_a_chain_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    chain = LocalChain(tmp_path / "nothing")
    for action in (chain.ensure_running, chain.checkpoint, chain.down):
        refused("chain.not_created", action)
    assert not (tmp_path / "nothing").exists()
    assert chain.status().chain_id is None


@pytest.mark.parametrize("text", ["", "chain_id = 5", "chain_id = 'x'\nport = 1", "chain_id = [\n"])
def test_damaged_settings_are_refused(chain: LocalChain, text: str) -> None:
    (chain.home / "chain.toml").write_text(text)
    assert "chain.toml" in refused("chain.folder", chain.ensure_running).where


def test_a_machine_without_anvil_is_told_how_to_install_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUIZHANG_ANVIL", "/nowhere/anvil")
    error = refused("chain.anvil_missing", lambda: LocalChain.create(home))
    assert "npm install @foundry-rs/anvil" in error.en
    assert not home.exists()


def test_a_node_that_cannot_start_is_reported_with_its_own_words(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "anvil"
    fake.write_text("#!/bin/sh\necho \"version 'GLIBC_2.35' not found\" >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("DUIZHANG_ANVIL", str(fake))
    assert "GLIBC_2.35" in refused("chain.not_started", lambda: LocalChain.create(home)).en


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused("chain.folder", lambda: LocalChain.create(tmp_path / "file" / "chain"))


# ---- one node, and the right one ----


def test_processes_that_start_the_chain_at_once_share_one_node(deployed: Deployed) -> None:
    script = (
        "import sys; from pathlib import Path; from ledger.chain.local import LocalChain\n"
        "sys.stdin.readline(); print(LocalChain(Path(sys.argv[1])).ensure_running())"
    )
    command = [sys.executable, "-c", script, str(deployed.chain.home)]
    for _ in range(2):
        kill_nodes(deployed.chain.home)
        workers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)
        ]
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        found = {worker.communicate(timeout=60)[0] for worker in workers}
        assert found == {nodes.nodes_of(deployed.chain.home)[0].url + "\n"}
        assert len(nodes.nodes_of(deployed.chain.home)) == 1


def test_a_starter_killed_just_after_starting_leaves_a_node_that_the_next_one_uses(deployed: Deployed) -> None:
    kill_nodes(deployed.chain.home)
    script = (
        "import os, signal, sys; from pathlib import Path; from ledger.chain import local\n"
        "local.LocalChain._ready = lambda *_: None if not local.nodes.nodes_of(Path(sys.argv[1])) "
        "else os.kill(os.getpid(), signal.SIGKILL)\n"
        "local.LocalChain(Path(sys.argv[1])).ensure_running()"
    )
    done = subprocess.run([sys.executable, "-c", script, str(deployed.chain.home)], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = nodes.nodes_of(deployed.chain.home)
    assert deployed.chain.ensure_running() == left.url
    assert nodes.nodes_of(deployed.chain.home) == [left]


def test_a_port_taken_by_another_program_is_left_to_it(deployed: Deployed) -> None:
    for _ in range(10):
        port = nodes.nodes_of(deployed.chain.home)[0].port
        kill_nodes(deployed.chain.home)
        try:
            taken = socket.create_server(("127.0.0.1", port))
        except OSError:
            # Another test's connection was given this very port meanwhile.
            deployed.chain.ensure_running()
        else:
            break
    with taken:
        url = deployed.chain.ensure_running()
        assert url != f"http://127.0.0.1:{port}"
        assert replace(deployed, rpc=Rpc(url)).registry.view().parties
    kill_nodes(deployed.chain.home)
    assert deployed.chain.ensure_running() == f"http://127.0.0.1:{port}"


def test_a_port_lost_between_looking_and_starting_is_tried_again(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_nodes(deployed.chain.home)
    free_port = nodes.free_port
    with socket.create_server(("127.0.0.1", 0)) as taken:
        offered = [taken.getsockname()[1]]
        monkeypatch.setattr(nodes, "free_port", lambda preferred=0: offered.pop() if offered else free_port(preferred))
        url = deployed.chain.ensure_running()
        assert not offered
        assert url != f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_another_chain_on_the_port_is_not_taken_for_ours(deployed: Deployed, tmp_path: Path) -> None:
    mine_port = nodes.nodes_of(deployed.chain.home)[0].port
    kill_nodes(deployed.chain.home)
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    try:
        nodes.start(stranger, deployed.chain.chain_id, mine_port, None, stranger / "log")
        while not [n for n in nodes.nodes_of(stranger) if nodes.answers(n)]:
            time.sleep(0.01)
        url = deployed.chain.ensure_running()
        assert url != f"http://127.0.0.1:{mine_port}"
        assert replace(deployed, rpc=Rpc(url)).registry.view().parties
    finally:
        kill_nodes(stranger)


def test_a_port_where_another_chain_answers_is_not_the_node_s(deployed: Deployed) -> None:
    (node,) = nodes.nodes_of(deployed.chain.home)
    assert nodes.answers(node)
    assert not nodes.answers(replace(node, chain_id=node.chain_id + 1))
    assert not nodes.answers(replace(node, port=nodes.free_port()))


def test_a_copy_of_the_folder_is_a_chain_of_its_own(deployed: Deployed, tmp_path: Path) -> None:
    copy = LocalChain(tmp_path / "copy")
    shutil.copytree(deployed.chain.home, copy.home)
    try:
        assert copy.ensure_running() != deployed.chain.ensure_running()
        deployed.anchor(claim(b"batch"))
        copied = replace(deployed, chain=copy, rpc=Rpc(copy.ensure_running()))
        assert copied.registry.view().anchors["guangzhou"] == ()
        assert copy.chain_id == deployed.chain.chain_id
        copy.down()
        assert len(deployed.registry.view().anchors["guangzhou"]) == 1
    finally:
        kill_nodes(copy.home)


def test_a_hung_node_is_replaced(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_module, "READY_SECONDS", 3.0)
    (hung,) = nodes.nodes_of(deployed.chain.home)
    os.kill(hung.pid, signal.SIGSTOP)
    # Its threads stop one after the other.
    while nodes.answers(hung, timeout_seconds=0.2):
        pass
    deployed.rpc = Rpc(deployed.chain.ensure_running())
    assert hung not in nodes.nodes_of(deployed.chain.home)
    assert deployed.registry.view().address("guangzhou") == deployed.address


def test_a_lock_that_is_held_too_long_is_named(chain: LocalChain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_module, "LOCK_SECONDS", 0.1)
    with chain._locked():
        refused("chain.locked", chain.ensure_running)
    chain.ensure_running()


def test_the_node_listens_on_loopback_only_answers_no_web_page_and_holds_no_known_key(chain: LocalChain) -> None:
    (node,) = nodes.nodes_of(chain.home)
    command = Path(f"/proc/{node.pid}/cmdline").read_text().split("\0")
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert "--no-cors" in command
    with Rpc(node.url) as rpc:
        assert rpc.call("eth_accounts") == []
    address = next((a for a in _own_addresses() if not a.startswith("127.")), None)
    if address is not None:
        with pytest.raises(ConnectionRefusedError), socket.create_connection((address, node.port), timeout=2):
            pass


def _own_addresses() -> list[str]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return []
        return [str(probe.getsockname()[0])]


def test_the_node_outlives_its_starter_holds_no_lock_and_keeps_no_folder_busy(chain: LocalChain) -> None:
    (node,) = nodes.nodes_of(chain.home)
    assert os.readlink(f"/proc/{node.pid}/cwd") == "/"
    assert os.getsid(node.pid) != os.getsid(0)
    opened = [os.readlink(fd) for fd in Path(f"/proc/{node.pid}/fd").iterdir()]
    assert str(chain.home / "lock") not in opened


def test_chain_ids_are_random(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    try:
        assert LocalChain.create(home).chain_id != LocalChain.create(other).chain_id
    finally:
        kill_nodes(other)


# ---- saving, stopping, looking ----


def test_checkpoint_names_the_last_block_that_is_in_the_written_dump(deployed: Deployed) -> None:
    deployed.anchor(claim(b"batch", root_=root(1)))
    number, block_hash = deployed.chain.checkpoint()
    saved = json.loads((deployed.chain.home / "dump.json").read_bytes())
    assert dumps.number_of(dumps.head(saved)) == number
    mine(deployed.chain.ensure_running())
    block = deployed.rpc.call("eth_getBlockByNumber", hex(number + 1), False)
    assert block["parentHash"] == block_hash


@pytest.mark.parametrize("moment", ["before", "after", "stale"])
def test_a_block_mined_while_saving_makes_the_saver_begin_again(
    deployed: Deployed, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Just before or after the dump is taken, or while an old one is handed out: dump and newest block differ."""
    call = Rpc.call
    stale = deployed.rpc.call("anvil_dumpState", False)
    mine(deployed.rpc.where, 2 if moment == "stale" else 0)
    dumped: list[int] = []

    def racing(self: Rpc, method: str, *params: Any) -> Any:
        if method != "anvil_dumpState":
            return call(self, method, *params)
        dumped.append(1)
        if len(dumped) > interruptions:
            return call(self, method, *params)
        if moment == "stale":
            return stale
        if moment == "before":
            call(self, "anvil_mine", "0x1")
        answer = call(self, method, *params)
        if moment == "after":
            call(self, "anvil_mine", "0x1")
        return answer

    monkeypatch.setattr(Rpc, "call", racing)
    interruptions = 2
    number, block_hash = deployed.chain.checkpoint()
    assert len(dumped) == 3
    saved = json.loads((deployed.chain.home / "dump.json").read_bytes())
    assert dumps.number_of(dumps.head(saved)) == number == 4
    assert deployed.restarted().rpc.call("eth_getBlockByNumber", hex(number), False)["hash"] == block_hash
    dumped.clear()
    interruptions = 10**6
    refused("chain.busy", deployed.chain.checkpoint)


def test_down_saves_and_stops_and_says_whether_there_was_anything(deployed: Deployed) -> None:
    deployed.anchor(claim(b"batch"))
    assert deployed.chain.down() is True
    assert nodes.nodes_of(deployed.chain.home) == []
    assert deployed.chain.down() is False
    assert len(deployed.restarted().registry.view().anchors["guangzhou"]) == 1


def test_status_starts_nothing(deployed: Deployed) -> None:
    up = deployed.chain.status()
    assert (up.url, up.block, up.saved_block) == (deployed.rpc.where, 2, 2)
    assert up.pid == nodes.nodes_of(deployed.chain.home)[0].pid
    deployed.anchor(claim(b"batch"))
    assert (deployed.chain.status().block, deployed.chain.status().saved_block) == (3, 2)
    kill_nodes(deployed.chain.home)
    down = deployed.chain.status()
    assert (down.url, down.pid, down.block, down.saved_block) == (None, None, None, 2)
    assert down.chain_id == deployed.chain.chain_id
    assert nodes.nodes_of(deployed.chain.home) == []


def test_a_pid_that_another_program_has_taken_over_is_left_alone(chain: LocalChain) -> None:
    (node,) = nodes.nodes_of(chain.home)
    with subprocess.Popen(["sleep", "60"]) as other:
        nodes.stop(nodes.Node(other.pid, node.port, node.chain_id), chain.home)
        assert other.poll() is None
        other.kill()
    assert nodes.nodes_of(chain.home) == [node]
