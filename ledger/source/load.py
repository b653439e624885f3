"""Writing a delivery into a table, for `receive --load`: all of it or nothing, and read back before it counts.

One transaction: find the rows that hold the record keys, update, insert and delete, then read the table again
through the reading code and the kernel and compare each entry with the expected one. Whatever the database did to a
value on the way (column affinity, casts, triggers) shows there and rolls everything back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ledger.catalog import Catalog
from ledger.errors import SourceError
from ledger.record import Refusal, normal, shown, text_of
from ledger.source.write import Locator, Writer, open_writer

if TYPE_CHECKING:
    from ledger.kernel.entries import Kernel


@dataclass(frozen=True)
class Upsert:
    """A record to be there afterwards: its values in normal form, its record key, and the entry it must give."""

    record_key: bytes
    values: Mapping[str, str | None]
    entry: bytes


@dataclass(frozen=True)
class Loaded:
    """How many rows were inserted, updated, deleted; and of the withdrawn keys, how many had no row."""

    inserted: int
    updated: int
    deleted: int
    absent: int


def load_rows(
    url: str,
    table: str,
    kernel: Kernel,
    *,
    upserts: Sequence[Upsert],
    withdrawn: Mapping[bytes, Mapping[str, str | None]],
    columns: Mapping[str, str] | None = None,
    batch_column: str | None = None,
    batch: str | None = None,
    base: Path | None = None,
    busy_seconds: float | None = None,
) -> Loaded:
    """Write `upserts` into the table and delete the rows of the `withdrawn` record keys (each with its key fields).

    Rows are matched by record key: the normal form of the key they hold. Declared columns are written, and `batch` into
    `batch_column` if there is one; null is NULL; other columns keep what they hold, or get the table's default.
    SourceError `load.<rule>`: `view`, `key_repeated` (two rows of one key), `differs` (read back, a row does not give its
    entry; names the column, what was written and what came back), `vanished`, `still_there`; and those of
    `write.open_writer`. ValueError if a record key occurs twice in `upserts` and `withdrawn` together.
    """
    if (batch_column is None) != (batch is None):
        raise ValueError("batch and batch_column go together")
    wanted = {upsert.record_key: upsert for upsert in upserts}
    if len(wanted) != len(upserts) or wanted.keys() & withdrawn.keys():
        raise ValueError("a record key occurs twice")
    with open_writer(
        url, table, kernel.catalog, columns=columns, batch_column=batch_column, base=base, lock_seconds=busy_seconds
    ) as writer:
        return _Load(writer, kernel).run(wanted, withdrawn, batch)


class _Load:
    def __init__(self, writer: Writer, kernel: Kernel) -> None:
        self.writer = writer
        self.kernel = kernel
        self.catalog: Catalog = kernel.catalog
        self.where = writer.where

    def run(
        self, upserts: Mapping[bytes, Upsert], withdrawn: Mapping[bytes, Mapping[str, str | None]], batch: str | None
    ) -> Loaded:
        there = self._existing({key: up.values for key, up in upserts.items()} | dict(withdrawn))
        written: dict[bytes, Locator | None] = {}
        updated = deleted = 0
        for key, upsert in upserts.items():
            values = {name: upsert.values[name] for name in self.catalog.by_name}
            if key in there:
                written[key] = self.writer.update(there[key], values, batch)
                if written[key] is None:
                    raise self._vanished(upsert.values)
                updated += 1
            else:
                written[key] = self.writer.insert(values, batch)
        for key, fields in withdrawn.items():
            if key in there:
                if not self.writer.delete(there[key]):
                    raise self._vanished(fields)
                deleted += 1
        self.writer.settle()
        self._verify(upserts, withdrawn, written)
        return Loaded(len(upserts) - updated, updated, deleted, len(withdrawn) - deleted)

    def _existing(self, wanted: Mapping[bytes, Mapping[str, str | None]]) -> dict[bytes, Locator]:
        """Where the rows of the wanted record keys are."""
        found: dict[bytes, Locator] = {}
        for located, chunk in self.writer.rows(list(self.catalog.key)):
            keys = self.kernel.keys_of(chunk, range(len(chunk)))
            for row, key in zip(keys.rows.tolist(), keys.record_keys.to_pylist(), strict=True):
                if key not in wanted:
                    continue
                if key in found:
                    raise self._repeated(wanted[key])
                found[key] = located[row]
        return found

    def _verify(
        self,
        upserts: Mapping[bytes, Upsert],
        withdrawn: Mapping[bytes, Mapping[str, str | None]],
        written: Mapping[bytes, Locator | None],
    ) -> None:
        seen: set[bytes] = set()
        for located, chunk in self.writer.rows(list(self.catalog.by_name), batch=True):
            result = self.kernel.run(chunk)
            for place, (row, key) in enumerate(zip(result.rows.tolist(), result.record_keys.to_pylist(), strict=True)):
                self._check_gone(key, withdrawn)
                if key not in upserts:
                    continue
                if key in seen:
                    raise self._repeated(upserts[key].values)
                seen.add(key)
                if result.entries[place].tobytes() != upserts[key].entry:
                    raise self._wrong(upserts[key], located[row], written[key])
            for row, (_, key) in result.refused_keys.items():
                self._check_gone(key, withdrawn)
                if key in upserts:
                    raise self._wrong(upserts[key], located[row], written[key])
        for key, upsert in upserts.items():
            if key not in seen:
                raise self._differs(upsert, written[key]) or self._vanished(upsert.values)

    def _wrong(self, upsert: Upsert, here: Locator, put: Locator | None) -> SourceError:
        """Why the row `here` of a written key does not give its entry; `put` is where it was written. A trigger that
        wrote it again may have moved it."""
        if put is not None and put != here and self.writer.read(put) is not None:
            return self._repeated(upsert.values)
        return self._differs(upsert, here) or self._repeated(upsert.values)

    def _check_gone(self, key: bytes, withdrawn: Mapping[bytes, Mapping[str, str | None]]) -> None:
        if key in withdrawn:
            raise SourceError(
                "load.still_there",
                f"已删除的记录 {self._shown(withdrawn[key])} 仍在表中（触发器？），已全部回滚",
                f"the deleted record {self._shown(withdrawn[key])} is still in the table (a trigger?); all was rolled back",
                self.where,
            )

    def _differs(self, upsert: Upsert, locator: Locator | None) -> SourceError | None:
        """Which column came back otherwise than it was written; None if the row is not there, or is as it was written."""
        row = None if locator is None else self.writer.read(locator)
        for name, back in (row or {}).items():
            field = self.catalog.by_name[name]
            try:
                same = normal(text_of(back, field.type), field, self.catalog) == upsert.values[name]
            except Refusal:
                same = False
            if not same:
                column = self.writer.layout.columns[name]
                wrote, came = shown(field, upsert.values[name]), shown(field, back)
                kind = self.writer.kind(name, back)
                return SourceError(
                    "load.differs",
                    f"记录 {self._shown(upsert.values)} 的列 {column}：写入 {wrote!r}，读回 {came!r}（{kind}），"
                    "已全部回滚；请把该列声明为 TEXT，并检查触发器",
                    f"record {self._shown(upsert.values)}, column {column}: wrote {wrote!r}, read back {came!r} ({kind}); all "
                    "was rolled back; declare the column TEXT and look for triggers",
                    self.where,
                )
        return None

    def _repeated(self, fields: Mapping[str, str | None]) -> SourceError:
        return SourceError(
            "load.key_repeated",
            f"表中有多行的主键都是 {self._shown(fields)}，无法确定写入哪一行；已全部回滚",
            f"several rows of the table have the key {self._shown(fields)}, so which to write is unknown; all was rolled back",
            self.where,
        )

    def _vanished(self, fields: Mapping[str, str | None]) -> SourceError:
        return SourceError(
            "load.vanished",
            f"写入的记录 {self._shown(fields)} 读不回来（触发器，或主键列不是 TEXT？），已全部回滚",
            f"record {self._shown(fields)} was written but cannot be read back (a trigger, or a key column that is not TEXT?); "
            "all was rolled back",
            self.where,
        )

    def _shown(self, fields: Mapping[str, str | None]) -> str:
        return ", ".join(f"{name}={shown(self.catalog.by_name[name], fields[name])}" for name in self.catalog.key)
