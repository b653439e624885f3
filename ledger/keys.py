"""Exchange keys and what is made with them: commitments, tags, entries (formats F4).

In go a 32-byte key, a catalog and the bytes of `record.py`; out come 64-byte entries. Everything here is SHA-256, HMAC
and HKDF (RFC 2104, RFC 5869) from the standard library. No secret is ever part of a `repr` or a message.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field

from ledger.catalog import Catalog
from ledger.errors import InputError

TAG_SIZE = 16
ENTRY_SIZE = 64
NO_SUBJECT = bytes(TAG_SIZE)
"""The subject tag of a record without a subject."""
KEY_FILE = re.compile(rb"[0-9a-f]{64}\n?")


def hkdf(secret: bytes, info: bytes) -> bytes:
    """HKDF-SHA-256 (RFC 5869) without salt, 32 bytes of output: one block of its section 2.3."""
    extracted = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


@dataclass(frozen=True)
class CatalogKeys:
    """What one exchange key becomes for one catalog; four keys of 32 bytes, the last of which is public."""

    catalog: Catalog
    commitment: bytes = field(repr=False)
    key: bytes = field(repr=False)
    subject: bytes = field(repr=False)
    public_subject: bytes

    def salt(self, digest: bytes) -> bytes:
        """The salt that opens a record of digest SHA-256(canonical bytes)."""
        return hmac.digest(self.commitment, digest, "sha256")

    def commit(self, canonical: bytes) -> tuple[bytes, bytes, bytes]:
        """Digest, salt and commitment of canonical bytes, 32 bytes each."""
        digest = hashlib.sha256(canonical).digest()
        salt = self.salt(digest)
        return digest, salt, commitment(digest, salt)

    def key_tag(self, record_key: bytes) -> bytes:
        """16 bytes that stand for a record key (`record.record_key`)."""
        return hmac.digest(self.key, record_key, "sha256")[:TAG_SIZE]

    def subject_tag(self, value: str | None) -> bytes:
        """16 bytes that stand for the subject's normal form; zeros without a subject."""
        if self.catalog.subject is None or value is None:
            return NO_SUBJECT
        secret = self.public_subject if self.catalog.is_public(value) else self.subject
        return hmac.digest(secret, value.encode(), "sha256")[:TAG_SIZE]

    def entry(self, subject_tag: bytes, key_tag: bytes, commitment: bytes) -> bytes:
        """The 64 bytes that stand for one record version or withdrawal."""
        if (len(subject_tag), len(key_tag), len(commitment)) != (TAG_SIZE, TAG_SIZE, 32):
            raise ValueError("an entry is two tags of 16 bytes and a commitment of 32")
        return subject_tag + key_tag + commitment


@dataclass(frozen=True)
class ExchangeKey:
    """The 32-byte secret of one pair of parties (or of one party for its own source) and one epoch."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != 32:
            raise ValueError("an exchange key has 32 bytes")

    @property
    def id(self) -> bytes:
        """8 bytes that name the key in descriptors and messages."""
        return hashlib.sha256(b"duizhang/1/key-id" + self.secret).digest()[:8]

    def for_catalog(self, catalog: Catalog) -> CatalogKeys:
        """The keys for one catalog; derived at each call, so keep the result for a batch."""
        name = catalog.id.encode()
        return CatalogKeys(
            catalog,
            commitment=hkdf(self.secret, b"duizhang/1/commitment/" + name),
            key=hkdf(self.secret, b"duizhang/1/key/" + name),
            subject=hkdf(self.secret, b"duizhang/1/subject/" + name),
            public_subject=public_subject_key(catalog),
        )


def parse_key(data: bytes, where: str) -> ExchangeKey:
    """The key in a key file: 64 lower-case hex digits and at most one line feed. InputError `key.form` otherwise."""
    if not KEY_FILE.fullmatch(data):
        # Never shows what it read: a damaged key is still most of a secret.
        raise InputError(
            "key.form",
            "密钥文件须为 64 位小写十六进制数字，其后至多一个换行符",
            "a key file holds 64 lower-case hex digits and at most one line feed",
            where,
        )
    return ExchangeKey(bytes.fromhex(data[:64].decode()))


def digest(canonical: bytes) -> bytes:
    """SHA-256 of canonical bytes, `d` in F4."""
    return hashlib.sha256(canonical).digest()


def commitment(digest: bytes, salt: bytes) -> bytes:
    """The commitment that `salt` opens to the canonical bytes of SHA-256 `digest`; needs no key."""
    if (len(digest), len(salt)) != (32, 32):
        raise ValueError("digest and salt have 32 bytes each")
    return hashlib.sha256(salt + digest).digest()


def public_subject_key(catalog: Catalog) -> bytes:
    """The key of public subject tags, known to everyone."""
    return hashlib.sha256(b"duizhang/1/public-subject/" + catalog.id.encode()).digest()


def public_subject_tag(catalog: Catalog, value: str) -> bytes:
    """The tag of a subject that is public under `catalog`; needs no key. ValueError if `value` is not public there."""
    if not catalog.is_public(value):
        raise ValueError(f"not a public subject of {catalog.name}; its tag needs the exchange key")
    return hmac.digest(public_subject_key(catalog), value.encode(), "sha256")[:TAG_SIZE]
