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
    LargeBinary,
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
Purpose = Literal["anchor", "register", "move", "deploy", "attest", "dispute"]
TransactionState = Literal["signed", "sent", "mined", "confirmed", "replaced"]
ConsentAction = Literal["accept", "withdraw"]
ArrivalState = Literal["received", "anchored", "superseded"]
ReconciliationState = Literal["queued", "running", "finished", "failed", "interrupted"]
FindingState = Literal["new", "assigned", "explained", "settled"]
RestoreState = Literal["intent", "applied", "failed"]
ErasureState = Literal["intent", "done"]
ClosingReason = Literal["final", "deadline"]
NoticeState = Literal["waiting", "sent", "failed"]
Channel = Literal["webhook", "mail"]

EMPTY_ROOT = sha256(b"").hexdigest()  # formats F5: the root of no entries

OPEN_CLAIM = text("state IN ('intent', 'sent')")
MINED = text("state IN ('mined', 'confirmed')")
UNDECIDED = text("decided_at IS NULL")
RUNNING = text("state = 'running'")


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


def _day(column: str) -> CheckConstraint:
    return _check(f"{column}_day", f"{column} LIKE '____-__-__'")


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
    sketch: Mapped[bytes | None] = mapped_column(LargeBinary, default=None)  # encrypted, as it goes on chain
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
    proposed_by: Mapped[str | None] = mapped_column(default=None)  # where a second person must agree: who asked first


