"""One POST of a notice, signed as Standard Webhooks 1.0 says (headers webhook-id, webhook-timestamp, webhook-signature).

Only the configured host is spoken to: no redirect is followed, no proxy of the environment is used, certificates are
checked against the system's authorities. The answer's body is never used.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import ssl
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from ledger.chain.rpc import shorten
from ledger.config import WebhookConfig
from ledger.errors import InputError
from ledger.notify.notsent import NotSent, check_host
from ledger.store.files import read_private

PREFIX = "whsec_"
LEAST_SECRET_BYTES = 24
MOST_SECRET_BYTES = 64
"""Both from Standard Webhooks: 192 to 512 bits."""
MAX_ANSWER_BYTES = 4096
"""So much of an answer is read before the connection is closed; more would only cost time."""
DEADLINE_FACTOR = 3
"""One try ends after so many `timeout_seconds`, however slowly the other side goes on talking."""
_COME_BACK = (408, 425, 429)


def read_secret(path: Path) -> bytes:
    """The signing secret of `secret_file`: `whsec_` and base64 of 24 to 64 bytes, on one line, in a file of mode 0600.

    InputError `notify.secret`, which never shows the content, or that of `read_private`.
    """
    text = read_private(path, 4096).strip()
    try:
        secret = base64.b64decode(text.removeprefix(PREFIX.encode()), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not text.startswith(PREFIX.encode()) or not LEAST_SECRET_BYTES <= len(secret) <= MOST_SECRET_BYTES:
        raise InputError(
            "notify.secret",
            f"签名密钥应为一行：{PREFIX} 加 {LEAST_SECRET_BYTES}–{MOST_SECRET_BYTES} 字节的 base64",
            f"the signing secret is one line: {PREFIX} and base64 of {LEAST_SECRET_BYTES} to {MOST_SECRET_BYTES} bytes",
            str(path),
        )
    return secret


def signed_headers(secret: bytes, notice_id: str, moment: int, body: bytes) -> Mapping[str, str]:
    """The headers of one try; `moment` is seconds since the epoch, the receiver refuses old ones."""
    told = f"{notice_id}.{moment}.".encode() + body
    signature = base64.b64encode(hmac.digest(secret, told, hashlib.sha256)).decode()
    return {
        "webhook-id": notice_id,
        "webhook-timestamp": str(moment),
        "webhook-signature": f"v1,{signature}",
        "content-type": "application/json",
        "user-agent": "duizhang",
        # Nothing of the answer is used, so nothing of it needs to be unpacked.
        "accept-encoding": "identity",
    }


def post(config: WebhookConfig, hosts: Sequence[str], secret: bytes, notice_id: str, body: bytes) -> None:
    """Try once. Returns if the other side took it (2xx), raises NotSent `notify.*` if it did not or nobody knows."""
    where = shorten(config.url)
    check_host(urlsplit(config.url).hostname or "", hosts, where)
    headers = signed_headers(secret, notice_id, int(time.time()), body)
    seconds = config.timeout_seconds * DEADLINE_FACTOR
    try:
        status, after = asyncio.run(_within(config, headers, body, seconds))
    except TimeoutError as error:
        raise _no_answer(where, f"{seconds} s", again=True) from error
    except httpx.TimeoutException as error:
        raise _no_answer(where, f"{config.timeout_seconds} s", again=True) from error
    except httpx.ConnectError as error:
        # The other side's certificate will be the same in a minute; a refused connection may not be.
        if any(isinstance(cause, ssl.SSLError) for cause in _causes(error)) or "certificate" in str(error).lower():
            raise NotSent(
                "notify.tls",
                f"TLS 证书未通过校验：{_short(error)}",
                f"the certificate was not accepted: {_short(error)}",
                where,
            ) from error
        raise _unreachable(where, error) from error
    except httpx.TransportError as error:
        raise _unreachable(where, error) from error
    except (httpx.InvalidURL, httpx.HTTPError, ValueError) as error:
        raise NotSent(
            "notify.url", "notify.webhook.url 无法使用", "notify.webhook.url cannot be used", where
        ) from error
    if 200 <= status < 300:
        return
    if 300 <= status < 400:
        raise NotSent(
            "notify.redirect",
            f"对方以 {status} 指向别处；不跟随，请把最终地址写进 notify.webhook.url",
            f"answered {status}, pointing elsewhere; never followed: put the final address into notify.webhook.url",
            where,
        )
    raise NotSent(
        "notify.refused",
        f"对方以 {status} 拒绝",
        f"refused with {status}",
        where,
        again=status >= 500 or status in _COME_BACK,
        after_seconds=after,
    )


async def _within(
    config: WebhookConfig, headers: Mapping[str, str], body: bytes, seconds: float
) -> tuple[int, float | None]:
    async with asyncio.timeout(seconds):
        async with (
            httpx.AsyncClient(
                timeout=config.timeout_seconds,
                follow_redirects=False,
                trust_env=False,
                # The system's authorities, an office's own among them; httpx would bring a list of its own.
                verify=ssl.create_default_context(),
            ) as client,
            client.stream("POST", config.url, content=body, headers=dict(headers)) as answer,
        ):
            read = 0
            # Raw: a few bytes that unpack to gigabytes stay a few bytes.
            async for piece in answer.aiter_raw(MAX_ANSWER_BYTES):
                read += len(piece)
                if read >= MAX_ANSWER_BYTES:
                    break
            return answer.status_code, retry_after(answer.headers.get("retry-after"), datetime.now(UTC))


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds that a Retry-After header (seconds or a date) asks for; None without one that can be read."""
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value.strip()[:9])
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def _no_answer(where: str, limit: str, *, again: bool) -> NotSent:
    return NotSent(
        "notify.no_answer",
        f"{limit} 内没有完整的应答，是否收到未知",
        f"no whole answer within {limit}; whether it arrived is unknown",
        where,
        again=again,
    )


def _unreachable(where: str, error: Exception) -> NotSent:
    return NotSent(
        "notify.unreachable", f"无法连接：{_short(error)}", f"cannot be reached: {_short(error)}", where, again=True
    )


def _short(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:200]


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and len(found) < 10:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
