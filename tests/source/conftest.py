"""A small catalog, and files and tables of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ledger.catalog import Catalog, parse_catalog
from ledger.kernel.chunk import Chunk
from ledger.kernel.entries import Kernel
from ledger.keys import ExchangeKey
from ledger.source import compiled, parquetpages, sqlitecapi

FINES = """
id = "fines"
version = 1
key = ["no"]
subject = { field = "holder", visibility = "protected" }
field = [
  { name = "no", title = "文书号", type = "code" }, { name = "holder", title = "相对人", type = "text", personal = true },
  { name = "fee", title = "罚款", type = "decimal", scale = 2 }, { name = "decided", title = "日期", type = "date" },
]
"""


@pytest.fixture(scope="session")
def fines() -> Catalog:
    return parse_catalog(FINES.encode(), "fines.toml")


@pytest.fixture(scope="session")
def kernel_of() -> Callable[[Catalog], Kernel]:
    return lambda catalog: Kernel(catalog, ExchangeKey(bytes(range(32))).for_catalog(catalog))


@pytest.fixture
def kernel(fines: Catalog, kernel_of: Callable[[Catalog], Kernel]) -> Kernel:
    return kernel_of(fines)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes | str], Path]:
    def write(content: bytes | str) -> Path:
        path = tmp_path / "fines.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture
def database(tmp_path: Path) -> Callable[..., str]:
    """Make a database of the statements and rows given; return its URL."""

    def make(*statements: str, rows: Iterable[Sequence[Any]] = (), table: str = "fines") -> str:
        path = tmp_path / "city.db"
        with sqlite3.connect(path) as connection:
            for statement in statements:
                connection.execute(statement)
            for row in rows:
                connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
        connection.close()
        return f"sqlite:///{path}"

    return make


@pytest.fixture(scope="session")
def rows_of() -> Callable[[Iterable[Chunk]], list[tuple[str | None, ...]]]:
    """The declared fields of all rows, in the chunks' order."""

    def rows_of(chunks: Iterable[Chunk]) -> list[tuple[str | None, ...]]:
        found: list[tuple[str | None, ...]] = []
        for chunk in chunks:
            found += zip(*(column.to_pylist() for column in chunk.fields.values()), strict=True)
        return found

    return rows_of


@pytest.fixture(scope="module")
def compiled_part() -> None:
    """That it is used here; where it is missing that is a failure, for CI has a compiler."""
    assert compiled.csv() is not None, "there is no compiled part: run scripts/setup where there is a C compiler"
    assert sqlitecapi.library() is not None, "SQLite's C interface cannot be had"
    assert parquetpages.longest_of() is not None


@pytest.fixture(params=["compiled", "reference"])
def readers(request: pytest.FixtureRequest, compiled_part: None) -> Iterator[str]:
    """Each way to read that there is."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "reference":
            without_compiled(patch)
        yield str(request.param)


def without_compiled(patch: pytest.MonkeyPatch) -> None:
    """As where there is no C compiler."""
    for module, name in ((sqlitecapi, "library"), (compiled, "csv"), (compiled, "utf8"), (parquetpages, "longest_of")):
        patch.setattr(module, name, lambda: None)
