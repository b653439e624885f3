"""What bridges left behind: keys that are still compared under an older series (design section 4).

Those that a bridge did not carry, and those that were withdrawn before it: neither may come back as something new. A key is left behind
no more once a batch of a later series carries it. Tags of two series tell nothing of each other where the exchange key changed; then the
archive says which record a tag is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from sqlalchemy import select
from sqlalchemy.orm import Session

from ledger.batch.book import Book, LeftBehind, StreamLedger
from ledger.batch.declared import catalog_of
from ledger.batch.history import Version
from ledger.batch.series import Series, StreamSeries
from ledger.batch.stream import AnnouncedBatch, StreamId, Streams
from ledger.catalog import Catalog
from ledger.errors import InputError
from ledger.keys import CatalogKeys
from ledger.record import Opened, Refusal, normal, open_canonical, record_key
from ledger.store import models
from ledger.store.archive import among
from ledger.workspace import OWN, Workspace


def keys_of(workspace: Workspace, session: Session, stream: StreamId, series: Series) -> CatalogKeys:
    """The keys of a series, with the catalog it stands under.

    InputError `catalog.changed`, `key.wrong`, `key.no_exchange_key` where either is not here.
    """
    catalog = catalog_of(workspace, session, series.told)
    return workspace.key_by_id(key_party(workspace, stream), series.told.key_id).for_catalog(catalog)


def key_party(workspace: Workspace, stream: StreamId) -> str:
    """The folder under keys/ of a stream that this party is a side of."""
    if not stream.receiver:
        return OWN
    return stream.receiver if stream.sender == workspace.party else stream.sender


def with_left(
    workspace: Workspace,
    book: Book,
    streams: Streams,
    arranged: StreamSeries,
    series: Series,
    ledger: StreamLedger,
    keys: CatalogKeys,
) -> StreamLedger:
    """`ledger`, of the series given, with what was left behind by its bridge and the bridges before.

    An older series whose key or catalog is gone for good is named in its notes; InputError if records stand under it that were not
    carried: nobody could tell what became of them.
    """
    left: list[LeftBehind] = []
    lost: list[AnnouncedBatch] = []
    notes: list[tuple[str, str]] = []
    newer: list[tuple[StreamLedger, CatalogKeys]] = [(ledger, keys)]
    for older in reversed(arranged.series[: series.number]):
        bridge = arranged.series[older.number + 1].bridge
        if bridge is None:
            raise ValueError("every series but the first begins with a bridge")
        with book.store.read() as session:
            row = models.NotCarried
            chosen = select(row.key_tag).where(row.batch_id == bridge.new.batch_id)
            behind = {bytes.fromhex(tag) for tag in session.scalars(chosen)}
            try:
                its = keys_of(workspace, session, arranged.stream, older)
            except InputError as error:
                if behind:
                    raise
                notes.append(_gone(older, error))
                continue
        then = book.load_stream(streams, arranged.stream, its.catalog, its, older)
        found = _left(book, then, its, behind, newer)
        if found is not None:
            left.append(found)
        if arranged.stream.sender == workspace.party:
            # Our own batches are here, or the store is not whole.
            lost += [it for it in then.open if it.sent]
        else:
            notes += _unknown(then)
        newer.append((then, its))
    return replace(ledger, left=tuple(left), notes=(*ledger.notes, *notes), open=(*ledger.open, *lost))


def _left(
    book: Book,
    then: StreamLedger,
    its: CatalogKeys,
    behind: set[bytes],
    newer: Sequence[tuple[StreamLedger, CatalogKeys]],
) -> LeftBehind | None:
    history = then.history
    marked = ~history.live
    if behind and len(history):
        marked |= among(history.tags(np.arange(len(history))), frozenset(behind))
    numbers = np.flatnonzero(marked)
    if not len(numbers):
        return None
    here = newer[0][1]
    opened = _opened(book, then, its, _to_open(then, its, newer, numbers))
    tags: set[bytes] = set()
    now: dict[bytes, bytes] = {}
    named: dict[bytes, Mapping[str, str]] = {}
    entries: list[bytes] = []
    for number in numbers.tolist():
        tag = history.tag(number)
        record = opened.get(number)
        if any(
            (other := _tag(keys, its, tag, record)) is not None and after.history.find(other) >= 0
            for after, keys in newer
        ):
            continue
        tags.add(tag)
        today = _tag(here, its, tag, record)
        if today is None:
            continue
        now[tag] = today
        if record is not None and (values := _key_values(here.catalog, record)) is not None:
            named[today] = values
        if history.live[number] and (subject := _subject(here, its, history.latest(number), record)) is not None:
            entries.append(here.entry(subject, today, history.latest(number).commitment))
    if not tags:
        return None
    retagged = np.frombuffer(b"".join(entries), np.uint8).reshape(-1, 64)
    return LeftBehind(then, its, frozenset(tags), now, named, retagged)


def _to_open(
    then: StreamLedger,
    its: CatalogKeys,
    newer: Sequence[tuple[StreamLedger, CatalogKeys]],
    numbers: npt.NDArray[np.int64],
) -> list[int]:
    """All that are live, and where some tags of later series cannot be told else, all; but nothing that was erased."""
    wanted = numbers if any(not comparable(its, keys) for _, keys in newer) else numbers[then.history.live[numbers]]
    return [number for number in wanted.tolist() if then.history.tag(number) not in then.erased]


def comparable(one: CatalogKeys, other: CatalogKeys) -> bool:
    """Whether a record has the same key tag in both: the same exchange key, and keys of the same fields."""
    return one.key == other.key and _key_fields(one.catalog) == _key_fields(other.catalog)


def _key_fields(catalog: Catalog) -> dict[str, tuple[str, int | None]]:
    return {name: (catalog.by_name[name].type, catalog.by_name[name].scale) for name in catalog.key}


def _opened(book: Book, then: StreamLedger, its: CatalogKeys, numbers: Sequence[int]) -> dict[int, Opened]:
    """The latest versions of some keys, taken apart, as far as they are archived."""
    found: dict[int, Opened] = {}
    latest = [(then.history.latest(number), number) for number in numbers]

    def place(it: tuple[Version, int]) -> tuple[int, int]:
        # By frame: the reader keeps the frame it read last.
        version = it[0]
        return version.batch, int(then.known[version.batch].entries.frames[version.index])

    with book.opener(then.known, its.catalog, its) as open_version:
        for version, number in sorted(latest, key=place):
            data = open_version(version)
            if data is not None:
                found[number] = open_canonical(its.catalog, data)
    return found


def _tag(keys: CatalogKeys, its: CatalogKeys, tag: bytes, record: Opened | None) -> bytes | None:
    """The tag under `keys` of a record that has `tag` under `its`; None where that cannot be told."""
    if comparable(keys, its):
        return tag
    values = None if record is None else _key_values(keys.catalog, record)
    return None if values is None else keys.key_tag(record_key(keys.catalog, values))


def _key_values(catalog: Catalog, record: Opened) -> Mapping[str, str] | None:
    """The key fields that `catalog` names, out of a record of another version; None if it does not have them all."""
    found: dict[str, str] = {}
    for name in catalog.key:
        value = _renewed(catalog, name, record)
        if value is None:
            return None
        found[name] = value
    return found


def _renewed(catalog: Catalog, name: str, record: Opened) -> str | None:
    try:
        return normal(record.values.get(name), catalog.by_name[name], catalog)
    except Refusal:
        return None


def _subject(keys: CatalogKeys, its: CatalogKeys, version: Version, record: Opened | None) -> bytes | None:
    """The subject tag of an older version under `keys` (formats F4); None where that cannot be told."""
    subject = keys.catalog.subject
    if subject is None:
        return keys.subject_tag(None)
    if record is not None:
        return keys.subject_tag(_renewed(keys.catalog, subject.field, record))
    before = its.catalog.subject
    same = keys.key == its.key and before == subject
    types = [catalog.by_name[subject.field].type for catalog in (keys.catalog, its.catalog) if before is not None]
    return version.subject_tag if same and len(set(types)) == 1 else None


def _gone(series: Series, error: InputError) -> tuple[str, str]:
    told = series.told
    return (
        f"旧系列（目录 {told.catalog}，密钥 {told.key_id}）已无法读取：其中已撤回的记录若又出现，将无从识别。{error.zh}",
        f"the older series ({told.catalog}, key {told.key_id}) cannot be read any more: a record withdrawn under it would not be recognised if "
        f"it came back. {error.en}",
    )


def _unknown(then: StreamLedger) -> list[tuple[str, str]]:
    """Batches of an older series whose entries are not known here (any more)."""
    numbers = [it.descriptor.batch for it in then.open if it.sent]
    if not numbers:
        return []
    return [
        (
            f"旧系列的批次 {'、'.join(numbers)} 本方没有条目（未导入，或衔接之后又被修订）：其中的撤回无从得知",
            f"the entries of {', '.join(numbers)} of an older series are not known here (never taken in, or revised after the bridge): what "
            "they withdrew cannot be told",
        )
    ]
