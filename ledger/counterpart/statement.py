"""The statement (对账单): what a comparison found, said so that both parties write the same bytes (docs/formats/statement.md).

Neutral: no us and them, only sender and receiver; key tags, never keys; from the chain and certified lists alone. Its SHA-256 is what a
party attests.
"""

from __future__ import annotations

from hashlib import sha256

from ledger import jcs
from ledger.chain.registry import AnchorRecord
from ledger.counterpart.compare import BatchComparison, PartyComparison
from ledger.errors import InputError
from ledger.reconcile.findings import Verdict

FORMAT = "duizhang-statement/1"


def statement(comparison: PartyComparison) -> bytes:
    """RFC 8785 bytes, the same for both parties at one state of the chain.

    InputError `statement.open` while a batch in it is not certified: a list that may be incomplete is not stated.
    """
    for batch in comparison.batches:
        if batch.verdict is Verdict.DIFFERENCES_PARTIAL:
            number = batch.batch.descriptor.batch
            raise InputError(
                "statement.open",
                f"批次 {number} 的差异尚未逐条查清（{comparison.them} 的条目文件可补足：export / import entries），不能出具对账单",
                f"the differences of batch {number} are not all known (the entry file of {comparison.them} would tell: export / import "
                "entries): there is nothing to state yet",
                number,
            )
    return jcs.dump(
        {
            "format": FORMAT,
            "catalog": comparison.catalog.partition("/")[0],
            "chain_id": comparison.against["chain_id"],
            "contract": comparison.against["contract"],
            "batches": [_batch(it) for it in sorted(comparison.batches, key=_order)],
        }
    )


def statement_hash(data: bytes) -> str:
    """SHA-256 of a statement's bytes, in hex."""
    return sha256(data).hexdigest()


def _order(it: BatchComparison) -> tuple[str, str, int]:
    stream = it.batch.stream
    # A batch whose sender never anchored it stands last in its stream, as it does there.
    return stream.sender, stream.receiver, it.batch.sent[0].sequence if it.batch.sent else 1 << 62


def _batch(it: BatchComparison) -> dict[str, object]:
    stream = it.batch.stream
    return {
        "batch_id": it.batch.batch_id,
        "sender": _side(stream.sender, it.batch.sent),
        "receiver": _side(stream.receiver, it.batch.received),
        "only_sender": list(it.only_sender),
        "only_receiver": list(it.only_receiver),
        "differs": list(it.differs),
        "settled": [{"batch_id": it.settled[tag], "key_tag": tag} for tag in sorted(it.settled)],
    }


def _side(party: str, anchors: tuple[AnchorRecord, ...]) -> dict[str, object]:
    if not anchors:
        return {"party": party, "anchor": None}
    last = anchors[-1]
    return {"party": party, "anchor": {"revision": last.revision, "root": last.root, "size": last.size}}
