"""The compiled pass over rows takes what is plainly in normal form, gives the reference's entries for it, and leaves everything else alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.catalog import Catalog, parse_catalog
from ledger.kernel import native, onepass
from ledger.kernel.automaton import MAX_STATES, automaton_of
from ledger.kernel.chunk import Chunk
from ledger.kernel.entries import Kernel
from ledger.keys import ExchangeKey
from ledger.native import build
from ledger.pattern import parse
from ledger.record import STRIPPED, Unreadable, canonical, normal_row, record_key

CATALOG = parse_catalog(
    b"""id = "c"
version = 1
key = ["no", "day"]
subject = { field = "who", visibility = "public", public_pattern = "9[13][0-9A-Z]{4}|(AB|C[0-9]){1,3}-X" }
field = [
  { name = "who", type = "code" }, { name = "no", type = "text" }, { name = "day", type = "date" },
  { name = "much", type = "decimal", scale = 2 }, { name = "many", type = "integer" }, { name = "at", type = "datetime" },
  { name = "kind", type = "enum" },
]
""",
    "c",
)
KEYS = ExchangeKey(bytes(range(32))).for_catalog(CATALOG)
NAMES = tuple(CATALOG.by_name)
GOOD = ("91ab12", "许可〔2022〕1号", "2024-02-29", "12.50", "7", "2024-01-01 08:00:00", "普通")


def compiled() -> onepass.OnePass:
    """The compiled pass; one that is missing here is a failure, for CI has a compiler."""
    found = onepass.one_pass(CATALOG, KEYS)
    assert found is not None
    return found


def run(rows: list[tuple[str | None, ...]]) -> tuple[list[int], list[bytes]]:
    """States and entries of rows."""
    state, entries = np.zeros(len(rows), np.uint8), np.zeros((len(rows), 64), np.uint8)
    columns = {name: pa.array([row[at] for row in rows], pa.string()) for at, name in enumerate(NAMES)}
    assert compiled().run(columns, state, entries)
    return state.tolist(), [entry.tobytes() for entry in entries]


def expected(row: tuple[str | None, ...], catalog: Catalog = CATALOG) -> bytes | None:
    """The reference's entry; None if the row has none."""
    values = normal_row(catalog, dict(zip(NAMES, row, strict=True)))
    if isinstance(values, Unreadable):
        return None
    tag = KEYS.key_tag(record_key(catalog, values))
    return KEYS.entry(KEYS.subject_tag(values["who"]), tag, KEYS.commit(canonical(catalog, values))[2])


def changed(**values: str | None) -> tuple[str | None, ...]:
    """The good row with other values."""
    return tuple({**dict(zip(NAMES, GOOD, strict=True)), **values}[name] for name in NAMES)


def test_what_the_characters_it_takes_have_in_common() -> None:
    """None changes under NFC, alone or beside any other; none combines; all were assigned in Unicode 14.0 (CPython 3.11)."""
    library = native.functions()
    assert library is not None
    safe = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000 and library.dz_is_safe(point)]
    second = {
        unicodedata.normalize("NFD", chr(point))[-1]
        for point in range(0x110000)
        if not 0xD800 <= point < 0xE000 and len(unicodedata.normalize("NFD", chr(point))) > 1
    }
    for point in safe:
        char = chr(point)
        assert unicodedata.is_normalized("NFC", char), hex(point)
        assert unicodedata.combining(char) == 0, hex(point)
        assert char not in second, hex(point)
        assert unicodedata.category(char) != "Cn", hex(point)
        assert char.isascii() or char in "\u00a0\u3000" or char not in STRIPPED, hex(point)
    assert len(safe) > 90_000
    # Most of what real text is made of.
    assert all(library.dz_is_safe(ord(char)) for char in "省市、（）〔〕《》：；“”—…·０Ａé㎡①")


def test_good_rows_are_all_taken() -> None:
    rows = [changed(no=f"{n}号", kind=None if n % 2 else "甲") for n in range(7)]
    state, entries = run(rows)
    assert state == [onepass.DONE] * 7
    assert entries == [expected(row) for row in rows]


