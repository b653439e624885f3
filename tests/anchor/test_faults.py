"""Every effect of anchoring fails once before and once after it took effect; running the command again always ends well.

A fault is an exception nobody catches, as a kill would be: the process forgets everything, what was written stays.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ledger.chain.local import LocalChain
from ledger.chain.node import nodes_of
from ledger.store.db import Store
from ledger.store.files import NewFile
from tests.conftest import Pair, permit


class Killed(BaseException):
    """Not an Exception: nothing on the way may catch it and tidy up."""


class Fault:
    """Raises Killed at the `at`-th call, before or after the real one; counts all calls."""

    def __init__(self, at: int, when: str) -> None:
        self.at, self.when, self.calls = at, when, 0

    def wrap(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """The function with the fault in it."""

        def faulty(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            mine = self.calls == self.at
            if mine and self.when == "before":
                raise Killed
            told = real(*args, **kwargs)
            if mine and self.when == "after":
                raise Killed
            return told

        return faulty

    def wrap_write(self, real: Callable[[Store], Any]) -> Callable[[Store], Any]:
        """`Store.write` with the fault at its commit."""

        @contextmanager
        def faulty(store: Store) -> Iterator[Any]:
            self.calls += 1
            mine = self.calls == self.at
            with real(store) as session:
                yield session
                if mine and self.when == "before":
                    raise Killed
            if mine and self.when == "after":
                raise Killed

        return faulty


def install(patch: pytest.MonkeyPatch, effect: str, fault: Fault) -> None:
    """Put the fault into one kind of effect."""
    if effect == "store":
        patch.setattr(Store, "write", fault.wrap_write(Store.write))
    elif effect == "file":
        patch.setattr(NewFile, "publish", fault.wrap(NewFile.publish))
    elif effect == "dump":
        patch.setattr(LocalChain, "checkpoint", fault.wrap(LocalChain.checkpoint))
    else:
        name = f"ledger.anchor.outbox.{effect}"
        module = __import__("ledger.anchor.outbox", fromlist=[effect])
        patch.setattr(name, fault.wrap(getattr(module, effect)))


EFFECTS = ("store", "file", "send_raw", "wait_for_receipt", "dump")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("side", ["send", "receive"])
def test_any_effect_may_fail_before_or_after_it_happened(pair: Pair, side: str, effect: str, when: str) -> None:
    failed = 0
    for at in range(1, 40):
        number = f"B{at}"
        path = pair.file(f"{number}.csv", [permit(10 * at + n) for n in range(2)])
        send = ("send", "permits", path, "--batch", number, "--to", "guangzhou")
        receive = ("receive", "permits", path, "--batch", number, "--from", "guangdong", "--load")
        words, party = (send, pair.province) if side == "send" else (receive, pair.city)
        if side == "receive":
            pair.province.ok(*send)
        fault = Fault(at, when)
        with pytest.MonkeyPatch.context() as patch:
            install(patch, effect, fault)
            try:
                party.run(*words)
            except Killed:
                failed += 1
        told = party.ok(*words)
        assert told["anchor"]["revision"] == 1, told
        if side == "send":
            pair.city.ok(*receive)
        if fault.calls < at:
            break
    else:
        pytest.fail("the fault never ran past the last effect")
    assert failed == at - 1 > 0
    code, found, counts = pair.city.reconcile()
    assert (code, found, counts["matched"]) == (0, [], 2 * at)
    for party in (pair.province, pair.city):
        assert party.run("fsck", "--json").code == 0


def test_a_send_that_times_out_though_it_was_mined_is_looked_up_not_sent_again(pair: Pair) -> None:
    sent: list[bytes] = []

    def lost(rpc: Any, raw: bytes) -> Any:
        from ledger.chain.transactions import Outcome, Sent, send_raw

        sent.append(raw)
        send_raw(rpc, raw)
        return Sent(Outcome.UNKNOWN, "超时", "timed out")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ledger.anchor.outbox.send_raw", lost)
        path = pair.file("B1.csv", [permit(1)])
        told = pair.province.ok("send", "permits", path, "--batch", "B1", "--to", "guangzhou")
    assert (told["anchor"]["revision"], told["anchor"]["sequence"]) == (1, 1)
    assert len(sent) == 1


def test_a_chain_that_came_back_older_gets_the_same_raw_transactions(pair: Pair) -> None:
    home = pair.province.home / "chain"
    pair.deliver("B1", [permit(1)])
    LocalChain(home).down()
    older = (home / "dump.json").read_bytes()
    path = pair.file("B2.csv", [permit(2)])
    with pytest.MonkeyPatch.context() as patch:
        fault = Fault(1, "before")
        install(patch, "dump", fault)
        with pytest.raises(Killed):
            pair.province.run("send", "permits", path, "--batch", "B2", "--to", "guangzhou")
    LocalChain(home).down()
    # The node is gone before anything was confirmed; what it mined is in no dump.
    (home / "dump.json").write_bytes(older)
    told = pair.province.ok("send", "permits", path, "--batch", "B2", "--to", "guangzhou")
    assert (told["anchor"]["revision"], told["anchor"]["sequence"]) == (1, 2)
    assert pair.province.run("fsck", "--json").code == 0


@pytest.mark.parametrize("side", ["send", "receive"])
def test_a_node_killed_between_receipt_and_dump_confirms_nothing(pair: Pair, side: str) -> None:
    home = pair.province.home / "chain"
    pair.deliver("B1", [permit(1)])
    LocalChain(home).down()
    path = pair.file("B2.csv", [permit(2)])
    send = ("send", "permits", path, "--batch", "B2", "--to", "guangzhou")
    receive = ("receive", "permits", path, "--batch", "B2", "--from", "guangdong", "--load")
    words, party = (send, pair.province) if side == "send" else (receive, pair.city)
    if side == "receive":
        pair.province.ok(*send)
    real = LocalChain.checkpoint
    killed: list[int] = []

    def kill_first(chain: LocalChain) -> tuple[int, str]:
        if not killed:
            for node in nodes_of(home):
                os.kill(node.pid, signal.SIGKILL)
                killed.append(node.pid)
        return real(chain)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalChain, "checkpoint", kill_first)
        ran = party.run(*words, "--json")
    assert killed
    # The node came back from its last dump, without the anchor: "could not tell", never "confirmed".
    assert ran.code == 2, ran
    assert ran.json["error"]["code"] in ("chain.reorganised", "chain.pending", "chain.unreachable")
    told = party.ok(*words)
    assert told["anchor"]["revision"] == 1
    pair.city.ok(*receive)
    for party in (pair.province, pair.city):
        assert party.run("fsck", "--json").code == 0
