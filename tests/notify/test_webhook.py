"""A notice as a signed POST: what arrives, what is tried again, where it never goes."""

from __future__ import annotations

import base64
import http.server
import json
import time
import zlib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import hashes, hmac

from ledger.errors import InputError
from ledger.notify import queue, webhook
from ledger.notify.webhook import read_secret, retry_after
from tests.notify.conftest import SECRET, SECRET_LINE, Desk, Identity, Receiver


def configure(desk: Desk, url: str, *, hosts: str = '"127.0.0.1"', seconds: int = 1) -> None:
    desk.private("webhook.secret", SECRET_LINE)
    desk.settings(
        f"[notify]\nhosts = [{hosts}]\n"
        f'[notify.webhook]\nurl = "{url}"\nsecret_file = "webhook.secret"\ntimeout_seconds = {seconds}\n'
    )


def genuine(headers: dict[str, str], body: bytes) -> bool:
    """The check a receiver makes, by another library than ours (Standard Webhooks 1.0, Verifying)."""
    mac = hmac.HMAC(SECRET, hashes.SHA256())
    mac.update(headers["webhook-id"].encode() + b"." + headers["webhook-timestamp"].encode() + b"." + body)
    version, _, signature = headers["webhook-signature"].partition(",")
    return version == "v1" and base64.b64decode(signature) == mac.finalize()


def test_what_arrives_is_the_stored_document_signed_for_now(desk: Desk, receiver: Receiver) -> None:
    configure(desk, receiver.url())
    (notice_id,) = desk.add(party="guangzhou", failures=[{"code": "x", "what": "许可"}])
    assert [(it.state, it.error) for it in desk.send()] == [("sent", None)]
    (got,) = receiver.got
    assert got.path == "/hooks/secret-path?token=secret-token"
    assert genuine(got.headers, got.body)
    assert not genuine(got.headers, got.body + b" ")
    assert not genuine({**got.headers, "webhook-id": "0" * 32}, got.body)
    assert abs(int(got.headers["webhook-timestamp"]) - time.time()) < 60
    assert got.headers["webhook-id"] == notice_id
    assert got.headers["content-type"] == "application/json"
    assert json.loads(got.body)["failures"] == [{"code": "x", "what": "许可"}]
    assert (desk.row(notice_id).state, desk.row(notice_id).attempts) == ("sent", 1)
    assert desk.send() == []
    assert len(receiver.got) == 1


def test_a_server_that_fails_is_asked_again_with_the_same_id(desk: Desk, receiver: Receiver) -> None:
    configure(desk, receiver.url())
    receiver.answers = [500, 503]
    (notice_id,) = desk.add()
    assert [it.state for it in desk.send()] == ["sent"]
    assert [it.headers["webhook-id"] for it in receiver.got] == [notice_id] * 3
    assert len({it.body for it in receiver.got}) == 1
    assert all(genuine(it.headers, it.body) for it in receiver.got)
    assert desk.row(notice_id).attempts == 3


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502])
def test_these_answers_mean_come_back(desk: Desk, receiver: Receiver, status: int) -> None:
    configure(desk, receiver.url())
    receiver.answers = [status]
    desk.add()
    assert [it.state for it in desk.send()] == ["sent"]
    assert len(receiver.got) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 410, 413])
def test_a_refusal_is_not_repeated_in_the_same_run(desk: Desk, receiver: Receiver, status: int) -> None:
    configure(desk, receiver.url())
    receiver.answers = [status]
    desk.add()
    (told,) = desk.send()
    assert told.error is not None
    assert (told.state, told.error.code, len(receiver.got)) == ("waiting", "notify.refused", 1)
    assert str(status) in told.error.zh
    assert [it.state for it in desk.send()] == ["sent"]  # the next night


def test_a_refusal_of_one_does_not_keep_the_next_from_being_sent(desk: Desk, receiver: Receiver) -> None:
    configure(desk, receiver.url())
    receiver.answers = [413]
    old, new = desk.add(datetime.now(UTC) - timedelta(days=1)) + desk.add()
    assert [(it.id, it.state) for it in desk.send()] == [(old, "waiting"), (new, "sent")]


def test_a_dead_server_is_left_alone_after_the_first_notice(desk: Desk, receiver: Receiver) -> None:
    configure(desk, receiver.url())
    receiver.answers = [503] * 9
    first, second = desk.add(datetime.now(UTC) - timedelta(days=1)) + desk.add()
    assert [it.state for it in desk.send()] == ["waiting", "waiting"]
    assert [it.headers["webhook-id"] for it in receiver.got] == [first] * 3
    assert desk.row(second).attempts == 0


