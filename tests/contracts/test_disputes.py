"""DisputeRegistry: who may say what, that everything said stays, and that a reader can show that he has all of it."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from eth_tester.exceptions import TransactionFailed

from ledger.chain.abi import decode
from ledger.chain.contract import dispute_registry, name_to_word
from ledger.chain.disputes import deploy_disputes
from ledger.chain.reverts import Refused, explain

from .conftest import World, batch_id, claim, new_world, root

GUANGDONG, GUANGZHOU, FOSHAN = (name_to_word(name) for name in ("guangdong", "guangzhou", "foshan"))
B1, C1 = b'{"batch":"B1"}', b'{"batch":"C1"}'
NOTHING = bytes(32)
STATEMENT = hashlib.sha256(b"statement").digest()
EVIDENCE = hashlib.sha256(b"evidence").digest()
CONCEDE, REJECT, RESEND = 1, 2, 3
SETTLED, WITHDRAWN, ACCEPTED = 1, 2, 3
EVENTS = ("Attested", "Opened", "Answered", "Closed")


def tag(number: int) -> bytes:
    """A key tag; they ascend with the number."""
    return number.to_bytes(4, "big") + b"k" * 12


def findings(count: int = 1, kind: int = 1) -> bytes:
    """That many findings of one kind, as the contract takes them."""
    return b"".join(bytes([kind]) + tag(number) for number in range(count))


@dataclass
class Disputes:
    """A dispute registry on a world with guangdong (account 1), guangzhou (2) and foshan (3)."""

    world: World
    contract: str

    def ask(self, name: str, *values: Any) -> tuple[Any, ...]:
        function = dispute_registry().functions[name]
        return function.decode(self._call(9, function.encode(*values)))

    def act(self, sender: int, name: str, *values: Any) -> dict[str, Any]:
        """Send by account `sender`; the receipt. Refused with the contract's named error."""
        data = dispute_registry().functions[name].encode(*values)
        self._call(sender, data)
        receipt = self.world.receipt(self.send(sender, data))
        assert receipt["status"] == 1
        return receipt

    def send(self, sender: int, data: bytes, gas: int = 16_000_000) -> Any:
        """Send without asking first."""
        account = self.world.accounts[sender]
        return self.world.tester.send_transaction(
            {"from": account, "to": self.contract, "data": "0x" + data.hex(), "gas": gas}
        )

    def refused(self, sender: int, name: str, *values: Any) -> tuple[str, tuple[Any, ...]]:
        """The named error and its values; and nothing was changed by asking."""
        before = self.count, self.head
        with pytest.raises(Refused) as caught:
            self.act(sender, name, *values)
        assert (self.count, self.head) == before
        return caught.value.revert.name, caught.value.revert.values

    def open(
        self, sender: int = 2, respondent: bytes = GUANGDONG, batch: bytes = B1, listed: bytes = findings()
    ) -> int:
        """Open a dispute; its number."""
        self.act(sender, "open", batch_id(batch), respondent, listed, EVIDENCE)
        return int(self.ask("state")[4])

    @property
    def count(self) -> int:
        return int(self.ask("state")[3])

    @property
    def head(self) -> bytes:
        return bytes(self.ask("state")[5])

    def anchor(self, sender: int, *claims: Any) -> None:
        self.world.act(sender, "anchor", list(claims))

    def logs(self) -> list[dict[str, Any]]:
        """Every event of the registry, from the chain itself, in order."""
        (blocks,) = self.ask("blocks", 0, 10_000)
        found: list[dict[str, Any]] = []
        for number in sorted(set(blocks)):
            for sent in self.world.tester.get_block_by_number(number)["transactions"]:
                logs = self.world.receipt(sent)["logs"]
                found += [log for log in logs if log["address"].lower() == self.contract.lower()]
        return found

    def told(self, receipt: dict[str, Any], name: str) -> tuple[Any, ...]:
        """The topics after the first and the values of the one event of a receipt."""
        (log,) = receipt["logs"]
        event = dispute_registry().events[name]
        assert log["topics"][0] == event.topic
        topics = tuple(bytes.fromhex(topic[2:]) for topic in log["topics"][1:])
        return (*topics, *decode(event.data, bytes.fromhex(log["data"][2:])))

    def _call(self, sender: int, data: bytes) -> bytes:
        call = {"from": self.world.accounts[sender], "to": self.contract, "data": "0x" + data.hex(), "gas": 25_000_000}
        try:
            answer = self.world.tester.call(call)
        except TransactionFailed as error:
            revert = explain(ast.literal_eval(str(error)).hex())
            if revert is None:
                raise AssertionError(f"an unnamed error: {error}") from error
            raise Refused(revert) from error
        return bytes.fromhex(answer[2:])


