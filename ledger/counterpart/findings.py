"""What a comparison of two parties says: findings, batches, a verdict (design section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ledger.batch.stream import AnnouncedBatch
from ledger.chain.registry import AnchorRecord
from ledger.reconcile.findings import Verdict

Notes = tuple[tuple[str, str], ...]


class PartyKind(StrEnum):
    """Findings of party against party, from where this workspace stands; one per key.

    `not_withdrawn`: the sender withdrew the record, the receiver still holds it.
    """

    ONLY_THEIRS = "only_theirs"
    ONLY_OURS = "only_ours"
    DIFFERS = "differs"
    NOT_WITHDRAWN = "not_withdrawn"


@dataclass(frozen=True)
class PartyFinding:
    """One difference about one key of one batch.

    `key` maps key fields to values (personal ones masked), None where only the tag is known; `ours` and `theirs` are commitments in
    hex. `settled_by` is the number of the later batch that carries the key and matches; `erased`: its plaintext was removed here.
    """

    kind: PartyKind
    key: Mapping[str, str] | None
    key_tag: str
    ours: str | None
    theirs: str | None
    settled_by: str | None = None
    erased: bool = False

    @property
    def open(self) -> bool:
        """True while neither a later batch nor an erasure accounts for it."""
        return self.settled_by is None and not self.erased

    def as_json(self) -> dict[str, object]:
        """The finding in the words of the JSON output."""
        return {
            "kind": str(self.kind),
            "key": None if self.key is None else dict(self.key),
            "key_tag": self.key_tag,
            "ours": self.ours,
            "theirs": self.theirs,
            "settled_by": self.settled_by,
            "erased": self.erased,
        }


@dataclass(frozen=True)
class BatchComparison:
    """One batch. `ours` and `theirs` are the last anchors, None where a side has none; its verdict stands whatever came later.

    `only_sender`, `only_receiver` and `differs` are key tags in hex, sorted, each in one of them: the same seen from both sides.
    `settled` maps a key tag to the id of the later batch that settled it. Not `certified`, the lists may be incomplete and untrue.
    """

    batch: AnnouncedBatch
    verdict: Verdict
    ours: AnchorRecord | None
    theirs: AnchorRecord | None
    findings: tuple[PartyFinding, ...] = ()
    certified: bool = False
    only_sender: tuple[str, ...] = ()
    only_receiver: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()
    settled: Mapping[str, str] = field(default_factory=dict)
    notes: Notes = ()

    def as_json(self) -> dict[str, object]:
        """The comparison in the words of the JSON output."""
        told = self.batch.descriptor
        return {
            "batch": told.batch,
            "batch_id": self.batch.batch_id,
            "kind": told.kind,
            "period": told.period,
            "sender": self.batch.stream.sender,
            "receiver": self.batch.stream.receiver,
            "verdict": str(self.verdict),
            "certified": self.certified,
            "announced_late": self.batch.announced_late,
            "revised_after_receipt": self.batch.revised_after_receipt,
            "ours": _anchor_json(self.ours),
            "theirs": _anchor_json(self.theirs),
            "findings": [finding.as_json() for finding in self.findings],
            "notes": [{"zh": zh, "en": en} for zh, en in self.notes],
        }


@dataclass(frozen=True)
class PartyComparison:
    """Everything between two parties about one catalog, or one batch of it, at one block.

    The verdict is that of what is still open: a difference that a later batch settled, or whose record was erased here, no longer counts.
    """

    catalog: str
    us: str
    them: str
    verdict: Verdict
    batches: tuple[BatchComparison, ...]
    against: Mapping[str, object]
    notes: Notes = ()

    def as_json(self) -> dict[str, object]:
        """The comparison in the words of the JSON output."""
        kinds = [finding.kind for batch in self.batches for finding in batch.findings if finding.open]
        return {
            "catalog": self.catalog,
            "us": self.us,
            "with": self.them,
            "verdict": str(self.verdict),
            "against": dict(self.against),
            "counts": {
                "batches": len(self.batches),
                "matched": sum(batch.verdict is Verdict.MATCHED for batch in self.batches),
                **{str(kind): kinds.count(kind) for kind in PartyKind},
                "settled": sum(f.settled_by is not None for batch in self.batches for f in batch.findings),
                "erased": sum(f.erased for batch in self.batches for f in batch.findings),
            },
            "batches": [batch.as_json() for batch in self.batches],
            "notes": [{"zh": zh, "en": en} for zh, en in self.notes],
        }


def _anchor_json(record: AnchorRecord | None) -> dict[str, object] | None:
    if record is None:
        return None
    return {
        "party": record.party,
        "revision": record.revision,
        "size": record.size,
        "root": record.root,
        "block": record.block,
        "time": record.time,
    }
