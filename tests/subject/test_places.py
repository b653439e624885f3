"""All records on a subject, or none: over small trees with every position, and every forged variant by name (formats F8)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from ledger import keys, merkle
from ledger.catalog import Catalog, from_declaration, parse_catalog
from ledger.descriptor import Descriptor
from ledger.errors import LedgerError
from ledger.keys import ExchangeKey
from ledger.proof import AnchorHint, EvidenceError
from ledger.record import canonical, record_key, withdrawal
from ledger.subject_proof import (
    Place,
    Shown,
    SubjectProof,
    check_places,
    check_records,
    check_subject,
    dump_subject,
    parse_any,
    parse_subject,
)
from tests.conftest import CATALOG, permit

PERMITS: Catalog = from_declaration(parse_catalog(CATALOG.encode(), "permits.toml").declaration, "")
KEYS = ExchangeKey(bytes(range(32))).for_catalog(PERMITS)
Row = dict[str, str | None]
Tree = list[tuple[bytes, Row | None]]


def company(number: int) -> str:
    return f"9144010012345{number:05d}"


def row(number: int, of: int | None) -> Row:
    return {**permit(number), "uscc": None if of is None else company(of)}


def entry_of(it: Row) -> bytes:
    commitment = KEYS.commit(canonical(PERMITS, it))[2]
    return KEYS.entry(KEYS.subject_tag(it["uscc"]), KEYS.key_tag(record_key(PERMITS, it)), commitment)


def tree_of(*rows: Row) -> Tree:
    return sorted(((entry_of(it), it) for it in rows), key=lambda it: it[0])


def root_of(tree: Tree) -> bytes:
    return merkle.root_of(entry for entry, _ in tree)[1]


def place(tree: Tree, at: int) -> Place | None:
    if not 0 <= at < len(tree):
        return None
    return Place(tree[at][0], at, tuple(merkle.inclusion_path([entry for entry, _ in tree], at)))


def shown(tree: Tree, at: int) -> Shown:
    found, it = place(tree, at), tree[at][1]
    assert found is not None
    assert it is not None
    data = canonical(PERMITS, it)
    return Shown(found, data, KEYS.salt(hashlib.sha256(data).digest()))


def descriptor(kind: str = "snapshot") -> Descriptor:
    return Descriptor(
        batch="P20261124-1:B1",
        catalog=PERMITS.name,
        catalog_digest=PERMITS.digest.hex(),
        key_id="00" * 8,
        kind=kind,
        period="",
        receiver="0x" + "22" * 20,
        sender="0x" + "11" * 20,
    )


def proof_of(tree: Tree, of: int, kind: str = "snapshot") -> SubjectProof:
    tag = keys.public_subject_tag(PERMITS, company(of))
    first = sum(entry[:16] < tag for entry, _ in tree)
    after = sum(entry[:16] <= tag for entry, _ in tree)
    named = sum(entry[:16] == bytes(16) for entry, _ in tree)
    return SubjectProof(
        PERMITS,
        descriptor(kind),
        company(of),
        tuple(shown(tree, at) for at in range(first, after)),
        place(tree, first - 1),
        place(tree, after),
        place(tree, named - 1),
        place(tree, named),
        31337,
        "0x" + "cc" * 20,
        (AnchorHint("guangdong", 1, 1, 7),),
    )


def verify(proof: SubjectProof, tree: Tree) -> tuple[int, int]:
    """How many records, and how many without subject; as the steps do it, from the bytes of the file."""
    read = parse_any(dump_subject(proof))
    assert isinstance(read, SubjectProof)
    assert read == proof
    tag = check_subject(read)
    opened = check_records(read, tag)
    return len(opened), check_places(read, tag, len(tree), root_of(tree))


@pytest.mark.parametrize("unnamed", [0, 1, 3])
@pytest.mark.parametrize("others", [0, 1, 2, 5, 12])
def test_every_position_of_every_company_and_of_one_that_is_not_there(others: int, unnamed: int) -> None:
    rows = [row(n, n % 4) for n in range(1, others + 1)] + [row(100 + n, None) for n in range(unnamed)]
    tree = tree_of(*rows)
    for of in range(8):
        expected = sum(it["uscc"] == company(of) for it in rows)
        assert verify(proof_of(tree, of), tree) == (expected, unnamed)


def test_a_tree_of_records_without_subject_only_covers_nobody() -> None:
    tree = tree_of(row(1, None), row(2, None))
    assert verify(proof_of(tree, 1), tree) == (0, 2)


TREE = tree_of(*(row(n, n // 2) for n in range(2, 14)), row(50, None), row(51, None))
"""Companies 1 to 6 with two records each, and two records without subject."""


def middle() -> tuple[SubjectProof, int]:
    """A company with a neighbour on both sides that is a company, and its number."""
    for of in range(1, 7):
        made = proof_of(TREE, of)
        if made.left is not None and made.right is not None and made.left.tag != bytes(16):
            return made, of
    raise AssertionError


GOOD, COMPANY = middle()


def hidden_record() -> SubjectProof:
    return replace(GOOD, records=GOOD.records[:1])


def hidden_first_record() -> SubjectProof:
    return replace(GOOD, records=GOOD.records[1:])


def all_hidden() -> SubjectProof:
    return replace(GOOD, records=())


def hidden_behind_the_right_neighbour() -> SubjectProof:
    return replace(GOOD, records=GOOD.records[:1], right=GOOD.records[1].place)


def hidden_behind_the_left_neighbour() -> SubjectProof:
    return replace(GOOD, records=GOOD.records[1:], left=GOOD.records[0].place)


def shifted_left() -> SubjectProof:
    assert GOOD.left is not None
    return replace(GOOD, left=place(TREE, GOOD.left.index - 1))


def shifted_right() -> SubjectProof:
    assert GOOD.right is not None
    return replace(GOOD, right=place(TREE, GOOD.right.index + 1))


def wrong_index() -> SubjectProof:
    assert GOOD.left is not None
    return replace(GOOD, left=replace(GOOD.left, index=GOOD.left.index - 1))


def no_left() -> SubjectProof:
    return replace(GOOD, left=None)


def no_right() -> SubjectProof:
    return replace(GOOD, right=None)


def another_companys_record() -> SubjectProof:
    assert GOOD.right is not None
    return replace(
        GOOD, records=(*GOOD.records, shown(TREE, GOOD.right.index)), right=place(TREE, GOOD.right.index + 1)
    )


def record_without_subject() -> SubjectProof:
    return replace(GOOD, records=(shown(TREE, 0),), left=None, right=place(TREE, 1))


def opened_as_another() -> SubjectProof:
    first = GOOD.records[0]
    other = canonical(PERMITS, {**permit(999), "uscc": company(COMPANY)})
    return replace(GOOD, records=(replace(first, record=other), *GOOD.records[1:]))


def record_twice() -> SubjectProof:
    return replace(GOOD, records=(GOOD.records[0], GOOD.records[0]))


def sealed() -> SubjectProof:
    return replace(GOOD, descriptor=replace(descriptor("sealed"), receiver=""))


def delivery() -> SubjectProof:
    return replace(GOOD, descriptor=descriptor("delivery"))


def another_subject() -> SubjectProof:
    return replace(GOOD, subject=company(77))


def unnamed_understated() -> SubjectProof:
    return replace(GOOD, last_unnamed=None, first_named=place(TREE, 0))


def unnamed_overstated() -> SubjectProof:
    return replace(GOOD, last_unnamed=place(TREE, 2), first_named=place(TREE, 3))


def unnamed_left_out() -> SubjectProof:
    return replace(GOOD, last_unnamed=None, first_named=None)


def withdrawal_shown() -> SubjectProof:
    first = GOOD.records[0]
    data = withdrawal(PERMITS, {"no": "A-1"}, "revoked")
    return replace(GOOD, records=(replace(first, record=data), *GOOD.records[1:]))


def not_in_normal_form() -> SubjectProof:
    return replace(GOOD, subject=f" {company(COMPANY)}")


def protected_subject() -> SubjectProof:
    return replace(GOOD, subject="92440101MA5000000X")


def own_path() -> SubjectProof:
    first = GOOD.records[0]
    path = (bytes(32), *first.place.path[1:])
    return replace(GOOD, records=(replace(first, place=replace(first.place, path=path)), *GOOD.records[1:]))


FORGED: dict[Callable[[], SubjectProof], str] = {
    hidden_record: "evidence.right_neighbour",
    hidden_first_record: "evidence.left_neighbour",
    all_hidden: "evidence.right_neighbour",
    hidden_behind_the_right_neighbour: "evidence.right_neighbour",
    hidden_behind_the_left_neighbour: "evidence.left_neighbour",
    shifted_left: "evidence.left_neighbour",
    shifted_right: "evidence.right_neighbour",
    wrong_index: "path.root",
    no_left: "evidence.left_neighbour",
    no_right: "evidence.right_neighbour",
    another_companys_record: "evidence.other_subject",
    record_without_subject: "evidence.other_subject",
    opened_as_another: "evidence.commitment",
    record_twice: "evidence.record_twice",
    sealed: "evidence.not_snapshot",
    delivery: "evidence.not_snapshot",
    another_subject: "evidence.other_subject",
    unnamed_understated: "evidence.unnamed",
    unnamed_overstated: "evidence.unnamed",
    unnamed_left_out: "evidence.unnamed",
    withdrawal_shown: "evidence.snapshot_withdrawal",
    not_in_normal_form: "evidence.subject_form",
    protected_subject: "evidence.subject_protected",
    own_path: "path.root",
}


def test_the_good_one_is_good() -> None:
    assert verify(GOOD, TREE) == (2, 2)


@pytest.mark.parametrize("forge", FORGED, ids=lambda forge: forge.__name__)
def test_every_forged_one_is_refused_by_name(forge: Callable[[], SubjectProof]) -> None:
    with pytest.raises(EvidenceError) as refused:
        verify(forge(), TREE)
    assert refused.value.code == FORGED[forge]


def test_a_record_tagged_with_another_company_hides_from_nobody() -> None:
    """The sender tags a record of company 3 with company 5's tag: neither can be proved complete with it."""
    lie = row(70, 3)
    entry = keys.public_subject_tag(PERMITS, company(5)) + entry_of(lie)[16:]
    tree = sorted([*tree_of(row(1, 3), row(2, 5)), (entry, lie)], key=lambda it: it[0])
    assert verify(proof_of(tree, 3), tree)[0] == 1  # it is not there: the tree's owner answers for that
    with pytest.raises(EvidenceError) as refused:
        verify(proof_of(tree, 5), tree)
    assert refused.value.code == "evidence.other_subject"


