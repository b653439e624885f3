"""A small secret document under a passphrase: the join file's envelope.

scrypt (RFC 7914) makes the key, AES-256-GCM seals; both from the library `cryptography`. The parameters are fixed: a reader that took
them from the file could be made to use any amount of memory.
"""

from __future__ import annotations

import json
import os
import secrets
from base64 import b64decode, b64encode

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from ledger.errors import InputError

FORMAT = "duizhang-join/2"
LEAST = 12
"""Characters of a passphrase that somebody chose."""
# 128 MiB and about half a second.
_N, _R, _P = 1 << 17, 8, 1
_MEMBERS = {"format", "nonce", "salt", "sealed"}


def make_passphrase() -> str:
    """A new one that nobody can guess: 160 bits, in groups that can be read out."""
    words = secrets.token_hex(20)
    return "-".join(words[at : at + 5] for at in range(0, len(words), 5))


def seal(data: bytes, passphrase: str) -> bytes:
    """The sealed document; InputError `passphrase.short` for fewer than 12 characters."""
    if len(passphrase) < LEAST:
        raise InputError(
            "passphrase.short",
            f"口令至少 {LEAST} 个字符",
            f"a passphrase has at least {LEAST} characters",
            "--passphrase-file",
        )
    salt, nonce = os.urandom(16), os.urandom(12)
    sealed = AESGCM(_key(passphrase, salt)).encrypt(nonce, data, FORMAT.encode())
    told = {
        "format": FORMAT,
        "nonce": b64encode(nonce).decode(),
        "salt": b64encode(salt).decode(),
        "sealed": b64encode(sealed).decode(),
    }
    return json.dumps(told, indent=1).encode() + b"\n"


def is_sealed(data: bytes) -> bool:
    """True for a document of `seal`, whole or damaged."""
    return FORMAT.encode() in data[:200]


def unseal(data: bytes, passphrase: str, where: str) -> bytes:
    """The document; InputError `join.form` for what is none, `passphrase.wrong` where the passphrase (or a byte) is not the right one."""
    try:
        told = json.loads(data)
        if set(told) != _MEMBERS or told["format"] != FORMAT:
            raise KeyError("members")  # noqa: TRY301  one refusal for all that can be wrong
        nonce, salt, sealed = (b64decode(told[name], validate=True) for name in ("nonce", "salt", "sealed"))
        if (len(nonce), len(salt)) != (12, 16) or len(sealed) < 16:
            raise KeyError("length")  # noqa: TRY301
    except (ValueError, KeyError, TypeError) as cause:
        raise InputError(
            "join.form",
            "加入文件不完整或不是本程序生成的",
            "the join file is cut off or was not made by party add",
            where,
        ) from cause
    try:
        return AESGCM(_key(passphrase, salt)).decrypt(nonce, sealed, FORMAT.encode())
    except InvalidTag as cause:
        raise InputError(
            "passphrase.wrong",
            "口令不对，或加入文件被改动过；请核对口令，或请对方重新生成",
            "the passphrase is wrong, or the join file was changed: check the passphrase, or ask for a new file",
            where,
        ) from cause


def _key(passphrase: str, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=_N, r=_R, p=_P).derive(passphrase.encode())
