"""JSON-RPC over HTTP: errors by cause, no secrets in messages, nothing sent twice."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ledger.chain import rpc as rpc_module
from ledger.chain.rpc import Rpc, RpcAnswered, RpcMalformed, RpcUnreachable, hex_bytes, quantity, shorten
from ledger.errors import ChainError


class FakeNode:
    """Answers each request with what `answer` makes of it, and keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.connections = 0
        self.answer: Callable[[Any], bytes | None] = lambda body: json.dumps(
            {"jsonrpc": "2.0", "id": body["id"], "result": "0x1"}
        ).encode()
        self.status = 200
        self.close_after_answer = False
        node = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                node.connections += 1
                super().setup()

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                node.requests.append(body)
                node.headers.append(dict(self.headers))
                node.paths.append(self.path)
                answer = node.answer(body)
                if answer is None:
                    self.close_connection = True
                    return
                self.send_response(node.status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)
                self.close_connection = node.close_after_answer

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def node() -> Iterator[FakeNode]:
    fake = FakeNode()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


def test_calls_share_one_connection_and_carry_the_url_s_path_and_login(node: FakeNode) -> None:
    url = node.url.replace("http://", "http://ma%40:s%3Acret@") + "/key/abc?x=1"
    with Rpc(url) as rpc:
        assert [rpc.call("eth_chainId"), rpc.call("eth_call", {"to": "0x"}, "latest")] == ["0x1", "0x1"]
    assert node.connections == 1
    assert node.paths == ["/key/abc?x=1"] * 2
    assert node.headers[0]["Authorization"] == "Basic bWFAOnM6Y3JldA=="
    assert [r["params"] for r in node.requests] == [[], [{"to": "0x"}, "latest"]]


def test_a_connection_the_node_closed_meanwhile_is_opened_again_without_sending_twice(node: FakeNode) -> None:
    node.close_after_answer = True
    with Rpc(node.url) as rpc:
        for _ in range(3):
            rpc.call("eth_chainId")
            threading.Event().wait(0.05)
    assert (len(node.requests), node.connections) == (3, 3)


def test_a_request_that_was_cut_off_is_not_sent_again(node: FakeNode) -> None:
    node.answer = lambda _: None
    with Rpc(node.url) as rpc, pytest.raises(RpcUnreachable):
        rpc.call("eth_sendRawTransaction", "0x00")
    assert len(node.requests) == 1


def test_silence_is_unreachable(node: FakeNode) -> None:
    def silent(_: object) -> None:
        threading.Event().wait(1)

    node.answer = silent
    with Rpc(node.url, timeout_seconds=0.1) as rpc, pytest.raises(RpcUnreachable) as caught:
        rpc.call("eth_chainId")
    assert caught.value.code == "chain.unreachable"


def test_nobody_there_is_unreachable_and_names_no_secret() -> None:
    with Rpc("http://user:geheim@127.0.0.1:1/v3/token?key=schluessel") as rpc, pytest.raises(RpcUnreachable) as caught:
        rpc.call("eth_chainId")
    assert caught.value.where == "http://127.0.0.1:1"
    for text in (str(caught.value), caught.value.zh, caught.value.en, caught.value.where):
        assert not [secret for secret in ("user", "geheim", "token", "schluessel") if secret in text]


