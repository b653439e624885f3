"""What the intruder does to the city's table in plain SQL, in all seven ways, and the SQL that puts it right again.

Each repair is derived from what was delivered, never from what the table held before the damage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ledger.catalog import Catalog
from ledger.demo.deliveries import Deliveries
from ledger.demo.rows import Row, generate


@dataclass(frozen=True)
class Damage:
    """One planted difference: the finding it must lead to, what it is in words, and the SQL that does and undoes it."""

    kind: str
    key: str
    zh: str
    en: str
    sql: str
    repair: str


class Table:
    """Statements about the city's table, whose columns bear the catalog's titles; `row_id` tells two equal rows apart."""

    def __init__(self, catalog: Catalog, name: str, row_id: str = "rowid") -> None:
        self.name = name
        self._row_id = row_id
        self.columns = {field.name: field.title or field.name for field in catalog.fields}
        (self._key,) = (self.columns[name] for name in catalog.key)

    def create(self) -> str:
        """The table: every column TEXT, as delivered values are."""
        return f"CREATE TABLE {self.name} ({', '.join(f'{_name(c)} TEXT' for c in self.columns.values())})"

    def insert(self, row: Row) -> str:
        """Put a row in."""
        return f"INSERT INTO {self.name} VALUES ({', '.join(_text(row[field]) for field in self.columns)})"  # noqa: S608

    def update(self, key: str, values: Mapping[str, str]) -> str:
        """Set some fields of the row of that key."""
        settings = ", ".join(f"{_name(self.columns[field])} = {_text(value)}" for field, value in values.items())
        return f"UPDATE {self.name} SET {settings} WHERE {self._is(key)}"  # noqa: S608

    def delete(self, key: str) -> str:
        """Remove the rows of that key."""
        return f"DELETE FROM {self.name} WHERE {self._is(key)}"  # noqa: S608

    def double(self, key: str) -> str:
        """Put the row of that key in once more."""
        return f"INSERT INTO {self.name} SELECT * FROM {self.name} WHERE {self._is(key)}"  # noqa: S608

    def undouble(self, key: str) -> str:
        """Remove the row of that key that was put in last."""
        last = f"SELECT max({self._row_id}) FROM {self.name} WHERE {self._is(key)}"  # noqa: S608
        return f"DELETE FROM {self.name} WHERE {self._row_id} = ({last})"  # noqa: S608

    def _is(self, key: str) -> str:
        return f"{_name(self._key)} = {_text(key)}"


def _name(column: str) -> str:
    # Titles that need no quotes stay readable.
    return column if column.isidentifier() else '"' + column.replace('"', '""') + '"'


def _text(value: str) -> str:
    # An empty cell of a file is null (formats F2).
    return "'" + value.replace("'", "''") + "'" if value else "NULL"


def plan_damage(deliveries: Deliveries, table: Table) -> list[Damage]:
    """Nine differences of all seven kinds, each on a key of its own."""
    fresh = iter(deliveries.untouched)
    changed = iter(deliveries.changed)
    first = {row["uscc"]: row for row in deliveries.first}
    planned: list[Damage] = []

    def plant(kind: str, key: str, zh: str, en: str, sql: str, repair: str) -> None:
        planned.append(Damage(kind, key, zh, en, sql, repair))

    def alter(row: Row, values: Mapping[str, str], zh: str, en: str) -> None:
        delivered = {field: row[field] for field in values}
        plant("altered", row["uscc"], zh, en, table.update(row["uscc"], values), table.update(row["uscc"], delivered))

    row = next(fresh)
    alter(
        row,
        {"capital": _other(row["capital"], "98,000(万元人民币)", "99,000(万元人民币)")},
        "改注册资金",
        "another capital",
    )
    row = next(fresh)
    values = {
        "name": _other(row["name"], row["name"].replace("有限公司", "集团有限公司", 1), f"{row['name']}（更名）"),
        "region": _other(row["region"], "深圳", "广州"),
    }
    alter(row, values, "改名称和地区", "another name and region")

    row = next(changed)
    plant(
        "stale",
        row["uscc"],
        "改回 B2 之前的值",
        "the version before B2 put back",
        table.update(row["uscc"], {"capital": first[row["uscc"]]["capital"]}),
        table.update(row["uscc"], {"capital": row["capital"]}),
    )
    for row in (next(fresh), next(changed)):
        plant("missing", row["uscc"], "删除", "deleted", table.delete(row["uscc"]), table.insert(row))
    forged = generate(1, seed=44, taken=first.keys())[0]
    plant(
        "unanchored",
        forged["uscc"],
        "伪造的企业",
        "a forged company that was never sent",
        table.insert(forged),
        table.delete(forged["uscc"]),
    )
    key = next(fresh)["uscc"]
    plant("duplicate", key, "同一代码写两遍", "the same code twice", table.double(key), table.undouble(key))
    gone = deliveries.withdrawn[0]
    plant(
        "not_withdrawn",
        gone["uscc"],
        "放回已撤回的企业",
        "a withdrawn company put back",
        table.insert(gone),
        table.delete(gone["uscc"]),
    )
    row = next(fresh)
    plant(
        "unreadable",
        row["uscc"],
        "不存在的日期",
        "a date that does not exist",
        table.update(row["uscc"], {"registered_on": "2003-02-30"}),
        table.update(row["uscc"], {"registered_on": row["registered_on"]}),
    )
    return planned


def _other(value: str, *choices: str) -> str:
    return next(choice for choice in choices if choice != value)


def differences(planned: Sequence[Damage], findings: Sequence[Mapping[str, object]]) -> tuple[list[str], list[str]]:
    """(planted but not reported, reported but not planted), each as `kind key`; a finding told twice counts twice."""
    expected = sorted(f"{damage.kind} {damage.key}" for damage in planned)
    reported = sorted(_told(finding) for finding in findings)
    return _left(expected, reported), _left(reported, expected)


def _told(finding: Mapping[str, object]) -> str:
    key = finding.get("key")
    return f"{finding.get('kind')} {key.get('uscc') if isinstance(key, Mapping) else key}"


def _left(these: Sequence[str], those: Sequence[str]) -> list[str]:
    rest = list(those)
    left = []
    for one in these:
        if one in rest:
            rest.remove(one)
        else:
            left.append(one)
    return left
