"""The commands under Spark: the same answers as under the local engine, and ends that say so."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import Pair, permit
from tests.databases import PASSWORD, Database
from tests.spark.conftest import ROOT, Cluster, command_lines

pytestmark = pytest.mark.spark
COLUMNS = "no text, uscc text, holder text, decided_on date, fee numeric, changed bigint"
INSERT = "INSERT INTO permits SELECT 'A-' || n, '91440100123' || lpad(n::text, 7, '0'), '公司 ' || n, '2022-03-04', n / 10.0, 1"


def configured(pair: Pair, url: str, more: str = "") -> Path:
    config = pair.city.home / "duizhang.toml"
    text = re.sub(r'url = "sqlite:///[^"]*city\.db"', f'url = "{url}"', config.read_text(encoding="utf-8"))
    config.write_text(text.replace('table = "permits"', f'table = "permits"\n{more}'), encoding="utf-8")
    return config


@contextmanager
def under(cluster: Cluster, config: Path) -> Iterator[None]:
    """The workspace with `engine = "spark"`."""
    text = config.read_text(encoding="utf-8")
    config.write_text(text + cluster.toml(), encoding="utf-8")
    yield
    config.write_text(text, encoding="utf-8")


def report(pair: Pair, *words: str) -> tuple[int, Any]:
    """Exit code and report without when and on which try it was made."""
    ran = pair.city.run("reconcile", "permits", "--json", *words)
    told = ran.json
    assert "error" not in told, told
    for finding in told["findings"]:
        for volatile in ("id", "state", "first_seen", "since", "nights"):
            finding.pop(volatile, None)
    kept = {name: value for name, value in told.items() if name not in ("id", "run", "states", "read_mark")}
    return ran.code, kept


def test_an_own_source_is_sealed_reconciled_and_corrected(own: Pair, postgres18: Database, cluster: Cluster) -> None:
    postgres18.run(f"CREATE TABLE permits ({COLUMNS})", f"{INSERT} FROM generate_series(1, 400) n")
    config = configured(own, postgres18.url, 'row_version_column = "changed"')
    here = own.city.ok("digest", "permits", "--cells", "32")
    with under(cluster, config):
        assert own.city.ok("digest", "permits", "--cells", "32") == here
        sealed = own.city.ok("anchor", "permits")
        assert here["root"] in json.dumps(sealed)
    assert report(own)[0] == 0
    postgres18.run(
        "UPDATE permits SET fee = fee + 1, changed = 2 WHERE no = 'A-7'",
        "UPDATE permits SET fee = fee + 1 WHERE no IN ('A-8', 'A-9')",
        "DELETE FROM permits WHERE no = 'A-10'",
        "INSERT INTO permits VALUES ('a-11', NULL, 'again', NULL, NULL, 1), ('B-1', NULL, 'new', NULL, 1, 1), (NULL, '', '', NULL, 1, 1)",
        "INSERT INTO permits VALUES ('B-2', NULL, 'bad', NULL, 1.001, 1), ('A-12', NULL, 'bad', NULL, 'NaN', 1)",
    )
    local = report(own)
    shown = report(own, "--show-values")
    with under(cluster, config):
        assert report(own) == local
        assert report(own, "--show-values") == shown
        assert local[0] == 1
        kinds = {finding["kind"] for finding in local[1]["findings"]}
        assert kinds == {"altered", "missing", "duplicate", "unreadable"}
        assert (local[1]["counts"]["newly_seen"], local[1]["counts"]["updated"]) == (1, 1)
        own.city.run("anchor", "permits")
    after = report(own)
    assert (after[1]["counts"]["newly_seen"], after[1]["counts"]["updated"]) == (0, 0)
    assert own.city.run("fsck", "--json").code == 0


def test_a_delivery_in_parquet_is_reconciled(pair: Pair, cluster: Cluster, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sent = [permit(number) for number in range(60)]
    path = pair.file("B1.csv", sent)
    pair.province.ok("send", "permits", path, "--batch", "B1", "--to", "guangzhou")
    folder = tmp_path / "lake" / "permits"
    folder.mkdir(parents=True)
    landed = [*sent[:20], permit(20, fee="99"), *sent[21:50], permit(900), permit(901)]
    for at in range(3):
        pq.write_table(pa.Table.from_pylist(landed[at::3]), folder / f"{at}.parquet", row_group_size=7)
    config = configured(pair, f"parquet:///{tmp_path / 'lake'}")
    pair.city.run("receive", "permits", path, "--batch", "B1", "--from", "guangdong", "--json")
    local = report(pair)
    assert {finding["kind"] for finding in local[1]["findings"]} == {"altered", "missing", "unanchored"}
    with under(cluster, config):
        assert report(pair) == local


def test_secrets_stand_in_no_command_line_and_no_log(own: Pair, postgres18: Database, cluster: Cluster) -> None:
    postgres18.run(f"CREATE TABLE permits ({COLUMNS})", f"{INSERT} FROM generate_series(1, 20) n")
    config = configured(own, postgres18.url)
    with under(cluster, config):
        own.city.ok("digest", "permits")
        lines = [" ".join(words) for words in command_lines(psutil.Process())]
    assert any("CoarseGrainedExecutorBackend" in line for line in lines)
    log = (cluster.root / "spark.log").read_text(encoding="utf-8", errors="replace")
    secret = (own.city.home / "keys" / "own" / "1.key").read_text(encoding="ascii").strip()
    for text in (*lines, log):
        assert secret not in text
        assert PASSWORD not in text
        assert "authenticate.secret=" not in text
    assert (cluster.root / "spark.log").stat().st_mode & 0o077 == 0


def test_a_database_that_spark_does_not_read_is_named(own: Pair, cluster: Cluster) -> None:
    config = own.city.home / "duizhang.toml"
    with under(cluster, config):
        ran = own.city.run("reconcile", "permits", "--json")
    assert (ran.code, ran.json["error"]["code"]) == (2, "spark.source")


def test_interrupted_it_leaves_nothing_behind(own: Pair, postgres18: Database, cluster: Cluster) -> None:
    postgres18.run(f"CREATE TABLE permits ({COLUMNS})", f"{INSERT} FROM generate_series(1, 8) n")
    config = configured(own, postgres18.url)
    # A read that lasts, so that there is something to interrupt.
    postgres18.run(
        "ALTER TABLE permits RENAME TO kept",
        "CREATE VIEW permits AS SELECT k.* FROM kept k CROSS JOIN LATERAL (SELECT pg_sleep(case when k.no is null then 0 else 1 end)) s",
    )
    with under(cluster, config):
        words = [sys.executable, "-m", "ledger.cli", "-C", str(own.city.home), "digest", "permits", "--json"]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True)
        watched = psutil.Process(process.pid)
        deadline = time.monotonic() + 300
        while not any("pyspark.daemon" in word for words in command_lines(watched) for word in words):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        below = watched.children(recursive=True)
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 2, (out, err)
    assert json.loads(out)["error"]["code"] == "interrupted", (out, err)
    _, left = psutil.wait_procs(below, timeout=60)
    assert left == []


def test_without_java_it_is_said(own: Pair, postgres18: Database, tmp_path: Path, cluster: Cluster) -> None:
    postgres18.run(f"CREATE TABLE permits ({COLUMNS})")
    config = configured(own, postgres18.url)
    with under(cluster, config):
        words = [sys.executable, "-m", "ledger.cli", "-C", str(own.city.home), "digest", "permits", "--json"]
        # The shell tools that Spark's own scripts use, and no java.
        bin_ = tmp_path / "bin"
        bin_.mkdir()
        for tool in ("bash", "sh", "dirname", "readlink", "ls", "cat", "ps", "uname", "env"):
            found = next(
                (Path(folder) / tool for folder in ("/usr/bin", "/bin") if (Path(folder) / tool).exists()), None
            )
            if found is not None:
                (bin_ / tool).symlink_to(found)
        environment = {"PATH": str(bin_), "HOME": str(tmp_path), "JAVA_HOME": str(tmp_path / "none")}
        told = subprocess.run(
            words, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=120, check=False
        )
    assert told.returncode == 2
    assert json.loads(told.stdout)["error"]["code"] == "spark.java", told
