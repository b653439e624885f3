"""Penalties (行政处罚) for the chapters between two parties: a small catalog, rows about made-up companies, what a bad transfer does to them."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ledger.demo.rows import Row

CATALOG = "penalties"
BATCH_COLUMN = "批次"
DECLARATION = f"""id = "{CATALOG}"
version = 1
title = "行政处罚（演示）"
key = ["document_no"]
subject = {{ field = "uscc", visibility = "public", public_pattern = "9[0-9A-Z]{{17}}" }}

[[field]]
name = "document_no"
title = "决定书文号"
type = "text"

[[field]]
name = "uscc"
title = "统一社会信用代码"
type = "code"

[[field]]
name = "name"
title = "当事人名称"
type = "text"

[[field]]
name = "fine"
title = "罚款金额"
type = "decimal"
scale = 2

[[field]]
name = "decided_on"
title = "决定日期"
type = "date"
"""
COLUMNS: Mapping[str, str] = {
    "document_no": "决定书文号",
    "uscc": "统一社会信用代码",
    "name": "当事人名称",
    "fine": "罚款金额",
    "decided_on": "决定日期",
}
LOST, ALTERED, ADDED = 20, 10, 5
_SEED = 20220331
_FINED_OF = 3


@dataclass(frozen=True)
class Transfer:
    """What was sent and what arrived. `lost` and `altered` are document numbers of sent rows, `added` of rows nobody sent;
    `clean` is a company without a penalty, `fined` one with some."""

    sent: Sequence[Row]
    arrived: Sequence[Row]
    lost: Sequence[str]
    altered: Sequence[str]
    added: Sequence[str]
    clean: Row
    fined: Row


def plan_transfer(companies: Sequence[Row], count: int) -> Transfer:
    """`count` penalties of a third of the companies, and what a bad transfer makes of them; the same every time."""
    dice = random.Random(_SEED)  # noqa: S311  made-up rows, the same every time
    fined = companies[::_FINED_OF]
    sent = [_penalty(dice, dice.choice(fined), number) for number in range(1, count + 1)]
    picked = dice.sample(range(count), LOST + ALTERED)
    lost, altered = set(picked[:LOST]), set(picked[LOST:])
    arrived = [_lowered(row) if at in altered else row for at, row in enumerate(sent) if at not in lost]
    extra = [_penalty(dice, dice.choice(companies[1::_FINED_OF]), count + n) for n in range(1, ADDED + 1)]
    about = {row["uscc"] for row in [*sent, *extra]}
    return Transfer(
        sent,
        [*arrived, *extra],
        sorted(sent[at]["document_no"] for at in lost),
        sorted(sent[at]["document_no"] for at in altered),
        [row["document_no"] for row in extra],
        clean=next(company for company in companies if company["uscc"] not in about),
        fined=next(company for company in companies if company["uscc"] in {row["uscc"] for row in sent}),
    )


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """A CSV under the catalog's titles."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS.values())
        writer.writerows([row[name] for name in COLUMNS] for row in rows)


def create_table() -> str:
    """The city's table."""
    columns = ", ".join(f'"{column}" TEXT' for column in (*COLUMNS.values(), BATCH_COLUMN))
    return f"CREATE TABLE {CATALOG} ({columns})"


def insert_rows(rows: Sequence[Row], batch: str) -> list[str]:
    """What the exchange channel runs in the city's database."""
    names = ", ".join(f'"{column}"' for column in (*COLUMNS.values(), BATCH_COLUMN))
    statements = []
    for start in range(0, len(rows), 500):
        values = ", ".join(
            f"({', '.join(_quoted(value) for value in (*(row[name] for name in COLUMNS), batch))})"
            for row in rows[start : start + 500]
        )
        statements.append(f"INSERT INTO {CATALOG} ({names}) VALUES {values}")  # noqa: S608  rows of our own making
    return statements


def delete_rows(numbers: Iterable[str]) -> str:
    """Remove rows by document number."""
    listed = ", ".join(_quoted(number) for number in numbers)
    return f'DELETE FROM {CATALOG} WHERE "{COLUMNS["document_no"]}" IN ({listed})'  # noqa: S608  as above


def _penalty(dice: random.Random, company: Row, number: int) -> Row:
    return {
        "document_no": f"粤市监处罚〔2022〕{number}号",
        "uscc": company["uscc"],
        "name": company["name"],
        "fine": f"{dice.randrange(1, 500) * 100}.00",
        "decided_on": f"2022-{dice.randint(1, 3):02}-{dice.randint(1, 28):02}",
    }


def _lowered(row: Row) -> Row:
    # A fine with a digit less: what a bad conversion does, and somebody who wishes to.
    return row | {"fine": f"{float(row['fine']) / 10:.2f}"}


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
