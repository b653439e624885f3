"""What a verification says: its numbered steps, a verdict, and one sentence that claims no more than the steps showed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from ledger.batch.stream import AnnouncedBatch
from ledger.chain.registry import AnchorRecord
from ledger.chain.view import time_utc
from ledger.errors import LedgerError
from ledger.proof import EvidenceError, ProofFile
from ledger.record import Opened, shown
from ledger.subject_proof import SubjectProof

Verdict = Literal["proved", "contradicted", "undetermined"]
Result = Literal["pass", "fail", "not_done"]
Say = Callable[[str, str], None]

STEPS: tuple[tuple[str, str, str], ...] = (
    ("proof_file", "存证文件完整、格式合规", "the proof file is whole and well formed"),
    ("trust_file", "信任文件完整、格式合规", "the trust file is whole and well formed"),
    ("descriptor", "由批次描述算出批次标识，目录与之相符", "the descriptor gives the batch id, the catalog is its own"),
    ("record", "原文是该目录下的规范记录或撤回", "the opened bytes are a record or withdrawal of that catalog"),
    ("entry", "原文与盐打开条目", "bytes and salt open the entry"),
    ("chain", "节点提供的正是所信任的链与合约代码", "the node serves the trusted chain and contract code"),
    (
        "registry",
        "登记读数一致；各参与方与文件所称上链均在链上",
        "one whole reading of the registry holds the trusted parties and the file's hints",
    ),
    ("anchors", "收发双方对该批次的上链；事件与存储一致", "the anchors of the batch's sides; events equal storage"),
    ("path", "路径由条目通向上链的根", "the path leads from the entry to the anchored root"),
    ("as_of", "截至何时", "as of when"),
)
"""Name, Chinese and English title of each step, in order; a step's number is its place, from 1."""

SUBJECT_STEPS: tuple[tuple[str, str, str], ...] = (
    *STEPS[:3],
    (
        "subject",
        "批次是快照，主体是公开主体且为规范形式",
        "the batch is a snapshot, the subject public and in normal form",
    ),
    ("records", "所列记录逐条打开条目，都属于该主体", "every record shown opens its entry and is on the subject"),
    *STEPS[5:8],
    (
        "places",
        "所列条目两侧紧邻，全部通向上链的根",
        "the entries shown and their neighbours lead to the anchored root",
    ),
    *STEPS[9:],
)
"""The same for a proof of all records on a subject, or of none."""

Plan = tuple[tuple[str, str, str], ...]


def title(name: str) -> tuple[str, str]:
    """The Chinese and English title of a step."""
    return next((zh, en) for known, zh, en in (*SUBJECT_STEPS, *STEPS) if known == name)


@dataclass(frozen=True)
class Step:
    """One step and how it went; `code` is that of the error which ended it, else empty."""

    number: int
    name: str
    result: Result
    zh: str
    en: str
    code: str = ""


@dataclass(frozen=True)
class Evidence:
    """What a passed verification established. `anchors` are the vouching ones, the sender's first; times in chain seconds."""

    proof: ProofFile
    opened: Opened
    batch: AnnouncedBatch
    anchors: tuple[AnchorRecord, ...]
    block: int
    time: int
    client: str
    development: bool | None


@dataclass(frozen=True)
class SubjectEvidence:
    """What a passed verification of a subject's records established: `opened` are all of them in that snapshot.

    `unnamed` counts records without subject, which it does not cover; `superseded` maps a vouching party to the number of a later
    snapshot by which it left this one behind. `left_behind` counts records that the stream's bridges did not carry into the series of the
    snapshot: it does not cover them either.
    """

    proof: SubjectProof
    opened: tuple[Opened, ...]
    batch: AnnouncedBatch
    anchors: tuple[AnchorRecord, ...]
    unnamed: int
    superseded: Mapping[str, str]
    left_behind: int
    block: int
    time: int
    client: str
    development: bool | None


@dataclass(frozen=True)
class Verification:
    """Verdict, every step, and one sentence. `evidence` only if proved; `error` only if undetermined."""

    verdict: Verdict
    steps: tuple[Step, ...]
    zh: str
    en: str
    evidence: Evidence | SubjectEvidence | None = None
    error: LedgerError | None = None

    @property
    def exit_code(self) -> int:
        """0 proved, 1 the evidence contradicts, 2 could not tell."""
        return {"proved": 0, "contradicted": 1, "undetermined": 2}[self.verdict]


class Steps:
    """The steps so far, in the order of `plan`, which may be changed as long as the steps done are the same in both."""

    def __init__(self) -> None:
        self.plan: Plan = STEPS
        self.done: list[Step] = []

    @contextmanager
    def next(self, name: str) -> Iterator[Say]:
        """Do the next step: passed when the block ends, failed when a LedgerError leaves it; `say` adds to its detail."""
        details: list[tuple[str, str]] = []
        try:
            yield lambda zh, en: details.append((zh, en))
        except LedgerError as error:
            where = f"{error.where}: " if error.where else ""
            self._add(name, "fail", where + error.zh, where + error.en, error.code)
            raise
        self._add(name, "pass", "；".join(zh for zh, _ in details), "; ".join(en for _, en in details))

    def pass_over(self, name: str, zh: str, en: str) -> None:
        """Record that the next step cannot be done."""
        self._add(name, "not_done", zh, en)

    def rest(self) -> None:
        """Every step left was not done."""
        for name, _, _ in self.plan[len(self.done) :]:
            self._add(name, "not_done", "", "")

    def _add(self, name: str, result: Result, zh: str, en: str, code: str = "") -> None:
        number = len(self.done) + 1
        if self.plan[number - 1][0] != name:
            raise ValueError(f"step {number} is {self.plan[number - 1][0]}, not {name}")
        self.done.append(Step(number, name, result, zh, en, code))