def deploy(world: World, anchors: str) -> dict[str, Any]:
    """Deploy a dispute registry for the anchor registry at `anchors`; the receipt."""
    data = "0x" + deploy_disputes(anchors).hex()
    sent = world.tester.send_transaction({"from": world.accounts[0], "data": data, "gas": 5_000_000})
    receipt: dict[str, Any] = world.tester.get_transaction_receipt(sent)
    return receipt


@pytest.fixture(scope="module")
def _disputing() -> Disputes:
    world = new_world()
    for account, name in enumerate(("guangdong", "guangzhou", "foshan"), 1):
        world.register(name, account)
    it = Disputes(world, deploy(world, world.contract)["contract_address"])
    it.anchor(1, claim(B1, size=10, root_=root(1)))
    it.anchor(2, claim(B1, size=9, root_=root(2)))
    return it


@pytest.fixture
def disputes(_disputing: Disputes) -> Iterator[Disputes]:
    """The registry, with guangdong's B1 of 10 entries, of which guangzhou holds 9; what a test does is undone."""
    snapshot = _disputing.world.tester.take_snapshot()
    yield _disputing
    _disputing.world.tester.enable_auto_mine_transactions()
    _disputing.world.tester.revert_to_snapshot(snapshot)


def word(number: int) -> bytes:
    return number.to_bytes(32, "big")


def time_of(disputes: Disputes, receipt: dict[str, Any]) -> int:
    return int(disputes.world.tester.get_block_by_number(receipt["block_number"])["timestamp"])


# ---- what it is ----


def test_the_code_is_the_artefacts_whatever_it_reads(disputes: Disputes) -> None:
    other = deploy(disputes.world, disputes.contract)
    assert other["status"] == 0, "an address that is no anchor registry is refused"
    for address in (disputes.contract, deploy(disputes.world, disputes.world.contract)["contract_address"]):
        code = bytes.fromhex(disputes.world.tester.get_code(address)[2:])
        assert hashlib.sha256(code).hexdigest() == dispute_registry().code_sha256


def test_it_begins_empty_and_names_the_anchor_registry(disputes: Disputes) -> None:
    latest = disputes.world.tester.get_block_by_number("latest")
    block, time, anchors, count, number, head = disputes.ask("state")
    # A call sees the latest block or the one being made.
    assert block in (latest["number"], latest["number"] + 1)
    assert time >= latest["timestamp"]
    assert (anchors, count, number, head) == (disputes.world.contract.lower(), 0, 0, NOTHING)
    assert disputes.ask("blocks", 0, 10) == ([],)


@pytest.mark.parametrize("anchors", ["0x" + "11" * 20, "0x" + "00" * 20])
def test_it_is_not_made_for_an_address_without_a_contract(party: World, anchors: str) -> None:
    assert deploy(party, anchors)["status"] == 0


# ---- attestations ----


def test_an_attestation_tells_who_what_with_whom_and_as_of_when(disputes: Disputes) -> None:
    (position,) = disputes.world.ask("position")
    receipt = disputes.act(2, "attest", GUANGDONG, STATEMENT, position)
    assert disputes.told(receipt, "Attested") == (
        word(1), GUANGZHOU, STATEMENT, time_of(disputes, receipt), GUANGDONG, position,
    )  # fmt: skip
    assert disputes.act(1, "attest", GUANGZHOU, STATEMENT, position)["logs"], "each side for itself"
    assert disputes.count == 2


def test_attesting_the_same_again_changes_nothing(disputes: Disputes) -> None:
    disputes.act(2, "attest", GUANGDONG, STATEMENT, 0)
    before = disputes.ask("state")[2:]
    for position in (0, 1):
        assert disputes.act(2, "attest", GUANGDONG, STATEMENT, position)["logs"] == []
    assert disputes.ask("state")[2:] == before
    assert disputes.act(2, "attest", GUANGDONG, EVIDENCE, 0)["logs"] != [], "another statement is another matter"


