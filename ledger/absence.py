"""Proof files about a subject (formats F8): all records on a company in an anchored snapshot, or that there are none.

Made from a snapshot that this party is a side of and whose entries it knows; only for public subjects, and handed out only after the
steps of a verification that need no chain were passed with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ledger.batch import tiles
from ledger.batch.fold import open_entries
from ledger.batch.history import Bytes2D
from ledger.batch.job import Job
from ledger.batch.stream import AnnouncedBatch
from ledger.catalog import Catalog
from ledger.chain.registry import AnchorRecord
from ledger.descriptor import batch_number
from ledger.errors import ChainError, InputError
from ledger.keys import NO_SUBJECT, CatalogKeys, digest, public_subject_tag
from ledger.proof import AnchorHint, check_catalog
from ledger.prove import confirmed_height
from ledger.record import Opened, Refusal, normal
from ledger.store import models
from ledger.store.entryfile import Entries
from ledger.subject_proof import (
    MAX_RECORDS,
    Place,
    Shown,
    SubjectProof,
    check_places,
    check_records,
    check_subject,
    dump_subject,
)
from ledger.workspace import OWN


@dataclass(frozen=True)
class ProvedSubject:
    """One proof. `data` are the bytes of the file; `records` are all on the subject, none if there are none; `notes` (zh, en) limit it."""

    snapshot: AnnouncedBatch
    subject: str
    records: tuple[Opened, ...]
    unnamed: int
    vouching: tuple[str, ...]
    data: bytes
    notes: tuple[tuple[str, str], ...]


def prove_subject(
    job: Job, catalog: Catalog, code: str, *, party: str | None = None, batch: str | None = None
) -> ProvedSubject:
    """A proof about the subject `code`, from the newest snapshot whose entries are known here, or the one numbered `batch`; `party`
    picks the stream that is shared with it.

    InputError `prove.subject_*` for a subject of which nothing can be proved, `prove.no_snapshot`, `prove.not_archived`; ChainError
    `prove.not_confirmed`.
    """
    subject = _public(catalog, code)
    height = confirmed_height(job.link)
    job.refresh()
    snapshot, entry_set, anchors = _snapshot(job, catalog, party, batch)
    confirmed = [record for record in anchors if record.block <= height]
    if not confirmed:
        raise ChainError(
            "prove.not_confirmed",
            f"快照 {snapshot.descriptor.batch} 的上链（区块 {anchors[0].block}）尚未确认，已确认到区块 {height}；请稍后再出具",
            f"the anchor of snapshot {snapshot.descriptor.batch} (block {anchors[0].block}) is not confirmed yet, block {height} is: ask "
            "for the proof later",
        )
    keys = _keys(job, catalog, snapshot)
    # Its tiles fold to the anchored root; of the entries only those are relied on whose paths lead there, neighbours included.
    held = job.book.read_set(entry_set, by_tiles=True)
    entries = held.entries
    tag = public_subject_tag(catalog, subject)
    first, after = _range(entries, tag)
    if after - first > MAX_RECORDS:
        raise InputError(
            "prove.subject_records",
            f"该主体有 {after - first} 条记录，一份存证文件至多 {MAX_RECORDS} 条",
            f"there are {after - first} records on the subject, a proof file holds at most {MAX_RECORDS}",
            "--subject",
        )
    named = _range(entries, NO_SUBJECT)[1]
    made = _proof(job, catalog, snapshot, held, entry_set.entries_file, (first, after), named, subject, keys, confirmed)
    check_catalog(made)
    opened = check_records(made, check_subject(made))
    size, root = confirmed[0].size, bytes.fromhex(confirmed[0].root)
    unnamed = check_places(made, tag, size, root)
    return ProvedSubject(
        snapshot,
        subject,
        opened,
        unnamed,
        tuple(record.party for record in confirmed),
        dump_subject(made),
        tuple(_notes(job, catalog, snapshot, confirmed, opened, unnamed)),
    )


def _public(catalog: Catalog, code: str) -> str:
    """The subject in normal form; refused unless its tag is one that everybody can compute."""
    subject = catalog.subject
    if subject is None:
        raise InputError(
            "prove.subject_none",
            f"目录 {catalog.id} 没有主体字段，无从证明某主体的记录",
            f"catalog {catalog.id} declares no subject: nothing can be proved about one",
            catalog.id,
        )
    try:
        value = normal(code, catalog.by_name[subject.field], catalog)
    except Refusal as refusal:
        raise InputError(
            "prove.subject_form", f"主体：{refusal.zh}", f"subject: {refusal.en}", "--subject"
        ) from refusal
    if value is None:
        raise InputError("prove.subject_form", "主体为空", "the subject is empty", "--subject")
    if not catalog.is_public(value):
        why_zh = (
            "该目录的主体受保护"
            if subject.visibility != "public"
            else "该代码不符合公开主体的式样（如自然人、个体工商户）"
        )
        why_en = (
            "the catalog protects its subjects"
            if subject.visibility != "public"
            else "the code is not of the form of a public subject"
        )
        raise InputError(
            "prove.subject_protected",
            f"不能就该主体出具齐全或没有记录的证明：{why_zh}；其标签由密钥计算，审计人无从核对（格式 F4、F8）",
            f"no such proof for this subject: {why_en}; its tag is made with a key, and no auditor could check it (formats F4, F8)",
            "--subject",
        )
    return value


def _snapshot(
    job: Job, catalog: Catalog, party: str | None, batch: str | None
) -> tuple[AnnouncedBatch, models.EntrySet, list[AnchorRecord]]:
    """The snapshot to prove from, its entries as known here, and the last anchors that have just these."""
    number = None if batch is None else batch_number(batch)
    found: list[tuple[AnnouncedBatch, models.EntrySet, list[AnchorRecord]]] = []
    unknown: list[str] = []
    for stream in job.streams.of_catalog(catalog.id):
        sides = {stream.sender, stream.receiver}
        if job.party not in sides or (party is not None and party not in sides - {job.party}):
            continue
        for snapshot in job.streams.snapshots(stream):
            if number is not None and snapshot.descriptor.batch != number:
                continue
            held = _held(job, snapshot)
            if held is None:
                unknown.append(snapshot.descriptor.batch)
            else:
                found.append((snapshot, *held))
    if not found:
        known_zh = f"（快照 {'、'.join(unknown)} 的条目本台账没有）" if unknown else ""
        known_en = f" (the entries of {', '.join(unknown)} are not known here)" if unknown else ""
        raise InputError(
            "prove.no_snapshot",
            f"目录 {catalog.id} 没有可用的快照{known_zh}；请先 duizhang snapshot {catalog.id}（发给他方的加 --to，收自他方的加 --from）",
            f"there is no snapshot of {catalog.id} to prove from{known_en}; take one first: duizhang snapshot {catalog.id} (--to or --from "
            "for a stream shared with another party)",
            "--batch" if number is not None else catalog.id,
        )
    return max(found, key=lambda it: max(record.position for record in it[2]))


def _held(job: Job, snapshot: AnnouncedBatch) -> tuple[models.EntrySet, list[AnchorRecord]] | None:
    with job.store.read() as session:
        sets = [
            *job.book.sets(session, snapshot.batch_id, "lawful"),
            *job.book.sets(session, snapshot.batch_id, "held"),
        ]
    last = [claims[-1] for claims in (snapshot.sent, snapshot.received) if claims]
    for record in last:
        chosen = next((it for it in sets if (it.size, it.root) == (record.size, record.root)), None)
        if chosen is not None:
            same = [it for it in last if (it.size, it.root) == (record.size, record.root)]
            return chosen, same
    return None


def _keys(job: Job, catalog: Catalog, snapshot: AnnouncedBatch) -> CatalogKeys:
    stream, told = snapshot.stream, snapshot.descriptor
    if told.catalog_digest != catalog.digest.hex():
        raise InputError(
            "prove.other_catalog",
            f"快照 {told.batch} 按目录 {told.catalog}（摘要 {told.catalog_digest[:16]}…）上链，现有目录不同；请重新快照",
            f"snapshot {told.batch} was anchored under {told.catalog} (digest {told.catalog_digest[:16]}…), the catalog here is another: "
            "take a new snapshot",
            catalog.id,
        )
    other = OWN if not stream.receiver else stream.receiver if stream.sender == job.party else stream.sender
    return job.workspace.key_by_id(other, told.key_id).for_catalog(catalog)


def _range(entries: Bytes2D, tag: bytes) -> tuple[int, int]:
    """First index of a subject tag among sorted entries, and the index after its last."""
    tags = np.ascontiguousarray(entries[:, :16]).view("V16").reshape(-1)
    low, high = 0, len(tags)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if tags[middle].tobytes() < tag else (low, middle)
    first = low
    high = len(tags)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if tags[middle].tobytes() <= tag else (low, middle)
    return first, low


def _proof(
    job: Job,
    catalog: Catalog,
    snapshot: AnnouncedBatch,
    held: Entries,
    where: str,
    span: tuple[int, int],
    named: int,
    subject: str,
    keys: CatalogKeys,
    anchors: Sequence[AnchorRecord],
) -> SubjectProof:
    entries = held.entries
    size = len(entries)
    first, after = span
    wanted = list(range(first, after))
    sides = {"left": first - 1, "right": after, "last": named - 1, "next": named}
    indices = [*wanted, *(at for at in sides.values() if 0 <= at < size)]
    paths = tiles.paths(held, indices, where)
    places: Mapping[int, Place] = {
        at: Place(entries[at].tobytes(), at, tuple(path)) for at, path in zip(indices, paths, strict=True)
    }
    batches = job.streams.all_batches(snapshot.stream)
    records = open_entries(job.book, batches, catalog, keys, entries[first:after])
    shown: list[Shown] = []
    for at, canonical in zip(wanted, records, strict=True):
        if canonical is None:
            raise InputError(
                "prove.not_archived",
                f"快照 {snapshot.descriptor.batch} 中该主体的一条记录（标签 {entries[at, 16:32].tobytes().hex()}）的原文不在归档中"
                "（未曾入库、已删除，或目录关闭了归档），无法证明齐全",
                f"a record on this subject in {snapshot.descriptor.batch} (key tag {entries[at, 16:32].tobytes().hex()}) is not archived (it "
                "never landed, was erased, or the catalog switches the archive off): completeness cannot be shown",
                "--subject",
            )
        shown.append(Shown(places[at], canonical, keys.salt(digest(canonical))))
    link = job.link
    return SubjectProof(
        catalog=catalog,
        descriptor=snapshot.descriptor,
        subject=subject,
        records=tuple(shown),
        left=places.get(sides["left"]),
        right=places.get(sides["right"]),
        last_unnamed=places.get(sides["last"]),
        first_named=places.get(sides["next"]),
        chain_id=link.identity.chain_id,
        contract=link.identity.contract,
        anchors=tuple(AnchorHint(it.party, it.sequence, it.revision, it.block) for it in anchors),
    )


def _notes(
    job: Job,
    catalog: Catalog,
    snapshot: AnnouncedBatch,
    anchors: Sequence[AnchorRecord],
    opened: Sequence[Opened],
    unnamed: int,
) -> list[tuple[str, str]]:
    notes: list[tuple[str, str]] = []
    number = snapshot.descriptor.batch
    if snapshot.stream.receiver and len(anchors) == 1:
        party = anchors[0].party
        notes.append(
            (
                f"只有 {party} 以这些条目对快照 {number} 上链，属单方陈述；对方 snapshot 之后可由双方作证",
                f"{party} alone anchored snapshot {number} with these entries: a single statement, until the other side anchors it too",
            )
        )
    later = job.streams.superseding(snapshot, anchors[0].party)
    if later:
        notes.append(
            (
                f"{anchors[0].party} 之后已有快照 {later[-1].descriptor.batch}，核验时会指出",
                f"{anchors[0].party} anchored snapshot {later[-1].descriptor.batch} later; the verification will say so",
            )
        )
    if unnamed:
        notes.append(
            (
                f"快照中另有 {unnamed} 条记录没有主体，不在证明之列",
                f"{unnamed} record(s) of the snapshot name no subject and are not covered",
            )
        )
    personal = [
        field.name
        for field in catalog.fields
        if field.personal and any(it.values.get(field.name) is not None for it in opened)
    ]
    if personal:
        notes.append(
            (
                f"存证文件以明文含有个人信息（字段 {'、'.join(personal)}），请按个人信息保管和交付",
                f"the proof file holds personal data in clear (fields {', '.join(personal)}): keep and hand it over as such",
            )
        )
    return notes
