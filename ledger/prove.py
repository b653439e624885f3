"""Proof files of presence (formats F8): one record, or one withdrawal, of a batch this party is a side of; and the trust file.

Nothing is written but the files asked for. A proof is handed out only for confirmed anchors, and only after the steps of a
verification that need no chain were passed with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ledger import proof as proofs
from ledger.anchor.link import Link
from ledger.batch import tiles
from ledger.batch.book import KnownBatch, StreamLedger
from ledger.batch.history import Version
from ledger.batch.job import Job
from ledger.batch.keyarg import key_label, parse_key_argument
from ledger.batch.stream import StreamId
from ledger.catalog import Catalog
from ledger.chain.finality import final_height
from ledger.chain.registry import AnchorRecord
from ledger.descriptor import batch_number
from ledger.errors import ChainError, InputError, LedgerError, NotBuiltError
from ledger.keys import CatalogKeys, digest
from ledger.proof import AnchorHint, ProofFile, TrustFile, dump_proof
from ledger.record import Opened, Refusal, normal, record_key


@dataclass(frozen=True)
class Proved:
    """One proof. `data` are the bytes of the file; `notes` (zh, en) say what limits it or what it was chosen from."""

    key: Mapping[str, str]
    key_tag: bytes
    batch: KnownBatch
    proof: ProofFile
    opened: Opened
    data: bytes
    notes: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Held:
    """A series of a stream that this party is a side of, loaded. Of an older series `left` are the tags that bridges left behind: what
    else it holds has its latest version in a later one. None: the present series."""

    ledger: StreamLedger
    keys: CatalogKeys
    left: frozenset[bytes] | None = None

    def tag_of(self, catalog: Catalog, values: Mapping[str, str]) -> bytes | None:
        """The key tag here of the key that `catalog` names; None if this series' version of the catalog has no such key."""
        own = self.keys.catalog
        if set(own.key) != set(catalog.key):
            return None
        try:
            named = {name: normal(values[name], own.by_name[name], own) for name in own.key}
        except Refusal:
            return None
        return self.keys.key_tag(record_key(own, named))


@dataclass(frozen=True)
class _Found:
    """One version of a key, and where it stands."""

    held: Held
    batch: KnownBatch
    version: Version

    @property
    def position(self) -> int:
        """Where the batch stands among all that was ever anchored."""
        return self.batch.announced.sent[0].position


def prove(job: Job, catalog: Catalog, keys: Sequence[str], *, batch: str | None) -> list[Proved]:
    """A proof for each of the named keys (repeats once), in the order given; all of them or an error.

    Without `batch` the live version is proved, of several streams that of the one whose batch was anchored last; with a batch
    number whatever that batch holds, a withdrawal too. InputError `prove.*`, `key.*`; ChainError `prove.not_confirmed`.
    """
    height = confirmed_height(job.link)
    # Read again: an anchor at or below that height was safe before this reading began, whatever happened to the node since.
    job.refresh()
    number = None if batch is None else batch_number(batch)
    if number is not None:
        _refuse_snapshot(job, catalog, number)
    held, unread = load_sides(job, catalog)
    proved: dict[bytes, Proved] = {}
    for text in keys:
        values = parse_key_argument(catalog, text)
        name = record_key(catalog, values)
        if name not in proved:
            found, notes = _choose(catalog, values, held, unread, number)
            proved[name] = _proof(job, catalog, values, found, height, notes)
    return list(proved.values())


def export_trust(job: Job) -> TrustFile:
    """The trust file of the workspace's chain: its checked identity, and each party's address as far as it is confirmed."""
    height = confirmed_height(job.link)
    job.refresh()
    identity = job.link.identity
    held = {name: [h.account for h in tenures if h.block <= height] for name, tenures in job.view.parties.items()}
    return TrustFile(
        chain_id=identity.chain_id,
        contract=identity.contract,
        code_sha256=identity.code_sha256,
        block_number=identity.block.number,
        block_hash=identity.block.hash,
        parties={name: accounts[-1] for name, accounts in held.items() if accounts},
    )


