"""Without the extra: everything else works, and the setting is refused with what to install."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from ledger.config import parse_config
from ledger.errors import InputError
from ledger.spark import work
from tests.conftest import Pair

ROOT = Path(__file__).parents[2]
ABSENT = """
import importlib.machinery, sys
found = importlib.machinery.PathFinder.find_spec
absent = {"pyspark", "pandas", "py4j"}
importlib.machinery.PathFinder.find_spec = lambda name, *more: None if name.split(".")[0] in absent else found(name, *more)
"""
CHAIN = '[chain]\ncontract = "0x' + "11" * 20 + '"\naccount = "0x' + "22" * 20 + '"\n'


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
    return found


def test_pyspark_is_named_in_its_own_package_only() -> None:
    named = {
        path.relative_to(ROOT).as_posix()
        for folder in ("ledger", "api")
        for path in (ROOT / folder).rglob("*.py")
        if imports(path) & {"pyspark", "py4j", "pandas"}
    }
    assert named
    assert all(name.startswith("ledger/spark/") for name in named), named


def test_every_module_is_imported_without_it() -> None:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "ledger").rglob("*.py")
        if "migrations" not in path.parts and path.name not in ("__main__.py", "build.py")
    ]
    assert "ledger.spark.source" in names
    code = f"{ABSENT}import importlib; [importlib.import_module(name) for name in {names!r}]"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=100)
    # The hiding hides.
    hidden = subprocess.run(
        [sys.executable, "-c", f"{ABSENT}import pandas"], capture_output=True, text=True, check=False
    )
    assert "No module named 'pandas'" in hidden.stderr


@pytest.mark.parametrize("command", [("digest",), ("reconcile",), ("anchor",)])
def test_the_setting_is_refused_with_what_to_install(own: Pair, command: tuple[str, ...]) -> None:
    config = own.city.home / "duizhang.toml"
    config.write_text(config.read_text(encoding="utf-8") + '\n[kernel]\nengine = "spark"\n', encoding="utf-8")
    words = ["-C", str(own.city.home), *command, "permits", "--json", "--lang", "en"]
    told = subprocess.run(
        [sys.executable, "-c", f"{ABSENT}from ledger.cli import main; sys.exit(main({words!r}))"],
        capture_output=True, text=True, cwd=ROOT, timeout=100, check=False,
    )  # fmt: skip
    assert told.returncode == 2, told
    assert '"spark.missing"' in told.stdout
    assert "pip install 'duizhang[spark]'" in told.stdout


@pytest.mark.parametrize(
    ("setting", "words"), [("limit_rate = 100", ()), ("timeout_seconds = 9", ()), ("", ("--limit-rate", "100"))]
)
def test_neither_a_limit_nor_a_time_out_goes_with_it(own: Pair, setting: str, words: tuple[str, ...]) -> None:
    config = own.city.home / "duizhang.toml"
    text = config.read_text(encoding="utf-8").replace('origin = "own"', f'origin = "own"\n{setting}')
    config.write_text(text + '\n[kernel]\nengine = "spark"\n', encoding="utf-8")
    ran = own.city.run("reconcile", "permits", *words, "--json")
    assert (ran.code, ran.json["error"]["code"]) == (2, "kernel.unpaced")


def test_what_decides_bytes_is_compared_with_that_of_the_executors() -> None:
    """Every module of ours that reading and the kernel import, directly or not, is among the sources that `spark.version` goes by."""
    root = ROOT / "ledger"
    covered = {path.relative_to(root).as_posix() for pattern in work._SOURCES for path in root.glob(pattern)}
    todo, seen = ["kernel/entries.py", "source/parquettable.py", "source/postgres.py", "spark/work.py"], set[str]()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        for node in ast.walk(ast.parse((root / name).read_text(encoding="utf-8"))):
            modules = []
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ledger"):
                modules = [node.module or "", *(f"{node.module}.{it.name}" for it in node.names)]
            for module in modules:
                path = "/".join(module.split(".")[1:])
                todo += [it for it in (f"{path}.py", f"{path}/__init__.py") if (root / it).is_file()]
    assert len(seen) > 20
    assert seen <= covered, sorted(seen - covered)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('engine = "dask"', "config.type"),
        ('engines = "spark"', "config.unknown_member"),
        ("partitions = 0", "config.type"),
        ("jars = [1]", "config.type"),
        ('jars = "a.jar"', "config.type"),
        ('[kernel.conf]\n"spark.executor.memory" = 8', "config.type"),
        ('[kernel.conf]\n"java.home" = "x"', "config.type"),
        ('[kernel.conf]\n"spark.a b" = "x"', "config.type"),
        ('[kernel.conf]\n"spark.a\\nspark.b" = "x"', "config.type"),
    ],
)
def test_settings_that_mean_nothing_are_refused(text: str, code: str) -> None:
    with pytest.raises(InputError) as told:
        parse_config(f"{CHAIN}[kernel]\n{text}\n".encode(), "duizhang.toml")
    assert told.value.code == code


def test_the_settings() -> None:
    text = '[kernel]\nengine = "spark"\nmaster = "spark://m:7077"\njars = ["a.jar"]\npartitions = 7\n[kernel.conf]\n"spark.executor.memory" = "8g"\n'
    found = parse_config((CHAIN + text).encode(), "duizhang.toml").kernel
    assert (found.engine, found.master, found.jars, found.partitions) == ("spark", "spark://m:7077", ("a.jar",), 7)
    assert found.conf == {"spark.executor.memory": "8g"}
    assert parse_config(CHAIN.encode(), "duizhang.toml").kernel.engine == "local"
    # What conf holds may be a secret of the cluster's.
    assert "8g" not in repr(found)
