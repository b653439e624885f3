"""How often an address may ask without a token (library `limits`): a moving window in memory, each worker giving its share."""

from __future__ import annotations

import ipaddress
import math
import time

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from api.problems import ApiError


class Limiter:
    """`per_minute` for all `workers` together. Connections spread over the workers by chance, so an address may meet its limit a
    little early, never late."""

    def __init__(self, per_minute: int, workers: int) -> None:
        self._item = RateLimitItemPerMinute(max(1, per_minute // workers))
        self._window = MovingWindowRateLimiter(MemoryStorage())

    def pass_or_refuse(self, address: str | None) -> None:
        """Count one; ApiError 429 with Retry-After when there were too many."""
        name = _network(address)
        if self._window.hit(self._item, name):
            return
        reset = self._window.get_window_stats(self._item, name).reset_time
        wait = max(1, math.ceil(reset - time.time()))
        raise ApiError(
            429,
            "request.too_many",
            f"该地址每分钟核验次数已满，请在 {wait} 秒后再试；持 verify 权限的令牌不受此限",
            f"this address used up its verifications; try again in {wait} seconds, or bring a token with scope verify",
            headers={"Retry-After": str(wait)},
        )


def _network(address: str | None) -> str:
    """Whom a limit is for: an IPv4 address, or the /64 that one subscriber of IPv6 has for himself."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return "unknown"
    if parsed.version == 6:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