TAKEN = [
    {"who": "C1ABC2-x"}, {"who": "许可"}, {"who": None}, {"who": ""}, {"who": "91AB123"}, {"who": "ab-x"}, {"no": 'a"b\\c\n\t\x01\x7f'},
    {"no": "中\u3000国\u00a0x"}, {"no": "𠀀"}, {"no": "x" * 5000}, {"day": "2024/02/29"}, {"day": "20240229"}, {"day": "0001-01-01"}, {"day": "9999-12-31"},
    {"much": "0"}, {"much": "-1.5"}, {"much": "0.1"}, {"much": "9" * 63}, {"much": "9" * 63 + ".99"}, {"many": "-" + "9" * 65}, {"many": "0"},
    {"at": "2024-02-29T23:59:59Z"}, {"at": "2024/03/01 00:30:00.120"}, {"at": "2024-01-01 00:00:00.000000"}, {"at": "9998-12-31 23:59:59.999999"},
    {"at": "0002-01-01 00:00:00"},
]  # fmt: skip


@pytest.mark.parametrize("values", TAKEN, ids=str)
def test_it_takes_and_rewrites(values: dict[str, str | None]) -> None:
    row = changed(**values)
    assert run([GOOD, row, GOOD]) == ([onepass.DONE] * 3, [expected(GOOD), expected(row), expected(GOOD)])


LEFT = [
    {"no": None}, {"no": ""}, {"no": " x"}, {"no": "x\u3000"}, {"no": "\u00a0x"}, {"no": "a\rb"}, {"no": "a\0b"}, {"no": "e\u0301"}, {"no": "か\u3099"},
    {"no": "\u2126"}, {"no": "x\u2028"}, {"no": "\u1100\u1161"}, {"who": "ａ1"}, {"who": "①"}, {"who": "é"}, {"day": "2023-02-29"}, {"day": "2024-2-9"},
    {"day": "2024-02/29"}, {"day": "0000-01-01"}, {"day": "２０２４0229"}, {"much": "1.234"}, {"much": "-0.5"}, {"much": "01"}, {"much": "1."}, {"much": "+1"},
    {"much": "9" * 64}, {"much": ".5"}, {"much": "1.-5"}, {"many": "-0"}, {"many": "007"}, {"many": "1.0"}, {"many": "9" * 66}, {"many": "-"},
    {"at": "2024-01-01 24:00:00"}, {"at": "2024-01-01 23:60:00"}, {"at": "2024-01-01 08:00"}, {"at": "2024-01-01T08:00:00+08:00"}, {"at": "0001-01-01 00:00:00"},
    {"at": "9999-12-31 23:59:59Z"}, {"at": "2024-01-01 08:00:00.1234567"}, {"at": "2024-01-01 08:00:00."}, {"at": "2024-02-30 08:00:00"},
    {"no": "x" * (2 << 20)},
]  # fmt: skip


@pytest.mark.parametrize("values", LEFT, ids=lambda it: str(it)[:40])
def test_it_leaves_to_the_reference(values: dict[str, str | None]) -> None:
    row = changed(**values)
    state, entries = run([GOOD, row, GOOD])
    assert state == [onepass.DONE, onepass.ODD, onepass.DONE]
    assert entries == [expected(GOOD), bytes(64), expected(GOOD)]
    # And the kernel as a whole gives what the reference gives.
    columns = {name: pa.array([row[at]], pa.string()) for at, name in enumerate(NAMES)}
    result = Kernel(CATALOG, KEYS).run(Chunk(columns, np.arange(1)))
    assert [entry.tobytes() for entry in result.entries] == [it for it in [expected(row)] if it is not None]
    assert set(result.refused) == ({0} if expected(row) is None else set())


