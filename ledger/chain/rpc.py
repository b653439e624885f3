"""JSON-RPC over HTTP to one node, with the standard library only. Nothing but `newest`, which only reads, repeats a request.

A request that got no answer may still have taken effect: the caller decides what to look up. Proxy settings of the
environment are not used. Messages name the node as scheme://host:port, never the user, password or path of its URL.
"""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import select
import ssl
import threading
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from ledger.errors import ChainError

# The dump of a local chain with 100,000 anchors is about 150 MB as hex; nothing else comes near.
MAX_ANSWER_BYTES = 512 * 1024 * 1024

# A node that is just taking in a block may refuse questions about its newest one for a moment: anvil reads the number first and
# has no state of that number any more a moment later. In words, because every node uses codes of its own.
_BETWEEN_BLOCKS = ("blockoutofrange", "header not found", "unknown block")
_ASK_AGAIN_SECONDS = (0.02, 0.05, 0.1, 0.2, 0.4)


class RpcUnreachable(ChainError):
    """No answer: refused, cut off, timed out. Whether the request took effect is unknown."""


class RpcMalformed(ChainError):
    """Something answered, but not JSON-RPC."""


class RpcAnswered(ChainError):
    """The node answered with an error: `rpc_code`, `rpc_message`, and `data` (0x-hex of a revert, else "")."""

    def __init__(self, method: str, rpc_code: int, rpc_message: str, data: str, where: str) -> None:
        shown = rpc_message if len(rpc_message) <= 300 else rpc_message[:300] + "…"
        super().__init__(
            "chain.rpc_error",
            f"节点拒绝 {method}：{shown}（代码 {rpc_code}）",
            f"the node refused {method}: {shown} (code {rpc_code})",
            where,
        )
        self.rpc_code = rpc_code
        self.rpc_message = rpc_message
        self.data = data


