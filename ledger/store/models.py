"""The tables of the store.

Hex is lower case without 0x, addresses are 0x and lower case, times are UTC text `YYYY-MM-DDThh:mm:ssZ` (they sort as
text and no driver gives them a zone). Constraints refuse what cannot be: a claim that is confirmed without a block, two
open claims for one batch, an empty set with another root than the empty tree's. `migrations/` builds the same tables; a
test compares both, statement by statement.
"""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Literal, get_args

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Connection,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Text,
    UniqueConstraint,
    event,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Mapper, mapped_column, object_session

BatchKind = Literal["delivery", "sealed", "correction", "snapshot"]
Role = Literal["lawful", "held"]
ClaimState = Literal["intent", "sent", "confirmed", "overtaken"]
Purpose = Literal["anchor", "register", "move", "deploy"]
TransactionState = Literal["signed", "sent", "mined", "confirmed", "replaced"]
ConsentAction = Literal["accept", "withdraw"]
ArrivalState = Literal["received", "anchored", "superseded"]

EMPTY_ROOT = sha256(b"").hexdigest()  # formats F5: the root of no entries

OPEN_CLAIM = text("state IN ('intent', 'sent')")
MINED = text("state IN ('mined', 'confirmed')")


def utc_text(moment: datetime) -> str:
    """`moment` as the store writes times, to the second; a moment without a zone is refused (ValueError)."""
    if moment.tzinfo is None:
        raise ValueError("a moment without a zone cannot be stored")
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class Base(DeclarativeBase):
    """All tables; constraints are named so that a later migration can speak of them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {str: Text, int: BigInteger}  # noqa: RUF012 - read by SQLAlchemy when the class is made


def _check(name: str, condition: str) -> CheckConstraint:
    return CheckConstraint(condition, name=name)


def _hex(column: str, digits: int) -> CheckConstraint:
    # trim() leaves nothing exactly if every character is a digit; GLOB and ~ would each know one database only.
    return _check(f"{column}_hex", f"length({column}) = {digits} AND trim({column}, '0123456789abcdef') = ''")


def _address(column: str, *, or_empty: bool = False) -> CheckConstraint:
    form = (
        f"length({column}) = 42 AND substr({column}, 1, 2) = '0x' "
        f"AND trim(substr({column}, 3), '0123456789abcdef') = ''"
    )
    return _check(f"{column}_address", f"{column} = '' OR ({form})" if or_empty else form)


def _utc(column: str) -> CheckConstraint:
    return _check(f"{column}_utc", f"{column} LIKE '____-__-__T__:__:__Z'")


def _one_of(column: str, values: object) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in get_args(values))
    return _check(f"{column}_known", f"{column} IN ({listed})")


def _only_when(condition: str, *columns: str) -> list[CheckConstraint]:
    """Each column is filled in exactly the rows that meet `condition`."""
    return [_check(f"{column}_filled", f"({condition}) = ({column} IS NOT NULL)") for column in columns]


class Batch(Base):
    """A batch that this workspace sends, seals or receives (formats F7). Never changed once written.

    `sender_party` and `receiver_party` are the names the addresses belonged to when the row was written.
    """

    __tablename__ = "batch"
    __table_args__ = (
        UniqueConstraint("catalog_id", "sender_party", "receiver_party", "number"),
        _hex("id", 64),
        _check("catalog_version_positive", "catalog_version >= 1"),
        _check("number_given", "number <> ''"),
        _one_of("kind", BatchKind),
        _address("sender"),
        _address("receiver", or_empty=True),
        _check("sender_is_not_receiver", "sender <> receiver"),
        _check("sender_party_given", "sender_party <> ''"),
        _check("receiver_named", "(receiver = '') = (receiver_party = '')"),
        _check("delivery_has_receiver", "kind <> 'delivery' OR receiver <> ''"),
        _check("sealed_has_none", "kind <> 'sealed' OR receiver = ''"),
        _utc("created_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)  # SHA-256 of `descriptor`
    descriptor: Mapped[str]
    catalog_id: Mapped[str]
    catalog_version: Mapped[int]
    number: Mapped[str]
    kind: Mapped[BatchKind] = mapped_column(Text)
    period: Mapped[str]
    sender: Mapped[str]
    receiver: Mapped[str]  # empty: the batch has no receiver
    sender_party: Mapped[str]
    receiver_party: Mapped[str]
    created_at: Mapped[str]


class EntrySet(Base):
    """The entries of one batch as one side sees them.

    `lawful`: the sender's, whose root is the sender's anchor (or is to become it when this workspace is the sender).
    `held`: what the receiver found landed. The files are named relative to the workspace and never change.
    """

    __tablename__ = "entry_set"
    __table_args__ = (
        UniqueConstraint("id", "batch_id"),  # what a claim's pair refers to
        UniqueConstraint("batch_id", "role", "root"),
        _one_of("role", Role),
        _check("size_counts", "size >= 0"),
        _hex("root", 64),
        _check("empty_root", f"(size = 0) = (root = '{EMPTY_ROOT}')"),
        _check("entries_file_given", "entries_file <> ''"),
        _hex("entries_sha256", 64),
        _check("archive_with_key", "(archive_file IS NULL) = (archive_key_wrapped IS NULL)"),
        _utc("created_at"),
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    batch_id: Mapped[str] = mapped_column(ForeignKey("batch.id"))
    role: Mapped[Role] = mapped_column(Text)
    size: Mapped[int]
    root: Mapped[str]
    entries_file: Mapped[str]
    entries_sha256: Mapped[str]
    archive_file: Mapped[str | None]
    archive_key_wrapped: Mapped[str | None]
    created_at: Mapped[str]
    published: Mapped[bool] = mapped_column(default=False)


class Claim(Base):
    """This party's anchor of an entry set, from the intent on.

        intent ──> sent ──> confirmed
           │         │
           └─────────┴────> overtaken   (the contract holds another revision than `known_revisions` expected)

    `intent` may already have its signed transaction; what the chain said is filled in when confirmed, never before. One
    batch has at most one open claim, so two jobs cannot both anchor it.
    """

    __tablename__ = "claim"
    __table_args__ = (
        ForeignKeyConstraint(["entry_set_id", "batch_id"], ["entry_set.id", "entry_set.batch_id"]),
        UniqueConstraint("batch_id", "revision"),
        UniqueConstraint("sequence"),
        Index("uq_claim_open", "batch_id", unique=True, sqlite_where=OPEN_CLAIM, postgresql_where=OPEN_CLAIM),
        _check("known_revisions_counts", "known_revisions >= 0"),
        _one_of("state", ClaimState),
        _check("sent_by_a_transaction", "state <> 'sent' OR transaction_id IS NOT NULL"),
        *_only_when(
            "state = 'confirmed'",
            "revision",
            "sequence",
            "position",
            "block_number",
            "chain_time",
            "confirmed_at",
        ),
        _check("chain_counts", "revision >= 0 AND sequence >= 0 AND position >= 0 AND block_number >= 0"),
        _utc("chain_time"),
        _utc("created_at"),
        _utc("confirmed_at"),
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    batch_id: Mapped[str] = mapped_column(ForeignKey("batch.id"))
    entry_set_id: Mapped[int] = mapped_column(Integer)
    known_revisions: Mapped[int]
    state: Mapped[ClaimState] = mapped_column(Text)
    transaction_id: Mapped[int | None] = mapped_column(Integer, ForeignKey("outbox.id"))
    revision: Mapped[int | None]
    sequence: Mapped[int | None]
    position: Mapped[int | None]
    block_number: Mapped[int | None]
    chain_time: Mapped[str | None]
    created_at: Mapped[str]
    confirmed_at: Mapped[str | None]


class Transaction(Base):
    """A signed transaction, stored before it is sent: after a time-out the same bytes are looked up or sent again.

        signed ──> sent ──> mined ──> confirmed
                    │  <──────┘ (the block was reorganised away)
                    └────> replaced   (another transaction took the nonce)

    A nonce has at most one mined transaction.
    """

    __tablename__ = "outbox"
    __table_args__ = (
        UniqueConstraint("hash"),
        UniqueConstraint("address", "nonce", "hash"),
        Index("uq_outbox_mined", "address", "nonce", unique=True, sqlite_where=MINED, postgresql_where=MINED),
        _one_of("purpose", Purpose),
        _address("address"),
        _check("nonce_counts", "nonce >= 0"),
        _check("raw_hex", "raw <> '' AND length(raw) % 2 = 0 AND trim(raw, '0123456789abcdef') = ''"),
        _hex("hash", 64),
        _one_of("state", TransactionState),
        *_only_when("state IN ('mined', 'confirmed')", "block_number", "block_hash"),
        _hex("block_hash", 64),
        _utc("created_at"),
        _utc("updated_at"),
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    purpose: Mapped[Purpose] = mapped_column(Text)
    address: Mapped[str]
    nonce: Mapped[int]
    raw: Mapped[str]
    hash: Mapped[str]
    state: Mapped[TransactionState] = mapped_column(Text)
    block_number: Mapped[int | None]
    block_hash: Mapped[str | None]
    error: Mapped[str | None]  # what node or chain last answered, when that was not success
    created_at: Mapped[str]
    updated_at: Mapped[str]


class Consent(Base):
    """A named key whose change or removal someone made lawful (design section 4), with the reason and who said so."""

    __tablename__ = "consent"
    __table_args__ = (
        UniqueConstraint("batch_id", "key_tag"),
        _hex("key_tag", 32),
        _one_of("action", ConsentAction),
        _check("reason_given", "reason <> ''"),
        _check("approved_by_given", "approved_by <> ''"),
        _utc("created_at"),
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    batch_id: Mapped[str] = mapped_column(ForeignKey("batch.id"))
    key_tag: Mapped[str]
    action: Mapped[ConsentAction] = mapped_column(Text)
    reason: Mapped[str]
    approved_by: Mapped[str]
    created_at: Mapped[str]


class Baseline(Base):
    """A key of a delivery source that no batch knows, as of the last receive: what was there before is not new."""

    __tablename__ = "baseline"
    __table_args__ = (_hex("key_tag", 32), _utc("first_seen_at"))

    catalog_id: Mapped[str] = mapped_column(primary_key=True)
    sender_party: Mapped[str] = mapped_column(primary_key=True)
    key_tag: Mapped[str] = mapped_column(primary_key=True)
    first_seen_at: Mapped[str]


class Arrival(Base):
    """A delivered file that was received for a batch; a file is taken once, by its content."""

    __tablename__ = "arrival"
    __table_args__ = (
        UniqueConstraint("batch_id", "file_sha256"),
        _hex("file_sha256", 64),
        _check("rows_counts", "rows >= 0"),
        _one_of("state", ArrivalState),
        _utc("received_at"),
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    batch_id: Mapped[str] = mapped_column(ForeignKey("batch.id"))
    file_sha256: Mapped[str]
    file_name: Mapped[str]
    rows: Mapped[int]
    received_at: Mapped[str]
    state: Mapped[ArrivalState] = mapped_column(Text)


class Chain(Base):
    """The one chain this workspace trusts, and the block it remembers; a single row.

    `origin_*` is the identity block (number 1 or more), `code_sha256` the SHA-256 of the contract's code.
    """

    __tablename__ = "chain"
    __table_args__ = (
        _check("single", "id = 1"),
        _check("chain_id_positive", "chain_id >= 1"),
        _address("contract"),
        _hex("code_sha256", 64),
        _check("origin_number_positive", "origin_number >= 1"),
        _hex("origin_hash", 64),
        _check("block_number_counts", "block_number >= 0"),
        _hex("block_hash", 64),
        _utc("updated_at"),
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True, default=1, autoincrement=False)
    chain_id: Mapped[int]
    contract: Mapped[str]
    code_sha256: Mapped[str]
    origin_number: Mapped[int]
    origin_hash: Mapped[str]
    block_number: Mapped[int]
    block_hash: Mapped[str]
    updated_at: Mapped[str]


class Run(Base):
    """One command that wrote; unfinished means it was interrupted."""

    __tablename__ = "run"
    __table_args__ = (
        _check("finished_with_exit_code", "(finished_at IS NULL) = (exit_code IS NULL)"),
        _check("exit_code_known", "exit_code IN (0, 1, 2)"),
        _utc("started_at"),
        _utc("finished_at"),
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    command: Mapped[str]
    started_at: Mapped[str]
    finished_at: Mapped[str | None]
    exit_code: Mapped[int | None]
    outcome: Mapped[str | None]  # JSON


@event.listens_for(Batch, "before_insert")
def _id_is_hash_of_descriptor(mapper: Mapper[Any], connection: Connection, batch: Batch) -> None:
    # No portable SQL can say this one; a wrong id would only show at the next fsck.
    if sha256(batch.descriptor.encode()).hexdigest() != batch.id:
        raise ValueError(f"batch id {batch.id} is not the SHA-256 of its descriptor")


@event.listens_for(Batch, "before_update")
def _batches_never_change(mapper: Mapper[Any], connection: Connection, batch: Batch) -> None:
    session = object_session(batch)
    if session is None or session.is_modified(batch):
        raise ValueError(f"batch {batch.id} was written and never changes")