def confirmed_height(link: Link) -> int:
    """The newest block whose anchors are confirmed: final, and on the embedded chain on disk (design section 6)."""
    height = final_height(link.rpc, link.finality)
    if link.local is None:
        return height
    saved = link.local.status().saved_block
    return min(height, -1 if saved is None else saved)


def load_sides(job: Job, catalog: Catalog) -> tuple[list[Held], list[tuple[StreamId, LedgerError]]]:
    """The catalog's streams that this party is a side of; and those that cannot be read here, with the reason."""
    held: list[Held] = []
    unread: list[tuple[StreamId, LedgerError]] = []
    for stream in job.streams.of_catalog(catalog.id):
        if job.party not in (stream.sender, stream.receiver) or not job.streams.batches(stream):
            # Of a stream of nothing but snapshots no version is known.
            continue
        try:
            held += _series_held(job, stream)
        except (InputError, NotBuiltError) as error:
            # Anybody registered can announce a batch to us under a key we never had: it must not stop proofs of other streams.
            unread.append((stream, error))
    return held, unread


def _series_held(job: Job, stream: StreamId) -> list[Held]:
    """The series of a stream, the present one first."""
    arranged, current = job.series(stream), job.current(stream)
    job.check_strays(arranged)
    if current is None:
        return []
    ledger, keys = job.ledger(stream, current)
    # Of what comes after a bridge that was not taken over nothing is known here.
    waiting = (batch for series in arranged.series[current.number + 1 :] for batch in series.batches)
    held = [Held(replace(ledger, open=(*ledger.open, *waiting)), keys)]
    for series in reversed(arranged.series[: current.number]):
        try:
            its = job.keys(stream, series)
        except InputError:
            # Told by the notes of the present one.
            continue
        then = job.book.load_stream(job.streams, stream, its.catalog, its, series)
        left = next((it.tags for it in ledger.left if it.keys == its), frozenset())
        held.append(Held(then, its, left))
    return held


def _refuse_snapshot(job: Job, catalog: Catalog, number: str) -> None:
    """A snapshot brings no version of its own: a record is proved from the batch that carries it."""
    sides = [it for it in job.streams.of_catalog(catalog.id) if job.party in (it.sender, it.receiver)]
    kinds = {found.descriptor.kind for it in sides if (found := job.streams.find(it, number)) is not None}
    if kinds == {"snapshot"}:
        raise InputError(
            "prove.snapshot",
            f"{number} 是快照，只汇总各批次：单条记录请不用 --batch 或指明其所在批次；某主体的全部记录请用 --subject",
            f"{number} is a snapshot, it repeats what batches carry: prove a record without --batch or from its own batch, all records on a "
            "subject with --subject",
            "--batch",
        )


def _choose(
    catalog: Catalog,
    values: Mapping[str, str],
    held: Sequence[Held],
    unread: Sequence[tuple[StreamId, LedgerError]],
    number: str | None,
) -> tuple[_Found, list[tuple[str, str]]]:
    """The version to prove, with what has to be said about the choice."""
    found = [it for each in held for it in _find(each, catalog, values, number)]
    if not found:
        raise _not_found(catalog, values, held, unread, number)
    wanted = found if number is not None else [it for it in found if not it.version.withdrawn]
    label = key_label(catalog, values)
    if not wanted:
        at = max(found, key=lambda it: it.position).batch.announced.descriptor.batch
        raise InputError(
            "prove.withdrawn",
            f"记录 {label} 已被批次 {at} 撤回，没有有效版本；如要证明该撤回或更早的版本，请用 --batch 指明批次",
            f"record {label} was withdrawn by batch {at}, no version is live; to prove the withdrawal or an earlier version "
            "name its batch with --batch",
            "KEY",
        )
    chosen = max(wanted, key=lambda it: it.position)
    notes: list[tuple[str, str]] = []
    others = [it for it in found if it is not chosen]
    if others:
        listed_zh = "、".join(f"{_route(it)} 批次 {it.batch.announced.descriptor.batch}" for it in others)
        listed_en = ", ".join(f"{_route(it)} batch {it.batch.announced.descriptor.batch}" for it in others)
        notes.append(
            (
                f"{label} 不止一个数据流持有，取最后上链的 {_route(chosen)}；另有 {listed_zh}",
                f"several streams hold {label}; taken from {_route(chosen)}, anchored last; also held by {listed_en}",
            )
        )
    if number is None:
        notes += _later_unknown(chosen, label)
    else:
        notes += _outlived(chosen, label)
    for stream, error in unread:
        notes.append(
            (
                f"数据流 {stream.sender}→{stream.receiver or '-'} 未查：{error.zh}",
                f"stream {stream.sender}→{stream.receiver or '-'} was not looked at: {error.en}",
            )
        )
    return chosen, notes


