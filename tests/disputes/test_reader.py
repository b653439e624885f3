"""The reader of the dispute registry before a node that keeps back, changes, adds or mixes up: an error, never a shorter history."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger.chain.abi import encode
from ledger.chain.contract import dispute_registry, name_to_word
from ledger.chain.disputes import DisputeRegistry, DisputeView, encode_answer
from ledger.chain.local import LocalChain
from ledger.chain.rpc import Rpc, RpcAnswered
from ledger.errors import ChainError
from ledger.workspace import Workspace
from tests.conftest import Pair, paired, permit
from tests.disputes.conftest import job_of, open_raw, speak
from tests.twoparty.conftest import Channel

TAGS = [f"{number:032x}" for number in range(3)]


class Node(Rpc):
    """The real node, whose answers to one method pass through `lie`."""

    def __init__(self, url: str, lies: dict[str, Callable[..., Any]]) -> None:
        super().__init__(url)
        self.lies = lies
        self.asked = 0

    def call(self, method: str, *params: Any) -> Any:
        self.asked += 1
        answer = super().call(method, *params)
        return self.lies[method](answer, *params) if method in self.lies else answer


@pytest.fixture(scope="module")
def history(_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two attestations, two disputes, three answers, one end: eight actions in eight blocks."""
    with paired(_template, tmp_path_factory.mktemp("history")) as pair:
        path = pair.file("B1.csv", [permit(n) for n in range(3)])
        batch_id = pair.province.ok("send", "permits", path, "--batch", "B1", "--to", "guangzhou")["batch_id"]
        pair.province.ok("attest", "permits", "--with", "guangzhou")
        pair.city.ok("attest", "permits", "--with", "guangdong")
        open_raw(pair.city, batch_id, "guangdong", [("only_sender", TAGS[0]), ("differs", TAGS[1])])
        for choice in ("reject", "concede"):
            speak(pair.province, lambda _, choice=choice: encode_answer(1, choice, "", ""))
        open_raw(pair.province, batch_id, "guangzhou", [("not_withdrawn", TAGS[2])])
        speak(pair.province, lambda _: encode_answer(1, "resend", batch_id, ""))
        pair.city.ok("dispute", "close", "1", "--withdrawn")
        yield pair


def registry(pair: Pair, **lies: Callable[..., Any]) -> DisputeRegistry:
    """A reader on the pair's chain."""
    url = LocalChain(pair.province.home / "chain").ensure_running()
    address = Workspace(pair.province.home).config.chain.disputes
    assert address is not None
    return DisputeRegistry(Node(url, lies), address)


def contradicted(pair: Pair, **lies: Callable[..., Any]) -> None:
    with pytest.raises(ChainError) as caught:
        registry(pair, **lies).view()
    assert caught.value.code == "chain.contradiction", caught.value.en
    assert caught.value.where


def test_the_whole_history_is_read_as_it_was_spoken(history: Pair) -> None:
    view = registry(history).view()
    assert [it.party for it in view.attestations] == ["guangdong", "guangzhou"]
    first, second = view.disputes[1], view.disputes[2]
    assert (first.opener, first.respondent, second.opener) == ("guangzhou", "guangdong", "guangdong")
    assert first.findings == (("only_sender", TAGS[0]), ("differs", TAGS[1]))
    assert first.revisions == (0, 1)
    assert [it.choice for it in first.answers] == ["reject", "concede", "resend"]
    assert first.answers[-1].batch_id == first.batch_id
    assert first.closing is not None
    assert first.closing.outcome == "withdrawn"
    assert (second.answers, second.closing) == ((), None)
    numbers = [it.number for it in view.attestations]
    numbers += [n for d in view.disputes.values() for n in (d.number, *(a.number for a in d.answers))]
    assert sorted([*numbers, first.closing.number]) == list(range(1, 9))


def test_any_one_event_kept_back_is_noticed(history: Pair) -> None:
    for number in range(1, 9):
        contradicted(
            history, eth_getLogs=lambda logs, _, n=number: [it for it in logs if int(it["topics"][1], 16) != n]
        )
    contradicted(history, eth_getLogs=lambda logs, _: [])
    contradicted(history, eth_getLogs=lambda logs, _: [{**it, "removed": True} for it in logs])


def topic(log: dict[str, Any], place: int, value: bytes) -> dict[str, Any]:
    topics = list(log["topics"])
    topics[place] = "0x" + value.hex().rjust(64, "0")
    return {**log, "topics": topics}


def body(log: dict[str, Any], at: int) -> dict[str, Any]:
    """The event's data with one bit turned."""
    data = bytearray.fromhex(log["data"][2:])
    data[at] ^= 1
    return {**log, "data": "0x" + data.hex()}


FORGERIES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "another party": lambda log: topic(log, 2, name_to_word("shenzhen")),
    "another subject": lambda log: topic(log, 3, bytes(31) + b"\x02"),
    "a dispute that there is not": lambda log: topic(log, 3, bytes(31) + b"\x63"),
    "another number": lambda log: topic(log, 1, bytes(31) + b"\x63"),
    "another kind of event": lambda log: {**log, "topics": [dispute_registry().events["Closed"].topic, *log["topics"][1:]]},
    "another block": lambda log: {**log, "blockNumber": hex(int(log["blockNumber"], 16) + 1)},
    "another time": lambda log: body(log, 31),
    "the last byte": lambda log: body(log, -1),
    "data cut off": lambda log: {**log, "data": log["data"][:-64]},
    "no data": lambda log: {**log, "data": "0x"},
    "too few topics": lambda log: {**log, "topics": log["topics"][:2]},
    "no topics": lambda log: {**log, "topics": []},
    "another contract": lambda log: {**log, "address": "0x" + "11" * 20},
}  # fmt: skip


