"""Writing into a table: one transaction that holds off other writers, kept when the block ends, undone by any exception.

What a writer does shows only in what is read back: `settle`, then `rows` again, and raise if it is not what was meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ledger.catalog import Catalog
from ledger.errors import NotBuiltError
from ledger.source.table import kind_of, parsed_url
from ledger.source.writer import Locator, Writer

__all__ = ["Locator", "Writer", "open_writer"]


def open_writer(
    url: str,
    table: str,
    catalog: Catalog,
    *,
    columns: Mapping[str, str] | None = None,
    batch_column: str | None = None,
    base: Path | None = None,
    lock_seconds: float | None = None,
) -> AbstractContextManager[Writer]:
    """Open `table` for writing records of `catalog`; parameters as in `table.open_table`, and how long to wait for
    another program's lock (default: ten seconds).

    SQLite and PostgreSQL; NotBuiltError for others. SourceError `load.view` for what is no table, `source.permission`
    with the GRANT that is needed, `source.read_only`, `source.locked`, `source.commit_unknown` (the connection was lost
    while committing), and those of `table.open_table`.
    """
    kind = kind_of(url)
    more: dict[str, Any] = {} if lock_seconds is None else {"lock_seconds": lock_seconds}
    if kind == "sqlite":
        from ledger.source import sqlitewrite  # noqa: PLC0415

        return sqlitewrite.open_writer(url, table, catalog, columns or {}, batch_column, base or Path(), **more)
    if kind == "postgresql":
        from ledger.source import pgwrite  # noqa: PLC0415

        return pgwrite.open_writer(parsed_url(url), table, catalog, columns or {}, batch_column, **more)
    raise NotBuiltError(f"写入 {kind}:// (writing to {kind}://)")