def test_an_unsorted_tree_proves_no_absence() -> None:
    """The entries of company 4 stand at the end, behind what is above them: each place verifies, the order does not."""
    mine = [it for it in TREE if it[1] is not None and it[1]["uscc"] == company(COMPANY)]
    rest = [it for it in TREE if it not in mine]
    tree = rest + mine
    tag = keys.public_subject_tag(PERMITS, company(COMPANY))
    first = sum(entry[:16] < tag for entry, _ in rest)
    named = sum(entry[:16] == bytes(16) for entry, _ in tree)
    absent = replace(
        GOOD,
        records=(),
        left=place(tree, first - 1),
        right=place(tree, first),
        last_unnamed=place(tree, named - 1),
        first_named=place(tree, named),
    )
    # Under this root the absence verifies, and so does a proof of presence of the very same records: two statements of one party that
    # contradict each other, which show that its tree is invalid.
    assert verify(absent, tree) == (0, 2)
    present = replace(
        absent,
        records=(shown(tree, len(rest)), shown(tree, len(rest) + 1)),
        left=place(tree, len(rest) - 1),
        right=None,
    )
    with pytest.raises(EvidenceError) as refused:
        verify(present, tree)
    assert refused.value.code == "evidence.left_neighbour"


def test_another_size_or_root_is_refused() -> None:
    last = next(made for made in (proof_of(TREE, of) for of in range(1, 7)) if made.right is None)
    tag = check_subject(last)
    assert check_places(last, tag, len(TREE), root_of(TREE)) == 2
    # One path fits several sizes: what tells them apart is that nothing may stand behind the last index.
    for size, root in ((len(TREE) + 1, root_of(TREE)), (len(TREE) - 1, root_of(TREE)), (len(TREE), bytes(32))):
        with pytest.raises(EvidenceError):
            check_places(last, tag, size, root)
    with pytest.raises(EvidenceError) as refused:
        check_places(last, tag, 0, merkle.EMPTY_ROOT)
    assert refused.value.code == "evidence.size"


