"""One record as the ledger knows it: live, withdrawn or unknown, with every version, its batch and its anchors.

What could not be looked at is named: `unknown` is certain only if nothing was left out. Reads only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ledger.batch.history import Version
from ledger.batch.job import Job
from ledger.batch.keyarg import parse_key_argument
from ledger.batch.stream import AnnouncedBatch, StreamId
from ledger.catalog import Catalog
from ledger.errors import LedgerError
from ledger.prove import Held, load_sides
from ledger.record import MASK, Opened, open_canonical

State = Literal["live", "withdrawn", "unknown"]


@dataclass(frozen=True)
class SeenVersion:
    """One version in one batch. `values` are masked; None unless asked for, or where nothing is archived; `reason` of a withdrawal
    likewise."""

    batch: AnnouncedBatch
    index: int
    commitment: str
    withdrawn: bool
    values: Mapping[str, str | None] | None
    reason: str | None


@dataclass(frozen=True)
class InStream:
    """The record in one stream, versions oldest first, none if it does not hold the key. `open` are announced batches whose entries
    are not known here and which may hold it. `erased`: its plaintext was removed here, so no version can be shown or proved."""

    stream: StreamId
    state: State
    versions: tuple[SeenVersion, ...]
    open: tuple[str, ...]
    erased: bool = False


@dataclass(frozen=True)
class Found:
    """The whole answer; `key` is masked, `unread` are streams that cannot be read here, with the reason. As of `block`."""

    key: Mapping[str, str]
    state: State
    streams: tuple[InStream, ...]
    unread: tuple[tuple[StreamId, LedgerError], ...]
    block: int
    time: int

    @property
    def complete(self) -> bool:
        """False if something could not be looked at: the record may have more versions, or another state."""
        return not self.unread and not any(it.open for it in self.streams)


def look_up(job: Job, catalog: Catalog, key: str, *, values: bool = False) -> Found:
    """What is known of the record that `key` (as on the command line) names; with `values` the archive is opened.

    InputError `key.form`, `key.value`.
    """
    parsed = parse_key_argument(catalog, key)
    held, unread = load_sides(job, catalog)
    seen = (_in_stream(job, catalog, it, parsed, values=values) for it in held)
    streams = tuple(it for it in seen if it is not None)
    states = {it.state for it in streams}
    state: State = "live" if "live" in states else "withdrawn" if "withdrawn" in states else "unknown"
    masked = {name: MASK if catalog.by_name[name].personal else value for name, value in parsed.items()}
    return Found(masked, state, streams, tuple(unread), job.view.block, job.view.time)


def _in_stream(job: Job, catalog: Catalog, held: Held, parsed: Mapping[str, str], *, values: bool) -> InStream | None:
    """None for an older series that no longer speaks of the record."""
    ledger = held.ledger
    missing = tuple(batch.descriptor.batch for batch in ledger.open)
    tag = held.tag_of(catalog, parsed)
    if held.left is not None and (tag is None or tag not in held.left):
        return None
    versions = [] if tag is None else ledger.history.of_tag(tag)
    if not versions:
        return InStream(ledger.stream, "unknown", (), missing, tag in ledger.erased)
    catalog = held.keys.catalog
    opened: dict[Version, Opened] = {}
    if values:
        with job.book.opener(ledger.known, catalog, held.keys) as open_version:
            for version in versions:
                data = open_version(version)
                if data is not None:
                    opened[version] = open_canonical(catalog, data)
    seen = tuple(_seen(catalog, ledger.known[it.batch].announced, it, opened.get(it)) for it in versions)
    state: State = "withdrawn" if versions[-1].withdrawn else "live"
    return InStream(ledger.stream, state, seen, missing, tag in ledger.erased)


def _seen(catalog: Catalog, batch: AnnouncedBatch, version: Version, opened: Opened | None) -> SeenVersion:
    masked = None
    if opened is not None:
        # Whether a personal field is filled is personal as well.
        masked = {n: MASK if catalog.by_name[n].personal else value for n, value in opened.values.items()}
    reason = None if opened is None else opened.reason
    return SeenVersion(batch, version.index, version.commitment.hex(), version.withdrawn, masked, reason or None)
