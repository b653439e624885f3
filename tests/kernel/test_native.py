"""The compiled kernel gives the bytes of the reference, whatever it is given; without it nothing but speed is lost."""

from __future__ import annotations

import ctypes
import hashlib
import hmac
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import rfc8785
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import merkle
from ledger.catalog import parse_catalog
from ledger.kernel import canonical, native
from ledger.kernel.ahead import WORKERS, in_order
from ledger.native import build

KEY = bytes(range(7, 39))
ENGINES = ["instructions", "portable", "reference"]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way to hash that there is; one that is missing here is a failure, for CI has a compiler."""
    found = native._load()
    if request.param == "reference":
        monkeypatch.setattr(native, "_load", lambda: None)
    else:
        assert found is not None, "there is no compiled kernel: run scripts/setup where there is a C compiler"
        if request.param == "portable":
            monkeypatch.setattr(native, "_load", lambda: _Portable(found))
    return str(request.param)


class _Portable:
    """The library as on a processor without instructions for SHA-256."""

    def __init__(self, found: Any) -> None:
        for name in ("dz_tags", "dz_commitments", "dz_root", "dz_subroots"):
            setattr(self, name, partial(self._portable, getattr(found, name)))

    @staticmethod
    def _portable(function: Any, *given: Any) -> None:
        function(*given[:-1], 1)


def committed(record: bytes) -> bytes:
    digest = hashlib.sha256(record).digest()
    return hashlib.sha256(hmac.digest(KEY, digest, "sha256") + digest).digest()


def test_every_length_around_the_padding(engine: str) -> None:
    messages = [bytes([n & 255]) * n for n in range(300)]
    array = pa.array(messages, pa.binary())
    assert [row.tobytes() for row in native.tags(KEY, array)] == [hmac.digest(KEY, m, "sha256")[:16] for m in messages]
    assert [row.tobytes() for row in native.commitments(KEY, array)] == [committed(m) for m in messages]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.binary(max_size=700), max_size=40), st.integers(0, 3), st.integers(0, 3))
def test_any_messages_and_any_part_of_an_array(engine: str, messages: list[bytes], first: int, last: int) -> None:
    array = pa.array(messages, pa.binary())[first : max(first, len(messages) - last)]
    wanted = array.to_pylist()
    assert [row.tobytes() for row in native.tags(KEY, array)] == [hmac.digest(KEY, m, "sha256")[:16] for m in wanted]
    assert [row.tobytes() for row in native.commitments(KEY, array)] == [committed(m) for m in wanted]
    chunked = pa.chunked_array([array, array])
    assert len(native.tags(KEY, chunked)) == 2 * len(wanted)


@pytest.mark.parametrize("count", [*range(18), 31, 32, 33, 1000, 4095, 4096, 4097])
def test_the_root_is_that_of_rfc_9162(engine: str, count: int) -> None:
    entries = np.random.default_rng(count).integers(0, 256, (count, 64), np.uint8)
    assert native.root(entries) == merkle.root_of(row.tobytes() for row in entries)[1]
    # Rows that do not lie together in memory.
    wide = np.zeros((count, 80), np.uint8)
    wide[:, 8:72] = entries
    assert native.root(wide[:, 8:72]) == native.root(entries)


@pytest.mark.parametrize("count", [0, 1, 2, 1023, 1024, 1025, 2048, 2049, 5000])
def test_the_tiles_are_those_of_the_reference_and_fold_to_the_root(engine: str, count: int) -> None:
    wide = np.random.default_rng(count).integers(0, 256, (count, 80), np.uint8)
    entries = wide[:, 8:72]
    rows = [row.tobytes() for row in entries]
    tiles = [tile.tobytes() for tile in native.subroots(entries)]
    assert tiles == [merkle.root_of(rows[at : at + 1024])[1] for at in range(0, count, 1024)]
    assert merkle.root_of_tiles(tiles) == native.root(entries)


TEXTS = st.one_of(st.none(), st.text(max_size=60), st.text(st.characters(max_codepoint=0x7F), max_size=60))


@settings(deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=30), st.integers(0, 3))
def test_objects_are_those_of_rfc_8785(rows: list[tuple[str | None, str | None]], first: int) -> None:
    one, two = (pa.array([row[at] for row in rows], pa.string())[first:] for at in range(2))
    made = native.objects([(b'{"a":', one), (b',"b":', two)], b"}")
    assert made is not None
    assert made.to_pylist() == [rfc8785.dumps({"a": a, "b": b}) for a, b in rows[first:]]


CATALOG = parse_catalog(
    b"""id = "c"
