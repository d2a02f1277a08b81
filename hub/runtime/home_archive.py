"""People's homes as streams of tar: written and read by processes of their owners.

Their owners shape them: nothing of a home is opened, and nothing is put into it, by root.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import select
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

_PIECE = 1 << 20
_TAIL = 500  # bytes of what tar said
_SKELETON = Path("/etc/skel")
_SAVE = (
    "--create",
    "--sparse",
    "--one-file-system",  # what is mounted in it is not the home
    "--ignore-failed-read",  # a file that its owner has closed to themselves
    "--exclude-caches",  # those that say so; a pattern takes hours on deeply nested folders
)


class HomeError(Exception):
    """A home cannot be saved or put back; the text is for people."""


def pieces(account: pwd.struct_passwd, size: int, timeout: float) -> Iterator[bytes]:
    """Yield a home as a stream of tar.

    Parameters
    ----------
    account : struct_passwd
        Whose.
    size : int
        Bytes that it may have; holes in its files do not count.
    timeout : float
        Seconds.

    Raises
    ------
    HomeError
        It cannot be read as a whole, is larger, or takes longer.
    """
    end = time.monotonic() + timeout
    with tempfile.TemporaryFile() as said:
        words = [*_SAVE, "--file=-", f"--directory={account.pw_dir}", "."]
        process = _tar(account, words, stdout=subprocess.PIPE, stderr=said)
        try:
            if process.stdout is None:
                raise RuntimeError("tar was started without a pipe")
            handle = process.stdout.fileno()
            while True:
                left = end - time.monotonic()
                if left <= 0 or not select.select([handle], [], [], left)[0]:
                    raise HomeError("is not saved within its time (backup.home_time)")
                piece = os.read(handle, _PIECE)
                if not piece:
                    break
                size -= len(piece)
                if size < 0:
                    raise HomeError("holds more than backup.home_size")
                yield piece
            _ended(process, said, max(1.0, end - time.monotonic()), (0, 1))  # 1: it changed
        finally:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()


def put_back(
    account: pwd.struct_passwd, send: Callable[[int], None], folder: str, timeout: float
) -> None:
    """Unpack a stream of tar into a home.

    Parameters
    ----------
    account : struct_passwd
        Whose.
    send : callable
        Writes the stream to the file descriptor that it is given.
    folder : str
        Into this new folder of the home; empty: into the home itself.
    timeout : float
        Seconds for the rest, when all was sent.

    Raises
    ------
    HomeError
        It is no whole archive, or cannot be written.
    """
    words = ["--extract", "--file=-", f"--directory={account.pw_dir}"]
    words += ["--no-same-owner", "--preserve-permissions"]
    words += [f"--one-top-level={folder}"] if folder else []
    with tempfile.TemporaryFile() as said:
        process = _tar(account, words, stdin=subprocess.PIPE, stderr=said)
        try:
            if process.stdin is None:
                raise RuntimeError("tar was started without a pipe")
            with process.stdin as stream:
                try:
                    send(stream.fileno())
                except Exception:
                    if process.poll() is not None:  # no fault of the sender's
                        _ended(process, said, timeout, ())
                    raise
            _ended(process, said, timeout, (0,))
        finally:
            process.kill()
            process.wait()


def is_new(home: Path) -> bool:
    """Whether nothing is in a home but what every new account is given."""
    given = {entry.name for entry in _SKELETON.iterdir()} if _SKELETON.is_dir() else set()
    with contextlib.suppress(OSError):
        return {entry.name for entry in home.iterdir()} <= given
    return False


def _tar(
    account: pwd.struct_passwd,
    words: list[str],
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
    stderr: IO[bytes],
) -> subprocess.Popen[bytes]:
    root = os.geteuid() == 0
    return subprocess.Popen(
        ["/usr/bin/tar", *words],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        cwd="/",
        umask=0o077,
        start_new_session=True,
        user=account.pw_uid if root else None,
        group=account.pw_gid if root else None,
        extra_groups=os.getgrouplist(account.pw_name, account.pw_gid) if root else None,
    )


def _ended(
    process: subprocess.Popen[bytes], said: IO[bytes], timeout: float, good: tuple[int, ...]
) -> None:
    try:
        code = process.wait(timeout)
    except subprocess.TimeoutExpired:
        raise HomeError("is not read or written in time") from None
    if code in good:
        return
    said.seek(max(0, said.seek(0, os.SEEK_END) - _TAIL))
    text = " ".join(said.read().decode("utf-8", "replace").split())
    raise HomeError(f"tar says: {text}" if text else f"tar ended with {code}")
