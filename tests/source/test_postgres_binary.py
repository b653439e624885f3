"""COPY's binary format gives what its text format gives, value for value, whatever the table holds; and costs nothing when it is given up."""

from __future__ import annotations

import random
import subprocess
import time
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from ledger.catalog import Catalog, parse_catalog
from ledger.kernel.chunk import Chunk
from ledger.native import build
from ledger.source import pgbinary
from ledger.source import postgres as module
from ledger.source.table import open_table
from tests.databases import Database

CATALOG = parse_catalog(
    b"""id = "zoo"
version = 1
key = ["no"]
field = [
  { name = "no", type = "integer" }, { name = "small", type = "integer" }, { name = "big", type = "integer" },
  { name = "much", type = "decimal", scale = 4 }, { name = "sum", type = "text" }, { name = "day", type = "date" }, { name = "at", type = "datetime" },
  { name = "zoned", type = "datetime" }, { name = "name", type = "text" }, { name = "code", type = "code" }, { name = "fixed", type = "text" },
]
""",
    "zoo",
)
TABLE = (
    "CREATE TABLE zoo (no int4, small int2, big int8, much numeric, sum numeric(30,12), day date, at timestamp, zoned timestamptz, name text, "
    "code varchar, fixed char(5))"
)
NUMBERS = [
    "0", "-0", "1", "-1", "9999", "10000", "10001", "99990000", "100000000", "0.1", "0.0001", "0.00001", "0.00010001", "123.4500", "-0.5", "1e20",
    "1e-20", "12345678901234567890.123456789", "-99999999.00000001", "1e400", "1e-400", "NaN", "Infinity", "-Infinity", "0.1000", "10.0",
    "0.00000000000000000000000000000001", "5000", "50000000", "0.05", "0.0500",
]  # fmt: skip
DAYS = [
    "0001-01-01", "9999-12-31", "10000-01-01", "12345-06-07", "0044-03-15 BC", "0001-12-31 BC", "4713-01-01 BC", "infinity", "-infinity", "2000-01-01",
    "1999-12-31", "2000-02-29", "1900-02-28", "2000-03-01", "1970-01-01", "0004-02-29", "0400-02-29", "0100-03-01",
]  # fmt: skip
CLOCKS = ["00:00:00", "23:59:59.999999", "12:00:00.1", "00:00:00.000001", "08:30:00.120000"]
TEXTS = ["", " ", "x", "广州市", "a,b", '"', "\n", "\\N", "\\.", "𠀀", "\u3000x", "x" * 3000, "NULL", "\x01", "\ufeff"]


def moments() -> list[str]:
    """Timestamps on those days."""
    return [
        day if "inf" in day else f"{day.removesuffix(' BC')} {clock}{' BC' if 'BC' in day else ''}"
        for day in DAYS
        for clock in CLOCKS
    ]


def filled(database: Database, rows: int) -> None:
    """A table of values chosen at random among hostile and plain ones, NULLs among them."""
    chance = random.Random(11)

    def number() -> str | None:
        if chance.random() < 0.5:
            return chance.choice([*NUMBERS, None])
        return str(Decimal(chance.randrange(-(10**18), 10**18)).scaleb(-chance.randrange(0, 18)))

    def day() -> str:
        return (
            chance.choice(DAYS)
            if chance.random() < 0.3
            else f"{chance.randrange(1, 9999):04d}-{chance.randrange(1, 13):02d}-{chance.randrange(1, 29):02d}"
        )

    def moment() -> str:
        clock = f"{chance.randrange(24):02d}:{chance.randrange(60):02d}:{chance.randrange(60):02d}.{chance.randrange(10**6):06d}"
        return chance.choice(moments()) if chance.random() < 0.3 else f"{chance.randrange(2, 9998):04d}-03-04 {clock}"

    database.run(TABLE)
    database.fill(
        "zoo",
        [
            (
                number_, chance.choice([None, -32768, 32767, 0, chance.randrange(-32768, 32768)]),
                chance.choice([None, -(2**63), 2**63 - 1, 0, chance.randrange(-(2**63), 2**63)]),
                number(), str(Decimal(chance.randrange(10**17)).scaleb(-chance.randrange(13))) if chance.random() < 0.9 else None,
                day(), moment(), moment(), chance.choice([*TEXTS, None]), chance.choice([*TEXTS, None]), chance.choice(["", "甲", "x ", None]),
            )
            for number_ in range(rows)
        ],
    )  # fmt: skip


def read(database: Database, catalog: Catalog = CATALOG, table: str = "zoo", **more: Any) -> list[Chunk]:
    with open_table(database.url, table, catalog, **more) as source:
        return list(source.scan())


