"""What somebody without the right to, or with bad intent, gets: named one by one, against a real server."""

from __future__ import annotations

import json
import secrets
import socket
import sqlite3
import time
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import httpx
import pytest

from tests.api.conftest import Server, serving
from tests.conftest import Pair

LATER = (datetime.now(UTC) + timedelta(days=30)).date().isoformat()
PROBLEM = {"type", "title", "status", "detail", "code", "where"}
RUN = "0" * 32
PATHS = [
    ("GET", "/v1/reconciliations", "read"),
    ("GET", f"/v1/reconciliations/{RUN}", "read"),
    ("GET", f"/v1/reconciliations/{RUN}/events", "read"),
    ("GET", f"/v1/reconciliations/{RUN}/findings", "read"),
    ("GET", f"/v1/reconciliations/{RUN}/findings/export", "read"),
    ("POST", "/v1/reconciliations", "reconcile"),
    ("GET", "/v1/findings", "read"),
    ("POST", "/v1/findings/1/assign", "reconcile"),
    ("POST", "/v1/findings/1/explain", "reconcile"),
    ("GET", "/v1/catalogs", "read"),
    ("GET", "/v1/catalogs/permits", "read"),
    ("GET", "/v1/catalogs/permits/records", "read"),
    ("GET", "/v1/catalogs/permits/records/A-1", "read"),
    ("GET", "/v1/catalogs/permits/proof", "read"),
    ("GET", "/v1/catalogs/permits/records/A-1/proof", "read"),
    ("GET", "/v1/streams", "read"),
    ("GET", "/v1/batches", "read"),
    ("GET", f"/v1/batches/{'0' * 64}", "read"),
    ("GET", "/v1/anchors", "read"),
    ("GET", "/v1/status", "read"),
    ("GET", "/v1/catalogs/permits/counterparts/guangdong", "read"),
    ("GET", "/v1/catalogs/permits/counterparts/guangdong/statement", "read"),
    ("POST", "/v1/catalogs/permits/attestations", "admin"),
    ("GET", "/v1/attestations", "read"),
    ("GET", "/v1/disputes", "read"),
    ("POST", "/v1/disputes", "admin"),
    ("GET", "/v1/disputes/1", "read"),
    ("POST", "/v1/disputes/1/answers", "admin"),
    ("POST", "/v1/disputes/1/closing", "admin"),
    ("GET", "/metrics", "read"),
]
BODIES = {
    "/v1/reconciliations": {"catalog": "permits"},
    "/v1/findings/1/assign": {"to": "x"},
    "/v1/findings/1/explain": {"until": LATER, "reason": "x"},
    "/v1/catalogs/permits/attestations": {"counterparty": "guangdong"},
    "/v1/disputes": {"catalog": "permits", "counterparty": "guangdong", "batch": "B1"},
    "/v1/disputes/1/answers": {"answer": "reject"},
    "/v1/disputes/1/closing": {"outcome": "withdrawn"},
}
PUBLIC = {"/health", "/v1/verify"}
JSON = {"Content-Type": "application/json"}


def ask(client: httpx.Client, method: str, path: str) -> httpx.Response:
    return client.request(method, path, json=BODIES[path] if method == "POST" else None)


def test_every_route_is_in_the_list_of_this_test(server: Server) -> None:
    with server.client() as anybody:
        document = anybody.get("/openapi.json").json()
    routes = {(m.upper(), path) for path, methods in document["paths"].items() for m in methods if path not in PUBLIC}
    assert len(routes) == len(PATHS)
    for method, path in routes:
        security = document["paths"][path][method.lower()]["security"]
        assert security == [{"token": []}], path


@pytest.mark.parametrize(("method", "path", "scope"), PATHS)
def test_without_the_right_token_nothing_is_told(server: Server, method: str, path: str, scope: str) -> None:
    other = "verify" if scope == "read" else "read"
    with server.client() as anybody, server.client(other) as wrong:
        none = ask(anybody, method, path)
        assert (none.status_code, none.json()["code"]) == (401, "token.missing")
        assert none.headers["www-authenticate"].startswith("Bearer ")
        refused = ask(wrong, method, path)
        assert (refused.status_code, refused.json()["code"]) == (403, "token.scope")
        assert f'scope="{scope}"' in refused.headers["www-authenticate"]
        assert scope in refused.json()["detail"]


