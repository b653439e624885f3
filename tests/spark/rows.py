"""Random rows for the engines to agree on: refused ones, repeated keys, nulls, rows without subject, hostile text."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ledger.catalog import Catalog, parse_catalog
from ledger.keys import CatalogKeys, parse_key

CATALOG = """
id = "permits"
version = 1
key = ["no"]
subject = { field = "uscc", visibility = "public", public_pattern = "9[13][0-9A-Z]{16}" }
field = [
  { name = "no", type = "code" }, { name = "uscc", type = "code" }, { name = "holder", type = "text", personal = true },
  { name = "decided_on", type = "date" }, { name = "fee", type = "decimal", scale = 2 },
]
"""
NAMES = ("no", "uscc", "holder", "decided_on", "fee", "batch", "version")
HOSTILE = (
    "", " ", "甲公司", "𠮷野", "e\u0301", "\u00e9", "ﬁ", "\u3000空\u3000", "a\r\nb\rc", '"q\\"', "a,b;\t|", "'; DROP TABLE x; --", "\ufeffbom",
    "\u200bzw", "NULL", "\\N", "\x01\x1f\x7f", "x" * 3000, "\U0010ffff", "NaN", "-0", "%s{}$1", "\\u0041",
)  # fmt: skip

Row = Mapping[str, Any]


def catalog() -> Catalog:
    """The catalog of the rows."""
    return parse_catalog(CATALOG.encode(), "test")


def catalog_keys(secret: str = "5a" * 32) -> CatalogKeys:
    """Its keys under one exchange key."""
    return parse_key(secret.encode(), "key").for_catalog(catalog())


def row(number: int, chance: random.Random, *, dirty: bool) -> dict[str, Any]:
    """One row; a dirty one may be unreadable."""
    fee: Any = f"{chance.randint(0, 10**9)}.{chance.choice(['', '5', '50', '500'])}".rstrip(".")
    if dirty and chance.random() < 0.06:
        fee = chance.choice(["oops", "1e5", "1.005", "NaN", "１２", "+1", "9" * 70])
    no: Any = chance.choice([f"A-{number}", f" a-{number} ", f"Ａ-{number}"])
    if dirty and chance.random() < 0.03:
        no = chance.choice([None, "  ", ""])
    return {
        "no": no,
        # Half without a subject: all of these begin with the same 16 zeros; and one company has many.
        "uscc": chance.choice([None, "", "91440000190326633X", f"9144{chance.randint(0, 10**14 - 1):014d}", "老证号"]),
        "holder": chance.choice([None, *HOSTILE]),
        "decided_on": chance.choice([None, "2022-03-04", "2022/3/4" if dirty else "20220304", "0001-01-01"]),
        "fee": chance.choice([None, fee, fee]),
        "batch": chance.choice([None, "b1", "B1 ", "B2"]),
        "version": chance.choice([None, number, number + 1]),
    }


def rows(count: int, seed: int, *, dirty: bool) -> list[dict[str, Any]]:
    """Rows of different keys, some of them twice if `dirty`."""
    chance = random.Random(seed)
    found = [row(number, chance, dirty=dirty) for number in range(count)]
    if dirty and found:
        found += [{**chance.choice(found)} for _ in range(count // 50 + 2)]
        chance.shuffle(found)
    return found


def write_parquet(folder: Path, found: Sequence[Row], *, files: int = 3, group: int = 40) -> None:
    """The rows in several files of several row groups each."""
    folder.mkdir(parents=True, exist_ok=True)
    step = -(-len(found) // files) or 1
    for at in range(files):
        part = found[at * step : (at + 1) * step]
        columns = {name: [it[name] for it in part] for name in NAMES}
        table = pa.table({name: pa.array(values, pa.int64() if name == "version" else pa.string()) for name, values in columns.items()})  # fmt: skip
        pq.write_table(table, folder / f"part-{at}.parquet", row_group_size=group)


def typed(found: Sequence[Row]) -> list[tuple[Any, ...]]:
    """The rows as a table of text takes them, but for the version."""
    return [tuple(it[name] for name in NAMES) for it in found]
