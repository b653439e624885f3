"""Until when: working days, provisional receives, what is final, who has kept whom waiting (design section 4)."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from ledger import between
from ledger.delivery import closing
from ledger.dispute import cases
from ledger.errors import InputError
from ledger.workdays import due, working_day
from tests.conftest import permit
from tests.twoparty.conftest import Channel, channel

__all__ = ["channel"]

ROWS = [permit(n) for n in range(1, 11)]
# Decision date and the seventh working day after it, holidays and made-up weekends counted (worked out by hand from the calendars).
TERMS = [
    ("2022-01-28", "2022-02-11"),
    ("2022-04-29", "2022-05-12"),
    ("2022-09-28", "2022-10-12"),
    ("2022-12-29", "2023-01-10"),
    ("2024-09-29", "2024-10-14"),
    ("2025-09-29", "2025-10-15"),
    ("2026-02-12", "2026-02-28"),
    ("2026-09-25", "2026-10-12"),
]


@pytest.mark.parametrize(("start", "last"), TERMS)
def test_seven_working_days(start: str, last: str) -> None:
    assert due(date.fromisoformat(start), 7) == date.fromisoformat(last)
    assert working_day(date.fromisoformat(last))


def test_a_year_without_a_calendar_is_an_error_that_says_so() -> None:
    with pytest.raises(InputError) as refused:
        due(date(2199, 12, 31), 1)
    assert refused.value.code == "calendar.no_year"
    assert "2200" in refused.value.en
    assert due(date(2026, 11, 24), 0) == date(2026, 11, 24)


def later(monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    """The office's clock, so many days ahead of the chain's."""
    ahead = closing.today() + timedelta(days=days)
    for module in (closing, between, cases):
        monkeypatch.setattr(module, "today", lambda: ahead)


def test_what_is_final_is_not_anchored_again_unasked(channel: Channel) -> None:
    channel.send("B1", ROWS)
    channel.land("B1", ROWS[:8])
    code, told = channel.receive("B1", "--final")
    assert (code, told["provisional"]) == (1, True)
    channel.land("B1", ROWS[8:])
    code, told = channel.receive("B1")
    assert (code, told["error"]["code"]) == (2, "receive.closed")
    assert channel.city.run("nightly", "--json").json["received"] == []
    code, told = channel.receive("B1", "--final")
    assert (code, told["verdict"], told["anchor"]["revision"]) == (0, "matched", 2)


def test_the_night_closes_what_is_late_and_says_so(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    channel.send("B1", ROWS)
    channel.land("B1", ROWS[:8])
    first = channel.city.run("nightly", "--json").json
    assert (first["closed"], len(first["compared"][0]["batches"][0]["findings"])) == ([], 2)
    later(monkeypatch, 30)
    ran = channel.city.run("nightly", "--json")
    assert (ran.code, [it["batch"] for it in ran.json["closed"]]) == (1, ["B1"])
    channel.land("B1", ROWS[8:])
    again = channel.city.run("nightly", "--json").json
    assert (again["closed"], again["received"]) == ([], [])
    code, told = channel.receive("B1")
    assert (code, told["error"]["code"]) == (2, "receive.closed")


def test_who_keeps_whom_waiting_is_named_on_both_sides(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    channel.send("B1", [permit(n) for n in range(1, 400)])
    assert channel.province.run("nightly", "--json").json["overdue"] == []
    later(monkeypatch, 30)
    ran = channel.province.run("nightly", "--json")
    assert (ran.code, [it["kind"] for it in ran.json["overdue"]]) == (1, ["no_answer"])
    assert ran.json["overdue"][0]["who"] == "guangzhou"
    assert "overdue.no_answer" in channel.province.run("status", "--json").out
    status = channel.city.run("status", "--json")
    assert "overdue.nothing_landed" in status.out
    brief = channel.city.run("nightly", "--json").json
    assert [it["kind"] for it in brief["overdue"]] == ["nothing_landed"]


def test_an_unanswered_dispute_is_overdue(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    channel.send("B1", ROWS)
    channel.land("B1", ROWS[:8])
    channel.receive("B1")
    channel.city.ok("dispute", "open", "permits", "--with", "guangdong", "--batch", "B1")
    assert channel.province.run("dispute", "list").code == 0
    later(monkeypatch, 40)
    ran = channel.province.run("dispute", "list", "--json")
    assert (ran.code, ran.json["overdue"]) == (1, [1])
    kinds = [it["kind"] for it in channel.city.run("nightly", "--json").json["overdue"]]
    assert kinds == ["dispute_unanswered"]
