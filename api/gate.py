"""Around every request: security headers, one log line without values, counters, and no fault of ours shown to anybody."""

from __future__ import annotations

import logging
import time
import traceback
from urllib.parse import unquote

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.metrics import Requests
from api.problems import internal, respond
from api.words import language

_log = logging.getLogger("duizhang.api")

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Vary": "Accept-Language",
}
_KEPT_ESCAPES = {"2f": "%2F", "25": "%25"}


class Gate:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, requests: Requests) -> None:
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["path"] = _path(scope)
        began = time.perf_counter()
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            _log.error("%s %s: %s", scope["method"], _route(scope), _told(error))
            if not status:
                header = next((v for k, v in scope["headers"] if k == b"accept-language"), b"")
                await respond(internal(), language(header.decode("latin-1")))(scope, receive, sending)
            # Else the response is left unfinished, and the connection is cut: the client sees that it is not whole.
        finally:
            seconds = time.perf_counter() - began
            self._requests.note(scope["method"], _route(scope), status, seconds)
            _log.info("%s %s %s %.0f ms", scope["method"], _route(scope), status or "-", seconds * 1000)


def _path(scope: Scope) -> str:
    """The path with `%2F` and `%25` left as they are, so that a slash inside a KEY separates nothing (`records.py` decodes them)."""
    raw = scope.get("raw_path")
    if raw is None:
        path: str = scope["path"]
        return path
    parts = raw.decode("latin-1").split("%")
    told = [parts[0]]
    for part in parts[1:]:
        kept = _KEPT_ESCAPES.get(part[:2].lower())
        # The escape of what is kept is itself escaped, so that decoding everything else gives it back.
        told.append(f"%25{kept[1:]}{part[2:]}" if kept else f"%{part}")
    return unquote("".join(told), errors="replace")


def _route(scope: Scope) -> str:
    """The route's template: addresses themselves may hold the key of a person's record."""
    route = scope.get("route")
    return str(getattr(route, "path", "-"))


def _told(error: BaseException) -> str:
    """Kind and place of a fault; the message may hold values and stays out of the log."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    places = " < ".join(
        f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}" for frame in reversed(frames)
    )
    return f"{type(error).__name__} at {places}"