def test_an_attestation_in_no_right_form_is_refused(disputes: Disputes) -> None:
    (position,) = disputes.world.ask("position")
    assert disputes.refused(2, "attest", GUANGZHOU, STATEMENT, 0) == ("WithOneself", (GUANGZHOU,))
    unknown = name_to_word("nobody")
    assert disputes.refused(2, "attest", unknown, STATEMENT, 0) == ("UnknownName", (unknown,))
    assert disputes.refused(2, "attest", GUANGDONG, NOTHING, 0) == ("ZeroHash", ())
    assert disputes.refused(2, "attest", GUANGDONG, STATEMENT, position + 1) == (
        "PositionAhead",
        (position + 1, position),
    )


# ---- opening ----


def test_a_dispute_tells_the_batch_the_findings_and_the_revisions_of_both(disputes: Disputes) -> None:
    disputes.anchor(1, claim(B1, 1, 11, root(3)))
    listed = bytes([1]) + tag(1) + bytes([3]) + tag(2) + bytes([4]) + tag(3)
    receipt = disputes.act(2, "open", batch_id(B1), GUANGDONG, listed, EVIDENCE)
    assert disputes.told(receipt, "Opened") == (
        word(1), GUANGZHOU, word(1), time_of(disputes, receipt), GUANGDONG, batch_id(B1), 1, 2, listed, EVIDENCE,
    )  # fmt: skip
    assert disputes.open(1, GUANGZHOU) == 2, "either side may open, and disputes have numbers of their own"
    (log,) = disputes.logs()[1:]
    event = dispute_registry().events["Opened"]
    assert decode(event.data, bytes.fromhex(log["data"][2:]))[3:5] == (2, 1), "opener's first, respondent's second"


@pytest.mark.parametrize("anchored_by", [1, 2])
def test_a_batch_that_only_one_of_the_two_anchored_can_be_disputed(disputes: Disputes, anchored_by: int) -> None:
    disputes.anchor(anchored_by, claim(C1))
    assert disputes.open(batch=C1) == 1
    event = dispute_registry().events["Opened"]
    values = decode(event.data, bytes.fromhex(disputes.logs()[0]["data"][2:]))
    assert values[3:5] == ((0, 1) if anchored_by == 1 else (1, 0))


def test_a_batch_of_strangers_cannot_be_disputed(disputes: Disputes) -> None:
    disputes.anchor(3, claim(C1))
    for batch in (C1, b"nobody's"):
        wanted = ("NotAnchored", (batch_id(batch), GUANGZHOU, GUANGDONG))
        assert disputes.refused(2, "open", batch_id(batch), GUANGDONG, findings(), EVIDENCE) == wanted


@pytest.mark.parametrize("count", [1, 1000])
def test_one_to_a_thousand_findings_are_taken(disputes: Disputes, count: int) -> None:
    disputes.open(listed=findings(count))
    event = dispute_registry().events["Opened"]
    assert decode(event.data, bytes.fromhex(disputes.logs()[0]["data"][2:]))[5] == findings(count)


@pytest.mark.parametrize("length", [0, 1, 16, 18, 17 * 1001])
def test_findings_of_another_length_are_refused(disputes: Disputes, length: int) -> None:
    listed = findings(1001)[:length].ljust(length, b"\1")
    assert disputes.refused(2, "open", batch_id(B1), GUANGDONG, listed, EVIDENCE) == ("FindingsLength", (length,))


@pytest.mark.parametrize("kind", [0, 5, 255])
def test_a_finding_of_another_kind_is_refused_by_its_place(disputes: Disputes, kind: int) -> None:
    listed = findings(2) + bytes([kind]) + tag(2)
    assert disputes.refused(2, "open", batch_id(B1), GUANGDONG, listed, EVIDENCE) == ("UnknownKind", (2, kind))


def test_a_dispute_with_oneself_with_nobody_or_without_evidence_is_refused(disputes: Disputes) -> None:
    unknown = name_to_word("nobody")
    for respondent, evidence, wanted in (
        (GUANGZHOU, EVIDENCE, ("WithOneself", (GUANGZHOU,))),
        (unknown, EVIDENCE, ("UnknownName", (unknown,))),
        (GUANGDONG, NOTHING, ("ZeroHash", ())),
    ):
        assert disputes.refused(2, "open", batch_id(B1), respondent, findings(), evidence) == wanted


