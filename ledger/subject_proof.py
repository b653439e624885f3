"""Proof file of kind `subject` (formats F8): all records on one company in a snapshot, or that there are none.

In go bytes an auditor was given, out come frozen values; docs/formats/proof.md gives every member, type and limit. `check_subject`,
`check_records` and `check_places` say what each step establishes. Size and root come from the chain, never from the file.

The entries of a tree stand in the order of their subject tags. So what stands between two neighbours is all there is about a subject,
once every path leads to one root; and records without subject stand first, so that two places tell how many there are.
"""

from __future__ import annotations

from dataclasses import dataclass

from ledger import jcs, keys, merkle
from ledger.catalog import MAX_TOML, Catalog, from_declaration
from ledger.descriptor import Descriptor, parse_descriptor
from ledger.errors import InputError
from ledger.proof import (
    MAX_PATH,
    PROOF,
    PROOF_FORMAT,
    AnchorHint,
    EvidenceError,
    ProofFile,
    Reader,
    dump_hints,
    parse_proof,
    read_bytes,
    read_hints,
)
from ledger.record import MAX_CANONICAL, Opened, Refusal, normal, open_canonical, record_key

KIND = "subject"
MAX_RECORDS = 100_000
MAX_SUBJECT = 4096


@dataclass(frozen=True)
class Place:
    """One entry of the tree, with its index and the path that is to show it."""

    entry: bytes
    index: int
    path: tuple[bytes, ...]

    @property
    def tag(self) -> bytes:
        """The subject tag of the entry."""
        return self.entry[: keys.TAG_SIZE]


@dataclass(frozen=True)
class Shown:
    """One record on the subject, opened."""

    place: Place
    record: bytes
    salt: bytes


@dataclass(frozen=True)
class SubjectProof:
    """The records on `subject` in the snapshot that `descriptor` names, none if it has none, and what stands on both sides of them.

    `left` and `right` are None where there is nothing on that side. `last_unnamed` is the last entry without subject and
    `first_named` the one after it; None where there is no such entry.
    """

    catalog: Catalog
    descriptor: Descriptor
    subject: str
    records: tuple[Shown, ...]
    left: Place | None
    right: Place | None
    last_unnamed: Place | None
    first_named: Place | None
    chain_id: int
    contract: str
    anchors: tuple[AnchorHint, ...]


def parse_any(data: bytes, where: str = "") -> ProofFile | SubjectProof:
    """A proof file of either kind; InputError as `parse_proof` and `parse_subject` raise."""
    top = jcs.load(data, PROOF, where)
    if isinstance(top, dict) and top.get("kind") == KIND:
        return parse_subject(data, where)
    return parse_proof(data, where)


def parse_subject(data: bytes, where: str = "") -> SubjectProof:
    """The proof file in `data`; InputError `proof.<rule>`, the rules as for `parse_proof`. The records are not opened yet."""
    top = jcs.load(data, PROOF, where)
    read = Reader(PROOF, where)
    read.format(top, PROOF_FORMAT)
    top = read.members(
        top,
        "top",
        "anchors",
        "catalog",
        "chain",
        "descriptor",
        "first_named",
        "format",
        "kind",
        "last_unnamed",
        "left",
        "records",
        "right",
        "subject",
    )
    read.text(top["kind"], "kind", KIND, len(KIND))
    chain = read.members(top["chain"], "chain", "chain_id", "contract")
    return SubjectProof(
        catalog=from_declaration(read_bytes(read, top["catalog"], "catalog", MAX_TOML), where),
        descriptor=parse_descriptor(read_bytes(read, top["descriptor"], "descriptor", 1024), where),
        subject=read.text(top["subject"], "subject", ".+", MAX_SUBJECT),
        records=tuple(_shown(read, it) for it in read.items(top["records"], "records", MAX_RECORDS)),
        left=_optional(read, top["left"], "left"),
        right=_optional(read, top["right"], "right"),
        last_unnamed=_optional(read, top["last_unnamed"], "last_unnamed"),
        first_named=_optional(read, top["first_named"], "first_named"),
        chain_id=read.integer(chain["chain_id"], "chain.chain_id", 1),
        contract=read.address(chain["contract"], "chain.contract"),
        anchors=read_hints(read, top["anchors"]),
    )