def test_an_empty_snapshot_has_no_record_of_anybody() -> None:
    empty = replace(GOOD, records=(), left=None, right=None, last_unnamed=None, first_named=None)
    assert check_places(empty, check_subject(empty), 0, merkle.EMPTY_ROOT) == 0
    with pytest.raises(EvidenceError) as refused:
        check_places(empty, check_subject(empty), len(TREE), root_of(TREE))
    assert refused.value.code == "evidence.size"


def test_no_character_of_a_file_can_be_edited_unnoticed() -> None:
    data = dump_subject(GOOD)
    tag = check_subject(GOOD)
    good = (GOOD.subject, [it.record for it in GOOD.records])
    for at in range(0, len(data), 7):
        edited = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        try:
            read = parse_subject(edited)
            check_records(read, check_subject(read))
            check_places(read, tag, len(TREE), root_of(TREE))
        except LedgerError:
            continue
        # What passes says the same of the same subject; chain, contract, hints and descriptor are the chain's to check.
        assert (read.subject, [it.record for it in read.records]) == good


def test_paths_made_at_once_are_those_made_one_by_one() -> None:
    for size in range(18):
        entries = [bytes([n]) for n in range(size)]
        found, root, paths = merkle.inclusion_paths(entries, range(size))
        assert (found, root) == merkle.root_of(entries)
        assert paths == [merkle.inclusion_path(entries, at) for at in range(size)]
    with pytest.raises(IndexError):
        merkle.inclusion_paths([b"a"], [1])