# ---- answers ----


def test_the_respondent_answers_as_often_as_there_is_something_to_say(disputes: Disputes) -> None:
    disputes.open()
    disputes.anchor(1, claim(C1, size=1, root_=root(5)))
    for number, (choice, batch, evidence) in enumerate(
        ((REJECT, NOTHING, EVIDENCE), (CONCEDE, NOTHING, NOTHING), (RESEND, batch_id(C1), NOTHING)), 2
    ):
        receipt = disputes.act(1, "answer", 1, choice, batch, evidence)
        assert disputes.told(receipt, "Answered") == (
            word(number), GUANGDONG, word(1), time_of(disputes, receipt), choice, batch, evidence,
        )  # fmt: skip


def test_nobody_else_answers(disputes: Disputes) -> None:
    disputes.open()
    for sender, name in ((2, GUANGZHOU), (3, FOSHAN)):
        wanted = ("NotRespondent", (1, name, GUANGDONG))
        assert disputes.refused(sender, "answer", 1, CONCEDE, NOTHING, NOTHING) == wanted


@pytest.mark.parametrize("number", [0, 2, 2**64 - 1])
@pytest.mark.parametrize("name", ["answer", "close"])
def test_a_dispute_that_there_is_not_is_neither_answered_nor_closed(disputes: Disputes, name: str, number: int) -> None:
    disputes.open()
    for sender in (1, 2):
        assert disputes.refused(sender, name, number, 2, NOTHING, NOTHING) == ("UnknownDispute", (number,))


@pytest.mark.parametrize("choice", [0, 4, 255])
def test_an_unknown_answer_or_outcome_is_refused(disputes: Disputes, choice: int) -> None:
    disputes.open()
    assert disputes.refused(1, "answer", 1, choice, NOTHING, NOTHING) == ("UnknownChoice", (choice,))
    assert disputes.refused(2, "close", 1, choice, NOTHING, NOTHING) == ("UnknownChoice", (choice,))


def test_a_batch_goes_with_resend_and_settled_and_with_nothing_else(disputes: Disputes) -> None:
    disputes.open()
    disputes.anchor(1, claim(C1))
    disputes.anchor(2, claim(C1))
    for sender, name, choice, batch in (
        (1, "answer", CONCEDE, batch_id(C1)),
        (1, "answer", REJECT, batch_id(C1)),
        (1, "answer", RESEND, NOTHING),
        (2, "close", WITHDRAWN, batch_id(C1)),
        (2, "close", ACCEPTED, batch_id(C1)),
        (2, "close", SETTLED, NOTHING),
    ):
        assert disputes.refused(sender, name, 1, choice, batch, NOTHING) == ("BatchNotExpected", (batch,)), (
            name,
            choice,
        )


@pytest.mark.parametrize("anchored_by", [None, 2, 3])
def test_what_is_sent_again_must_be_anchored_by_the_respondent(disputes: Disputes, anchored_by: int | None) -> None:
    disputes.open()
    if anchored_by is not None:
        disputes.anchor(anchored_by, claim(C1))
    wanted = ("NotAnchored", (batch_id(C1), GUANGDONG, GUANGDONG))
    assert disputes.refused(1, "answer", 1, RESEND, batch_id(C1), NOTHING) == wanted


# ---- the end ----


def test_settled_refers_to_the_two_equal_anchors(disputes: Disputes) -> None:
    disputes.open()
    disputes.anchor(1, claim(b"another"), claim(C1, size=1, root_=root(5)))
    disputes.anchor(2, claim(C1, size=1, root_=root(5)))
    receipt = disputes.act(2, "close", 1, SETTLED, batch_id(C1), EVIDENCE)
    assert disputes.told(receipt, "Closed") == (
        word(2), GUANGZHOU, word(1), time_of(disputes, receipt), SETTLED, batch_id(C1), 2, 3, EVIDENCE,
    )  # fmt: skip


