"""The map is true: the path of a row exists as told, imports point down only, and the documents name what there is."""

from __future__ import annotations

import ast
import functools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import ledger
from ledger.cli.parser import build_parser

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ledger"
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

# From the top down; a module may import from its own layer and from those below. Names are modules or packages of ledger/.
LAYERS = (
    {"cli", "demo"},
    {"nightly"},
    {"lookup", "listing"},
    {
        "delivery",
        "sealing",
        "prove",
        "restore",
        "fsck",
        "setup",
        "status",
        "doctor",
        "notify",
        "tokens",
        "desk",
        "health",
        "dispute",
        "snapshot",
        "erase",
        "series",
        "epochs",
        "absence",
        "between",
    },
    {"counterpart"},
    {"reconcile"},
    {"verify", "verify_subject", "vouching", "verdict"},
    {"batch"},
    {"anchor"},
    {"workspace", "advice", "drafting"},
    {"spark"},
    {"config"},
    {"chain", "store", "source"},
    {"kernel", "sketch"},
    {"pace", "progress", "sheet", "workdays", "passphrase"},
    {"interruption"},
    {"subject_proof"},
    {"proof"},
    {"record", "keys", "merkle", "descriptor"},
    {"catalog"},
    {"pattern", "jcs"},
    {"native"},
    {"errors"},
)
APART = ({"chain"}, {"store"}, {"source"})
"""Of one layer, but strangers to each other."""
FROZEN = {"catalog", "record", "keys", "merkle", "descriptor", "proof", "subject_proof", "pattern", "jcs", "errors"}


@functools.cache
def modules() -> dict[str, Path]:
    """Every module of the package by dotted name."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
        if "migrations" not in path.parts
    }


def imported(path: Path) -> set[str]:
    """The ledger modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "ledger":
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                found.add(inner if inner in modules() else node.module)
        elif isinstance(node, ast.Import):
            found.update(name.name for name in node.names if name.name.split(".")[0] == "ledger")
    return found


def layer_of(module: str) -> int:
    """The layer a dotted ledger module belongs to."""
    part = module.split(".")[1]
    return next(number for number, layer in enumerate(LAYERS) if part in layer)


@pytest.mark.parametrize("module", sorted(name for name in modules() if name != "ledger"))
def test_imports_point_down_only(module: str) -> None:
    own = layer_of(module)
    part = module.split(".")[1]
    for other in imported(modules()[module]):
        there = layer_of(other)
        assert there >= own, f"{module} imports {other}, which lies above it"
        if there == own and {part} in APART:
            assert other.split(".")[1] == part, f"{module} imports its neighbour {other}"


def test_no_module_imports_itself_in_a_circle() -> None:
    edges = {name: {other for other in imported(path) if other in modules()} for name, path in modules().items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        if name not in done:
            for other in edges[name] - {"ledger"}:
                visit(other, (*path, name))
            done.add(name)

    for name in edges:
        visit(name, ())


def test_the_frozen_formats_do_no_input_or_output() -> None:
    forbidden = {
        "os",
        "pathlib",
        "socket",
        "sqlite3",
        "subprocess",
        "urllib",
        "http",
        "numpy",
        "pyarrow",
        "sqlalchemy",
        "web3",
    }
    for name in FROZEN:
        for node in ast.walk(ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))):
            names = (
                [n.name for n in node.names]
                if isinstance(node, ast.Import)
                else [node.module]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            assert not {str(n).split(".")[0] for n in names} & forbidden, name


def test_verify_needs_no_database_no_web3_no_web_framework() -> None:
    heavy = ["sqlalchemy", "web3", "fastapi", "starlette", "eth_account", "numpy", "pyarrow"]
    code = f"import sys, ledger.cli.verifying, ledger.verify; print([m for m in {heavy!r} if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert told.stdout.strip() == "[]"


def test_the_path_of_a_row_is_the_same_in_readme_and_package() -> None:
    assert ledger.__doc__ is not None
    named = set(re.findall(r"([a-z_]+(?:/[a-z_]+)*\.py)", ledger.__doc__))
    readme = set(re.findall(r"`ledger/([a-z_/]+\.py)`", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert named
    for path in named | readme:
        assert (PACKAGE / path).is_file(), path
    assert named <= readme | {"record.py", "merkle.py", "descriptor.py"}, named - readme


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_commands_in_the_documents_are_real(doc: Path) -> None:
    text = doc.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert (doc.parent / target).exists(), target
    for line in re.findall(r"^(?:    |\$ )(?:.*\s)?(duizhang [^#|\n]+)", text, re.MULTILINE):
        words = [word for word in shlex.split(line)[1:] if word != "…"]
        build_parser().parse_args(words)
    for script in re.findall(r"\bscripts/([a-z_]+(?:\.py)?)", text):
        assert (ROOT / "scripts" / script).exists(), script


def test_readme_is_a_screen_and_a_half() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 75


def test_every_command_has_help_in_both_languages() -> None:
    for language in ("zh", "en"):
        told = subprocess.run(
            [sys.executable, "-m", "ledger.cli", "--help", "--lang", language],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        for line in told.stdout.splitlines():
            if re.match(r"    [a-z]+ +\S", line):
                chinese = bool(re.search(r"[\u4e00-\u9fff]", line))
                assert chinese == (language == "zh"), line
