"""Checks one proof file against a trust file and the chain, in numbered steps (formats F8; docs/verify.md says what each proves).

Needs two files and a node, no workspace: everything imported here gets by with the standard library and rfc8785. The first step that
fails ends the verification; a step that was not done is never one that passed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ledger import proof as proofs
from ledger.batch.stream import AnnouncedBatch, Streams, read_streams
from ledger.chain.identity import Block, Identity, check_identity
from ledger.chain.registry import AnchorEvent, AnchorRecord, Registry, RegistryView
from ledger.chain.rpc import Rpc, RpcAnswered
from ledger.chain.view import time_utc
from ledger.errors import InputError, LedgerError
from ledger.keys import digest
from ledger.proof import AnchorHint, EvidenceError, ProofFile, TrustFile
from ledger.record import Opened, shown
from ledger.subject_proof import SubjectProof, parse_any
from ledger.verdict import (
    SUBJECT_STEPS,
    Evidence,
    Say,
    Steps,
    SubjectEvidence,
    Verification,
    ended,
    sentence,
    subject_sentence,
)
from ledger.verify_subject import open_records, place_records
from ledger.vouching import Asked, vouching_sides

# How nodes for development begin what web3_clientVersion says, in lower case.
_DEVELOPMENT = ("anvil", "hardhat", "ganache", "ethereumjs testrpc", "ethereumtester", "eth-tester", "eth_tester")


def verify(
    proof_file: Path | bytes, trust_file: Path | TrustFile | None, rpc_url: str | None, *, require: int = 1
) -> Verification:
    """Verify; never raises a LedgerError. Without a trust file the verdict is `undetermined`, whatever the steps say.

    A proof may be given as its bytes; a `TrustFile` that is already read is what the caller himself relies on. With fewer than
    `require` vouching parties the verdict is `undetermined`: nothing contradicts, and it is not what was asked for.
    """
    steps = Steps()
    try:
        evidence = _walk(steps, proof_file, trust_file, rpc_url, require)
    except LedgerError as error:
        return ended(steps, error, trusted=trust_file is not None)
    told = subject_sentence(evidence) if isinstance(evidence, SubjectEvidence) else sentence(evidence)
    return Verification("proved", tuple(steps.done), *told, evidence=evidence)


def _walk(
    steps: Steps, proof_file: Path | bytes, trust_file: Path | TrustFile | None, rpc_url: str | None, require: int
) -> Evidence | SubjectEvidence:
    with steps.next("proof_file") as say:
        data = proof_file if isinstance(proof_file, bytes) else _read(proof_file, proofs.PROOF.limit)
        proof = parse_any(data, "" if isinstance(proof_file, bytes) else str(proof_file))
        if isinstance(proof, SubjectProof):
            steps.plan = SUBJECT_STEPS
        say(f"{len(data)} 字节，{proofs.PROOF_FORMAT}", f"{len(data)} bytes, {proofs.PROOF_FORMAT}")
    trust: TrustFile | None = None
    if trust_file is None:
        steps.pass_over("trust_file", "未提供信任文件", "no trust file was given")
    else:
        with steps.next("trust_file") as say:
            if isinstance(trust_file, TrustFile):
                trust = trust_file
            else:
                trust = proofs.parse_trust(_read(trust_file, proofs.TRUST.limit), str(trust_file))
            say(f"信任 {_listed(trust.parties)}", f"trusts {_listed(trust.parties, en=True)}")
    with steps.next("descriptor") as say:
        proofs.check_catalog(proof)
        told = proof.descriptor
        say(f"批次 {told.batch}，标识 {told.batch_id.hex()}", f"batch {told.batch}, id {told.batch_id.hex()}")
        say(f"目录 {told.catalog} 摘要 {told.catalog_digest}", f"catalog {told.catalog}, digest {told.catalog_digest}")
    opened = None if isinstance(proof, SubjectProof) else _open_record(steps, proof)
    claimed = open_records(steps, proof) if isinstance(proof, SubjectProof) else None
    if trust is None:
        raise InputError(
            "verify.no_trust",
            "未提供信任文件（--trust）：哪条链、哪个合约、谁是谁无从认定；信任文件须由审计人自行取得",
            "no trust file (--trust): which chain, which contract and who is who cannot be told; the auditor obtains it himself",
            "--trust",
        )
    if not rpc_url:
        raise InputError(
            "verify.no_rpc",
            "未提供链节点地址：请用 --rpc URL 或环境变量 DUIZHANG_RPC",
            "no node was named: use --rpc URL or the environment variable DUIZHANG_RPC",
            "--rpc",
        )
    with steps.next("chain") as say:
        proofs.check_chain(proof, trust)
        rpc = Rpc(rpc_url)
        origin = Block(trust.block_number, trust.block_hash)
        check_identity(rpc, Identity(trust.chain_id, trust.contract, trust.code_sha256, origin))
        client, development = _client(rpc)
        say(
            f"链 {trust.chain_id}，合约 {trust.contract}，节点 {client or '未报告种类'}",
            f"chain {trust.chain_id}, contract {trust.contract}, node {client or 'does not say what it is'}",
        )
    with rpc:
        asked = _ask_chain(steps, proof, trust, Registry(rpc, trust.contract))
        if isinstance(proof, SubjectProof):
            if claimed is None:
                raise ValueError("its records were opened before")
            return place_records(steps, proof, claimed, asked, trust, (client, development), require)
        if opened is None:
            raise ValueError("its record was opened before")
        return _place_record(steps, proof, opened, asked, trust, (client, development), require)


def _open_record(steps: Steps, proof: ProofFile) -> Opened:
    with steps.next("record") as say:
        opened = proofs.check_record(proof)
        say(*_values(proof, opened))
        say(f"原文 SHA-256 {digest(proof.record).hex()}", f"SHA-256 of the bytes {digest(proof.record).hex()}")
    with steps.next("entry") as say:
        proofs.check_commitment(proof)
        say("承诺相符", "the commitment is theirs")
        say(*_TAGS[proofs.check_subject_tag(proof, opened)])
    return opened


def _ask_chain(steps: Steps, proof: proofs.AboutBatch, trust: TrustFile, registry: Registry) -> Asked:
    batch_id = proof.descriptor.batch_id.hex()
    with steps.next("registry") as say:
        view = registry.view()
        say(
            f"区块 {view.block}，登记与上链共 {view.position} 项", f"block {view.block}, {view.position} entries in all"
        )
        _check_parties(trust, view, say)
        records = [record for anchored in view.anchors.values() for record in anchored if record.batch_id == batch_id]
        if not records:
            raise EvidenceError(
                "evidence.not_anchored",
                f"链上没有任何参与方对批次 {batch_id} 上链",
                f"nobody anchored batch {batch_id} on this chain",
                registry.rpc.where,
            )
        proofs.check_hints(proof, [AnchorHint(it.party, it.sequence, it.revision, it.block) for it in records])
    with steps.next("anchors") as say:
        streams, events = _batch(registry, view, proof)
        batch = streams.by_batch[batch_id]
        _tell_sides(batch, records, say)
    return Asked(registry, view, streams, batch, events)


def _place_record(
    steps: Steps,
    proof: ProofFile,
    opened: Opened,
    asked: Asked,
    trust: TrustFile,
    node: tuple[str, bool | None],
    require: int,
) -> Evidence:
    registry, view, batch = asked.registry, asked.view, asked.batch
    with steps.next("path") as say:
        vouching = vouching_sides(
            batch, trust, say, lambda it: proofs.check_path(proof, it.size, bytes.fromhex(it.root)), require
        )
    with steps.next("as_of") as say:
        registry.check_times(asked.events[record] for record in vouching)
        for record in vouching:
            told = f"{record.party} {time_utc(record.time)}"
            say(f"{told}（区块 {record.block}）", f"{told} (block {record.block})")
        say(
            f"读到区块 {view.block}（{time_utc(view.time)}），其后未见更新版次",
            f"read up to block {view.block} ({time_utc(view.time)}), no later revision by then",
        )
    return Evidence(proof, opened, batch, vouching, view.block, view.time, *node)


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as handle:
            return handle.read(limit + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            "verify.unreadable", f"无法读取文件：{reason}", f"the file cannot be read: {reason}", str(path)
        ) from error


def _client(rpc: Rpc) -> tuple[str, bool | None]:
    """What the node calls itself, and whether that is a development chain; ("", None) if it does not say."""
    try:
        answer = rpc.call("web3_clientVersion")
    except RpcAnswered:
        return "", None
    if not isinstance(answer, str) or not answer:
        return "", None
    name = "".join(char if char.isascii() and char.isprintable() else "?" for char in answer[:60])
    return name, name.lower().startswith(_DEVELOPMENT)


def _check_parties(trust: TrustFile, view: RegistryView, say: Say) -> None:
    """Every party of the trust file is on chain, and held its name under the trusted address at some time."""
    for name, address in trust.parties.items():
        holdings = view.parties.get(name)
        if holdings is None:
            raise InputError(
                "trust.no_party",
                f"信任文件中的参与方 {name} 在链上没有登记",
                f"party {name} of the trust file is not registered on the chain",
                name,
            )
        held = [holding.account for holding in holdings]
        if address not in held:
            raise InputError(
                "trust.address",
                f"信任文件称 {name} 的地址是 {address}，链上该名称从未由它持有（现为 {held[-1]}）",
                f"the trust file gives {name} the address {address}, which never held that name on the chain (now {held[-1]})",
                name,
            )
        if address != held[-1]:
            say(f"{name} 已由 {address} 移至 {held[-1]}", f"{name} moved on from {address} to {held[-1]}")


def _batch(
    registry: Registry, view: RegistryView, proof: proofs.AboutBatch
) -> tuple[Streams, Mapping[AnchorRecord, AnchorEvent]]:
    """The streams of the batch's sides, in which it stands, and the events of their anchors of it.

    EvidenceError `evidence.stranger` if neither side anchored it, `evidence.number_repeated` if its number belongs to another batch.
    """
    batch_id, descriptor = proof.descriptor.batch_id.hex(), proof.descriptor.encode()
    alone = read_streams(_limited(view, batch_id), {batch_id: descriptor}).by_batch.get(batch_id)
    if alone is None:
        raise EvidenceError(
            "evidence.stranger",
            "对该批次上链的都不是它的发送方或接收方，不能作证",
            "none of those who anchored this batch is its sender or receiver: they vouch for nothing",
        )
    sides = {alone.stream.sender, alone.stream.receiver} - {""}
    near = _limited(view, batch_id, *sides)
    firsts: dict[str, AnchorRecord] = {}
    for side in sorted(sides):
        for record in view.anchors[side]:
            firsts.setdefault(record.batch_id, record)
    events = registry.events([*firsts.values(), *alone.sent, *alone.received])
    descriptors = {other: events[record].descriptor for other, record in firsts.items()}
    streams = read_streams(near, descriptors)
    _check_standing(streams, batch_id)
    return streams, events


def _limited(view: RegistryView, batch_id: str, *parties: str) -> RegistryView:
    """The view with all anchors of one batch and of these parties, and no others."""
    anchors = {
        name: tuple(record for record in records if name in parties or record.batch_id == batch_id)
        for name, records in view.anchors.items()
    }
    return replace(view, anchors=anchors)


def _check_standing(streams: Streams, batch_id: str) -> None:
    if batch_id not in streams.by_batch:
        why = next(refused for refused in streams.refused if refused.batch_id == batch_id)
        raise EvidenceError("evidence.number_repeated", why.zh, why.en)


def _tell_sides(batch: AnnouncedBatch, records: Sequence[AnchorRecord], say: Say) -> None:
    for role_zh, role_en, party in (
        ("发送方", "sender", batch.stream.sender),
        ("接收方", "receiver", batch.stream.receiver),
    ):
        claims = batch.claims(party) if party else ()
        if not party:
            continue
        if not claims:
            say(f"{role_zh} {party} 未上链", f"{role_en} {party} did not anchor it")
            continue
        last = claims[-1]
        say(
            f"{role_zh} {party} 第 {last.revision} 版（共 {len(claims)} 版，以最后一版为准）：{last.size} 条，根 {last.root}",
            f"{role_en} {party}, revision {last.revision} of {len(claims)} (the last counts): {last.size} entries, root {last.root}",
        )
    if batch.revised_after_receipt:
        say("发送方在接收方上链之后又改了版次", "the sender revised it after the receiver had anchored")
    strangers = sorted({it.party for it in records} - {batch.stream.sender, batch.stream.receiver})
    if strangers:
        say(
            f"第三方 {'、'.join(strangers)} 的上链不计",
            f"anchors of third parties do not count: {', '.join(strangers)}",
        )


_TAGS: Mapping[proofs.SubjectTag, tuple[str, str]] = {
    "none": ("无主体，主体标签为零", "no subject, its tag is zero"),
    "public": ("公开主体标签已重算相符", "the public subject tag was recomputed"),
    "protected": ("主体标签受密钥保护，无法重算", "the subject tag is keyed and cannot be recomputed"),
    "unknown": (
        "撤回的主体标签属于先前版本，无法重算",
        "a withdrawal's subject tag is an earlier version's and cannot be recomputed",
    ),
}


def _values(proof: ProofFile, opened: Opened) -> tuple[str, str]:
    values = " ".join(
        f"{field.name}={shown(field, opened.values[field.name])}"
        for field in proof.catalog.fields
        if opened.values.get(field.name) is not None
    )
    if opened.kind == "withdrawal":
        return f"撤回（{opened.reason}）{values}", f"withdrawal ({opened.reason}) {values}"
    return f"记录 {values}", f"record {values}"


def _listed(parties: Mapping[str, str], *, en: bool = False) -> str:
    names = list(parties)[:8]
    more = len(parties) - len(names)
    tail = (f" and {more} more" if en else f" 等 {len(parties)} 方") if more else ""
    return (", " if en else "、").join(names) + tail
