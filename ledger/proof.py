"""Proof file and trust file, and the steps of a verification that need no chain (formats F8, kind `presence`).

In go bytes an auditor was given, out come frozen values, or an InputError for the first form that is broken; every
member, type and limit is in docs/formats/proof.md. The `check_*` functions return what they established or raise
EvidenceError. Who calls them asks the chain for size, root and parties: nothing in a proof file is believed because it
stands there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ledger import jcs, keys, merkle
from ledger.catalog import CATALOG_ID, MAX_TOML, Catalog, from_declaration
from ledger.descriptor import ADDRESS, NO_ADDRESS, Descriptor, parse_descriptor
from ledger.errors import InputError
from ledger.record import MAX_CANONICAL, Opened, open_canonical

EvidenceError = merkle.EvidenceError
"""Raised where the evidence contradicts itself or the chain; InputError is for what cannot be read."""

PROOF_FORMAT = "duizhang-proof/1"
TRUST_FORMAT = "duizhang-trust/1"
MAX_PATH = 53
"""Hashes of a path: enough for 2^53 entries, and an index is a JSON integer below 2^53."""
MAX_ANCHORS = 64
"""Hints: a batch has two parties by design; more may vouch for it, a page full of them is an attack."""
MAX_PARTIES = 4096
"""Parties of a trust file: every department of a province's cities fits."""
PARTY_NAME = CATALOG_ID
"""Party names on chain have the form of catalog ids: `[a-z][a-z0-9_-]{0,31}`."""

PROOF = jcs.Kind("proof", "存证文件", "proof file", limit=144 << 20, line_feed=True)
TRUST = jcs.Kind("trust", "信任文件", "trust file", limit=1 << 20, line_feed=True)


@dataclass(frozen=True)
class AnchorHint:
    """Where the chain is said to hold an anchor of the batch; believed only after the chain said the same."""

    party: str
    sequence: int
    revision: int
    block: int


@dataclass(frozen=True)
class ProofFile:
    """A proof of presence: this entry, opened, stands at `index` of the batch that `descriptor` names.

    `record` are the canonical bytes, `path` the hashes from the leaf's sibling upwards. There is no size and no root in
    it: they come from the chain.
    """

    catalog: Catalog
    descriptor: Descriptor
    record: bytes
    salt: bytes
    entry: bytes
    index: int
    path: tuple[bytes, ...]
    chain_id: int
    contract: str
    anchors: tuple[AnchorHint, ...]


@dataclass(frozen=True)
class TrustFile:
    """What an auditor brings himself: which chain, which contract with which code, and who is who.

    Hashes are hex without 0x; addresses are 0x and lower case.
    """

    chain_id: int
    contract: str
    code_sha256: str
    block_number: int
    block_hash: str
    parties: Mapping[str, str]


