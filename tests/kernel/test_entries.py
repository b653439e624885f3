"""What a chunk's rows become, beside their bytes: refused rows, withdrawals, keys, published vectors."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ledger.catalog import Catalog, parse_catalog
from ledger.kernel.chunk import Chunk, Delivered
from ledger.kernel.entries import Kernel, Result
from ledger.kernel.stages import Stages
from ledger.keys import ExchangeKey, parse_key
from ledger.record import Unreadable

VECTORS = Path(__file__).parents[1] / "vectors" / "licences"
GOOD = ("1", "gz", "91AB", "a", "2", "3.5", "4", "2024-01-02", "2024-01-02 03:04:05", "x")
KEY = ExchangeKey(bytes(range(32)))


def changed(**cells: str | None) -> tuple[str | None, ...]:
    names = ["no", "office", "holder", "kind", "pages", "fee", "whole", "decided", "received", "remark"]
    return tuple(cells.get(name, value) for name, value in zip(names, GOOD, strict=True))


def test_the_published_vectors_come_out_of_the_kernel() -> None:
    catalog = parse_catalog((VECTORS / "licences.toml").read_bytes(), "licences.toml")
    keys = parse_key((VECTORS / "exchange.key").read_bytes(), "exchange.key").for_catalog(catalog)
    expected = json.loads((VECTORS / "licences.json").read_text(encoding="utf-8"))
    with (VECTORS / "licences.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    fields = {name: pa.array(column, pa.string()) for name, column in zip(header, zip(*rows, strict=True), strict=True)}
    result = Kernel(catalog, keys).run(Chunk(fields, np.arange(len(rows))))
    records = expected["records_in_file_order"]
    assert result.canonical.to_pylist() == [record["canonical"].encode() for record in records]
    assert result.record_keys.to_pylist() == [record["record_key"].encode() for record in records]
    assert [entry.tobytes().hex() for entry in result.entries] == [record["entry"] for record in records]


def test_a_refused_row_has_no_entry_and_the_rest_keep_their_places(
    run: Callable[..., Result], every_type: Catalog
) -> None:
    rows = [GOOD, changed(no="2", decided="2024-02-30"), changed(no="3"), changed(no="4", fee="1,0", remark="\0")]
    result = run(every_type, rows)
    assert result.rows.tolist() == [0, 2]
    assert {row: why.code for row, why in result.refused.items()} == {1: "date.day", 3: "decimal.form"}
    assert result.entries.shape == (2, 64)
    # The rows that could be read give what they give without the others.
    assert result.entries.tobytes() == run(every_type, [rows[0], rows[2]]).entries.tobytes()


def test_a_null_key_field_refuses_the_row_and_leaves_it_without_a_key(
    run: Callable[..., Result], every_type: Catalog
) -> None:
    result = run(every_type, [changed(office="  "), changed(no=None)])
    assert [result.refused[row].field for row in (0, 1)] == ["office", "no"]
    assert result.refused_keys == {}


def test_a_refused_row_whose_key_can_be_read_carries_it(run: Callable[..., Result], every_type: Catalog) -> None:
    good = run(every_type, [GOOD])
    result = run(every_type, [changed(decided="soon")])
    assert result.refused_keys == {0: (good.entries[0, 16:32].tobytes(), good.record_keys[0].as_py())}


def test_a_row_the_source_refused_keeps_the_sources_reason_and_its_key(
    run: Callable[..., Result], every_type: Catalog
) -> None:
    why = Unreadable("fee", "1.5", "value.type", "浮点", "a float")
    result = run(every_type, [GOOD, changed(no="2", fee=None), changed(no=None)], refused={1: why, 2: why})
    assert result.refused == {1: why, 2: why}
    assert list(result.refused_keys) == [1]
    assert result.rows.tolist() == [0]


def test_withdrawals_never_become_records_whatever_their_other_fields_hold(
    run: Callable[..., Result], every_type: Catalog
) -> None:
    rows = [GOOD, changed(no="2", decided="not a date"), changed(no="3")]
    result = run(every_type, rows, withdrawals={1: "revoked", 2: "revoked"})
    assert result.rows.tolist() == [0]
    assert result.refused == {}


def test_the_keys_of_withdrawals_are_those_of_their_records(
    run: Callable[..., Result], make_chunk: Callable[..., Chunk], every_type: Catalog
) -> None:
    rows = [GOOD, ("2", " ＧＺ ", *[""] * 8), ("3", "", *["nonsense"] * 8), ("1", "gz", *[None] * 8)]
    chunk = make_chunk(every_type, rows, withdrawals={1: "error", 2: "error", 3: "error"})
    found = Kernel(every_type, KEY.for_catalog(every_type)).keys_of(chunk)
    assert found.rows.tolist() == [1, 3]
    assert found.values["office"].to_pylist() == ["GZ", "GZ"]
    assert found.refused[2].code == "key.null"
    record = run(every_type, [GOOD])
    assert found.record_keys[1].as_py() == record.record_keys[0].as_py()
    assert found.key_tags[1].tobytes() == record.entries[0, 16:32].tobytes()


def test_the_keys_of_a_refused_row_are_not_given_out(make_chunk: Callable[..., Chunk], every_type: Catalog) -> None:
    why = Unreadable("", "", "row.short", "短", "short")
    chunk = make_chunk(every_type, [GOOD, GOOD], refused={0: why})
    found = Kernel(every_type, KEY.for_catalog(every_type)).keys_of(chunk, [0, 1])
    assert (found.rows.tolist(), found.refused) == ([1], {0: why})


def test_personal_values_are_masked_in_what_is_refused(run: Callable[..., Result], every_type: Catalog) -> None:
    result = run(every_type, [changed(remark="secret\0")])
    assert "secret" not in repr(result.refused)


def test_an_empty_chunk_gives_an_empty_result(run: Callable[..., Result], every_type: Catalog) -> None:
    result = run(every_type, [])
    assert (len(result.rows), result.entries.shape, len(result.canonical)) == (0, (0, 64), 0)


def test_a_chunk_of_only_unreadable_rows_gives_no_entry(run: Callable[..., Result], every_type: Catalog) -> None:
    result = run(every_type, [changed(pages="x")] * 3)
    assert (len(result.rows), list(result.refused)) == (0, [0, 1, 2])


def test_kernel_and_reference_that_disagree_stop_the_run(
    run: Callable[..., Result], every_type: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.kernel.entries.normal_row", lambda catalog, values: dict(values))
    with pytest.raises(AssertionError, match="disagree on row 2"):
        run(every_type, [changed(pages="x")])


def test_the_stages_add_up_by_name(make_chunk: Callable[..., Chunk], every_type: Catalog) -> None:
    stages = Stages()
    kernel = Kernel(every_type, KEY.for_catalog(every_type), stages)
    for chunk in stages.each("read", [make_chunk(every_type, [GOOD])]):
        kernel.run(chunk)
    assert list(stages.seconds) == ["read", "one pass"]
    assert all(seconds >= 0 for seconds in stages.seconds.values())


def test_delivered_rows_come_back_in_the_order_asked_for_odd_ones_as_they_were() -> None:
    raw = Delivered([pa.array(["a", None, "c"]), pa.array(["d", None, "f"])], {1: ["too", "many", "cells"]})
    assert raw.row(1) == ["too", "many", "cells"]
    assert raw.rows([2, 1, 0]) == [["c", "f"], ["too", "many", "cells"], ["a", "d"]]
