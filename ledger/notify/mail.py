"""One notice as a mail over SMTP: TLS or STARTTLS with a checked certificate, never a step back to plain text.

Whoever the server refuses is named, so that the others are not written to again. A session that was cut off while the
message went out may have arrived: it is sent again with the same Message-ID.
"""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path

from ledger.config import MailConfig
from ledger.errors import InputError
from ledger.notify.notsent import NotSent, check_host
from ledger.store.files import read_private

DEADLINE_FACTOR = 4
"""A whole session ends after so many `timeout_seconds`, however slowly the server goes on talking."""


def read_password(path: Path) -> str:
    """The password of `password_file`: one line of ASCII, in a file of mode 0600. InputError `notify.password`."""
    try:
        lines = read_private(path, 4096).decode("ascii").splitlines()
    except UnicodeDecodeError:
        lines = []
    if len(lines) != 1 or not lines[0]:
        raise InputError(
            "notify.password",
            "口令文件应恰为一行 ASCII 口令",
            "the password file holds exactly one line, in ASCII",
            str(path),
        )
    return lines[0]


def compose(config: MailConfig, notice_id: str, created: datetime, subject: str, text: str) -> EmailMessage:
    """The message; the same for every try. A subject with a line break is refused by the library (ValueError)."""
    message = EmailMessage(policy=SMTP)
    message["From"] = config.sender
    message["To"] = ", ".join(config.recipients)
    message["Subject"] = subject
    message["Date"] = format_datetime(created)
    message["Message-ID"] = f"<{notice_id}@{config.sender.rpartition('@')[2]}>"
    # Or a mailbox on holiday would answer the night job.
    message["Auto-Submitted"] = "auto-generated"
    # base64: every server takes it, and a line of any length.
    message.set_content(text, cte="base64")
    return message


def send(
    config: MailConfig, hosts: Sequence[str], password: str | None, message: EmailMessage, recipients: Sequence[str]
) -> None:
    """Try once to hand `message` over for `recipients`; NotSent `notify.*` unless the server took all of them.

    `NotSent.remaining` names those it did not take, where it took others.
    """
    where = f"{config.host}:{config.port}"
    check_host(config.host, hosts, where)
    if config.security == "none" and config.user is not None:
        raise NotSent(
            "notify.mail_login",
            'security = "none" 时不登录：口令不得明文传输',
            'no login with security = "none": a password is never sent in clear',
            where,
        )
    seconds = config.timeout_seconds * DEADLINE_FACTOR
    refused = _within(seconds, where, lambda keep: _session(config, password, message, recipients, where, keep))
    if refused:
        raise _refused(refused, recipients, where)


Refused = Mapping[str, tuple[int, bytes]]
_Keep = Callable[[smtplib.SMTP], None]


def _session(
    config: MailConfig,
    password: str | None,
    message: EmailMessage,
    recipients: Sequence[str],
    where: str,
    keep: _Keep,
) -> Refused:
    """One session; who was refused although others were not. Errors come out as NotSent."""
    # The system's authorities, an office's own among them.
    context = ssl.create_default_context()
    try:
        client: smtplib.SMTP
        if config.security == "tls":
            client = smtplib.SMTP_SSL(config.host, config.port, timeout=config.timeout_seconds, context=context)
        else:
            client = smtplib.SMTP(config.host, config.port, timeout=config.timeout_seconds)
        keep(client)
        try:
            if config.security == "starttls":
                # Raises if the server does not offer it: what is meant to be encrypted never goes out in clear.
                client.starttls(context=context)
            if config.user is not None:
                client.login(config.user, password or "")
            refused = client.sendmail(config.sender, list(recipients), message.as_bytes())
        except BaseException:
            client.close()
            raise
        # The server has taken the message; how the session ends changes nothing.
        with contextlib.suppress(OSError, smtplib.SMTPException):
            client.quit()
        client.close()
    except smtplib.SMTPRecipientsRefused as error:
        return error.recipients
    except smtplib.SMTPNotSupportedError as error:
        raise NotSent(
            "notify.mail_support",
            f"邮件服务器不支持所需功能：{_line(str(error))}",
            f"the mail server lacks what is needed: {_line(str(error))}",
            where,
        ) from error
    except smtplib.SMTPAuthenticationError as error:
        raise _answered("notify.mail_login", "登录被拒绝", "the login was refused", error, where) from error
    except smtplib.SMTPResponseException as error:
        raise _answered("notify.refused", "邮件服务器拒绝", "the mail server refused", error, where) from error
    except ssl.SSLError as error:
        raise NotSent(
            "notify.tls",
            f"TLS 证书未通过校验：{_line(str(error))}",
            f"the certificate was not accepted: {_line(str(error))}",
            where,
        ) from error
    except (OSError, smtplib.SMTPException, ValueError) as error:
        reason = _line(str(error) or type(error).__name__)
        raise NotSent(
            "notify.unreachable", f"连接失败或中断：{reason}", f"no connection, or cut off: {reason}", where, again=True
        ) from error
    return refused


def _answered(code: str, zh: str, en: str, error: smtplib.SMTPResponseException, where: str) -> NotSent:
    told = error.smtp_error.decode("utf-8", "replace") if isinstance(error.smtp_error, bytes) else str(error.smtp_error)
    shown = f"{error.smtp_code} {_line(told)}"
    return NotSent(code, f"{zh}：{shown}", f"{en}: {shown}", where, again=400 <= error.smtp_code < 500)


def _refused(refused: Refused, recipients: Sequence[str], where: str) -> NotSent:
    shown = "; ".join(
        f"{name} ({number} {_line(told.decode('utf-8', 'replace'))})" for name, (number, told) in refused.items()
    )
    return NotSent(
        "notify.recipients",
        f"收件人被拒绝：{shown}",
        f"recipients refused: {shown}",
        where,
        # Greylisting and full queues pass; "no such mailbox" does not.
        again=any(400 <= number < 500 for number, _ in refused.values()),
        # If nobody took it, it stays a mail to whoever is configured then: a mistyped address may be mended.
        remaining=[name for name in recipients if name in refused] if len(refused) < len(recipients) else (),
    )


def _within(seconds: float, where: str, session: Callable[[_Keep], Refused]) -> Refused:
    """The session's outcome, or NotSent after `seconds`: smtplib's own time-out starts again with every byte."""
    outcome: list[Refused | BaseException] = []
    clients: list[smtplib.SMTP] = []

    def run() -> None:
        try:
            outcome.append(session(clients.append))
        except BaseException as error:  # raised again below, in the thread that asked
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        for client in clients:
            with contextlib.suppress(OSError, AttributeError):
                # Not SSLSocket's own: it would first take the encryption off.
                socket.socket.shutdown(client.sock, socket.SHUT_RDWR)  # type: ignore[arg-type]
        raise NotSent(
            "notify.no_answer",
            f"{seconds} 秒内未办完，是否收到未知",
            f"not done within {seconds} s; whether it arrived is unknown",
            where,
            again=True,
        )
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _line(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)[:200]