@pytest.mark.parametrize("outcome", [WITHDRAWN, ACCEPTED])
def test_other_ends_need_no_batch(disputes: Disputes, outcome: int) -> None:
    disputes.open()
    receipt = disputes.act(2, "close", 1, outcome, NOTHING, NOTHING)
    assert disputes.told(receipt, "Closed")[4:] == (outcome, NOTHING, 0, 0, NOTHING)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(None, None), ((1, 5), None), (None, (1, 5)), ((1, 5), (1, 6)), ((1, 5), (2, 5))],
    ids=["nobody", "opener", "respondent", "root", "size"],
)
def test_nothing_is_settled_by_what_is_not_equal(
    disputes: Disputes, ours: tuple[int, int] | None, theirs: tuple[int, int] | None
) -> None:
    disputes.open()
    for sender, told in ((2, ours), (1, theirs)):
        if told is not None:
            disputes.anchor(sender, claim(C1, size=told[0], root_=root(told[1])))
    disputes.anchor(3, claim(C1, size=1, root_=root(5)))
    assert disputes.refused(2, "close", 1, SETTLED, batch_id(C1), NOTHING) == ("NotSettled", (batch_id(C1),))


def test_only_the_last_revisions_count(disputes: Disputes) -> None:
    disputes.open()
    disputes.anchor(1, claim(C1, size=1, root_=root(5)))
    disputes.anchor(2, claim(C1, size=1, root_=root(5)))
    disputes.anchor(1, claim(C1, 1, 2, root(6)))
    assert disputes.refused(2, "close", 1, SETTLED, batch_id(C1), NOTHING)[0] == "NotSettled"
    disputes.anchor(2, claim(C1, 1, 2, root(6)))
    receipt = disputes.act(2, "close", 1, SETTLED, batch_id(C1), NOTHING)
    assert disputes.told(receipt, "Closed")[6:8] == (3, 3)


def test_nobody_but_the_opener_closes(disputes: Disputes) -> None:
    disputes.open()
    for sender, name in ((1, GUANGDONG), (3, FOSHAN)):
        wanted = ("NotOpener", (1, name, GUANGZHOU))
        assert disputes.refused(sender, "close", 1, WITHDRAWN, NOTHING, NOTHING) == wanted


def test_what_is_closed_stays_closed(disputes: Disputes) -> None:
    disputes.open()
    disputes.open(1, GUANGZHOU)
    disputes.act(2, "close", 1, WITHDRAWN, NOTHING, NOTHING)
    assert disputes.refused(2, "close", 1, WITHDRAWN, NOTHING, NOTHING) == ("AlreadyClosed", (1,))
    assert disputes.refused(1, "answer", 1, REJECT, NOTHING, NOTHING) == ("AlreadyClosed", (1,))
    assert disputes.act(2, "answer", 2, REJECT, NOTHING, NOTHING)["logs"], "the other one is still open"


# ---- who ----

