"""The three deliveries of the story, as the province writes them: upserts, new versions, withdrawals."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ledger.catalog import Catalog
from ledger.demo.rows import Row

CHANGED = 50
WITHDRAWN = 20
REASONS = ("revoked", "expired", "error")


@dataclass(frozen=True)
class Deliveries:
    """What was delivered: all rows (B1), new versions of some (B2), rows withdrawn (B3); `untouched` are in B1 only."""

    first: Sequence[Row]
    changed: Sequence[Row]
    withdrawn: Sequence[Row]
    untouched: Sequence[Row]

    @property
    def held(self) -> int:
        """How many rows the city holds once all three have landed."""
        return len(self.first) - len(self.withdrawn)


def plan_deliveries(rows: Sequence[Row]) -> Deliveries:
    """Choose what changes and what goes, spread over the rows; no row is in two of the three choices."""
    step = len(rows) // (CHANGED + 10)
    places = [at * step for at in range(CHANGED)]
    changed = [_raised(rows[at], number) for number, at in enumerate(places)]
    withdrawn = [rows[at + 1] for at in places[:WITHDRAWN]]
    return Deliveries(rows, changed, withdrawn, untouched=[rows[at + 2] for at in places])


def _raised(row: Row, number: int) -> Row:
    amounts = (f"{number + 1},600(万元人民币)", f"{number + 1},800(万元人民币)")
    # A new version must differ from the one before.
    return row | {"capital": next(amount for amount in amounts if amount != row["capital"])}


def write_upserts(path: Path, catalog: Catalog, rows: Iterable[Row]) -> None:
    """A CSV of rows under the catalog's titles."""
    _write(path, catalog, [], ([row[field.name] for field in catalog.fields] for row in rows))


def write_withdrawals(path: Path, catalog: Catalog, rows: Iterable[Row]) -> None:
    """A CSV of withdrawals: key, operation and reason; every other column empty."""
    _write(
        path,
        catalog,
        ["operation", "reason"],
        (
            [row[field.name] if field.name in catalog.key else "" for field in catalog.fields]
            + ["withdraw", REASONS[number % len(REASONS)]]
            for number, row in enumerate(rows)
        ),
    )


def _write(path: Path, catalog: Catalog, more: list[str], rows: Iterable[list[str]]) -> None:
    with path.open("x", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([field.title or field.name for field in catalog.fields] + more)
        writer.writerows(rows)
