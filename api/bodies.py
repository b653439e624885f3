"""Bodies are read whole before anything is done with them: not larger than allowed, not slower than allowed, of a known type."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import ApiError, respond
from api.words import language

BODY_SECONDS = 20.0
"""A body that is not here by then is refused: a slow sender must not hold a connection and its memory."""


class BodyLimit:
    """Refuses with 413 what is (or says it is) larger than `max_bytes`, with 408 what takes longer than `seconds`."""

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float = BODY_SECONDS) -> None:
        self._app = app
        self._max = max_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value for name, value in scope["headers"]}  # noqa: C416  names repeat: the last counts
        if b"content-length" not in headers and b"transfer-encoding" not in headers:
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(headers.get(b"content-length"), receive)
        except ApiError as error:
            chosen = language(headers.get(b"accept-language", b"").decode("latin-1"))
            await respond(error, chosen)(scope, receive, send)
            return
        if body is None:
            return  # the client went away
        await self._app(scope, _replay(body, receive), send)

    async def _read(self, declared: bytes | None, receive: Receive) -> bytes | None:
        if declared is not None and (not declared.isdigit() or int(declared[:20]) > self._max):
            raise self._too_large()
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > self._max:
                        raise self._too_large()
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError as error:
            raise ApiError(
                408,
                "request.slow",
                f"请求正文未能在 {self._seconds:.0f} 秒内收齐",
                f"the body did not arrive within {self._seconds:.0f} seconds",
                headers={"Connection": "close"},
            ) from error

    def _too_large(self) -> ApiError:
        return ApiError(
            413,
            "request.too_large",
            f"请求正文超过 {self._max} 字节（[api] max_body_bytes）",
            f"the body has more than {self._max} bytes ([api] max_body_bytes)",
            headers={"Connection": "close"},
        )


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