version = 3
key = ["no"]
field = [{ name = "no", type = "code" }, { name = "a", type = "text" }, { name = "b", type = "text" }]
""",
    "c",
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=20), TEXTS, TEXTS), max_size=20))
def test_the_kernel_makes_the_same_of_rows_with_and_without(rows: list[tuple[str, str | None, str | None]]) -> None:
    columns = {name: pa.array([row[at] for row in rows], pa.string()) for at, name in enumerate(("no", "a", "b"))}
    made = [(canonical.records(CATALOG, columns), canonical.record_keys(CATALOG, columns))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "_load", lambda: None)
        made.append((canonical.records(CATALOG, columns), canonical.record_keys(CATALOG, columns)))
    assert [part.to_pylist() for part in made[0]] == [part.to_pylist() for part in made[1]]


def test_columns_of_another_kind_or_length_are_not_taken() -> None:
    assert native.objects([(b"{", pa.array([b"a"], pa.binary()))], b"}") is None
    assert native.objects([], b"}") is None
    with pytest.raises(ValueError, match="one length"):
        native.objects([(b"{", pa.array(["a"])), (b",", pa.array(["a", "b"]))], b"}")


def test_what_is_no_array_of_bytes_is_refused() -> None:
    for array in (pa.array(["a"]), pa.array([b"a"], pa.large_binary()), pa.array([b"a", None], pa.binary())):
        with pytest.raises(ValueError, match=r"pa\.binary\(\)"):
            native.tags(KEY, array)
    with pytest.raises(ValueError, match="32 bytes"):
        native.commitments(b"short", pa.array([b"a"], pa.binary()))
    with pytest.raises(ValueError, match="64"):
        native.root(np.zeros((2, 63), np.uint8))
    with pytest.raises(ValueError, match="64"):
        native.subroots(np.zeros((2, 63), np.uint8))


def test_a_kernel_that_gives_other_bytes_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "FOLDER", copied(tmp_path))
    for name, right, wrong in (
        ("sha.h", "0x428a2f98", "0x428a2f99"),
        ("sha.h", "^ 0x5c", "^ 0x5d"),
        ("hash.c", "node[65] = {1}", "node[65] = {2}"),
        ("hash.c", "one[0] = two[0] = 1", "one[0] = two[0] = 2"),
        ("hash.c", "entries + 64 * at,", "entries + 64 * (at + 1 - 1) - 64 * (at > 4),"),
        ("hash.c", "count - at < each ? count - at : each", "each"),
        ("hash.c", '"u00"', '"u01"'),
    ):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert right in text
        (tmp_path / name).write_text(text.replace(right, wrong), encoding="utf-8")
        made = build.build()
        assert made is not None
        assert not native._is_right(_opened(made)), wrong
        (tmp_path / name).write_text(text, encoding="utf-8")
    made = build.build()
    assert made is not None
    assert native._is_right(_opened(made))


def copied(folder: Path) -> Path:
    """The C files in a folder of their own."""
    for path in build.sources():
        shutil.copy(path, folder)
    return folder


def _opened(path: Path) -> Any:
    found = ctypes.CDLL(str(path))
    for name in ("dz_tags", "dz_commitments", "dz_root", "dz_subroots", "dz_json"):
        getattr(found, name).restype = None
    found.dz_json_ends.restype = ctypes.c_int64
    return found


def test_another_source_is_another_library_and_the_old_one_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "FOLDER", copied(tmp_path))
    first = build.build()
    assert first is not None
    source = tmp_path / "hash.c"
    source.write_text(source.read_text(encoding="utf-8") + "\n/* more */\n", encoding="utf-8")
    second = build.build()
    assert second is not None
    assert second != first
    assert [path.name for path in tmp_path.glob("_native-*")] == [second.name]


@pytest.mark.parametrize("compiler", ["", "/bin/false"])
def test_without_a_compiler_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str) -> None:
    monkeypatch.setattr(build, "FOLDER", copied(tmp_path))
    monkeypatch.setattr(build.shutil, "which", lambda name: compiler or None)
    assert build.build() is None
    assert not list(tmp_path.glob("_native*"))


def test_the_reference_can_be_asked_for() -> None:
    words = [sys.executable, "-c", "from ledger.kernel import native; print(native.engine())"]
    told = subprocess.run(words, env={**os.environ, "DUIZHANG_KERNEL": "reference"}, capture_output=True, check=True)
    assert told.stdout.strip() == b"reference"


@pytest.mark.parametrize("engine", ["address,undefined"])
def test_it_reads_and_writes_nothing_but_its_own(tmp_path: Path, engine: str) -> None:
    """Under the sanitizers, every buffer as long as it must be and not a byte more."""
    program = tmp_path / "drive.c"
    program.write_text(
        f'#include "{build.FOLDER / "hash.c"}"\n'
        """#include <stdlib.h>