def _find(held: Held, catalog: Catalog, values: Mapping[str, str], number: str | None) -> list[_Found]:
    tag = held.tag_of(catalog, values)
    ledger = held.ledger
    if tag is None or (number is None and held.left is not None and tag not in held.left):
        return []
    versions = ledger.history.of_tag(tag)
    if number is None:
        versions = versions[-1:]
    found = [_Found(held, ledger.known[version.batch], version) for version in versions]
    return [it for it in found if number is None or it.batch.announced.descriptor.batch == number]


def _later_unknown(chosen: _Found, label: str) -> list[tuple[str, str]]:
    later = [
        batch.descriptor.batch
        for batch in chosen.held.ledger.open
        if not batch.sent or batch.sent[0].position > chosen.position
    ]
    if not later:
        return []
    return [
        (
            f"批次 {'、'.join(later)} 的条目本台账没有，其中可能有 {label} 的更新版本",
            f"the entries of batch {', '.join(later)} are not known here; they may hold a later version of {label}",
        )
    ]


def _outlived(chosen: _Found, label: str) -> list[tuple[str, str]]:
    latest = chosen.held.ledger.history.of_tag(chosen.version.entry[16:32])[-1]
    if latest.batch == chosen.version.batch:
        return []
    at = chosen.held.ledger.numbers[latest.batch]
    zh, en = ("撤回", "withdrawal") if latest.withdrawn else ("更新版本", "later version")
    return [(f"这不是 {label} 的最新状态：批次 {at} 有其{zh}", f"not the latest of {label}: batch {at} holds a {en}")]


def _not_found(
    catalog: Catalog,
    values: Mapping[str, str],
    held: Sequence[Held],
    unread: Sequence[tuple[StreamId, LedgerError]],
    number: str | None,
) -> LedgerError:
    label = key_label(catalog, values)
    if unread:
        # It may be there: this answer is not known, and what is missing to know it is.
        return unread[0][1]
    without = [batch.descriptor.batch for it in held for batch in it.ledger.open]
    if number is not None and number in without:
        return InputError(
            "prove.entries_unknown",
            f"批次 {number} 的条目本台账没有（内容与发送方上链不符或尚未接收），无法从中取证",
            f"the entries of batch {number} are not known here (what arrived differs from the sender's anchor, or nothing did): "
            "nothing of it can be proved",
            "--batch",
        )
    numbers = [name for it in held for name in it.ledger.numbers]
    if number is not None and number not in numbers:
        return InputError(
            "prove.no_batch",
            f"目录 {catalog.id} 中没有本方参与的批次 {number}",
            f"there is no batch {number} of {catalog.id} that this party is a side of",
            "--batch",
        )
    where_zh = f"批次 {number}" if number is not None else "本方参与的任何已上链批次"
    where_en = f"batch {number}" if number is not None else "any anchored batch that this party is a side of"
    more_zh = f"（批次 {'、'.join(without)} 的条目本台账没有，未能查找）" if without else ""
    more_en = f" (the entries of batch {', '.join(without)} are not known here)" if without else ""
    return InputError(
        "prove.unknown_key",
        f"{where_zh}中没有记录 {label}{more_zh}",
        f"record {label} is not in {where_en}{more_en}",
        "KEY",
    )


