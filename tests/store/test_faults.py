"""Every write, failed at every step: before the step takes effect and after it, with an error and with a killed process.

Whatever happens, a reader finds the old content or the new; an error is a `StoreError` naming the path; and doing it again
ends well. The steps are those of `NewFile`, through which every file of the store goes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from ledger.errors import StoreError
from ledger.store import files
from ledger.store.archive import ArchiveReader, ArchiveRef, ArchiveWriter
from ledger.store.entryfile import read_entries, write_entries
from ledger.store.files import TEMPORARY, WorkspaceLock, sweep_temporary, write_atomic
from tests.store.conftest import KILLED, in_child, make_entries

KEY, LABEL = bytes(32), b"label"
ENTRIES = make_entries(50)
OLD, NEW = b"old", b"new content"


class Handle:
    """A file whose write fails at once, or after writing."""

    def __init__(self, handle: BinaryIO, fault: Callable[[], None], *, after: bool) -> None:
        self._handle = handle
        self._fault = fault
        self._after = after

    def write(self, data: Any) -> int:
        if not self._after:
            self._fault()
        written = self._handle.write(data)
        self._handle.flush()
        self._fault()
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)


# Name: what is replaced, and at which of its calls the fault comes.
STEPS = {
    "create the temporary file": ("open", 1),
    "set its mode": ("fchmod", 1),
    "write": ("fdopen", 1),
    "sync the file": ("fsync", 1),
    "let it appear": ("replace", 1),
    "let it appear, never replacing": ("link", 1),
    "remove the temporary name": ("unlink", 1),
    "open the folder": ("open", 2),
    "sync the folder": ("fsync", 2),
}
NEVER_REPLACING = {"let it appear, never replacing", "remove the temporary name"}


def inject(patch: pytest.MonkeyPatch, step: str, fault: Callable[[], None], *, after: bool) -> None:
    name, at = STEPS[step]
    real: Callable[..., Any] = getattr(os, name)
    calls = 0

    def faulty(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != at:
            return real(*args, **options)
        if name == "fdopen":
            return Handle(real(*args, **options), fault, after=after)
        if not after:
            fault()
        result = real(*args, **options)
        fault()
        return result

    patch.setattr(files.os, name, faulty)


def disk_error() -> None:
    raise OSError(errno.EIO, "injected")


def put_file(folder: Path) -> None:
    write_atomic(folder / "file", NEW)


def put_key(folder: Path) -> None:
    try:
        write_atomic(folder / "file", NEW, overwrite=False)
    except StoreError as error:
        if error.code != "store.exists" or (folder / "file").read_bytes() != NEW:
            raise


def put_entries(folder: Path) -> None:
    write_entries(folder / "file", ENTRIES, np.zeros(50, np.bool_), np.zeros(50, np.uint32))


REF: list[ArchiveRef] = []


def put_archive(folder: Path) -> None:
    with ArchiveWriter(folder / "file", LABEL, KEY) as writer:
        writer.append(np.ascontiguousarray(ENTRIES[:, 16:32]), [b"record"] * 50)
        REF.append(writer.finish())


WRITES: dict[str, tuple[Callable[[Path], None], bool]] = {
    # what writes, and whether it replaces what is there
    "a file": (put_file, True),
    "a key": (put_key, False),
    "an entry file": (put_entries, False),
    "an archive": (put_archive, False),
}
TABLE = [
    (write, step)
    for write, (_, replaces) in WRITES.items()
    for step in STEPS
    if step not in (NEVER_REPLACING if replaces else {"let it appear"})
]


def check_whole(folder: Path, write: str) -> None:
    """Nothing under a final name is a part of something."""
    for path in folder.iterdir():
        if path.name.startswith(TEMPORARY):
            continue
        match write:
            case "a file":
                assert path.read_bytes() in (OLD, NEW)
            case "a key":
                assert path.read_bytes() == NEW
            case "an entry file":
                assert len(read_entries(path, files.hash_file(path)).entries) == 50
            case "an archive":
                assert path.read_bytes().endswith(b"duiz-end")


def check_done(folder: Path, write: str) -> None:
    """The write, done again, ended well."""
    check_whole(folder, write)
    if write == "an archive":
        ref = REF.pop()
        with ArchiveReader(folder / ref.file_name, ref.key_wrapped, KEY, LABEL) as reader:
            assert [frame.canonical for frame in reader] == [[b"record"] * 50]
    else:
        assert os.listdir(folder) == ["file"]
        assert (folder / "file").read_bytes() != OLD


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("write", "step"), TABLE)
def test_a_step_that_fails_is_reported_and_doing_it_again_ends_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: str, step: str, after: bool
) -> None:
    put, replaces = WRITES[write]
    if replaces:
        (tmp_path / "file").write_bytes(OLD)
    with monkeypatch.context() as patch:
        inject(patch, step, disk_error, after=after)
        with pytest.raises(StoreError) as refused:
            put(tmp_path)
    assert refused.value.code == "store.io"
    assert str(tmp_path / "file") in refused.value.where
    check_whole(tmp_path, write)
    left = [name for name in os.listdir(tmp_path) if name.startswith(TEMPORARY)]
    # Only a file whose creation was reported as failed, and was not, cannot be known here.
    assert len(left) == (1 if (step, after) == ("create the temporary file", True) else 0)
    assert list(sweep_temporary(tmp_path)) == left
    put(tmp_path)
    check_done(tmp_path, write)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("write", "step"), TABLE)
def test_a_killed_process_leaves_whole_files_and_a_sweepable_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: str, step: str, after: bool
) -> None:
    put, replaces = WRITES[write]
    if replaces:
        (tmp_path / "file").write_bytes(OLD)
    with monkeypatch.context() as patch:
        inject(patch, step, lambda: os._exit(KILLED), after=after)
        assert in_child(lambda: put(tmp_path)) == KILLED
    check_whole(tmp_path, write)
    sweep_temporary(tmp_path)
    assert not any(name.startswith(TEMPORARY) for name in os.listdir(tmp_path))
    put(tmp_path)
    check_done(tmp_path, write)


def test_an_entry_file_that_is_there_already_is_made_durable_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first writer's last sync failed: success of the second must not rest on it.
    with monkeypatch.context() as patch:
        inject(patch, "sync the folder", disk_error, after=False)
        with pytest.raises(StoreError):
            put_entries(tmp_path)
    with monkeypatch.context() as patch:
        inject(patch, "sync the folder", disk_error, after=False)
        with pytest.raises(StoreError):
            put_entries(tmp_path)
    put_entries(tmp_path)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", ["open", "flock", "ftruncate", "pwrite"])
def test_a_lock_that_cannot_be_taken_is_reported_and_stays_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, after: bool
) -> None:
    module = files.fcntl if name == "flock" else files.os
    real = getattr(module, name)

    def faulty(*args: Any) -> Any:
        if after:
            real(*args)
        raise OSError(errno.ENOSPC, "injected")

    lock = WorkspaceLock(tmp_path / "lock", "nightly")
    with monkeypatch.context() as patch:
        patch.setattr(module, name, faulty)
        with pytest.raises(StoreError) as refused:
            lock.__enter__()
    assert refused.value.code == "store.disk_full"
    with lock, pytest.raises(StoreError, match="nightly"), WorkspaceLock(tmp_path / "lock", "anchor"):
        pass


def test_the_table_has_every_call_that_changes_the_disk() -> None:
    source = Path(files.__file__).read_text(encoding="utf-8")
    writing = source[source.index("class NewFile") : source.index("def write_atomic")]
    called = {
        name for name in ("open", "fchmod", "fdopen", "fsync", "replace", "link", "unlink") if f"os.{name}(" in writing
    }
    others = {word for word in ("rename", "truncate", "write", "mkdir", "symlink") if f"os.{word}(" in writing}
    assert called | {"open", "fsync"} == {name for name, _ in STEPS.values()}
    assert others == set()
