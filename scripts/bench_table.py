"""The measures of docs/benchmarks.md with what must be reached and what is aimed at: one run, one machine, medians of REPEATS.

    scripts/bench [rows] [--ten] [--only 1,2,4]         rows: default 1,000,000; --ten: 10 times as many for measure 3 (half an hour more)

What is compared runs in turn, A B A B …, and the ratio is taken pair by pair, so that a machine whose speed drifts does not decide. Every
figure is of whole commands in processes of their own. Peers live in virtual environments of their own, made for the run. Nothing is asserted:
`met` says what a figure reached.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import bench_nightly
import bench_peers
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from bench import CATALOG, DUIZHANG, FIELDS, generate, measured, rows
from bench_postgres import copied_once, load

sys.path.insert(0, str(Path(__file__).parent.parent))
from ledger.kernel import native
from tests.databases import Database, Server, fresh, start_postgres

REPEATS = 5
ROOT = Path(__file__).parent.parent
DIFFERENT = (3, 1000)
ALIKE: list[str] = []
"""Rows of the second table: what looks alike in text."""


@dataclass(frozen=True)
class Line:
    """One figure; `must` and `goal` in its unit, None where there is none; `least` says that more is better."""

    number: str
    name: str
    value: float
    must: float | None
    goal: float | None
    unit: str = ""
    least: bool = False
    note: str = ""

    def reaches(self, limit: float | None) -> bool:
        """Whether the figure is as good as that."""
        return limit is not None and (self.value >= limit if self.least else self.value <= limit)

    def __str__(self) -> str:
        met = (
            "goal"
            if self.reaches(self.goal)
            else "must"
            if self.reaches(self.must)
            else "—"
            if self.must is None
            else "NO"
        )
        shown = [
            f"{it:,.0f}" if it and it >= 1000 else "" if it is None else f"{it:.3g}"
            for it in (self.value, self.must, self.goal)
        ]
        sign = "≥" if self.least else "≤"
        limits = [f"{sign} {it}" if it else "" for it in shown[1:]]
        return f"| {self.number} | {self.name} | {shown[0]} {self.unit} | {limits[0]} | {limits[1]} | {met} | {self.note} |"


def say(line: Line) -> None:
    """Print it at once: the run is long."""
    print(line, flush=True)


def in_turn(one: Callable[[], float], other: Callable[[], float], repeats: int = REPEATS) -> tuple[float, float, float]:
    """Medians of both and of their ratio, pair by pair."""
    pairs = [(one(), other()) for _ in range(repeats)]
    return (
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(a / b for a, b in pairs),
    )


def seconds(words: Sequence[str], code: int = 0) -> float:
    """Wall seconds of one command of ours."""
    return measured(words, code)[0]


def tree_peak(words: Sequence[str], code: int) -> tuple[float, int]:
    """Wall seconds, and the largest sum of resident memory of the process and all its descendants, looked at every 20 ms."""
    process = psutil.Popen([*DUIZHANG, *words], stdout=subprocess.DEVNULL)
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            try:
                tree = [process, *process.children(recursive=True)]
                peak = max(peak, sum(it.memory_info().rss for it in tree))
            except psutil.Error:
                continue

    watcher = threading.Thread(target=watch)
    started = time.monotonic()
    watcher.start()
    ended = process.wait()
    took = time.monotonic() - started
    done.set()
    watcher.join()
    if ended != code:
        raise SystemExit(f"{' '.join(words)} ended with {ended}")
    return took, peak


@contextmanager
def workspace(folder: Path, url: str) -> Iterator[list[str]]:
    """A workspace whose own source is the table `bench` there; the words that name it."""
    home = folder / f"workspace-{time.monotonic_ns()}"
    subprocess.run([*DUIZHANG, "init", str(home)], check=True, stdout=subprocess.DEVNULL)
    (home / "catalogs" / "bench.toml").write_text(CATALOG, encoding="utf-8")
    with (home / "duizhang.toml").open("a", encoding="utf-8") as config:
        config.write(f'\n[source.bench]\nurl = "{url}"\ntable = "bench"\norigin = "own"\n')
    try:
        yield ["-C", str(home)]
    finally:
        subprocess.run([*DUIZHANG, "-C", str(home), "chain", "down"], check=False, stdout=subprocess.DEVNULL)
        shutil.rmtree(home, ignore_errors=True)


def tables(wanted: set[str], folder: Path, count: int, ten: bool) -> None:
    """Measures 1 to 3, and their profile: what runs on PostgreSQL."""
    server = start_postgres("18", "shared_buffers=512MB")
    try:
        with fresh(server) as database:
            load(database, count)
            with workspace(folder, database.url) as at:
                subprocess.run([*DUIZHANG, *at, "anchor", "bench"], check=True, stdout=subprocess.DEVNULL)
                _tables(wanted, server, database, folder, at, count)
            if ten:
                _ten(database, folder, count)
    finally:
        server.stop()


def _tables(wanted: set[str], server: Server, database: Database, folder: Path, at: list[str], count: int) -> None:
    words = [*at, "reconcile", "bench"]

    def base() -> float:
        return copied_once(server, database, "BINARY")

    if "1" in wanted:
        mine, theirs, ratio = in_turn(lambda: seconds(words), base)
        say(Line("1", "reconcile, 0 differences ÷ COPY BINARY", ratio, 6, 2.5, note=f"{mine:.2f} s ÷ {theirs:.2f} s"))
    url = database.url.replace("+psycopg", "")
    program = bench_peers.install(folder / "reladiff") if "2" in wanted else folder
    bench_peers.twin(database)

    def reladiff() -> float:
        return bench_peers.reladiff(program, url, "bench", "other", list(FIELDS))[0]

    for different in DIFFERENT:
        bench_peers.change(database, different)
        if "1" in wanted and different == DIFFERENT[-1]:
            mine, theirs, ratio = in_turn(lambda: seconds(words, 1), base)
            say(
                Line(
                    "1",
                    f"reconcile, {different:,} differences ÷ COPY BINARY",
                    ratio,
                    6,
                    2.5,
                    note=f"{mine:.2f} s ÷ {theirs:.2f} s",
                )
            )
        if "2" in wanted:
            mine, theirs, ratio = in_turn(lambda: seconds(words, 1), reladiff)
            say(
                Line(
                    "2",
                    f"reconcile ÷ reladiff hashdiff -j 4, {different:,} differences",
                    ratio,
                    0.9,
                    0.33,
                    note=f"{mine:.2f} s ÷ {theirs:.2f} s",
                )
            )
    if "2" in wanted:
        took = bench_peers.datacompy(folder, database, REPEATS)
        say(
            Line(
                "2",
                "datacompy (polars), the same two tables as Parquet",
                took,
                None,
                None,
                "s",
                note="for comparison; both in memory",
            )
        )
        ALIKE.extend(bench_peers.alike(program, url, database))


def _ten(database: Database, folder: Path, count: int) -> None:
    """The table ten times over, under other keys and codes."""
    made = ", ".join(f"{name} || '/' || n AS {name}" if name in ("decision_no", "uscc") else name for name in FIELDS)
    database.run("DROP TABLE IF EXISTS other, one, two")
    figures = []
    for copies in (1, 10):
        if copies > 1:
            database.run(
                "ALTER TABLE bench RENAME TO one",
                f"CREATE TABLE bench AS SELECT {made} FROM one, generate_series(1, {copies}) n",  # noqa: S608
            )
        database.run("VACUUM ANALYZE bench")
        with workspace(folder, database.url) as at:
            subprocess.run([*DUIZHANG, *at, "anchor", "bench"], check=True, stdout=subprocess.DEVNULL)
            runs = [tree_peak([*at, "reconcile", "bench"], 0) for _ in range(3)]
        figures.append((statistics.median(took for took, _ in runs) / (count * copies), max(peak for _, peak in runs)))
    (each, _), (of_ten, peak) = figures
    say(
        Line(
            "3",
            f"{10 * count:,} rows: time per row ÷ that at {count:,}",
            of_ten / each,
            1.3,
            1.1,
            note=f"{of_ten * 1e6:.2f} µs ÷ {each * 1e6:.2f} µs",
        )
    )
    say(Line("3", "peak memory of the whole process tree", peak / 2**30, 2.5, 1.5, "GiB"))


def files(folder: Path, count: int) -> None:
    """Measure 4."""
    file, database = generate(folder, count)
    parquet = folder / "rows.parquet"
    with pq.ParquetWriter(parquet, pa.schema([(name, pa.string()) for name in FIELDS])) as writer:
        kept: list[list[str]] = []
        for row in rows(count):
            kept.append(row)
            if len(kept) == 100_000:
                writer.write_table(_table(kept))
                kept = []
        if kept:
            writer.write_table(_table(kept))
    with workspace(folder, f"sqlite:///{database}") as at:
        for name, words in (("CSV", [str(file)]), ("SQLite", []), ("Parquet", [str(parquet)])):
            took = statistics.median(seconds([*at, "digest", "bench", *words]) for _ in range(REPEATS))
            say(
                Line(
                    "4",
                    f"digest of {name}",
                    count / took,
                    250_000,
                    1_000_000,
                    "rows/s",
                    least=True,
                    note=f"{took:.2f} s",
                )
            )


def _table(kept: list[list[str]]) -> pa.Table:
    columns = [[value or None for value in column] for column in zip(*kept, strict=True)]
    return pa.table({name: pa.array(column, pa.string()) for name, column in zip(FIELDS, columns, strict=True)})


def night(count: int) -> None:
    """Measure 5; `bench_nightly` says what is left out."""
    few, many = (statistics.median(it["rest"][1] for it in nights) for nights in bench_nightly.nights(count).values())
    say(
        Line(
            "5",
            f"nightly, 1,000 new rows: {count:,} anchored ÷ {count // 10:,}",
            many / few,
            1.5,
            1.1,
            note=f"{many:.2f} s ÷ {few:.2f} s",
        )
    )


def start(folder: Path) -> None:
    """Measure 6."""
    file, database = generate(folder, 1000)
    with workspace(folder, f"sqlite:///{database}") as at:
        for words in (["anchor", "bench"], ["trust", "export", "--out", str(folder / "trust.json")]):
            subprocess.run([*DUIZHANG, *at, *words], check=True, capture_output=True)
        key = file.read_text(encoding="utf-8").splitlines()[1].split(",")[0]
        proof = folder / "proof.json"
        subprocess.run(
            [*DUIZHANG, *at, "prove", "bench", key, "--out", str(proof)], check=True, stdout=subprocess.DEVNULL
        )
        told = subprocess.run([*DUIZHANG, *at, "chain", "status", "--json"], check=True, capture_output=True)
        words = ["verify", str(proof), "--trust", str(folder / "trust.json"), "--rpc", json.loads(told.stdout)["rpc"]]
        took = statistics.median(seconds(words) for _ in range(REPEATS))
        say(Line("6", "verify, from process start to answer", took, 0.4, 0.2, "s"))
    took = statistics.median(seconds(["--help"]) for _ in range(REPEATS))
    say(Line("6", "duizhang --help", took, 0.3, 0.15, "s"))


def gas() -> None:
    """Measure 7."""
    told = subprocess.run([sys.executable, str(ROOT / "scripts" / "gas"), "--json"], check=True, capture_output=True)
    spent = json.loads(told.stdout)
    for many in (1, 10):
        each = spent[f"anchor_{many}"]
        say(
            Line(
                "7",
                f"gas a record at 1,000,000 a batch, {many} a transaction",
                each / 1_000_000,
                0.1,
                None,
                note=f"{each:,} a batch",
            )
        )


def main() -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--ten", action="store_true")
    parser.add_argument("--only", default="1,2,4,5,6,7")
    asked = parser.parse_args()
    wanted = set(asked.only.split(","))
    if unknown := wanted - set("1234567"):
        parser.error(f"no measure {', '.join(sorted(unknown))}")
    ten = asked.ten or "3" in wanted
    print(
        f"Machine: {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, {platform.system()}; kernel {native.engine()}; "
        f"{asked.rows:,} rows; medians of {REPEATS}\n"
    )
    print("| # | measure | here | must | goal | met | |\n|---|---|---|---|---|---|---|", flush=True)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="duizhang-bench-") as name:
        folder = Path(name)
        if wanted & {"1", "2"} or ten:
            tables(wanted, folder, asked.rows, ten)
        if "4" in wanted:
            files(folder, asked.rows)
        if "5" in wanted:
            night(asked.rows)
        if "6" in wanted:
            start(folder)
        if "7" in wanted:
            gas()
    if ALIKE:
        print("\n| differs by | reladiff finds it | reconcile finds it |\n|---|---|---|")
        print("\n".join(ALIKE))
    print(f"\n{time.monotonic() - begun:.0f} s in all")


if __name__ == "__main__":
    main()
