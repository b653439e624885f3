"""The measurements of docs/benchmarks.md about sketches: building, decoding, how often they decode, gas and bytes, and the way from
"the roots differ" to a certified list between two workspaces.

    scripts/bench_sketch.py [rows]

Entries are random, as tags and commitments are. A trial peels the sketch of d entries: what two sides have in common cancels out.
Nothing is asserted here.
"""

from __future__ import annotations

import csv
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from bench import CATALOG, DUIZHANG, FIELDS, measured, rows
from eth_account import Account

from ledger import merkle, sketch
from ledger.batch.build import entry_bytes
from ledger.chain.local import LocalChain
from ledger.chain.rpc import Rpc
from ledger.chain.transactions import (
    Claim,
    deploy_data,
    encode_anchor,
    encode_register,
    prepare,
    send_raw,
    wait_for_receipt,
)
from ledger.kernel.sorting import sort_entries

CELLS = (64, 256, 1024)
SHARES = (0.02, 0.1, 0.25, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8)
DIFFERENCES = 100
REPEATS = 3
Entries = npt.NDArray[np.uint8]


def entries(count: int, chance: np.random.Generator) -> Entries:
    """That many random entries, ascending."""
    found = chance.integers(0, 256, (count, 64), np.uint8)
    return found[sort_entries(found)]


