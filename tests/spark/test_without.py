"""Without the extra: everything else works, and the setting is refused with what to install."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from ledger.config import parse_config
from ledger.errors import InputError
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
