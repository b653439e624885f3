"""What the kernel's tests share: catalogs of every type, and the plain reference row by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pytest

from ledger.catalog import Catalog, parse_catalog
from ledger.kernel.chunk import Chunk
from ledger.kernel.entries import Kernel, Result
from ledger.keys import ExchangeKey
from ledger.record import Refusal, Unreadable, canonical, normal, normal_row, record_key

KEY = ExchangeKey(bytes(range(32)))
EVERY_TYPE = """
id = "every"
version = 3
key = ["office", "no"]
subject = { field = "holder", visibility = "public", public_pattern = "9[13][0-9A-Z]{2}" }
utc_offset = "+08:00"
field = [
  { name = "no", type = "text" }, { name = "office", type = "code" }, { name = "holder", type = "code" },
  { name = "kind", type = "enum" }, { name = "pages", type = "integer" }, { name = "fee", type = "decimal", scale = 2 },
  { name = "whole", type = "decimal", scale = 0 }, { name = "decided", type = "date" },
  { name = "received", type = "datetime" }, { name = "remark", type = "text", personal = true },
]
"""

Row = Sequence[str | None]


@pytest.fixture(scope="session")
def every_type() -> Catalog:
    return parse_catalog(EVERY_TYPE.encode(), "every.toml")


@pytest.fixture(scope="session")
def run() -> Callable[..., Result]:
    def run(catalog: Catalog, rows: Sequence[Row], **more: object) -> Result:
        return Kernel(catalog, KEY.for_catalog(catalog)).run(chunk_of(catalog, rows, **more))

    return run


@pytest.fixture(scope="session")
def check_equal() -> Callable[[Catalog, Sequence[Row]], None]:
    return assert_equal_to_reference


@pytest.fixture(scope="session")
def make_chunk() -> Callable[..., Chunk]:
    return chunk_of


def chunk_of(catalog: Catalog, rows: Sequence[Row], **more: object) -> Chunk:
    fields = {
        field.name: pa.array([row[place] for row in rows], pa.string()) for place, field in enumerate(catalog.fields)
    }
    return Chunk(fields, np.arange(len(rows), dtype=np.int64) + 2, **more)  # type: ignore[arg-type]


def assert_equal_to_reference(catalog: Catalog, rows: Sequence[Row]) -> None:
    """The kernel gives, byte for byte, what record.py and keys.py give row by row."""
    keys = KEY.for_catalog(catalog)
    result = Kernel(catalog, keys).run(chunk_of(catalog, rows))
    good, entries, records, record_keys, refused, refused_keys = [], [], [], [], {}, {}
    for place, row in enumerate(rows):
        values = {field.name: value for field, value in zip(catalog.fields, row, strict=True)}
        found = normal_row(catalog, values)
        if isinstance(found, Unreadable):
            refused[place] = found
            name = _record_key_of(catalog, values)
            if name is not None:
                refused_keys[place] = (keys.key_tag(name), name)
            continue
        data, name = canonical(catalog, found), record_key(catalog, found)
        subject = found[catalog.subject.field] if catalog.subject else None
        good.append(place)
        records.append(data)
        record_keys.append(name)
        entries.append(keys.entry(keys.subject_tag(subject), keys.key_tag(name), keys.commit(data)[2]))
    assert result.canonical.to_pylist() == records
    assert result.record_keys.to_pylist() == record_keys
    assert [entry.tobytes() for entry in result.entries] == entries
    assert result.rows.tolist() == good
    assert result.refused == refused
    assert result.refused_keys == refused_keys


def _record_key_of(catalog: Catalog, values: dict[str, str | None]) -> bytes | None:
    key: dict[str, str | None] = {}
    for name in catalog.key:
        try:
            key[name] = normal(values[name], catalog.by_name[name], catalog)
        except Refusal:
            return None
    return None if None in key.values() else record_key(catalog, key)
