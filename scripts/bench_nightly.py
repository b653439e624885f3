"""What a night costs beside the reconcile of the source: `duizhang nightly` with NEW rows, where ROWS are anchored and where a tenth is.

Left out is the reconcile itself, which must read every row of the table, make its entry and hold it against the anchored one: it grows
with the table and is measured by `scripts/bench`. It is the time that `read_and_compare` takes to give what it found, less the time of
`open_for_all` inside it, which loads the anchored entries: that counts. So the rest of a night is start-up, the checks of the chain, reading,
hashing and checking what was anchored, its fold, drafting the sealed batch with its archive and entry file, anchoring to confirmed, the
report on record, the brief. None but the loading may grow with what is anchored. The last column leaves the loading out as well, for it is
done by a reconcile alone just the same.

    .venv/bin/python scripts/bench_nightly.py [ROWS]

The source is a SQLite table. Each night is a process of its own; the sizes take turns, so that both see the same machine; medians are
printed, of processor seconds (the node is another process) and of seconds.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from bench import DUIZHANG, FIELDS, rows, workspace

NEW = 1000
NIGHTS = 5
Times = tuple[float, float]
"""Processor seconds and seconds."""


def main() -> None:
    """Measure and print Markdown; with a second argument be the process of one night."""
    if len(sys.argv) > 2:
        _night(sys.argv[2])
        return
    _tell(nights(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))


def nights(count: int) -> dict[int, list[dict[str, Times]]]:
    """Every night's times by name, for each of the two sizes, the smaller one first."""
    sizes = (count // 10, count)
    with tempfile.TemporaryDirectory(prefix="duizhang-bench-") as name:
        folder = Path(name)
        homes = {size: _anchored(folder, size) for size in sizes}
        try:
            found: dict[int, list[dict[str, Times]]] = {size: [] for size in sizes}
            for night in range(NIGHTS):
                for size in sizes:
                    _insert(folder / f"rows-{size}.db", ([f"新〔{night}〕{row[0]}", *row[1:]] for row in rows(NEW)))
                    found[size].append(_measured(homes[size]))
        finally:
            for home in homes.values():
                subprocess.run([*DUIZHANG, "-C", str(home), "chain", "down"], check=False, stdout=subprocess.DEVNULL)
    return found


def _anchored(folder: Path, size: int) -> Path:
    """A workspace with all rows of its table anchored, its chain running."""
    database = folder / f"rows-{size}.db"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute(f"CREATE TABLE bench ({', '.join(f'{name} TEXT' for name in FIELDS)})")
    _insert(database, rows(size))
    home = workspace(folder, database, size)
    subprocess.run([*DUIZHANG, "-C", str(home), "anchor", "bench"], check=True, stdout=subprocess.DEVNULL)
    return home


def _insert(database: Path, values: Iterator[list[str]]) -> None:
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.executemany(f"INSERT INTO bench VALUES ({','.join('?' * len(FIELDS))})", values)  # noqa: S608


def _measured(home: Path) -> dict[str, Times]:
    started = time.monotonic()
    # As it is installed: with the bytecode of the first night.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    told = subprocess.run([sys.executable, __file__, "0", str(home)], capture_output=True, check=True, env=env)
    wall = time.monotonic() - started
    found = json.loads(told.stdout)
    night = (found["night"][0], wall)
    table = (found["compare"][0] - found["load"][0], found["compare"][1] - found["load"][1])
    rest = (night[0] - table[0], night[1] - table[1])
    bare = (night[0] - found["compare"][0], night[1] - found["compare"][1])
    return {"night": night, "table": table, "rest": rest, "load": tuple(found["load"]), "bare": bare}


def _night(home: str) -> None:
    """Run the night in this process, with a clock at the two places that the docstring names."""
    import ledger.reconcile.source as reconciling  # noqa: PLC0415  its start-up counts
    from ledger import sealing  # noqa: PLC0415
    from ledger.cli import main as command  # noqa: PLC0415

    spent: dict[str, list[float]] = {"compare": [0.0, 0.0], "load": [0.0, 0.0]}
    sealing.read_and_compare = _clocked(sealing.read_and_compare, spent["compare"])  # type: ignore[assignment]
    reconciling.open_for_all = _clocked(reconciling.open_for_all, spent["load"])  # type: ignore[assignment]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = command(["-C", home, "nightly", "--json"])
    sealed = json.loads(out.getvalue())["sealed"]
    if code or [it["anchor"]["size"] for it in sealed] != [NEW] or not all(spent["load"]):
        raise SystemExit(f"nightly ended with {code}, sealed {sealed}")
    print(json.dumps({**spent, "night": [time.process_time(), 0.0]}))


def _clocked(entered: Callable[..., AbstractContextManager[Any]], spent: list[float]) -> Callable[..., Any]:
    """The same context manager; what it takes to enter it is added to `spent`."""

    @contextmanager
    def clocked(*given: Any, **named: Any) -> Iterator[Any]:
        before = time.process_time(), time.perf_counter()
        with entered(*given, **named) as value:
            spent[0] += time.process_time() - before[0]
            spent[1] += time.perf_counter() - before[1]
            yield value

    return clocked


def _tell(found: dict[int, list[dict[str, Times]]]) -> None:
    names = ("night", "table", "rest", "load", "bare")
    print(f"Nights with {NEW:,} new rows, processor seconds (seconds), medians of {NIGHTS}:\n")
    print(
        "| anchored | night | reading and comparing the table (left out) | the rest | loading, in it | without loading |"
    )
    print("|---|---|---|---|---|---|")
    medians = {
        size: {name: [statistics.median(night[name][clock] for night in nights) for clock in (0, 1)] for name in names}
        for size, nights in found.items()
    }
    for size, by_name in medians.items():
        print(f"| {size:,} | " + " | ".join(f"{cpu:.2f} ({wall:.2f})" for cpu, wall in by_name.values()) + " |")
    small, large = medians.values()
    ratios = [[large[name][clock] / small[name][clock] for clock in (0, 1)] for name in names]
    print("| ratio | " + " | ".join(f"{cpu:.2f} ({wall:.2f})" for cpu, wall in ratios) + " |")


if __name__ == "__main__":
    main()