class Rpc:
    """One node. `call` and `batch` may be used from several threads; requests go out one after the other."""

    def __init__(self, url: str, timeout_seconds: float = 30.0) -> None:
        self._parts = _checked(url)
        self.where = shorten(url)
        self._timeout = timeout_seconds
        self._lock = threading.Lock()
        self._connection: http.client.HTTPConnection | None = None
        self._ids = itertools.count(1)

    def call(self, method: str, *params: Any) -> Any:
        """The result of one method, as parsed JSON. RpcAnswered, RpcUnreachable or RpcMalformed if there is none."""
        number = next(self._ids)
        answer = self._post({"jsonrpc": "2.0", "id": number, "method": method, "params": list(params)})
        return self._result(method, number, answer)

    def newest(self, method: str, *params: Any) -> Any:
        """`call` for a question about the newest block that changes nothing: asked again, for at most 0.8 s, while the node is between two
        blocks; then the node's refusal is raised as by `call`."""
        for seconds in _ASK_AGAIN_SECONDS:
            try:
                return self.call(method, *params)
            except RpcAnswered as error:
                if not any(words in error.rpc_message.lower() for words in _BETWEEN_BLOCKS):
                    raise
            time.sleep(seconds)
        return self.call(method, *params)

    def batch(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """The results of several methods in order, in one round trip where the node can; the first error is raised.

        Use it for reading only: a node that answers a batch with something else is asked again, one by one.
        """
        if len(calls) < 2:
            return [self.call(method, *params) for method, params in calls]
        numbers = [next(self._ids) for _ in calls]
        requests = [
            {"jsonrpc": "2.0", "id": number, "method": method, "params": list(params)}
            for number, (method, params) in zip(numbers, calls, strict=True)
        ]
        try:
            answers = self._post(requests)
        except RpcMalformed:
            answers = None
        if not isinstance(answers, list):
            return [self.call(method, *params) for method, params in calls]
        by_id = {answer.get("id"): answer for answer in answers if isinstance(answer, dict)}
        return [
            self._result(method, number, by_id.get(number)) for number, (method, _) in zip(numbers, calls, strict=True)
        ]

    def close(self) -> None:
        """Drop the connection; the next call opens one again."""
        with self._lock:
            self._close()

    def __enter__(self) -> Rpc:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # Also of an object whose URL was refused.
        connection = getattr(self, "_connection", None)
        if connection is not None:
            connection.close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _post(self, body: object) -> Any:
        with self._lock:
            try:
                answer, status = self._exchange(json.dumps(body).encode())
            except (OSError, http.client.HTTPException) as error:
                self._close()
                reason = str(error) or type(error).__name__
                raise RpcUnreachable(
                    "chain.unreachable",
                    f"链节点无应答：{reason}；请确认节点在运行、地址正确",
                    f"the chain's node gave no answer: {reason}; check that it runs and that the address is right",
                    self.where,
                ) from error
        try:
            return json.loads(answer)
        except ValueError:
            raise self._malformed(f"HTTP {status}, {len(answer)} bytes that are not JSON") from None

    def _exchange(self, body: bytes) -> tuple[bytes, int]:
        connection = self._connection
        if connection is not None and connection.sock is not None:
            # Idle and yet readable: the node closed it meanwhile. Seen now, before anything is sent, a new one is safe.
            readable, _, _ = select.select([connection.sock], [], [], 0)
            if readable:
                self._close()
        if self._connection is None:
            self._connection = self._open()
        self._connection.request("POST", self._target(), body, self._headers())
        response = self._connection.getresponse()
        answer = response.read(MAX_ANSWER_BYTES + 1)
        if len(answer) > MAX_ANSWER_BYTES:
            raise http.client.HTTPException(f"answer longer than {MAX_ANSWER_BYTES} bytes")
        return answer, response.status

    def _open(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, port, timeout=self._timeout, context=context)
        return http.client.HTTPConnection(host, port, timeout=self._timeout)

    def _target(self) -> str:
        return (self._parts.path or "/") + (f"?{self._parts.query}" if self._parts.query else "")

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._parts.username is not None:
            login = f"{unquote(self._parts.username)}:{unquote(self._parts.password or '')}"
            headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
        return headers

    def _result(self, method: str, number: int, answer: Any) -> Any:
        if not isinstance(answer, dict):
            raise self._malformed(f"no answer object for {method}")
        error = answer.get("error")
        if error is not None:
            if not isinstance(error, dict):
                error = {"message": str(error)}
            code = error.get("code")
            raise RpcAnswered(
                method,
                code if isinstance(code, int) else 0,
                str(error.get("message", "")),
                _revert_data(error.get("data")),
                self.where,
            )
        if answer.get("id") != number or "result" not in answer:
            raise self._malformed(f"the answer to {method} has neither result nor error, or another id")
        return answer["result"]

    def _malformed(self, what: str) -> RpcMalformed:
        return RpcMalformed(
            "chain.malformed_answer",
            f"该地址的应答不是 JSON-RPC（{what}）；请确认它是链节点的地址",
            f"what answers there does not speak JSON-RPC ({what}); check that it is the address of a chain's node",
            self.where,
        )


def shorten(url: str) -> str:
    """scheme://host:port of a URL: what messages may show. A user, password, path or query may be a secret."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(URL)"
    host = parts.hostname or ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}"


def quantity(value: Any, what: str) -> int:
    """A JSON-RPC quantity ("0x1f") as an integer; ChainError if the node gave something else."""
    if isinstance(value, str) and value.startswith("0x"):
        try:
            return int(value, 16)
        except ValueError:
            pass
    raise _odd(what, value)


def hex_bytes(value: Any, what: str) -> bytes:
    """JSON-RPC data ("0x00ff") as bytes; ChainError if the node gave something else."""
    if isinstance(value, str) and value.startswith("0x"):
        try:
            return bytes.fromhex(value[2:])
        except ValueError:
            pass
    raise _odd(what, value)


def _odd(what: str, value: Any) -> RpcMalformed:
    shown = repr(value)[:60]
    return RpcMalformed(
        "chain.malformed_answer",
        f"节点给出的 {what} 无法识别：{shown}",
        f"the node's {what} is not in a known form: {shown}",
    )


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ChainError(
            "chain.url",
            f"链节点地址应为 http(s)://主机[:端口]：{shorten(url)}",
            f"a node's address must be http(s)://host[:port]: {shorten(url)}",
        )
    return parts


def _revert_data(data: Any) -> str:
    """Where a node puts the bytes of a revert: in data, data.data, data.result or data.originalError.data."""
    for _ in range(3):
        if isinstance(data, str):
            # Some prefix words ("Reverted 0x...").
            start = data.find("0x")
            return data[start:] if start >= 0 else ""
        if not isinstance(data, dict):
            return ""
        data = data.get("data") or data.get("result") or data.get("originalError")
    return ""
