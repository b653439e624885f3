"""Party against party, batch by batch: what each anchored, and which records differ (design sections 3 and 4).

Uses nothing but the chain and our own store. Theirs is known entry by entry where we hold their entries (from a delivered file, an
entry file, or learnt), else by the sketch that came with their anchor; either way the list is certified by their anchored root or it
is called partial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ledger import sketch as sketches
from ledger.batch.book import StreamLedger
from ledger.batch.erasures import erased_tags
from ledger.batch.fold import open_entries
from ledger.batch.job import Job
from ledger.batch.series import Series
from ledger.batch.stream import AnnouncedBatch, StreamId, Streams
from ledger.catalog import Catalog
from ledger.chain.registry import AnchorRecord
from ledger.counterpart.findings import BatchComparison, Notes, PartyComparison, PartyFinding, PartyKind
from ledger.counterpart.learn import KeyOf, key_fields, key_finder, tell
from ledger.counterpart.sketches import their_sketch
from ledger.descriptor import batch_number
from ledger.errors import InputError
from ledger.kernel.sorting import TAG, EntryIndex
from ledger.keys import CatalogKeys
from ledger.reconcile.findings import Verdict
from ledger.record import MASK
from ledger.store import models
from ledger.store.entryfile import NO_FRAME, Entries

__all__ = ["BatchComparison", "PartyComparison", "PartyFinding", "PartyKind", "compare_with"]


@dataclass(frozen=True)
class _Sides:
    """The two entry sets of a batch, as far as they are known; ours with the set it was read from."""

    ours: Entries | None
    our_set: models.EntrySet | None
    difference: sketches.Difference | None
    notes: Notes


def compare_with(job: Job, catalog: Catalog, party: str, *, number: str | None = None) -> PartyComparison:
    """Compare what we and `party` anchored, in both directions, for all batches of the catalog or the one of that number.

    InputError `counterpart.*` where there is nothing between the two, `key.*` without the exchange key.
    """
    if party == job.party:
        raise InputError("counterpart.self", f"{party} 就是本方", f"{party} is this party itself", "--with")
    job.view.address(party)
    wanted = None if number is None else batch_number(number)
    streams = [StreamId(catalog.id, party, job.party), StreamId(catalog.id, job.party, party)]
    streams = [stream for stream in streams if job.streams.all_batches(stream)]
    if not streams or (wanted is not None and all(job.streams.find(stream, wanted) is None for stream in streams)):
        raise InputError(
            "counterpart.nothing",
            f"本方与 {party} 之间没有目录 {catalog.id} 的{'批次 ' + wanted if wanted else '批次'}",
            f"there is no batch {wanted + ' ' if wanted else ''}of {catalog.id} between this party and {party}",
            "--with",
        )
    batches: list[BatchComparison] = []
    for stream in streams:
        found = _compare_stream(job, catalog, stream, party)
        batches += [it for it in found if wanted is None or it.batch.descriptor.batch == wanted]
    identity = job.link.identity
    against = {
        "chain_id": identity.chain_id,
        "contract": identity.contract,
        "block": job.view.block,
        "time": job.view.time,
        "position": job.view.position,
    }
    return PartyComparison(catalog.name, job.party, party, _overall(batches), tuple(batches), against)


def _compare_stream(job: Job, catalog: Catalog, stream: StreamId, party: str) -> list[BatchComparison]:
    with job.store.read() as session:
        erased = {tag.hex() for tag in erased_tags(session, stream)}
    arranged = job.series(stream)
    opened: dict[int, tuple[StreamLedger, CatalogKeys]] = {}
    compared: list[BatchComparison] = []
    sides: list[_Sides] = []
    for batch in job.streams.all_batches(stream):
        ours, theirs = _last(batch.claims(job.party)), _last(batch.claims(party))
        series = arranged.of(batch)
        if series is None:
            sides.append(_Sides(None, None, None, ()))
            compared.append(BatchComparison(batch, Verdict.UNDETERMINED, ours, theirs, notes=(_STRAY,)))
            continue
        if series.number not in opened:
            opened[series.number] = _ledger(job, stream, series)
        ledger, keys = opened[series.number]
        side = _sides(job, batch, ours, theirs, party)
        sides.append(side)
        compared.append(_compare(job, keys.catalog, keys, ledger, batch, side, (ours, theirs)))
    settled = [_settled(compared, sides, at, _later(job.streams, compared, at)) for at in range(len(compared))]
    return [_with_settled(it, found, erased) for it, found in zip(compared, settled, strict=True)]


def _ledger(job: Job, stream: StreamId, series: Series) -> tuple[StreamLedger, CatalogKeys]:
    """A series as far as it is known here: of one whose beginning was not taken over, its keys and no entries."""
    current = job.current(stream)
    if current is None or series.number <= current.number:
        return job.ledger(stream, series)
    keys = job.keys(stream, series)
    return job.book.load_stream(job.streams, stream, keys.catalog, keys, series), keys


def _sides(
    job: Job, batch: AnnouncedBatch, ours: AnchorRecord | None, theirs: AnchorRecord | None, party: str
) -> _Sides:
    if ours is None:
        return _Sides(None, None, None, ())
    we_send = batch.stream.sender == job.party
    our_role: models.Role = "lawful" if we_send else "held"
    their_role: models.Role = "held" if we_send else "lawful"
    our_set = _set_of(job, batch, our_role, ours)
    if our_set is None:
        note = (
            f"本方上链的第 {ours.revision} 版在台账库中没有条目：台账是旧备份或已损坏；请运行 fsck",
            f"the entries of our revision {ours.revision} are not in the store: it is an old backup, or damaged; run fsck",
        )
        return _Sides(None, None, None, (note,))
    entries = job.book.read_set(our_set)
    if theirs is None or (ours.size, ours.root) == (theirs.size, theirs.root):
        return _Sides(entries, our_set, None, ())
    their_set = _set_of(job, batch, their_role, theirs)
    if their_set is not None:
        known = job.book.read_set(their_set)
        return _Sides(entries, our_set, sketches.compare(entries.entries, known.entries), ())
    try:
        sketch = their_sketch(job, batch, theirs, party)
    except InputError as error:
        return _Sides(entries, our_set, None, ((error.zh, error.en),))
    if sketch is None:
        return _Sides(entries, our_set, None, (_NO_SKETCH,))
    difference = sketches.decode(entries.entries, sketch, theirs.size, bytes.fromhex(theirs.root))
    notes = () if difference.certified else (_partial(len(sketch), ours, theirs),)
    return _Sides(entries, our_set, difference, notes)


def _compare(
    job: Job,
    catalog: Catalog,
    keys: CatalogKeys,
    ledger: StreamLedger,
    batch: AnnouncedBatch,
    side: _Sides,
    anchors: tuple[AnchorRecord | None, AnchorRecord | None],
) -> BatchComparison:
    ours, theirs = anchors
    notes = [*side.notes, *_order_notes(batch)]
    if ours is None or theirs is None:
        notes += [
            _silent(record, name)
            for record, name in ((ours, job.party), (theirs, _other(batch, job)))
            if record is None
        ]
        return BatchComparison(batch, Verdict.UNDETERMINED, ours, theirs, notes=tuple(notes))
    if (ours.size, ours.root) == (theirs.size, theirs.root):
        return BatchComparison(batch, Verdict.MATCHED, ours, theirs, certified=True, notes=tuple(notes))
    if side.ours is None or side.our_set is None or side.difference is None:
        # The roots differ, so there are differences; none of them can be named.
        return BatchComparison(batch, Verdict.DIFFERENCES_PARTIAL, ours, theirs, notes=tuple(notes))
    difference = side.difference
    findings = _findings(job, catalog, keys, ledger, batch, side, difference)
    we_send = batch.stream.sender == job.party
    mine, other = _tags(difference.only_ours), _tags(difference.only_theirs)
    both = mine & other
    only_ours, only_theirs = tuple(sorted(mine - both)), tuple(sorted(other - both))
    return BatchComparison(
        batch,
        Verdict.DIFFERENCES if difference.certified else Verdict.DIFFERENCES_PARTIAL,
        ours,
        theirs,
        findings,
        difference.certified,
        only_sender=only_ours if we_send else only_theirs,
        only_receiver=only_theirs if we_send else only_ours,
        differs=tuple(sorted(both)),
        notes=tuple(notes),
    )


def _findings(
    job: Job,
    catalog: Catalog,
    keys: CatalogKeys,
    ledger: StreamLedger,
    batch: AnnouncedBatch,
    side: _Sides,
    difference: sketches.Difference,
) -> tuple[PartyFinding, ...]:
    if side.ours is None or side.our_set is None:
        return ()
    ours = {entry[TAG].tobytes(): entry for entry in difference.only_ours}
    theirs = {entry[TAG].tobytes(): entry for entry in difference.only_theirs}
    we_send = batch.stream.sender == job.party
    with ExitStack() as stack:
        opener = stack.enter_context(job.book.opener(ledger.known, catalog, keys))
        key_of = key_finder(catalog, ledger, opener)
        own = _own_keys(job, catalog, keys, batch, side, difference.only_ours)
        names = {tag: own.get(tag) or key_of(tag) for tag in {**ours, **theirs}}
        withdrawn = _withdrawals(catalog, keys, ledger, batch, side, difference, key_of, we_send=we_send)
    found: list[PartyFinding] = []
    for tag in sorted({**ours, **theirs}):
        mine, other = ours.get(tag), theirs.get(tag)
        if tag in withdrawn:
            kind = PartyKind.NOT_WITHDRAWN
        elif mine is not None and other is not None:
            kind = PartyKind.DIFFERS
        else:
            kind = PartyKind.ONLY_OURS if other is None else PartyKind.ONLY_THEIRS
        values = names[tag]
        shown = None if values is None else {n: MASK if catalog.by_name[n].personal else v for n, v in values.items()}
        found.append(PartyFinding(kind, shown, tag.hex(), _commitment(mine), _commitment(other)))
    return tuple(sorted(found, key=lambda f: (f.key is None, tuple((f.key or {}).values()), f.key_tag)))


def _withdrawals(
    catalog: Catalog,
    keys: CatalogKeys,
    ledger: StreamLedger,
    batch: AnnouncedBatch,
    side: _Sides,
    difference: sketches.Difference,
    key_of: KeyOf,
    *,
    we_send: bool,
) -> set[bytes]:
    """The tags of the sender's entries that are withdrawals, as far as that can be told; against a snapshot, which holds none, of what
    only the receiver has and the stream withdrew."""
    if batch.descriptor.kind == "snapshot":
        sends, holds = difference.only_ours, difference.only_theirs
        sends, holds = (sends, holds) if we_send else (holds, sends)
        tags = {entry[TAG].tobytes() for entry in holds} - {entry[TAG].tobytes() for entry in sends}
        return {tag for tag in tags if (key := ledger.history.find(tag)) >= 0 and not ledger.history.live[key]}
    if we_send:
        if side.ours is None:
            return set()
        at = EntryIndex(side.ours.entries).lookup(np.ascontiguousarray(difference.only_ours[:, TAG]))
        marked = side.ours.withdrawn[at]
        return {entry[TAG].tobytes() for entry, gone in zip(difference.only_ours, marked, strict=True) if gone}
    told = tell(difference.only_theirs, batch, ledger, catalog, keys, key_of)
    return {
        entry[TAG].tobytes() for entry, it in zip(difference.only_theirs, told, strict=True) if it.withdrawn is True
    }


def _own_keys(
    job: Job,
    catalog: Catalog,
    keys: CatalogKeys,
    batch: AnnouncedBatch,
    side: _Sides,
    entries: npt.NDArray[np.uint8],
) -> dict[bytes, Mapping[str, str]]:
    """The keys of our own rows, from the archive of the set that we anchored; of a snapshot from whichever set archives them."""
    if batch.descriptor.kind == "snapshot":
        opened = open_entries(job.book, job.streams.all_batches(batch.stream), catalog, keys, entries)
        named = zip(entries, opened, strict=True)
        return {entry[TAG].tobytes(): key_fields(catalog, data) for entry, data in named if data is not None}
    tags = [entry[TAG].tobytes() for entry in entries]
    if side.ours is None or side.our_set is None or side.our_set.archive_file is None or not tags:
        return {}
    index = EntryIndex(side.ours.entries)
    found: dict[bytes, Mapping[str, str]] = {}
    rows = index.lookup(np.frombuffer(b"".join(tags), np.uint8).reshape(-1, 16))
    with job.book.archive(side.our_set) as reader:
        for tag, row in sorted(zip(tags, rows.tolist(), strict=True), key=lambda it: it[1]):
            frame = int(side.ours.frames[row]) if row >= 0 else NO_FRAME
            if frame != NO_FRAME:
                found[tag] = key_fields(catalog, reader.find(tag, frame).canonical)
    return found


def _later(streams: Streams, compared: Sequence[BatchComparison], at: int) -> list[int]:
    """Which of the compared can settle a difference of the one at `at`: of a batch the later batches; of a snapshot the batches after the
    last it folds, and the later snapshots that fold as much, which speak of every key, carried or not."""
    one = compared[at].batch
    batches = [n for n, it in enumerate(compared) if it.batch.descriptor.kind != "snapshot"]
    if one.descriptor.kind != "snapshot":
        return [n for n in batches if n > at]
    reach = streams.reach(one)
    if not reach:
        return []
    after = [n for n in batches[reach:] if compared[n].batch.sent]
    snapshots = [n for n in range(at + 1, len(compared)) if compared[n].batch.descriptor.kind == "snapshot"]
    return after + [n for n in snapshots if streams.reach(compared[n].batch) >= reach]


def _settled(
    compared: Sequence[BatchComparison], sides: Sequence[_Sides], at: int, later_ones: Sequence[int]
) -> dict[str, AnnouncedBatch]:
    """For each differing key tag of a batch, the first later batch that carries it and on which both sides agree about it."""
    one = compared[at]
    left = {*one.only_sender, *one.only_receiver, *one.differs} if one.certified else set()
    found: dict[str, AnnouncedBatch] = {}
    for later, side in ((compared[n], sides[n]) for n in later_ones):
        if not left or side.ours is None or not later.certified:
            continue
        tags = sorted(left)
        raw = np.frombuffer(bytes.fromhex("".join(tags)), np.uint8).reshape(-1, 16)
        carried = EntryIndex(side.ours.entries).lookup(raw) >= 0
        carried |= later.batch.descriptor.kind == "snapshot"
        wrong = {*later.only_sender, *later.only_receiver, *later.differs}
        for tag, there in zip(tags, carried.tolist(), strict=True):
            if there and tag not in wrong:
                found[tag] = later.batch
                left.discard(tag)
    return found


def _with_settled(one: BatchComparison, settled: Mapping[str, AnnouncedBatch], erased: set[str]) -> BatchComparison:
    findings = tuple(
        replace(
            it,
            settled_by=settled[it.key_tag].descriptor.batch if it.key_tag in settled else None,
            erased=it.key_tag in erased,
        )
        for it in one.findings
    )
    return replace(one, findings=findings, settled={tag: batch.batch_id for tag, batch in settled.items()})


def _overall(batches: Sequence[BatchComparison]) -> Verdict:
    verdicts = {batch.verdict for batch in batches}
    still_open = any(finding.open for batch in batches for finding in batch.findings)
    if Verdict.DIFFERENCES_PARTIAL in verdicts or (still_open and Verdict.UNDETERMINED in verdicts):
        return Verdict.DIFFERENCES_PARTIAL
    if Verdict.UNDETERMINED in verdicts:
        return Verdict.UNDETERMINED
    return Verdict.DIFFERENCES if still_open else Verdict.MATCHED


def _set_of(job: Job, batch: AnnouncedBatch, role: models.Role, record: AnchorRecord) -> models.EntrySet | None:
    with job.store.read() as session:
        sets = job.book.sets(session, batch.batch_id, role)
    return next((it for it in sets if (it.size, it.root) == (record.size, record.root)), None)


def _last(records: Sequence[AnchorRecord]) -> AnchorRecord | None:
    return records[-1] if records else None


def _other(batch: AnnouncedBatch, job: Job) -> str:
    return batch.stream.receiver if batch.stream.sender == job.party else batch.stream.sender


def _tags(entries: npt.NDArray[np.uint8]) -> set[str]:
    return {entry[TAG].tobytes().hex() for entry in entries}


def _commitment(entry: npt.NDArray[np.uint8] | None) -> str | None:
    return None if entry is None else entry[TAG.stop :].tobytes().hex()


def _order_notes(batch: AnnouncedBatch) -> list[tuple[str, str]]:
    notes = []
    if batch.announced_late:
        notes.append(
            (
                "announced_late：发送方晚于接收方首次上链，不算事先宣告",
                "announced_late: the sender anchored only after the receiver had: it was not announced before",
            )
        )
    if batch.revised_after_receipt:
        notes.append(
            (
                "发送方在接收方首次上链之后修订过该批次",
                "the sender revised this batch after the receiver's first anchor",
            )
        )
    return notes


def _silent(record: AnchorRecord | None, name: str) -> tuple[str, str]:
    return f"{name} 尚未对该批次上链", f"{name} has not anchored this batch"


def _partial(cells: int, ours: AnchorRecord, theirs: AnchorRecord) -> tuple[str, str]:
    least = abs(ours.size - theirs.size)
    return (
        f"差异超出差异摘要（{cells} 个单元）所能列出：只确定双方不同，且至少差 {max(least, 1)} 条；所列为部分，未经核实。"
        "请对方 export entries，本方 import entries 后再核对",
        f"more differences than the sketch ({cells} cells) can name: certain is that both differ, by at least {max(least, 1)} entries; what "
        "is listed is a part, and not certified. Ask the other side for its entry file (export entries) and import it",
    )


_STRAY = (
    "该批次按另一目录或密钥上链，其前没有衔接：不属于任何系列，无从比对",
    "this batch was anchored under another catalog or key with no bridge before it: it belongs to no series and cannot be compared",
)
_NO_SKETCH = (
    "对方上链时未带差异摘要：只确定双方不同；请对方 export entries，本方 import entries 后再核对",
    "the other side's anchor came without a sketch: certain is that both differ; ask it for its entry file (export entries) and import it",
)
