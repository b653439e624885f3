"""Damage and repair in plain SQL, on a table that holds what was delivered."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing

import pytest

from ledger.demo.damage import Damage, Table, differences, plan_damage
from ledger.demo.deliveries import CHANGED, WITHDRAWN, Deliveries, plan_deliveries
from ledger.demo.rows import FEWEST, generate
from ledger.reconcile.findings import Kind
from ledger.workspace import known_catalogs

CATALOG = known_catalogs(None)["registration"].catalog
TABLE = Table(CATALOG, "registration")
FIELDS = [field.name for field in CATALOG.fields]


@pytest.fixture(scope="module")
def deliveries() -> Deliveries:
    return plan_deliveries(generate(FEWEST))


@pytest.fixture
def city(deliveries: Deliveries) -> Iterator[sqlite3.Connection]:
    """The table once all three deliveries have landed."""
    held = {row["uscc"]: row for row in deliveries.first} | {row["uscc"]: row for row in deliveries.changed}
    for row in deliveries.withdrawn:
        del held[row["uscc"]]
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(TABLE.create())
        for row in held.values():
            connection.execute(TABLE.insert(row))
        yield connection


def contents(connection: sqlite3.Connection) -> Counter[tuple[str, ...]]:
    return Counter(connection.execute("SELECT * FROM registration"))


def test_the_deliveries_do_not_overlap_and_every_new_version_is_new(deliveries: Deliveries) -> None:
    first = {row["uscc"]: row for row in deliveries.first}
    chosen = [row["uscc"] for rows in (deliveries.changed, deliveries.withdrawn, deliveries.untouched) for row in rows]
    assert len(set(chosen)) == len(chosen)
    assert (len(deliveries.changed), len(deliveries.withdrawn)) == (CHANGED, WITHDRAWN) == (50, 20)
    assert all(row != first[row["uscc"]] for row in deliveries.changed)
    assert deliveries.held == FEWEST - WITHDRAWN


def test_all_seven_kinds_are_planted_each_on_a_key_of_its_own(deliveries: Deliveries) -> None:
    planned = plan_damage(deliveries, TABLE)
    assert {damage.kind for damage in planned} == {str(kind) for kind in Kind}
    assert len({damage.key for damage in planned}) == len(planned)


def test_each_damage_changes_the_table_and_its_repair_brings_back_what_was_delivered(
    deliveries: Deliveries, city: sqlite3.Connection
) -> None:
    delivered = contents(city)
    for damage in plan_damage(deliveries, TABLE):
        assert city.execute(damage.sql).rowcount == 1, damage
        assert contents(city) != delivered, damage
        assert city.execute(damage.repair).rowcount == 1, damage
        assert contents(city) == delivered, damage


def test_all_damage_together_is_repaired_as_well(deliveries: Deliveries, city: sqlite3.Connection) -> None:
    delivered, planned = contents(city), plan_damage(deliveries, TABLE)
    for damage in planned:
        city.execute(damage.sql)
    for damage in planned:
        city.execute(damage.repair)
    assert contents(city) == delivered


def test_quotes_and_empty_values_survive_the_sql(city: sqlite3.Connection) -> None:
    row = dict.fromkeys(FIELDS, "") | {"uscc": "X'1", "name": "a';DROP TABLE registration;--"}
    city.execute(TABLE.insert(row))
    found = city.execute("SELECT * FROM registration WHERE 统一社会信用代码 = ?", ("X'1",)).fetchall()
    assert found == [tuple(row[name] or None for name in FIELDS)]


PLANTED = [Damage("altered", "A", "", "", "", ""), Damage("missing", "B", "", "", "", "")]


def finding(kind: str, key: str | None) -> dict[str, object]:
    return {"kind": kind, "key": None if key is None else {"uscc": key}}


def test_exactly_the_planted_findings_leave_no_difference() -> None:
    assert differences(PLANTED, [finding("missing", "B"), finding("altered", "A")]) == ([], [])


@pytest.mark.parametrize(
    ("findings", "expected"),
    [
        ([finding("altered", "A")], (["missing B"], [])),
        ([finding("altered", "A"), finding("missing", "C")], (["missing B"], ["missing C"])),
        ([finding("altered", "A"), finding("stale", "B")], (["missing B"], ["stale B"])),
        ([finding("altered", "A"), finding("missing", None)], (["missing B"], ["missing None"])),
        ([finding("altered", "A"), finding("missing", "B"), finding("missing", "B")], ([], ["missing B"])),
    ],
)
def test_a_finding_left_out_of_another_kind_without_key_or_told_twice_is_a_difference(
    findings: list[dict[str, object]], expected: tuple[list[str], list[str]]
) -> None:
    assert differences(PLANTED, findings) == expected
