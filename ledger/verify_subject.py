"""The steps of a verification that are its own for a proof of all records on a subject, or of none (formats F8)."""

from __future__ import annotations

from ledger.batch.series import arrange
from ledger.chain.registry import AnchorRecord
from ledger.chain.view import time_utc
from ledger.proof import EvidenceError, TrustFile
from ledger.record import Opened, shown
from ledger.subject_proof import SubjectProof, check_places, check_records, check_subject
from ledger.verdict import Steps, SubjectEvidence
from ledger.vouching import Asked, vouching_sides

_SHOWN = 20


def open_records(steps: Steps, proof: SubjectProof) -> tuple[bytes, tuple[Opened, ...]]:
    """The subject's tag and its records, opened: two steps that need no chain."""
    with steps.next("subject") as say:
        tag = check_subject(proof)
        say(f"主体 {proof.subject}，公开标签 {tag.hex()}", f"subject {proof.subject}, public tag {tag.hex()}")
    with steps.next("records") as say:
        opened = check_records(proof, tag)
        say(f"出示 {len(opened)} 条", f"{len(opened)} shown")
        for it in opened[:_SHOWN]:
            values = " ".join(
                f"{field.name}={shown(field, it.values[field.name])}"
                for field in proof.catalog.fields
                if it.values.get(field.name) is not None
            )
            say(values, values)
    return tag, opened


def place_records(
    steps: Steps,
    proof: SubjectProof,
    claimed: tuple[bytes, tuple[Opened, ...]],
    asked: Asked,
    trust: TrustFile,
    node: tuple[str, bool | None],
    require: int,
) -> SubjectEvidence:
    """That the records are all there are in the anchored tree, and as of when."""
    tag, opened = claimed
    unnamed = 0

    def fits(record: AnchorRecord) -> None:
        nonlocal unnamed
        unnamed = check_places(proof, tag, record.size, bytes.fromhex(record.root))

    with steps.next("places") as say:
        vouching = vouching_sides(asked.batch, trust, say, fits, require)
        unnamed = check_places(proof, tag, vouching[0].size, bytes.fromhex(vouching[0].root))
        say(
            f"快照共 {vouching[0].size} 条，其中 {unnamed} 条没有主体",
            f"{vouching[0].size} entries in the snapshot, {unnamed} of them without subject",
        )
    superseded: dict[str, str] = {}
    with steps.next("as_of") as say:
        asked.registry.check_times(asked.events[record] for record in vouching)
        for record in vouching:
            told = f"{record.party} {time_utc(record.time)}"
            say(f"{told}（区块 {record.block}）", f"{told} (block {record.block})")
            later = asked.streams.superseding(asked.batch, record.party)
            if later:
                superseded[record.party] = later[-1].descriptor.batch
                say(
                    f"{record.party} 其后已有快照 {later[-1].descriptor.batch}",
                    f"{record.party} anchored snapshot {later[-1].descriptor.batch} later",
                )
        left_behind = _left_behind(asked)
        if left_behind:
            say(
                f"换版或换钥衔接时有 {left_behind} 条记录未随迁，不在此快照之中",
                f"{left_behind} record(s) were left behind by a bridge and are not in this snapshot",
            )
        if proof.descriptor.period:
            say(f"期间 {proof.descriptor.period}", f"period {proof.descriptor.period}")
        view = asked.view
        say(f"读到区块 {view.block}（{time_utc(view.time)}）", f"read up to block {view.block} ({time_utc(view.time)})")
    return SubjectEvidence(
        proof, opened, asked.batch, vouching, unnamed, superseded, left_behind, asked.view.block, asked.view.time, *node
    )


def _left_behind(asked: Asked) -> int:
    """How many records the bridges up to the snapshot's series did not carry; EvidenceError `evidence.no_series` for one of no series.

    Else a sender could show a company clean from a snapshot under a version of the catalog that nothing was ever bridged to.
    """
    arranged = arrange(asked.streams, asked.batch.stream)
    series = arranged.of(asked.batch)
    if series is None:
        told = asked.batch.descriptor
        raise EvidenceError(
            "evidence.no_series",
            f"快照按目录 {told.catalog}、密钥 {told.key_id} 上链，与数据流不同，其前又没有衔接：不属于该数据流的任何系列",
            f"the snapshot was anchored under {told.catalog} and key {told.key_id}, which are not the stream's, and no bridge came before it: it "
            "belongs to no series of the stream",
        )
    bridges = [it.bridge for it in arranged.series[: series.number + 1] if it.bridge is not None]
    # Of all revisions those that say most: a half that was made smaller later must not hide anything.
    return sum(max(0, max(r.size for r in it.old.sent) - min(r.size for r in it.new.sent)) for it in bridges)
