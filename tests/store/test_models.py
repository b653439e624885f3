from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from ledger.errors import StoreError
from ledger.store.db import Store, open_store
from ledger.store.models import EMPTY_ROOT, Batch, Claim, EntrySet, Transaction
from tests.store.conftest import Place
from tests.store.rows import (
    CITY,
    CONFIRMED,
    HASH,
    NOW,
    PROVINCE,
    make_arrival,
    make_baseline,
    make_batch,
    make_chain,
    make_claim,
    make_consent,
    make_entry_set,
    make_run,
    make_transaction,
)

BATCH_ID: str = make_batch().id


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    """With one batch, its lawful entry set (id 1), and one transaction (id 1)."""
    opened = open_store(place.url, "create")
    with opened.write() as session:
        session.add(make_batch())
        session.flush()
        session.add_all([make_entry_set(BATCH_ID), make_transaction()])
    yield opened
    opened.close()


Change = Callable[[Session], Any]

ACCEPTED: dict[str, Change] = {
    "a sealed batch": lambda s: s.add(make_batch("S1", kind="sealed", receiver="", receiver_party="")),
    "a correction with a receiver": lambda s: s.add(make_batch("C1", kind="correction")),
    "a correction without": lambda s: s.add(make_batch("C2", kind="correction", receiver="", receiver_party="")),
    "one number in another stream": lambda s: s.add(make_batch(descriptor="2", receiver_party="shenzhen")),
    "an empty set": lambda s: s.add(make_entry_set(BATCH_ID, size=0, root=EMPTY_ROOT)),
    "no archive": lambda s: s.add(make_entry_set(BATCH_ID, root="1" * 64, archive_file=None, archive_key_wrapped=None)),
    "the same root held": lambda s: s.add(make_entry_set(BATCH_ID, role="held")),
    "an intent": lambda s: s.add(make_claim(BATCH_ID, 1)),
    "an intent already signed": lambda s: s.add(make_claim(BATCH_ID, 1, transaction_id=1)),
    "a sent claim": lambda s: s.add(make_claim(BATCH_ID, 1, state="sent", transaction_id=1)),
    "a confirmed claim": lambda s: s.add(make_claim(BATCH_ID, 1, transaction_id=1, **CONFIRMED)),
    "a claim another job had confirmed": lambda s: s.add(make_claim(BATCH_ID, 1, **CONFIRMED)),
    "a revision after a confirmed claim": lambda s: s.add_all(
        [
            make_claim(BATCH_ID, 1, **CONFIRMED),
            make_claim(BATCH_ID, 1, known_revisions=1, **{**CONFIRMED, "revision": 1, "sequence": 1}),
            make_claim(BATCH_ID, 1, known_revisions=2, state="overtaken"),
            make_claim(BATCH_ID, 1, known_revisions=2),
        ]
    ),
    "two transactions for one nonce": lambda s: s.add(make_transaction(raw="02aa")),
    "a mined one beside a replaced one": lambda s: s.add_all(
        [
            make_transaction(raw="02aa", state="mined", block_number=1, block_hash=HASH),
            make_transaction(raw="02bb", state="replaced"),
        ]
    ),
    "a consent": lambda s: s.add(make_consent(BATCH_ID)),
    "a baseline": lambda s: s.add(make_baseline()),
    "an arrival": lambda s: s.add(make_arrival(BATCH_ID)),
    "a chain": lambda s: s.add(make_chain()),
    "a run": lambda s: s.add(make_run()),
    "a finished run": lambda s: s.add(make_run(finished_at=NOW, exit_code=1, outcome="{}")),
}


class Undone(Exception):
    """Ends a transaction that was only tried."""


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_happens_can_be_written(shared: Store, name: str) -> None:
    with contextlib.suppress(Undone), shared.write() as session:
        ACCEPTED[name](session)
        # No constraint waits for the commit.
        session.flush()
        raise Undone


def confirmed_without(column: str) -> Change:
    return lambda s: s.add(make_claim(BATCH_ID, 1, **{**CONFIRMED, column: None}))


