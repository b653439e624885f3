"""Rows that every constraint accepts; a test changes what it is about."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from ledger.store.models import Arrival, Baseline, Batch, Chain, Claim, Consent, EntrySet, Run, Transaction

NOW = "2026-01-31T12:00:00Z"
PROVINCE = "0x" + "aa" * 20
CITY = "0x" + "bb" * 20
HASH = sha256(b"some hash").hexdigest()


def make_batch(number: str = "20260131-1", **changed: Any) -> Batch:
    descriptor = changed.pop("descriptor", f'{{"batch":"{number}"}}')
    values: dict[str, Any] = {
        "id": sha256(descriptor.encode()).hexdigest(),
        "descriptor": descriptor,
        "catalog_id": "registration",
        "catalog_version": 1,
        "number": number,
        "kind": "delivery",
        "period": "",
        "sender": PROVINCE,
        "receiver": CITY,
        "sender_party": "province",
        "receiver_party": "guangzhou",
        "created_at": NOW,
    }
    return Batch(**{**values, **changed})


def make_entry_set(batch_id: str, **changed: Any) -> EntrySet:
    values: dict[str, Any] = {
        "batch_id": batch_id,
        "role": "lawful",
        "size": 3,
        "root": HASH,
        "entries_file": "entries/x.parquet",
        "entries_sha256": HASH,
        "archive_file": "archive/x.archive",
        "archive_key_wrapped": "00" * 68,
        "created_at": NOW,
    }
    return EntrySet(**{**values, **changed})


CONFIRMED: dict[str, Any] = {
    "state": "confirmed",
    "revision": 0,
    "sequence": 0,
    "position": 0,
    "block_number": 7,
    "chain_time": NOW,
    "confirmed_at": NOW,
}


def make_claim(batch_id: str, entry_set_id: int, **changed: Any) -> Claim:
    values: dict[str, Any] = {
        "batch_id": batch_id,
        "entry_set_id": entry_set_id,
        "known_revisions": 0,
        "state": "intent",
        "created_at": NOW,
    }
    return Claim(**{**values, **changed})


def make_transaction(nonce: int = 0, **changed: Any) -> Transaction:
    raw = changed.pop("raw", f"02f8{nonce:04x}")
    values: dict[str, Any] = {
        "purpose": "anchor",
        "address": CITY,
        "nonce": nonce,
        "raw": raw,
        "hash": sha256(raw.encode()).hexdigest(),
        "state": "signed",
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Transaction(**{**values, **changed})


def make_consent(batch_id: str, **changed: Any) -> Consent:
    values: dict[str, Any] = {
        "batch_id": batch_id,
        "key_tag": "cc" * 16,
        "action": "accept",
        "reason": "更正登记地址",
        "approved_by": "张三",
        "created_at": NOW,
    }
    return Consent(**{**values, **changed})


def make_baseline(**changed: Any) -> Baseline:
    values: dict[str, Any] = {
        "catalog_id": "registration",
        "sender_party": "province",
        "key_tag": "cc" * 16,
        "first_seen_at": NOW,
    }
    return Baseline(**{**values, **changed})


def make_arrival(batch_id: str, **changed: Any) -> Arrival:
    values: dict[str, Any] = {
        "batch_id": batch_id,
        "file_sha256": HASH,
        "file_name": "20260131-1.csv",
        "rows": 3,
        "received_at": NOW,
        "state": "received",
    }
    return Arrival(**{**values, **changed})


def make_chain(**changed: Any) -> Chain:
    values: dict[str, Any] = {
        "chain_id": 31337,
        "contract": "0x" + "cc" * 20,
        "code_sha256": HASH,
        "origin_number": 1,
        "origin_hash": HASH,
        "block_number": 7,
        "block_hash": HASH,
        "updated_at": NOW,
    }
    return Chain(**{**values, **changed})


def make_run(command: str = "nightly", **changed: Any) -> Run:
    return Run(**{"command": command, "started_at": NOW, **changed})