class Proposal(Base):
    """A change or removal that one person asked for and a second one must agree to before it becomes a consent.

    `commitment` is that of the row as it was when asked for (empty for `withdraw`): another row asks anew.
    """

    __tablename__ = "proposal"
    __table_args__ = (
        Index(
            "uq_proposal_open",
            "catalog_id",
            "action",
            "key_tag",
            unique=True,
            sqlite_where=UNDECIDED,
            postgresql_where=UNDECIDED,
        ),
        _hex("key_tag", 32),
        _one_of("action", ConsentAction),
        _check(
            "commitment_hex",
            "commitment = '' OR (length(commitment) = 64 AND trim(commitment, '0123456789abcdef') = '')",
        ),
        _check("reason_given", "reason <> ''"),
        _check("proposed_by_given", "proposed_by <> ''"),
        _utc("created_at"),
        _utc("decided_at"),
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    catalog_id: Mapped[str]
    action: Mapped[ConsentAction] = mapped_column(Text)
    key_tag: Mapped[str]
    commitment: Mapped[str]
    reason: Mapped[str]
    proposed_by: Mapped[str]
    created_at: Mapped[str]
    decided_at: Mapped[str | None]


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


class Reconciliation(Base):
    """One reconciliation of a catalog's source, asked for by a command, the night or the API.

        queued ──> running ──> finished | failed
                     │  ^
                     │  └── (its worker died: queued again, once)
                     └────> interrupted

    A catalog has at most one running. `scope` is the JSON of what part was asked for, `{}` for all; `report` the JSON of
    the answer without its findings, which stand in `found`; `error` the JSON of what stopped it.
    """

    __tablename__ = "reconciliation"
    __table_args__ = (
        Index("ix_reconciliation_catalog_id_created_at", "catalog_id", "created_at"),
        Index("uq_reconciliation_running", "catalog_id", unique=True, sqlite_where=RUNNING, postgresql_where=RUNNING),
        _hex("id", 32),
        _check("catalog_given", "catalog_id <> ''"),
        _check("requested_by_given", "requested_by <> ''"),
        _one_of("state", ReconciliationState),
        _check("attempts_counts", "attempts >= 0"),
        _check("progress_counts", "progress_rows >= 0"),
        *_only_when("state IN ('finished', 'failed', 'interrupted')", "finished_at"),
        *_only_when("state = 'finished'", "verdict", "exit_code", "report"),
        *_only_when("state IN ('failed', 'interrupted')", "error"),
        _check(
            "running_has_a_worker",
            "state <> 'running' OR (worker IS NOT NULL AND started_at IS NOT NULL AND heartbeat_at IS NOT NULL)",
        ),
        _check("exit_code_known", "exit_code IN (0, 1, 2)"),
        _utc("created_at"),
        _utc("started_at"),
        _utc("heartbeat_at"),
        _utc("finished_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)  # microseconds and chance, in hex: it sorts by time
    catalog_id: Mapped[str]
    scope: Mapped[str]
    requested_by: Mapped[str]
    state: Mapped[ReconciliationState] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(default=0)
    progress_rows: Mapped[int] = mapped_column(default=0)
    worker: Mapped[str | None]
    created_at: Mapped[str]
    started_at: Mapped[str | None]
    heartbeat_at: Mapped[str | None]
    finished_at: Mapped[str | None]
    verdict: Mapped[str | None]
    exit_code: Mapped[int | None]
    report: Mapped[str | None]
    error: Mapped[str | None]


class Found(Base):
    """A finding as one reconciliation reported it; `document` is its JSON, personal values masked. `ordinal` counts from 0
    in the report's order."""

    __tablename__ = "found"
    __table_args__ = (
        Index("ix_found_reconciliation_id_kind", "reconciliation_id", "kind"),
        _check("ordinal_counts", "ordinal >= 0"),
        _hex("key_tag", 32),
        _check("kind_given", "kind <> ''"),
    )

    reconciliation_id: Mapped[str] = mapped_column(
        ForeignKey("reconciliation.id", ondelete="CASCADE"), primary_key=True
    )
    ordinal: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str]
    key_tag: Mapped[str | None]
    batch: Mapped[str | None]
    state: Mapped[str]  # of the finding at that time
    document: Mapped[str]


class Tracked(Base):
    """A finding as people work it, across reconciliations; named by catalog, key and kind.

        new ──> assigned ──> explained (until a day, then it is new again)
          └────────┴─────────────┴────> settled (a later reconciliation no longer finds it; found again, it is new)

    `first_run` and `last_run` are the reconciliations that saw it first and last; they may have been pruned.
    """

    __tablename__ = "finding"
    __table_args__ = (
        UniqueConstraint("catalog_id", "key_tag", "kind"),
        Index("ix_finding_state", "state"),
        _hex("key_tag", 32),
        _hex("content", 64),
        _check("kind_given", "kind <> ''"),
        _one_of("state", FindingState),
        *_only_when("state = 'settled'", "settled_at", "settled_by"),
        *_only_when("state = 'explained'", "explained_until"),
        _check("assigned_to_somebody", "state <> 'assigned' OR assigned_to IS NOT NULL"),
        _check("explained_with_reason", "state <> 'explained' OR reason IS NOT NULL"),
        _day("explained_until"),
        _utc("changed_at"),
        _utc("first_seen_at"),
        _utc("last_seen_at"),
        _utc("told_at"),
        _utc("settled_at"),
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    catalog_id: Mapped[str]
    key_tag: Mapped[str]
    kind: Mapped[str]
    key: Mapped[str | None]  # JSON, personal values masked; null where only the tag is known
    batch: Mapped[str | None]
    state: Mapped[FindingState] = mapped_column(Text)
    assigned_to: Mapped[str | None]
    explained_until: Mapped[str | None]
    reason: Mapped[str | None]
    changed_by: Mapped[str | None]
    changed_at: Mapped[str | None]
    first_seen_at: Mapped[str]
    first_run: Mapped[str]
    last_seen_at: Mapped[str]
    last_run: Mapped[str]
    told_at: Mapped[str | None]  # when the first nightly report that has it was recorded
    read_mark: Mapped[str]  # when the newest reading that spoke of it began, in microseconds, hex
    content: Mapped[str | None]  # SHA-256 of what was expected and observed; null where values were shown instead
    settled_at: Mapped[str | None]
    settled_by: Mapped[str | None]


class Token(Base):
    """A bearer token of the API; the secret itself is shown once and never stored."""

    __tablename__ = "token"
    __table_args__ = (
        _hex("secret_sha256", 64),
        _check("name_given", "name <> ''"),
        _check("scopes_given", "scopes <> ''"),
        _utc("created_at"),
        _utc("expires_at"),
        _utc("revoked_at"),
        _utc("last_used_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    secret_sha256: Mapped[str]
    scopes: Mapped[str]  # read verify reconcile admin, separated by blanks
    created_at: Mapped[str]
    expires_at: Mapped[str]
    revoked_at: Mapped[str | None]
    last_used_at: Mapped[str | None]


class Restore(Base):
    """One `restore --apply`: the intent before the source was touched, and what became of it. Never holds values."""

    __tablename__ = "restore"
    __table_args__ = (
        _check("approved_by_given", "approved_by <> ''"),
        _one_of("state", RestoreState),
        *_only_when("state IN ('applied', 'failed')", "finished_at"),
        _utc("started_at"),
        _utc("finished_at"),
        _utc("told_at"),
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    catalog_id: Mapped[str]
    approved_by: Mapped[str]
    state: Mapped[RestoreState] = mapped_column(Text)
    document: Mapped[str]  # JSON: what each row was to become and what happened
    started_at: Mapped[str]
    finished_at: Mapped[str | None]
    told_at: Mapped[str | None]  # when a brief told of it


class Erasure(Base):
    """A record whose plaintext was removed here for good (design section 4); its commitment stays anchored.

    Named by its key tag in one stream, whatever series the tag belongs to. `files` is the JSON list of files (relative to the
    workspace) that held the plaintext and are to be gone when the state is `done`.
    """

    __tablename__ = "erasure"
    __table_args__ = (
        UniqueConstraint("catalog_id", "sender_party", "receiver_party", "key_tag"),
        _hex("key_tag", 32),
        _check("reason_given", "reason <> ''"),
        _check("approved_by_given", "approved_by <> ''"),
        _one_of("state", ErasureState),
        *_only_when("state = 'done'", "finished_at"),
        _utc("created_at"),
        _utc("finished_at"),
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    catalog_id: Mapped[str]
    sender_party: Mapped[str]
    receiver_party: Mapped[str]
    key_tag: Mapped[str]
    reason: Mapped[str]
    approved_by: Mapped[str]
    files: Mapped[str]
    state: Mapped[ErasureState] = mapped_column(Text)
    created_at: Mapped[str]
    finished_at: Mapped[str | None]


class Closing(Base):
    """A batch that this workspace, as receiver, looks at no more: what it holds stands, whatever lands later."""

    __tablename__ = "closing"
    __table_args__ = (_one_of("reason", ClosingReason), _utc("closed_at"))

    batch_id: Mapped[str] = mapped_column(ForeignKey("batch.id"), primary_key=True)
    reason: Mapped[ClosingReason] = mapped_column(Text)
    closed_at: Mapped[str]


class Declaration(Base):
    """What a catalog declared when batches were anchored under it: batches outlive the catalog file that made them."""

    __tablename__ = "declaration"
    __table_args__ = (_hex("digest", 64), _check("text_given", "text <> ''"), _utc("created_at"))

    digest: Mapped[str] = mapped_column(primary_key=True)  # SHA-256 of `text`, the catalog digest of formats F1
    text: Mapped[str]
    created_at: Mapped[str]


class NotCarried(Base):
    """A key that a bridge to a new series left behind: its row did not verify under the old one. `key_tag` is the old one's."""

    __tablename__ = "not_carried"
    __table_args__ = (_hex("key_tag", 32),)

    batch_id: Mapped[str] = mapped_column(
        ForeignKey("batch.id"), primary_key=True
    )  # the bridge's batch of the new series
    key_tag: Mapped[str] = mapped_column(primary_key=True)


class Notice(Base):
    """An outcome that must be told, stored before it is sent; told at least once, always under the same id."""

    __tablename__ = "notice"
    __table_args__ = (
        _hex("id", 32),
        _one_of("channel", Channel),
        _one_of("state", NoticeState),
        _check("attempts_counts", "attempts >= 0"),
        *_only_when("state = 'sent'", "sent_at"),
        _utc("created_at"),
        _utc("sent_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)  # uuid4, hex
    channel: Mapped[Channel] = mapped_column(Text)
    body: Mapped[str]  # JSON
    state: Mapped[NoticeState] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(default=0)
    error: Mapped[str | None]
    created_at: Mapped[str]
    sent_at: Mapped[str | None]


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
