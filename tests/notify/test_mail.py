"""A notice as a mail: encrypted or not at all, readable, once for each recipient who can get it."""

from __future__ import annotations

import email
import email.policy
import json
import time
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage

import pytest

from ledger.config import MailConfig
from ledger.errors import InputError
from ledger.notify import queue
from ledger.notify.mail import compose, read_password, send
from ledger.notify.notsent import NotSent
from tests.notify.conftest import PASSWORD, Desk, Identity, MailServer


def configure(
    desk: Desk,
    port: int,
    *,
    to: str = '"duty@city.example"',
    security: str = "starttls",
    login: bool = True,
    host: str = "localhost",
) -> None:
    desk.private("mail.password", PASSWORD + "\n")
    who = 'user = "night"\npassword_file = "mail.password"\n' if login else ""
    desk.settings(
        f'[notify]\nhosts = ["{host}"]\n[notify.mail]\nhost = "{host}"\nport = {port}\nsecurity = "{security}"\n'
        f'from = "duizhang@city.example"\nto = [{to}]\ntimeout_seconds = 1\n{who}'
    )


def read(content: bytes) -> EmailMessage:
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def failed(desk: Desk) -> tuple[str, str]:
    """State and code of the one notice that was tried."""
    (told,) = desk.send()
    assert told.error is not None
    return told.state, told.error.code


def test_a_mail_over_starttls_with_login_reads_well(desk: Desk, mail_server: MailServer, trusted: Identity) -> None:
    configure(desk, mail_server.port, to='"duty@city.example", "chief@city.example"')
    moment = datetime(2026, 1, 31, 18, 5, 0, tzinfo=UTC)
    moment = max(moment, datetime.now(UTC) - timedelta(days=1)).replace(microsecond=0)
    (notice_id,) = desk.add(moment, failures=[{"code": "source.locked", "what": "permits"}])
    assert [(it.state, it.error) for it in desk.send()] == [("sent", None)]
    assert mail_server.logins == [("night", PASSWORD)]
    ((recipients, content),) = mail_server.took
    assert recipients == ["duty@city.example", "chief@city.example"]
    message = read(content)
    assert message["Subject"] == "对账 guangzhou 2026-01-31：有差异"
    assert message["From"] == "duizhang@city.example"
    assert message["To"] == "duty@city.example, chief@city.example"
    assert message["Message-ID"] == f"<{notice_id}@city.example>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Date"].datetime == moment
    text = message.get_content()
    assert "未完成 permits [source.locked]" in text
    assert "not done: permits [source.locked]" in text
    assert "briefs/2026-01-31.txt" in text
    assert desk.send() == []
    assert len(mail_server.took) == 1


def test_a_mail_over_tls_from_the_first_byte(desk: Desk, tls_mail_server: MailServer, trusted: Identity) -> None:
    configure(desk, tls_mail_server.port, security="tls")
    desk.add()
    assert [it.state for it in desk.send()] == ["sent"]
    assert len(tls_mail_server.took) == 1


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_certificate_nobody_vouches_for_ends_it(
    desk: Desk, mail_server: MailServer, tls_mail_server: MailServer, security: str
) -> None:
    server = mail_server if security == "starttls" else tls_mail_server
    configure(desk, server.port, security=security)
    desk.add()
    assert failed(desk) == ("waiting", "notify.tls")
    assert (server.took, server.logins) == ([], [])


def test_a_certificate_of_another_name_ends_it(desk: Desk, mail_server: MailServer, trusted: Identity) -> None:
    configure(desk, mail_server.port, host="127.0.0.1")
    desk.add()
    assert failed(desk) == ("waiting", "notify.tls")
    assert (mail_server.took, mail_server.logins) == ([], [])


def test_without_starttls_nothing_goes_out_in_clear(desk: Desk, plain_mail_server: MailServer) -> None:
    for login in (True, False):
        configure(desk, plain_mail_server.port, login=login)
        desk.add()
        assert desk.send()[-1].error is not None
    assert {it.error.code for it in desk.send() if it.error} == {"notify.mail_support"}
    assert (plain_mail_server.took, plain_mail_server.logins, plain_mail_server.asked) == ([], [], [])


