"""The process behind a local chain: find anvil, start it detached, recognise it, stop it.

No record of pid or port is kept, so none can be stale: a node belongs to a chain if its own command line says so (its
cache folder lies in the chain's folder, its chain id is the chain's) and if it answers with that chain id.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ledger.chain.rpc import Rpc
from ledger.errors import ChainError

# `sh` puts the node into the background and ends: the node outlives us and is nobody's unwaited child.
_DETACH = ("/bin/sh", "-c", '"$@" &', "sh")
# Calls cost nothing here; the default of 30 million gas would not answer for more than about 3,000 anchors at once.
_GAS_LIMIT = 10_000_000_000
_NUMBERS = re.compile(r" --port (?P<port>\d+) --chain-id (?P<chain_id>\d+) ")


@dataclass(frozen=True)
class Node:
    """A running anvil: its process, the port it was told to take, the chain id it was told to have."""

    pid: int
    port: int
    chain_id: int

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"


def find_anvil() -> Path:
    """The anvil to run: DUIZHANG_ANVIL, else the one beside our Python, else the one on PATH.

    ChainError `chain.anvil_missing`, which says how to install it.
    """
    named = os.environ.get("DUIZHANG_ANVIL")
    beside = Path(sys.prefix) / "bin" / "anvil"
    if named:
        candidate: str | None = named
    else:
        candidate = str(beside) if beside.exists() else shutil.which("anvil")
    if candidate is None or not os.access(candidate, os.X_OK):
        what = f"DUIZHANG_ANVIL={named}" if named else f"{beside}, PATH"
        raise ChainError(
            "chain.anvil_missing",
            "找不到可执行的 anvil（本地链程序）；请运行 scripts/setup，或 npm install @foundry-rs/anvil@1.7.1 后将"
            " DUIZHANG_ANVIL 设为其路径",
            "no executable anvil, the program of the local chain; run scripts/setup, or npm install "
            "@foundry-rs/anvil@1.7.1 and set DUIZHANG_ANVIL to its path",
            what,
        )
    return Path(candidate).resolve()


def start(folder: Path, chain_id: int, port: int, dump: Path | None, log: Path) -> None:
    """Start a node for the chain in `folder`, from `dump` or empty; returns before it answers. Its output goes to `log`."""
    command = [
        str(find_anvil()),
        *("--host", "127.0.0.1", "--port", str(port), "--chain-id", str(chain_id)),
        # The order up to --no-cors is how nodes_of recognises the node.
        *("--cache-path", str(cache_of(folder))),
        # Any web page open on this machine could otherwise call the node's methods.
        *("--no-cors", "--quiet"),
        # No publicly known keys; no fees, so that a new account can anchor.
        *("--accounts", "0", "--base-fee", "0", "--gas-price", "0", "--disable-min-priority-fee"),
        # Without it anvil writes one whole state per block into its cache.
        "--prune-history",
        *("--slots-in-an-epoch", "1", "--gas-limit", str(_GAS_LIMIT), "--no-request-size-limit"),
        *(("--load-state", str(dump)) if dump else ()),
    ]
    with log.open("wb") as output:
        subprocess.run(
            [*_DETACH, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            # "/": the node must not keep a file system from being unmounted.
            cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder)},
            check=True,
        )


def nodes_of(folder: Path) -> list[Node]:
    """The nodes now running, or just being started, for the chain in `folder`."""
    mark = f" --cache-path {cache_of(folder)} --no-cors "
    found: list[Node] = []
    for pid, command in _processes():
        numbers = _NUMBERS.search(command)
        if mark in command and numbers:
            found.append(Node(pid, int(numbers["port"]), int(numbers["chain_id"])))
    return found


def answers(node: Node, timeout_seconds: float = 2.0) -> bool:
    """True if the node's port answers with the node's chain id now."""
    with Rpc(node.url, timeout_seconds) as rpc:
        try:
            return bool(rpc.call("eth_chainId") == hex(node.chain_id))
        except ChainError:
            return False


def stop(node: Node, folder: Path, grace_seconds: float = 2.0) -> None:
    """End this node, gently first; returns when it is gone. Whatever has taken over its pid meanwhile is left alone."""
    for attempt in (signal.SIGTERM, signal.SIGKILL):
        if node not in nodes_of(folder):
            return
        try:
            os.kill(node.pid, attempt)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + grace_seconds
        while time.monotonic() < deadline:
            if node not in nodes_of(folder):
                return
            time.sleep(0.02)
    raise ChainError(
        "chain.not_stopped",
        f"无法停止本地链进程 {node.pid}",
        f"the local chain's process {node.pid} cannot be stopped",
        str(folder),
    )


def free_port(preferred: int = 0) -> int:
    """A port on the loopback interface that is free now: the preferred one if possible."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            # As the node itself would: a port on which old connections are still winding up can be taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ChainError("chain.no_port", "本机没有可用的端口", "no free port on this machine", "127.0.0.1")


def cache_of(folder: Path) -> Path:
    """The cache folder named on the node's command line, by which it is recognised."""
    return folder.resolve() / "cache"


def _processes() -> Iterator[tuple[int, str]]:
    """Every process with its command line, as far as we may see it; zombies have none."""
    proc = Path("/proc")
    if (proc / "self" / "cmdline").exists():
        for entry in proc.iterdir():
            if entry.name.isdigit():
                try:
                    raw = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                yield int(entry.name), os.fsdecode(raw.replace(b"\0", b" "))
        return
    listing = subprocess.run(["ps", "-axww", "-o", "pid=,args="], capture_output=True, text=True, check=True).stdout
    for line in listing.splitlines():
        pid, _, command = line.strip().partition(" ")
        yield int(pid), command + " "
