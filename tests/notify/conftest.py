"""A workspace without a chain, whose store is real; real HTTP and SMTP servers on the loopback address that do what a test says."""

from __future__ import annotations

import datetime as dt
import http.server
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ledger.notify import queue
from ledger.notify.queue import Told
from ledger.store import models
from ledger.store.db import Store
from ledger.workspace import Workspace

SECRET = b"0123456789abcdef0123456789abcdef"
SECRET_LINE = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n"  # base64 of SECRET, written by hand
PASSWORD = "night-password"
BASE = f'party = "guangzhou"\n[chain]\ncontract = "0x{"1" * 40}"\naccount = "0x{"2" * 40}"\n'
DOCUMENT = {
    "format": "duizhang-notice/1", "party": "guangzhou", "day": "2026-01-31", "exit_code": 1, "outcome": "differences",
    "catalogs": [], "received": [], "failures": [], "not_listed": 0,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "WAITS_SECONDS", (0.0, 0.0))


@dataclass
class Desk:
    """A workspace as far as notices need one."""

    root: Path
    store: Store

    def settings(self, text: str) -> None:
        (self.root / "duizhang.toml").write_text(BASE + text, encoding="utf-8")

    def private(self, name: str, text: str, mode: int = 0o600) -> Path:
        path = self.root / name
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
        return path

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.root)

    def add(self, moment: dt.datetime | None = None, **changes: Any) -> list[str]:
        moment = moment or dt.datetime.now(dt.UTC)
        return queue.add_notices(self.store, self.workspace.config.notify, {**DOCUMENT, **changes}, moment)

    def send(self) -> list[Told]:
        return queue.send_waiting(self.workspace, self.store)

    def row(self, notice_id: str) -> models.Notice:
        with self.store.read() as session:
            return session.get_one(models.Notice, notice_id)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    root = tmp_path / "workspace"
    (root / "store").mkdir(parents=True, mode=0o700)
    (root / "duizhang.toml").write_text(BASE, encoding="utf-8")
    with closing(Workspace(root).open_store("create")) as store:
        yield Desk(root, store)


# ---- certificates ----


@dataclass(frozen=True)
class Identity:
    """A certificate for localhost and its key, and the authority's certificate."""

    chain: Path
    authority: Path

    @property
    def context(self) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(self.chain)
        return made


@pytest.fixture(scope="session")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    """Made anew each session, valid for the name localhost only."""
    folder = tmp_path_factory.mktemp("tls")
    now = dt.datetime.now(dt.UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("test authority", "localhost")]
    made = []
    for number in range(2):
        builder = (
            x509.CertificateBuilder()
            .subject_name(names[number])
            .issuer_name(names[0])
            .public_key(keys[number].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=number == 0, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(keys[number].public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key()), critical=False)
        )
        if number == 1:
            names_of_it = x509.SubjectAlternativeName([x509.DNSName("localhost")])
            builder = builder.add_extension(names_of_it, critical=False)
        made.append(builder.sign(keys[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    key = keys[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "ca.pem").write_bytes(made[0])
    (folder / "server.pem").write_bytes(key + made[1])
    return Identity(folder / "server.pem", folder / "ca.pem")


@pytest.fixture
def trusted(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> Identity:
    """The same, and this machine's system trusts the authority."""
    monkeypatch.setenv("SSL_CERT_FILE", str(identity.authority))
    return identity


# ---- a webhook's receiver ----


@dataclass
class Got:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes


Answer = int | tuple[int, dict[str, str]] | Callable[[http.server.BaseHTTPRequestHandler], None]


@dataclass
class Receiver:
    """Answers with `answers` in turn, then with 200; keeps what it got."""

    port: int
    answers: list[Answer] = field(default_factory=list)
    got: list[Got] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def url(self, scheme: str = "http", host: str = "127.0.0.1") -> str:
        return f"{scheme}://{host}:{self.port}/hooks/secret-path?token=secret-token"


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is what some tests are about."""


def _serve(context: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    made: Receiver

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            made.got.append(Got(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            answer = made.answers.pop(0) if made.answers else 200
            if callable(answer):
                answer(self)
                return
            status, headers = answer if isinstance(answer, tuple) else (answer, {})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", "0")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on the screen."""

    server = _Server(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    made = Receiver(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.done.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    yield from _serve()


@pytest.fixture
def elsewhere() -> Iterator[Receiver]:
    yield from _serve()


@pytest.fixture
def tls_receiver(identity: Identity) -> Iterator[Receiver]:
    yield from _serve(identity.context)


# ---- a mail server ----


@dataclass
class MailServer:
    """Takes mail for everybody but those named; keeps what it took."""

    port: int = 0
    took: list[tuple[list[str], bytes]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    refuse: dict[str, list[str]] = field(default_factory=dict)
    data_answers: list[str] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)

    async def handle_RCPT(self, server: Any, session: Session, envelope: Envelope, address: str, options: Any) -> str:
        self.asked.append(address)
        answers = self.refuse.get(address)
        if answers:
            return answers.pop(0) if len(answers) > 1 else answers[0]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Session, envelope: Envelope) -> str:
        if self.data_answers:
            return self.data_answers.pop(0)
        content = envelope.content
        assert isinstance(content, bytes)
        self.took.append((list(envelope.rcpt_tos), content))
        return "250 taken"

    def login(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        given = data.login.decode(), data.password.decode()
        self.logins.append(given)
        return AuthResult(success=given == ("night", PASSWORD), handled=False)


class _Anywhere(Controller):
    """On whichever port is free."""

    def _trigger_server(self) -> None:
        assert self.server is not None
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


def _mail(**options: Any) -> Iterator[MailServer]:
    made = MailServer()
    controller = _Anywhere(made, hostname="127.0.0.1", port=0, authenticator=made.login, **options)
    controller.start()
    made.port = controller.port
    try:
        yield made
    finally:
        controller.stop()


@pytest.fixture
def mail_server(identity: Identity) -> Iterator[MailServer]:
    """STARTTLS and login are required."""
    yield from _mail(tls_context=identity.context, require_starttls=True, auth_required=True)


@pytest.fixture
def plain_mail_server() -> Iterator[MailServer]:
    """Offers neither."""
    yield from _mail()


@pytest.fixture
def tls_mail_server(identity: Identity) -> Iterator[MailServer]:
    """TLS from the first byte."""
    yield from _mail(ssl_context=identity.context, auth_require_tls=False)


@pytest.fixture
def dripping() -> Iterator[int]:
    """The port of something that answers one byte now and then and never a line."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            for _ in range(400):
                try:
                    self.request.sendall(b"2")
                except OSError:
                    return
                time.sleep(0.1)

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
