"""A city whose rows come through its own channel: the table tells the batch, no file reaches this side."""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from tests.conftest import FIELDS, Pair, Party


@dataclass(frozen=True)
class Channel:
    """Province and city with nothing between them but the chain and the exchange channel that fills the city's table."""

    pair: Pair

    @property
    def province(self) -> Party:
        """The sender."""
        return self.pair.province

    @property
    def city(self) -> Party:
        """The receiver."""
        return self.pair.city

    def send(self, number: str, rows: Sequence[dict[str, str]], *options: str) -> None:
        """The sender anchors a delivery."""
        path = self.pair.file(f"{number}.csv", rows)
        self.province.ok("send", "permits", path, "--batch", number, "--to", "guangzhou", *options)

    def land(self, number: str, rows: Sequence[dict[str, str]]) -> None:
        """What the exchange channel writes into the city's table."""
        values = [(*(row[name] for name in FIELDS), number) for row in rows]
        with sqlite3.connect(self.pair.database) as connection:
            connection.executemany("INSERT INTO permits VALUES (?, ?, ?, ?, ?, ?)", values)
        connection.close()

    def receive(self, number: str, *options: str) -> tuple[int, Any]:
        """The receiver looks at what landed; exit code and JSON."""
        ran = self.city.run("receive", "permits", "--batch", number, "--from", "guangdong", *options, "--json")
        return ran.code, ran.json

    def between(self, party: Party, *options: str) -> tuple[int, Any]:
        """The comparison as `party` sees it; exit code and JSON."""
        other = "guangdong" if party is self.city else "guangzhou"
        ran = party.run("reconcile", "permits", "--with", other, *options, "--json")
        assert "error" not in ran.json, ran
        return ran.code, ran.json

    def resent(self, path: str) -> list[dict[str, str]]:
        """The rows of a CSV that the sender wrote for the channel."""
        with open(path, newline="", encoding="utf-8-sig") as handle:
            return [{name: row[name] for name in FIELDS} for row in csv.DictReader(handle)]


def found(told: Any, number: str) -> list[tuple[str, str | None]]:
    """(kind, number of the record or None) of one batch's findings."""
    batch = next(it for it in told["batches"] if it["batch"] == number)
    return sorted((f["kind"], f["key"]["no"] if f["key"] else None) for f in batch["findings"])


@pytest.fixture
def channel(pair: Pair) -> Channel:
    """The pair with a batch column."""
    pair.sql("ALTER TABLE permits ADD COLUMN batch_no TEXT")
    config = pair.city.home / "duizhang.toml"
    config.write_text(config.read_text(encoding="utf-8") + 'batch_column = "batch_no"\n', encoding="utf-8")
    return Channel(pair)