@given(st.lists(st.integers(0, len(TAKEN) + len(LEFT) - 2), max_size=30), st.integers(0, 5))
@settings(deadline=None, max_examples=60)
def test_any_mixture_and_any_part_of_the_columns(places: list[int], first: int) -> None:
    rows = [changed(**[*TAKEN, *LEFT[:-1]][place]) for place in places]
    columns = {name: pa.array([row[at] for row in rows], pa.string())[first:] for at, name in enumerate(NAMES)}
    rows = rows[first:]
    result = Kernel(CATALOG, KEYS).run(Chunk(columns, np.arange(len(rows))))
    wanted = [expected(row) for row in rows]
    assert [entry.tobytes() for entry in result.entries] == [it for it in wanted if it is not None]
    assert result.rows.tolist() == [at for at, it in enumerate(wanted) if it is not None]
    assert sorted(result.refused) == [at for at, it in enumerate(wanted) if it is None]
    good = [normal_row(CATALOG, dict(zip(NAMES, row, strict=True))) for row in rows]
    assert result.canonical.to_pylist() == [canonical(CATALOG, it) for it in good if not isinstance(it, Unreadable)]
    part = result.part(np.arange(0, len(result.rows), 2))
    assert part.record_keys.to_pylist() == result.record_keys.to_pylist()[::2]


def test_rows_that_are_not_to_be_looked_at_are_not() -> None:
    state, entries = np.array([onepass.SKIPPED, onepass.DONE], np.uint8), np.full((2, 64), 7, np.uint8)
    columns = {name: pa.array([GOOD[at]] * 2, pa.string()) for at, name in enumerate(NAMES)}
    assert compiled().run(columns, state, entries)
    assert state.tolist() == [onepass.SKIPPED, onepass.DONE]
    assert (entries[0] == 7).all()
    assert entries[1].tobytes() == expected(GOOD)


