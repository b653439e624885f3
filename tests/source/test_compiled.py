"""The compiled part of the readers: text is what Python calls text, every buffer is its own, and a spoilt one is not used."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ledger.native import build
from ledger.source import compiled, parquetpages, sqlitecapi

# The first and last of each length, what lies outside, and parts of them.
EDGES = [
    b"", b"a", b"\x7f", b"\xc2\x80", b"\xdf\xbf", b"\xe0\xa0\x80", b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbf", b"\xf0\x90\x80\x80",
    b"\xf4\x8f\xbf\xbf", b"\x80", b"\xc0\x80", b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf0\x8f\xbf\xbf", b"\xf4\x90\x80\x80",
    b"\xf5\x80\x80\x80", b"\xff", b"\xe4\xb8", b"\xe4", b"\xad", "中文".encode(), b"12345678", b"123456789abcdef",
]  # fmt: skip


def is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


@given(
    st.lists(st.lists(st.sampled_from(EDGES), max_size=6).map(b"".join) | st.binary(max_size=12), max_size=12),
    st.integers(0, 3),
    st.integers(0, 3),
)
@settings(max_examples=400, deadline=None)
@example([b"\xe4\xb8", b"\xad"], 0, 0)
@example([b"\xff", b"a", b"\xff"], 1, 1)
def test_text_is_what_python_decodes_value_by_value(values: list[bytes], first: int, last: int) -> None:
    array = pa.array(values, pa.binary())[first : max(first, len(values) - last)]
    assert compiled.is_utf8(array) is all(map(is_text, array.to_pylist()))


@pytest.mark.parametrize("lead", range(0x80, 0x100))
def test_every_first_and_second_byte_is_judged_as_python_does(lead: int) -> None:
    for second in range(0x100):
        for rest in (b"", b"\x80", b"\x80\x80", b"\xbf\xbf", b"a"):
            value = bytes([lead, second]) + rest
            assert compiled.is_utf8(pa.array([value], pa.binary())) is is_text(value), value


def test_null_covers_nothing_and_other_kinds_are_left_to_the_reference() -> None:
    assert compiled.is_utf8(pa.array([None, "中", None])) is True
    assert compiled.is_utf8(pa.array([], pa.string())) is True
    assert compiled.is_utf8(pa.array(["a"], pa.large_string())) is None


SPOILT = [
    ("utf8.c", "first < 0xC2", "first < 0xC0"),
    ("utf8.c", "? 0xA0 :", "? 0x80 :"),
    ("utf8.c", "? 0x9F :", "? 0xBF :"),
    ("utf8.c", "? 0x8F :", "? 0xBF :"),
    ("utf8.c", "return !inside", "return 1"),
    ("csv.c", "from += *from == '\"'", "from += 0"),
    ("csv.c", "it.lines++", "it.lines += 2"),
    ("csv.c", "start = bounds[at + 1] + 1", "start = bounds[at + 1]"),
    ("csv.c", "place - 1 : place", "place : place"),
    ("csv.c", "it->at || end > it->start", "1"),
    ("csv.c", "it.odd |= !inside", "it.odd |= 0"),
    ("csv.c", "~it->start", "~it->start + 1"),
    ("sqlite.c", "value < 0 ? 0 - (u64)value", "value < 0 ? 1 - (u64)value"),
    ("sqlite.c", "column->kinds[row] = (u8)kind", "column->kinds[row] = TEXT"),
    ("sqlite.c", "column->seen |= (int64_t)1 << kind", "column->seen |= (int64_t)1 << TEXT"),
    ("parquet.c", "length > longest ? length : longest", "length"),
    ("parquet.c", "place != size", "0"),
]


@pytest.mark.parametrize(("name", "right", "wrong"), SPOILT)
def test_a_function_that_answers_otherwise_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, right: str, wrong: str
) -> None:
    for path in build.sources():
        shutil.copy(path, tmp_path)
    text = (tmp_path / name).read_text(encoding="utf-8")
    assert right in text
    assert used(tmp_path, monkeypatch)
    (tmp_path / name).write_text(text.replace(right, wrong), encoding="utf-8")
    assert not used(tmp_path, monkeypatch)


def used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether all functions of the library of this folder pass their checks."""
    with monkeypatch.context() as patch:
        patch.setattr(build, "FOLDER", folder)
        made = build.build()
        assert made is not None
        opened = ctypes.CDLL(str(made))
        for module in (compiled, sqlitecapi, parquetpages):
            patch.setattr(module, "load", lambda: opened)
        checks: list[Any] = [compiled.utf8, compiled.csv, sqlitecapi.library, parquetpages.longest_of]
        try:
            for check in checks:
                check.cache_clear()
            return all(check() is not None for check in checks)
        finally:
            for check in checks:
                check.cache_clear()


