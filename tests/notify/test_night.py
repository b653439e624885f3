"""Brief, then notices: what the night tells, what it ends with, what survives a kill, and where it is said that nobody was told."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ledger.notify import queue
from ledger.store import models
from tests.conftest import Pair, permit
from tests.notify.conftest import SECRET_LINE, Desk, MailServer, Receiver


def webhook(pair: Pair, receiver: Receiver, hosts: str = '"127.0.0.1"', more: str = "") -> None:
    (pair.city.home / "keys" / "webhook.secret").write_text(SECRET_LINE, encoding="utf-8")
    (pair.city.home / "keys" / "webhook.secret").chmod(0o600)
    with (pair.city.home / "duizhang.toml").open("a", encoding="utf-8") as config:
        config.write(
            f'\n[notify]\nhosts = [{hosts}]\n[notify.webhook]\nurl = "{receiver.url()}"\ntimeout_seconds = 1\n{more}'
        )


def notices(pair: Pair) -> list[tuple[str, str, str, int]]:
    with sqlite3.connect(pair.city.home / "store" / "ledger.db") as database:
        rows = database.execute("SELECT id, channel, state, attempts FROM notice ORDER BY created_at, id").fetchall()
    database.close()
    return rows


def differing(pair: Pair) -> None:
    """A delivery of three, of which the city then loses one and alters one."""
    pair.deliver("B1", [permit(n, holder=f"张三{n}") for n in (1, 2, 3)])
    pair.sql("DELETE FROM permits WHERE no = 'A-1'")
    pair.sql("UPDATE permits SET holder = '李四' WHERE no = 'A-2'")


def brief(pair: Pair) -> Any:
    return json.loads(max((pair.city.home / "briefs").glob("????-??-??.json")).read_text(encoding="utf-8"))


def test_the_outcome_is_told_in_numbers_and_changes_no_exit_code(
    pair: Pair, receiver: Receiver, plain_mail_server: MailServer
) -> None:
    differing(pair)
    mail = (
        f'[notify.mail]\nhost = "localhost"\nport = {plain_mail_server.port}\nsecurity = "none"\n'
        'from = "a@b.example"\nto = ["duty@b.example"]\n'
    )
    webhook(pair, receiver, '"127.0.0.1", "localhost"', mail)
    ran = pair.city.run("nightly", "--json")
    assert ran.code == 1
    assert [(it["channel"], it["state"]) for it in ran.json["notices"]] == [("mail", "sent"), ("webhook", "sent")] or [
        (it["channel"], it["state"]) for it in ran.json["notices"]
    ] == [("webhook", "sent"), ("mail", "sent")]
    told = json.loads(receiver.got[0].body)
    assert (told["format"], told["party"], told["exit_code"], told["outcome"]) == (
        "duizhang-notice/1",
        "guangzhou",
        1,
        "differences",
    )
    assert told["day"] == brief(pair)["day"]
    (catalog,) = told["catalogs"]
    assert (catalog["catalog"].partition("/")[0], catalog["verdict"]) == ("permits", "differences")
    assert {name: catalog["counts"][name] for name in ("source", "ledger", "matched", "altered", "missing")} == {
        "source": 2, "ledger": 3, "matched": 1, "altered": 1, "missing": 1,
    }  # fmt: skip
    assert catalog["findings"]["total"] == 2
    assert catalog["findings"]["new"] == 2
    assert told["failures"] == []
    ((_, content),) = plain_mail_server.took
    import email
    import email.policy

    text = email.message_from_bytes(content, policy=email.policy.default).get_content()  # type: ignore[attr-defined]
    assert "被改动 1" in text
    assert "missing 1" in text
    for secret in ("A-1", "A-2", "张三", "李四", "914401001"):
        assert secret not in text
        assert secret not in receiver.got[0].body.decode()
    # The second night knows the findings.
    assert pair.city.run("nightly").code == 1
    assert json.loads(receiver.got[1].body)["catalogs"][0]["findings"] == {
        "total": 2, "new": 0, "open": 2, "assigned": 0, "explained": 0,
    }  # fmt: skip
    assert receiver.got[0].headers["webhook-id"] != receiver.got[1].headers["webhook-id"]


def test_a_failure_is_told_by_code_and_place(pair: Pair, receiver: Receiver) -> None:
    webhook(pair, receiver)
    pair.sql("DROP TABLE permits")
    assert pair.city.run("nightly").code == 2
    told = json.loads(receiver.got[0].body)
    assert (told["outcome"], told["exit_code"]) == ("undetermined", 2)
    assert told["failures"] == [{"code": "source.table_missing", "what": "permits"}]


def test_a_night_nobody_could_be_told_of_ends_with_2_and_has_its_brief(pair: Pair, receiver: Receiver) -> None:
    webhook(pair, receiver)
    receiver.answers = [404]
    ran = pair.city.run("nightly")
    assert ran.code == 2
    assert len([line for line in ran.err.splitlines() if "notify.refused" in line]) == 1
    assert brief(pair)["exit_code"] == 0
    assert "全部一致" in ran.out
    ((notice_id, _, state, attempts),) = notices(pair)
    assert (state, attempts) == ("waiting", 1)
    status = pair.city.run("status", "--json").json
    assert [it["code"] for it in status["pending"]] == ["notice.unsent"]
    assert "404" in status["pending"][0]["message"]
    assert '{"' not in status["pending"][0]["message"]
    # The next night brings both, each under its id.
    assert pair.city.run("nightly").code == 0
    assert [it.headers["webhook-id"] for it in receiver.got].count(notice_id) == 2
    assert len(receiver.got) == 3
    assert [state for _, _, state, _ in notices(pair)] == ["sent", "sent"]
    assert pair.city.run("status", "--json").json["pending"] == []


def test_without_notify_nothing_is_stored(pair: Pair) -> None:
    assert pair.city.ok("nightly")["notices"] == []
    assert notices(pair) == []


KILLED = """
import os, signal, sys
from ledger.notify import queue
real = queue.{name}
def dying(*given, **more):
    {before}
    real(*given, **more)
    os.kill(os.getpid(), signal.SIGKILL)
