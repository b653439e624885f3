"""Every published vector but the sketch, each value against the function that makes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ledger.catalog import Catalog
from ledger.descriptor import Descriptor, parse_descriptor
from ledger.keys import CatalogKeys, ExchangeKey
from ledger.merkle import EMPTY_ROOT, inclusion_path, leaf_hash, root_of, root_of_batch, verify_inclusion
from ledger.record import (
    Refusal,
    Unreadable,
    canonical,
    normal,
    normal_row,
    open_canonical,
    record_key,
    withdrawal,
)

Row = dict[str, str | None]


def normal_rows(catalog: Catalog, rows: list[dict[str, str]]) -> list[Row]:
    read = [normal_row(catalog, row) for row in rows]
    assert not [row for row in read if isinstance(row, Unreadable)]
    return [row for row in read if not isinstance(row, Unreadable)]


def test_catalog_digest(vectors: dict[str, Any], licences: Catalog) -> None:
    assert licences.digest.hex() == vectors["catalog_digest"]


def test_key_id_and_derived_keys(vectors: dict[str, Any], exchange_key: ExchangeKey, keys: CatalogKeys) -> None:
    assert exchange_key.id.hex() == vectors["key_id"]
    assert {
        "commitment": keys.commitment.hex(),
        "key": keys.key.hex(),
        "subject": keys.subject.hex(),
        "subject_public": keys.public_subject.hex(),
    } == vectors["derived_keys"]


def test_each_record_from_row_to_leaf(
    vectors: dict[str, Any], licences: Catalog, keys: CatalogKeys, rows: list[dict[str, str]]
) -> None:
    made = []
    for row in normal_rows(licences, rows):
        data = canonical(licences, row)
        digest, salt, commitment = keys.commit(data)
        key = record_key(licences, row)
        entry = keys.entry(keys.subject_tag(row["uscc"]), keys.key_tag(key), commitment)
        made.append(
            {
                "canonical": data.decode(),
                "digest": digest.hex(),
                "salt": salt.hex(),
                "commitment": commitment.hex(),
                "record_key": key.decode(),
                "key_tag": keys.key_tag(key).hex(),
                "subject_tag": keys.subject_tag(row["uscc"]).hex(),
                "entry": entry.hex(),
                "leaf_hash": leaf_hash(entry).hex(),
            }
        )
    assert made == vectors["records_in_file_order"]


def test_each_record_opens_to_its_row(vectors: dict[str, Any], licences: Catalog, rows: list[dict[str, str]]) -> None:
    for row, vector in zip(normal_rows(licences, rows), vectors["records_in_file_order"], strict=True):
        opened = open_canonical(licences, vector["canonical"].encode())
        assert (opened.kind, opened.values, opened.reason) == ("record", row, None)


def test_withdrawal_of_the_first_record(
    vectors: dict[str, Any], licences: Catalog, keys: CatalogKeys, rows: list[dict[str, str]]
) -> None:
    row = normal_rows(licences, rows)[0]
    key = {name: row[name] or "" for name in licences.key}
    data = withdrawal(licences, key, "revoked")
    assert data.decode() == vectors["withdrawal_of_first_record"]["canonical"]
    # Its subject tag is that of the record it withdraws (F4).
    tag = keys.subject_tag(row["uscc"])
    entry = keys.entry(tag, keys.key_tag(record_key(licences, key)), keys.commit(data)[2])
    assert entry.hex() == vectors["withdrawal_of_first_record"]["entry"]
    opened = open_canonical(licences, data)
    assert (opened.kind, opened.values, opened.reason) == ("withdrawal", key, "revoked")


def test_tree_over_the_sorted_entries(vectors: dict[str, Any]) -> None:
    tree = vectors["tree"]
    entries = sorted(bytes.fromhex(record["entry"]) for record in vectors["records_in_file_order"])
    assert [entry.hex() for entry in entries] == tree["sorted_entries"]
    size, root = root_of_batch(entries)
    assert (size, root.hex()) == (tree["size"], tree["root"])
    assert (root_of([]), EMPTY_ROOT.hex()) == ((0, EMPTY_ROOT), tree["empty_root"])
    path = inclusion_path(entries, 3)
    assert [hashed.hex() for hashed in path] == tree["path_of_index_3"]
    verify_inclusion(leaf_hash(entries[3]), 3, size, path, root)


def test_descriptor(vectors: dict[str, Any]) -> None:
    data = vectors["descriptor"]["bytes"].encode()
    descriptor = parse_descriptor(data)
    assert descriptor.encode() == data
    assert descriptor.batch_id.hex() == vectors["descriptor"]["batch_id"]
    assert descriptor == Descriptor(
        batch="2022-03-07-01",
        catalog="licences/1",
        catalog_digest=vectors["catalog_digest"],
        key_id=vectors["key_id"],
        kind="delivery",
        period="2022-03-07",
        receiver="0x" + "2" * 40,
        sender="0x" + "1" * 40,
    )


def test_every_refused_value_is_refused(vectors: dict[str, Any], one_field: Callable[..., Catalog]) -> None:
    assert len(vectors["refused"]) == 36
    for type_, text in vectors["refused"]:
        if type_ == "key field":
            row = normal_row(one_field("text"), {"k": text, "f": "x"})
            assert isinstance(row, Unreadable)
            assert row.code == "key.null"
            continue
        catalog = one_field("decimal", "scale = 6") if type_ == "decimal(6)" else one_field(type_)
        with pytest.raises(Refusal):
            normal(text, catalog.by_name["f"], catalog)
