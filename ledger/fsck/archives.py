"""An archive against its entries: every record that is archived must be the one that the entry stands for."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field

import numpy as np

from ledger.batch.book import Book
from ledger.batch.declared import catalog_of
from ledger.descriptor import Descriptor
from ledger.errors import LedgerError
from ledger.fsck.report import SHOWN, Check
from ledger.fsck.tables import Tables
from ledger.kernel.sorting import EntryIndex
from ledger.keys import CatalogKeys
from ledger.record import open_canonical, record_key
from ledger.store import models
from ledger.store.archive import ArchiveReader, among
from ledger.store.entryfile import NO_FRAME, Entries
from ledger.workspace import OWN, Workspace


@dataclass(frozen=True)
class Opener:
    """Finds what opens the records of a batch: the catalog it was anchored under and the exchange key it names."""

    workspace: Workspace
    book: Book
    tables: Tables
    _keys: dict[tuple[str, str, str], CatalogKeys] = field(default_factory=dict)

    def keys(self, batch: models.Batch, told: Descriptor) -> CatalogKeys:
        """The keys of a batch; InputError `key.wrong`, `catalog.changed` or any other that keeps them from being had."""
        party = key_party(self.workspace.party, batch)
        known = (party, told.key_id, told.catalog_digest)
        if known not in self._keys:
            key = self.workspace.key_by_id(party, told.key_id)
            with self.book.store.read() as session:
                catalog = catalog_of(self.workspace, session, told)
            self._keys[known] = key.for_catalog(catalog)
        return self._keys[known]

    def is_ours(self, batch_id: str) -> bool:
        """True for a batch that this party sent or sealed."""
        batch = self.tables.batches.get(batch_id)
        return batch is not None and batch.sender_party == self.workspace.party

    def erased(self, entry_set: models.EntrySet) -> frozenset[bytes]:
        """Key tags of which no archive of the set's catalog may hold a record."""
        batch = self.tables.batches.get(entry_set.batch_id)
        return frozenset() if batch is None else self.tables.erased(batch.catalog_id)


def key_party(own: str, batch: models.Batch) -> str:
    """The folder under keys/ of the key that a batch's entries were made with."""
    if not batch.receiver_party:
        return OWN
    return batch.receiver_party if batch.sender_party == own else batch.sender_party


class _Some:
    """Names the first entries of a set that are wrong in one way, and counts the rest."""

    def __init__(self, check: Check, where: str) -> None:
        self._check = check
        self._where = where
        self._counts: dict[str, int] = {}

    def broken(self, code: str, zh: str, en: str, entry: str) -> None:
        self._counts[code] = self._counts.get(code, 0) + 1
        if self._counts[code] <= SHOWN:
            self._check.broken(code, zh, en, f"{self._where} · {entry}")

    def close(self) -> None:
        for code, count in self._counts.items():
            if count > SHOWN:
                self._check.broken(code, f"……共 {count} 条", f"... {count} in all", self._where)


def check_archive(check: Check, book: Book, opener: Opener, entry_set: models.EntrySet, entries: Entries) -> int:
    """Open every frame and every record of a set's archive; returns how many records were opened.

    A record must stand where its entry says, open the entry's commitment, and, taken apart under the batch's catalog, be in
    normal form, give the entry's tags and the kind (record or withdrawal) that the entry file claims. Of a lawful set with an
    archive, every entry has its record and every record its entry; a held set archives only rows that differ, and a lawful set of
    another sender that was learnt from its sketch or entry file only what was in the source. No archive holds a record that was erased.
    """
    batch_name = opener.tables.name(entry_set.batch_id)
    if entry_set.archive_file is None:
        _check_none(check, opener, entry_set, entries, batch_name)
        return 0
    where = f"{entry_set.archive_file} · {batch_name}"
    some = _Some(check, where)
    keys = None
    told = opener.tables.descriptors.get(entry_set.batch_id)
    if told is None:
        check.cannot(
            "archive.no_descriptor",
            "批次描述损坏，无从得知目录与密钥，记录未核对",
            "the descriptor is damaged: catalog and key are not known, the records were not checked",
            where,
        )
    else:
        with check.guard(where):
            keys = opener.keys(opener.tables.batches[entry_set.batch_id], told)
    opened = 0
    with check.guard(where), book.archive(entry_set) as reader:
        # Of what another party sent, some records may never have come here: their entries are known and nothing more.
        whole = entry_set.role == "lawful" and opener.is_ours(entry_set.batch_id)
        gone = opener.erased(entry_set)
        opened = _check_frames(check, some, reader, keys, entry_set, entries, where, whole=whole, gone=gone)
    some.close()
    return opened


