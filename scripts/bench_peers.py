"""`reconcile` beside reladiff (`-a hashdiff -j 4`) on the same rows in the same PostgreSQL, with 3 and 1,000 differences; and what each of
them finds of differences that look alike in text.

    scripts/bench_peers.py [rows]

reladiff lives in a virtual environment of its own, made for this run from the package registry. It needs a key it can cut into ranges, so
its tables have an integer `id` besides. It compares two tables of one server; `reconcile` compares one with what is anchored.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from bench import CATALOG, DUIZHANG, FIELDS, measured
from bench_postgres import copied, load

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.databases import Database, fresh, start_postgres

RELADIFF = "reladiff[postgresql]==0.6.0"
REPEATS = 5
ALIKE = {
    "NULL and '<null>'": (("NULL", "'c'"), ("'<null>'", "'c'")),
    "('a|b', 'c') and ('a', 'b|c')": (("'a|b'", "'c'"), ("'a'", "'b|c'")),
    "'x' and 'x '": (("'x'", "'c'"), ("'x '", "'c'")),
}


def install(folder: Path) -> Path:
    """reladiff in an environment of its own."""
    venv.create(folder, with_pip=True)
    subprocess.run([folder / "bin" / "pip", "install", "-q", RELADIFF], check=True, capture_output=True)
    return folder / "bin" / "reladiff"


def reladiff(program: Path, url: str, left: str, right: str, columns: list[str]) -> tuple[float, int]:
    """Seconds, and the number of lines with a difference."""
    words = [str(program), url, left, url, right, "-k", "id", "-a", "hashdiff", "-j", "4"]
    for name in columns:
        words += ["-c", name]
    started = time.monotonic()
    told = subprocess.run(words, capture_output=True, text=True, check=True)
    return time.monotonic() - started, sum(line[:1] in "+-" for line in told.stdout.splitlines() if line)


def ours(home: Path, code: int) -> float:
    """Seconds of `reconcile`."""
    return measured(["-C", str(home), "reconcile", "bench"], code)[0]


def workspace(home: Path, database: Database) -> None:
    """A workspace whose own source is the table `bench`, anchored."""
    subprocess.run([*DUIZHANG, "init", str(home)], check=True, stdout=subprocess.DEVNULL)
    (home / "catalogs" / "bench.toml").write_text(CATALOG, encoding="utf-8")
    with (home / "duizhang.toml").open("a", encoding="utf-8") as config:
        config.write(f'\n[source.bench]\nurl = "{database.url}"\ntable = "bench"\norigin = "own"\n')
    subprocess.run([*DUIZHANG, "-C", str(home), "anchor", "bench"], check=True, stdout=subprocess.DEVNULL)


def alike(program: Path, url: str, database: Database) -> None:
    """Which of the look-alikes reladiff finds. That `reconcile` finds each is a test of the suite (canonical bytes differ)."""
    print("\n| differs by | reladiff finds it |\n|---|---|")
    for name, (one, two) in ALIKE.items():
        for table, values in (("one", one), ("two", two)):
            database.run(
                f"DROP TABLE IF EXISTS {table}",
                f"CREATE TABLE {table} (id bigint, a text, b text)",
                f"INSERT INTO {table} VALUES (1, {', '.join(values)}), (2, 'same', 'same')",  # noqa: S608
            )
        print(f"| {name} | {'yes' if reladiff(program, url, 'one', 'two', ['a', 'b'])[1] else 'no'} |", flush=True)


def main() -> None:
    """Measure and print Markdown."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    print(
        f"Machine: {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, {platform.system()}"
    )
    server = start_postgres("18", "shared_buffers=512MB")
    try:
        with fresh(server) as database, tempfile.TemporaryDirectory(prefix="duizhang-peers-") as name:
            program = install(Path(name) / "reladiff")
            url = database.url.replace("+psycopg", "")
            load(database, count)
            database.run("ALTER TABLE bench ADD id bigint GENERATED ALWAYS AS IDENTITY")
            database.run("CREATE TABLE other AS SELECT * FROM bench", "ALTER TABLE bench ADD PRIMARY KEY (id)")
            database.run("ALTER TABLE other ADD PRIMARY KEY (id)", "ANALYZE bench", "ANALYZE other")
            home = Path(name) / "workspace"
            workspace(home, database)
            base = copied(server, database, "BINARY")
            print(f"\n| {count:,} rows | differences | seconds | ÷ COPY BINARY | ÷ reladiff |\n|---|---|---|---|---|")
            try:
                for wanted in (3, 1000):
                    database.run(
                        f"UPDATE bench SET fee = fee + 1 WHERE id IN (SELECT id FROM other ORDER BY id LIMIT {wanted}) "  # noqa: S608
                        "AND fee IN (SELECT o.fee FROM other o WHERE o.id = bench.id)"
                    )
                    mine = statistics.median(ours(home, 1) for _ in range(REPEATS))
                    theirs = statistics.median(
                        reladiff(program, url, "bench", "other", list(FIELDS))[0] for _ in range(REPEATS)
                    )
                    print(f"| reladiff -a hashdiff -j 4 | {wanted:,} | {theirs:.2f} | {theirs / base:.1f} | 1 |")
                    print(
                        f"| reconcile | {wanted:,} | {mine:.2f} | {mine / base:.1f} | {mine / theirs:.2f} |", flush=True
                    )
                alike(program, url, database)
            finally:
                subprocess.run([*DUIZHANG, "-C", str(home), "chain", "down"], check=False, stdout=subprocess.DEVNULL)
    finally:
        server.stop()


if __name__ == "__main__":
    main()
