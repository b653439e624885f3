"""Files that appear whole or not at all, files that must stay private, and the lock of a workspace.

Every write goes to a temporary file in the same folder, is synced, renamed, and the folder synced: after a crash a
reader finds the old content or the new, never a part. What a crash leaves behind starts with `TEMPORARY`, and
`sweep_temporary` removes it. Errors of the operating system come out as `StoreError`, named by cause, with the path.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import shlex
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Self

from ledger.errors import InputError, StoreError

TEMPORARY = ".tmp-"
PRIVATE = 0o600
# The private files are keys, a password, a keystore and a join file: all far below this.
PRIVATE_LIMIT = 1 << 20

_CAUSES: dict[int, tuple[str, str, str]] = {
    errno.ENOSPC: (
        "store.disk_full",
        "磁盘空间已满，未写入任何内容；请清理后重试",
        "the disk is full; free space, then run again",
    ),
    errno.EDQUOT: (
        "store.disk_full",
        "磁盘配额已满；请清理或提高配额后重试",
        "the disk quota is used up; free space, then run again",
    ),
    errno.EACCES: ("store.permission", "没有访问权限；请检查属主与权限", "no permission; check owner and mode"),
    errno.EPERM: (
        "store.permission",
        "操作不被允许；请检查属主与权限",
        "the operation is not permitted; check owner and mode",
    ),
    errno.EROFS: ("store.read_only", "文件系统是只读的", "the file system is read-only"),
    errno.ENOENT: ("store.missing", "文件或目录不存在", "there is no such file or folder"),
    errno.ENOTDIR: ("store.missing", "路径中的一段不是目录", "a part of the path is not a folder"),
    errno.EEXIST: ("store.exists", "文件已存在，不予覆盖", "the file exists already and is not overwritten"),
}


def store_error(error: OSError, path: Path) -> StoreError:
    """`error` in the words of the store; `where` is `path`. The caller raises it from `error`."""
    reason = os.strerror(error.errno) if error.errno is not None else str(error)
    code, zh, en = _CAUSES.get(
        error.errno or 0, ("store.io", "读写失败；请检查磁盘", "reading or writing failed; check the disk")
    )
    return StoreError(code, f"{path}：{zh}（{reason}）", f"{en} ({reason})", str(path))


@contextlib.contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Turn an `OSError` raised inside into the `StoreError` that names its cause and `path`."""
    try:
        yield
    except OSError as error:
        raise store_error(error, path) from error


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut. Raises `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class NewFile:
    """A file being written; it appears under `path` only when `publish` is called.

    `handle` takes the bytes. `discard` removes what was written, and does nothing once published. The methods raise
    `OSError`: whoever owns the write translates it (`os_errors`).
    """

    def __init__(self, path: Path, mode: int = PRIVATE) -> None:
        self.path = path
        self._temporary = path.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
        descriptor = os.open(self._temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        self._open = True
        try:
            os.fchmod(descriptor, mode)  # the umask may have taken away what `mode` grants
            self.handle: BinaryIO = os.fdopen(descriptor, "w+b")
        except BaseException:
            os.close(descriptor)
            self.discard()
            raise

    def publish(self, *, overwrite: bool) -> None:
        """Sync, rename to `path`, sync the folder.

        Without `overwrite` an existing file is kept and `FileExistsError` raised. When the last sync fails the file is
        there, but may not survive a power cut: doing it again is safe.
        """
        self.handle.flush()
        os.fsync(self.handle.fileno())
        self.handle.close()
        if overwrite:
            os.replace(self._temporary, self.path)
        else:
            # A rename would replace; a link refuses when the name is taken, also by a process that came in between.
            os.link(self._temporary, self.path)
            os.unlink(self._temporary)
        self._open = False
        sync_folder(self.path.parent)

    def discard(self) -> None:
        """Remove the unpublished file; whatever cannot be removed is left to `sweep_temporary`."""
        if not self._open:
            return
        self._open = False
        with contextlib.suppress(OSError, AttributeError):
            self.handle.close()
        with contextlib.suppress(OSError):
            os.unlink(self._temporary)


def write_atomic(
    path: Path, data: bytes | Callable[[BinaryIO], None], mode: int = PRIVATE, *, overwrite: bool = True
) -> None:
    """Write `path` whole or not at all, durable on return, with exactly `mode`.

    `data` is the content, or a function that writes it to the handle it is given. `overwrite=False` is for what must
    never be replaced, keys above all: an existing file is `store.exists`. Other causes: `store.disk_full`,
    `store.permission`, `store.read_only`, `store.missing` (the folder), `store.io`.
    """
    with os_errors(path):
        new = NewFile(path, mode)
        try:
            if callable(data):
                data(new.handle)
            else:
                new.handle.write(data)
            new.publish(overwrite=overwrite)
        finally:
            new.discard()


def sweep_temporary(folder: Path) -> tuple[str, ...]:
    """Remove what interrupted writes left in `folder` (not below it) and return the names.

    Call it only while holding the workspace's lock: another process's unfinished file looks the same.
    """
    swept = []
    with os_errors(folder):
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.name.startswith(TEMPORARY) and entry.is_file(follow_symlinks=False):
                os.unlink(entry.path)
                swept.append(entry.name)
    return tuple(swept)


def hash_file(path: Path) -> str:
    """SHA-256 of the file, in hex. Raises `OSError`."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def read_private(path: Path, limit: int = PRIVATE_LIMIT) -> bytes:
    """The content of a key, password or join file, refused while anyone but its owner may read or write it.

    InputError: `key.missing`, `key.permission_denied`, `key.not_a_file`, `key.permissions` (with the `chmod` that mends
    it), `key.too_long`, `key.unreadable`. The mode is that of the file opened, so it cannot be swapped in between.
    """
    where = str(path)
    try:
        # Without O_NONBLOCK a named pipe put in the file's place would hang the job.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError("key.missing", f"缺少密钥文件：{where}", "the key file is missing", where) from error
    except PermissionError as error:
        raise InputError(
            "key.permission_denied",
            f"无权读取密钥文件：{where}；请由其属主运行，或更改属主",
            "the key file may not be read by this user; run as its owner, or change the owner",
            where,
        ) from error
    except OSError as error:
        raise _unreadable(error, where) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InputError("key.not_a_file", f"不是普通文件：{where}", "this is not a regular file", where)
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077:
            mend = f"chmod {mode & 0o700:03o} {shlex.quote(where)}"
            raise InputError(
                "key.permissions",
                f"密钥文件 {where} 的权限为 {mode:04o}，其他用户可读或可写；请执行：{mend}",
                f"mode {mode:04o} lets other users read or write this key file; mend it with: {mend}",
                where,
            )
        with os.fdopen(descriptor, "rb", closefd=False) as handle:
            data = handle.read(limit + 1)
    except OSError as error:
        raise _unreadable(error, where) from error
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise InputError(
            "key.too_long", f"密钥文件 {where} 超过 {limit} 字节", f"the key file is longer than {limit} bytes", where
        )
    return data


def _unreadable(error: OSError, where: str) -> InputError:
    reason = os.strerror(error.errno) if error.errno is not None else str(error)
    return InputError(
        "key.unreadable", f"无法读取密钥文件 {where}（{reason}）", f"the key file cannot be read ({reason})", where
    )


class WorkspaceLock:
    """Held by the one process that may write the workspace; a context manager, never waits.

    The operating system drops it when the process ends, however it ends, so there is nothing to clean up and the file
    stays. A second holder gets StoreError `workspace.busy` naming pid, command and start of the first. A child made by
    `os.fork` would share the lock; programs started by `subprocess` do not.
    """

    def __init__(self, path: Path, command: str) -> None:
        self.path = path
        self.command = command
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        if self._descriptor is not None:
            raise RuntimeError("this lock is held already")
        with os_errors(self.path):
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise _busy(self.path, os.pread(descriptor, 4096, 0)) from error
            started = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            holder = {"command": self.command, "pid": os.getpid(), "started": started}
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(holder, ensure_ascii=False, sort_keys=True).encode() + b"\n", 0)
        except OSError as error:
            os.close(descriptor)
            raise store_error(error, self.path) from error
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            # The name of a holder that is gone would only mislead; a failure here must not hide the job's own.
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
            os.close(descriptor)
        return False


def _busy(path: Path, holder: bytes) -> StoreError:
    """The refusal; the holder may not have written its name yet, or be an older version's."""
    try:
        told = json.loads(holder)
        pid, command, started = str(told["pid"]), str(told["command"]), str(told["started"])
    except (ValueError, KeyError, TypeError):
        pid = command = started = "?"
    return StoreError(
        "workspace.busy",
        f"另一个任务正在使用本工作区：进程 {pid}，命令 {command}，开始于 {started}（{path}）；请等它结束后再试",
        f"another job is using this workspace: pid {pid}, command {command}, started {started}; "
        "try again when it ended",
        str(path),
    )