@pytest.mark.parametrize("scope", ["read", "verify", "reconcile"])
def test_admin_is_every_scope(server: Server, scope: str) -> None:
    with server.client("admin") as client:
        for method, path, needed in PATHS:
            if needed == scope and path.startswith(("/v1/streams", "/v1/findings/1")):
                assert ask(client, method, path).status_code in (200, 404, 409)


def test_guessed_and_bent_tokens_are_all_the_same(server: Server) -> None:
    good = server.token("read")
    _, token_id, secret = good.split("_")
    flipped = "0" if secret[0] != "0" else "1"
    bent = {
        "another secret": f"dz_{token_id}_{secrets.token_hex(32)}",
        "first digit": f"dz_{token_id}_{flipped}{secret[1:]}",
        "another id": f"dz_{secrets.token_hex(8)}_{secret}",
        "no prefix": f"{token_id}_{secret}",
        "upper case": f"dz_{token_id}_{secret.upper()}X",
        "too long": good + "0",
        "too short": good[:-1],
        "the hash itself": f"dz_{token_id}_{'0' * 64}",
        "SQL": "dz_' OR 1=1 --_x",
        "empty secret": f"dz_{token_id}_",
    }
    for name, text in bent.items():
        with server.client(token=text) as client:
            got = client.get("/v1/streams")
            assert (got.status_code, got.json()["code"]) == (401, "token.unknown"), name
    for header in (good, f"Basic {good}", "Bearer", "Bearer ,", "bearer x y"):
        got = httpx.get(f"{server.url}/v1/streams", headers={"Authorization": header})
        assert got.status_code == 401, header
    with server.client(token=good) as client:
        assert client.get("/v1/streams").status_code == 200


def test_a_revoked_token_is_refused_at_once_by_every_worker(server: Server) -> None:
    with server.client("read") as client:
        for _ in range(6):
            assert client.get("/v1/catalogs", headers={"Connection": "close"}).status_code == 200
        token_id = client.headers["authorization"].split("_")[1]
        server.party.ok("token", "revoke", token_id)
        codes = {client.get("/v1/catalogs", headers={"Connection": "close"}).json()["code"] for _ in range(12)}
    assert codes == {"token.revoked"}


def test_an_expired_token_is_refused(server: Server) -> None:
    with server.client("read") as client:
        token_id = client.headers["authorization"].split("_")[1]
        with sqlite3.connect(server.party.home / "store" / "ledger.db", timeout=30) as connection:
            connection.execute("UPDATE token SET expires_at = '2020-01-01T00:00:00Z' WHERE id = ?", (token_id,))
        connection.close()
        got = client.get("/v1/catalogs")
    assert (got.status_code, got.json()["code"]) == (401, "token.expired")
    listed = server.party.ok("token", "list")["tokens"]
    assert next(it for it in listed if it["id"] == token_id)["state"] == "expired"


def test_a_bad_token_is_never_passed_over_where_none_is_needed(server: Server) -> None:
    with server.client(token="dz_" + "0" * 16 + "_" + "0" * 64) as client:
        got = client.post("/v1/verify", json={})
    assert (got.status_code, got.json()["code"]) == (401, "token.unknown")


def test_use_is_noted_but_not_more_than_once_a_minute(server: Server) -> None:
    def used(token_id: str) -> str | None:
        tokens = server.party.ok("token", "list")["tokens"]
        found: str | None = next(it for it in tokens if it["id"] == token_id)["last_used_at"]
        return found

    with server.client("read") as client:
        token_id = client.headers["authorization"].split("_")[1]
        assert used(token_id) is None
        client.get("/v1/catalogs")
        end = time.monotonic() + 20
        while (first := used(token_id)) is None:
            assert time.monotonic() < end
        time.sleep(1.1)
        client.get("/v1/catalogs")
        time.sleep(0.5)
        assert used(token_id) == first


def test_the_store_never_holds_a_secret(server: Server) -> None:
    secret = server.token("read").split("_")[2]
    held = b"".join(path.read_bytes() for path in (server.party.home / "store").iterdir())
    assert secret.encode() not in held