def dump_subject(proof: SubjectProof) -> bytes:
    """The bytes of a proof file; what `parse_subject` would refuse is refused here in the same words."""
    members = {
        "anchors": dump_hints(proof.anchors),
        "catalog": proof.catalog.declaration.decode(),
        "chain": {"chain_id": proof.chain_id, "contract": proof.contract},
        "descriptor": proof.descriptor.encode().decode(),
        "first_named": _dumped(proof.first_named),
        "format": PROOF_FORMAT,
        "kind": KIND,
        "last_unnamed": _dumped(proof.last_unnamed),
        "left": _dumped(proof.left),
        "records": [
            {**_members(it.place), "canonical": it.record.decode(), "salt": it.salt.hex()} for it in proof.records
        ],
        "right": _dumped(proof.right),
        "subject": proof.subject,
    }
    data = jcs.dump(members) + b"\n"
    parse_subject(data)
    return data


def check_subject(proof: SubjectProof) -> bytes:
    """The tag of the subject: the batch is a snapshot, and the subject one that is public under its catalog, in normal form.

    EvidenceError `evidence.not_snapshot`, `evidence.subject_none`, `evidence.subject_form`, `evidence.subject_protected`.
    """
    kind = proof.descriptor.kind
    if kind != "snapshot":
        raise EvidenceError(
            "evidence.not_snapshot",
            f"批次的类型是 {kind}，只有快照（snapshot）能证明某主体的记录齐全或没有",
            f"the batch is of kind {kind}; only a snapshot can show that the records on a subject are all there are",
        )
    subject = proof.catalog.subject
    if subject is None:
        raise EvidenceError(
            "evidence.subject_none",
            f"目录 {proof.catalog.name} 没有主体字段",
            f"catalog {proof.catalog.name} has no subject",
        )
    try:
        written = normal(proof.subject, proof.catalog.by_name[subject.field], proof.catalog)
    except Refusal:
        written = None
    if written != proof.subject:
        raise EvidenceError(
            "evidence.subject_form",
            f"主体 {proof.subject[:80]!a} 不是规范形式",
            f"the subject {proof.subject[:80]!a} is not in normal form",
        )
    if not proof.catalog.is_public(proof.subject):
        raise EvidenceError(
            "evidence.subject_protected",
            f"主体 {proof.subject[:80]!a} 在目录 {proof.catalog.name} 中不是公开主体，其标签无从重算",
            f"the subject {proof.subject[:80]!a} is not public under {proof.catalog.name}: its tag cannot be computed",
        )
    return keys.public_subject_tag(proof.catalog, proof.subject)


def check_records(proof: SubjectProof, tag: bytes) -> tuple[Opened, ...]:
    """Every record opens its entry, is on the subject, and is there once; call `check_catalog` and `check_subject` before.

    InputError `canonical.<rule>`; EvidenceError `evidence.commitment`, `evidence.other_subject`, `evidence.snapshot_withdrawal`,
    `evidence.record_twice`.
    """
    opened: list[Opened] = []
    seen: set[bytes] = set()
    field = "" if proof.catalog.subject is None else proof.catalog.subject.field
    for number, shown in enumerate(proof.records):
        it = open_canonical(proof.catalog, shown.record, f"records[{number}]")
        if it.kind != "record":
            raise EvidenceError(
                "evidence.snapshot_withdrawal", "快照批次不含撤回", "a snapshot holds no withdrawal; this opens one"
            )
        computed = keys.commitment(keys.digest(shown.record), shown.salt)
        if computed != shown.place.entry[2 * keys.TAG_SIZE :]:
            raise EvidenceError(
                "evidence.commitment",
                f"第 {number + 1} 条记录的原文和盐打不开其条目",
                f"bytes and salt of record {number + 1} do not open its entry",
            )
        if it.values[field] != proof.subject or shown.place.tag != tag:
            raise EvidenceError(
                "evidence.other_subject",
                f"第 {number + 1} 条记录的主体不是 {proof.subject}，或其条目带的不是该主体的标签",
                f"record {number + 1} is not on {proof.subject}, or its entry does not carry that subject's tag",
            )
        name = record_key(proof.catalog, it.values)
        if name in seen:
            raise EvidenceError(
                "evidence.record_twice",
                f"第 {number + 1} 条记录的主键已出现过",
                f"record {number + 1} repeats a record key",
            )
        seen.add(name)
        opened.append(it)
    return tuple(opened)


def check_places(proof: SubjectProof, tag: bytes, size: int, root: bytes) -> int:
    """The records are all there are on the subject in the tree of the anchored `size` and `root`; how many have no subject at all.

    EvidenceError `path.*` for a path that does not lead there, `evidence.not_consecutive`, `evidence.left_neighbour`,
    `evidence.right_neighbour`, `evidence.unnamed`, `evidence.size`.
    """
    if size == 0:
        if root != merkle.EMPTY_ROOT or _all_places(proof):
            raise EvidenceError(
                "evidence.size",
                "上链的快照是空的，文件却列有条目",
                "the anchored snapshot is empty, and the file shows entries",
            )
        return 0
    for place in _all_places(proof):
        _check_path(place, size, root)
    _check_between(proof, tag, size)
    return _unnamed(proof, size)