def _check_none(check: Check, opener: Opener, entry_set: models.EntrySet, entries: Entries, batch_name: str) -> None:
    # A held set made of nothing but lawful rows points into the archive of the lawful set.
    if entry_set.role == "held" or not entry_set.size:
        return
    where = f"{entry_set.entries_file} · {batch_name}"
    if bool((entries.frames != NO_FRAME).any()):
        check.broken(
            "store.archive_unnamed",
            "条目文件称记录已归档，台账库却没有归档文件的登记",
            "the entry file says its records are archived, and the store names no archive",
            where,
        )
        return
    told = opener.tables.descriptors.get(entry_set.batch_id)
    known = None
    if told is not None and (told.kind == "snapshot" or among(entries.key_tags, opener.erased(entry_set)).all()):
        # A snapshot repeats what other batches archive; of a batch whose records were all erased nothing is left.
        return
    with check.guard(where):
        known = None if told is None else opener.workspace.catalog(told.catalog_id)
    if known is not None and known.archive and opener.is_ours(entry_set.batch_id):
        check.broken(
            "store.archive_unnamed",
            "目录要求归档，该合法条目集却没有归档",
            "the catalog asks for an archive, and this lawful set has none",
            where,
        )


def _check_frames(
    check: Check,
    some: _Some,
    reader: ArchiveReader,
    keys: CatalogKeys | None,
    entry_set: models.EntrySet,
    entries: Entries,
    where: str,
    *,
    whole: bool,
    gone: frozenset[bytes],
) -> int:
    index = EntryIndex(entries.entries)
    lawful = entry_set.role == "lawful"
    found = np.zeros(len(entries.entries), np.bool_)
    opened = 0
    for number in range(reader.frames):
        try:
            frame = reader.frame(number)
        except LedgerError as error:
            check.take(error, f"{where} · frame {number}")
            # Its records are accounted for: their loss is this damage, not one more for each.
            found |= entries.frames == number
            continue
        for row in np.flatnonzero(among(frame.key_tags, gone)).tolist():
            tag = frame.key_tags[row].tobytes().hex()
            some.broken(
                "store.erased_there",
                f"key_tag {tag} 的记录已登记为删除，第 {number} 帧却仍有其原文；请再次执行 duizhang erase",
                f"the record with key_tag {tag} is recorded as erased, and frame {number} still holds it; run duizhang erase again",
                f"frame {number}",
            )
        positions = index.lookup(np.ascontiguousarray(frame.key_tags)).tolist()
        for row, (position, data) in enumerate(zip(positions, frame.canonical, strict=True)):
            if position < 0 or int(entries.frames[position]) != number or found[position]:
                if lawful:
                    tag = frame.key_tags[row].tobytes().hex()
                    some.broken(
                        "store.archive_stray",
                        f"第 {number} 帧的记录（key_tag {tag}）没有对应的条目",
                        f"the record with key_tag {tag} in frame {number} has no entry",
                        f"frame {number}",
                    )
                continue
            found[position] = True
            opened += 1
            if keys is not None:
                _check_record(some, keys, data, entries, position)
    lost = (entries.frames != NO_FRAME) & ~found
    if whole:
        lost |= (entries.frames == NO_FRAME) & ~among(entries.key_tags, gone)
    for position in np.flatnonzero(lost).tolist():
        tag = entries.key_tags[position].tobytes().hex()
        some.broken(
            "store.archive_record_missing",
            f"第 {position} 条（key_tag {tag}）没有归档记录",
            f"entry {position} (key_tag {tag}) has no archived record",
            f"entry {position}",
        )
    return opened


def _check_record(some: _Some, keys: CatalogKeys, data: bytes, entries: Entries, position: int) -> None:
    entry = entries.entries[position].tobytes()
    where = f"entry {position}"
    commitment = keys.commit(data)[2]
    if not hmac.compare_digest(commitment, entry[32:]):
        some.broken(
            "store.archive_commitment",
            f"第 {position} 条：归档内容不能打开上链的承诺",
            f"entry {position}: the archived bytes do not open the anchored commitment",
            where,
        )
        return
    try:
        opened = open_canonical(keys.catalog, data)
    except LedgerError as error:
        some.broken(
            "store.archive_form", f"第 {position} 条：{error.zh}", f"entry {position}: {error.en} ({error.code})", where
        )
        return
    if (opened.kind == "withdrawal") != bool(entries.withdrawn[position]):
        some.broken(
            "store.withdrawal_flag",
            f"第 {position} 条：条目文件的撤回标记与归档内容不符",
            f"entry {position}: the entry file's withdrawal flag contradicts the archived bytes",
            where,
        )
    tags = keys.key_tag(record_key(keys.catalog, opened.values))
    subject = keys.catalog.subject
    if opened.kind == "record":
        # A withdrawal takes its subject tag from an earlier version (F4): it cannot be told from these bytes alone.
        tags = keys.subject_tag(None if subject is None else opened.values[subject.field]) + tags
    if not entry[:32].endswith(tags):
        some.broken(
            "store.entry_tags",
            f"第 {position} 条：标签不是归档记录的主键与主体所得",
            f"entry {position}: its tags are not those of the archived record's key and subject",
            where,
        )
