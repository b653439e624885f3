"""What one worker process holds while it runs, and how a route gets at it."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from api.words import Language, language, pick
from ledger.desk import Desk
from ledger.errors import LedgerError
from ledger.tokens import mark_used

if TYPE_CHECKING:
    from api.limits import Limiter
    from api.metrics import Requests


@dataclass
class Office:
    """The open workspace, and what a worker counts. `stopping` is set as soon as the server is told to end."""

    desk: Desk
    limiter: Limiter
    requests: Requests
    stopping: threading.Event = field(default_factory=threading.Event)
    later: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "later"))

    def used(self, token_id: str) -> None:
        """Note that a token was used, without making the request wait for the store's writers."""

        def note() -> None:
            with contextlib.suppress(LedgerError):
                mark_used(self.desk.store, token_id)

        with contextlib.suppress(RuntimeError):  # shutting down
            self.later.submit(note)


@dataclass(frozen=True)
class Speaker:
    """Says things in the caller's language."""

    language: Language

    def __call__(self, zh: str, en: str) -> str:
        return pick(self.language, zh, en)


def _office(request: Request) -> Office:
    office: Office = request.app.state.office
    return office


def _speaker(request: Request) -> Speaker:
    return Speaker(language(request.headers.get("accept-language")))


TheOffice = Annotated[Office, Depends(_office)]
Say = Annotated[Speaker, Depends(_speaker)]
