"""One Spark session a process: begun when it is first needed, ended with the process; what Spark says is put into an operator's words.

All settings go by a private file that is removed once they were read: nothing of them stands on a command line.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ledger.config import KernelConfig
from ledger.errors import InputError, SourceError

LOG = "spark.log"
_SET = {
    "spark.app.name": "duizhang",
    "spark.submit.deployMode": "client",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.eventLog.enabled": "false",
    # A database's refusal may quote what stands in a row, and both sides would log it.
    "spark.log.level": "FATAL",
    "spark.executor.syncLogLevel.enabled": "true",
    # Exchange keys travel to the executors, entries between them.
    "spark.authenticate": "true",
    "spark.network.crypto.enabled": "true",
    "spark.io.encryption.enabled": "true",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "16384",
    "spark.sql.execution.arrow.useLargeVarTypes": "false",
    "spark.sql.debug.maxToStringFields": "0",
}
_session: tuple[object, Any] | None = None


def check_installed(config: KernelConfig) -> None:
    """InputError `spark.missing` unless the extra is there."""
    if importlib.util.find_spec("pyspark") is None or importlib.util.find_spec("pandas") is None:
        raise InputError(
            "spark.missing",
            '[kernel] engine = "spark" 需要 Apache Spark：请安装 pip install \'duizhang[spark]\'（另需 Java 17），或改为 engine = "local"',
            '[kernel] engine = "spark" needs Apache Spark: pip install \'duizhang[spark]\' (and Java 17), or set engine = "local"',
            "duizhang.toml",
        )


def session(config: KernelConfig, root: Path) -> Any:
    """The session of these settings; Spark's own log goes into `spark.log` of the workspace `root`.

    InputError `spark.java` if no Java can be started, SourceError `spark.failed` if the master cannot be reached.
    """
    global _session  # noqa: PLW0603  one process has one Spark
    check_installed(config)
    wanted = (config.master, config.jars, tuple(sorted(config.conf.items())))
    if _session is not None and _session[0] == wanted and _session[1].sparkContext._jsc is not None:
        return _session[1]
    stop()
    with guarded(config.master):
        started = _start(_settings(config), root / LOG)
    _session = (wanted, started)
    return started


def stop() -> None:
    """End the session and its processes, if there is one."""
    global _session
    if _session is None:
        return
    started, _session = _session[1], None
    from pyspark import SparkContext  # noqa: PLC0415

    gateway = SparkContext._gateway
    # Its processes are ended below whatever it says.
    with suppress(Exception):
        started.stop()
    if gateway is not None:
        # Another session may have other settings, which a Java machine takes once.
        gateway.shutdown()
        if gateway.proc is not None and gateway.proc.stdin is not None:
            gateway.proc.stdin.close()
            gateway.proc.wait(30)
        SparkContext._gateway = SparkContext._jvm = None


atexit.register(stop)


@contextmanager
def guarded(where: str) -> Iterator[None]:
    """Whatever Spark or Java refuse within the block is SourceError `spark.failed`, or what it is known to mean."""
    from py4j.protocol import Py4JError  # noqa: PLC0415
    from pyspark.errors import PySparkException  # noqa: PLC0415

    try:
        yield
    except (PySparkException, Py4JError, ConnectionError, EOFError) as error:
        if _interrupted(error):
            # Ctrl-C cancels the jobs, and what is told of it is that they were cancelled.
            raise KeyboardInterrupt from error
        raise _told(error, where) from error


def _interrupted(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _told(error: Exception, where: str) -> Exception:
    # The first line names the task and the cause; what follows are stacks of Java, and may quote values.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    whole = str(error)
    if "JAVA_GATEWAY_EXITED" in whole:
        return InputError(
            "spark.java",
            f"无法启动 Java：engine = \"spark\" 需要 Java 17（Debian：openjdk-17-jre-headless）；详见工作区的 {LOG}",
            f"Java could not be started: engine = \"spark\" needs Java 17 (Debian: openjdk-17-jre-headless); see {LOG} of the workspace",
            where,
        )  # fmt: skip
    if "org.postgresql.Driver" in whole and ("ClassNotFound" in whole or "No suitable driver" in whole):
        return InputError(
            "spark.jdbc_driver",
            "Spark 找不到 PostgreSQL 的 JDBC 驱动：请在 [kernel] jars 写明其路径（Debian：libpostgresql-jdbc-java，/usr/share/java/postgresql.jar）",
            "Spark does not find PostgreSQL's JDBC driver: name it in [kernel] jars (Debian: libpostgresql-jdbc-java, "
            "/usr/share/java/postgresql.jar)",
            where,
        )
    first = next((line for word in ("aborted", "Caused by", "Exception") for line in lines if word in line), lines[0])
    first = re.sub(r"[\"'“].*[\"'”]", '"***"', first)[:300]
    return SourceError(
        "spark.failed",
        f"Spark 作业未完成，没有结论（{first}）；详见工作区的 {LOG}",
        f"the Spark job did not finish, so nothing was concluded ({first}); see {LOG} of the workspace",
        where,
    )


def _settings(config: KernelConfig) -> dict[str, str]:
    found = {**_SET, "spark.master": config.master, "spark.pyspark.python": sys.executable}
    if config.jars:
        found["spark.jars"] = ",".join(config.jars)
    if config.master.startswith("local"):
        # All on this machine: a secret of this run.
        found |= {
            "spark.authenticate.secret": secrets.token_hex(32),
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.host": "127.0.0.1",
        }
    return {**found, **config.conf}


def _start(settings: Mapping[str, str], log: Path) -> Any:
    from pyspark import SparkConf, SparkContext  # noqa: PLC0415
    from pyspark.java_gateway import launch_gateway  # noqa: PLC0415
    from pyspark.sql import SparkSession  # noqa: PLC0415

    folder = Path(tempfile.mkdtemp(prefix="duizhang-spark-"))
    before = {name: os.environ.get(name) for name in ("PYSPARK_SUBMIT_ARGS", "PYSPARK_PYTHON")}
    try:
        path = folder / "spark.properties"
        path.touch(0o600)
        path.write_text("".join(f"{_escaped(k)}={_escaped(v)}\n" for k, v in settings.items()), encoding="ascii")
        os.environ["PYSPARK_SUBMIT_ARGS"] = f"--properties-file {path} pyspark-shell"
        # What the executors run; the environment is what pyspark reads it from.
        os.environ["PYSPARK_PYTHON"] = settings["spark.pyspark.python"]
        with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as told:
            gateway = launch_gateway(popen_kwargs={"stdout": told, "stderr": told})
        context = SparkContext(conf=SparkConf(_jvm=gateway.jvm), gateway=gateway)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
    return SparkSession(context)


def _escaped(text: str) -> str:
    """As java.util.Properties reads it back."""
    out = []
    for char in text:
        if char in "\\=:#! ":
            out.append("\\" + char)
        elif " " < char < "\x7f":
            out.append(char)
        else:
            units = char.encode("utf-16-be")
            out += [f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2)]
    return "".join(out)
