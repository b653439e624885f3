"""The published vectors, and small catalogs made on the spot."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledger.catalog import Catalog, parse_catalog
from ledger.keys import CatalogKeys, ExchangeKey, parse_key

FOLDER = Path(__file__).parents[1] / "vectors" / "licences"


@pytest.fixture(scope="session")
def vectors() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FOLDER / "licences.json").read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="session")
def licences() -> Catalog:
    return parse_catalog((FOLDER / "licences.toml").read_bytes(), "licences.toml")


@pytest.fixture(scope="session")
def exchange_key() -> ExchangeKey:
    return parse_key((FOLDER / "exchange.key").read_bytes(), "exchange.key")


@pytest.fixture(scope="session")
def keys(licences: Catalog, exchange_key: ExchangeKey) -> CatalogKeys:
    return exchange_key.for_catalog(licences)


@pytest.fixture(scope="session")
def rows() -> list[dict[str, str]]:
    """The rows of licences.csv as text, in file order."""
    text = (FOLDER / "licences.csv").read_text(encoding="utf-8")
    assert "\r" not in text
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.fixture(scope="session")
def one_field() -> Callable[..., Catalog]:
    """A catalog of a text key `k` and a field `f` of the type asked for; further lines go into the table of `f`."""

    def make(type_: str, *lines: str, top: str = "") -> Catalog:
        more = "\n".join(lines)
        text = f"""
id = "small"
version = 1
key = ["k"]
{top}
[[field]]
name = "k"
type = "text"
[[field]]
name = "f"
type = "{type_}"
{more}
"""
        return parse_catalog(text.encode(), "small.toml")

    return make