DRIVE = r"""
#include <stdlib.h>

/* Bytes that lie alone, so that the sanitizer sees who reads or writes past them. */
static void *alone(const void *from, int64_t size)
{
    void *out = malloc(size ? (size_t)size : 1);
    if (from && size) memcpy(out, from, (size_t)size);
    return out;
}

static u32 state = 1;
static u32 chance(u32 below) { state = state * 1664525u + 1013904223u; return (state >> 8) % below; }

static void text(void)
{
    static const u8 bytes[] = "a\x7f\xc2\x80\xe4\xb8\xad\xed\xa0\xf0\x9f\x98\x80\xf4\xff";
    for (int n = 0; n < 40000; n++) {
        int32_t count = (int32_t)chance(6), offsets[8] = {0};
        u8 made[64];
        for (int i = 0; i < count; i++) {
            int32_t size = (int32_t)chance(10);
            for (int j = 0; j < size; j++) made[offsets[i] + j] = bytes[chance(sizeof bytes - 1)];
            offsets[i + 1] = offsets[i] + size;
        }
        u8 *data = alone(made, offsets[count]);
        int32_t *ends = alone(offsets, (count + 1) * 4);
        dz_utf8(data, ends, count);
        free(data), free(ends);
    }
}

static void csv(void)
{
    static const char *pieces[] = {",", "\"", "\"\"", "\n", "\r\n", "\r", "a", "bcdefghijklmnopqrstuvwxyz", "1,2,3\n", "\"x,\n\",,\r\n"};
    for (int n = 0; n < 40000; n++) {
        u8 made[2048];
        int64_t size = 0, width = 1 + chance(4);
        for (int i = (int)chance(40); i; i--) {
            const char *piece = pieces[chance(chance(2) ? 10 : 8)];
            memcpy(made + size, piece, strlen(piece)), size += (int64_t)strlen(piece);
        }
        u8 *data = alone(made, size);
        int64_t most = size / width + 1, *numbers = alone(NULL, most * 8), *sizes = alone(NULL, width * 8);
        int32_t *bounds = alone(NULL, most * (width + 1) * 4), *ends = alone(NULL, width * 4);
        Cut found;
        if (!dz_csv_cut(data, size, (int)chance(2), width, most, bounds, numbers, sizes, &found)) {
            Text columns[4];
            for (int at = 0; at < width; at++)
                columns[at] = (Text){alone(NULL, sizes[at] + SLACK), alone(NULL, (found.records + 1) * 4)};
            dz_csv_copy(data, size, bounds, &found, width, columns, ends);
            for (int at = 0; at < width; at++) {
                if (ends[at] > sizes[at] || columns[at].offsets[found.records] != ends[at]) abort();
                free(columns[at].data), free(columns[at].offsets);
            }
        }
        free(data), free(numbers), free(sizes), free(bounds), free(ends);
    }
}

static void dictionary(void)
{
    for (int n = 0; n < 40000; n++) {
        u8 made[64] = {0};
        int64_t size = chance(24);
        for (int64_t i = 0; i < size; i++) made[i] = (u8)(chance(4) ? 0 : chance(2) ? chance(6) : 255);
        u8 *data = alone(made, size);
        int64_t longest = dz_longest(data, size, chance(7));
        if (longest > size) abort();
        free(data);
    }
}

/* A statement of rows of every storage class. */
typedef struct { int row, rows, at; u8 *kept; } Statement;
static int step(void *it) { Statement *s = it; return ++s->row > s->rows ? DONE : ROW; }
static void *value(void *it, int at) { ((Statement *)it)->at = at; return it; }
static int type(void *it) { Statement *s = it; return 1 + (s->row + s->at) % 5; }
static int bytes(void *it) { Statement *s = it; return s->row * (s->at + 1) % 23; }
static const u8 *kept(void *it) { Statement *s = it; free(s->kept); s->kept = alone(NULL, bytes(it)); memset(s->kept, 'x', (size_t)bytes(it)); return s->kept; }
static const void *blob(void *it) { return bytes(it) ? kept(it) : NULL; }
static int64_t integer(void *it) { Statement *s = it; return s->row % 3 ? s->row - 40 : s->row % 2 ? INT64_MIN : INT64_MAX; }
static double real(void *it) { return ((Statement *)it)->row / 7.0; }

static void rows(void)
{
    Api api = {step, value, type, bytes, kept, blob, integer, real};
    for (int most = 1; most < 40; most++)
        for (int limit = 1; limit < 600; limit += 37) {
            Statement statement = {0, 90, 0, NULL};
            int end = FULL, all = 0;
            while (end != DONE) {
                Filled columns[3];
                for (int at = 0; at < 3; at++) {
                    columns[at] = (Filled){alone(NULL, at), alone(NULL, (most + 1) * 4), alone(NULL, (most + 7) / 8), alone(NULL, most), at, 0, 0};
                    columns[at].offsets[0] = 0, memset(columns[at].valid, 255, (size_t)(most + 7) / 8);
                }
                int64_t row = 0, cramped[2];
                int stepped = 0;
                while ((end = dz_sqlite(&api, &statement, columns, 3, most, limit, &row, &stepped, cramped)) == CRAMPED) {
                    Filled *column = columns + cramped[0];
                    column->data = realloc(column->data, (size_t)cramped[1]), column->room = cramped[1];
                }
                all += (int)row;
                for (int at = 0; at < 3; at++) {
                    if (columns[at].offsets[row] > columns[at].room) abort();
                    free(columns[at].data), free(columns[at].offsets), free(columns[at].valid), free(columns[at].kinds);
                }
            }
            free(statement.kept);
            if (all != 90) abort();
        }
}

int main(void) { text(), csv(), dictionary(), rows(); return 0; }
"""


def test_it_reads_and_writes_nothing_but_its_own(tmp_path: Path) -> None:
    """Under the sanitizers, every buffer as long as it must be and not a byte more."""
    included = "".join(f'#include "{build.FOLDER / name}"\n' for name in ("utf8.c", "csv.c", "parquet.c", "sqlite.c"))
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
    for portable in ([], ["-U__SSE2__"]):
        program, built = tmp_path / "drive.c", tmp_path / "drive"
        program.write_text(included + DRIVE, encoding="utf-8")
        subprocess.run(["cc", *flags, *portable, "-o", str(built), str(program)], check=True)
        subprocess.run([str(built)], check=True)