def test_columns_of_another_kind_are_not_taken() -> None:
    state, entries = np.zeros(1, np.uint8), np.zeros((1, 64), np.uint8)
    columns = {name: pa.array([GOOD[at]], pa.large_string()) for at, name in enumerate(NAMES)}
    assert not compiled().run(columns, state, entries)
    assert not entries.any()


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("'0' + value % 10", "'0' + value % 9"),
        ("(u8)(p[i] - '0') > 9", "(u8)(p[i] - '0') > 8"),
        ("c - 32", "c - 31"),
        ("ESCAPED) != 0", "ESCAPED) == 7"),
    ],
)
def test_one_that_gives_other_entries_is_not_used(tmp_path: Path, right: str, wrong: str) -> None:
    for path in build.sources():
        shutil.copy(path, tmp_path)
    text = (tmp_path / "rows.c").read_text(encoding="utf-8")
    assert right in text
    (tmp_path / "rows.c").write_text(text.replace(right, wrong), encoding="utf-8")
    code = (
        f"from pathlib import Path; from ledger.native import build; build.FOLDER = Path({str(tmp_path)!r}); assert build.build();"
        "from ledger.kernel import native, onepass; assert native.functions(); print(onepass._is_right(native.functions()))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"


PATTERNS = ["9[13][0-9A-Z]{16}", "a", "(ab|a){1,3}c", "[a-c]{2,4}|x{3}", "((a|b){1,2}c){2}", "(a{1,2}){1,3}"]


@pytest.mark.parametrize("text", PATTERNS)
@given(value=st.text("abcx91Z0", max_size=20) | st.from_regex("9[13][0-9A-Z]{16}", fullmatch=True))
@settings(deadline=None, max_examples=60)
def test_an_automaton_matches_what_its_pattern_does(text: str, value: str) -> None:
    pattern = parse(text)
    found = automaton_of(pattern)
    assert found is not None
    assert found.matches(value.encode()) == pattern.matches(value)


def test_a_pattern_made_to_be_large_has_none_and_its_catalog_the_columns_way() -> None:
    text = "(a|b){1,40}a" + "(a|b)" * 30
    found = automaton_of(parse(text))
    assert found is None or len(found.accepts) <= MAX_STATES
    assert automaton_of(parse("((a{255}){255}){255}")) is None
    catalog = parse_catalog(
        b'id = "c"\nversion = 1\nkey = ["no"]\nsubject = { field = "no", visibility = "public", public_pattern = "((a{255}){255}){255}" }\n'
        b'field = [{ name = "no", type = "code" }]',
        "c",
    )
    keys = ExchangeKey(bytes(32)).for_catalog(catalog)
    assert onepass.one_pass(catalog, keys) is None
    result = Kernel(catalog, keys).run(Chunk({"no": pa.array(["A1"])}, np.arange(1)))
    assert result.entries[0, :16].tobytes() == keys.subject_tag("A1")


def test_it_reads_and_writes_nothing_but_its_own(tmp_path: Path) -> None:
    """Under the sanitizers: random bytes in buffers as long as they must be, rooms of every small size."""
    program = tmp_path / "drive.c"
    program.write_text(
        f'#include "{build.FOLDER / "hash.c"}"\n#include "{build.FOLDER / "rows.c"}"\n'
        """#include <stdlib.h>
int main(void)
{
    static const char *pieces[] = {"", "a", "Z9", "2024-02-29", "2024/02/29 08:00:00.120Z", "12.5", "-0", "\\xe8\\xae\\xb8", "\\xe3\\x80\\x80", "\\xc2", "\\xe8\\xae",
                                   "\\xf0\\xa0\\x80", "\\"\\\\\\n", "99991231", "\\r", "9998-12-31 23:59:59", "2024-01-01 00:00:00.1"};
    u8 key[32] = {1};
    srand(7);
    for (int round = 0; round < 4000; round++) {
        enum { WIDTH = 6 };
        int64_t rows = rand() % 5, width = WIDTH;
        Field fields[WIDTH];
        u8 *data[WIDTH], *valid[WIDTH];
        int32_t *offsets[WIDTH];
        for (int at = 0; at < WIDTH; at++) {
            offsets[at] = malloc(sizeof(int32_t) * (size_t)(rows + 1));
            valid[at] = malloc(1);
            valid[at][0] = (u8)rand();
            u8 text[1024];
            int32_t size = 0;
            offsets[at][0] = 0;
            for (int64_t row = 0; row < rows; row++) {
                for (int n = rand() % 3; n > 0; n--) {
                    const char *piece = pieces[(unsigned)rand() % (sizeof pieces / sizeof *pieces)];
                    memcpy(text + size, piece, strlen(piece));
                    size += (int32_t)strlen(piece);
                }
                offsets[at][row + 1] = size;
            }
            data[at] = malloc(size ? (size_t)size : 1);
            memcpy(data[at], text, (size_t)size);
            fields[at] = (Field){data[at], offsets[at], rand() % 2 ? valid[at] : NULL, 0, (const u8 *)"{\\"a\\":", at < 2 ? (const u8 *)",\\"k\\":" : NULL, 5, at < 2 ? 5 : 0, at, 2};
        }
        static uint16_t automaton[512];
        static const u8 accepts[2] = {0, 1};
        for (int i = 0; i < 256; i++) automaton[256 + i] = i & 1;
        Plan plan = {fields, width, rand() % 2 ? 1 : -1, 28800, key, key, key, rand() % 2 ? key : NULL, rand() % 2 ? automaton : NULL, accepts};
        int64_t size = rand() % 2 ? 1 << 14 : rand() % 4000;
        u8 *room = malloc(size ? (size_t)size : 1), *state = calloc(1, rows ? (size_t)rows : 1), *entries = malloc(64 * (size_t)rows + 1);
        dz_entries(&plan, rows, state, entries, room, size, rand() % 2);
        for (int at = 0; at < WIDTH; at++) free(data[at]), free(offsets[at]), free(valid[at]);
        free(room), free(state), free(entries);
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
        "-Wno-unused-function",
    ]
    subprocess.run(["cc", *flags, "-o", str(tmp_path / "drive"), str(program)], check=True)
    subprocess.run([str(tmp_path / "drive")], check=True)