int main(void)
{
    u8 key[32] = {1};
    for (int portable = 0; portable < 2; portable++)
        for (int n = 0; n < 70; n++) {
            u64 size = 0;
            int32_t *offsets = malloc(sizeof(int32_t) * (size_t)(n + 1));
            offsets[0] = 0;
            for (int i = 0; i < n; i++) size += (u64)(i * 7 % 130), offsets[i + 1] = (int32_t)size;
            u8 *data = malloc(size ? size : 1), *tags = malloc((size_t)n * 16 + 1), *all = malloc((size_t)n * 64 + 1), root[32];
            memset(data, n, size ? size : 1);
            memset(all, n, (size_t)n * 64 + 1);
            dz_tags(key, data, offsets, n, tags, 16, portable);
            if (n) dz_commitments(key, data, offsets, n, all, 32, portable);
            dz_root(all, n, root, portable);
            for (int each = 1; each < 70; each += each) {
                u8 *tiles = malloc((size_t)((n + each - 1) / each) * 32 + !n);
                u8 *whole = malloc((size_t)n * 64 + !n);
                memcpy(whole, all, (size_t)n * 64);
                dz_subroots(whole, n, each, tiles, portable);
                free(tiles), free(whole);
            }
            for (u64 i = 0; i < size; i++) data[i] = (u8)(i * 37 + (u64)n);
            Column column = {data, offsets, NULL, 0, (const u8 *)"{", 1};
            int32_t *ends = malloc(sizeof(int32_t) * (size_t)(n + 1));
            int64_t length = dz_json_ends(&column, 1, 1, n, ends);
            u8 *text = malloc(length ? (size_t)length : 1);
            dz_json(&column, 1, (const u8 *)"}", 1, n, text);
            free(ends), free(text);
            free(offsets), free(data), free(tags), free(all);
        }
    return 0;
}
""",
        encoding="utf-8",
    )
    built = tmp_path / "drive"
    flags = [
        f"-fsanitize={engine}",
        "-fno-sanitize-recover=all",
        "-O1",
        "-g",
        "-std=c11",
        "-Wall",
        "-Wextra",
        "-Werror",
    ]
    subprocess.run(["cc", *flags, "-o", str(built), str(program)], check=True)
    subprocess.run([str(built)], check=True)


# ---- several threads ----


def test_the_order_is_that_of_the_items_and_each_thread_has_its_own_function() -> None:
    made: list[int] = []

    def make() -> Any:
        made.append(threading.get_ident())
        own = threading.get_ident()

        def work(item: int) -> tuple[int, bool]:
            return item * item, threading.get_ident() == own

        return work

    found = list(in_order(make, iter(range(500))))
    assert [item for item, _ in found] == list(range(500))
    assert [result for _, result in found] == [(n * n, True) for n in range(500)]
    assert len(made) <= WORKERS


def test_no_more_is_read_than_can_be_worked_on() -> None:
    read = 0

    def items() -> Iterator[int]:
        nonlocal read
        for item in range(1000):
            read = item + 1
            yield item

    given = in_order(lambda: lambda item: item, items())
    next(given)
    assert read <= WORKERS + 1
    given.close()


@pytest.mark.parametrize("at", [0, 3, 9])
def test_an_error_comes_where_its_item_would_have(at: int) -> None:
    def work(item: int) -> int:
        if item == at:
            raise ZeroDivisionError
        return item

    given = in_order(lambda: work, range(10))
    found = [next(given)[0] for _ in range(at)]
    with pytest.raises(ZeroDivisionError):
        next(given)
    assert found == list(range(at))

    def items() -> Iterator[int]:
        yield from range(at)
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011
        list(in_order(lambda: lambda item: item, items()))
