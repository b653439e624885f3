"""Opening, answering and closing a dispute (design section 4)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ledger.batch.job import Job
from ledger.batch.keyarg import parse_key_argument
from ledger.batch.stream import AnnouncedBatch
from ledger.catalog import Catalog
from ledger.chain.disputes import Dispute, DisputeView, encode_answer, encode_close, encode_open, pack_findings
from ledger.counterpart.compare import BatchComparison, PartyComparison, PartyFinding, PartyKind, compare_with
from ledger.counterpart.statement import statement
from ledger.descriptor import batch_number
from ledger.dispute.cases import Case, case_of
from ledger.dispute.desk import dispute_registry, keep_evidence, send
from ledger.dispute.resend import Resent, resend
from ledger.errors import InputError
from ledger.reconcile.findings import Verdict
from ledger.record import record_key

_TAG = re.compile(r"[0-9a-f]{32}")
MAX_FINDINGS = 1000
_EVIDENCE_LIMIT = 1 << 26


@dataclass(frozen=True)
class Answered:
    """An answer that is on chain; `resent` where records were sent again. Not `fresh`: it was there already."""

    case: Case
    fresh: bool
    resent: Resent | None = None


def open_dispute(job: Job, catalog: Catalog, party: str, *, number: str, keys: Sequence[str]) -> Case:
    """Dispute the open differences of a batch with `party`: all of them, or those of the keys (or key tags) given.

    The evidence is the statement about that batch, kept under evidence/. InputError `dispute.*` if nothing is open, if the list is not
    certified, or if a dispute of ours about one of them is open already.
    """
    comparison = compare_with(job, catalog, party, number=number)
    one, chosen = _find(job, catalog, comparison, number, keys)
    if len(chosen) > MAX_FINDINGS:
        raise InputError(
            "dispute.too_many",
            f"一项争议至多 {MAX_FINDINGS} 处差异，现有 {len(chosen)} 处；请按主键分几次提出",
            f"a dispute takes at most {MAX_FINDINGS} findings, these are {len(chosen)}: open several, naming keys",
            "KEY",
        )
    view = dispute_registry(job).view()
    _check_fresh(view, job.party, one, chosen)
    evidence = keep_evidence(job, statement(replace(comparison, batches=(one,))))
    findings = sorted((_kind(one, it), it.key_tag) for it in chosen)
    call = encode_open(one.batch.batch_id, party, pack_findings(findings), evidence)
    view = send(job, "dispute", call, lambda seen: _ours(seen, job.party, one, evidence, findings) is not None)
    found = _ours(view, job.party, one, evidence, findings)
    if found is None:
        raise ValueError("it was just seen")
    return case_of(job, view, found.id)


def answer(
    job: Job,
    number: int,
    *,
    choice: str,
    resend_as: str | None = None,
    out: Path | None = None,
    evidence: Path | None = None,
) -> Answered:
    """Answer a dispute that was opened against us: `concede`, `reject`, or `resend` the records as the correction batch `resend_as`.

    The same answer again changes nothing. InputError `dispute.*`.
    """
    registry = dispute_registry(job)
    case = case_of(job, registry.view(), number)
    dispute = _open_case(case)
    if dispute.respondent != job.party:
        raise InputError(
            "dispute.not_respondent",
            f"争议 {number} 应由 {dispute.respondent} 答复，不是本方 {job.party}",
            f"dispute {number} is answered by {dispute.respondent}, not by {job.party}",
            "ID",
        )
    document = b"" if evidence is None else _read(evidence)
    resent = None
    if choice == "resend":
        if resend_as is None:
            raise InputError("dispute.no_batch", "请给出重发的批次号", "name the batch to send again", "--resend")
        resent = resend(job, case, number=batch_number(resend_as), out=out)
    batch_id = "" if resent is None else resent.batch_id
    told = keep_evidence(job, document) if document else ""
    last = dispute.answers[-1] if dispute.answers else None
    if last is not None and (last.choice, last.batch_id, last.evidence) == (choice, batch_id, told):
        return Answered(case, fresh=False, resent=resent)
    before = len(dispute.answers)
    call = encode_answer(number, choice, batch_id, told)
    view = send(job, "dispute", call, lambda seen: len(seen.disputes[number].answers) > before)
    return Answered(case_of(job, view, number), fresh=True, resent=resent)


def close(job: Job, number: int, *, outcome: str, settled_by: str | None = None) -> Case:
    """Close a dispute that we opened: `settled` by a batch both sides hold alike, `withdrawn`, or `accepted` (left at the answer).

    InputError `dispute.*`: not ours, closed already, or, to be settled, differences that are still open.
    """
    registry = dispute_registry(job)
    case = case_of(job, registry.view(), number)
    dispute = _open_case(case)
    if dispute.opener != job.party:
        raise InputError(
            "dispute.not_opener",
            f"争议 {number} 由 {dispute.opener} 提出，只有它能了结",
            f"dispute {number} was opened by {dispute.opener}, who alone can close it",
            "ID",
        )
    if outcome == "accepted" and not dispute.answers:
        raise InputError(
            "dispute.not_answered",
            f"争议 {number} 尚无答复，无从接受；撤回请用 --withdrawn",
            f"dispute {number} has no answer to leave it at; to take it back use --withdrawn",
            "ID",
        )
    batch_id = "" if outcome != "settled" else _settling(job, case, settled_by or "")
    call = encode_close(number, outcome, batch_id, "")
    view = send(job, "dispute", call, lambda seen: seen.disputes[number].closing is not None)
    return case_of(job, view, number)


def _settling(job: Job, case: Case, number: str) -> str:
    """The id of the batch that settles: in the disputed batch's stream, equal on both sides, and with nothing of the dispute left open."""
    batch = _known(case)
    name = batch_number(number)
    found = job.streams.find(batch.stream, name)
    if found is None or not found.sent or not found.received:
        raise InputError(
            "dispute.no_settling_batch",
            f"批次 {name} 不在该数据流中，或尚未由双方上链",
            f"batch {name} is not in that stream, or both sides have not anchored it",
            "--settled-by",
        )
    sent, received = found.sent[-1], found.received[-1]
    if (sent.size, sent.root) != (received.size, received.root):
        raise InputError(
            "dispute.not_equal",
            f"双方对批次 {name} 的上链不一致，不能据此了结",
            f"the two sides anchored batch {name} differently: it settles nothing",
            "--settled-by",
        )
    catalog = job.workspace.catalog(batch.stream.catalog_id)
    other = case.dispute.respondent
    disputed = {tag for _, tag in case.dispute.findings}
    told = compare_with(job, catalog, other, number=batch.descriptor.batch)
    at = next(it for it in told.batches if it.batch.batch_id == batch.batch_id)
    if not at.certified:
        raise _not_certified(batch.descriptor.batch)
    left = sorted(disputed & {it.key_tag for it in at.findings if it.open})
    if left:
        raise InputError(
            "dispute.still_open",
            f"争议中还有 {len(left)} 处差异未了结：{'、'.join(left[:5])}{'…' if len(left) > 5 else ''}",
            f"{len(left)} of the disputed differences are still open: {', '.join(left[:5])}{'…' if len(left) > 5 else ''}",
            "--settled-by",
        )
    by = {at.settled[tag] for tag in disputed if tag in at.settled} or {batch.batch_id}
    if found.batch_id not in by:
        numbers = sorted(job.streams.by_batch[it].descriptor.batch for it in by)
        raise InputError(
            "dispute.not_settled_by",
            f"批次 {name} 与这些差异无关；了结它们的是批次 {'、'.join(numbers)}",
            f"batch {name} has nothing to do with these differences; what settled them is batch {', '.join(numbers)}",
            "--settled-by",
        )
    return found.batch_id


