"""The plan as SQL for whoever wants to read it, or to run it by hand: statements with named parameters, values beside them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlalchemy.engine import make_url

from ledger.config import SourceConfig
from ledger.restore.plan import Item, Plan

_SAME = {"sqlite": "IS", "mysql": "<=>", "mariadb": "<=>"}
"""Equality that holds between two nulls; IS NOT DISTINCT FROM in standard SQL."""


_PARAMETER = re.compile(r"(?<=[ (]):((?:new|old)_[a-z0-9_]+|batch)\b")


@dataclass(frozen=True)
class Statement:
    """One statement; `parameters` by name, values of personal fields masked."""

    sql: str
    parameters: dict[str, str | None]
    masked: bool = False

    def literal(self, *, backslashes: bool) -> str:
        """The statement with its values written into it; `backslashes` for servers to which a backslash is an escape."""

        def value(found: re.Match[str]) -> str:
            text = self.parameters[found[1]]
            if text is None:
                return "NULL"
            text = text.replace("\\", "\\\\") if backslashes else text
            return "'" + text.replace("'", "''") + "'"

        return _PARAMETER.sub(value, self.sql)


def statements(plan: Plan, source: SourceConfig) -> list[Statement]:
    """One statement an item, in the plan's order."""
    return [
        _insert(plan, source, item) if item.observed is None else _update(plan, source, item) for item in plan.items
    ]


def _update(plan: Plan, source: SourceConfig, item: Item) -> Statement:
    url = make_url(source.url)
    same = _SAME.get(url.get_backend_name(), "IS NOT DISTINCT FROM")
    settings, parameters = [], {}
    for change in item.changes:
        settings.append(f"{_column(source, change.field)} = :new_{change.field}")
        parameters[f"new_{change.field}"] = plan.shown(change.field, change.expected)
    conditions = []
    for name, value in (item.observed or {}).items():
        conditions.append(f"{_column(source, name)} {same} :old_{name}")
        parameters[f"old_{name}"] = plan.shown(name, value)
    sql = f"UPDATE {_table(source)} SET {', '.join(settings)} WHERE {' AND '.join(conditions)}"  # noqa: S608 - quoted
    return Statement(sql, parameters, _masks(plan, item))


def _insert(plan: Plan, source: SourceConfig, item: Item) -> Statement:
    names = list(item.expected)
    columns = [_column(source, name) for name in names]
    values = [f":new_{name}" for name in names]
    parameters = {f"new_{name}": plan.shown(name, item.expected[name]) for name in names}
    if source.batch_column is not None:
        columns.append(_quoted(source, source.batch_column))
        values.append(":batch")
        parameters["batch"] = item.batch
    sql = f"INSERT INTO {_table(source)} ({', '.join(columns)}) VALUES ({', '.join(values)})"  # noqa: S608 - quoted
    return Statement(sql, parameters, _masks(plan, item))


def _masks(plan: Plan, item: Item) -> bool:
    """Whether a value of the statement was masked."""
    named = item.expected if item.observed is None else {**item.observed, **{c.field: None for c in item.changes}}
    return any(plan.catalog.by_name[name].personal for name in named)


def _column(source: SourceConfig, field: str) -> str:
    return _quoted(source, source.columns.get(field, field))


def _table(source: SourceConfig) -> str:
    return ".".join(_quoted(source, part) for part in source.table.split("."))


def _quoted(source: SourceConfig, name: str) -> str:
    dialect = make_url(source.url).get_dialect()()
    return str(dialect.identifier_preparer.quote(name))