def test_bodies_too_large_are_refused_whether_they_say_so_or_not(server: Server) -> None:
    with server.client() as client:
        big = b" " * ((16 << 20) + 1)
        declared = client.post("/v1/verify", content=big, headers={"Content-Type": "application/json"})
        assert (declared.status_code, declared.json()["code"]) == (413, "request.too_large")

        def chunks() -> object:
            for _ in range(17):
                yield b" " * (1 << 20)

        undeclared = client.post("/v1/verify", content=chunks(), headers={"Content-Type": "application/json"})  # type: ignore[arg-type]
        assert (undeclared.status_code, undeclared.json()["code"]) == (413, "request.too_large")


def raw(server: Server, sent: bytes, wait: float = 10.0) -> bytes:
    """What the server answers to these bytes, until it closes or `wait` seconds passed."""
    parts = urlsplit(server.url)
    told = b""
    with socket.create_connection((parts.hostname, parts.port), timeout=wait) as connection:
        connection.sendall(sent)
        try:
            while got := connection.recv(65536):
                told += got
        except TimeoutError:
            pass
    return told


def test_a_slow_body_is_cut_off_with_408(damaged: Pair) -> None:
    with serving(damaged.city, workers=1, env={"DUIZHANG_BODY_SECONDS": "1"}) as server:
        head = b"POST /v1/verify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        assert raw(server, head).startswith(b"HTTP/1.1 408 ")
        assert httpx.get(f"{server.url}/health").status_code == 200


def test_a_length_that_is_none_is_refused(server: Server) -> None:
    for length in (b"-1", b"99999999999999999999999", b"1e3"):
        head = b"POST /v1/verify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
        status = raw(server, head + length + b"\r\nConnection: close\r\n\r\n", 5).split(b" ", 2)[1]
        assert status in (b"400", b"413"), length


def test_other_media_types_are_refused(server: Server) -> None:
    with server.client("admin") as client:
        for path in ("/v1/reconciliations", "/v1/findings/1/assign", "/v1/verify"):
            for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
                got = client.post(path, content=b'{"catalog":"permits"}', headers={"Content-Type": kind})
                assert (got.status_code, got.json()["code"]) == (415, "request.media_type"), (path, kind)


def test_requests_that_make_no_sense_are_problems_in_the_callers_language(server: Server) -> None:
    with server.client("admin") as client:
        cases = [
            (client.get("/nowhere"), 404, "http.404"),
            (client.delete("/v1/batches"), 405, "http.405"),
            (client.get("/v1/catalogs/none"), 404, "catalog.unknown"),
            (client.get("/v1/batches", params={"limit": 0}), 422, "request.invalid"),
            (client.get("/v1/batches", params={"cursor": "AAAA"}), 422, "page.cursor"),
            (client.get("/v1/batches", params={"cursor": "W10="}), 422, "request.invalid"),
            (client.get("/v1/batches", params={"cursor": "WzFd"}), 422, "page.cursor"),
            (client.get("/v1/batches", params={"catalog": "a\x00b"}), 422, "request.invalid"),
            (client.post("/v1/reconciliations", json={"catalog": "none"}), 404, "catalog.unknown"),
            (client.post("/v1/reconciliations", json={"catalog": "registration"}), 409, "source.unconfigured"),
            (client.post("/v1/reconciliations", json={"catalog": "permits", "since": "2026-02-30"}), 422, "scope.day"),
            (client.post("/v1/reconciliations", json={"catalog": "permits", "values": True}), 422, "request.invalid"),
            (
                client.post("/v1/reconciliations", content=b'{"catalog":"permits\\ud800"}', headers=JSON),
                422,
                "request.invalid",
            ),
            (client.get(f"/v1/reconciliations/{RUN}"), 404, "reconciliation.unknown"),
            (client.get(f"/v1/batches/{'0' * 64}"), 404, "batch.unknown"),
        ]
        for got, status, code in cases:
            assert (got.status_code, got.json()["code"]) == (status, code), got.text
            assert set(got.json()) >= PROBLEM
            assert got.headers["content-type"] == "application/problem+json"
        assert client.delete("/v1/reconciliations").headers["allow"] == "GET, POST"
        not_json = client.post("/v1/reconciliations", content=b"{\xff", headers={"Content-Type": "application/json"})
        assert not_json.status_code in (400, 422)
        for wanted, title in (
            ("en", "Not found"),
            ("zh-CN,en;q=0.5", "不存在"),
            ("fr, en;q=0.1", "Not found"),
            ("", "不存在"),
        ):
            assert client.get("/nowhere", headers={"Accept-Language": wanted}).json()["title"] == title


