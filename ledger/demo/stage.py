"""Where the story is told: chapters, lines, command lines and SQL, each shown before it is run.

Command lines run in this process through `ledger.cli.main`, which is what the installed `duizhang` calls; their output is
shown as it is.
"""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ledger.cli.speech import say, width
from ledger.demo.database import Database
from ledger.errors import LedgerError

Main = Callable[[Sequence[str]], int]


class ExpectationError(LedgerError):
    """Something in the story came out otherwise than it must; the demonstration stops there, with exit 2."""


@dataclass
class Chapter:
    """The outcome of one chapter, for `--json`."""

    number: int
    title: str
    ok: bool = False
    seconds: float = 0.0
    facts: dict[str, object] = field(default_factory=dict)


class Stage:
    """Tells on standard output, unless `silent`; `language` is that of the commands it runs."""

    def __init__(self, main: Main, language: str, *, silent: bool) -> None:
        self._main = main
        self._language = language
        self._silent = silent
        self._started = time.monotonic()
        self._columns = min(shutil.get_terminal_size((100, 24)).columns, 120)
        self._colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self.chapters: list[Chapter] = []

    @property
    def seconds(self) -> float:
        """Since the story began."""
        return time.monotonic() - self._started

    @contextmanager
    def chapter(self, zh: str, en: str) -> Iterator[dict[str, object]]:
        """A chapter; what is put into the dict is told in the JSON document."""
        chapter = Chapter(len(self.chapters) + 1, say(zh, en))
        self.chapters.append(chapter)
        began = self.seconds
        head = f"── {chapter.number}  {chapter.title} "
        clock = say(f" 第 {began:.0f} 秒", f" {began:.0f} s")
        rule = "─" * max(3, self._columns - width(head) - width(clock))
        self._print(f"\n{self._paint('1', f'{head}{rule}{clock}')}")
        try:
            yield chapter.facts
            chapter.ok = True
        finally:
            chapter.seconds = round(self.seconds - began, 1)

    def tell(self, zh: str, en: str) -> None:
        """A line of the story."""
        self._print(*_wrapped(say(zh, en), self._columns, ""))

    def good(self, zh: str, en: str) -> None:
        """A line that says an expectation held."""
        self._print(*(self._paint("32", line) for line in _wrapped(f"✓ {say(zh, en)}", self._columns, "  ")))

    def lines(self, lines: Iterable[str], *, clip: bool = False) -> None:
        """Lines shown as they are, indented; a row of a table is left whole; `clip` cuts long ones instead of wrapping."""
        for line in lines:
            if clip:
                self._print(_clipped(f"  {line}", self._columns))
            elif len(_GAP.findall(line)) >= _GAPS:
                self._print(f"  {line}")
            else:
                self._print(*_wrapped(f"  {line}", self._columns, "      "))

    def command(self, *words: str, expect: int = 0, show: int | None = None, clip: int = 0) -> None:
        """Show and run a command line, with all of what it prints, or the first `show` lines, or the last ones (negative).

        The first `clip` lines are cut at the margin. ExpectationError unless the command ends with exit code `expect`.
        """
        # A URL may hold a password.
        self._print(self._paint("36", f"$ duizhang {_PASSWORD.sub('***', shlex.join(words))}"))
        both = io.StringIO()
        code = self._run(words, both, both)
        printed = both.getvalue().splitlines()
        if show is not None and code == expect:
            printed = printed[:show] if show >= 0 else ["…", *printed[show:]]
        self.lines(printed[:clip], clip=True)
        self.lines(printed[clip:])
        self._check(words, code, expect, "")

    def remove(self, file: str) -> None:
        """Show and do `rm file`."""
        self._print(self._paint("36", f"$ rm {file}"))
        Path(file).unlink()

    def document(self, *words: str, expect: int = 0, shown: bool = False) -> dict[str, Any]:
        """Run a command line with --json and return its document; the line is shown if `shown`, its output never."""
        if shown:
            self._print(self._paint("36", f"$ duizhang {shlex.join(words)} --json"))
        out, err = io.StringIO(), io.StringIO()
        code = self._run([*words, "--json"], out, err)
        self._check(words, code, expect, out.getvalue() + err.getvalue())
        document: dict[str, Any] = json.loads(out.getvalue())
        return document

    def sql(self, database: Database, statements: Sequence[tuple[str, str]]) -> None:
        """Show and run (what it is, statement) one after another, in one transaction, as anybody with access could."""
        for what, statement in statements:
            line = f"{statement};" + (f" -- {what}" if what else "")
            self._print(*_wrapped(f"  {line}", self._columns, "      ", at_spaces=True))
        database.execute(statement for _, statement in statements)

    def expect(self, holds: bool, zh: str, en: str) -> None:
        """ExpectationError with that text unless it `holds`."""
        if not holds:
            raise ExpectationError("demo.expectation", f"演示未如预期：{zh}", f"not as the story says: {en}")

    def _run(self, words: Sequence[str], out: io.StringIO, err: io.StringIO) -> int:
        with redirect_stdout(out), redirect_stderr(err):
            return self._main([*words, "--lang", self._language])

    def _check(self, words: Sequence[str], code: int, expected: int, printed: str) -> None:
        said = f"\n{printed.strip()}" if printed.strip() else ""
        line = shlex.join(words)
        self.expect(
            code == expected,
            f"duizhang {line} 的退出码是 {code}，应为 {expected}{said}",
            f"duizhang {line} ended with exit code {code}, not {expected}{said}",
        )

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text

    def _print(self, *lines: str) -> None:
        if not self._silent:
            # In a pipe, too, the reader sees each step when it happens.
            print(*lines, sep="\n", flush=True)


# Where a line may end: at spaces, and after a wide character with the punctuation that belongs to it.
_UNITS = re.compile(r" +|[⺀-\uffff][，。；：、）”]*|[^ ⺀-\uffff]+")


_PASSWORD = re.compile(r"(?<=://)[^\s@/]*(?=@)")
_GAP = re.compile(r"\S {2,}(?=\S)")
# A step of `verify` has two gaps, a row of the findings' table five.
_GAPS = 3


def _clipped(text: str, columns: int) -> str:
    if width(text) <= columns:
        return text
    while width(text) >= columns:
        text = text[:-1]
    return f"{text}…"


def _wrapped(text: str, columns: int, indent: str, *, at_spaces: bool = False) -> list[str]:
    """`text` in lines of at most `columns` where that can be; later lines begin with `indent`."""
    units = re.findall(r" +|[^ ]+", text) if at_spaces else _UNITS.findall(text)
    lines, line = [], ""
    for unit in units:
        if line.strip() and width(line) + width(unit.rstrip()) > columns:
            lines.append(line.rstrip())
            line = indent + unit.lstrip()
        else:
            line += unit
    return [*lines, line.rstrip()]


def outcome(stage: Stage, facts: Mapping[str, object]) -> dict[str, object]:
    """The document of `demo --json`: `ok`, the `facts` given, the chapters that were begun."""
    return {
        **facts,
        "seconds": round(stage.seconds, 1),
        "chapters": [
            {"chapter": c.number, "title": c.title, "ok": c.ok, "seconds": c.seconds, **c.facts} for c in stage.chapters
        ],
    }