def _check_between(proof: SubjectProof, tag: bytes, size: int) -> None:
    indices = [shown.place.index for shown in proof.records]
    if indices != list(range(indices[0], indices[0] + len(indices)) if indices else []):
        raise EvidenceError(
            "evidence.not_consecutive",
            f"所列记录的序号 {indices[:8]} 不相连：中间可能有未出示的",
            f"the indices of the records shown, {indices[:8]}, do not follow each other: one may be hidden between",
        )
    if proof.left is None and proof.right is None and not indices:
        raise EvidenceError(
            "evidence.size", "文件没有条目，快照却不是空的", "the file shows no entry, and the snapshot is not empty"
        )
    # What the places say the first index after the left neighbour, and the one before the right one, must be.
    start = indices[0] if indices else (proof.left.index + 1 if proof.left is not None else 0)
    end = start + len(indices)
    if (proof.left.index + 1 if proof.left is not None else 0) != start:
        raise EvidenceError(
            "evidence.left_neighbour",
            "左邻条目不与所列记录相邻（或缺左邻而首条不是第 0 条）",
            "the left neighbour is not next to the records shown (or there is none, and the first is not index 0)",
        )
    if (proof.right.index if proof.right is not None else size) != end:
        raise EvidenceError(
            "evidence.right_neighbour",
            "右邻条目不与所列记录相邻（或缺右邻而末条不是最后一条）",
            "the right neighbour is not next to the records shown (or there is none, and the last is not the last index)",
        )
    if proof.left is not None and not proof.left.tag < tag:
        raise EvidenceError(
            "evidence.left_neighbour",
            "左邻条目的主体标签不小于该主体的标签",
            "the subject tag of the left neighbour is not below the subject's",
        )
    if proof.right is not None and not proof.right.tag > tag:
        raise EvidenceError(
            "evidence.right_neighbour",
            "右邻条目的主体标签不大于该主体的标签",
            "the subject tag of the right neighbour is not above the subject's",
        )


def _unnamed(proof: SubjectProof, size: int) -> int:
    last, first = proof.last_unnamed, proof.first_named
    count = size if first is None else first.index
    holds = (
        (last.index + 1 if last is not None else 0) == count
        and (last is None or last.tag == keys.NO_SUBJECT)
        and (first is None or first.tag != keys.NO_SUBJECT)
    )
    if not holds:
        raise EvidenceError(
            "evidence.unnamed",
            "无主体记录的条数没有证明：末条无主体条目与其后一条不相邻，或标签不符",
            "how many records have no subject is not shown: the last of them and the next entry are not adjacent, or not so tagged",
        )
    return count


def _check_path(place: Place, size: int, root: bytes) -> None:
    try:
        merkle.verify_inclusion(merkle.leaf_hash(place.entry), place.index, size, place.path, root)
    except InputError as error:
        # Well formed in itself, but not of this tree: the anchored size contradicts it.
        raise EvidenceError(error.code, error.zh, error.en, error.where) from error


def _all_places(proof: SubjectProof) -> list[Place]:
    others = (proof.left, proof.right, proof.last_unnamed, proof.first_named)
    return [*(shown.place for shown in proof.records), *(place for place in others if place is not None)]


def _shown(read: Reader, value: object) -> Shown:
    it = read.members(value, "records", "canonical", "entry", "index", "path", "salt")
    return Shown(
        _place(read, it, "records"),
        read_bytes(read, it["canonical"], "records.canonical", MAX_CANONICAL),
        read.hex(it["salt"], "records.salt", 32),
    )


def _optional(read: Reader, value: object, name: str) -> Place | None:
    return None if value is None else _place(read, read.members(value, name, "entry", "index", "path"), name)


def _place(read: Reader, it: dict[str, object], name: str) -> Place:
    return Place(
        read.hex(it["entry"], f"{name}.entry", keys.ENTRY_SIZE),
        read.integer(it["index"], f"{name}.index", 0),
        tuple(
            read.hex(hashed, f"{name}.path", merkle.HASH_SIZE)
            for hashed in read.items(it["path"], f"{name}.path", MAX_PATH)
        ),
    )


def _members(place: Place) -> dict[str, object]:
    return {"entry": place.entry.hex(), "index": place.index, "path": [hashed.hex() for hashed in place.path]}


def _dumped(place: Place | None) -> dict[str, object] | None:
    return None if place is None else _members(place)
