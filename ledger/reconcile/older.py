"""Rows that a bridge left behind, compared under the older series of their last anchor, beside all others (design section 4).

A row belongs to an older series if its key was left behind there and no batch of the present one carries it. Each row is given to one
comparison only, so the counts of all of them add up to those of the table, and the keys to those of the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ledger.batch.book import LeftBehind, StreamLedger
from ledger.batch.build import row_versions
from ledger.batch.job import Job
from ledger.batch.joint import Joint, taken
from ledger.batch.left import comparable
from ledger.catalog import Catalog
from ledger.config import Origin
from ledger.kernel.chunk import Chunk
from ledger.kernel.entries import Kernel, Result
from ledger.kernel.sorting import TAG
from ledger.keys import CatalogKeys
from ledger.reconcile.compare import Comparer, Comparison, OpenVersion
from ledger.reconcile.findings import Counts
from ledger.store.archive import among

Mask = npt.NDArray[np.bool_]


@dataclass
class OlderRows:
    """The rows of one older series, as they pass. `tails` gathers what each would be in the present series: tag and commitment."""

    left: LeftBehind
    comparer: Comparer
    kernel: Kernel
    scope: Mask
    open_version: OpenVersion
    tails: dict[bytes, bytes] = field(default_factory=dict)
    again: set[bytes] = field(default_factory=set)

    @property
    def catalog(self) -> Catalog:
        """The version of the catalog that the series stands under."""
        return self.left.keys.catalog

    def take(
        self, chunk: Chunk, joint: Joint, here: Result, present: StreamLedger, keys: CatalogKeys, free: Mask
    ) -> Mask:
        """Compare the rows of `chunk` that are this series', of those that are `free`; which those are.

        `here` is what the chunk is in the present series.
        """
        mine = np.zeros(len(chunk), np.bool_)
        part = joint.part(chunk, self.left.keys.catalog)
        if comparable(self.left.keys, keys):
            # The tags are known already: only the rows of this series need be looked at under it.
            rows, tags = _tags(here)
            mine[rows[among(tags, self.left.tags)]] = True
            mine &= free
            chosen = np.flatnonzero(mine)
            if len(chosen):
                self._add(taken(part, chosen), chosen, here)
            return mine
        rows, tags = _tags(self.kernel.run(part))
        wanted = among(tags, self.left.tags)
        there, tags_there = _tags(here)
        again = set(there[present.history.lookup(tags_there) >= 0].tolist())
        for row, tag in zip(rows[wanted].tolist(), tags[wanted], strict=True):
            if row in again:
                # Anchored since: the tags of the two series did not tell.
                self.again.add(tag.tobytes())
                self.scope[self.left.ledger.history.find(tag.tobytes())] = False
            else:
                mine[row] = free[row]
        chosen = np.flatnonzero(mine)
        if len(chosen):
            self._add(taken(part, chosen), chosen, here)
        return mine

    def _add(self, part: Chunk, rows: npt.NDArray[np.int64], here: Result) -> None:
        result = self.kernel.run(part)
        tails = {int(row): here.entries[at, TAG.start :] for at, row in enumerate(here.rows.tolist())}
        for at, row in enumerate(rows[result.rows].tolist()):
            if row in tails:
                self.tails[result.entries[at, TAG].tobytes()] = tails[row].tobytes()
        self.comparer.add(len(part), part.numbers, result, row_versions=row_versions(part))

    def outside(self, comparison: Comparison) -> int:
        """Live keys left behind here that were not asked for; those that were carried are counted where they stand now."""
        return len(self.left.live - self.again) - comparison.counts.ledger


def _tags(result: Result) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Rows whose key can be read, and their tags; unreadable rows with a readable key among them."""
    refused = [(row, tag) for row, (tag, _) in result.refused_keys.items()]
    rows = np.concatenate([result.rows, np.array([row for row, _ in refused], np.int64)])
    extra = np.frombuffer(b"".join(tag for _, tag in refused), np.uint8).reshape(-1, 16)
    return rows, np.ascontiguousarray(np.concatenate([result.entries[:, TAG], extra]))


def older_rows(
    job: Job,
    ledger: StreamLedger,
    stack: ExitStack,
    *,
    origin: Origin,
    show_values: bool,
    picked: frozenset[str] | None,
    consents: Sequence[tuple[list[int], int]],
) -> list[OlderRows]:
    """One for each older series with keys left behind; archives stay open in `stack`.

    `picked` are the batches asked for, None for all; `consents` run along with `ledger.left`.
    """
    found: list[OlderRows] = []
    for at, left in enumerate(ledger.left):
        then, keys = left.ledger, left.keys
        history = then.history
        scope = among(history.tags(np.arange(len(history))), left.tags)
        if picked is not None:
            places = [place for place, it in enumerate(then.known) if it.announced.batch_id in picked]
            scope &= np.isin(history.latest_batches(), places)
        open_version = stack.enter_context(job.book.opener(then.known, keys.catalog, keys))
        accepted, removed = consents[at]
        comparer = Comparer(
            keys.catalog,
            origin,
            history,
            then.numbers,
            open_version,
            accepted=accepted,
            removed=removed,
            show_values=show_values,
            scope=scope,
            erased=then.erased,
        )
        found.append(OlderRows(left, comparer, Kernel(keys.catalog, keys), scope, open_version))
    return found


def merged(present: Comparison, older: Sequence[OlderRows]) -> Comparison:
    """One comparison out of all of them."""
    whole = present
    for it in older:
        other = it.comparer.finish()
        tails = [it.tails.get(row[:16].tobytes()) for row in other.updated]
        updated = np.frombuffer(b"".join(tail for tail in tails if tail is not None), np.uint8).reshape(-1, 48)
        findings = sorted((*whole.findings, *other.findings), key=lambda f: (f.sort_key, f.row or 0, f.kind))
        whole = replace(
            whole,
            counts=_sum(whole.counts, other.counts),
            findings=tuple(findings),
            accepted=_merged_keys(whole.accepted, other.accepted),
            updated_keys=_merged_keys(whole.updated_keys, other.updated_keys),
            updated=np.concatenate([whole.updated, updated]),
            rows_outside=whole.rows_outside + other.rows_outside,
            keys_outside=whole.keys_outside + it.outside(other),
            erased=tuple(sorted({*whole.erased, *other.erased})),
        )
    return whole


def _sum(one: Counts, other: Counts) -> Counts:
    return Counts(**{name: getattr(one, name) + getattr(other, name) for name in Counts.__dataclass_fields__})


def _merged_keys(one: Sequence[Mapping[str, str]], other: Sequence[Mapping[str, str]]) -> tuple[Mapping[str, str], ...]:
    return tuple(sorted((*one, *other), key=lambda key: [str(value) for value in key.values()]))
