"""A real cluster for the tests marked `spark`: two workers, each with an executor's Java machine and Python processes of their own.

They run where DUIZHANG_SPARK=1 asks for them (.ci/run does), and then whatever they need and do not find is a failure.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from ledger.config import KernelConfig

ROOT = Path(__file__).parents[2]
JDBC_JAR = Path(os.environ.get("DUIZHANG_JDBC_JAR", "/usr/share/java/postgresql.jar"))
_SMALL = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
CONF = {
    # Little to compile and nothing to tune in machines that live for seconds.
    "spark.driver.extraJavaOptions": _SMALL,
    "spark.executor.extraJavaOptions": _SMALL,
    # What the tests put into executors is pickled by name.
    "spark.executorEnv.PYTHONPATH": str(ROOT),
}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "spark: on a cluster of two workers; needs duizhang[spark] and Java 17")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("spark") is not None:
            item.add_marker(pytest.mark.timeout(900))
            if os.environ.get("DUIZHANG_SPARK") != "1":
                item.add_marker(pytest.mark.skip(reason="a Spark cluster is started only with DUIZHANG_SPARK=1"))


@dataclass(frozen=True)
class Cluster:
    """How to reach it, and where its log is."""

    config: KernelConfig
    root: Path

    def toml(self) -> str:
        """The same for duizhang.toml."""
        conf = "".join(f'"{name}" = "{value}"\n' for name, value in self.config.conf.items())
        jars = ", ".join(f'"{jar}"' for jar in self.config.jars)
        return f'\n[kernel]\nengine = "spark"\nmaster = "{self.config.master}"\njars = [{jars}]\n[kernel.conf]\n{conf}'

    def executors(self) -> list[psutil.Process]:
        """The executors' Java machines."""
        found = []
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if any("CoarseGrainedExecutorBackend" in word for word in child.cmdline()):
                    found.append(child)
        return found


def command_lines(process: psutil.Process) -> list[list[str]]:
    """Those of all processes below one."""
    found = []
    for child in process.children(recursive=True):
        # One that has ended has none.
        with suppress(psutil.Error):
            found.append(child.cmdline())
    return found


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """`local-cluster[2,1,1024]`, for all tests of this process."""
    if not JDBC_JAR.exists():
        pytest.fail(f"no JDBC driver at {JDBC_JAR} (Debian: libpostgresql-jdbc-java)", pytrace=False)
    from ledger.spark.session import session, stop

    made = Cluster(
        KernelConfig("spark", "local-cluster[2,1,1024]", (str(JDBC_JAR),), None, CONF), tmp_path_factory.mktemp("spark")
    )
    context: Any = session(made.config, made.root).sparkContext
    yield made
    application = context.applicationId
    stop()
    import pyspark

    shutil.rmtree(Path(pyspark.__path__[0]) / "work" / application, ignore_errors=True)