def intent_with(column: str) -> Change:
    return lambda s: s.add(make_claim(BATCH_ID, 1, **{column: CONFIRMED[column]}))


def many(make: Callable[..., Any], *given: Any, column: str, values: tuple[Any, ...]) -> dict[str, Change]:
    """One change for each value of `column` that must be refused."""
    return {
        f"{make.__name__} {column}={value!r}": lambda s, value=value: s.add(make(*given, **{column: value}))
        for value in values
    }


NOT_HEX = ("", "A" * 64, "g" + "0" * 63, "0" * 63, "0" * 65, " " + "0" * 63)
NOT_TAG = ("", "A" * 32, "g" + "0" * 31, "0" * 31, "0" * 33, HASH)
NOT_ADDRESS = ("", "0x" + "AA" * 20, "aa" * 20, "0x" + "aa" * 19, "0X" + "aa" * 20, "0x" + "gg" * 20, "aa" * 21)
NOT_UTC = ("", "2026-01-31", "2026-01-31 12:00:00", "2026-01-31T12:00:00+08:00", "2026-01-31T12:00:00.5Z")

REFUSED: dict[str, Change] = {
    "a batch number twice": lambda s: s.add(make_batch(descriptor="another descriptor")),
    "a delivery to nobody": lambda s: s.add(make_batch("2", receiver="", receiver_party="")),
    "a sealed batch with a receiver": lambda s: s.add(make_batch("2", kind="sealed")),
    "a receiver without a name": lambda s: s.add(make_batch("2", receiver_party="")),
    "a name without a receiver": lambda s: s.add(make_batch("2", kind="correction", receiver="")),
    "a sender to itself": lambda s: s.add(make_batch("2", sender=CITY)),
    **many(make_batch, "2", column="kind", values=("", "Delivery", "bridge")),
    **many(make_batch, column="number", values=("",)),
    **many(make_batch, "2", column="catalog_version", values=(0, -1)),
    **many(make_batch, "2", column="sender", values=NOT_ADDRESS),
    **many(make_batch, "2", column="receiver", values=NOT_ADDRESS[1:]),
    **many(make_batch, "2", column="sender_party", values=("",)),
    **many(make_batch, "2", column="created_at", values=NOT_UTC),
    "entries of no batch": lambda s: s.add(make_entry_set("0" * 64)),
    "the same root twice in one role": lambda s: s.add(make_entry_set(BATCH_ID, entries_file="entries/y")),
    "no entries under a full root": lambda s: s.add(make_entry_set(BATCH_ID, size=0, root="1" * 64)),
    "entries under the empty root": lambda s: s.add(make_entry_set(BATCH_ID, size=1, root=EMPTY_ROOT)),
    "an archive without its key": lambda s: s.add(make_entry_set(BATCH_ID, root="1" * 64, archive_key_wrapped=None)),
    "a key without its archive": lambda s: s.add(make_entry_set(BATCH_ID, root="1" * 64, archive_file=None)),
    **many(make_entry_set, BATCH_ID, column="root", values=NOT_HEX),
    **{
        f"an entry set's {column}={value!r}": lambda s, column=column, value=value: s.add(
            make_entry_set(BATCH_ID, **{"root": "1" * 64, column: value})
        )
        for column, values in {
            "role": ("", "Lawful", "mine"),
            "size": (-1, None),
            "entries_file": ("",),
            "entries_sha256": NOT_HEX,
            "created_at": NOT_UTC,
        }.items()
        for value in values
    },
    "a claim on another batch's entries": lambda s: (
        s.add(make_batch("2")),
        s.flush(),
        s.add(make_claim(make_batch("2").id, 1)),
    ),
    "a claim on no entries": lambda s: s.add(make_claim(BATCH_ID, 2)),
    "a claim by no transaction": lambda s: s.add(make_claim(BATCH_ID, 1, transaction_id=2)),
    "a claim sent without a transaction": lambda s: s.add(make_claim(BATCH_ID, 1, state="sent")),
    "two intents for one batch": lambda s: s.add_all([make_claim(BATCH_ID, 1), make_claim(BATCH_ID, 1)]),
    "an intent beside a sent claim": lambda s: s.add_all(
        [make_claim(BATCH_ID, 1), make_claim(BATCH_ID, 1, state="sent", transaction_id=1)]
    ),
    "one revision confirmed twice": lambda s: s.add_all(
        [make_claim(BATCH_ID, 1, **CONFIRMED), make_claim(BATCH_ID, 1, **{**CONFIRMED, "sequence": 1})]
    ),
    "one sequence number twice": lambda s: s.add_all(
        [make_claim(BATCH_ID, 1, **CONFIRMED), make_claim(BATCH_ID, 1, **{**CONFIRMED, "revision": 1})]
    ),
    **{f"confirmed without {column}": confirmed_without(column) for column in CONFIRMED if column != "state"},
    **{f"an intent with {column}": intent_with(column) for column in CONFIRMED if column != "state"},
    **{
        f"a claim's {column}={value!r}": lambda s, column=column, value=value: s.add(
            make_claim(BATCH_ID, 1, **{**CONFIRMED, column: value})
        )
        for column, values in {
            "known_revisions": (-1,),
            "revision": (-1,),
            "sequence": (-1,),
            "position": (-1,),
            "block_number": (-1,),
            "chain_time": NOT_UTC,
            "confirmed_at": NOT_UTC,
            "created_at": NOT_UTC,
        }.items()
        for value in values
    },
    **many(make_claim, BATCH_ID, 1, column="state", values=("", "Intent", "done")),
    "one transaction twice": lambda s: s.add(make_transaction()),
    "one hash under another nonce": lambda s: s.add(make_transaction(1, hash=make_transaction().hash)),
    "two mined transactions of one nonce": lambda s: s.add_all(
        [
            make_transaction(raw="02aa", state="mined", block_number=1, block_hash=HASH),
            make_transaction(raw="02bb", state="confirmed", block_number=1, block_hash=HASH),
        ]
    ),
    "a mined transaction in no block": lambda s: s.add(make_transaction(1, state="mined")),
    "a mined transaction without the block's hash": lambda s: s.add(make_transaction(1, state="mined", block_number=1)),
    "a sent transaction in a block": lambda s: s.add(
        make_transaction(1, state="sent", block_number=1, block_hash=HASH)
    ),
    "a block whose hash is none": lambda s: s.add(
        make_transaction(1, state="mined", block_number=1, block_hash="0x" + HASH[2:])
    ),
    **many(make_transaction, 1, column="purpose", values=("", "pay")),
    **many(make_transaction, 1, column="state", values=("", "failed")),
    **many(make_transaction, 1, column="address", values=NOT_ADDRESS),
    **many(make_transaction, column="nonce", values=(-1,)),
    **many(make_transaction, 1, column="raw", values=("", "0", "0x02", "0G", "AA")),
    **many(make_transaction, 1, column="hash", values=NOT_HEX),
    **many(make_transaction, 1, column="created_at", values=NOT_UTC),
    **many(make_transaction, 1, column="updated_at", values=NOT_UTC),
    "a consent to no batch": lambda s: s.add(make_consent("0" * 64)),
    "two consents for one key": lambda s: s.add_all(
        [make_consent(BATCH_ID), make_consent(BATCH_ID, action="withdraw")]
    ),
    **many(make_consent, BATCH_ID, column="key_tag", values=NOT_TAG),
    **many(make_consent, BATCH_ID, column="action", values=("", "explain")),
    **many(make_consent, BATCH_ID, column="reason", values=("", None)),
    **many(make_consent, BATCH_ID, column="approved_by", values=("", None)),
    **many(make_consent, BATCH_ID, column="created_at", values=NOT_UTC),
    "one key twice in a baseline": lambda s: (
        s.add(make_baseline()),
        s.flush(),
        s.expunge_all(),
        s.add(make_baseline()),
    ),
    **many(make_baseline, column="key_tag", values=NOT_TAG),
    **many(make_baseline, column="first_seen_at", values=NOT_UTC),
    "an arrival for no batch": lambda s: s.add(make_arrival("0" * 64)),
    "one file twice": lambda s: s.add_all([make_arrival(BATCH_ID), make_arrival(BATCH_ID, file_name="copy.csv")]),
    **many(make_arrival, BATCH_ID, column="file_sha256", values=NOT_HEX),
    **many(make_arrival, BATCH_ID, column="rows", values=(-1,)),
    **many(make_arrival, BATCH_ID, column="state", values=("", "lost")),
    **many(make_arrival, BATCH_ID, column="received_at", values=NOT_UTC),
    "a second chain": lambda s: s.add_all([make_chain(), make_chain(id=2)]),
    **many(make_chain, column="chain_id", values=(0, -1)),
    **many(make_chain, column="contract", values=NOT_ADDRESS),
    **many(make_chain, column="code_sha256", values=NOT_HEX),
    **many(make_chain, column="origin_number", values=(0, -1)),
    **many(make_chain, column="origin_hash", values=NOT_HEX),
    **many(make_chain, column="block_number", values=(-1,)),
    **many(make_chain, column="block_hash", values=NOT_HEX),
    **many(make_chain, column="updated_at", values=NOT_UTC),
    "finished without an exit code": lambda s: s.add(make_run(finished_at=NOW)),
    "an exit code without an end": lambda s: s.add(make_run(exit_code=0)),
    **{f"exit code {n}": lambda s, n=n: s.add(make_run(finished_at=NOW, exit_code=n)) for n in (-1, 3)},
    **many(make_run, column="started_at", values=NOT_UTC),
    "a run finished at no time": lambda s: s.add(make_run(finished_at="yesterday", exit_code=0)),
}


