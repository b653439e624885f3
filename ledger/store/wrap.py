"""The archive key: it wraps the random key of each archive file, so that the wrapped form may lie in the store."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ledger.errors import InputError, StoreError

KEY_BYTES = 32

_ID_BYTES = 8
_NONCE_BYTES = 12
_WRAPPED_BYTES = _ID_BYTES + _NONCE_BYTES + KEY_BYTES + 16


def archive_key_id(archive_key: bytes) -> bytes:
    """8 bytes that name the key and tell nothing else of it."""
    return hashlib.sha256(b"duizhang/1/archive-key-id" + archive_key).digest()[:_ID_BYTES]


def wrap_key(key: bytes, label: bytes, archive_key: bytes) -> str:
    """`key` under the archive key, bound to `label`: hex of key id, nonce and AES-256-GCM (docs/formats/archive.md)."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    sealed = AESGCM(archive_key).encrypt(nonce, key, _associated(label))
    return (archive_key_id(archive_key) + nonce + sealed).hex()


def unwrap_key(wrapped: str, label: bytes, archive_key: bytes, path: Path) -> bytes:
    """The key of the archive file `path`.

    InputError `archive.wrong_key` names the key it needs and the key that is here; StoreError
    `store.archive_key_damaged`: the wrapped form was changed, or is another label's.
    """
    damaged = StoreError(
        "store.archive_key_damaged",
        f"归档文件 {path} 的密钥（存于台账库）已损坏，或属于另一批次",
        "the wrapped key of this archive file, kept in the store, is damaged or belongs to another batch",
        str(path),
    )
    try:
        data = bytes.fromhex(wrapped)
    except ValueError as error:
        raise damaged from error
    if len(data) != _WRAPPED_BYTES:
        raise damaged
    needed, present = data[:_ID_BYTES].hex(), archive_key_id(archive_key).hex()
    if needed != present:
        raise InputError(
            "archive.wrong_key",
            f"归档文件 {path} 由归档密钥 {needed} 加密，当前密钥为 {present}；请放回原来的 keys/archive.key",
            f"the archive was written under archive key {needed}, the one here is {present}; "
            "put the former keys/archive.key back",
            str(path),
        )
    nonce, sealed = data[_ID_BYTES : _ID_BYTES + _NONCE_BYTES], data[_ID_BYTES + _NONCE_BYTES :]
    try:
        return AESGCM(archive_key).decrypt(nonce, sealed, _associated(label))
    except InvalidTag as error:
        raise damaged from error


def _associated(label: bytes) -> bytes:
    return b"duizhang/1/archive-key" + label
