"""What the chain was asked for one proof, and which of the batch's sides vouch for it: each by its last revision, if the auditor knows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ledger.batch.stream import AnnouncedBatch, Streams
from ledger.chain.registry import AnchorEvent, AnchorRecord, Registry, RegistryView
from ledger.errors import InputError
from ledger.proof import EvidenceError, TrustFile
from ledger.verdict import Say

Fits = Callable[[AnchorRecord], object]
"""Returns if the evidence fits an anchor's size and root, else raises EvidenceError."""


@dataclass(frozen=True)
class Asked:
    """The registry at one block, the streams of the batch's sides, and the events of their anchors."""

    registry: Registry
    view: RegistryView
    streams: Streams
    batch: AnnouncedBatch
    events: Mapping[AnchorRecord, AnchorEvent]


def vouching_sides(
    batch: AnnouncedBatch, trust: TrustFile, say: Say, fits: Fits, require: int
) -> tuple[AnchorRecord, ...]:
    """The last anchors of the batch's sides that the evidence fits and whose party the auditor knows; at least `require` of them.

    EvidenceError of `fits`, or `evidence.revised`, where none fits; InputError `trust.voucher_unknown`, `verify.require`.
    """
    vouching: list[AnchorRecord] = []
    refused: list[EvidenceError] = []
    for claims in filter(None, (batch.sent, batch.received)):
        last = claims[-1]
        try:
            fits(last)
        except EvidenceError as error:
            refused.append(_refusal(fits, claims, error))
            say(f"与 {last.party} 的最后一版不符", f"it does not fit the last revision of {last.party}")
        else:
            vouching.append(last)
            say(f"与 {last.party} 的根相符", f"it is the root of {last.party}")
    if not vouching:
        raise refused[0]
    known = tuple(record for record in vouching if record.party in trust.parties)
    strange = [record.party for record in vouching if record.party not in trust.parties]
    if not known:
        raise InputError(
            "trust.voucher_unknown",
            f"作证的 {'、'.join(strange)} 不在信任文件中，审计人不认识它",
            f"only {', '.join(strange)} vouches, which the trust file does not name",
            strange[0],
        )
    if strange:
        say(f"{strange[0]} 不在信任文件中，不计", f"{strange[0]} is not in the trust file and does not count")
    if len(known) < require:
        raise InputError(
            "verify.require",
            f"要求 {require} 方作证，只有 {'、'.join(record.party for record in known)} 作证",
            f"{require} parties must vouch, and only {', '.join(record.party for record in known)} does",
            "--require",
        )
    return known


def _refusal(fits: Fits, claims: Sequence[AnchorRecord], error: EvidenceError) -> EvidenceError:
    """Why this side does not vouch: naming the revision that the proof was made for, if there was one."""
    last = claims[-1]
    for earlier in claims[:-1]:
        try:
            fits(earlier)
        except EvidenceError:
            continue
        return EvidenceError(
            "evidence.revised",
            f"只与 {last.party} 的第 {earlier.revision} 版相符，该版已被第 {last.revision} 版取代，不再作数",
            f"it fits only revision {earlier.revision} of {last.party}, which revision {last.revision} has replaced",
        )
    return EvidenceError(error.code, f"{last.party}：{error.zh}", f"{last.party}: {error.en}")
