"""The measurements of docs/benchmarks.md: whole commands, stages, peak memory, seconds to confirmed, gas per record.

Rows are generated: 15 columns, about 390 bytes, Chinese text, codes, dates, a decimal. Each command runs in a process of its own,
`REPEATS` times; medians are printed. Nothing is asserted here: time depends on the machine.
"""

from __future__ import annotations

import csv
import json
import os
import platform
import random
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ledger.batch.build import Builder
from ledger.batch.history import History
from ledger.catalog import parse_catalog
from ledger.kernel.stages import Stages
from ledger.keys import parse_key
from ledger.reconcile.compare import Comparer
from ledger.source.csvfile import open_csv
from ledger.source.sqlite import open_source

REPEATS = 3
DUIZHANG = [sys.executable, "-m", "ledger.cli"]
FIELDS = {
    "decision_no": "text", "uscc": "code", "holder": "text", "category": "enum", "permit_no": "code", "content": "text",
    "decided_on": "date", "valid_from": "date", "valid_to": "date", "authority": "text", "authority_code": "code",
    "fee": "decimal", "pages": "integer", "received_at": "datetime", "remark": "text",
}  # fmt: skip
CATALOG = (
    'id = "bench"\nversion = 1\nkey = ["decision_no"]\nsubject = { field = "uscc", visibility = "public" }\n'
    + "".join(
        f'\n[[field]]\nname = "{name}"\ntype = "{kind}"\n' + ("scale = 6\n" if kind == "decimal" else "")
        for name, kind in FIELDS.items()
    )
)
WORDS = "行政许可决定准予从事食品经营医疗器械批发道路运输建筑施工劳务派遣危险化学品广告发布印刷经营网络文化出版物零售"


def rows(count: int) -> Iterator[list[str]]:
    """`count` rows in no order, the same for the same count."""
    chance = random.Random(7)
    for number in chance.sample(range(count), count):
        yield [
            f"穗司许〔2022〕{number}号",
            f"9144010{number:011d}",
            f"广州示例{number % 9973}科技有限公司",
            ("普通", "特许", "认可", "核准", "登记")[number % 5],
            f"JY1440{number:010d}",
            "".join(chance.choices(WORDS, k=40)),
            f"2022-{number % 12 + 1:02d}-{number % 28 + 1:02d}",
            "2022-03-04",
            "2099-12-31",
            f"广州市{('市场监督管理局', '交通运输局', '住房和城乡建设局')[number % 3]}",
            "11440100007483180K",
            f"{number % 5000}.{number % 100:02d}",
            str(number % 40),
            f"2022-03-07 {number % 24:02d}:{number % 60:02d}:{number % 59:02d}",
            "" if number % 4 else "经审查符合法定条件",
        ]


def generate(folder: Path, count: int) -> tuple[Path, Path]:
    """A CSV file and a SQLite database of the same rows."""
    folder.mkdir(exist_ok=True)
    file, database = folder / f"rows-{count}.csv", folder / f"rows-{count}.db"
    connection = sqlite3.connect(database)
    connection.execute(f"CREATE TABLE bench ({', '.join(f'{name} TEXT' for name in FIELDS)})")
    with file.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(FIELDS)
        writer.writerows(rows(count))
    with connection:
        connection.executemany(f"INSERT INTO bench VALUES ({','.join('?' * len(FIELDS))})", rows(count))  # noqa: S608
    connection.close()
    return file, database