def ended(steps: Steps, error: LedgerError, *, trusted: bool) -> Verification:
    failed = steps.done[-1] if steps.done and steps.done[-1].result == "fail" else None
    steps.rest()
    done = tuple(steps.done)
    if failed is None:
        return Verification("undetermined", done, f"无法判定：{error.zh}。", f"Undetermined: {error.en}.", error=error)
    title_zh, title_en = title(failed.name)
    at_zh = f"第 {failed.number} 步“{title_zh}”未通过：{failed.zh}"
    at_en = f'step {failed.number}, "{title_en}", failed: {failed.en}'
    if isinstance(error, EvidenceError) and trusted:
        return Verification(
            "contradicted", done, f"不能证明，证据自相矛盾或与链不符：{at_zh}。", f"Contradicted: {at_en}."
        )
    return Verification("undetermined", done, f"无法判定：{at_zh}。", f"Undetermined: {at_en}.", error=error)


def sentence(it: Evidence) -> tuple[str, str]:
    descriptor, stream = it.proof.descriptor, it.batch.stream
    zh, en = _values_of_key(it)
    route = f"{stream.sender}→{stream.receiver}" if stream.receiver else stream.sender
    vouched_zh = "、".join(f"{r.party}（{time_utc(r.time)}，第 {r.revision} 版，区块 {r.block}）" for r in it.anchors)
    vouched_en = " and ".join(
        f"{r.party} ({time_utc(r.time)}, revision {r.revision}, block {r.block})" for r in it.anchors
    )
    silent = stream.sender not in [record.party for record in it.anchors]
    zh = (
        f"已证明：{route} 的批次 {descriptor.batch}（目录 {descriptor.catalog}）含有{zh}；作证方：{vouched_zh}"
        + (f"，发送方 {stream.sender} 不在其列" if silent else "")
        + f"；截至区块 {it.block}（{time_utc(it.time)}）"
    )
    en = (
        f"Proved: batch {descriptor.batch} of {route} (catalog {descriptor.catalog}) holds {en}; vouched by {vouched_en}"
        + (f", not by the sender {stream.sender}" if silent else "")
        + f"; as of block {it.block} ({time_utc(it.time)})"
    )
    zh, en = _with_chain(zh, en, it.client, development=it.development)
    return zh + "。", en + "."


def subject_sentence(it: SubjectEvidence) -> tuple[str, str]:
    """What was proved about a subject, in one sentence: who says so, as of when, and what it does not cover."""
    descriptor, stream = it.proof.descriptor, it.batch.stream
    subject = it.proof.catalog.subject
    code = it.proof.subject if subject is None else shown(it.proof.catalog.by_name[subject.field], it.proof.subject)
    route = f"{stream.sender}→{stream.receiver}" if stream.receiver else stream.sender
    told_zh = "、".join(f"{r.party}（{time_utc(r.time)}，第 {r.revision} 版，区块 {r.block}）" for r in it.anchors)
    told_en = " and ".join(
        f"{r.party} ({time_utc(r.time)}, revision {r.revision}, block {r.block})" for r in it.anchors
    )
    count = len(it.opened)
    what_zh = f"共有 {count} 条记录，即所列的全部" if count else "没有任何记录"
    what_en = f"has {count} record(s), all of them shown" if count else "has no record"
    single = stream.receiver and len(it.anchors) == 1
    zh = (
        f"已证明：{code} 在 {route} 的快照 {descriptor.batch}（目录 {descriptor.catalog}）中{what_zh}；作证方：{told_zh}"
        + ("，仅此一方，属单方陈述" if single else "")
        + "".join(f"；{party} 之后已有快照 {number}，本结论不代表其现状" for party, number in it.superseded.items())
        + (f"；另有 {it.unnamed} 条记录没有主体，不在此列" if it.unnamed else "")
        + (f"；另有 {it.left_behind} 条记录在换版或换钥时未随迁，不在此快照之中" if it.left_behind else "")
        + f"；截至区块 {it.block}（{time_utc(it.time)}）"
    )
    en = (
        f"Proved: {code} {what_en} in snapshot {descriptor.batch} of {route} (catalog {descriptor.catalog}); vouched by {told_en}"
        + (", a statement of this party alone" if single else "")
        + "".join(
            f"; {party} anchored snapshot {number} later, so this is not how it stands now"
            for party, number in it.superseded.items()
        )
        + (f"; {it.unnamed} record(s) without subject are not covered" if it.unnamed else "")
        + (f"; {it.left_behind} record(s) that a bridge left behind are not in it" if it.left_behind else "")
        + f"; as of block {it.block} ({time_utc(it.time)})"
    )
    zh, en = _with_chain(zh, en, it.client, development=it.development)
    return zh + "。", en + "."


def _with_chain(zh: str, en: str, client: str, *, development: bool | None) -> tuple[str, str]:
    if development:
        zh += f"；该链是开发链（{client}），本结论不能约束该链的运营方"
        en += f"; on a development chain ({client}), so it does not bind the operator of this chain"
    elif development is None:
        zh += "；节点未报告种类，如是开发链，本结论不能约束其运营方"
        en += "; the node does not say what it is: on a development chain it would not bind the operator"
    return zh, en


def _values_of_key(it: Evidence) -> tuple[str, str]:
    by_name = it.proof.catalog.by_name
    key = " ".join(f"{name}={shown(by_name[name], it.opened.values[name])}" for name in it.proof.catalog.key)
    if it.opened.kind == "withdrawal":
        return f"对记录 {key} 的撤回（{it.opened.reason}）", f"the withdrawal ({it.opened.reason}) of record {key}"
    return f"记录 {key}（原文见第 4 步）", f"record {key} (opened in step 4)"