def test_plain_mail_where_asked_for_but_never_a_password(desk: Desk, plain_mail_server: MailServer) -> None:
    configure(desk, plain_mail_server.port, security="none")
    desk.add()
    assert failed(desk) == ("waiting", "notify.mail_login")
    assert plain_mail_server.logins == []
    configure(desk, plain_mail_server.port, security="none", login=False)
    assert [it.state for it in desk.send()] == ["sent"]


def test_a_wrong_password_is_said_and_not_tried_three_times(
    desk: Desk, mail_server: MailServer, trusted: Identity
) -> None:
    configure(desk, mail_server.port)
    desk.private("mail.password", "wrong-one\n")
    (notice_id,) = desk.add()
    assert failed(desk) == ("waiting", "notify.mail_login")
    assert desk.row(notice_id).attempts == 1
    assert "wrong-one" not in str(desk.row(notice_id).error)
    assert mail_server.took == []


def test_greylisting_passes_by_itself(desk: Desk, plain_mail_server: MailServer) -> None:
    configure(desk, plain_mail_server.port, security="none", login=False)
    plain_mail_server.refuse = {"duty@city.example": ["451 4.7.1 greylisted, try again", "250 OK"]}
    (notice_id,) = desk.add()

    async def take(server: object, session: object, envelope: object, address: str, options: object) -> str:
        plain_mail_server.asked.append(address)
        if len(plain_mail_server.asked) == 1:
            return "451 4.7.1 greylisted, try again"
        envelope.rcpt_tos.append(address)  # type: ignore[attr-defined]
        return "250 OK"

    plain_mail_server.handle_RCPT = take  # type: ignore[method-assign,assignment]
    assert [it.state for it in desk.send()] == ["sent"]
    assert (len(plain_mail_server.asked), desk.row(notice_id).attempts) == (2, 2)


def test_a_refused_message_is_not_sent_again_the_same_night(desk: Desk, plain_mail_server: MailServer) -> None:
    configure(desk, plain_mail_server.port, security="none", login=False)
    plain_mail_server.data_answers = ["554 5.7.1 looks like spam"]
    (notice_id,) = desk.add()
    assert failed(desk) == ("waiting", "notify.refused")
    assert desk.row(notice_id).attempts == 1
    assert [it.state for it in desk.send()] == ["sent"]
    ((_, content),) = plain_mail_server.took
    assert read(content)["Message-ID"] == f"<{notice_id}@city.example>"


def test_who_took_it_is_not_written_to_again(desk: Desk, plain_mail_server: MailServer) -> None:
    everybody = '"duty@city.example", "gone@city.example", "chief@city.example"'
    configure(desk, plain_mail_server.port, security="none", login=False, to=everybody)
    plain_mail_server.refuse = {"gone@city.example": ["550 5.1.1 no such mailbox"]}
    (notice_id,) = desk.add()
    (told,) = desk.send()
    assert told.error is not None
    assert (told.state, told.error.code) == ("waiting", "notify.recipients")
    assert "gone@city.example (550" in told.error.en
    assert "duty" not in told.error.en
    assert [it[0] for it in plain_mail_server.took] == [["duty@city.example", "chief@city.example"]]
    assert desk.row(notice_id).attempts == 1
    assert failed(desk) == ("waiting", "notify.recipients")
    assert len(plain_mail_server.took) == 1
    plain_mail_server.refuse = {}
    assert [it.state for it in desk.send()] == ["sent"]
    assert [it[0] for it in plain_mail_server.took][1:] == [["gone@city.example"]]


def test_a_recipient_taken_out_of_the_settings_ends_the_waiting(desk: Desk, plain_mail_server: MailServer) -> None:
    configure(desk, plain_mail_server.port, security="none", login=False, to='"duty@city.example", "gone@city.example"')
    plain_mail_server.refuse = {"gone@city.example": ["550 5.1.1 no such mailbox"]}
    desk.add()
    assert [it.state for it in desk.send()] == ["waiting"]
    configure(desk, plain_mail_server.port, security="none", login=False)
    assert [it.state for it in desk.send()] == ["sent"]
    assert len(plain_mail_server.took) == 1


