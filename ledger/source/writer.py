"""What a writer of rows promises, whatever the database; see `write.open_writer`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from ledger.errors import SourceError
from ledger.kernel.chunk import Chunk
from ledger.source.layout import Layout

Locator = tuple[Any, ...]
"""Names one row of the table for as long as the transaction lasts, and until the row is updated. Opaque."""


class Writer(Protocol):
    """One table, nobody else writing to it. Values are in normal form, None is NULL; the database casts them to its
    columns' types, so what it keeps may differ: read it back."""

    @property
    def where(self) -> str:
        """The place, for messages, without secrets."""

    @property
    def layout(self) -> Layout:
        """Which column holds which field."""

    def rows(self, names: Sequence[str], *, batch: bool = False) -> Iterator[tuple[list[Locator], Chunk]]:
        """The fields `names` of all rows as they are now, chunk by chunk, each with its rows' locators; with `batch` also
        the batch column in `Chunk.extra`. To be read to the end, or closed, before anything is written."""

    def read(self, locator: Locator) -> Mapping[str, object] | None:
        """The declared fields of one row, as `record.text_of` takes them; None if the row is gone."""

    def kind(self, name: str, value: object) -> str:
        """What the database keeps that field in, for messages: the column's type (SQLite: the value's)."""

    def update(self, locator: Locator, values: Mapping[str, str | None], batch: str | None = None) -> Locator | None:
        """Write these fields of one row (and `batch` into the batch column, if given) and no other column. Its locator
        from now on, or None if the row is gone or a trigger kept it as it was."""

    def insert(self, values: Mapping[str, str | None], batch: str | None = None) -> Locator | None:
        """Add a row of these fields; other columns get their defaults. None if a trigger prevented it, or the row has no
        locator that is known."""

    def delete(self, locator: Locator) -> bool:
        """Remove one row; False if it is gone or a trigger kept it."""

    def settle(self) -> None:
        """Have the database do now what it had put off until the commit (deferred triggers and constraints)."""

    def required(self) -> tuple[str, ...]:
        """Columns that an insert must give a value: NOT NULL, without default, not generated."""

    def update_sql(self, names: Sequence[str], *, batch: bool = False) -> str:
        """The statement `update` runs, with placeholders, for showing."""

    def insert_sql(self, names: Sequence[str], *, batch: bool = False) -> str:
        """The statement `insert` runs, with placeholders, for showing."""


def not_a_table(where: str) -> SourceError:
    """A view, or whatever else keeps no rows of its own, cannot be written."""
    return SourceError(
        "load.view", "这是视图，不能写入；请指明表", "this is a view, which cannot be written; name the table", where
    )


def written_columns(layout: Layout, names: Sequence[str], *, batch: bool) -> list[str]:
    """The columns that hold the fields `names`, and the batch column. ValueError if there is none of either."""
    columns = [layout.columns[name] for name in names]
    if batch:
        if layout.batch_column is None:
            raise ValueError("a batch, but no batch column")
        columns.append(layout.batch_column)
    if not columns:
        raise ValueError("nothing to write")
    return columns