queue.{name} = dying
from ledger.cli import main
main(["-C", sys.argv[1], "nightly"])
"""


def night_killed(pair: Pair, name: str, before: str = "pass") -> None:
    code = KILLED.format(name=name, before=before)
    ran = subprocess.run([sys.executable, "-c", code, str(pair.city.home)], capture_output=True, check=False)
    assert ran.returncode == -signal.SIGKILL, ran.stderr.decode()


def test_killed_between_storing_and_sending_it_is_sent_once_by_the_next_night(pair: Pair, receiver: Receiver) -> None:
    webhook(pair, receiver)
    night_killed(pair, "send_waiting", "os.kill(os.getpid(), signal.SIGKILL)")
    assert receiver.got == []
    ((notice_id, _, state, attempts),) = notices(pair)
    assert (state, attempts) == ("waiting", 0)
    assert brief(pair)["exit_code"] == 0
    assert pair.city.run("nightly").code == 0
    ids = [it.headers["webhook-id"] for it in receiver.got]
    assert ids.count(notice_id) == 1
    assert len(set(ids)) == len(ids) == 2
    assert pair.city.run("nightly").code == 0
    assert [it.headers["webhook-id"] for it in receiver.got].count(notice_id) == 1


def test_killed_between_sending_and_recording_it_comes_again_under_the_same_id(pair: Pair, receiver: Receiver) -> None:
    webhook(pair, receiver)
    night_killed(pair, "_send_once")
    assert len(receiver.got) == 1
    ((notice_id, _, state, attempts),) = notices(pair)
    assert (state, attempts) == ("waiting", 1)
    assert pair.city.run("nightly").code == 0
    assert [it.headers["webhook-id"] for it in receiver.got].count(notice_id) == 2
    assert {it.body for it in receiver.got if it.headers["webhook-id"] == notice_id} == {receiver.got[0].body}


def age(pair: Pair, days: int) -> None:
    moment = models.utc_text(datetime.now(UTC) - timedelta(days=days))
    with sqlite3.connect(pair.city.home / "store" / "ledger.db") as database:
        database.execute("UPDATE notice SET created_at = ?", (moment,))
    database.close()


def test_a_notice_is_given_up_after_a_week_and_that_is_said(pair: Pair, receiver: Receiver) -> None:
    webhook(pair, receiver)
    receiver.answers = [404]
    assert pair.city.run("nightly").code == 2
    age(pair, 8)
    receiver.answers = [404]
    ran = pair.city.run("nightly")
    assert ran.code == 2
    assert "notify.given_up" in ran.out
    assert [it["error"]["code"] for it in brief(pair)["failures"]] == ["notify.given_up"]
    assert [state for _, _, state, _ in notices(pair)] == ["failed", "waiting"]
    codes = [it["code"] for it in pair.city.run("status", "--json").json["attention"]]
    assert codes == ["notice.given_up"]
    # It works again: told once more with the failure in it, then all is quiet.
    assert pair.city.run("nightly").code == 0
    told = [json.loads(it.body)["failures"] for it in receiver.got[-2:]]
    assert sorted(len(it) for it in told) == [0, 1]
    assert [it["code"] for failures in told for it in failures] == ["notify.given_up"]
    assert brief(pair)["failures"] == []
    assert pair.city.run("status", "--json").json["attention"] == []


def test_a_notice_is_given_up_after_too_many_tries(desk: Desk, receiver: Receiver) -> None:
    desk.private("s", SECRET_LINE)
    desk.settings(f'[notify]\nhosts = ["127.0.0.1"]\n[notify.webhook]\nurl = "{receiver.url()}"\nsecret_file = "s"\n')
    desk.add()
    receiver.answers = [404] * 99
    for _ in range(queue.MAX_ATTEMPTS):
        assert [it.state for it in desk.send()] == ["waiting"]
    config = desk.workspace.config.notify
    assert [error.code for _, error in queue.overdue(desk.store, config, datetime.now(UTC))] == ["notify.given_up"]
    assert [it.state for it in desk.send()] == ["failed"]
    assert len(receiver.got) == queue.MAX_ATTEMPTS
    assert desk.send() == []


def test_a_fault_of_ours_while_telling_leaves_brief_and_answer(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(queue, "send_waiting", broken)
    ran = pair.city.run("nightly", "--json")
    assert ran.code == 2
    assert ran.json["notices"][0]["error"]["code"] == "internal"
    assert brief(pair)["exit_code"] == 0


def checks(pair: Pair) -> list[tuple[str, str]]:
    return [
        (it["result"], it["code"]) for it in pair.city.run("doctor", "--json").json["checks"] if it["name"] == "notify"
    ]


def test_doctor_looks_at_secret_and_password(pair: Pair, receiver: Receiver) -> None:
    assert checks(pair) == []
    mail = (
        '[notify.mail]\nhost = "localhost"\nfrom = "a@b.example"\nto = ["duty@b.example"]\n'
        'user = "a"\npassword_file = "keys/mail.password"\n'
    )
    webhook(pair, receiver, '"127.0.0.1", "localhost"', mail)
    assert checks(pair) == [("ok", ""), ("problem", "key.missing")]
    password = pair.city.home / "keys" / "mail.password"
    password.write_text("x\n", encoding="utf-8")
    password.chmod(0o644)
    assert checks(pair)[1] == ("problem", "key.permissions")
    password.chmod(0o600)
    assert checks(pair) == [("ok", ""), ("ok", "")]
    secret: Path = pair.city.home / "keys" / "webhook.secret"
    secret.write_text("whsec_short\n", encoding="utf-8")
    assert checks(pair)[0] == ("problem", "notify.secret")
    os.unlink(secret)
    told = next(it for it in pair.city.run("doctor", "--json").json["checks"] if it["name"] == "notify")
    assert told["code"] == "key.missing"
    # The command it names makes a secret that works.
    command = told["mend"].partition("，")[0]
    subprocess.run(["bash", "-c", command], check=True)
    assert checks(pair) == [("ok", ""), ("ok", "")]
