"""Proof and trust files (F8): round trips, every form, and no character that could be changed unnoticed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ledger import jcs
from ledger.catalog import Catalog, from_declaration
from ledger.descriptor import Descriptor, parse_descriptor
from ledger.errors import InputError, LedgerError
from ledger.keys import CatalogKeys
from ledger.merkle import inclusion_path, root_of
from ledger.proof import (
    AnchorHint,
    EvidenceError,
    ProofFile,
    TrustFile,
    check_catalog,
    check_chain,
    check_commitment,
    check_hints,
    check_path,
    check_record,
    check_subject_tag,
    dump_proof,
    dump_trust,
    parse_proof,
    parse_trust,
)

CONTRACT = "0x" + "c" * 40
ON_CHAIN = [
    AnchorHint("guangdong", sequence=7, revision=1, block=41),
    AnchorHint("guangzhou", sequence=3, revision=1, block=42),
    AnchorHint("guangzhou", sequence=4, revision=2, block=43),
]


@pytest.fixture(scope="module")
def entries(vectors: dict[str, Any]) -> list[bytes]:
    return [bytes.fromhex(entry) for entry in vectors["tree"]["sorted_entries"]]


@pytest.fixture(scope="module")
def descriptor(vectors: dict[str, Any]) -> Descriptor:
    return parse_descriptor(vectors["descriptor"]["bytes"].encode())


@pytest.fixture(scope="module")
def proof(vectors: dict[str, Any], licences: Catalog, descriptor: Descriptor, entries: list[bytes]) -> ProofFile:
    """The second row of the vectors, which has quotes, a tab and a backslash in it, at index 4 of 5."""
    row = vectors["records_in_file_order"][1]
    entry = bytes.fromhex(row["entry"])
    index = entries.index(entry)
    return ProofFile(
        catalog=from_declaration(licences.declaration, ""),
        descriptor=descriptor,
        record=row["canonical"].encode(),
        salt=bytes.fromhex(row["salt"]),
        entry=entry,
        index=index,
        path=tuple(inclusion_path(entries, index)),
        chain_id=31337,
        contract=CONTRACT,
        anchors=tuple(ON_CHAIN[:2]),
    )


@pytest.fixture(scope="module")
def trust() -> TrustFile:
    return TrustFile(
        chain_id=31337,
        contract=CONTRACT,
        code_sha256="0123456789abcdef" * 4,
        block_number=12,
        block_hash="fedcba9876543210" * 4,
        parties={"guangdong": "0x" + "1" * 40, "guangzhou": "0x" + "2" * 40},
    )


def verify(data: bytes, trust: TrustFile, batch_id: bytes, anchored: tuple[int, bytes]) -> str:
    """What a verifier does once the chain has told it batch id, size, root and anchors."""
    proof = parse_proof(data)
    check_chain(proof, trust)
    if proof.descriptor.batch_id != batch_id:
        raise EvidenceError("batch", "", "no such batch on chain")
    check_catalog(proof)
    opened = check_record(proof)
    check_commitment(proof)
    tag = check_subject_tag(proof, opened)
    check_path(proof, *anchored)
    check_hints(proof, ON_CHAIN)
    return tag


def test_a_good_proof_verifies(proof: ProofFile, trust: TrustFile, entries: list[bytes]) -> None:
    assert verify(dump_proof(proof), trust, proof.descriptor.batch_id, root_of(entries)) == "public"


def test_files_go_both_ways(proof: ProofFile, trust: TrustFile) -> None:
    assert parse_proof(dump_proof(proof)) == proof
    assert dump_proof(parse_proof(dump_proof(proof))) == dump_proof(proof)
    assert parse_trust(dump_trust(trust)) == trust
    assert dump_trust(parse_trust(dump_trust(trust))) == dump_trust(trust)


def test_files_are_their_own_canonical_form_and_a_line_feed(proof: ProofFile, trust: TrustFile) -> None:
    for data in (dump_proof(proof), dump_trust(trust)):
        assert data == jcs.dump(json.loads(data)) + b"\n"


def other_characters(char: int) -> bytes:
    """For each character one that keeps the shape as far as any can, and one that does not."""
    if chr(char) in "0123456789":
        return b"1a" if char == ord("0") else b"0a"
    if chr(char).isalpha():
        return b"b0" if char != ord("b") else b"c0"
    return b" 0" if char != ord(" ") else b"x0"


def test_no_character_of_a_proof_file_can_be_edited_unnoticed(
    proof: ProofFile, trust: TrustFile, entries: list[bytes]
) -> None:
    data = dump_proof(proof)
    anchored = root_of(entries)
    batch_id = proof.descriptor.batch_id
    for place in range(len(data)):
        for other in other_characters(data[place]):
            edited = data[:place] + bytes([other]) + data[place + 1 :]
            try:
                assert parse_proof(edited) != proof, place
            except InputError:
                continue
            with pytest.raises(LedgerError):
                verify(edited, trust, batch_id, anchored)


def test_no_character_of_a_trust_file_can_be_edited_unnoticed(trust: TrustFile) -> None:
    data = dump_trust(trust)
    for place in range(len(data)):
        for other in {*range(0x20, 0x7F), 0x00, 0x0A, 0x0D, 0x80, 0xFF} - {data[place]}:
            edited = data[:place] + bytes([other]) + data[place + 1 :]
            try:
                assert parse_trust(edited) != trust, place
            except InputError:
                continue


def test_a_file_cut_off_or_added_to_anywhere_is_refused(proof: ProofFile, trust: TrustFile) -> None:
    readers: list[tuple[bytes, Callable[[bytes], object]]] = [
        (dump_proof(proof), parse_proof),
        (dump_trust(trust), parse_trust),
    ]
    for data, parse in readers:
        for length in range(len(data)):
            with pytest.raises(InputError):
                parse(data[:length])
        for more in (b"\n", b" ", b"\x00", data):
            with pytest.raises(InputError):
                parse(data + more)
        for mark in (b"\xef\xbb\xbf", b" "):
            with pytest.raises(InputError):
                parse(mark + data)
        with pytest.raises(InputError):
            parse(data.replace(b"\n", b"\r\n"))


# --- every form of the proof file ---

DELETE = object()


def edited(data: bytes, path: str, value: object) -> bytes:
    top = json.loads(data)
    at = top
    *outer, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in outer:
        at = at[part]
    if value is DELETE:
        del at[last]
    else:
        at[last] = value
    return json.dumps(top, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


BAD_PROOF = [
    ("format", "format", "duizhang-proof/2"), ("format", "format", "duizhang-trust/1"), ("format", "format", None), ("format", "format", DELETE),
    ("format", "format", 1), ("kind", "kind", "absence"), ("kind", "kind", DELETE), ("kind", "kind", None), ("kind", "kind", ["presence"]),
    ("members", "x", 1), ("members", "index", DELETE), ("members", "record.x", 1), ("members", "record.salt", DELETE),
    ("members", "chain.x", "1"), ("members", "chain.contract", DELETE), ("members", "anchors.0.x", 1), ("members", "anchors.1.block", DELETE),
    ("type", "record", []), ("type", "record", None), ("type", "chain", "x"), ("type", "anchors", {}), ("type", "anchors.0", 1), ("type", "path", {}),
    ("type", "path", None), ("type", "path.0", 1), ("type", "entry", 1), ("type", "record.canonical", {}), ("type", "record.salt", None),
    ("type", "descriptor", {}), ("type", "catalog", {}), ("type", "index", True), ("type", "index", "4"), ("type", "index", None),
    ("type", "chain.chain_id", "1"), ("type", "chain.chain_id", True), ("type", "anchors.0.sequence", False), ("type", "anchors.0.party", 1),
    ("type", "chain.contract", None), ("type", "anchors.0.block", [1]),
    ("number", "index", 4.5), ("number", "index", 1e20), ("number", "index", 2**53), ("number", "chain.chain_id", 10**400),
    ("number", "anchors.0.block", -(2**53)),
    ("range", "index", -1), ("range", "chain.chain_id", 0), ("range", "anchors.0.sequence", 0), ("range", "anchors.0.revision", 0),
    ("range", "anchors.0.block", 0), ("range", "anchors.0.block", -1),
    ("length", "path", ["0" * 64] * 54), ("length", "anchors", []), ("length", "entry", "0" * 129), ("length", "record.salt", "0" * 66),
    ("length", "path.0", "0" * 65), ("length", "anchors.0.party", "a" * 33), ("length", "descriptor", "x" * 1025),
    ("length", "catalog", "x" * (1 << 20) + "x"), ("length", "record.canonical", "x" * (64 << 20) + "x"), ("length", "chain.contract", "0x" + "c" * 41),
    ("length", "anchors", [{"block": 1, "party": f"p{n}", "revision": 1, "sequence": 1} for n in range(65)]),
    ("form", "entry", "0" * 127), ("form", "entry", "A" * 128), ("form", "entry", "0x" + "0" * 126), ("form", "entry", ""),
    ("form", "record.salt", "0" * 63 + "\n"), ("form", "record.salt", "０" * 64), ("form", "path.0", ""), ("form", "path.0", "0" * 62),
    ("form", "record.canonical", ""), ("form", "descriptor", ""), ("form", "catalog", ""),
    ("form", "chain.contract", "0x" + "C" * 40), ("form", "chain.contract", "0x" + "0" * 40), ("form", "chain.contract", "c" * 42),
    ("form", "anchors.0.party", ""), ("form", "anchors.0.party", "Guangdong"), ("form", "anchors.0.party", "广东"), ("form", "anchors.0.party", "a\n"),
    ("party_twice", "anchors.1.party", "guangdong"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "path", "value"), BAD_PROOF)
def test_a_proof_file_that_strays_is_refused_by_name(rule: str, path: str, value: object, proof: ProofFile) -> None:
    data = dump_proof(proof)
    assert edited(data, "kind", "presence") == data
    with pytest.raises(InputError) as caught:
        parse_proof(edited(data, path, value), "proof.json")
    assert (caught.value.code, caught.value.where) == (f"proof.{rule}", "proof.json")
    assert caught.value.zh
    assert len(caught.value.en) < 1000


def test_what_is_inside_a_proof_file_is_read_as_strictly(proof: ProofFile) -> None:
    data = dump_proof(proof)
    for code, path, old, new in [
        ("catalog.not_canonical", "catalog", '"version":1', '"version": 1'),
        ("catalog.members", "catalog", '"version":1', '"version":1,"x":1'),
        ("catalog.field_type", "catalog", '"type":"date"', '"type":"day"'),
        ("descriptor.not_canonical", "descriptor", '"suite":', '"suite": '),
        ("descriptor.kind", "descriptor", '"delivery"', '"gift"'),
    ]:
        text = json.loads(data)[path]
        assert old in text
        with pytest.raises(InputError) as caught:
            parse_proof(edited(data, path, text.replace(old, new)))
        assert caught.value.code == code


def test_a_proof_file_larger_than_its_limit_is_not_even_read(proof: ProofFile) -> None:
    with pytest.raises(InputError) as caught:
        parse_proof(b"[" * ((144 << 20) + 1))
    assert caught.value.code == "proof.size"


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"{}\n", b"[]\n", b"null\n", b'"x"\n', b"\xff\n", b"0\n", b"PK\x03\x04\n"]
)
def test_what_is_no_proof_or_trust_file_at_all_is_refused(data: bytes) -> None:
    for parse in (parse_proof, parse_trust):
        with pytest.raises(InputError):
            parse(data)


def test_a_proof_or_trust_file_that_could_not_be_read_is_not_written(proof: ProofFile, trust: TrustFile) -> None:
    for bad in (
        replace(proof, salt=b"x"),
        replace(proof, anchors=()),
        replace(proof, contract="0x" + "C" * 40),
        replace(proof, index=-1),
        replace(proof, path=(b"",)),
    ):
        with pytest.raises(InputError):
            dump_proof(bad)
    for other in (replace(trust, parties={}), replace(trust, block_number=0), replace(trust, code_sha256="0x00")):
        with pytest.raises(InputError):
            dump_trust(other)


# --- what the evidence can contradict ---


def refused_evidence(proof: ProofFile, step: Callable[..., object], *known: object) -> str:
    with pytest.raises(EvidenceError) as caught:
        step(proof, *known)
    assert caught.value.zh
    return caught.value.code


def test_another_catalog_than_the_batch_was_anchored_under(proof: ProofFile) -> None:
    renamed = replace(proof, catalog=replace(proof.catalog, version=2))
    assert refused_evidence(renamed, check_catalog) == "evidence.catalog_name"
    altered = replace(proof, catalog=replace(proof.catalog, utc_offset="+07:00"))
    assert refused_evidence(altered, check_catalog) == "evidence.catalog_digest"


def test_a_forged_record_does_not_give_the_commitment(proof: ProofFile) -> None:
    forged = replace(proof, record=proof.record.replace(b"12000", b"12001"))
    assert forged.record != proof.record
    check_record(forged)
    assert refused_evidence(forged, check_commitment) == "evidence.commitment"
    assert refused_evidence(replace(proof, salt=bytes(32)), check_commitment) == "evidence.commitment"


def test_a_record_that_is_not_in_normal_form_does_not_count_though_it_was_committed_to(
    proof: ProofFile, keys: CatalogKeys
) -> None:
    data = proof.record.replace(b'"10"', b'"010"')
    _, salt, commitment = keys.commit(data)
    forged = replace(proof, record=data, salt=salt, entry=proof.entry[:32] + commitment)
    check_commitment(forged)
    with pytest.raises(InputError) as caught:
        check_record(forged)
    assert caught.value.code == "canonical.not_normal"


def opening(proof: ProofFile, keys: CatalogKeys, record: bytes, tag: bytes) -> ProofFile:
    _, salt, commitment = keys.commit(record)
    return replace(proof, record=record, salt=salt, entry=tag + proof.entry[16:32] + commitment)


def test_the_subject_tag_follows_from_the_opened_bytes(proof: ProofFile, keys: CatalogKeys) -> None:
    code = b'"91440101X18407888T"'
    assert code in proof.record
    public = keys.subject_tag("91440101X18407888T")
    protected = keys.subject_tag("81440101X18407888T")
    null, other = proof.record.replace(code, b"null"), proof.record.replace(code, b'"81440101X18407888T"')
    cases = [
        (proof.record, public, "public"),
        (null, bytes(16), "none"),
        (other, protected, "protected"),
    ]
    for record, tag, established in cases:
        made = opening(proof, keys, record, tag)
        assert check_subject_tag(made, check_record(made)) == established
    for record, tag in [
        (proof.record, bytes(16)),
        (proof.record, protected),
        (proof.record, public[:-1] + bytes([public[-1] ^ 1])),
        (null, public),
        (null, b"\x00" * 15 + b"\x01"),
        (other, bytes(16)),
    ]:
        made = opening(proof, keys, record, tag)
        with pytest.raises(EvidenceError) as caught:
            check_subject_tag(made, check_record(made))
        assert caught.value.code == "evidence.subject_tag"


def test_without_a_subject_the_tag_is_zeros(proof: ProofFile, keys: CatalogKeys) -> None:
    without = replace(proof, catalog=replace(proof.catalog, subject=None))
    with pytest.raises(EvidenceError):
        check_subject_tag(without, check_record(without))
    zeros = opening(without, keys, proof.record, bytes(16))
    assert check_subject_tag(zeros, check_record(zeros)) == "none"


def test_the_subject_tag_of_a_withdrawal_is_unknown_unless_the_key_holds_the_subject(
    proof: ProofFile, keys: CatalogKeys, vectors: dict[str, Any]
) -> None:
    data = vectors["withdrawal_of_first_record"]["canonical"].encode()
    made = opening(proof, keys, data, keys.subject_tag("914401001234567890"))
    assert check_subject_tag(made, check_record(made)) == "unknown"
    by_office = replace(proof.catalog, subject=replace(proof.catalog.subject, field="authority", public_pattern=None))  # type: ignore[type-var]
    keyed = replace(made, catalog=by_office)
    with pytest.raises(EvidenceError):
        check_subject_tag(keyed, check_record(keyed))


def test_a_snapshot_opens_no_withdrawal(proof: ProofFile, vectors: dict[str, Any]) -> None:
    data = vectors["withdrawal_of_first_record"]["canonical"].encode()
    withdrawn = replace(proof, record=data)
    assert check_record(withdrawn).reason == "revoked"
    snapshot = replace(withdrawn, descriptor=replace(proof.descriptor, kind="snapshot"))
    assert refused_evidence(snapshot, check_record) == "evidence.snapshot_withdrawal"


def test_a_path_counts_for_the_anchored_size_and_root_only(proof: ProofFile, entries: list[bytes]) -> None:
    size, root = root_of(entries)
    check_path(proof, size, root)
    other_batch = root_of([*entries[:-1], b"\xff" * 64])
    assert refused_evidence(proof, check_path, *other_batch) == "path.root"
    assert refused_evidence(proof, check_path, 3, root) == "path.index"
    assert refused_evidence(proof, check_path, 17, root) == "path.length"
    assert refused_evidence(proof, check_path, 0, root_of([])[1]) == "path.index"
    neighbour = replace(proof, entry=entries[proof.index - 1])
    assert refused_evidence(neighbour, check_path, size, root) == "path.root"


def test_a_proof_from_another_chain_or_contract_is_refused(proof: ProofFile, trust: TrustFile) -> None:
    check_chain(proof, trust)
    for other in (replace(proof, chain_id=31338), replace(proof, contract="0x" + "d" * 40)):
        with pytest.raises(InputError) as caught:
            check_chain(other, trust)
        assert caught.value.code == "proof.other_chain"


@pytest.mark.parametrize(
    "change", [{"sequence": 8}, {"revision": 2}, {"block": 42}, {"party": "guangzhou"}, {"party": "nobody"}]
)
def test_a_hint_that_the_chain_does_not_know_is_refused(proof: ProofFile, change: dict[str, Any]) -> None:
    check_hints(proof, ON_CHAIN)
    check_hints(replace(proof, anchors=(ON_CHAIN[2],)), ON_CHAIN)
    wrong = replace(proof, anchors=(replace(ON_CHAIN[0], **change),))
    assert refused_evidence(wrong, check_hints, ON_CHAIN) == "evidence.hint"
    assert refused_evidence(proof, check_hints, []) == "evidence.hint"


# --- every form of the trust file ---

BAD_TRUST = [
    ("format", "format", "duizhang-trust/2"), ("format", "format", "duizhang-proof/1"), ("format", "format", DELETE), ("format", "format", 1),
    ("members", "x", 1), ("members", "contract", DELETE), ("members", "block.x", 1), ("members", "block.hash", DELETE),
    ("type", "block", []), ("type", "parties", []), ("type", "parties", None), ("type", "parties.guangdong", None), ("type", "chain_id", "1"),
    ("type", "chain_id", True), ("type", "block.number", True), ("type", "block.hash", 1), ("type", "contract", 1), ("type", "code_sha256", None),
    ("number", "chain_id", 1.5), ("number", "chain_id", 2**53), ("number", "block.number", 10**30),
    ("range", "chain_id", 0), ("range", "block.number", 0), ("range", "block.number", -1),
    ("length", "parties", {}), ("length", "code_sha256", "0" * 65), ("length", "block.hash", "0x" + "0" * 64),
    ("length", "parties", {f"p{n}": f"0x{n + 1:040x}" for n in range(4097)}), ("length", "parties", {"a" * 33: "0x" + "1" * 40}),
    ("form", "code_sha256", "0" * 63), ("form", "code_sha256", "A" * 64), ("form", "block.hash", "0x" + "0" * 62), ("form", "block.hash", ""),
    ("form", "contract", "0x" + "A" * 40), ("form", "contract", "0x" + "0" * 40), ("form", "contract", "a" * 40), ("form", "contract", "0x" + "1" * 39),
    ("form", "parties.guangdong", "0x" + "0" * 40), ("form", "parties.guangdong", "0x" + "A" * 40), ("form", "parties.guangdong", "1" * 40),
    ("form", "parties", {"": "0x" + "1" * 40}), ("form", "parties", {"Guangdong": "0x" + "1" * 40}), ("form", "parties", {"1a": "0x" + "1" * 40}),
    ("form", "parties", {"a b": "0x" + "1" * 40}), ("form", "parties", {"a\n": "0x" + "1" * 40}),
    ("address_twice", "parties.guangdong", "0x" + "2" * 40),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "path", "value"), BAD_TRUST)
def test_a_trust_file_that_strays_is_refused_by_name(rule: str, path: str, value: object, trust: TrustFile) -> None:
    data = dump_trust(trust)
    assert edited(data, "block.number", 12) == data
    with pytest.raises(InputError) as caught:
        parse_trust(edited(data, path, value), "trust.json")
    assert (caught.value.code, caught.value.where) == (f"trust.{rule}", "trust.json")


def test_a_trust_file_larger_than_its_limit_is_not_even_read() -> None:
    with pytest.raises(InputError) as caught:
        parse_trust(b"[" * ((1 << 20) + 1))
    assert caught.value.code == "trust.size"


def test_a_party_name_may_use_all_32_characters(trust: TrustFile) -> None:
    longest = replace(trust, parties={"g" + "_-9" * 10 + "z": "0x" + "1" * 40})
    assert parse_trust(dump_trust(longest)) == longest
