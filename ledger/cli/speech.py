"""What the operator sees: Chinese first, English by switch (`--lang en` or DUIZHANG_LANG=en)."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence

from ledger.errors import LedgerError

_language = "zh"


def choose(language: str) -> None:
    """Set the language of everything printed from now on: zh or en."""
    global _language  # noqa: PLW0603  one process speaks one language
    _language = "en" if language == "en" else "zh"


def language_of(argv: Sequence[str]) -> str:
    """The language asked for on the command line or in the environment; needed before the parser (its help) is built."""
    for at, word in enumerate(argv):
        if word == "--lang" and at + 1 < len(argv):
            return argv[at + 1]
        if word.startswith("--lang="):
            return word.removeprefix("--lang=")
    return os.environ.get("DUIZHANG_LANG", "zh")


def say(zh: str, en: str) -> str:
    """The text in the chosen language."""
    return en if _language == "en" else zh


def message(error: LedgerError) -> str:
    """An error's message in the chosen language."""
    return say(error.zh, error.en)


def note(zh: str, en: str) -> None:
    """A line for a person on standard error; standard output stays for the answer."""
    print(say(zh, en), file=sys.stderr, flush=True)


def print_json(value: object) -> None:
    """One JSON document on standard output, keys in the order given, Chinese unescaped."""
    # A lone surrogate (bytes of a file name that are no text) becomes a mark rather than the end of the output.
    print_bytes(json.dumps(value, ensure_ascii=False, indent=2).encode("utf-8", "replace") + b"\n")


def print_bytes(data: bytes) -> None:
    """Exactly these bytes on standard output, whatever encoding the terminal has; `data` is UTF-8."""
    sys.stdout.flush()
    raw = getattr(sys.stdout, "buffer", None)
    if raw is None:
        # A stream of text only, put there by whoever calls `main` from Python.
        sys.stdout.write(data.decode())
    else:
        raw.write(data)
        raw.flush()


def error_json(code: str, text: str, where: str) -> dict[str, object]:
    """The error document of design section 7."""
    return {"error": {"code": code, "message": text, "where": where}}


def width(text: str) -> int:
    """Columns that `text` takes on a terminal: wide characters take two, combining marks none."""
    from rich.cells import cell_len

    return cell_len(text)


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A plain table whose columns line up under Chinese text as well; control characters are shown, never sent."""
    cells = [[visible(cell) for cell in row] for row in (headers, *rows)]
    widths = [max(width(row[at]) for row in cells) for at in range(len(headers))]
    lines = ["  ".join(cell + " " * (w - width(cell)) for cell, w in zip(row, widths, strict=True)) for row in cells]
    rule = "  ".join("─" * w for w in widths)
    return "\n".join(line.rstrip() for line in (lines[0], rule, *lines[1:]))


def compact(values: Mapping[str, object] | None) -> str:
    """Field values on one line: the bare value of a single field, else name=value pairs."""
    if values is None:
        return ""
    if len(values) == 1:
        return str(next(iter(values.values())))
    return " ".join(f"{name}={value}" for name, value in values.items())


def visible(cell: object) -> str:
    """`cell` on one line, control characters shown as escapes."""
    text = "" if cell is None else str(cell)
    # A value from a database must not move the operator's cursor or colour his screen.
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