def test_a_mistyped_only_recipient_who_is_mended_gets_the_mail(desk: Desk, plain_mail_server: MailServer) -> None:
    configure(desk, plain_mail_server.port, security="none", login=False, to='"dty@city.example"')
    plain_mail_server.refuse = {"dty@city.example": ["550 5.1.1 no such mailbox"]}
    desk.add()
    assert failed(desk) == ("waiting", "notify.recipients")
    configure(desk, plain_mail_server.port, security="none", login=False)
    assert [it.state for it in desk.send()] == ["sent"]
    assert [it[0] for it in plain_mail_server.took] == [["duty@city.example"]]


def test_a_server_that_is_not_there_is_tried_three_times(desk: Desk, plain_mail_server: MailServer) -> None:
    configure(desk, 9, security="none", login=False, host="127.0.0.1")
    (notice_id,) = desk.add()
    assert failed(desk) == ("waiting", "notify.unreachable")
    assert desk.row(notice_id).attempts == 3
    configure(desk, plain_mail_server.port, security="none", login=False)
    assert [it.state for it in desk.send()] == ["sent"]


@pytest.mark.parametrize("security", ["none", "tls"])
def test_a_server_that_drips_cannot_hold_the_night(
    desk: Desk, dripping: int, security: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "TRIES", 1)
    configure(desk, dripping, security=security, login=False, host="127.0.0.1")
    desk.add()
    began = time.monotonic()
    state, code = failed(desk)
    assert time.monotonic() - began < 6
    # To TLS the very first bytes are nonsense.
    assert (state, code) == ("waiting", "notify.no_answer" if security == "none" else "notify.tls")


def test_a_host_that_is_not_in_the_list_gets_nothing(plain_mail_server: MailServer) -> None:
    config = MailConfig("localhost", "a@b.example", ("c@d.example",), plain_mail_server.port, "none")
    message = compose(config, "0" * 32, datetime.now(UTC), "x", "y")
    with pytest.raises(NotSent) as refused:
        send(config, ("elsewhere.example",), None, message, config.recipients)
    assert (refused.value.code, plain_mail_server.asked) == ("notify.host", [])


def test_a_line_break_never_becomes_a_header() -> None:
    config = MailConfig("localhost", "a@b.example", ("c@d.example",))
    for subject in ("x\nBcc: e@f.example", "x\r\nBcc: e@f.example", "x\rBcc: e@f.example"):
        with pytest.raises(ValueError, match=r"(?i)header|linefeed"):
            compose(config, "0" * 32, datetime.now(UTC), subject, "text")
    body = compose(config, "0" * 32, datetime.now(UTC), "x", "\r\n.\r\nBcc: e@f.example\r\n").as_bytes()
    assert b"\nBcc" not in body


@pytest.mark.parametrize(
    "address", ["a@b.example\\nBcc: e@f.example", "a@b.example, e@f.example", "<a@b.example>", "a"]
)
def test_an_address_that_is_more_than_an_address_is_refused(desk: Desk, address: str) -> None:
    configure(desk, 25, to=f'"{address}"')
    with pytest.raises(InputError) as refused:
        desk.send()
    assert refused.value.code == "config.type"


def test_what_a_file_name_says_stays_one_line_of_the_text(desk: Desk, plain_mail_server: MailServer) -> None:
    from ledger.notify.outcome import night_document, text_of

    odd = "inbox/x/permits/a\nReply-To: e@f.example\udcff\u202e.csv"
    document = night_document(
        party="p",
        day="2026-01-31",
        exit_code=2,
        received=(),
        reconciled=(),
        failures=[(odd, InputError("c.d", "", ""))],
    )
    json.dumps(document, ensure_ascii=False).encode()
    assert [line for line in text_of(document).splitlines() if line.startswith("Reply-To")] == []
    assert "\u202e" not in text_of(document)


@pytest.mark.parametrize("text", ["", "\n", "two\nlines\n", "口令\n"])
def test_a_password_file_holds_one_line(desk: Desk, text: str) -> None:
    with pytest.raises(InputError) as refused:
        read_password(desk.private("p", text))
    assert refused.value.code == "notify.password"


def test_a_password_file_others_may_read_is_refused(desk: Desk, mail_server: MailServer, trusted: Identity) -> None:
    configure(desk, mail_server.port)
    desk.private("mail.password", PASSWORD, 0o640)
    desk.add()
    assert failed(desk) == ("waiting", "key.permissions")
    assert mail_server.logins == []
