"""What the sender of a batch anchored, learnt from its sketch and our own rows (design section 4, formats F6).

A certified difference turns what we hold into what the sender anchored, entry by entry, shown by the anchored root. One thing an
entry does not tell is whether it is a record or a withdrawal; that is worked out here from what withdrawals can be (formats F4), and
where it cannot be, nothing is learnt.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ledger.batch.book import StreamLedger
from ledger.batch.history import COMMITMENT, History, Version
from ledger.batch.stream import AnnouncedBatch
from ledger.catalog import Catalog
from ledger.kernel.sorting import TAG
from ledger.keys import CatalogKeys
from ledger.record import REASONS, withdrawal

KeyOf = Callable[[bytes], Mapping[str, str] | None]
"""The key fields of a key tag, in normal form, as far as they are known here."""


@dataclass(frozen=True)
class Told:
    """One entry of the other side: is it a withdrawal? None where that cannot be told. `canonical` are a withdrawal's bytes."""

    withdrawn: bool | None
    canonical: bytes | None = None
    reason: str | None = None


RECORD, UNKNOWN = Told(withdrawn=False), Told(withdrawn=None)


def tell(
    entries: npt.NDArray[np.uint8],
    batch: AnnouncedBatch,
    ledger: StreamLedger,
    catalog: Catalog,
    keys: CatalogKeys,
    key_of: KeyOf,
) -> list[Told]:
    """For each of the sender's `entries` (n,64) of `batch`, what it is.

    A withdrawal needs an earlier live version of its key in the stream, whose subject tag it carries, and says one of five reasons
    about a known key: so a key no batch had before is a record, and a known key either opens to a withdrawal or does not.
    """
    if batch.descriptor.kind == "snapshot":
        return [RECORD] * len(entries)
    earlier = ledger.before(batch)
    whole = not any(_is_before(it, batch) for it in ledger.open)
    # Of an erased record nobody here knows the key any more; withdrawn or not, it counts for nothing.
    erased = ledger.erased
    return [
        RECORD if entry[TAG].tobytes() in erased else _tell(entry, earlier, catalog, keys, key_of, whole=whole)
        for entry in entries
    ]


def _tell(
    entry: npt.NDArray[np.uint8], earlier: History, catalog: Catalog, keys: CatalogKeys, key_of: KeyOf, *, whole: bool
) -> Told:
    tag = entry[TAG].tobytes()
    key = earlier.find(tag)
    if key < 0:
        # A batch whose entries are not known here may hold the earlier version.
        return RECORD if whole else UNKNOWN
    if whole:
        latest = earlier.latest(key)
        if latest.withdrawn or latest.subject_tag != entry[:16].tobytes():
            return RECORD
    values = key_of(tag)
    if values is None:
        return UNKNOWN
    wanted = entry[COMMITMENT].tobytes()
    for reason in REASONS:
        canonical = withdrawal(catalog, values, reason)
        if keys.commit(canonical)[2] == wanted:
            return Told(withdrawn=True, canonical=canonical, reason=reason)
    return RECORD


def key_finder(catalog: Catalog, ledger: StreamLedger, open_version: Callable[[Version], bytes | None]) -> KeyOf:
    """Looks a key tag up in the archives of the stream's batches."""
    found: dict[bytes, Mapping[str, str] | None] = {}

    def key_of(tag: bytes) -> Mapping[str, str] | None:
        if tag not in found:
            found[tag] = _opened_key(catalog, ledger.history, open_version, tag)
        return found[tag]

    return key_of


def _opened_key(
    catalog: Catalog, history: History, open_version: Callable[[Version], bytes | None], tag: bytes
) -> Mapping[str, str] | None:
    key = history.find(tag)
    if key < 0:
        return None
    for version in reversed(history.versions(key)):
        data = open_version(version)
        if data is not None:
            return key_fields(catalog, data)
    return None


def key_fields(catalog: Catalog, canonical: bytes) -> Mapping[str, str]:
    """The key fields in canonical bytes of a record or a withdrawal."""
    document = json.loads(canonical)
    values = document["key"] if "withdrawn" in document else document["record"]
    return {name: values[name] for name in catalog.key}


def _is_before(first: AnnouncedBatch, second: AnnouncedBatch) -> bool:
    if not first.sent:
        return False
    return not second.sent or first.sent[0].sequence < second.sent[0].sequence
