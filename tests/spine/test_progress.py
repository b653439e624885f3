"""Progress goes to standard error, on a terminal or where it was asked for; the limit on reading holds, and is refused where it means nothing."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest

from ledger.cli import speech, watch
from ledger.reconcile import runs
from ledger.reconcile.scope import Scope
from ledger.workspace import Workspace
from tests.conftest import Pair, permit

ROWS = 1200


@pytest.fixture
def filled(pair: Pair) -> Pair:
    with closing(sqlite3.connect(pair.database)) as connection, connection:
        rows = [tuple(permit(n).values()) for n in range(ROWS)]
        connection.executemany("INSERT INTO permits VALUES (?, ?, ?, ?, ?)", rows)
    return pair


def settings(pair: Pair, *lines: str) -> None:
    path = pair.city.home / "duizhang.toml"
    path.write_text(path.read_text(encoding="utf-8") + "".join(f"{line}\n" for line in lines), encoding="utf-8")


def test_silent_unless_it_is_asked_for_and_never_in_the_answer(filled: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "PLAIN_SECONDS", 0.0)
    city = filled.city
    assert city.run("digest", "permits", "--json").err == ""
    silent = city.ok("digest", "permits")
    for language, line, last in (
        (
            "zh",
            r"读取数据源：1,200 行 / 约 1,200 行，[0-9,]+ 行/秒，约剩 0:00",
            r"读取数据源：读了 1,200 行，用时 0:0\d",
        ),
        (
            "en",
            r"reading the source: 1,200 rows of about 1,200, [0-9,]+ rows/s, about 0:00 left",
            r"reading the source: read 1,200 rows in 0:0\d",
        ),
    ):
        ran = city.run("digest", "permits", "--progress", "--json", "--lang", language)
        assert ran.json == silent
        lines = ran.err.splitlines()
        assert any(re.fullmatch(line, it) for it in lines), lines
        assert re.fullmatch(last, lines[-1]), lines


def test_plain_lines_come_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    speech.choose("zh")
    now = 0.0
    with watch._in_lines(lambda: now) as hear:
        for second in range(23):
            now = float(second)
            hear("读", "reading", second * 100, 10_000)
        hear("读", "reading", 12_345, 10_000)
        now = 4000.0
        hear("读", "reading", 12_345, 10_000)
        hear("读", "reading", None, 10_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == [
        "读：500 行 / 约 10,000 行，100 行/秒，约剩 1:35",
        "读：1,000 行 / 约 10,000 行，100 行/秒，约剩 1:30",
    ]
    # More than were expected: nothing is said of what is left.
    assert lines[4:] == ["读：12,345 行，3 行/秒", "读：读了 12,345 行，用时 1:06:40"]


def test_a_terminal_gets_one_line_and_standard_output_none_of_it(filled: Pair) -> None:
    main, other = pty.openpty()
    job = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "ledger.cli",
            "-C",
            str(filled.city.home),
            "digest",
            "permits",
            "--limit-rate",
            "1000",
            "--json",
        ],
        stdout=subprocess.PIPE,
        stderr=other,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100", "DUIZHANG_LANG": "zh"},
    )
    os.close(other)
    seen = b""
    while select.select([main], [], [], 60)[0]:
        try:
            part = os.read(main, 65536)
        except OSError:
            break
        if not part:
            break
        seen += part
    assert job.stdout is not None
    told = json.loads(job.stdout.read())
    assert job.wait() == 0
    assert told["size"] == ROWS
    text = seen.decode()
    assert re.search(r"读取数据源：[0-9]{3} 行 / 约 1,200 行，", text), text
    # The line is drawn again in its place, and gone at the end.
    assert "\x1b[2K" in text
    assert "错误" not in text


def test_the_limit_holds_and_that_of_the_command_goes_before_that_of_the_settings(filled: Pair) -> None:
    settings(filled, "limit_rate = 600")

    def took(*words: str) -> float:
        began = time.monotonic()
        filled.city.ok("digest", "permits", *words)
        return time.monotonic() - began

    assert took() >= 1.9
    assert took("--limit-rate", "400") >= 2.9
    assert took("--limit-rate", "1000000") < 1.9


def test_the_limit_holds_for_what_the_api_has_queued(filled: Pair) -> None:
    settings(filled, "limit_rate = 400")
    workspace = Workspace(filled.city.home)
    with closing(workspace.open_store("update")) as store:
        run_id = runs.enqueue(store, "permits", Scope(), "api").id
        assert runs.claim(store, "w") is not None
        began = time.monotonic()
        assert runs.perform(workspace, run_id, "w") == 1
        assert time.monotonic() - began >= 2.9
        row = runs.get(store, run_id)
        assert row is not None
        assert (row.state, row.verdict, row.progress_rows) == ("finished", "differences", ROWS)


@pytest.mark.parametrize("rate", ["0", "9", "-5", "2000000000"])
def test_a_limit_that_is_none_is_refused(filled: Pair, rate: str) -> None:
    ran = filled.city.run("digest", "permits", "--limit-rate", rate, "--json")
    assert (ran.code, ran.json["error"]["code"]) == (2, "usage")
    settings(filled, f"limit_rate = {rate}")
    ran = filled.city.run("digest", "permits", "--json")
    assert (ran.code, ran.json["error"]["code"]) == (2, "config.type")
    assert "limit_rate" in ran.json["error"]["message"]


def test_doctor_names_limits_under_which_no_reading_comes_to_its_end(filled: Pair) -> None:
    settings(filled, "limit_rate = 100", "timeout_seconds = 11")
    ran = filled.city.run("doctor", "--lang", "en")
    assert "about 1,200 rows take at least 12 seconds at limit_rate = 100, and timeout_seconds is 11" in ran.out, ran
    path = filled.city.home / "duizhang.toml"
    path.write_text(
        path.read_text(encoding="utf-8").replace("timeout_seconds = 11", "timeout_seconds = 12"), encoding="utf-8"
    )
    assert "at least" not in filled.city.run("doctor", "--lang", "en").out


def test_a_limit_on_the_reading_of_a_file_alone_is_refused(filled: Pair) -> None:
    path = filled.file("B1.csv", [permit(1)])
    for words in (("digest", "permits", path), ("send", "permits", path, "--batch", "B1", "--to", "guangzhou")):
        ran = filled.city.run(*words, "--limit-rate", "1000", "--json")
        assert (ran.code, ran.json["error"]["code"]) == (2, "usage")


def test_a_reading_past_its_time_ends_with_2_and_nothing_is_written(filled: Pair) -> None:
    settings(filled, "limit_rate = 100", "timeout_seconds = 1")
    before = {path for folder in ("entries", "archive", "briefs") for path in (filled.city.home / folder).glob("*")}
    for words in (("digest", "permits"), ("reconcile", "permits")):
        ran = filled.city.run(*words, "--json", "--lang", "en")
        assert (ran.code, ran.json["error"]["code"]) == (2, "source.timeout")
        assert "[source.permits] timeout_seconds = 1" in ran.json["error"]["message"]
        assert "limit_rate" in ran.json["error"]["message"]
    assert before == {
        path for folder in ("entries", "archive", "briefs") for path in (filled.city.home / folder).glob("*")
    }
