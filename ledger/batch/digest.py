"""Size and root of a file or of the source as one batch would have them; nothing is written, no chain is asked."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

import numpy as np

from ledger import sketch as sketches
from ledger.batch.book import Book
from ledger.batch.build import Builder, Built
from ledger.batch.engine import size_and_root
from ledger.batch.history import History
from ledger.batch.intake import FileOptions, build_from_file
from ledger.catalog import Catalog
from ledger.keys import ExchangeKey
from ledger.workspace import OWN, Workspace


@dataclass(frozen=True)
class Digest:
    """`root` is 64 hex digits; `set_aside` counts rows without an entry that went to the quarantine file, `notes` (zh, en) are
    remarks on how the file was read. `sketch` is in clear, None where none was asked for."""

    size: int
    root: str
    set_aside: int
    ignored: tuple[str, ...]
    notes: tuple[tuple[str, str], ...] = ()
    sketch: bytes | None = None


def digest(
    workspace: Workspace, catalog: Catalog, file: FileOptions | None, party: str = OWN, *, cells: int | None = None
) -> Digest:
    """Digest under the key shared with `party`, or the own key; with the sketch of `cells` cells where that many are asked for.

    Withdrawals take their subject tags from the earlier versions that this workspace holds under the same key.
    """
    if cells is not None:
        sketches.check_cells(cells, "--cells")
    key = workspace.exchange_key(party)
    if file is None:
        with workspace.open_source(catalog) as table:
            size, root, sketch = size_and_root(table, catalog, key.for_catalog(catalog), cells)
            return Digest(size, root, 0, tuple(table.ignored), sketch=sketch)
    with file.open(catalog) as delivered:
        earlier = _records_under(workspace, catalog, key) if delivered.header.operation is not None else None
        builder = Builder(catalog, key.for_catalog(catalog), earlier)
        built = build_from_file(delivered, builder, file.quarantine)
        notes = tuple(delivered.notes)
        return Digest(built.size, built.root, len(builder.bad), tuple(delivered.ignored), notes, _sketch(built, cells))


def _sketch(built: Built, cells: int | None) -> bytes | None:
    return None if cells is None else sketches.build(built.entries, cells).encode()


def _records_under(workspace: Workspace, catalog: Catalog, key: ExchangeKey) -> History:
    """Every record version held under this key, withdrawals left out: the same file gives the same root before and after it is sent."""
    batches = []
    with closing(workspace.open_store("read")) as store:
        book = Book(workspace, store)
        with store.read() as session:
            sets = book.sets_under(session, catalog, key.id.hex())
        for entry_set in sets:
            entries = book.read_set(entry_set)
            kept = np.flatnonzero(~entries.withdrawn)
            batches.append((entries.entries[kept], entries.withdrawn[kept]))
    return History(batches)
