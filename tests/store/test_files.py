from __future__ import annotations

import errno
import os
import signal
import stat
from pathlib import Path

import pytest

from ledger.errors import InputError, StoreError
from ledger.store.files import (
    TEMPORARY,
    WorkspaceLock,
    os_errors,
    read_private,
    sweep_temporary,
    write_atomic,
)
from tests.store.conftest import as_nobody, in_child


def test_a_file_is_written_with_exactly_the_mode_asked_for(tmp_path: Path) -> None:
    former = os.umask(0o077)
    try:
        write_atomic(tmp_path / "brief.txt", b"brief", 0o644)
        write_atomic(tmp_path / "key", lambda handle: handle.write(b"key") and None)
    finally:
        os.umask(former)
    assert (tmp_path / "brief.txt").read_bytes() == b"brief"
    assert (tmp_path / "key").read_bytes() == b"key"
    assert stat.S_IMODE((tmp_path / "brief.txt").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == ["brief.txt", "key"]


def test_a_write_replaces_the_old_content(tmp_path: Path) -> None:
    write_atomic(tmp_path / "brief", b"a longer first one")
    write_atomic(tmp_path / "brief", b"second")
    assert (tmp_path / "brief").read_bytes() == b"second"


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    write_atomic(tmp_path / "key", b"first", overwrite=False)
    with pytest.raises(StoreError) as refused:
        write_atomic(tmp_path / "key", b"second", overwrite=False)
    assert refused.value.code == "store.exists"
    assert (tmp_path / "key").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["key"]


def test_a_writer_that_fails_leaves_the_old_file_and_its_own_error(tmp_path: Path) -> None:
    write_atomic(tmp_path / "brief", b"old")

    def fail(handle: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_atomic(tmp_path / "brief", fail)
    assert (tmp_path / "brief").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["brief"]


def test_writing_into_a_missing_folder_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as refused:
        write_atomic(tmp_path / "gone" / "brief", b"")
    assert refused.value.code == "store.missing"
    assert refused.value.where == str(tmp_path / "gone" / "brief")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "store.disk_full"),
        (errno.EDQUOT, "store.disk_full"),
        (errno.EACCES, "store.permission"),
        (errno.EPERM, "store.permission"),
        (errno.EROFS, "store.read_only"),
        (errno.ENOENT, "store.missing"),
        (errno.EIO, "store.io"),
        (None, "store.io"),
    ],
)
def test_each_cause_has_its_own_code_and_names_the_path(number: int | None, code: str) -> None:
    with pytest.raises(StoreError) as refused, os_errors(Path("/ledger/file")):
        raise OSError(number, "told by the system") if number is not None else OSError("told by a library")
    assert refused.value.code == code
    assert refused.value.where == "/ledger/file"
    assert "/ledger/file" in refused.value.zh


def test_the_sweep_takes_leftovers_and_nothing_else(tmp_path: Path) -> None:
    for name in (f"{TEMPORARY}1", f"{TEMPORARY}2", "tmp-3", "entries.parquet"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / f"{TEMPORARY}folder").mkdir()
    (tmp_path / f"{TEMPORARY}link").symlink_to(tmp_path / "entries.parquet")
    assert sweep_temporary(tmp_path) == (f"{TEMPORARY}1", f"{TEMPORARY}2")
    assert sorted(os.listdir(tmp_path)) == [f"{TEMPORARY}folder", f"{TEMPORARY}link", "entries.parquet", "tmp-3"]


def test_a_full_disk_is_named_and_keeps_the_old_file(small_disk: Path) -> None:
    write_atomic(small_disk / "brief", b"old")
    with pytest.raises(StoreError) as refused:
        write_atomic(small_disk / "brief", b"x" * 2_000_000)
    assert refused.value.code == "store.disk_full"
    assert str(small_disk / "brief") in refused.value.zh
    assert (small_disk / "brief").read_bytes() == b"old"
    assert os.listdir(small_disk) == ["brief"]


def test_a_folder_without_permission_is_named(open_folder: Path) -> None:
    with as_nobody(), pytest.raises(StoreError) as refused:
        write_atomic(open_folder / "brief", b"")
    assert refused.value.code == "store.permission"
    assert refused.value.where == str(open_folder / "brief")
    assert os.listdir(open_folder) == []


