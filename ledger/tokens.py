"""Bearer tokens of the API: `dz_<id>_<secret>`, kept as the SHA-256 of the secret; made, listed, revoked, checked.

The secret has 256 bits, so its plain hash cannot be guessed back. Every check reads the store: what was revoked a moment ago is
refused by every process. Nothing here needs the workspace's lock: each function is one transaction of the store.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Literal, get_args

from sqlalchemy import or_, select, update

from ledger.errors import InputError, LedgerError
from ledger.store import models
from ledger.store.db import Store

Scope = Literal["read", "verify", "reconcile", "admin"]
State = Literal["valid", "expired", "revoked"]

SCOPES: tuple[Scope, ...] = get_args(Scope)
"""`read` looks; `verify` checks proof files without a limit; `reconcile` asks for reconciliations and works findings; `admin` all."""
MAX_DAYS = 3660
USED_SECONDS = 60
"""`last_used_at` is at most this old while a token is in use."""

_FORM = re.compile(r"dz_([0-9a-f]{16})_([0-9a-f]{64})", re.ASCII)
_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,64}")
# What a text without form, or an unknown id, is compared with: the same work as for a token that exists.
_NOBODY = (None, "0" * 64)


class TokenError(LedgerError):
    """A token that is not, or is no longer, one of ours: `token.unknown`, `token.expired`, `token.revoked`."""


@dataclass(frozen=True)
class NewToken:
    """A token just made; `text` is shown once and stands nowhere."""

    row: models.Token
    text: str


@dataclass(frozen=True)
class Caller:
    """Who presented a valid token."""

    token_id: str
    name: str
    scopes: frozenset[str]

    def may(self, scope: Scope) -> bool:
        """True if the token has this scope, or `admin`."""
        return scope in self.scopes or "admin" in self.scopes


def create(
    store: Store, name: str, scopes: Sequence[str], *, days: int = 90, moment: datetime | None = None
) -> NewToken:
    """Make a token that is valid for `days`; InputError `token.name`, `token.scope`, `token.days`."""
    moment = moment or datetime.now(UTC)
    if not _NAME.fullmatch(name) or not name.strip():
        raise InputError(
            "token.name",
            "令牌名称须为 1–64 个可见字符，写明给谁用",
            "a token's name has 1 to 64 visible characters and says who uses it",
            "NAME",
        )
    wanted = [scope for scope in SCOPES if scope in scopes]
    if not wanted or set(scopes) - set(SCOPES):
        raise InputError(
            "token.scope",
            f"权限须取自 {'、'.join(SCOPES)}，至少一项",
            f"scopes are {', '.join(SCOPES)}, at least one",
            "--scope",
        )
    if not 1 <= days <= MAX_DAYS:
        raise InputError(
            "token.days", f"有效天数须为 1–{MAX_DAYS}，现为 {days}", f"days must be 1-{MAX_DAYS}, not {days}", "--days"
        )
    token_id, secret = secrets.token_hex(8), secrets.token_hex(32)
    row = models.Token(
        id=token_id,
        name=name.strip(),
        secret_sha256=_hashed(secret),
        scopes=" ".join(wanted),
        created_at=models.utc_text(moment),
        expires_at=models.utc_text(moment + timedelta(days=days)),
    )
    with store.write() as session:
        session.add(row)
    return NewToken(row, f"dz_{token_id}_{secret}")


def listed(store: Store) -> list[models.Token]:
    """All tokens ever made, oldest first."""
    with store.read() as session:
        return list(session.scalars(select(models.Token).order_by(models.Token.created_at, models.Token.id)))


def revoke(store: Store, token_id: str, *, moment: datetime | None = None) -> models.Token:
    """End a token now; one that was ended stays as it was. InputError `token.no_such`."""
    with store.write() as session:
        row = session.get(models.Token, token_id)
        if row is None:
            raise InputError(
                "token.no_such",
                f"没有编号为 {token_id[:32]!a} 的令牌；token list 可列出",
                f"there is no token {token_id[:32]!a}; token list shows them",
                "ID",
            )
        if row.revoked_at is None:
            row.revoked_at = models.utc_text(moment or datetime.now(UTC))
    return row


def state_of(row: models.Token, *, moment: datetime | None = None) -> State:
    """How a token stands; revoked beats expired."""
    if row.revoked_at is not None:
        return "revoked"
    # UTC text of one form sorts as the times do.
    return "expired" if row.expires_at <= models.utc_text(moment or datetime.now(UTC)) else "valid"


def check(store: Store, text: str, *, moment: datetime | None = None) -> tuple[Caller, bool]:
    """Who presents `text`, and whether `last_used_at` is due (`mark_used`). TokenError if it is no valid token.

    An unknown id takes the same steps as a wrong secret, and both are told in the same words.
    """
    match = _FORM.fullmatch(text)
    token_id, secret = (match[1], match[2]) if match else _NOBODY
    with store.read() as session:
        row = session.get(models.Token, token_id or "")
    expected = row.secret_sha256 if row is not None else "0" * 64
    right = hmac.compare_digest(_hashed(secret), expected)
    if row is None or not right:
        raise TokenError(
            "token.unknown",
            "令牌无效；请向本服务的管理员索取（duizhang token create）",
            "this is no token of this service; ask its operator for one (duizhang token create)",
        )
    state = state_of(row, moment=moment)
    if state == "revoked":
        raise TokenError(
            "token.revoked", f"令牌已于 {row.revoked_at} 停用", f"this token was revoked at {row.revoked_at}"
        )
    if state == "expired":
        raise TokenError("token.expired", f"令牌已于 {row.expires_at} 到期", f"this token expired at {row.expires_at}")
    due = row.last_used_at is None or row.last_used_at <= _used_before(moment)
    return Caller(row.id, row.name, frozenset(row.scopes.split())), due


def mark_used(store: Store, token_id: str, *, moment: datetime | None = None) -> None:
    """Write `last_used_at`, unless another process has just done so."""
    row = models.Token
    with store.write() as session:
        session.execute(
            update(row)
            .where(row.id == token_id, or_(row.last_used_at.is_(None), row.last_used_at <= _used_before(moment)))
            .values(last_used_at=models.utc_text(moment or datetime.now(UTC)))
        )


def token_json(row: models.Token, *, moment: datetime | None = None) -> dict[str, object]:
    """A token in the words of the JSON output; nothing of its secret."""
    return {
        "id": row.id,
        "name": row.name,
        "scopes": row.scopes.split(),
        "state": state_of(row, moment=moment),
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "revoked_at": row.revoked_at,
        "last_used_at": row.last_used_at,
    }


def _hashed(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def _used_before(moment: datetime | None) -> str:
    return models.utc_text((moment or datetime.now(UTC)) - timedelta(seconds=USED_SECONDS))
