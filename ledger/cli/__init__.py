"""The command `duizhang`: parse, run one use case, print its answer, end with 0 (all matched), 1 (differences) or 2 (could not tell).

Modules of single commands are imported when they run, so that `verify` and `--help` stay light.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import select
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable, Sequence

from ledger import interruption
from ledger.cli import speech
from ledger.cli.watch import showing
from ledger.errors import LedgerError

_END_BY_THEMSELVES = ("serving", "demo")
"""Modules of commands that need more time to end than a job, and see to it themselves."""


def command() -> int:
    """`main` for a process of its own: what it leaves behind goes with the process, and is not collected piece by piece."""
    gc.set_threshold(100_000, 20, 20)
    code = main()
    gc.freeze()
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; never raises for what a user or an operator can cause."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show Chinese gets escapes: what was done is told whatever it can show.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # The thread that reads gives the interpreter back for each row; waiting 5 ms for it each time costs a fifth of the night.
    sys.setswitchinterval(0.0005)
    speech.choose(speech.language_of(words))
    as_json = "--json" in words
    with interruption.heeded(lambda: _last_words(as_json), for_good=argv is None) as let_go:
        code, told = _run(words, let_go)
        if told is None:
            return code
        if interruption.asked():
            # Whatever it was that went wrong: somebody pulled the plug under it.
            told = "interrupted", _interrupted(), ""
        return _fail(as_json, *told)


def _run(words: Sequence[str], let_go: Callable[[], None]) -> tuple[int, tuple[str, str, str] | None]:
    """The exit code, and code, text and place of the error that ended the command, if one did."""
    try:
        from ledger.cli.parser import build_parser

        # The options every command knows may stand before or after it; only one given is in the namespace (argparse would
        # let a default of the second place overwrite what was said in the first).
        args = build_parser().parse_args(words, Namespace(json=False, progress=False, workspace=None, command=None))
        if args.command is None:
            build_parser().print_help()
            return 2, None
        if args.module in _END_BY_THEMSELVES:
            let_go()
        run = importlib.import_module(f"ledger.cli.{args.module}").run
        with showing(plain=args.progress):
            code = int(run(args))
        sys.stdout.flush()
        return code, None
    except LedgerError as error:
        return 2, (error.code, speech.message(error), error.where)
    except BrokenPipeError:
        # The reader (head, a pager) went away; what it read was true, but the rest was not delivered.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2, None
    except KeyboardInterrupt:
        return 2, ("interrupted", _interrupted(), "")
    except Exception as error:
        # A fault of ours: said in one line as well, with the traceback for whoever mends it.
        if os.environ.get("DUIZHANG_DEBUG"):
            traceback.print_exc()
        text = speech.say(
            f"程序内部错误：{type(error).__name__}：{error}（设 DUIZHANG_DEBUG=1 可看详情）",
            f"internal error: {type(error).__name__}: {error} (DUIZHANG_DEBUG=1 shows where)",
        )
        return 2, ("internal", text, "")


def _interrupted() -> str:
    return speech.say(
        "被中断，没有得出结论；已开始的上链由下次运行接着完成",
        "interrupted, nothing was found out; the next run goes on",
    )


def _last_words(as_json: bool) -> None:
    """The same from the thread that ends the process: past the streams, which the main thread may be stuck in."""
    data = f"{speech.say('错误', 'error')} [interrupted] {_interrupted()}\n"
    if as_json:
        data = json.dumps(speech.error_json("interrupted", _interrupted(), ""), ensure_ascii=False, indent=2) + "\n"
    target = 1 if as_json else 2
    # A pipe that nobody empties must not keep the process.
    if select.select([], [target], [], 0)[1]:
        with contextlib.suppress(OSError):
            os.write(target, data.encode())


def _fail(as_json: bool, code: str, text: str, where: str) -> int:
    if as_json:
        speech.print_json(speech.error_json(code, text, where))
    else:
        place = f"{where}{speech.say('：', ': ')}" if where and where not in text else ""
        print(f"{speech.say('错误', 'error')} [{code}] {place}{text}", file=sys.stderr)
    return 2
