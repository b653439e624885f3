"""`serve`: the reconciliation API over HTTP, in one or several worker processes."""

from __future__ import annotations

import argparse
import ipaddress
import os
import shutil
import signal
import socket
import sys
import tempfile

from ledger.cli.speech import note, print_json, say
from ledger.cli.workspace import here
from ledger.errors import InputError

GRACE_SECONDS = 15
"""What a request may still take once the server was told to end."""
_CONNECTIONS = 1000
_LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(process)d %(levelname)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"}},
    "loggers": {
        "uvicorn": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        "duizhang": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
    },
}


def run(args: argparse.Namespace) -> int:
    """Serve until told to end (SIGTERM, Ctrl+C); then running requests finish and reconciliations are given back."""
    workspace = here(args)
    settings = workspace.config.api
    host = args.host or settings.host
    port = settings.port if args.port is None else args.port
    workers = args.workers or settings.workers
    if not 0 <= port <= 65535:
        raise InputError("serve.port", f"端口 {port} 不在 0–65535", f"port {port} is not 0-65535", "--port")
    if not 1 <= workers <= 64:
        raise InputError(
            "serve.workers", f"工作进程数 {workers} 不在 1–64", f"{workers} workers: must be 1-64", "--workers"
        )
    # Whatever is wrong with them is said here, once, and not by each worker.
    workspace.open_store("update").close()
    _ = workspace.catalogs
    listener = _listen(host, port)
    counters = tempfile.mkdtemp(prefix="duizhang-metrics-")
    os.environ |= {
        "DUIZHANG_HOME": str(workspace.root.resolve()),
        "DUIZHANG_WORKERS": str(workers),
        "DUIZHANG_SERVER": str(os.getpid()),
        # Read by prometheus_client when a worker imports it.
        "PROMETHEUS_MULTIPROC_DIR": counters,
    }
    try:
        _tell(args, host, listener.getsockname()[1], workers)
        return _serve(listener, workers)
    finally:
        listener.close()
        shutil.rmtree(counters, ignore_errors=True)


def _serve(listener: socket.socket, workers: int) -> int:
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    forwarded = os.environ.get("FORWARDED_ALLOW_IPS")
    config = uvicorn.Config(
        "api.app:create_app",
        factory=True,
        workers=workers,
        log_config=_LOGGING,
        # The addresses asked for hold keys; the application logs the route instead.
        access_log=False,
        server_header=False,
        ws="none",
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        # Whose X-Forwarded-For to believe is said by the operator, never assumed: the limit of /v1/verify counts addresses.
        proxy_headers=forwarded is not None,
        forwarded_allow_ips=forwarded,
    )
    if workers == 1:
        # uvicorn raises the signal once more when all is done; being told to end is no failure.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: sys.exit(0))
        server = uvicorn.Server(config)
        server.run(sockets=[listener])
        return 0 if server.started else 2
    Multiprocess(config, sockets=[listener]).run()
    return 0


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(512)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            "serve.address",
            f"无法监听 {host} 端口 {port}：{reason}；请检查 [api] host、port，或是否已有服务在运行",
            f"cannot listen on {host} port {port}: {reason}; check [api] host and port, or whether a server is running already",
            f"{host}:{port}",
        ) from error
    listener.set_inheritable(True)
    return listener


def _tell(args: argparse.Namespace, host: str, port: int, workers: int) -> None:
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    if args.json:
        print_json({"url": url, "workers": workers, "pid": os.getpid()})
    else:
        print(say(f"对账接口：{url}（{workers} 个工作进程）", f"reconciliation API: {url} ({workers} workers)"))
    sys.stdout.flush()
    if not _local(host):
        note(
            "注意：这是明文 HTTP，令牌会以明文传输；请在前面放置 TLS 反向代理，或只监听 127.0.0.1",
            "mind: this is plain HTTP, tokens travel in clear; put a TLS proxy in front, or listen on 127.0.0.1 only",
        )


def _local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