class Reader:
    """Takes members out of parsed JSON, each with its form; a break is an InputError `<kind>.<rule>` naming it."""

    def __init__(self, kind: jcs.Kind, where: str) -> None:
        self.kind = kind
        self.where = where

    def members(self, value: object, name: str, *names: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.broken("type", name, "须为对象", "is not an object")
        missing, unknown = sorted(set(names) - set(value)), sorted(set(value) - set(names))
        if missing or unknown:
            stray = " ".join(f"-{m}" for m in missing) + " ".join(f"+{u[:40]!a}" for u in unknown[:8])
            raise self.broken(
                "members", name, f"成员须恰为 {' '.join(names)}（{stray}）", f"has exactly {' '.join(names)} ({stray})"
            )
        return value

    def items(self, value: object, name: str, most: int) -> list[Any]:
        if not isinstance(value, list):
            raise self.broken("type", name, "须为列表", "is not a list")
        if len(value) > most:
            raise self.broken("length", name, f"超过 {most} 项", f"has more than {most} elements")
        return value

    def text(self, value: object, name: str, form: str, most: int) -> str:
        if not isinstance(value, str):
            raise self.broken("type", name, "须为字符串", "is not a string")
        if len(value) > most:
            raise self.broken("length", name, f"超过 {most} 个字符", f"has more than {most} characters")
        if not re.fullmatch(form, value, re.DOTALL):
            raise self.broken("form", name, f"须符合 {form}", f"does not have the form {form}")
        return value

    def hex(self, value: object, name: str, size: int) -> bytes:
        return bytes.fromhex(self.text(value, name, f"[0-9a-f]{{{2 * size}}}", 2 * size))

    def address(self, value: object, name: str) -> str:
        address = self.text(value, name, ADDRESS.pattern, 42)
        if address == NO_ADDRESS:
            raise self.broken("form", name, "不得为零地址", "is the zero address")
        return address

    def integer(self, value: object, name: str, least: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.broken("type", name, "须为整数", "is not an integer")
        if not least <= value <= jcs.MAX_INTEGER:
            raise self.broken("range", name, f"须在 {least} 与 2^53-1 之间", f"is not between {least} and 2^53 - 1")
        return value

    def format(self, top: object, expected: str) -> None:
        found = top.get("format") if isinstance(top, dict) else None
        if found != expected:
            raise self.kind.refuse(
                "format",
                f"格式 {str(found)[:60]!a} 未知，本版本只读 {expected}",
                f"format {str(found)[:60]!a} is unknown; this version reads {expected}",
                self.where,
            )

    def broken(self, rule: str, name: str, zh: str, en: str) -> InputError:
        return self.kind.refuse(rule, f"{name} {zh}", f"{name} {en}", self.where)


def parse_proof(data: bytes, where: str = "") -> ProofFile:
    """The proof file in `data`.

    InputError `proof.<rule>` (`size encoding depth json repeated_member number not_canonical format kind members type length
    form range party_twice`), or as `from_declaration` and `parse_descriptor` raise. The opened record is not read yet:
    `check_record` does, once the catalog is known to be the anchored one.
    """
    top = jcs.load(data, PROOF, where)
    read = Reader(PROOF, where)
    read.format(top, PROOF_FORMAT)
    if top.get("kind") != "presence":
        raise PROOF.refuse(
            "kind",
            f"种类 {str(top.get('kind'))[:60]!a} 未知，本版本只读 presence",
            f"kind {str(top.get('kind'))[:60]!a} is unknown; this version reads presence",
            where,
        )
    top = read.members(
        top, "top", "anchors", "catalog", "chain", "descriptor", "entry", "format", "index", "kind", "path", "record"
    )
    record = read.members(top["record"], "record", "canonical", "salt")
    chain = read.members(top["chain"], "chain", "chain_id", "contract")
    anchors = read_hints(read, top["anchors"])
    return ProofFile(
        catalog=from_declaration(read_bytes(read, top["catalog"], "catalog", MAX_TOML), where),
        descriptor=parse_descriptor(read_bytes(read, top["descriptor"], "descriptor", 1024), where),
        record=read_bytes(read, record["canonical"], "record.canonical", MAX_CANONICAL),
        salt=read.hex(record["salt"], "record.salt", 32),
        entry=read.hex(top["entry"], "entry", keys.ENTRY_SIZE),
        index=read.integer(top["index"], "index", 0),
        path=tuple(read.hex(h, "path", merkle.HASH_SIZE) for h in read.items(top["path"], "path", MAX_PATH)),
        chain_id=read.integer(chain["chain_id"], "chain.chain_id", 1),
        contract=read.address(chain["contract"], "chain.contract"),
        anchors=anchors,
    )


def read_hints(read: Reader, value: object) -> tuple[AnchorHint, ...]:
    """The hints of a proof file: at least one, one a party."""
    anchors = tuple(read_hint(read, hint) for hint in read.items(value, "anchors", MAX_ANCHORS))
    if not anchors:
        raise PROOF.refuse("length", "anchors 为空", "anchors is empty; a proof says where to look", read.where)
    if len({hint.party for hint in anchors}) != len(anchors):
        raise PROOF.refuse("party_twice", "anchors 中同一参与方重复", "anchors names a party twice", read.where)
    return anchors


def dump_hints(anchors: Iterable[AnchorHint]) -> list[dict[str, Any]]:
    """The inverse of `read_hints`."""
    return [
        {"block": hint.block, "party": hint.party, "revision": hint.revision, "sequence": hint.sequence}
        for hint in anchors
    ]


def read_hint(read: Reader, value: object) -> AnchorHint:
    """One hint."""
    hint = read.members(value, "anchors", "block", "party", "revision", "sequence")
    return AnchorHint(
        party=read.text(hint["party"], "anchors.party", PARTY_NAME.pattern, 32),
        sequence=read.integer(hint["sequence"], "anchors.sequence", 1),
        revision=read.integer(hint["revision"], "anchors.revision", 1),
        block=read.integer(hint["block"], "anchors.block", 1),
    )


def read_bytes(read: Reader, value: object, name: str, most: int) -> bytes:
    """A member that is a string, as UTF-8."""
    # A string of JSON cannot be longer in characters than its UTF-8 is in bytes; `jcs.load` saw that it has UTF-8.
    return read.text(value, name, ".+", most).encode()


def dump_proof(proof: ProofFile) -> bytes:
    """The bytes of a proof file; what `parse_proof` would refuse is refused here in the same words."""
    members = {
        "anchors": dump_hints(proof.anchors),
        "catalog": proof.catalog.declaration.decode(),
        "chain": {"chain_id": proof.chain_id, "contract": proof.contract},
        "descriptor": proof.descriptor.encode().decode(),
        "entry": proof.entry.hex(),
        "format": PROOF_FORMAT,
        "index": proof.index,
        "kind": "presence",
        "path": [hashed.hex() for hashed in proof.path],
        "record": {"canonical": proof.record.decode(), "salt": proof.salt.hex()},
    }
    data = jcs.dump(members) + b"\n"
    parse_proof(data)
    return data


def parse_trust(data: bytes, where: str = "") -> TrustFile:
    """The trust file in `data`; InputError `trust.<rule>`, the rules as for `parse_proof`, and `address_twice`."""
    top = jcs.load(data, TRUST, where)
    read = Reader(TRUST, where)
    read.format(top, TRUST_FORMAT)
    top = read.members(top, "top", "block", "chain_id", "code_sha256", "contract", "format", "parties")
    block = read.members(top["block"], "block", "hash", "number")
    given = top["parties"]
    if not isinstance(given, dict):
        raise read.broken("type", "parties", "须为对象", "is not an object")
    if not 1 <= len(given) <= MAX_PARTIES:
        raise read.broken("length", "parties", f"须有 1–{MAX_PARTIES} 个参与方", f"has 1 to {MAX_PARTIES} parties")
    parties = {
        read.text(name, "parties", PARTY_NAME.pattern, 32): read.address(address, f"parties.{name[:32]!a}")
        for name, address in given.items()
    }
    if len(set(parties.values())) != len(parties):
        # Two names for one account would let one party vouch twice.
        raise read.broken("address_twice", "parties", "两个名称共用一个地址", "gives two names the same address")
    return TrustFile(
        chain_id=read.integer(top["chain_id"], "chain_id", 1),
        contract=read.address(top["contract"], "contract"),
        code_sha256=read.hex(top["code_sha256"], "code_sha256", 32).hex(),
        block_number=read.integer(block["number"], "block.number", 1),
        block_hash=read.hex(block["hash"], "block.hash", 32).hex(),
        parties=parties,
    )


def dump_trust(trust: TrustFile) -> bytes:
    """The bytes of a trust file; what `parse_trust` would refuse is refused here in the same words."""
    members = {
        "block": {"hash": trust.block_hash, "number": trust.block_number},
        "chain_id": trust.chain_id,
        "code_sha256": trust.code_sha256,
        "contract": trust.contract,
        "format": TRUST_FORMAT,
        "parties": dict(trust.parties),
    }
    data = jcs.dump(members) + b"\n"
    parse_trust(data)
    return data


class AboutBatch(Protocol):
    """What every kind of proof file says: which batch, under which catalog, where anchored."""

    @property
    def catalog(self) -> Catalog: ...
    @property
    def descriptor(self) -> Descriptor: ...
    @property
    def chain_id(self) -> int: ...
    @property
    def contract(self) -> str: ...
    @property
    def anchors(self) -> tuple[AnchorHint, ...]: ...


def check_chain(proof: AboutBatch, trust: TrustFile) -> None:
    """The file speaks of the chain and contract that the auditor trusts; InputError `proof.other_chain` if not."""
    if (proof.chain_id, proof.contract) != (trust.chain_id, trust.contract):
        raise PROOF.refuse(
            "other_chain",
            f"说的是链 {proof.chain_id} 上的合约 {proof.contract}，信任文件是链 {trust.chain_id} 上的 {trust.contract}",
            f"speaks of contract {proof.contract} on chain {proof.chain_id}, the trust file of {trust.contract} on "
            f"chain {trust.chain_id}",
        )


def check_catalog(proof: AboutBatch) -> None:
    """The catalog in the file is the one the batch was anchored under: same name, same digest.

    EvidenceError `evidence.catalog_name`, `evidence.catalog_digest`.
    """
    if proof.catalog.name != proof.descriptor.catalog:
        raise EvidenceError(
            "evidence.catalog_name",
            f"附带的目录是 {proof.catalog.name}，批次的目录是 {proof.descriptor.catalog}",
            f"the catalog given is {proof.catalog.name}, that of the batch is {proof.descriptor.catalog}",
        )
    if proof.catalog.digest.hex() != proof.descriptor.catalog_digest:
        raise EvidenceError(
            "evidence.catalog_digest",
            f"附带目录的摘要是 {proof.catalog.digest.hex()}，批次的是 {proof.descriptor.catalog_digest}",
            f"the digest of the catalog given is {proof.catalog.digest.hex()}, the batch has "
            f"{proof.descriptor.catalog_digest}",
        )


def check_record(proof: ProofFile) -> Opened:
    """The opened record or withdrawal, read strictly under the file's catalog; call `check_catalog` before.

    InputError `canonical.<rule>` (`open_canonical`); EvidenceError `evidence.snapshot_withdrawal`.
    """
    opened = open_canonical(proof.catalog, proof.record)
    if opened.kind == "withdrawal" and proof.descriptor.kind == "snapshot":
        raise EvidenceError(
            "evidence.snapshot_withdrawal", "快照批次不含撤回", "a snapshot holds no withdrawal; this opens one"
        )
    return opened


def check_commitment(proof: ProofFile) -> None:
    """Canonical bytes and salt give the commitment in the entry; EvidenceError `evidence.commitment`.

    The entry's key tag cannot be checked without the exchange key, and need not be: the key fields are in the bytes.
    """
    computed = keys.commitment(keys.digest(proof.record), proof.salt)
    if computed != proof.entry[2 * keys.TAG_SIZE :]:
        raise EvidenceError(
            "evidence.commitment",
            f"由原文和盐算得承诺 {computed.hex()}，条目中是 {proof.entry[2 * keys.TAG_SIZE :].hex()}",
            f"canonical bytes and salt give commitment {computed.hex()}, the entry has "
            f"{proof.entry[2 * keys.TAG_SIZE :].hex()}",
        )


SubjectTag = Literal["none", "public", "protected", "unknown"]


def check_subject_tag(proof: ProofFile, opened: Opened) -> SubjectTag:
    """The entry's subject tag against the opened bytes, as far as that goes without a key.

    `none`: zeros, as they must be. `public`: recomputed and equal. `protected`: keyed, known not to be zeros only.
    `unknown`: a withdrawal carries the tag of an earlier version that is not in the file. EvidenceError
    `evidence.subject_tag` otherwise.
    """
    tag = proof.entry[: keys.TAG_SIZE]
    subject = proof.catalog.subject
    if subject is not None and subject.field not in opened.values:
        return "unknown"
    value = opened.values[subject.field] if subject is not None else None
    if value is None:
        if tag != keys.NO_SUBJECT:
            raise _other_tag(tag, "零", "zeros")
        return "none"
    if proof.catalog.is_public(value):
        expected = keys.public_subject_tag(proof.catalog, value)
        if tag != expected:
            raise _other_tag(tag, expected.hex(), expected.hex())
        return "public"
    if tag == keys.NO_SUBJECT:
        raise _other_tag(tag, "非零", "one that is not zero")
    return "protected"


def _other_tag(tag: bytes, zh: str, en: str) -> EvidenceError:
    return EvidenceError(
        "evidence.subject_tag",
        f"条目的主体标签是 {tag.hex()}，按原文应为 {zh}",
        f"the entry's subject tag is {tag.hex()}, the opened bytes call for {en}",
    )


def check_path(proof: ProofFile, size: int, root: bytes) -> None:
    """The entry stands at the file's index in the tree of the anchored `size` and `root`; both come from the chain.

    EvidenceError `path.root`, or `path.index` or `path.length` where index or path do not fit the anchored size.
    """
    try:
        merkle.verify_inclusion(merkle.leaf_hash(proof.entry), proof.index, size, proof.path, root)
    except InputError as error:
        # Well formed in itself, but not of this tree: the anchored size contradicts it.
        raise EvidenceError(error.code, error.zh, error.en, error.where) from error


def check_hints(proof: AboutBatch, on_chain: Iterable[AnchorHint]) -> None:
    """Every anchor that the file mentions is `on_chain`: all anchors of this batch there, of every party and revision.

    EvidenceError `evidence.hint` for the first that is not. Anchors that it does not mention are no contradiction.
    """
    known = set(on_chain)
    for hint in proof.anchors:
        if hint not in known:
            raise EvidenceError(
                "evidence.hint",
                f"文件称 {hint.party} 在区块 {hint.block} 上链（序号 {hint.sequence}、修订 {hint.revision}），链上没有",
                f"the file says {hint.party} anchored in block {hint.block} as sequence {hint.sequence}, revision "
                f"{hint.revision}; the chain has no such anchor of this batch",
            )
