"""The local development chain, kept in a folder: started on demand, saved whenever somebody anchored.

    chain.toml   chain id and preferred port; there once the chain has been created
    dump.json    the saved chain (dump.py); what it holds survives any kill and a power cut
    lock         held while starting, saving and stopping
    anvil.log    what the node printed since its last start

Two promises. A chain that was created never comes back empty: without its dump it is refused. What `checkpoint` returned is
in the dump on disk; what came after it may be lost with the node, and is sent again from the senders' own books.
It gives evidence against changes of data, not against the operator of this machine, who can rewrite it.
"""

from __future__ import annotations

import fcntl
import secrets
import subprocess
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ledger.chain import dump as dumps
from ledger.chain import node as nodes
from ledger.chain.rpc import Rpc, RpcUnreachable, hex_bytes, quantity
from ledger.errors import ChainError

READY_SECONDS = 30.0
LOCK_SECONDS = 120.0
# A dump of 5,000 anchors takes 0.4 s.
_DUMP_SECONDS = 300.0
_STARTS = 3
_QUIET_ATTEMPTS = 20


@dataclass(frozen=True)
class ChainStatus:
    """What is known without starting anything; None for what there is not."""

    home: Path
    chain_id: int | None
    url: str | None
    pid: int | None
    block: int | None
    saved_block: int | None
    saved_bytes: int | None
    saved_at_utc: float | None