def test_retry_after_is_honoured_up_to_a_limit(desk: Desk, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(queue, "sleep", waits.append)
    configure(desk, receiver.url())
    receiver.answers = [(429, {"retry-after": "7"}), (503, {"retry-after": "3600"})]
    desk.add()
    assert [it.state for it in desk.send()] == ["waiting"]
    assert waits == [7.0]
    assert len(receiver.got) == 2


def test_retry_after_forms() -> None:
    now = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
    assert retry_after("120", now) == 120.0
    assert retry_after("Sat, 31 Jan 2026 12:00:30 GMT", now) == 30.0
    assert retry_after("Sat, 31 Jan 2026 11:00:00 GMT", now) == 0.0
    for odd in (None, "", "-1", "soon", "１２", "1e9"):
        assert retry_after(odd, now) is None
    assert retry_after("9" * 5000, now) == 999999999.0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed(desk: Desk, receiver: Receiver, elsewhere: Receiver, status: int) -> None:
    configure(desk, receiver.url())
    receiver.answers = [(status, {"location": elsewhere.url()})] * 3
    desk.add()
    (told,) = desk.send()
    assert told.error is not None
    assert (told.state, told.error.code) == ("waiting", "notify.redirect")
    assert (len(receiver.got), len(elsewhere.got)) == (1, 0)


def test_proxies_of_the_environment_are_not_used(
    desk: Desk, receiver: Receiver, elsewhere: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{elsewhere.port}")
    configure(desk, receiver.url())
    desk.add()
    assert [it.state for it in desk.send()] == ["sent"]
    assert (len(receiver.got), len(elsewhere.got)) == (1, 0)


def test_a_server_that_says_nothing_is_given_up_in_time_and_asked_again_next_night(
    desk: Desk, receiver: Receiver
) -> None:
    configure(desk, receiver.url())
    receiver.answers = [lambda handler: receiver.done.wait(30)] * 3  # type: ignore[list-item,misc]
    (notice_id,) = desk.add()
    began = time.monotonic()
    (told,) = desk.send()
    assert time.monotonic() - began < 6
    assert told.error is not None
    assert (told.state, told.error.code, len(receiver.got)) == ("waiting", "notify.no_answer", 3)
    assert [it.state for it in desk.send()] == ["sent"]
    assert {it.headers["webhook-id"] for it in receiver.got} == {notice_id}


def test_a_server_that_drips_its_answer_cannot_hold_the_night(
    desk: Desk, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drip(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(200):
            handler.wfile.write(b"x-%d: y\r\n" % number)
            time.sleep(0.1)

    monkeypatch.setattr(queue, "TRIES", 1)
    configure(desk, receiver.url())
    receiver.answers = [drip]
    desk.add()
    began = time.monotonic()
    (told,) = desk.send()
    assert 2.5 < time.monotonic() - began < 5
    assert told.error is not None
    assert told.error.code == "notify.no_answer"


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_a_huge_answer_is_not_read(desk: Desk, receiver: Receiver, packed: bool) -> None:
    sent: list[int] = []

    def flood(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        if packed:
            handler.send_header("content-encoding", "gzip")
        handler.end_headers()
        packer = zlib.compressobj(wbits=31)
        block = packer.compress(bytes(1 << 24)) + packer.flush() if packed else bytes(1 << 16)
        try:
            for _ in range(4096):
                handler.wfile.write(block)
                sent.append(len(block))
        except OSError:
            return

    configure(desk, receiver.url())
    receiver.answers = [flood]
    desk.add()
    began = time.monotonic()
    assert [it.state for it in desk.send()] == ["sent"]
    assert time.monotonic() - began < 3
    time.sleep(0.2)
    assert sum(sent) < 64 << 20


def test_a_host_taken_out_of_the_list_gets_nothing_that_was_stored_for_it(desk: Desk, receiver: Receiver) -> None:
    configure(desk, receiver.url())
    desk.add()
    text = (desk.root / "duizhang.toml").read_text(encoding="utf-8")
    (desk.root / "duizhang.toml").write_text(text.replace('hosts = ["127.0.0.1"]', "hosts = []"), encoding="utf-8")
    with pytest.raises(InputError) as refused:
        desk.send()
    assert (refused.value.code, receiver.got) == ("config.notify_host", [])


def test_the_host_is_checked_again_at_the_moment_of_sending(desk: Desk, receiver: Receiver) -> None:
    configure(desk, receiver.url())
    settings = desk.workspace.config.notify.webhook
    assert settings is not None
    for hosts in ((), ("elsewhere.example",), ("127.0.0.10",)):
        with pytest.raises(webhook.NotSent) as refused:
            webhook.post(settings, hosts, SECRET, "0" * 32, b"{}")
        assert refused.value.code == "notify.host"
    assert receiver.got == []


def test_a_stored_notice_goes_where_the_settings_of_now_say(
    desk: Desk, receiver: Receiver, elsewhere: Receiver
) -> None:
    configure(desk, receiver.url())
    desk.add()
    configure(desk, elsewhere.url())
    assert [it.state for it in desk.send()] == ["sent"]
    assert (len(receiver.got), len(elsewhere.got)) == (0, 1)


def test_a_notice_of_a_channel_that_was_removed_ends(desk: Desk, receiver: Receiver) -> None:
    configure(desk, receiver.url())
    (notice_id,) = desk.add()
    desk.settings("")
    assert [it.state for it in desk.send()] == ["failed"]
    assert desk.row(notice_id).state == "failed"
    assert receiver.got == []


def test_tls_with_a_certificate_the_system_trusts(desk: Desk, tls_receiver: Receiver, trusted: Identity) -> None:
    configure(desk, tls_receiver.url("https", "localhost"), hosts='"localhost"')
    desk.add()
    assert [it.state for it in desk.send()] == ["sent"]


def test_tls_with_an_unknown_authority_or_another_name_is_refused(
    desk: Desk, tls_receiver: Receiver, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(desk, tls_receiver.url("https", "localhost"), hosts='"localhost"')
    desk.add()
    (told,) = desk.send()
    assert told.error is not None
    assert (told.error.code, tls_receiver.got) == ("notify.tls", [])
    monkeypatch.setenv("SSL_CERT_FILE", str(identity.authority))
    configure(desk, tls_receiver.url("https", "127.0.0.1"))
    (told,) = desk.send()
    assert told.error is not None
    assert (told.error.code, tls_receiver.got) == ("notify.tls", [])


def test_no_message_shows_the_secret_or_the_path_of_the_url(desk: Desk, receiver: Receiver) -> None:
    configure(desk, receiver.url())
    for answers in ([404], [302], [503] * 3):
        receiver.answers = [*answers]
        (notice_id,) = desk.add()
        told = desk.send()[-1]
        assert told.error is not None
        said = (
            f"{told.error.zh} {told.error.en} {told.error.where} {desk.row(notice_id).error} {desk.row(notice_id).body}"
        )
        assert "secret" not in said
        assert "whsec" not in said


@pytest.mark.parametrize(
    ("text", "mode", "code"),
    [
        (SECRET_LINE, 0o644, "key.permissions"),
        ("whsec_" + base64.b64encode(b"k" * 23).decode(), 0o600, "notify.secret"),
        ("whsec_" + base64.b64encode(b"k" * 65).decode(), 0o600, "notify.secret"),
        (base64.b64encode(b"k" * 32).decode(), 0o600, "notify.secret"),
        ("whsec_not base64 at all, by far", 0o600, "notify.secret"),
        ("", 0o600, "notify.secret"),
        (SECRET_LINE * 2, 0o600, "notify.secret"),
    ],
)
def test_a_secret_that_is_no_secret_is_refused(desk: Desk, receiver: Receiver, text: str, mode: int, code: str) -> None:
    configure(desk, receiver.url())
    path = desk.private("webhook.secret", text, mode)
    with pytest.raises(InputError) as refused:
        read_secret(path)
    assert refused.value.code == code
    assert not text or text.strip() not in refused.value.zh + refused.value.en
    desk.add()
    assert [it.state for it in desk.send()] == ["waiting"]
    assert receiver.got == []


def test_secrets_of_the_lengths_the_standard_allows(desk: Desk) -> None:
    for size in (24, 64):
        line = "whsec_" + base64.b64encode(b"k" * size).decode()
        assert read_secret(desk.private("s", line)) == b"k" * size
        assert read_secret(desk.private("s", line + "\r\n")) == b"k" * size
