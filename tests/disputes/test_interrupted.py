"""Killed anywhere between storing a transaction and knowing its outcome: the next run finishes the same one, and nothing is said twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from ledger.anchor import outbox
from ledger.chain.transactions import Sent
from tests.conftest import Party
from tests.disputes.conftest import dispute, refused, seen
from tests.twoparty.conftest import Channel


class Killed(BaseException):
    """What a power cut is to the process."""


def before(send: Callable[..., Sent]) -> Callable[..., Sent]:
    """Stored, and not sent."""

    def die(*_: Any) -> Sent:
        raise Killed

    return die


def after(send: Callable[..., Sent]) -> Callable[..., Sent]:
    """Sent and mined, and nobody there to hear of it."""

    def die(*given: Any) -> Sent:
        send(*given)
        raise Killed

    return die


def killed(monkeypatch: pytest.MonkeyPatch, how: Callable[..., Any], party: Party, *words: str) -> str:
    """Run a command that dies while it sends; the hash of the transaction it had stored."""
    with monkeypatch.context() as patched:
        patched.setattr(outbox, "send_raw", how(outbox.send_raw))
        with pytest.raises(Killed):
            party.run(*words)
    ((stored, state),) = rows(party, "state NOT IN ('confirmed', 'replaced')")
    assert state == "sent"
    return stored


def rows(party: Party, where: str) -> list[tuple[str, str]]:
    with sqlite3.connect(party.home / "store" / "ledger.db") as connection:
        found = connection.execute(f"SELECT hash, state FROM outbox WHERE {where} ORDER BY id").fetchall()
    connection.close()
    return found


OPEN = ("dispute", "open", "permits", "--with", "guangdong", "--batch", "B1")


@pytest.mark.parametrize("how", [before, after])
def test_a_dispute_is_opened_once(lost: Channel, monkeypatch: pytest.MonkeyPatch, how: Callable[..., Any]) -> None:
    stored = killed(monkeypatch, how, lost.city, *OPEN)
    # Any job of this workspace goes on with it.
    lost.city.ok("anchor")
    assert rows(lost.city, f"hash = '{stored}'") == [(stored, "confirmed")]
    assert list(seen(lost.city).disputes) == [1]
    assert refused(lost.city, *OPEN) == "dispute.already_open"
    assert "争议 1 " in lost.city.run(*OPEN).err
    assert list(seen(lost.city).disputes) == [1]


@pytest.mark.parametrize("how", [before, after])
def test_the_same_command_again_is_enough(
    lost: Channel, monkeypatch: pytest.MonkeyPatch, how: Callable[..., Any]
) -> None:
    killed(monkeypatch, how, lost.city, *OPEN)
    assert refused(lost.city, *OPEN) == "dispute.already_open"
    assert list(seen(lost.province).disputes) == [1]
    answer = ("dispute", "answer", "1", "--reject")
    killed(monkeypatch, how, lost.province, *answer)
    told = lost.province.ok(*answer)
    assert (told["fresh"], len(told["answers"])) == (False, 1)
    close = ("dispute", "close", "1", "--withdrawn")
    killed(monkeypatch, how, lost.city, *close)
    assert refused(lost.city, *close) == "dispute.closed"
    assert lost.city.ok("dispute", "show", "1")["closing"]["outcome"] == "withdrawn"
    attest = ("attest", "permits", "--with", "guangdong")
    stored = killed(monkeypatch, how, lost.city, *attest)
    assert lost.city.ok(*attest)["fresh"] is False
    assert rows(lost.city, "purpose = 'attest'") == [(stored, "confirmed")]
    assert len(seen(lost.city).attestations) == 1


def test_the_words_it_was_about_to_say_are_kept_before_they_are_said(
    lost: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The document is there before its hash can be on chain."""
    killed(monkeypatch, after, lost.city, *OPEN)
    evidence = seen(lost.city).disputes[1].evidence
    assert (lost.city.home / "evidence" / f"{evidence}.json").is_file()


def test_a_dispute_that_was_answered_twice_differently_shows_both(lost: Channel) -> None:
    dispute(lost.city)
    lost.province.ok("dispute", "answer", "1", "--reject")
    told = lost.province.ok("dispute", "answer", "1", "--concede")
    assert ([it["answer"] for it in told["answers"]], told["fresh"]) == (["reject", "concede"], True)
    again = lost.province.ok("dispute", "answer", "1", "--reject")
    assert [it["answer"] for it in again["answers"]] == ["reject", "concede", "reject"]
