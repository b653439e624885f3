"""The part of `doctor` about notices: are the files with secret and password there and in form. Nothing is sent."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from ledger.chain.rpc import shorten
from ledger.doctor.diagnosis import Diagnosis, fine, mend_for, problem, warning
from ledger.errors import LedgerError
from ledger.notify.mail import read_password
from ledger.notify.webhook import read_secret
from ledger.workspace import Workspace

_LOCAL = ("http://127.0.0.1", "http://localhost")


def examine_notify(workspace: Workspace) -> Iterator[Diagnosis]:
    """Webhook and mail of `[notify]`; nothing where neither is configured. That hosts are allowed is a rule of the settings."""
    config = workspace.config.notify
    if config.webhook is not None:
        path = workspace.root / config.webhook.secret_file
        try:
            read_secret(path)
        except LedgerError as error:
            yield _wrong_secret(error, path)
        else:
            where = shorten(config.webhook.url)
            if (
                config.webhook.url.startswith("http://")
                and where.rpartition(":")[0] not in _LOCAL
                and where not in _LOCAL
            ):
                yield warning(
                    "notify",
                    "notify.plain",
                    "webhook 用 http 明文发送：签名防改动，不防偷看",
                    "the webhook goes over plain http: the signature keeps it from being changed, not from being read",
                    "把 notify.webhook.url 改为 https",
                    "use https in notify.webhook.url",
                    where,
                )
            else:
                yield fine("notify", "webhook 的签名密钥可用", "the webhook's signing secret is usable", where)
    mail = config.mail
    if mail is None:
        return
    where = f"{mail.host}:{mail.port}"
    try:
        if mail.password_file is not None:
            read_password(workspace.root / mail.password_file)
    except LedgerError as error:
        yield problem(
            "notify", error.code, error.zh, error.en, *_mend_password(error, workspace, mail.password_file), where
        )
        return
    if mail.security == "none" and mail.user is not None:
        zh, en = (
            'security = "none" 时不会登录，邮件将发不出去',
            'there is no login with security = "none": no mail will go out',
        )
        mend = (
            '改为 "starttls" 或 "tls"，或去掉 user 与 password_file',
            'use "starttls" or "tls", or drop user and password_file',
        )
        yield problem("notify", "notify.mail_login", zh, en, *mend, where)
    elif mail.security == "none":
        zh, en = "邮件明文发送", "mail goes out unencrypted"
        yield warning("notify", "notify.plain", zh, en, 'security = "starttls"', 'security = "starttls"', where)
    else:
        yield fine("notify", "邮件设置可用", "the mail settings are usable", where)


def _wrong_secret(error: LedgerError, path: Path) -> Diagnosis:
    if error.code in ("key.missing", "notify.secret"):
        make = f'(umask 077; echo "whsec_$(head -c 32 /dev/urandom | base64)" > {shlex.quote(str(path))})'
        mend = (f"{make}，并把内容交给接收方", f"{make}, and hand its content to the receiver")
    else:
        mend = mend_for(error)
    return problem("notify", error.code, error.zh, error.en, *mend, str(path))


def _mend_password(error: LedgerError, workspace: Workspace, name: str | None) -> tuple[str, str]:
    if error.code in ("key.missing", "notify.password"):
        path = shlex.quote(str(workspace.root / (name or "")))
        return (
            f"把邮箱口令写入 {path}（一行，chmod 600）",
            f"put the mailbox's password into {path} (one line, chmod 600)",
        )
    return mend_for(error)
