"""Takes reconciliations from the store's queue, one at a time, into a child process: the event loop stays free, and a reconciliation
survives the death of the worker that started it.

    queued ──claim──> running in a child ──> the child writes the outcome itself
                          │ worker told to end: the child is stopped, its run given back
                          │ child died: given back; worker died: the child goes on
                          └ all died: found by the heartbeat, by any worker, and queued again
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time

from ledger.desk import Desk
from ledger.errors import LedgerError
from ledger.reconcile import runs

POLL_SECONDS = 0.5
RECOVER_SECONDS = 5.0
STOP_SECONDS = 10.0
"""How long a child that was told to stop may take before it is killed."""

_log = logging.getLogger("duizhang.api")


class Runner(threading.Thread):
    """One worker's share of the work; `start`, later `stop`. `parent` is the process that must be there, if any."""

    def __init__(self, desk: Desk, parent: int | None = None) -> None:
        super().__init__(name="runner", daemon=True)
        self.worker = f"api-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._desk = desk
        self._parent = parent
        self._ending = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._run_id = ""
        self._recover_at = 0.0

    def run(self) -> None:
        """Work until told to stop. A store that cannot be read or written for a while is tried again."""
        while not self._ending.wait(POLL_SECONDS):
            if self._parent is not None and os.getppid() != self._parent:
                # Killed without a word: nobody could tell this worker to end any more, and it would keep the port.
                _log.error("the server's main process is gone: ending")
                self._parent = None
                os.kill(os.getpid(), signal.SIGTERM)
            try:
                self._step()
            except LedgerError as error:
                _log.warning("queue: %s", error.code)
                self._ending.wait(2.0)
            except Exception as error:
                # This thread must not end while the worker lives: nothing would ever be claimed again.
                _log.error("queue: %s", type(error).__name__)
                self._ending.wait(2.0)

    def stop(self) -> None:
        """Stop claiming; tell the child to stop, and give its reconciliation back."""
        self._ending.set()
        if self.is_alive():
            self.join(STOP_SECONDS)
        child = self._child
        if child is None:
            return
        child.terminate()
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        with contextlib.suppress(LedgerError):
            # Else its heartbeat grows stale and another worker gives it back.
            self._settle(told_to_stop=True)

    def _step(self) -> None:
        if time.monotonic() >= self._recover_at:
            self._recover_at = time.monotonic() + RECOVER_SECONDS
            # Looked at first: asking for the write lock each time would stand in the way of jobs.
            if runs.listed(self._desk.store, state="running", limit=1):
                for run_id in runs.recover(self._desk.store):
                    _log.warning("reconciliation %s lost its worker", run_id)
        if self._child is not None:
            if self._child.poll() is None:
                return
            self._settle()
        if not runs.listed(self._desk.store, state="queued", limit=1):
            return
        claimed = runs.claim(self._desk.store, self.worker)
        if claimed is not None:
            self._begin(claimed.id)

    def _begin(self, run_id: str) -> None:
        command = [
            sys.executable,
            "-m",
            "ledger.cli",
            "-C",
            str(self._desk.workspace.root.resolve()),
            "run-reconciliation",
            run_id,
        ]
        try:
            # A session of its own: Ctrl+C at the terminal is the worker's to pass on.
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=os.environ | {"DUIZHANG_WORKER": self.worker},
                start_new_session=True,
            )
        except OSError:
            runs.release(self._desk.store, run_id, self.worker)
            raise
        self._run_id = run_id
        _log.info("reconciliation %s began", run_id)

    def _settle(self, *, told_to_stop: bool = False) -> None:
        """The child has ended: give back what it did not finish (nothing, if it wrote an outcome)."""
        runs.release(self._desk.store, self._run_id, self.worker, told_to_stop=told_to_stop)
        self._child = None
        _log.info("reconciliation %s ended", self._run_id)
