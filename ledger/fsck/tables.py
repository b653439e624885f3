"""The store's tables: the database's own opinion, the invariants of every row, batches against their descriptors, the outbox."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from eth_hash.auto import keccak
from sqlalchemy import CheckConstraint, Table, UniqueConstraint, select, text

from ledger.descriptor import Descriptor, parse_descriptor
from ledger.errors import LedgerError, StoreError
from ledger.fsck.report import DAMAGE_CODES, Check, Remark, Report
from ledger.store import models
from ledger.store.db import Store, find_damage

_Row = TypeVar("_Row", bound=models.Base)
_SHOWN_ROWS = 20
_UNFINISHED = ("signed", "sent", "mined")


@dataclass(frozen=True)
class Tables:
    """All rows that fsck works with. `descriptors` holds those whose bytes hash to their batch's id and parse."""

    batches: Mapping[str, models.Batch]
    descriptors: Mapping[str, Descriptor]
    sets: Mapping[int, models.EntrySet]
    claims: Sequence[models.Claim]
    outbox: Sequence[models.Transaction]
    consents: Sequence[models.Consent]
    erasures: Sequence[models.Erasure] = ()

    def erased(self, catalog_id: str) -> frozenset[bytes]:
        """Key tags of a catalog's records that were erased here, unfinished ones too."""
        return frozenset(bytes.fromhex(row.key_tag) for row in self.erasures if row.catalog_id == catalog_id)

    def name(self, batch_id: str) -> str:
        """A batch for messages: catalog, number, beginning of its id."""
        batch = self.batches.get(batch_id)
        return f"batch {batch_id[:16]}" if batch is None else f"{batch.catalog_id} {batch.number} ({batch_id[:16]})"


def check_database(report: Report, store: Store) -> None:
    """The database's own checks, and each constraint of the models asked anew: its own may have been taken away."""
    name = store.database.name
    check = report.open("database", f"台账库的数据库（{name} 自检）", f"the store's database, by {name}")
    with check.guard():
        for flaw in find_damage(store):
            check.broken("store.integrity", f"{name} 自检：{flaw.zh}", f"{name}: {flaw.en}", store.where)
        if store.path is None:
            # Pages are the server's own affair (data checksums, pg_amcheck); what it reads in vain shows as store.damaged.
            check.seen("约束与索引是否齐全、有效，外键", "constraints and indexes complete and in force, foreign keys")
        else:
            check.seen("integrity_check、foreign_key_check", "integrity_check, foreign_key_check")
    check = report.open("rows", "各表的行", "the rows of every table")
    rules = 0
    for table in models.Base.metadata.sorted_tables:
        for rule, statement in _rules(table, store.database.row):
            rules += 1
            with check.guard(f"{store.where}:{table.name}"), store.read() as session:
                # Without parameters a % in a rule means itself.
                plain = {"no_parameters": True}
                found = session.connection().exec_driver_sql(statement, execution_options=plain).scalars().all()
            for row in found[:_SHOWN_ROWS]:
                check.broken(
                    "store.row",
                    f"表 {table.name} 第 {row} 行违反约束 {rule}",
                    f"row {row} of table {table.name} breaks the constraint {rule}",
                    f"{store.where}:{table.name}",
                )
    check.seen(f"{rules} 条约束", f"{rules} constraints")


def _rules(table: Table, row: str) -> list[tuple[str, str]]:
    """Name and query of each rule of a table; the query gives `row` (the column that names any row) of those that break it."""
    rules = [
        (f"{column.name} NOT NULL", f'SELECT {row} FROM "{table.name}" WHERE "{column.name}" IS NULL')  # noqa: S608
        for column in table.columns
        if not column.nullable
    ]
    keys: list[tuple[str, list[str], str]] = [("primary key", [column.name for column in table.primary_key], "")]
    for constraint in table.constraints:
        if isinstance(constraint, CheckConstraint):
            rules.append(
                (str(constraint.name), f'SELECT {row} FROM "{table.name}" WHERE NOT ({constraint.sqltext})')  # noqa: S608
            )
        elif isinstance(constraint, UniqueConstraint):
            keys.append((str(constraint.name or "unique"), [str(column.name) for column in constraint.columns], ""))
    for index in table.indexes:
        if index.unique:
            where = index.dialect_options["sqlite"]["where"]
            given = "" if where is None else f" AND {where}"
            keys.append((str(index.name), [str(column.name) for column in index.columns], given))
    for name, columns, where in keys:
        listed = ", ".join(f'"{column}"' for column in columns)
        given = " AND ".join(f'"{column}" IS NOT NULL' for column in columns)
        rules.append(
            (
                name,
                f'SELECT max({row}) FROM "{table.name}" WHERE {given}{where} GROUP BY {listed} HAVING count(*) > 1',  # noqa: S608
            )
        )
    return sorted(rules)