def told(chunks: list[Chunk]) -> tuple[list[tuple[Any, ...]], list[Any]]:
    """All rows, and what was refused, with its reason."""
    rows = [
        (int(number), *cells)
        for chunk in chunks
        for number, *cells in zip(
            chunk.numbers, *(chunk.fields[name].to_pylist() for name in sorted(chunk.fields)), strict=True
        )
    ]
    return rows, [(int(chunk.numbers[row]), why) for chunk in chunks for row, why in sorted(chunk.refused.items())]


@pytest.mark.parametrize("block", [1, 700, 8 << 20])
def test_both_formats_give_the_same(postgres: Database, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    assert pgbinary.available(), "the compiled part or libpq is not there: PostgreSQL would be read as text"
    filled(postgres, 1500)
    monkeypatch.setattr(module, "CHUNK_BYTES", block)
    found = told(read(postgres))
    with monkeypatch.context() as patch:
        patch.setattr(pgbinary, "available", lambda: False)
        expected = told(read(postgres))
    assert found == expected
    rows, refused = found
    assert [row[0] for row in rows] == list(range(1, 1501))
    # There was something to tell apart: infinities, NaN, years outside the calendar.
    assert {why.code for _, why in refused} == {"value.year", "value.number"}
    assert 100 < len(refused) < 1400


def test_numbers_that_grow_when_they_are_written_are_bounded(
    postgres18: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = parse_catalog(b'id = "a"\nversion = 1\nkey = ["no"]\nfield = [{ name = "no", type = "text" }]', "a")
    postgres18.run(
        "CREATE TABLE t (no numeric)",
        "INSERT INTO t SELECT ('1e' || 100000 + i)::numeric FROM generate_series(1, 300) i",
    )
    monkeypatch.setattr(pgbinary, "_MAX_COLUMN", 1 << 20)
    (chunk,) = read(postgres18, catalog, "t")
    assert chunk.fields["no"].to_pylist() == ["1" + "0" * (100000 + i) for i in range(1, 301)]


def test_a_row_larger_than_a_block_is_read_whole(postgres18: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 1000)
    catalog = parse_catalog(b'id = "a"\nversion = 1\nkey = ["no"]\nfield = [{ name = "no", type = "text" }]', "a")
    postgres18.run("CREATE TABLE t (no text)")
    sizes = [1, 999, 1000, 1001, 5000, 3, 200_000, 2]
    postgres18.fill("t", [("x" * size,) for size in sizes])
    assert [len(cell) for chunk in read(postgres18, catalog, "t") for cell in chunk.fields["no"].to_pylist()] == sizes


@pytest.mark.parametrize("rows", [0, 1, 49, 50, 51, 99, 100, 101])
def test_the_end_may_fall_anywhere(postgres18: Database, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(module, "MAX_CHUNK_ROWS", 50)
    filled(postgres18, rows)
    assert sum(map(len, read(postgres18))) == rows


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_a_scan_that_is_given_up_leaves_the_read_as_it_was(
    postgres: Database, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    monkeypatch.setattr(module, "MAX_CHUNK_ROWS", 100)
    filled(postgres, 1500)
    with open_table(postgres.url, "zoo", CATALOG) as source:
        with closing(source.scan()) as scan:  # type: ignore[type-var]
            for _ in range(taken):
                next(scan)
        assert sum(map(len, source.scan())) == 1500
        assert sum(map(len, source.scan())) == 1500


@pytest.mark.parametrize("cancel", ["refused", "ignored"])
def test_a_scan_whose_cancel_is_not_heard_is_given_up_all_the_same(
    postgres18: Database, monkeypatch: pytest.MonkeyPatch, cancel: str
) -> None:
    def deaf(self: Any, *, timeout: float) -> None:
        if cancel == "refused":
            raise psycopg.OperationalError("no way to the server")

    monkeypatch.setattr(psycopg.Connection, "cancel_safe", deaf)
    monkeypatch.setattr(pgbinary, "_CANCEL_SECONDS", 0.3)
    monkeypatch.setattr(module, "MAX_CHUNK_ROWS", 10)
    # More than sockets hold, and a server that is slow to give it.
    postgres18.run(
        "CREATE VIEW v AS SELECT i AS no, repeat('x', 10000) || pg_sleep(0.0001)::text AS name FROM generate_series(1, 200000) i"
    )
    catalog = parse_catalog(
        b'id = "v"\nversion = 1\nkey = ["no"]\nfield = [{ name = "no", type = "integer" }, { name = "name", type = "text" }]',
        "v",
    )
    began = time.monotonic()
    with open_table(postgres18.url, "v", catalog) as source, closing(source.scan()) as scan:  # type: ignore[type-var]
        next(scan)
    assert time.monotonic() - began < 10


def test_a_database_that_holds_what_is_no_utf8_refuses_the_row(postgres18: Database) -> None:
    # In a database of UTF8 damaged pages are the only way; here a block is made as such a server would send it.
    import numpy as np

    message = b"\0\1\0\0\0\3a\xffb"
    block = pgbinary.Block(np.frombuffer(message * 2, np.uint8), np.array([0, 9, 18], np.int64), 1)
    ((column, odd),) = pgbinary.columns_of(block, ["text"])
    assert (column.type, odd, column.to_pylist()) == (pa.binary(), False, [b"a\xffb"] * 2)


def test_it_reads_and_writes_nothing_but_its_own(tmp_path: Path) -> None:
    """Under the sanitizers: messages of a hostile server, well formed and not, in buffers as long as was counted."""
    program = tmp_path / "drive.c"
    program.write_text(
        f'#include "{build.FOLDER / "pgcopy.c"}"\n'
        """#include <stdlib.h>
enum { WIDTH = 6 };
static const int64_t kinds[WIDTH] = {TEXT, INTEGER, DECIMAL, DATE, TIMESTAMP, ZONED};
static u8 *put16(u8 *p, int v) { p[0] = (u8)(v >> 8); p[1] = (u8)v; return p + 2; }
static u8 *put32(u8 *p, int64_t v) { put16(p, (int)(v >> 16)); return put16(p + 2, (int)v); }
int main(void)
{
    static const int odd[] = {0, 1, -1, 32767, -32768, 0x4000, (int)0xC000, (int)0xD000, 9999, 10000, 3, 2};
    srand(5);
    for (int round = 0; round < 60000; round++) {
        u8 text[4096], *p = text;
        int64_t rows = 1 + rand() % 3, sizes[WIDTH];
        int64_t *ends = malloc(sizeof(int64_t) * (size_t)(rows + 1));
        ends[0] = 0;
        for (int64_t row = 0; row < rows; row++) {
            p = put16(p, rand() % 50 ? WIDTH : rand());
            for (int at = 0; at < WIDTH; at++) {
                int size = at == 0 ? rand() % 9 : at == 1 ? 1 << (1 + rand() % 3) : at == 2 ? 8 + 2 * (rand() % 6) : at == 3 ? 4 : 8;
                if (!(rand() % 40)) size = rand() % 13;
                p = put32(p, rand() % 20 ? size : rand() % 3 ? -1 : odd[rand() % 12]);
                u8 *value = p;
                for (int i = 0; i < size; i++) *p++ = (u8)rand();
                if (at == 2 && size >= 8) {
                    put16(value, rand() % 10 ? (size - 8) / 2 : odd[rand() % 12]);
                    put16(value + 2, rand() % 4 ? rand() % 5 - 2 : odd[rand() % 4]);
                    put16(value + 4, rand() % 4 ? 0 : odd[rand() % 12]);
                    for (int i = 8; i + 1 < size && rand() % 20; i += 2) put16(value + i, rand() % 10000);
                }
                if (at > 2 && size >= 4 && !(rand() % 5)) memset(value, rand() % 2 ? 0x7f : 0xff, (size_t)size), value[0] = 0x7f;
            }
            ends[row + 1] = p - text - (rand() % 60 ? 0 : rand() % 4);
            p = text + ends[row + 1];
        }
        u8 *block = malloc((size_t)(p - text) + 1);
        memcpy(block, text, (size_t)(p - text));
        Out outs[WIDTH] = {{0}};
        for (int at = 0; at < WIDTH; at++) outs[at].kind = kinds[at];
        if (dz_copy_columns(block, ends + 1, rows, outs, WIDTH, sizes, 0) < 0) {
            for (int at = 0; at < WIDTH; at++) {
                outs[at].data = malloc(sizes[at] ? (size_t)sizes[at] : 1);
                outs[at].offsets = malloc(sizeof(int32_t) * (size_t)(rows + 1));
            }
            dz_copy_columns(block, ends + 1, rows, outs, WIDTH, sizes, 1);
            for (int at = 0; at < WIDTH; at++) free(outs[at].data), free(outs[at].offsets);
        }
        free(block), free(ends);
    }
    return 0;
}
""",
        encoding="utf-8",
    )
    flags = [
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
        "-O1",
        "-g",
        "-std=c11",
        "-Wall",
        "-Wextra",
        "-Werror",
    ]
    subprocess.run(["cc", *flags, "-o", str(tmp_path / "drive"), str(program)], check=True)
    subprocess.run([str(tmp_path / "drive")], check=True)