def test_proxies_of_the_environment_are_not_used(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with Rpc(node.url) as rpc:
        assert rpc.call("eth_chainId") == "0x1"


@pytest.mark.parametrize(
    ("error", "data"),
    [
        ({"code": -32000, "message": "execution reverted", "data": "0xabcd"}, "0xabcd"),
        ({"code": 3, "message": "reverted", "data": {"data": "0xabcd", "txHash": "0x1"}}, "0xabcd"),
        ({"code": 3, "message": "reverted", "data": {"result": "0xabcd"}}, "0xabcd"),
        ({"code": -32015, "message": "VM error", "data": "Reverted 0xabcd"}, "0xabcd"),
        ({"code": 3, "message": "x", "data": {"originalError": {"data": "0xabcd"}}}, "0xabcd"),
        ({"code": 3, "message": "x", "data": "no hex"}, ""),
        ({"code": 3, "message": "x"}, ""),
        ("just words", ""),
    ],
)
@pytest.mark.parametrize("status", [200, 500])
def test_an_error_of_the_node_keeps_its_code_message_and_revert(
    node: FakeNode, error: Any, data: str, status: int
) -> None:
    node.status = status
    node.answer = lambda body: json.dumps({"jsonrpc": "2.0", "id": body["id"], "error": error}).encode()
    with Rpc(node.url) as rpc, pytest.raises(RpcAnswered) as caught:
        rpc.call("eth_call")
    assert caught.value.data == data
    if isinstance(error, dict):
        assert (caught.value.rpc_code, caught.value.rpc_message) == (error["code"], error["message"])
    else:
        assert (caught.value.rpc_code, caught.value.rpc_message) == (0, error)


def refusing(times: int, message: str) -> Callable[[Any], bytes]:
    """An error the first `times`, then an answer."""
    left = iter(range(times))

    def answer(body: Any) -> bytes:
        told = {"result": "0x1"} if next(left, None) is None else {"error": {"code": -32602, "message": message}}
        return json.dumps({"jsonrpc": "2.0", "id": body["id"], **told}).encode()

    return answer


BETWEEN = "BlockOutOfRangeError: block height is 18 but requested was 17"


def test_the_newest_block_is_asked_for_again_while_the_node_takes_one_in(node: FakeNode) -> None:
    node.answer = refusing(3, BETWEEN)
    with Rpc(node.url) as rpc:
        assert rpc.newest("eth_call", {}, "latest") == "0x1"
    assert len(node.requests) == 4


def test_it_is_not_asked_for_ever(node: FakeNode) -> None:
    node.answer = refusing(100, BETWEEN)
    with Rpc(node.url) as rpc, pytest.raises(RpcAnswered, match="BlockOutOfRange"):
        rpc.newest("eth_call", {}, "latest")
    assert len(node.requests) == 6


def test_any_other_error_of_the_node_and_any_plain_call_is_asked_once(node: FakeNode) -> None:
    with Rpc(node.url) as rpc:
        node.answer = refusing(1, "execution reverted")
        with pytest.raises(RpcAnswered):
            rpc.newest("eth_call", {}, "latest")
        node.answer = refusing(1, BETWEEN)
        with pytest.raises(RpcAnswered):
            rpc.call("eth_sendRawTransaction", "0x")
    assert len(node.requests) == 2


@pytest.mark.parametrize(
    "answer", [b"", b"<html>", b"[]", b"3", b"{}", b'{"id":1}', b'{"id":9,"result":1}', b'{"result":1}']
)
def test_an_answer_that_is_no_json_rpc_is_malformed(node: FakeNode, answer: bytes) -> None:
    node.answer = lambda _: answer
    with Rpc(node.url) as rpc, pytest.raises(RpcMalformed) as caught:
        rpc.call("eth_chainId")
    assert caught.value.code == "chain.malformed_answer"


def test_an_answer_without_end_is_cut_off(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc_module, "MAX_ANSWER_BYTES", 1000)
    node.answer = lambda body: json.dumps({"id": body["id"], "result": "x" * 1000}).encode()
    with Rpc(node.url) as rpc, pytest.raises(RpcUnreachable, match="longer than 1000"):
        rpc.call("eth_chainId")


def answer_batch(body: Any) -> bytes:
    if isinstance(body, dict):
        return json.dumps({"id": body["id"], "result": body["method"]}).encode()
    return json.dumps([{"id": item["id"], "result": item["method"]} for item in reversed(body)]).encode()


def test_a_batch_is_one_request_and_keeps_its_order(node: FakeNode) -> None:
    node.answer = answer_batch
    with Rpc(node.url) as rpc:
        assert rpc.batch([("a", ()), ("b", ()), ("c", (1,))]) == ["a", "b", "c"]
        assert rpc.batch([]) == []
    assert len(node.requests) == 1


@pytest.mark.parametrize("reply", [b"not json", b'{"id":null,"error":{"code":-32600,"message":"no batches"}}'])
def test_a_node_without_batches_is_asked_one_by_one(node: FakeNode, reply: bytes) -> None:
    node.answer = lambda body: reply if isinstance(body, list) else answer_batch(body)
    with Rpc(node.url) as rpc:
        assert rpc.batch([("a", ()), ("b", ())]) == ["a", "b"]


def test_a_batch_with_an_error_or_a_hole_raises(node: FakeNode) -> None:
    def holed(body: Any) -> bytes:
        return json.dumps([{"id": body[0]["id"], "result": 1}]).encode()

    def failed(body: Any) -> bytes:
        answers = [{"id": body[0]["id"], "result": 1}, {"id": body[1]["id"], "error": {"code": 5, "message": "no"}}]
        return json.dumps(answers).encode()

    with Rpc(node.url) as rpc:
        node.answer = holed
        with pytest.raises(RpcMalformed):
            rpc.batch([("a", ()), ("b", ())])
        node.answer = failed
        with pytest.raises(RpcAnswered):
            rpc.batch([("a", ()), ("b", ())])


@pytest.mark.parametrize("url", ["", "localhost:8545", "ftp://host", "http://", "http://host:0", "http://host:99999"])
def test_what_is_no_address_of_a_node_is_refused(url: str) -> None:
    with pytest.raises(ChainError) as caught:
        Rpc(url)
    assert caught.value.code == "chain.url"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:8545", "http://127.0.0.1:8545"),
        ("https://user:pw@node.example/v3/secret?key=1#f", "https://node.example"),
        ("http://[::1]:8545/x", "http://[::1]:8545"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert shorten(url) == shown


@pytest.mark.parametrize("value", [None, 5, "5", "0x", "0xzz", ["0x1"]])
def test_a_quantity_in_another_form_is_malformed(value: object) -> None:
    with pytest.raises(RpcMalformed):
        quantity(value, "number")


@pytest.mark.parametrize("value", [None, 5, "abcd", "0xabc", "0xzz"])
def test_data_in_another_form_is_malformed(value: object) -> None:
    with pytest.raises(RpcMalformed):
        hex_bytes(value, "data")
