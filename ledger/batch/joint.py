"""One consistent read of a source as records of several versions of a catalog: the same rows, each version its own fields.

Only where a bridge left something behind, or while one is made. The table is read once, with every field that any of the versions
declares; what each of them sees is cut out of that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ledger.catalog import Catalog, Field, FieldType
from ledger.errors import SourceError
from ledger.kernel.chunk import Chunk
from ledger.source.layout import in_any_case
from ledger.source.source import Source
from ledger.source.table import describe_table
from ledger.workspace import Workspace


@dataclass(frozen=True)
class Joint:
    """The read. `places` gives each field's place in it; a field of an older version whose column is gone has none."""

    table: Source
    places: Mapping[str, int]
    lost: tuple[str, ...]

    def part(self, chunk: Chunk, catalog: Catalog) -> Chunk:
        """The same rows with the fields of one version. A field that the table no longer has is null everywhere."""
        fields = {
            name: chunk.fields[name] if name in self.places else pa.nulls(len(chunk), pa.string())
            for name in catalog.by_name
        }
        last = max(self.places.get(name, -1) for name in catalog.by_name)
        # A row is refused for its first field that cannot be read: for one that this version lacks only if none of its own comes later.
        refused = {
            row: why
            for row, why in chunk.refused.items()
            if why.field in catalog.by_name or self.places.get(why.field, -1) < last
        }
        return replace(chunk, fields=fields, refused=refused)

    def under(self, catalog: Catalog) -> Source:
        """The read as one version sees it."""
        return _Under(self, catalog)


@dataclass(frozen=True)
class _Under:
    """A source that shows the part of one version."""

    joint: Joint
    catalog: Catalog

    @property
    def where(self) -> str:
        return self.joint.table.where

    @property
    def ignored(self) -> Sequence[str]:
        return self.joint.table.ignored

    @property
    def notes(self) -> Sequence[tuple[str, str]]:
        return self.joint.table.notes

    def about_rows(self) -> int | None:
        return self.joint.table.about_rows()

    def scan(self) -> Iterator[Chunk]:
        for chunk in self.joint.table.scan():
            yield self.joint.part(chunk, self.catalog)


@contextmanager
def open_joint(workspace: Workspace, present: Catalog, older: Sequence[Catalog]) -> Iterator[Joint]:
    """Read the catalog's source as `present` and every version in `older`; every field of `present` must be there.

    A field that only older versions have may be gone from the table: it is `lost`.
    """
    others = {
        name: it for catalog in reversed(older) for name, it in catalog.by_name.items() if name not in present.by_name
    }
    lost: tuple[str, ...] = ()
    if others:
        source = workspace.source(present)
        there = [column.name for column in describe_table(source.url, source.table, workspace.root).columns]
        lost = tuple(name for name in others if in_any_case(source.columns.get(name, name), there) is None)
    shared = [name for name in present.by_name if all(name in catalog.by_name for catalog in older)]
    gained = [name for name in present.by_name if name not in shared]
    versions = (present, *older)
    wide = [_widest([it.by_name[name] for it in versions if name in it.by_name]) for name in (*shared, *gained)]
    own = [present.by_name[it.name] for it in wide]
    rest = [it for name, it in others.items() if name not in lost]
    with ExitStack() as stack:
        try:
            table = stack.enter_context(workspace.open_source(replace(present, fields=(*wide, *rest))))
        except SourceError as error:
            if error.code != "source.column_type" or wide == own:
                raise
            table = stack.enter_context(workspace.open_source(replace(present, fields=(*own, *rest))))
        yield Joint(table, {it.name: place for place, it in enumerate((*wide, *rest))}, lost)


def taken(chunk: Chunk, rows: npt.NDArray[np.int64]) -> Chunk:
    """Some rows of a chunk of a table, in their order."""
    wanted = pa.array(rows)
    place = {row: at for at, row in enumerate(rows.tolist())}
    return replace(
        chunk,
        fields={name: column.take(wanted) for name, column in chunk.fields.items()},
        numbers=chunk.numbers[rows],
        refused={place[row]: why for row, why in chunk.refused.items() if row in place},
        extra={name: column.take(wanted) for name, column in chunk.extra.items()},
    )


def _widest(versions: Sequence[Field]) -> Field:
    """How to read a column that versions declare differently: as the type that takes every value one of them takes (formats F2).

    What is read is text in any case; a type only refuses values of other kinds, and each version's kernel does that for itself.
    """
    types = {it.type for it in versions}
    if len(types) == 1:
        return versions[0]
    widest: FieldType = versions[0].type
    if types == {"date", "datetime"}:
        widest = "datetime"
    elif types & {"text", "enum"}:
        widest = "text"
    return Field(
        versions[0].name,
        widest,
        versions[0].scale if widest == "decimal" else None,
        personal=any(it.personal for it in versions),
    )