def timed(times: int, work: object) -> float:
    """The median wall seconds of calling `work`."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        work()  # type: ignore[operator]
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def speed(count: int) -> None:
    """Build, and decode with certification, beside what a root costs."""
    chance = np.random.default_rng(7)
    theirs = entries(count, chance)
    _, root = merkle.root_of(entry_bytes(theirs))
    lost = np.sort(chance.choice(count, DIFFERENCES, replace=False)) if count > DIFFERENCES else np.arange(0)
    ours = np.delete(theirs, lost, axis=0)
    rooted = timed(REPEATS, lambda: merkle.root_of(entry_bytes(theirs)))
    print(
        f"\n| sketch of {count:,} entries | build, s | s per million | decode {len(lost)} and certify, s | ÷ root of the tree |"
    )
    print("|---|---|---|---|---|")
    for cells in CELLS:
        built = timed(REPEATS, lambda cells=cells: sketch.build(theirs, cells))
        told = sketch.build(theirs, cells)
        decoded = timed(REPEATS, lambda told=told: sketch.decode(ours, told, count, root))
        whole = sketch.decode(ours, told, count, root).certified
        print(
            f"| {cells} cells | {built:.2f} | {built / count * 1e6:.2f} | {decoded:.2f}{'' if whole else ' (too many)'} | "
            f"{built / rooted:.2f} |",
            flush=True,
        )
    print(f"\nThe root of the same tree takes {rooted:.2f} s.")


def success(trials: int) -> None:
    """How often d differences come out of m cells, and what peeling takes."""
    chance = np.random.default_rng(11)
    print(f"\n| m | d | d/m | decoded of {trials:,} | milliseconds a peel |")
    print("|---|---|---|---|---|")
    for cells in CELLS:
        for share in SHARES:
            size = max(1, round(cells * share))
            whole, taken = 0, 0.0
            for _ in range(trials):
                found = chance.integers(0, 256, (size, 64), np.uint8)
                half = size // 2
                difference = sketch.build(found[:half], cells).minus(sketch.build(found[half:], cells))
                started = time.perf_counter()
                peeled = sketch.peel(difference)
                taken += time.perf_counter() - started
                whole += peeled.complete
            print(
                f"| {cells} | {size} | {size / cells:.2f} | {whole / trials:.2%} | {taken / trials * 1e3:.2f} |",
                flush=True,
            )


def gas(home: Path) -> None:
    """Bytes and gas a batch, by cells; one batch a transaction, at steady state."""
    chain = LocalChain.create(home)
    try:
        with Rpc(chain.ensure_running()) as rpc:
            account = Account.create()

            def spend(to: str | None, data: bytes) -> tuple[int, str]:
                signed = prepare(rpc, account, chain_id=chain.chain_id, to=to, data=data)
                send_raw(rpc, signed.raw)
                receipt = wait_for_receipt(rpc, signed.hash)
                if receipt is None or not receipt.ok:
                    sys.exit(f"the transaction {signed.hash} was not mined")
                return receipt.gas_used, receipt.contract or ""

            _, contract = spend(None, deploy_data())
            spend(contract, encode_register("party", account.address))
            spend(contract, encode_anchor([Claim(b"first".ljust(450, b"x"), 0, 1, "0" * 64)]))
            print("\n| cells | bytes of sketch | gas a batch | of it for the sketch |")
            print("|---|---|---|---|")
            without = 0
            for cells in (0, *CELLS, sketch.MAX_CELLS):
                data = os.urandom(cells * sketch.CELL_SIZE)
                used, _ = spend(
                    contract, encode_anchor([Claim(f"{cells}/".encode().ljust(450, b"x"), 0, 5000, "1" * 64, data)])
                )
                without = without or used
                print(f"| {cells} | {len(data):,} | {used:,} | {used - without:,} |", flush=True)
    finally:
        chain.down()


def run(home: Path, *words: str) -> None:
    """One command that must end with 0."""
    subprocess.run(
        [*DUIZHANG, "-C", str(home), *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def between(folder: Path, count: int) -> None:
    """Two workspaces, a delivery of which `DIFFERENCES` rows were lost, and the commands that find out which."""
    province, city = folder / "province", folder / "city"
    subprocess.run([*DUIZHANG, "init", str(province), "--party", "guangdong"], check=True, stdout=subprocess.DEVNULL)
    run(province, "party", "add", "guangzhou", "--out", str(folder / "join.json"))
    subprocess.run(
        [*DUIZHANG, "init", str(city), "--join", str(folder / "join.json")], check=True, stdout=subprocess.DEVNULL
    )
    file, database = folder / "b1.csv", folder / "city.db"
    with file.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(FIELDS)
        writer.writerows(rows(count))
    connection = sqlite3.connect(database)
    connection.execute(f"CREATE TABLE bench ({', '.join(f'{name} TEXT' for name in FIELDS)}, batch_no TEXT)")
    with connection:
        # The rows come in no order, so the first are any.
        landed = (row for at, row in enumerate(rows(count)) if at >= DIFFERENCES)
        connection.executemany(f"INSERT INTO bench VALUES ({','.join('?' * len(FIELDS))}, 'B1')", landed)  # noqa: S608
    connection.close()
    for home in (province, city):
        (home / "catalogs" / "bench.toml").write_text(CATALOG, encoding="utf-8")
    with (city / "duizhang.toml").open("a", encoding="utf-8") as config:
        config.write(
            f'\n[source.bench]\nurl = "sqlite:///{database}"\ntable = "bench"\norigin = "delivery"\nbatch_column = "batch_no"\n'
        )
    try:
        print(f"\n| between two parties, {count:,} records, {DIFFERENCES} lost | seconds | processor s | peak MiB |")
        print("|---|---|---|---|")
        send = ("-C", str(province), "send", "bench", str(file), "--batch", "B1", "--to", "guangzhou")
        receive = ("-C", str(city), "receive", "bench", "--batch", "B1", "--from", "guangdong")
        theirs = ("-C", str(province), "reconcile", "bench", "--with", "guangzhou")
        ours = ("-C", str(city), "reconcile", "bench", "--with", "guangdong")
        for name, words, code, repeats in (
            ("send (to confirmed)", send, 0, 1),
            ("receive without a file (lists what was lost, to confirmed)", receive, 1, 1),
            ("reconcile --with, sender: roots differ → certified list", theirs, 1, REPEATS),
            ("reconcile --with, receiver", ours, 1, REPEATS),
        ):
            figures = [measured(words, code) for _ in range(repeats)]
            wall, cpu, peak = (statistics.median(figure[at] for figure in figures) for at in range(3))
            print(f"| {name} | {wall:.1f} | {cpu:.1f} | {peak / 2**20:,.0f} |", flush=True)
    finally:
        run(province, "chain", "down")


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    print(
        f"Machine: {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, {platform.system()}"
    )
    speed(count)
    success(1000 if count >= 1_000_000 else max(10, count // 1000))
    with tempfile.TemporaryDirectory() as folder:
        gas(Path(folder) / "chain")
        between(Path(folder), count)


if __name__ == "__main__":
    main()
