"""Why a notice was not sent, and whether that may change within minutes."""

from __future__ import annotations

from collections.abc import Sequence

from ledger.errors import LedgerError


class NotSent(LedgerError):
    """A notice did not arrive, or nobody knows whether it did.

    again           trying again in this run makes sense: nobody answered, or the other side asked to come back
    after_seconds   how long the other side asked to be left alone; None if it did not say
    remaining       of a mail that some recipients took: those who did not
    """

    def __init__(
        self,
        code: str,
        zh: str,
        en: str,
        where: str = "",
        *,
        again: bool = False,
        after_seconds: float | None = None,
        remaining: Sequence[str] = (),
    ) -> None:
        super().__init__(code, zh, en, where)
        self.again = again
        self.after_seconds = after_seconds
        self.remaining = tuple(remaining)


def check_host(host: str, allowed: Sequence[str], where: str) -> None:
    """Refuse a host that is not in `[notify] hosts`; asked again before every sending."""
    if host.lower() not in allowed:
        raise NotSent(
            "notify.host",
            f"主机 {host} 不在 [notify] hosts 中，未发送",
            f"the host {host} is not in [notify] hosts; nothing was sent",
            where,
        )