def measured(words: Sequence[str], code: int = 0) -> tuple[float, float, int]:
    """Wall seconds, processor seconds and peak memory in bytes of one command that must end with exit code `code`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    # A child of its own for each: the peak of RUSAGE_CHILDREN is that of the largest child so far.
    program = (
        "import json,resource,subprocess,sys;"
        "r=subprocess.run(sys.argv[1:],stdout=subprocess.DEVNULL,stderr=subprocess.DEVNULL);"
        "print(json.dumps([r.returncode,resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss*1024]))"
    )
    told = subprocess.run([sys.executable, "-c", program, *DUIZHANG, *words], capture_output=True, check=True)
    wall = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    status, peak = json.loads(told.stdout)
    if status != code:
        raise SystemExit(f"{' '.join(words)} ended with {status}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, peak


def line(name: str, count: int, words: Sequence[str], repeats: int = REPEATS) -> int:
    """Print one measure; returns the median peak memory."""
    figures = [measured(words) for _ in range(repeats)]
    wall = statistics.median(figure[0] for figure in figures)
    cpu = statistics.median(figure[1] for figure in figures)
    peak = int(statistics.median(figure[2] for figure in figures))
    print(f"| {name} | {count:,} | {wall:.1f} | {cpu:.1f} | {count / wall:,.0f} | {peak / 2**20:,.0f} |", flush=True)
    return peak


def workspace(folder: Path, database: Path, count: int) -> Path:
    """A workspace whose own source is the database."""
    home = folder / f"workspace-{count}"
    subprocess.run([*DUIZHANG, "init", str(home)], check=True, stdout=subprocess.DEVNULL)
    (home / "catalogs" / "bench.toml").write_text(CATALOG, encoding="utf-8")
    with (home / "duizhang.toml").open("a", encoding="utf-8") as config:
        config.write(f'\n[source.bench]\nurl = "sqlite:///{database}"\ntable = "bench"\norigin = "own"\n')
    return home


def stages(home: Path, file: Path, database: Path, count: int) -> None:
    """Where the time goes, in one process."""
    catalog = parse_catalog(CATALOG.encode(), "bench")
    keys = parse_key((home / "keys" / "own" / "1.key").read_bytes(), "key").for_catalog(catalog)
    built = None
    for name in ("csv", "sqlite"):
        clock = Stages()
        builder = Builder(catalog, keys, stages=clock)
        opened = open_csv(file, catalog) if name == "csv" else open_source(f"sqlite:///{database}", "bench", catalog)
        with opened as source:
            for chunk in clock.each("read", source.scan()):
                builder.add(chunk)
        with clock.time("sort and tree"):
            built = builder.finish()
        _print_stages(f"digest {name}", count, clock)
    if built is None:
        return
    clock = Stages()
    with clock.time("fold"):
        history = History([(built.entries, built.withdrawn)])
    comparer = Comparer(catalog, "own", history, ["B"], lambda version: None)
    kernel = Builder(catalog, keys, stages=clock).kernel
    with open_source(f"sqlite:///{database}", "bench", catalog) as source:
        for chunk in clock.each("read", source.scan()):
            result = kernel.run(chunk)
            with clock.time("compare"):
                comparer.add(len(chunk), chunk.numbers, result)
    with clock.time("compare"):
        comparer.finish()
    _print_stages("reconcile sqlite", count, clock)


def _print_stages(name: str, count: int, clock: Stages) -> None:
    told = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in clock.seconds.items())
    print(f"| {name} | {count:,} | {told} |", flush=True)


def gas() -> None:
    """Gas of an anchor, as scripts/gas measures it."""
    told = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "gas"), "--json"], check=True, capture_output=True
    )
    spent = json.loads(told.stdout)
    per_anchor = {most: spent[f"anchor_{most}"] for most in (1, 10, 100)}
    for most, each in per_anchor.items():
        print(f"| {most} a transaction | {each:,.0f} |")
    print("\n| records in a batch | gas per record, 1 batch a transaction | 100 a transaction |\n|---|---|---|")
    for size in (1, 100, 10_000, 1_000_000):
        print(f"| {size:,} | {per_anchor[1] / size:,.3f} | {per_anchor[100] / size:,.3f} |")


def engines(folder: Path, count: int) -> None:
    """What the compiled part is worth: the same command with it and without, in turn."""
    file, database = generate(folder, count)
    home = workspace(folder, database, count)
    try:
        for name, words in (("CSV", [str(file)]), ("SQLite", [])):
            ratios = []
            for _ in range(REPEATS):
                walls = []
                for kernel in ("reference", ""):
                    os.environ["DUIZHANG_KERNEL"] = kernel
                    walls.append(measured(["-C", str(home), "digest", "bench", *words])[0])
                ratios.append(walls[0] / walls[1])
            print(f"| digest {name}, reference ÷ compiled | {count:,} | {statistics.median(ratios):.2f} |", flush=True)
    finally:
        os.environ.pop("DUIZHANG_KERNEL")
        subprocess.run([*DUIZHANG, "-C", str(home), "chain", "down"], check=False, stdout=subprocess.DEVNULL)


def main() -> None:
    """Measure and print Markdown."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    print(
        f"Machine: {os.cpu_count()} cores, {platform.processor() or platform.machine()}, Python {platform.python_version()}, {platform.system()}\n"
    )
    with tempfile.TemporaryDirectory(prefix="duizhang-bench-") as name:
        folder = Path(name)
        peaks = {}
        print("| command | rows | seconds | processor s | rows/s | peak MiB |\n|---|---|---|---|---|---|")
        for size in (count // 10, count):
            file, database = generate(folder, size)
            home = workspace(folder, database, size)
            try:
                at = ["-C", str(home)]
                peaks["digest csv", size] = line("digest CSV", size, [*at, "digest", "bench", str(file)])
                peaks["digest sqlite", size] = line("digest SQLite", size, [*at, "digest", "bench"])
                line("anchor (seal all, to confirmed)", size, [*at, "anchor", "bench"], repeats=1)
                line("anchor (nothing new)", size, [*at, "anchor", "bench"])
                peaks["reconcile", size] = line("reconcile SQLite, matched", size, [*at, "reconcile", "bench"])
            finally:
                subprocess.run([*DUIZHANG, "-C", str(home), "chain", "down"], check=False, stdout=subprocess.DEVNULL)
        print("\n| command | bytes of peak memory per row between the two sizes |\n|---|---|")
        for command in ("digest csv", "digest sqlite", "reconcile"):
            grown = peaks[command, count] - peaks[command, count // 10]
            print(f"| {command} | {grown / (count - count // 10):,.0f} |")
        print("\n| stages | rows | seconds |\n|---|---|---|")
        stages(home, file, database, count)
        print("\n| our own ways beside each other | rows | ratio |\n|---|---|---|")
        engines(folder / "engines", count // 10)
        print("\n| anchors | gas each |\n|---|---|")
        gas()


if __name__ == "__main__":
    main()