# The second dispute's opening, and the one end.
SO_ALREADY = {"another subject": (6,), "another kind of event": (8,)}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_any_one_event_that_was_changed_is_noticed(history: Pair, forgery: str) -> None:
    changed: list[int] = []
    for number in range(1, 9):

        def lie(logs: Any, _: object, number: int = number) -> Any:
            told = [FORGERIES[forgery](it) if int(it["topics"][1], 16) == number else it for it in logs]
            changed.extend([number] if told != logs else [])
            return told

        if forgery in ("another subject", "another kind of event") and number in SO_ALREADY[forgery]:
            continue
        contradicted(history, eth_getLogs=lie)
    assert len(set(changed)) >= 7


def test_events_that_were_added_repeated_or_exchanged_are_noticed(history: Pair) -> None:
    for number in range(8):
        contradicted(history, eth_getLogs=lambda logs, _, n=number: [*logs[: n + 1], *logs[n:]])
    contradicted(
        history, eth_getLogs=lambda logs, _: [{**logs[0], "data": logs[1]["data"]}, {**logs[1], "data": logs[0]["data"]}, *logs[2:]]
    )  # fmt: skip


def answering(name: str, values: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> Callable[..., str]:
    """A lie about what the registry's view `name` returns."""
    function = dispute_registry().functions[name]

    def lie(answer: str, call: dict[str, str], _: str) -> str:
        if not call["data"].startswith("0x" + function.selector.hex()):
            return answer
        return "0x" + encode(function.outputs, values(function.decode(bytes.fromhex(answer[2:])))).hex()

    return lie


STATES: dict[str, Callable[[tuple[Any, ...]], tuple[Any, ...]]] = {
    "one action less": lambda s: (*s[:3], s[3] - 1, *s[4:]),
    "one action more": lambda s: (*s[:3], s[3] + 1, *s[4:]),
    "none at all, with the old hash": lambda s: (*s[:3], 0, 0, s[5]),
    "one dispute less": lambda s: (*s[:4], s[4] - 1, s[5]),
    "another hash": lambda s: (*s[:5], hashlib.sha256(s[5]).digest()),
}


@pytest.mark.parametrize("state", STATES)
def test_a_state_that_the_events_do_not_give_is_noticed(history: Pair, state: str) -> None:
    contradicted(history, eth_call=answering("state", STATES[state]))


def test_blocks_kept_back_or_wrong_are_noticed(history: Pair) -> None:
    contradicted(history, eth_call=answering("blocks", lambda page: ([],)))
    contradicted(history, eth_call=answering("blocks", lambda page: (page[0][:-1],) if len(page[0]) == 8 else ([],)))
    contradicted(history, eth_call=answering("blocks", lambda page: ([it + 1 for it in page[0]],)))


def test_another_contract_or_another_anchor_registry_is_refused(history: Pair) -> None:
    anchors = Workspace(history.province.home).config.chain.contract
    registry(history).check(anchors)
    registry(history).check(anchors.upper().replace("0X", "0x"))
    for reader, address in (
        (registry(history), "0x" + "11" * 20),
        (registry(history, eth_getCode=lambda code, *_: code[:-2] + "00"), anchors),
        (registry(history, eth_getCode=lambda *_: "0x"), anchors),
        (registry(history, eth_call=answering("state", lambda s: (*s[:2], "0x" + "22" * 20, *s[3:]))), anchors),
        (DisputeRegistry(registry(history).rpc, anchors), anchors),
    ):
        with pytest.raises(ChainError) as caught:
            reader.check(address)
        assert caught.value.code == "chain.no_disputes"


def test_ranges_a_node_refuses_are_halved(history: Pair) -> None:
    refused: list[int] = []

    def narrow(logs: Any, query: dict[str, str]) -> Any:
        width = int(query["toBlock"], 16) - int(query["fromBlock"], 16) + 1
        if width > 1:
            refused.append(width)
            raise RpcAnswered("eth_getLogs", -32005, "query returned more than 1 results", "", "")
        return logs

    assert registry(history, eth_getLogs=narrow).view() == registry(history).view()
    assert refused
    with pytest.raises(RpcAnswered):
        registry(history, eth_getLogs=lambda *_: narrow([], {"fromBlock": "0x0", "toBlock": "0x9"})).view()


def test_an_action_that_happens_during_the_reading_is_read_or_not_but_never_an_error(channel: Channel) -> None:
    """The registry is another one each time it is asked, until it is left alone."""
    channel.province.ok("chain", "up")
    with job_of(channel.city):
        pass
    pair, spoken = channel.pair, 0

    def meanwhile(logs: Any, _: object) -> Any:
        nonlocal spoken
        if spoken < 2:
            spoken += 1
            pair.province.ok("send", "permits", pair.file(f"M{spoken}.csv", [permit(spoken)]), "--batch", f"M{spoken}", "--to", "guangzhou")  # fmt: skip
            pair.province.ok("attest", "permits", "--with", "guangzhou")
            # The node answers from before what has just happened.
            return []
        return logs

    pair.province.ok("send", "permits", pair.file("M0.csv", [permit(0)]), "--batch", "M0", "--to", "guangzhou")
    pair.province.ok("attest", "permits", "--with", "guangzhou")
    view: DisputeView = registry(pair, eth_getLogs=meanwhile).view()
    assert len(view.attestations) == 3