CALLS: dict[str, tuple[int, tuple[Any, ...]]] = {
    "attest": (2, (GUANGDONG, STATEMENT, 0)),
    "open": (2, (batch_id(B1), GUANGDONG, findings(), EVIDENCE)),
    "answer": (1, (1, REJECT, NOTHING, NOTHING)),
    "close": (2, (1, WITHDRAWN, NOTHING, NOTHING)),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_account_without_a_name_says_nothing(disputes: Disputes, name: str) -> None:
    disputes.open()
    # The registrar holds no name, and neither does another account with that role.
    disputes.world.act(0, "grantRole", bytes(32), disputes.world.accounts[8])
    for sender in (0, 5, 8):
        account = disputes.world.accounts[sender]
        assert disputes.refused(sender, name, *CALLS[name][1]) == ("NoName", (account,))


@pytest.mark.parametrize("name", CALLS)
def test_a_suspended_holder_says_nothing_until_it_is_reinstated(disputes: Disputes, name: str) -> None:
    disputes.open()
    sender, values = CALLS[name]
    account = disputes.world.accounts[sender]
    held = GUANGDONG if sender == 1 else GUANGZHOU
    disputes.world.act(0, "suspend", held)
    assert disputes.refused(sender, name, *values) == ("Suspended", (account, held))
    disputes.world.act(0, "reinstate", held)
    assert disputes.act(sender, name, *values)["logs"]


def test_a_suspended_party_can_still_be_disputed_with(disputes: Disputes) -> None:
    disputes.world.act(0, "suspend", GUANGDONG)
    disputes.open()
    disputes.act(2, "attest", GUANGDONG, STATEMENT, 0)
    disputes.act(2, "close", 1, WITHDRAWN, NOTHING, NOTHING)
    assert disputes.count == 3


@pytest.mark.parametrize("name", CALLS)
def test_a_party_that_moved_goes_on_and_its_old_account_does_not(disputes: Disputes, name: str) -> None:
    disputes.open()
    sender, values = CALLS[name]
    old, new = disputes.world.accounts[sender], disputes.world.accounts[6]
    held = GUANGDONG if sender == 1 else GUANGZHOU
    disputes.world.act(sender, "move", new)
    # Not even if the registrar gives the old account its own role.
    disputes.world.act(0, "grantRole", bytes(32), old)
    assert disputes.refused(sender, name, *values) == ("NotHolder", (old, held, new))
    receipt = disputes.act(6, name, *values)
    assert bytes.fromhex(receipt["logs"][0]["topics"][2][2:]) == held


def test_what_a_party_attested_before_it_moved_it_attested(disputes: Disputes) -> None:
    disputes.act(2, "attest", GUANGDONG, STATEMENT, 0)
    disputes.world.act(2, "move", disputes.world.accounts[6])
    assert disputes.act(6, "attest", GUANGDONG, STATEMENT, 0)["logs"] == []


# ---- nothing can be left out ----


def running_hash(logs: Sequence[dict[str, Any]]) -> bytes:
    """The running hash over these events, written out from the contract's documentation."""
    actions = {dispute_registry().events[name].topic: action for action, name in enumerate(EVENTS, 1)}
    head = NOTHING
    for log in logs:
        number, party, subject = (bytes.fromhex(topic[2:]) for topic in log["topics"][1:])
        content = hashlib.sha256(bytes.fromhex(log["data"][2:])).digest()
        action = word(actions[log["topics"][0]])
        head = hashlib.sha256(head + number + action + party + subject + word(log["block_number"]) + content).digest()
    return head


def a_whole_history(disputes: Disputes) -> None:
    disputes.act(1, "attest", GUANGZHOU, STATEMENT, 3)
    disputes.act(2, "attest", GUANGDONG, STATEMENT, 3)
    disputes.open(listed=findings(3))
    disputes.act(1, "answer", 1, REJECT, NOTHING, EVIDENCE)
    disputes.open(1, GUANGZHOU)
    disputes.anchor(1, claim(C1, size=1, root_=root(5)))
    disputes.act(1, "answer", 1, RESEND, batch_id(C1), NOTHING)
    disputes.anchor(2, claim(C1, size=1, root_=root(5)))
    disputes.act(2, "close", 1, SETTLED, batch_id(C1), NOTHING)
    disputes.act(1, "close", 2, WITHDRAWN, NOTHING, NOTHING)


def test_the_running_hash_comes_out_from_all_events_and_from_nothing_else(disputes: Disputes) -> None:
    a_whole_history(disputes)
    logs = disputes.logs()
    assert len(logs) == disputes.count == 8
    assert running_hash(logs) == disputes.head
    for at in range(len(logs)):
        assert running_hash([*logs[:at], *logs[at + 1 :]]) != disputes.head, "one left out"
        assert running_hash([*logs[:at], logs[at], *logs[at:]]) != disputes.head, "one twice"
        changed = logs[at]["data"][:-1] + ("0" if logs[at]["data"][-1] != "0" else "1")
        assert running_hash([*logs[:at], {**logs[at], "data": changed}, *logs[at + 1 :]]) != disputes.head
        moved = {**logs[at], "block_number": logs[at]["block_number"] + 1}
        assert running_hash([*logs[:at], moved, *logs[at + 1 :]]) != disputes.head, "said to be of another block"
    assert running_hash([logs[1], logs[0], *logs[2:]]) != disputes.head, "in another order"


def test_the_numbers_have_no_gaps_and_the_blocks_are_where_the_events_stand(disputes: Disputes) -> None:
    a_whole_history(disputes)
    logs = disputes.logs()
    assert [int(log["topics"][1], 16) for log in logs] == list(range(1, 9))
    blocks = [log["block_number"] for log in logs]
    assert disputes.ask("blocks", 0, 100) == (blocks,)
    for limit in (1, 3, 8):
        pages: list[int] = []
        while page := disputes.ask("blocks", len(pages), limit)[0]:
            pages += page
        assert pages == blocks
    assert disputes.ask("blocks", 8, 5) == ([],)
    assert disputes.ask("blocks", 2**256 - 1, 2**256 - 1) == ([],)


def test_several_actions_of_one_block_keep_their_order(disputes: Disputes) -> None:
    functions = dispute_registry().functions
    disputes.world.tester.disable_auto_mine_transactions()
    for sender in (3, 1, 2):
        other = GUANGZHOU if sender == 1 else GUANGDONG
        disputes.send(sender, functions["attest"].encode(other, STATEMENT, 0), 1_000_000)
    disputes.world.tester.enable_auto_mine_transactions()
    logs = disputes.logs()
    assert len({log["block_number"] for log in logs}) == 1
    assert [int(log["topics"][1], 16) for log in logs] == [1, 2, 3]
    assert running_hash(logs) == disputes.head


def test_a_transaction_that_fails_leaves_no_trace(disputes: Disputes) -> None:
    before = disputes.ask("state")[2:]
    data = dispute_registry().functions["answer"].encode(1, REJECT, NOTHING, NOTHING)
    assert disputes.world.receipt(disputes.send(1, data, 1_000_000))["status"] == 0
    assert disputes.ask("state")[2:] == before


# ---- what it costs ----


def test_a_party_cannot_put_its_batch_out_of_reach_by_revising_it_without_end(disputes: Disputes) -> None:
    def cost(batch: bytes) -> list[int]:
        number = disputes.open(batch=batch) - 1
        spent = [disputes.act(2, "open", batch_id(batch), GUANGDONG, findings(), EVIDENCE)["gas_used"]]
        spent.append(disputes.act(1, "answer", number, RESEND, batch_id(batch), EVIDENCE)["gas_used"])
        return [*spent, disputes.act(2, "close", number, SETTLED, batch_id(batch), EVIDENCE)["gas_used"]]

    disputes.anchor(1, claim(C1, 0, 1, root(5)), claim(b"calm", 0, 1, root(5)))
    disputes.anchor(2, claim(C1, 0, 1, root(5)), claim(b"calm", 0, 1, root(5)))
    disputes.anchor(1, *(claim(C1, 1 + n, 1, root(6 + n % 2)) for n in range(60)), claim(C1, 61, 1, root(5)))
    disputes.open()
    calm, flooded = cost(b"calm"), cost(C1)
    # One more word read for a batch that has revisions at all, and nothing for each of them.
    assert all(after < before + 25_000 for before, after in zip(calm, flooded, strict=True)), (calm, flooded)


def test_a_party_cannot_put_itself_out_of_reach_by_moving_without_end(disputes: Disputes) -> None:
    def cost() -> int:
        return int(disputes.act(2, "open", batch_id(B1), GUANGDONG, findings(), EVIDENCE)["gas_used"])

    disputes.open()
    before = cost()
    for sender, new in ((1, 4), (4, 5), (5, 6), (6, 7), (7, 8)):
        disputes.world.act(sender, "move", disputes.world.accounts[new])
    # A slot of block numbers is begun every fourth time.
    assert abs(cost() - before) < 20_000


def test_gas(disputes: Disputes, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints it, and holds the ceilings that docs/disputes.md states."""
    disputes.anchor(1, claim(C1))
    disputes.anchor(2, claim(C1))
    disputes.act(3, "attest", GUANGDONG, EVIDENCE, 0)
    gas: dict[str, int] = {"deploy": deploy(disputes.world, disputes.world.contract)["gas_used"]}
    gas["attest"] = disputes.act(2, "attest", GUANGDONG, STATEMENT, 3)["gas_used"]
    for count in (1, 100, 1000):
        listed = hashlib.shake_256(b"%d" % count).digest(17 * count)
        listed = b"".join(b"\1" + listed[at + 1 : at + 17] for at in range(0, len(listed), 17))
        told = disputes.act(2, "open", batch_id(B1), GUANGDONG, listed, EVIDENCE)
        gas[f"open {count}"] = told["gas_used"]
    gas["answer"] = disputes.act(1, "answer", 1, RESEND, batch_id(C1), EVIDENCE)["gas_used"]
    gas["close"] = disputes.act(2, "close", 1, SETTLED, batch_id(C1), EVIDENCE)["gas_used"]
    with capsys.disabled():
        print("\n[gas] " + ", ".join(f"{name}: {value:,}" for name, value in gas.items()))
    for name, most in {
        "deploy": 2_200_000, "attest": 130_000, "open 1": 220_000, "open 1000": 1_600_000, "answer": 120_000, "close": 150_000,
    }.items():  # fmt: skip
        assert gas[name] < most, name