# Private files


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_private_file_is_read(tmp_path: Path, mode: int) -> None:
    (tmp_path / "key").write_bytes(b"00ff\n")
    (tmp_path / "key").chmod(mode)
    assert read_private(tmp_path / "key") == b"00ff\n"


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o604, 0o602, 0o610, 0o601, 0o644, 0o777])
def test_a_key_that_others_may_touch_is_refused_with_the_command_that_mends_it(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "own key"
    path.write_bytes(b"00ff\n")
    path.chmod(mode)
    with pytest.raises(InputError) as refused:
        read_private(path)
    assert refused.value.code == "key.permissions"
    mend = f"chmod {'700' if mode & 0o100 else '600'} '{path}'"
    assert mend in refused.value.zh
    assert mend in refused.value.en
    assert f"{mode:04o}" in refused.value.en
    assert os.system(mend) == 0
    assert read_private(path) == b"00ff\n"


def test_the_mode_that_counts_is_that_of_the_file_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"1")
    (tmp_path / "link").symlink_to(tmp_path / "key")
    (tmp_path / "key").chmod(0o600)
    assert read_private(tmp_path / "link") == b"1"
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(InputError) as refused:
        read_private(tmp_path / "link")
    assert refused.value.code == "key.permissions"


def test_a_missing_key_a_folder_a_pipe_and_a_long_file_have_codes_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "long").write_bytes(b"x" * 101)
    (tmp_path / "long").chmod(0o600)
    os.mkfifo(tmp_path / "pipe", 0o600)
    codes = {}
    for name in ("gone", "file/below", ".", "pipe", "long"):
        with pytest.raises(InputError) as refused:
            read_private(tmp_path / name, limit=100)
        codes[name] = refused.value.code
    assert codes == {
        "gone": "key.missing",
        "file/below": "key.missing",
        ".": "key.not_a_file",
        "pipe": "key.not_a_file",
        "long": "key.too_long",
    }


def test_a_key_of_another_user_is_refused_by_name(open_folder: Path) -> None:
    write_atomic(open_folder / "key", b"00")
    with as_nobody(), pytest.raises(InputError) as refused:
        read_private(open_folder / "key")
    assert refused.value.code == "key.permission_denied"
    assert refused.value.where == str(open_folder / "key")


# The lock


def test_a_second_job_is_refused_and_told_who_holds_the_workspace(tmp_path: Path) -> None:
    with WorkspaceLock(tmp_path / "lock", "nightly"):
        with pytest.raises(StoreError) as refused, WorkspaceLock(tmp_path / "lock", "anchor"):
            pass
        assert refused.value.code == "workspace.busy"
        for text in (refused.value.zh, refused.value.en):
            assert str(os.getpid()) in text
            assert "nightly" in text
            assert "20" in text
    with WorkspaceLock(tmp_path / "lock", "anchor"):
        pass
    assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == 0o600


def test_the_lock_works_between_processes_and_goes_with_a_killed_one(tmp_path: Path) -> None:
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with WorkspaceLock(tmp_path / "lock", "nightly"):
                os.write(tell, b"1")
                signal.pause()
        finally:
            os._exit(1)
    try:
        os.read(ready, 1)
        with pytest.raises(StoreError) as refused, WorkspaceLock(tmp_path / "lock", "anchor"):
            pass
        assert f"pid {child}, command nightly" in refused.value.en
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(tell)
    with WorkspaceLock(tmp_path / "lock", "anchor"):
        assert b'"anchor"' in (tmp_path / "lock").read_bytes()


def test_a_program_started_under_the_lock_does_not_keep_it(tmp_path: Path) -> None:
    with WorkspaceLock(tmp_path / "lock", "chain up") as lock:
        assert lock._descriptor is not None
        assert not os.get_inheritable(lock._descriptor)


def test_a_lock_file_that_says_nothing_still_refuses(tmp_path: Path) -> None:
    with WorkspaceLock(tmp_path / "lock", "nightly"):
        (tmp_path / "lock").write_bytes(b"[]")
        with pytest.raises(StoreError) as refused, WorkspaceLock(tmp_path / "lock", "anchor"):
            pass
    assert refused.value.code == "workspace.busy"


def test_an_error_inside_the_lock_comes_out_and_frees_it(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), WorkspaceLock(tmp_path / "lock", "nightly"):
        raise ZeroDivisionError
    assert in_child(WorkspaceLock(tmp_path / "lock", "anchor").__enter__) == 0


def test_a_lock_in_a_folder_without_permission_is_named(open_folder: Path) -> None:
    with as_nobody(), pytest.raises(StoreError) as refused, WorkspaceLock(open_folder / "lock", "nightly"):
        pass
    assert refused.value.code == "store.permission"
    assert refused.value.where == str(open_folder / "lock")