def _find(
    job: Job, catalog: Catalog, comparison: PartyComparison, number: str, keys: Sequence[str]
) -> tuple[BatchComparison, list[PartyFinding]]:
    """The batch of that number with differences to dispute, and those of them that are meant; there may be one in each direction."""
    certain = [it for it in comparison.batches if it.certified and any(finding.open for finding in it.findings)]
    if not certain:
        raise _not_disputable(comparison, number)
    if len(certain) == 1:
        return certain[0], _choose(job, catalog, certain[0], comparison.them, keys)
    meant = []
    for one in certain if keys else ():
        try:
            meant.append((one, _choose(job, catalog, one, comparison.them, keys)))
        except InputError as error:
            if error.code != "dispute.no_finding":
                raise
    if len(meant) != 1:
        raise _both_ways(number)
    return meant[0]


def _choose(job: Job, catalog: Catalog, one: BatchComparison, party: str, keys: Sequence[str]) -> list[PartyFinding]:
    open_ones = {it.key_tag: it for it in one.findings if it.open}
    if not keys:
        return list(open_ones.values())
    series = job.series(one.batch.stream).of(one.batch)
    if series is None:
        raise ValueError("a batch with findings stands in a series")
    its = job.keys(one.batch.stream, series)
    chosen: dict[str, PartyFinding] = {}
    for text in keys:
        if _TAG.fullmatch(text) and text in open_ones:
            tag = text
        else:
            tag = its.key_tag(record_key(its.catalog, parse_key_argument(its.catalog, text))).hex()
        if tag not in open_ones:
            raise InputError(
                "dispute.no_finding",
                f"“{text}”不在批次 {one.batch.descriptor.batch} 未了结的差异中",
                f"{text!r} is not among the open differences of batch {one.batch.descriptor.batch}",
                "KEY",
            )
        chosen[tag] = open_ones[tag]
    return list(chosen.values())


