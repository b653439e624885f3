"""Peers beside `reconcile`: reladiff (`-a hashdiff -j 4`) on two tables of one PostgreSQL, datacompy (polars) on the same tables as Parquet;
and what reladiff finds of differences that look alike in text. For scripts/bench_table.py.

Each lives in a virtual environment of its own, made for the run from the package registry. reladiff needs a key it can cut into ranges, so
its tables have an integer `id` besides. It compares two tables of one server; `reconcile` compares one with what is anchored.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from bench import FIELDS

sys.path.insert(0, str(Path(__file__).parent.parent))
from ledger.batch.build import Builder
from ledger.catalog import parse_catalog
from ledger.keys import ExchangeKey
from ledger.source.table import open_table
from tests.databases import Database

RELADIFF = "reladiff[postgresql]==0.6.0"
DATACOMPY = "datacompy[polars]==1.1.0"
_PAIR = b"""id = "pair"
version = 1
key = ["id"]
field = [{ name = "id", type = "integer" }, { name = "a", type = "text" }, { name = "b", type = "text" }]
"""
ALIKE = {
    "NULL and '<null>'": (("NULL", "'c'"), ("'<null>'", "'c'")),
    "('a|b', 'c') and ('a', 'b|c')": (("'a|b'", "'c'"), ("'a'", "'b|c'")),
    "NULL and a value": (("NULL", "'c'"), ("'v'", "'c'")),
}


def install(folder: Path) -> Path:
    """reladiff in an environment of its own."""
    _environment(folder, RELADIFF)
    return folder / "bin" / "reladiff"


def _environment(folder: Path, requirement: str) -> None:
    venv.create(folder, with_pip=True)
    subprocess.run([folder / "bin" / "pip", "install", "-q", requirement], check=True, capture_output=True)


def reladiff(program: Path, url: str, left: str, right: str, columns: list[str]) -> tuple[float, int]:
    """Seconds, and the number of lines with a difference."""
    words = [str(program), url, left, url, right, "-k", "id", "-a", "hashdiff", "-j", "4"]
    for name in columns:
        words += ["-c", name]
    started = time.monotonic()
    told = subprocess.run(words, capture_output=True, text=True, check=True)
    return time.monotonic() - started, sum(line[:1] in "+-" for line in told.stdout.splitlines() if line)


def twin(database: Database) -> None:
    """The table `bench` with an integer key, and a copy of it, `other`."""
    database.run(
        "ALTER TABLE bench ADD id bigint GENERATED ALWAYS AS IDENTITY",
        "CREATE TABLE other AS SELECT * FROM bench",
        "ALTER TABLE bench ADD PRIMARY KEY (id)",
        "ALTER TABLE other ADD PRIMARY KEY (id)",
        "VACUUM ANALYZE bench",
        "VACUUM ANALYZE other",
    )


def change(database: Database, wanted: int) -> None:
    """Exactly so many rows of `bench` differ from those of `other`."""
    database.run(
        f"UPDATE bench SET fee = bench.fee + 1 FROM other WHERE other.id = bench.id AND bench.fee = other.fee AND bench.id <= {wanted}"  # noqa: S608
    )


_DATACOMPY_RUN = """
import sys, time, polars, datacompy
started = time.monotonic()
one, other = (polars.read_parquet(path) for path in sys.argv[1:3])
found = datacompy.PolarsCompare(one, other, join_columns=["id"])
assert not found.matches()
found.report()
print(time.monotonic() - started)
"""


def datacompy(folder: Path, database: Database, repeats: int) -> float:
    """Median seconds of reading both tables from Parquet, comparing and reporting, start of the interpreter left out."""
    home = folder / "datacompy"
    _environment(home, DATACOMPY)
    paths = []
    for table in ("bench", "other"):
        path = folder / f"{table}.parquet"
        with database.connect() as connection:
            names = ", ".join(["id", *(f"{name}::text" for name in FIELDS)])
            cursor = connection.execute(f"SELECT {names} FROM {table} ORDER BY id")  # noqa: S608
            schema = pa.schema([("id", pa.int64()), *((name, pa.string()) for name in FIELDS)])
            with pq.ParquetWriter(path, schema) as writer:
                while kept := cursor.fetchmany(100_000):
                    columns = [
                        pa.array(column, field.type)
                        for column, field in zip(zip(*kept, strict=True), schema, strict=True)
                    ]
                    writer.write_table(pa.table(columns, schema=schema))
        paths.append(str(path))
    words = [str(home / "bin" / "python"), "-c", _DATACOMPY_RUN, *paths]
    return statistics.median(
        float(subprocess.run(words, check=True, capture_output=True).stdout) for _ in range(repeats)
    )


def alike(program: Path, url: str, database: Database) -> list[str]:
    """Rows of a table: which of the look-alikes reladiff finds, and whether their canonical bytes differ, which is what `reconcile` goes by."""
    found = []
    for name, (one, two) in ALIKE.items():
        for table, values in (("one", one), ("two", two)):
            database.run(
                f"DROP TABLE IF EXISTS {table}",
                f"CREATE TABLE {table} (id bigint, a text, b text)",
                f"INSERT INTO {table} VALUES (1, {', '.join(values)}), (2, 'same', 'same')",  # noqa: S608
            )
        theirs = reladiff(program, url, "one", "two", ["a", "b"])[1] > 0
        ours = _root(database, "one") != _root(database, "two")
        found.append(f"| {name} | {'yes' if theirs else 'no'} | {'yes' if ours else 'no'} |")
    return found


def _root(database: Database, table: str) -> str:
    """The root of the table, as `digest` has it."""
    catalog = parse_catalog(_PAIR, "pair")
    with open_table(database.url, table, catalog) as source:
        builder = Builder(catalog, ExchangeKey(bytes(32)).for_catalog(catalog))
        builder.add_all(source.scan())
        return builder.finish().root