@pytest.fixture(scope="module")
def shared(module_place: Place) -> Iterator[Store]:
    """As `store`, for changes that leave nothing."""
    opened = open_store(module_place.url, "create")
    with opened.write() as session:
        session.add(make_batch())
        session.flush()
        session.add_all([make_entry_set(BATCH_ID), make_transaction()])
    yield opened
    opened.close()


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused(shared: Store, name: str) -> None:
    with pytest.raises(StoreError) as refused, shared.write() as session:
        REFUSED[name](session)
    assert refused.value.code == "store.conflict"
    assert "constraint" in refused.value.en


def test_a_batch_id_must_be_the_hash_of_its_descriptor(store: Store) -> None:
    with pytest.raises(ValueError, match="SHA-256"), store.write() as session:
        session.add(make_batch("2", id="0" * 64))


def test_a_batch_never_changes_once_written(store: Store) -> None:
    with pytest.raises(ValueError, match="never changes"), store.write() as session:
        session.scalars(select(Batch)).one().period = "2026-01-31"
    with store.write() as session:
        batch = session.scalars(select(Batch)).one()
        batch.period = ""
    assert batch.sender == PROVINCE


def test_a_claim_goes_its_way_from_intent_to_confirmed(store: Store) -> None:
    with store.write() as session:
        session.add(make_claim(BATCH_ID, 1))
    with store.write() as session:
        claim = session.scalars(select(Claim)).one()
        claim.transaction_id = 1
    with store.write() as session:
        claim = session.scalars(select(Claim)).one()
        claim.state = "sent"
        session.scalars(select(Transaction)).one().state = "sent"
    with store.write() as session:
        transaction = session.scalars(select(Transaction)).one()
        transaction.state, transaction.block_number, transaction.block_hash = "mined", 7, HASH
    with store.write() as session:
        claim = session.scalars(select(Claim)).one()
        for column, value in CONFIRMED.items():
            setattr(claim, column, value)
        session.scalars(select(Transaction)).one().state = "confirmed"
        session.scalars(select(EntrySet)).one().published = True
    with store.read() as session:
        assert session.scalars(select(Claim)).one().state == "confirmed"
        assert session.scalars(select(EntrySet)).one().published is True
