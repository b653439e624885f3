"""What a careless, late or hostile counterpart does with batches, and what is said of it (issue: two parties)."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import pytest
from eth_account import Account

from ledger.batch.job import open_job
from ledger.batch.stream import StreamId
from ledger.chain.transactions import Claim, encode_anchor, prepare, send_raw, wait_for_receipt
from ledger.errors import LedgerError
from ledger.workspace import Workspace
from tests.anchor.test_faults import EFFECTS, Fault, Killed, install
from tests.conftest import Pair, Party, permit, withdrawn
from tests.twoparty.conftest import Channel, found
from tests.twoparty.test_series import GAINED, ROWS, bridge, declare, gain, kinds, reconcile, refused, take_over

EMPTY_ROOT = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def send(pair: Pair, number: str, rows: list[dict[str, str]], *options: str) -> str:
    path = pair.file(f"{number}.csv", rows)
    pair.province.ok("send", "permits", path, "--batch", number, "--to", "guangzhou", *options)
    return path


def receive(pair: Pair, number: str, *words: str) -> Any:
    ran = pair.city.run("receive", "permits", *words, "--batch", number, "--from", "guangdong", "--json")
    assert "error" not in ran.json, ran
    return ran.json


# ---- order ----


def test_an_older_version_sent_late_is_what_counts_because_it_was_sent_last(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    pair.deliver("B2", [permit(1, holder="乙公司")])
    assert reconcile(pair)["verdict"] == "matched"
    send(pair, "B3", [permit(1)])
    assert reconcile(pair)["verdict"] == "undetermined"
    receive(pair, "B3", pair.file("B3.csv", [permit(1)]))
    # The row still says what B2 said: by the order of the sender's anchors that is over.
    assert kinds(reconcile(pair)) == [("stale", "A-1")]
    receive(pair, "B3", pair.file("B3.csv", [permit(1)]), "--load")
    assert reconcile(pair)["verdict"] == "matched"


def test_a_batch_received_after_a_later_one_does_not_take_its_rows_back(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    two = send(pair, "B2", [permit(1, holder="乙公司"), permit(9)])
    three = send(pair, "B3", [permit(1, holder="丙公司")])
    assert receive(pair, "B3", three, "--load")["verdict"] == "matched"
    receive(pair, "B2", two, "--load")
    told = reconcile(pair)
    assert (told["verdict"], kinds(told)) == ("matched", [])
    between = pair.city.ok("reconcile", "permits", "--with", "guangdong")
    assert between["verdict"] == "matched"


def test_a_gap_in_the_stream_is_named_and_nothing_after_it_is_called_complete(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    two = send(pair, "B2", [permit(9)])
    pair.deliver("B3", [permit(10)])
    told = reconcile(pair)
    assert told["verdict"] == "undetermined"
    assert any("B2" in note["en"] for note in told["notes"])
    pair.sql("UPDATE permits SET holder = '被改' WHERE no = 'A-10'")
    assert reconcile(pair)["verdict"] == "differences_partial"
    pair.sql("UPDATE permits SET holder = '甲公司' WHERE no = 'A-10'")
    ran = pair.city.run("reconcile", "permits", "--with", "guangdong", "--json")
    assert (ran.code, ran.json["verdict"]) == (2, "undetermined")
    receive(pair, "B2", two, "--load")
    assert reconcile(pair)["verdict"] == "matched"


def test_the_same_rows_in_two_deliveries_are_one_record_each(channel: Channel) -> None:
    rows = [permit(n) for n in range(1, 4)]
    channel.send("B1", rows)
    channel.land("B1", rows)
    assert channel.receive("B1")[1]["verdict"] == "matched"
    channel.send("B2", rows)
    # The channel writes them over: now they carry the second number.
    channel.pair.sql("UPDATE permits SET batch_no = 'B2'")
    assert channel.receive("B2")[1]["verdict"] == "matched"
    told = reconcile(channel.pair)
    assert (told["verdict"], told["counts"]["ledger"]) == ("matched", 3)
    assert channel.between(channel.city)[1]["verdict"] == "matched"


def test_the_same_rows_written_twice_are_double(channel: Channel) -> None:
    rows = [permit(n) for n in range(1, 4)]
    for number in ("B1", "B2"):
        channel.send(number, rows)
        channel.land(number, rows)
        channel.receive(number)
    assert kinds(reconcile(channel.pair)) == [("duplicate", f"A-{n}") for n in range(1, 4)]


def test_one_key_twice_in_a_delivery_is_refused_on_either_side(channel: Channel) -> None:
    rows = [permit(1), permit(1, holder="乙公司")]
    path = channel.pair.file("B1.csv", rows)
    ran = channel.province.run("send", "permits", path, "--batch", "B1", "--to", "guangzhou", "--json")
    assert ran.json["error"]["code"] == "batch.duplicate_key"
    channel.send("B1", rows[:1])
    channel.land("B1", rows)
    # What is there twice cannot be stated as held.
    code, told = channel.receive("B1")
    assert (code, told["verdict"]) == (1, "differences")
    assert channel.between(channel.city)[1]["verdict"] == "differences"


def test_announced_after_it_arrived_is_said_for_good(channel: Channel) -> None:
    """The receiver states a batch that nobody announced; the sender announces the same only then."""
    pair, rows = channel.pair, [permit(1), permit(2)]
    channel.send("B1", rows)
    channel.land("B1", rows)
    channel.receive("B1")
    anchor_by_hand(pair.city, descriptor_of(pair, "B2"), size=0, root=EMPTY_ROOT)
    channel.send("B2", [permit(3)], "--period", "")
    channel.land("B2", [permit(3)])
    code, told = channel.receive("B2")
    assert code in (0, 1)
    for party in (channel.city, channel.province):
        told = channel.between(party)[1]
        late = {it["batch"]: it["announced_late"] for it in told["batches"]}
        assert late == {"B1": False, "B2": True}


# ---- sizes ----


@pytest.mark.parametrize("count", [0, 1, 2])
def test_none_one_and_two_records(channel: Channel, count: int) -> None:
    rows = [permit(n) for n in range(1, count + 1)]
    channel.send("B1", rows)
    channel.land("B1", rows)
    code, told = channel.receive("B1")
    if not count:
        # Nothing was sent and nothing is there: both sides hold the empty tree.
        assert (code, told["verdict"], told["anchor"]["root"]) == (0, "matched", EMPTY_ROOT)
    assert (code, told["verdict"]) == (0, "matched")
    for party in (channel.city, channel.province):
        assert channel.between(party)[1]["verdict"] == "matched"
    if count:
        channel.pair.sql("DELETE FROM permits WHERE no = 'A-1'")
        assert channel.receive("B1")[1]["verdict"] == "differences"
        assert found(channel.between(channel.city)[1], "B1") == [("only_theirs", "A-1")]


# ---- what stands on chain ----


def descriptor_of(pair: Pair, number: str, **other: Any) -> bytes:
    """The descriptor of a delivery as the province would anchor it, with members changed or added."""
    home = Workspace(pair.province.home)
    with home.locked("test"), closing(home.open_store("write")) as store, open_job(home, store) as job:
        catalog, key = home.catalog("permits"), home.exchange_key("guangzhou")
        stream = StreamId("permits", "guangdong", "guangzhou")
        told = job.describe(catalog, key, stream, number=number, kind="delivery", period="")
    members = {**json.loads(told.encode()), **other}
    return json.dumps(members, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def anchor_by_hand(party: Party, descriptor: bytes, *, size: int = 0, root: str = EMPTY_ROOT) -> None:
    """A raw call of the contract by the account of a party."""
    home = Workspace(party.home)
    with home.locked("test"), closing(home.open_store("write")) as store, open_job(home, store) as job:
        from ledger.chain.account import load_account

        link = job.link
        account = load_account(home.keystore, home.password_file)
        data = encode_anchor([Claim(descriptor, 0, size, root)])
        signed = prepare(link.rpc, account, chain_id=link.identity.chain_id, to=link.identity.contract, data=data)
        send_raw(link.rpc, signed.raw)
        receipt = wait_for_receipt(link.rpc, signed.hash)
        assert receipt is not None
        assert receipt.ok


@pytest.mark.parametrize(
    "other",
    [{"extra": "1"}, {"suite": "other/9"}, {"kind": "present"}, {"batch": " B2"}, {"receiver": "nobody"}],
    ids=["a member more", "another suite", "another kind", "a number not in normal form", "no address"],
)
def test_a_descriptor_of_another_form_is_refused_shown_and_stops_nothing(pair: Pair, other: dict[str, Any]) -> None:
    pair.deliver("B1", ROWS)
    anchor_by_hand(pair.province, descriptor_of(pair, "B2", **other))
    for party in (pair.city, pair.province):
        assert len(party.ok("status")["refused"]) == 1
        other_side = "guangdong" if party is pair.city else "guangzhou"
        assert party.ok("reconcile", "permits", "--with", other_side)["verdict"] == "matched"
    assert reconcile(pair)["verdict"] == "matched"
    pair.deliver("B3", [permit(9)])


@pytest.mark.parametrize("descriptor", [b"", b"x" * 1025], ids=["empty", "too long"])
def test_the_contract_takes_no_descriptor_of_a_length_no_reader_would(pair: Pair, descriptor: bytes) -> None:
    pair.deliver("B1", ROWS)
    with pytest.raises(LedgerError):
        anchor_by_hand(pair.province, descriptor)
    assert reconcile(pair)["verdict"] == "matched"


def test_a_party_anchoring_for_another_counts_for_nothing(pair: Pair) -> None:
    """guangzhou anchors, in its own name, a batch whose sender is guangdong: nobody announced it."""
    pair.deliver("B1", ROWS)
    anchor_by_hand(pair.city, descriptor_of(pair, "B2"), size=5, root="11" * 32)
    ran = pair.city.run("receive", "permits", "--batch", "B2", "--from", "guangdong", "--json")
    assert ran.json["error"]["code"] == "receive.not_announced"
    told = pair.province.run("reconcile", "permits", "--with", "guangzhou", "--json").json
    assert {it["batch"]: it["verdict"] for it in told["batches"]} == {"B1": "matched", "B2": "undetermined"}
    # Lawful is only what the sender anchors.
    assert reconcile(pair)["counts"]["ledger"] == 8


def test_an_account_without_a_name_anchors_nothing(pair: Pair) -> None:
    home = Workspace(pair.province.home)
    with home.locked("test"), closing(home.open_store("write")) as store, open_job(home, store) as job:
        data = encode_anchor([Claim(b"{}", 0, 0, EMPTY_ROOT)])
        with pytest.raises(LedgerError):
            prepare(
                job.link.rpc,
                Account.create(),
                chain_id=job.link.identity.chain_id,
                to=job.link.identity.contract,
                data=data,
            )


# ---- keys and series ----


def test_a_receiver_without_the_new_epoch_is_told_which_key_is_missing(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    made = pair.province.ok("key", "new", "--with", "guangzhou", "--out", str(pair.folder / "key.json"))
    bridge(pair)
    path = send(pair, "B2", [permit(9)])
    ran = pair.city.run("bridge", "permits", "--from", "guangdong", "--json")
    assert ran.json["error"]["code"] == "key.wrong"
    assert made["key_id"] in ran.json["error"]["message"]
    assert (
        refused(pair.city, "receive", "permits", path, "--batch", "B2", "--from", "guangdong") == "receive.other_series"
    )
    assert reconcile(pair)["verdict"] == "undetermined"
    night = pair.city.run("nightly", "--json")
    assert night.code != 0
    pair.city.ok("key", "take", str(pair.folder / "key.json"))
    take_over(pair)
    assert receive(pair, "B2", path, "--load")["verdict"] == "matched"
    assert reconcile(pair)["verdict"] == "matched"


def test_an_erased_record_is_not_carried_and_none_is_left_of_one_erased_after(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    erase(pair.province, "A-1")
    gain(pair)
    told = bridge(pair)
    assert (told["carried"], [it["why"] for it in told["not_carried"]]) == (7, ["erased"])
    _, taken = take_over(pair)
    assert len(taken["not_carried"]) == 1
    assert reconcile(pair)["verdict"] == "matched"
    erase(pair.city, "A-2")
    pair.sql("DELETE FROM permits WHERE no = 'A-2'")
    after = reconcile(pair)
    assert after["verdict"] == "matched"
    assert len(after["erased"]) == 1
    ran = pair.city.run("prove", "permits", "A-2", "--out", str(pair.folder / "p.json"), "--json")
    assert ran.json["error"]["code"] == "prove.erased"
    ran = pair.city.run("prove", "permits", "A-2", "--batch", "B1", "--out", str(pair.folder / "p.json"), "--json")
    assert ran.json["error"]["code"] == "prove.erased"
    assert pair.city.run("fsck", "--json").code == 0


def erase(party: Party, key: str) -> None:
    ran = party.run("erase", "permits", key, "--reason", "other", "--by", "数据管理员", "--json")
    # 1: a delivered file still names it, as it says.
    assert ran.code in (0, 1), ran
    assert len(ran.json["erased"]) == 1


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("effect", EFFECTS)
def test_a_bridge_cut_off_anywhere_is_finished_by_the_next_run(pair: Pair, effect: str, when: str) -> None:
    pair.deliver("B1", ROWS)
    pair.deliver("B2", [withdrawn(8)])
    pair.sql("ALTER TABLE permits ADD COLUMN remark TEXT")
    sides = {
        "make": (pair.province, ("bridge", "permits", "--to", "guangzhou")),
        "take": (pair.city, ("bridge", "permits", "--from", "guangdong")),
    }
    failed, open_sides = dict.fromkeys(sides, 0), set(sides)
    for at in range(1, 14):
        for party in (pair.province, pair.city):
            declare(party, GAINED.replace("version = 2", f"version = {at + 1}"))
        for side, (party, words) in sides.items():
            fault = Fault(at, when)
            if side in open_sides:
                with pytest.MonkeyPatch.context() as patch:
                    install(patch, effect, fault)
                    try:
                        party.run(*words)
                    except Killed:
                        failed[side] += 1
                if fault.calls < at:
                    open_sides.discard(side)
            ran = party.run(*words, "--json")
            assert "error" not in ran.json, ran
            assert (ran.code, ran.json["carried"], ran.json["to"]) == (0, 7, f"permits/{at + 1}")
        told = reconcile(pair)
        assert (told["verdict"], told["counts"]["matched"]) == ("matched", 7)
        if not open_sides:
            break
    else:
        pytest.fail("the fault never ran past the last effect")
    assert min(failed.values()) > 0
    for party in (pair.province, pair.city):
        assert party.run("fsck", "--json").code == 0
    assert pair.city.ok("reconcile", "permits", "--with", "guangdong")["verdict"] == "matched"
