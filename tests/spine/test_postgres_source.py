"""The city's rows live in PostgreSQL: received, loaded, reconciled."""

from __future__ import annotations

import re

import pytest

from tests.conftest import Pair, permit, withdrawn
from tests.databases import Database


@pytest.fixture
def city_on_postgres(pair: Pair, postgres: Database) -> Pair:
    """As `pair`, with the city's source in a PostgreSQL table of its own types."""
    postgres.run(
        "CREATE TABLE permits (id serial, no varchar(50) NOT NULL UNIQUE, uscc char(18), holder text, decided_on date, fee numeric(12,2), batch text,"
        " changed timestamptz NOT NULL DEFAULT now())"
    )
    config = pair.city.home / "duizhang.toml"
    text = re.sub(r'url = "sqlite:///[^"]*city\.db"', f'url = "{postgres.url}"', config.read_text(encoding="utf-8"))
    assert postgres.url in text
    config.write_text(text.replace('table = "permits"', 'table = "permits"\nbatch_column = "batch"'), encoding="utf-8")
    return pair


def test_a_delivery_is_loaded_received_and_reconciled(city_on_postgres: Pair, postgres: Database) -> None:
    pair = city_on_postgres
    pair.deliver("B1", [permit(1), permit(2, holder='a\r\nb,"c"\'%s\ufeff'), permit(3, fee="0")])
    pair.deliver("B2", [permit(1, fee="99.90"), withdrawn(3)])
    assert pair.city.reconcile()[:2] == (0, [])
    assert postgres.run("SELECT no, fee::text, batch FROM permits ORDER BY no") == [
        ("A-1", "99.90", "B2"),
        ("A-2", "12.50", "B1"),
    ]
    postgres.run(
        "UPDATE permits SET fee = 1 WHERE no = 'A-1'",
        "DELETE FROM permits WHERE no = 'A-2'",
        "INSERT INTO permits (no) VALUES ('A-9')",
    )
    code, found, counts = pair.city.reconcile()
    assert code == 1
    assert found == [("altered", "A-1"), ("missing", "A-2"), ("unanchored", "A-9")]
    assert counts["source"] == 2


def test_rows_that_another_program_loads_are_received_by_their_batch(
    city_on_postgres: Pair, postgres: Database
) -> None:
    pair = city_on_postgres
    path = pair.file("B1.csv", [permit(1), permit(2)])
    pair.province.ok("send", "permits", path, "--batch", "B1", "--to", "guangzhou")
    for number in (1, 2):
        row = permit(number)
        postgres.run(
            f"INSERT INTO permits (no, uscc, holder, decided_on, fee, batch) VALUES ('{row['no']}', '{row['uscc']}', '{row['holder']}',"
            f" '{row['decided_on']}', {row['fee']}, ' b1')"
        )
    assert pair.city.ok("receive", "permits", "--batch", "B1", "--from", "guangdong")["verdict"] == "matched"


def test_what_the_table_would_change_is_not_loaded(city_on_postgres: Pair, postgres: Database) -> None:
    pair = city_on_postgres
    postgres.run("ALTER TABLE permits ALTER fee TYPE numeric(12,1)")
    path = pair.file("B1.csv", [permit(1, fee="12.00"), permit(2, fee="12.55")])
    pair.province.ok("send", "permits", path, "--batch", "B1", "--to", "guangzhou")
    ran = pair.city.run("receive", "permits", path, "--batch", "B1", "--from", "guangdong", "--load", "--json")
    assert (ran.code, ran.json["error"]["code"]) == (2, "load.differs")
    assert postgres.run("SELECT count(*) FROM permits") == [(0,)]