def _kind(one: BatchComparison, finding: PartyFinding) -> str:
    """The kind as both sides would name it."""
    if finding.kind is PartyKind.NOT_WITHDRAWN:
        return "not_withdrawn"
    if finding.key_tag in one.only_sender:
        return "only_sender"
    return "only_receiver" if finding.key_tag in one.only_receiver else "differs"


def _check_fresh(view: DisputeView, party: str, one: BatchComparison, chosen: Sequence[PartyFinding]) -> None:
    tags = {it.key_tag for it in chosen}
    for it in view.disputes.values():
        if it.opener != party or it.batch_id != one.batch.batch_id or it.closing is not None:
            continue
        if tags & {tag for _, tag in it.findings}:
            raise InputError(
                "dispute.already_open",
                f"争议 {it.id} 已就该批次的这些差异提出，尚未了结",
                f"dispute {it.id} about these differences of the batch is open already",
                "KEY",
            )


def _ours(
    view: DisputeView, party: str, one: BatchComparison, evidence: str, findings: list[tuple[str, str]]
) -> Dispute | None:
    about = (party, one.batch.batch_id, evidence, tuple(findings))
    found = [it for it in view.disputes.values() if (it.opener, it.batch_id, it.evidence, it.findings) == about]
    still = [it for it in found if it.closing is None]
    return still[-1] if still else None


def _open_case(case: Case) -> Dispute:
    if case.dispute.closing is not None:
        raise InputError(
            "dispute.closed",
            f"争议 {case.dispute.id} 已了结（{case.dispute.closing.outcome}）",
            f"dispute {case.dispute.id} is closed ({case.dispute.closing.outcome})",
            "ID",
        )
    return case.dispute


def _known(case: Case) -> AnnouncedBatch:
    if case.batch is None or not case.counts:
        raise InputError(
            "dispute.not_ours",
            f"争议 {case.dispute.id} 所指的批次不在双方之间，不作数",
            f"the batch of dispute {case.dispute.id} is not between the two: it does not count",
            "ID",
        )
    return case.batch


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as handle:
            data = handle.read(_EVIDENCE_LIMIT + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            "dispute.evidence", f"证据文件无法读取：{reason}", f"the evidence cannot be read: {reason}", str(path)
        ) from error
    if not data or len(data) > _EVIDENCE_LIMIT:
        raise InputError(
            "dispute.evidence", "证据文件为空，或超过 64 MiB", "the evidence is empty, or larger than 64 MiB", str(path)
        )
    return data


def _nothing(number: str) -> InputError:
    return InputError(
        "dispute.nothing",
        f"批次 {number} 没有未了结的差异，无可争议",
        f"batch {number} has no open difference: there is nothing to dispute",
        "--batch",
    )


def _not_disputable(comparison: PartyComparison, number: str) -> InputError:
    """Why nothing of these batches can be disputed: agreement is said only of what agrees."""
    verdicts = {it.verdict for it in comparison.batches}
    if Verdict.DIFFERENCES_PARTIAL in verdicts:
        return _not_certified(number)
    if Verdict.UNDETERMINED in verdicts:
        return InputError(
            "dispute.undetermined",
            f"批次 {number} 只有一方上链，无从比对，也就没有可争议的差异；接收方应先 receive",
            f"only one side anchored batch {number}: nothing can be compared, so there is no difference to dispute yet; the receiver has to "
            "receive it first",
            "--batch",
        )
    return _nothing(number)


def _not_certified(number: str) -> InputError:
    return InputError(
        "dispute.not_certified",
        f"批次 {number} 的差异清单未经证明完整，不能据以提出或了结争议；请先取得对方的条目文件（export / import entries）",
        f"the list of differences of batch {number} is not certified: take in the other side's entries first (export, import entries)",
        "--batch",
    )


def _both_ways(number: str) -> InputError:
    return InputError(
        "dispute.both_ways",
        f"双方互相都有批次 {number}，且都有差异：请指明主键或 key_tag（须属同一方向）",
        f"there is a batch {number} in both directions, and both differ: name keys or key tags, of one direction",
        "--batch",
    )