def _proof(
    job: Job,
    catalog: Catalog,
    values: Mapping[str, str],
    found: _Found,
    height: int,
    notes: Sequence[tuple[str, str]],
) -> Proved:
    batch, version, keys = found.batch, found.version, found.held.keys
    # The version that the batch was anchored under.
    catalog = keys.catalog
    if version.entry[16:32] in found.held.ledger.erased:
        label = key_label(catalog, values)
        raise InputError(
            "prove.erased",
            f"记录 {label} 的原文已在本方删除，链上承诺仍在但已无法打开：不能出具存证文件",
            f"record {label} was erased here: its commitment stays anchored and nobody here can open it, so there is nothing to prove with",
            "KEY",
        )
    with job.book.opener([batch], catalog, keys) as open_version:
        data = open_version(Version(0, version.index, version.withdrawn, version.entry))
    if data is None:
        raise InputError(
            "prove.not_archived",
            f"批次 {batch.announced.descriptor.batch} 没有存档该记录的原文（目录关闭了归档，或该记录未曾入库），无法出具存证文件",
            f"the canonical bytes of this record in batch {batch.announced.descriptor.batch} are not archived (the catalog "
            "switches the archive off, or the record never landed here): there is nothing to open",
            catalog.id,
        )
    link = job.link
    made = ProofFile(
        catalog=catalog,
        descriptor=batch.announced.descriptor,
        record=data,
        salt=keys.salt(digest(data)),
        entry=version.entry,
        index=version.index,
        path=tuple(tiles.paths(batch.entries, [version.index], batch.entry_set.entries_file)[0]),
        chain_id=link.identity.chain_id,
        contract=link.identity.contract,
        anchors=_hints(batch, height),
    )
    proofs.check_catalog(made)
    opened = proofs.check_record(made)
    proofs.check_commitment(made)
    proofs.check_subject_tag(made, opened)
    proofs.check_path(made, batch.entry_set.size, bytes.fromhex(batch.entry_set.root))
    personal = [name for name, value in opened.values.items() if value is not None and catalog.by_name[name].personal]
    told = list(notes)
    if personal:
        told.append(
            (
                f"存证文件以明文含有个人信息（字段 {'、'.join(personal)}），请按个人信息保管和交付",
                f"the proof file holds personal data in clear (fields {', '.join(personal)}): keep and hand it over as such",
            )
        )
    return Proved(values, version.entry[16:32], batch, made, opened, dump_proof(made), tuple(told))


def _hints(batch: KnownBatch, height: int) -> tuple[AnchorHint, ...]:
    """The confirmed last anchors whose size and root are those of the entries: the sender's always, the receiver's if equal."""
    announced = batch.announced
    last = announced.sent[-1]
    if last.block > height:
        raise ChainError(
            "prove.not_confirmed",
            f"批次 {announced.descriptor.batch} 的上链（区块 {last.block}）尚未确认，已确认到区块 {height}；请稍后再出具",
            f"the anchor of batch {announced.descriptor.batch} (block {last.block}) is not confirmed yet, block {height} is: "
            "ask for the proof later",
        )
    anchors: list[AnchorRecord] = [last]
    if announced.received:
        held = announced.received[-1]
        if (held.size, held.root) == (last.size, last.root) and held.block <= height:
            anchors.append(held)
    return tuple(AnchorHint(it.party, it.sequence, it.revision, it.block) for it in anchors)


def _route(found: _Found) -> str:
    stream = found.held.ledger.stream
    return f"{stream.sender}→{stream.receiver}" if stream.receiver else stream.sender