def read_tables(check: Check, store: Store) -> Tables:
    """Read every row that can be read; each that cannot is damage of `check`. Descriptors are filled in by `check_batches`."""
    return Tables(
        batches={row.id: row for row in _all(check, store, models.Batch)},
        descriptors={},
        sets={row.id: row for row in _all(check, store, models.EntrySet)},
        claims=_all(check, store, models.Claim),
        outbox=_all(check, store, models.Transaction),
        consents=_all(check, store, models.Consent),
        erasures=_all(check, store, models.Erasure),
    )


def _all(check: Check, store: Store, model: type[_Row]) -> list[_Row]:
    table, row = model.__tablename__, store.database.row
    try:
        with store.read() as session:
            # In the order they were written, as far as anything tells.
            number = models.Base.metadata.tables[table].autoincrement_column
            return list(session.scalars(select(model).order_by(text(row) if number is None else number)))
    except StoreError as whole:
        rows: list[_Row] = []
        try:
            with store.read() as session:
                numbers = session.connection().exec_driver_sql(f"SELECT {row} FROM {table}").scalars().all()  # noqa: S608
        except StoreError:
            check.take(whole, f"{store.where}:{table}")
            return rows
        for number in numbers:
            try:
                with store.read() as session:
                    rows += session.scalars(select(model).where(text(f"{row} = :number")), {"number": number})
            except StoreError as error:
                say = check.broken if error.code in DAMAGE_CODES else check.cannot
                say(
                    "store.row",
                    f"表 {table} 第 {number} 行读不出：{error.zh}",
                    f"row {number} of table {table} cannot be read: {error.en}",
                    f"{store.where}:{table}",
                )
        return rows


def check_batches(report: Report, store: Store) -> Tables:
    """Every descriptor is its own JCS, hashes to the batch's id, and its columns repeat what it says."""
    check = report.open("batches", "批次与批次描述", "batches and their descriptors")
    tables = read_tables(check, store)
    descriptors: dict[str, Descriptor] = {}
    for batch in tables.batches.values():
        where = tables.name(batch.id)
        data = str(batch.descriptor).encode("utf-8", "surrogatepass")
        found = hashlib.sha256(data).hexdigest()
        if found != batch.id:
            check.broken(
                "batch.id",
                f"批次描述的哈希为 {found}，与批次标识 {batch.id} 不符",
                f"the descriptor hashes to {found}, not to the batch's id {batch.id}",
                where,
            )
        try:
            descriptor = parse_descriptor(data, where)
        except LedgerError as error:
            check.broken("batch.descriptor", error.zh, error.en, where)
            continue
        for column, stored, told in _columns(batch, descriptor):
            if stored != told:
                check.broken(
                    "batch.column",
                    f"列 {column} 为 {stored!r}，批次描述为 {told!r}",
                    f"column {column} is {stored!r}, the descriptor says {told!r}",
                    where,
                )
        if found == batch.id:
            descriptors[batch.id] = descriptor
    check.seen(f"{len(tables.batches)} 个批次", f"{len(tables.batches)} batches")
    return replace(tables, descriptors=descriptors)


def _columns(batch: models.Batch, told: Descriptor) -> list[tuple[str, Any, Any]]:
    return [
        ("catalog_id", batch.catalog_id, told.catalog_id),
        ("catalog_version", batch.catalog_version, int(told.catalog.partition("/")[2])),
        ("number", batch.number, told.batch),
        ("kind", batch.kind, told.kind),
        ("period", batch.period, told.period),
        ("sender", batch.sender, told.sender),
        ("receiver", batch.receiver, told.receiver),
    ]


def check_outbox(report: Report, store: Store, tables: Tables) -> None:
    """Stored transactions are what their hashes say; those without a confirmed outcome are pending, never damage."""
    check = report.open("outbox", "待发件箱（已签名交易）", "the outbox of signed transactions")
    for row in tables.outbox:
        where = f"outbox {row.id} 0x{row.hash}"
        try:
            found = keccak(bytes.fromhex(row.raw)).hex()
        except (TypeError, ValueError):
            found = "-"
        if found != row.hash:
            check.broken(
                "outbox.hash",
                f"交易原文的哈希为 {found}，与登记的 {row.hash} 不符",
                f"the raw transaction hashes to {found}, recorded is {row.hash}",
                where,
            )
        if row.state in _UNFINISHED:
            check.pending.append(
                Remark(
                    "outbox.unfinished",
                    f"{row.purpose} 交易处于 {row.state}，下一次作业会办完",
                    f"this {row.purpose} transaction is {row.state}; the next job finishes it",
                    where,
                )
            )
    with check.guard(), store.read() as session:
        interrupted = list(session.scalars(select(models.Run).where(models.Run.finished_at.is_(None))))
        for run in interrupted:
            check.pending.append(
                Remark(
                    "run.interrupted",
                    f"{run.command}（{run.started_at} 开始）没有结束：中断过，或正在运行",
                    f"{run.command}, started {run.started_at}, did not end: it was interrupted",
                    f"run {run.id}",
                )
            )
    check.seen(f"{len(tables.outbox)} 笔交易", f"{len(tables.outbox)} transactions")