def test_a_refused_value_is_not_told_back(server: Server) -> None:
    with server.client("admin") as client:
        got = client.post("/v1/reconciliations", json={"catalog": ["440101199001011234"]})
    assert got.status_code == 422
    assert "440101199001011234" not in got.text


def test_every_answer_has_the_security_headers_and_no_cors(server: Server) -> None:
    with server.client("read") as client:
        for path in ("/health", "/v1/streams", "/nowhere", "/openapi.json"):
            got = client.get(path, headers={"Origin": "https://evil.example"})
            assert got.headers["x-content-type-options"] == "nosniff"
            assert got.headers["cache-control"] == "no-store"
            assert "default-src 'none'" in got.headers["content-security-policy"]
            assert not [name for name in got.headers if name.startswith("access-control-")]
            assert "server" not in got.headers
        asked = client.options("/v1/streams", headers={"Origin": "x", "Access-Control-Request-Method": "GET"})
        assert asked.status_code == 405


def test_verification_is_limited_per_address_and_not_for_a_token(damaged: Pair) -> None:
    config = damaged.city.home / "duizhang.toml"
    before = config.read_text(encoding="utf-8")
    config.write_text(before + "\n[api]\nverify_per_minute = 8\n", encoding="utf-8")
    try:
        with serving(damaged.city, workers=2) as server:
            with server.client() as anybody:
                told = [anybody.post("/v1/verify", json={}, headers={"Connection": "close"}) for _ in range(14)]
            passed = sum(it.status_code == 200 for it in told)
            refused = [it for it in told if it.status_code == 429]
            # Each of the two workers gives four.
            assert 4 <= passed <= 8
            assert len(refused) == 14 - passed
            assert refused[0].json()["code"] == "request.too_many"
            assert 1 <= int(refused[0].headers["retry-after"]) <= 60
            spoofed = httpx.post(f"{server.url}/v1/verify", json={}, headers={"X-Forwarded-For": "203.0.113.9"})
            with server.client() as anybody:
                more = [
                    anybody.post(
                        "/v1/verify", json={}, headers={"X-Forwarded-For": f"203.0.113.{n}", "Connection": "close"}
                    )
                    for n in range(14)
                ]
            assert {it.status_code for it in more[6:]} | {spoofed.status_code} <= {200, 429}
            assert sum(it.status_code == 200 for it in (*told, *more, spoofed)) <= 8
            with server.client("verify") as known:
                assert {known.post("/v1/verify", json={}).status_code for _ in range(12)} == {200}
    finally:
        config.write_text(before, encoding="utf-8")


def test_a_fault_of_ours_shows_nothing_of_the_inside(damaged: Pair, tmp_path_factory: pytest.TempPathFactory) -> None:
    import shutil

    from tests.conftest import Party

    home = tmp_path_factory.mktemp("broken") / "city"
    shutil.copytree(damaged.city.home, home)
    text = (home / "duizhang.toml").read_text(encoding="utf-8")
    with serving(Party(home), workers=1) as server, server.client("read") as client:
        assert client.get("/v1/streams").status_code == 200
        account = home / "keys" / "account.json"
        account.write_text(json.dumps({"address": ["x"]}))
        account.chmod(0o600)
        got = client.get("/v1/streams")
        assert got.status_code in (500, 503)
        assert "Traceback" not in got.text
        with sqlite3.connect(home / "store" / "ledger.db", timeout=30) as connection:
            connection.execute("DELETE FROM chain")
        connection.close()
        health = httpx.get(f"{server.url}/health")
        time.sleep(2.2)
        health = httpx.get(f"{server.url}/health")
        assert (health.status_code, health.json()["status"]) == (503, "failing")
        assert str(home) not in health.text
    assert text == (home / "duizhang.toml").read_text(encoding="utf-8")
