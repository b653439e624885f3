"""The figures of docs/spark.md: processor seconds of the executors on a cluster of two workers on this machine, against the local engine.

usage: .venv/bin/python scripts/bench_spark.py [rows]    (needs duizhang[spark], Java 17, and PostgreSQL's JDBC driver)
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent.parent))
from ledger.batch.engine import compare_rows, size_and_root
from ledger.batch.history import History
from ledger.config import KernelConfig
from ledger.kernel.entries import Kernel
from ledger.reconcile.compare import Comparer
from ledger.source.table import open_table
from ledger.spark.session import session, stop
from ledger.spark.source import spread
from tests.databases import fresh, shared_postgres
from tests.spark.rows import catalog, catalog_keys

CLUSTER = KernelConfig("spark", "local-cluster[2,1,1024]", ("/usr/share/java/postgresql.jar",))
CREATE = """CREATE TABLE permits AS SELECT '粤A-' || g AS no, '9144010012345' || lpad((g % 99999)::text, 5, '0') AS uscc,
'广东省某某企业有限公司第' || g || '分公司' AS holder, '2022-01-01'::date + (g % 900)::int AS decided_on, (g % 1000) + 0.5 AS fee
FROM generate_series(1, {count}) g"""


def write(path: Path, count: int) -> None:
    """The rows of CREATE, but for the order of the digits of their numbers."""
    numbers = range(1, count + 1)
    columns = {
        "no": [f"粤A-{n}" for n in numbers],
        "uscc": [f"9144010012345{n % 99999:05d}" for n in numbers],
        "holder": [f"广东省某某企业有限公司第{n}分公司" for n in numbers],
        "decided_on": [date(2022, 1, 1) + timedelta(n % 900) for n in numbers],
        "fee": [f"{n % 1000}.5" for n in numbers],
    }
    pq.write_table(pa.table(columns), path, row_group_size=1 << 16)


def seconds() -> Counter[str]:
    """Processor seconds so far: of this process, of Spark's driver, of the executors with their Python processes."""
    spent: Counter[str] = Counter()
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        with suppress(psutil.Error):
            words = " ".join(process.cmdline())
            times = process.cpu_times()
            what = "executors" if "CoarseGrainedExecutor" in words or "pyspark.daemon" in words else "spark driver"
            spent["here" if process == me else what] += times.user + times.system
    return spent


def measured(what: str, count: int, run: Callable[[], Any]) -> Any:
    """Run it and print a line of the table."""
    before = seconds()
    found = run()
    spent = seconds()
    spent.subtract(before)
    used = spent["executors"] if "Spark" in what else spent["here"]
    told = ", ".join(f"{name} {it:.1f}" for name, it in spent.items() if it > 0.05)
    print(f"| {what} | {count:,} | {told} | {count / used:,.0f} |", flush=True)
    return found


def compare(table: Any, history: History) -> Any:
    """The counts of a reconciliation of an untouched source."""
    comparer = Comparer(catalog(), "delivery", history, ["B1"], lambda _: None)
    compare_rows(table, Kernel(catalog(), catalog_keys()), comparer, None)
    return comparer.finish().counts


def both(url: str, table: str, count: int, folder: Path, kind: str) -> None:
    """All lines of one source."""
    keys = catalog_keys()
    with open_table(url, table, catalog()) as here:
        there: Any = spread(here, catalog(), CLUSTER, folder)
        session(CLUSTER, folder).range(4).count()
        size_and_root(there, catalog(), keys, 256)
        digests = [
            measured(f"digest {kind}, {name}", count, lambda it=it: size_and_root(it, catalog(), keys, 256))
            for name, it in (("local", here), ("Spark", there))
        ]
        kernel = Kernel(catalog(), keys)
        entries = np.concatenate([kernel.run(chunk).entries for chunk in here.scan()])
        history = History([(entries, np.zeros(len(entries), np.bool_))])
        counts = [
            measured(f"reconcile {kind}, {name}", count, lambda it=it: compare(it, history))
            for name, it in (("local", here), ("Spark", there))
        ]
    if digests[0] != digests[1] or counts[0] != counts[1]:
        raise SystemExit("the engines disagree")


def main(count: int) -> None:
    """Print the table."""
    print(
        "| what | rows | processor seconds | rows a processor second (local: here; Spark: of the executors) |\n|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as name, fresh(shared_postgres("18")) as database:
        folder = Path(name)
        write(folder / "permits.parquet", count)
        both(f"parquet:///{folder}", "permits.parquet", count, folder, "Parquet")
        database.run(CREATE.format(count=count), "ANALYZE permits")
        both(database.url, "permits", count, folder, "PostgreSQL")
        stop()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400_000)
