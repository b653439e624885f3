"""Bearer tokens: who asks, and whether he may."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.office import TheOffice
from api.problems import ApiError
from ledger.tokens import Caller, Scope, TokenError, check

__all__ = ["Caller", "known_caller", "needs"]

_BEARER = HTTPBearer(
    auto_error=False, scheme_name="token", description="`dz_…`, made with `duizhang token create NAME --scope …`"
)
Given = Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]


def known_caller(request: Request, office: TheOffice, given: Given) -> Caller | None:
    """Who presents a token; None without one. TokenError for one that is not valid: it is never passed over."""
    if given is None:
        if "authorization" in request.headers:
            raise TokenError(
                "token.form",
                "Authorization 须为 Bearer 加令牌",
                "Authorization must be Bearer and a token",
                "Authorization",
            )
        return None
    caller, due = check(office.desk.store, given.credentials)
    if due:
        office.used(caller.token_id)
    return caller


def needs(scope: Scope) -> Callable[..., Caller]:
    """A dependency: the caller, who has `scope`; 401 without a valid token, 403 without the scope."""

    def dependency(caller: Annotated[Caller | None, Security(known_caller)]) -> Caller:
        if caller is None:
            raise ApiError(
                401,
                "token.missing",
                "需要令牌：Authorization: Bearer dz_…",
                "a token is needed: Authorization: Bearer dz_…",
                "Authorization",
            )
        if not caller.may(scope):
            raise ApiError(
                403,
                "token.scope",
                f"令牌“{caller.name}”没有权限 {scope}",
                f"token {caller.name!r} lacks the scope {scope}",
                headers={"WWW-Authenticate": f'Bearer realm="duizhang", error="insufficient_scope", scope="{scope}"'},
            )
        return caller

    return dependency