class LocalChain:
    """The chain in one folder. Objects hold no state: any number, in any number of processes, may use one folder."""

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()
        self._config = self.home / "chain.toml"
        self._dump = self.home / "dump.json"
        self._log = self.home / "anvil.log"

    @classmethod
    def create(cls, home: Path) -> LocalChain:
        """A new, empty chain with a random chain id, saved and running. ChainError `chain.exists` if there is one."""
        chain = cls(home)
        nodes.find_anvil()
        try:
            chain.home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(chain.home, error) from error
        with chain._locked():
            if chain._config.exists():
                raise ChainError("chain.exists", "该目录已有本地链", "there already is a local chain", str(chain.home))
            saved = dumps.load(chain._dump)
            if saved is not None and dumps.number_of(dumps.head(saved)) > 0:
                # A chain that lost its chain.toml, not one that was never finished: its blocks are worth keeping.
                raise _unusable(chain._config, FileNotFoundError("chain.toml is missing, dump.json is not empty"))
            # Left by a create that was killed: its chain was never announced to anybody.
            for node in nodes.nodes_of(chain.home):
                nodes.stop(node, chain.home)
            chain_id = 100_000 + secrets.randbelow(2**31 - 100_000)
            node = chain._start(chain_id, nodes.free_port(), None)
            chain._dump.unlink(missing_ok=True)
            chain._save(node)
            # Last: from here on a missing dump is a loss, not a chain that has not begun.
            text = f"# The local chain in this folder; written once.\nchain_id = {chain_id}\nport = {node.port}\n"
            dumps.replace(chain._config, text.encode())
        return chain

    @property
    def chain_id(self) -> int:
        """The chain id; ChainError `chain.not_created` if there is no chain here."""
        return self._settings()[0]

    def ensure_running(self) -> str:
        """The URL at which this chain answers, after starting its node from the last dump if it is not running."""
        with self._locked():
            return self._ensure().url

    def checkpoint(self) -> tuple[int, str]:
        """Save the running chain; (number, hash as 0x-hex) of the last block that is now safely on disk.

        Refused (the old dump stands) if the dump lacks the node's newest block or the last block saved before.
        """
        with self._locked():
            return self._save(self._ensure())

    def down(self) -> bool:
        """Save and stop the node; False if none was running. A node that does not answer is stopped without saving."""
        with self._locked():
            running = nodes.nodes_of(self.home)
            for node in running:
                if self._config.exists() and node.chain_id == self.chain_id and nodes.answers(node):
                    self._save(node)
                nodes.stop(node, self.home)
            return bool(running)

    def status(self) -> ChainStatus:
        """What is there and what runs, without starting or locking anything."""
        saved = dumps.load(self._dump)
        facts = self._dump.stat() if saved is not None else None
        node, block = None, None
        if self._config.exists():
            node = next(
                (n for n in nodes.nodes_of(self.home) if n.chain_id == self.chain_id and nodes.answers(n)), None
            )
        if node is not None:
            try:
                with Rpc(node.url) as rpc:
                    block = quantity(rpc.call("eth_blockNumber"), "eth_blockNumber")
            except ChainError:
                node = None
        return ChainStatus(
            home=self.home,
            chain_id=self.chain_id if self._config.exists() else None,
            url=node.url if node else None,
            pid=node.pid if node else None,
            block=block,
            saved_block=dumps.number_of(dumps.head(saved)) if saved is not None else None,
            saved_bytes=facts.st_size if facts else None,
            saved_at_utc=facts.st_mtime if facts else None,
        )

    # ---- under the lock ----

    def _ensure(self) -> nodes.Node:
        chain_id, port = self._settings()
        # One that does not answer yet may have been started a moment ago by a process that was killed: wait for it.
        ready = self._ready(chain_id)
        if ready is not None:
            return ready
        for node in nodes.nodes_of(self.home):
            # Hung: what it did not save, nobody relies on.
            nodes.stop(node, self.home)
        if not self._dump.exists():
            raise ChainError(
                "chain.dump_missing",
                f"本地链（链号 {chain_id}）的存档丢失，拒绝以空链启动；请从备份恢复该文件",
                f"the dump of the local chain (chain id {chain_id}) is gone; it is not started empty. "
                "Restore the file from a backup",
                str(self._dump),
            )
        return self._start(chain_id, port, self._dump)

    def _start(self, chain_id: int, preferred: int, dump: Path | None) -> nodes.Node:
        for _ in range(_STARTS):
            # Free now, perhaps taken by another program before the node gets it: then the node ends, and we try again.
            try:
                nodes.start(self.home, chain_id, nodes.free_port(preferred), dump, self._log)
            except (OSError, subprocess.SubprocessError) as error:
                raise _unusable(self.home, error) from error
            node = self._ready(chain_id)
            if node is not None:
                return node
            if "in use" not in self._log_tail():
                break
        for node in nodes.nodes_of(self.home):
            nodes.stop(node, self.home)
        tail = self._log_tail()
        raise ChainError(
            "chain.not_started",
            f"本地链节点未能启动：{tail or '（无输出）'}；可运行 duizhang doctor 检查",
            f"the local chain's node did not start: {tail or '(no output)'}; duizhang doctor looks for the cause",
            str(self._log),
        )

    def _ready(self, chain_id: int) -> nodes.Node | None:
        """The node of this chain as soon as it answers; None when there is none (any more), or after READY_SECONDS."""
        deadline = time.monotonic() + READY_SECONDS
        missed = 0
        # A process shows no command line for an instant while it turns into the node: believe the third look.
        while time.monotonic() < deadline and missed < 3:
            running = [node for node in nodes.nodes_of(self.home) if node.chain_id == chain_id]
            missed = 0 if running else missed + 1
            for node in running:
                if nodes.answers(node):
                    return node
            time.sleep(0.01)
        return None

    def _save(self, node: nodes.Node) -> tuple[int, str]:
        with Rpc(node.url, _DUMP_SECONDS) as rpc:
            dump, last = self._consistent_dump(rpc)
        saved = dumps.load(self._dump)
        if saved is not None and not dumps.holds(dump, dumps.head(saved)):
            number = dumps.number_of(dumps.head(saved))
            raise ChainError(
                "chain.lost",
                f"运行中的链不含已保存的区块 {number}（最新区块 {dumps.number_of(last)}）：不是同一条链，原存档保留",
                f"the running chain (last block {dumps.number_of(last)}) does not hold block {number}, which was saved: "
                "it is not the same chain, and the saved one is kept",
                str(self._dump),
            )
        dumps.save(self._dump, dump)
        return dumps.number_of(last), str(last["hash"])

    def _consistent_dump(self, rpc: Rpc) -> tuple[dumps.Dump, dict[str, Any]]:
        """The node's dump and its newest block, which is the dump's last."""
        refused: ChainError | None = None
        for _ in range(_QUIET_ATTEMPTS):
            before = _latest(rpc)
            raw = hex_bytes(rpc.call("anvil_dumpState", False), "anvil_dumpState")
            after = _latest(rpc)
            try:
                dump = dumps.unpack(raw)
            except ChainError as error:
                refused = error
                continue
            # Somebody's transaction in between: state and blocks could belong to different moments.
            if before["hash"] == after["hash"] and dumps.same_block(dumps.head(dump), after):
                return dump, after
        raise refused or ChainError(
            "chain.busy",
            "保存本地链时不断有新区块产生，未能取得一致的存档；请稍后再试",
            "new blocks kept coming while the local chain was being saved; try again later",
            rpc.where,
        )

    def _settings(self) -> tuple[int, int]:
        try:
            doc = tomllib.loads(self._config.read_text(encoding="utf-8"))
            return int(doc["chain_id"]), int(doc["port"])
        except FileNotFoundError:
            raise ChainError(
                "chain.not_created", "该目录没有本地链", "there is no local chain here", str(self.home)
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _unusable(self._config, error) from error

    def _log_tail(self) -> str:
        try:
            return " / ".join(self._log.read_text("utf-8", "replace").strip().splitlines()[-5:])[-500:]
        except OSError:
            return ""

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the folder's lock; the kernel lets it go when we end, however we end."""
        if not self.home.is_dir():
            raise ChainError("chain.not_created", "该目录没有本地链", "there is no local chain here", str(self.home))
        try:
            file = (self.home / "lock").open("ab")
        except OSError as error:
            raise _unusable(self.home, error) from error
        with file:
            deadline = time.monotonic() + LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise ChainError(
                            "chain.locked",
                            f"另一进程占用本地链已超过 {LOCK_SECONDS:.0f} 秒",
                            f"another process has held the local chain's lock for {LOCK_SECONDS:.0f} seconds",
                            str(self.home / "lock"),
                        ) from None
                    time.sleep(0.02)
            yield


def _latest(rpc: Rpc) -> dict[str, Any]:
    block = rpc.call("eth_getBlockByNumber", "latest", False)
    if not isinstance(block, dict):
        raise RpcUnreachable("chain.unreachable", "节点没有最新区块", "the node has no latest block", rpc.where)
    return block


def _unusable(path: Path, error: Exception) -> ChainError:
    return ChainError(
        "chain.folder",
        f"本地链目录无法使用：{error}；请检查权限与内容",
        f"the local chain's folder cannot be used: {error}; check permissions and contents",
        str(path),
    )
