"""Files that others read and write at the same time: whole or not at all, one at a time, the end.

Standard library and Python 3.9: the worker takes this file along into a run folder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

TAIL_BYTES = 64 * 1024
_PAUSE = 0.02  # seconds between two tries to get a lock


class LockTimeoutError(TimeoutError):
    """Another process has held a lock for too long; the text says what, and which."""


def write_atomic(
    path: Path,
    content: str | bytes,
    *,
    mode: int | None = None,
    sync: bool = False,
    exclusive: bool = False,
) -> bool:
    """Write a file in one step: a reader sees the old content or the new one.

    Parameters
    ----------
    path : Path
        The file; its folder must be there.
    content : str or bytes
        All of it; text is written as UTF-8.
    mode : int, optional
        Its permissions; else those of any new file.
    sync : bool
        Return only when it is on the disk: for what was promised to somebody.
    exclusive : bool
        Leave a file that is there alone.

    Returns
    -------
    bool
        Whether it was written.
    """
    with temporary_beside(path) as temporary:
        # Never wider than it ends up, not even for a moment.
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if mode else 0o666)
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            if mode is not None:
                os.fchmod(file.fileno(), mode)
        if sync:
            sync_path(temporary)
        written = put_in_place(temporary, path, exclusive=exclusive)
    if sync and written:
        sync_path(path.parent)
    return written


@contextlib.contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Give a free name in the same folder; what is still there at the end is removed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def put_in_place(temporary: Path, path: Path, *, exclusive: bool = False) -> bool:
    """Rename a finished file to its place; with ``exclusive`` never over another.

    Returns
    -------
    bool
        Whether it is there now.
    """
    if not exclusive:
        os.replace(temporary, path)  # noqa: PTH105 - one name for all renames of this module
        return True
    try:
        os.link(temporary, path)
    except FileExistsError:
        if not _is_same(temporary, path):
            return False  # else a network disk did it, lost its answer and tried again
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        if path.exists():  # a file system without hard links
            return False
        os.replace(temporary, path)  # noqa: PTH105
        return True
    with contextlib.suppress(OSError):
        temporary.unlink()
    return True


def _is_same(temporary: Path, path: Path) -> bool:
    try:
        return temporary.samefile(path)
    except FileNotFoundError:
        return False


def sync_path(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk.

    After a power cut a renamed file is empty otherwise.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Bring a folder and all that is in it to the disk; links are not followed."""
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(root, name)
            if stat.S_ISREG(path.lstat().st_mode):
                sync_path(path)
        sync_path(Path(root))


def try_lock(file: IO[Any], timeout: float = 0.0) -> bool:
    """Lock an open file, for as long as it is open; the kernel frees it with its process.

    Parameters
    ----------
    file : file object
        The lock file.
    timeout : float
        Seconds to wait for another holder.

    Returns
    -------
    bool
        False where another process still holds it.

    Raises
    ------
    OSError
        The file system has no locks.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_PAUSE)
        else:
            return True


@contextlib.contextmanager
def locked(
    path: Path,
    timeout: float,
    what: str,
    *,
    on_wait: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Hold a lock; others, in this process or another, wait.

    Parameters
    ----------
    path : Path
        The lock file; made where it is missing, its content stays. It is closed to other accounts:
        whoever can open a lock can hold it.
    timeout : float
        Seconds to wait for another holder.
    what : str
        What it guards, for people: ``"the list of apps"``.
    on_wait : callable, optional
        Is told once what is waited for.

    Raises
    ------
    LockTimeoutError
        Another one holds it for longer.
    OSError
        The file cannot be opened, or its file system has no locks.
    """
    with open(path, "a", opener=_closed) as file:
        if not try_lock(file):
            if on_wait is not None:
                on_wait(f"waiting for {what}, which {holder(path)} has")
            if not try_lock(file, timeout):
                raise LockTimeoutError(
                    f"{what} ({path}) has been held by {holder(path)} for {timeout:.0f} s. "
                    "Try again, or end it."
                )
        yield


def _closed(path: str, flags: int) -> int:
    handle = os.open(path, flags, 0o600)
    try:
        status = os.fstat(handle)
        if status.st_mode & 0o077 and status.st_uid == os.geteuid():  # an earlier version's
            os.fchmod(handle, 0o600)
    except OSError:
        os.close(handle)
        raise
    return handle


def holder(path: Path) -> str:
    """Return who holds a lock, for people; as far as this machine's kernel shows it."""
    try:
        status = path.stat()
        with open("/proc/locks") as table:  # noqa: PTH123 - one line at a time
            for line in table:
                words = line.split()
                if words[1] != "FLOCK":
                    continue
                major, minor, inode = words[5].split(":")
                device = os.makedev(int(major, 16), int(minor, 16))
                if int(inode) == status.st_ino and device == status.st_dev and int(words[4]) > 0:
                    name = Path(f"/proc/{words[4]}/comm").read_text().strip()
                    return f"process {words[4]} ({name})"
    except (OSError, ValueError, IndexError):
        pass
    return "another process"


def tail(path: Path, lines: int | None = None, *, most: int = TAIL_BYTES, start: int = 0) -> str:
    """Return the end of a log, however large it is; nothing where it cannot be read.

    Parameters
    ----------
    path : Path
        The log.
    lines : int, optional
        At most so many; else all in ``most``.
    most : int
        Bytes that are read. A line that is cut off in its middle is left out, unless it is alone.
    start : int
        Bytes before this offset are another run's; 0 where the log is shorter than that.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = start if start <= size else 0
            begin = max(start, size - most)
            file.seek(begin)
            text = file.read(most).decode("utf-8", "replace")
    except OSError:
        return ""
    found = text.splitlines()
    if begin > start and len(found) > 1:
        del found[0]
    if lines is not None:
        found = found[-lines:] if lines > 0 else []
    return "\n".join(found)


def read_lines(path: Path, position: int, *, most: int = 1 << 20) -> tuple[int, str]:
    """Return the whole lines of a growing file after a position, and the position after them.

    Parameters
    ----------
    path : Path
        The file; one that is not there yet has no lines.
    position : int
        Bytes that were read before.
    most : int
        Bytes that are read; of a longer line they are returned as they are.
    """
    if not path.exists():
        return position, ""
    with path.open("rb") as file:
        file.seek(position)
        data = file.read(most)
    whole = data if len(data) == most else data[: data.rfind(b"\n") + 1]
    return position + len(whole), whole.decode("utf-8", "replace")
