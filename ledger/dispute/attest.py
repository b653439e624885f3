"""Attesting the statement: each party puts the hash of the bytes it derived on chain (design section 4)."""

from __future__ import annotations

from dataclasses import dataclass

from ledger.batch.job import Job
from ledger.catalog import Catalog
from ledger.chain.disputes import Attestation, encode_attest
from ledger.counterpart.compare import PartyComparison, compare_with
from ledger.counterpart.statement import statement, statement_hash
from ledger.dispute.desk import dispute_registry, keep_evidence, send


@dataclass(frozen=True)
class Attested:
    """A statement and who attested it. `fresh`: it was put on chain just now; not so if it was there already, or was only made."""

    comparison: PartyComparison
    statement: bytes
    hash: str
    attestations: tuple[Attestation, ...]
    fresh: bool

    @property
    def parties(self) -> tuple[str, ...]:
        """Of the two, who attested it."""
        sides = (self.comparison.us, self.comparison.them)
        return tuple(it.party for it in self.attestations if it.party in sides)

    @property
    def signed_by_both(self) -> bool:
        """True if both parties attested these very bytes."""
        return len(set(self.parties)) == 2


def attest(job: Job, catalog: Catalog, party: str, *, number: str | None, dry_run: bool = False) -> Attested:
    """Derive the statement with `party` and attest it; again, it changes nothing.

    The bytes are kept under evidence/. InputError `statement.open` while a list is not certified, `dispute.no_registry`.
    """
    comparison = compare_with(job, catalog, party, number=number)
    data = statement(comparison)
    digest = statement_hash(data)
    view = dispute_registry(job).view()
    fresh = not dry_run and job.party not in view.attested_by(digest)
    if not dry_run:
        keep_evidence(job, data)
    if fresh:
        call = encode_attest(party, digest, int(str(comparison.against["position"])))
        view = send(job, "attest", call, lambda seen: job.party in seen.attested_by(digest))
    said = tuple(it for it in view.attestations if it.statement == digest)
    return Attested(comparison, data, digest, said, fresh)
