"""Scratch folders: one for each person, emptied of what nobody has changed or read for long.

People shape them, so that a process of their owner's rights looks through each. Standard library
and labkit.base alone: the process that cleans is small.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
import subprocess
import sys
import time
from pathlib import Path

from hub.state.owners import run_as_owner
from hub.state.paths import REPOSITORY
from labkit.base.files import try_lock
from labkit.base.walk import TooDeepError, walk

_DAY = 86400.0
_NICE = 19
_STAMP = ".cleaned"
_MAIN = "import sys; sys.path.insert(0, sys.argv[1]); from hub.state import scratch; scratch.main()"
_running: list[subprocess.Popen[bytes]] = []


def make(top: Path, account: pwd.struct_passwd) -> Path:
    """Make a person's scratch folder where there is none, and return it.

    Parameters
    ----------
    top : Path
        Holds everybody's; root's own.
    account : struct_passwd
        Whose.

    Raises
    ------
    OSError
        It cannot be made, or something else has its name.
    """
    top.mkdir(mode=0o755, exist_ok=True)
    folder = top / account.pw_name
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        status = os.fstat(descriptor)
        if status.st_uid == 0:
            os.fchown(descriptor, account.pw_uid, account.pw_gid)
        elif status.st_uid != account.pw_uid:
            raise PermissionError(13, "belongs to somebody else", str(folder))
    finally:
        os.close(descriptor)
    return folder


def clean(top: Path, days: int) -> None:
    """Begin to clean everybody's, in a process of its own, unless that was done today.

    Parameters
    ----------
    top : Path
        Holds everybody's.
    days : int
        What was neither changed nor read for so long goes.

    Raises
    ------
    OSError
        It cannot be started.
    """
    _running[:] = [process for process in _running if process.poll() is None]
    with contextlib.suppress(FileNotFoundError):
        if time.time() - (top / _STAMP).stat().st_mtime < _DAY:
            return
    _running.append(
        subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _MAIN, str(REPOSITORY), str(top), str(days)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={},
            cwd="/",
        )
    )


def main() -> None:
    """Clean the folders in the second argument of what is older than the third says, in days."""
    top, days = Path(sys.argv[2]), int(sys.argv[3])
    os.nice(_NICE)
    descriptor = os.open(top / _STAMP, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as stamp:
        if not try_lock(stamp):
            return
        for folder in sorted(top.iterdir()):
            status = folder.lstat()
            if stat.S_ISDIR(status.st_mode) and status.st_uid != 0:
                run_as_owner(folder, lambda: remove_older(Path(), time.time() - days * _DAY))
        os.utime(top / _STAMP)


def remove_older(folder: Path, moment: float) -> None:
    """Remove the files that were last changed and read before a moment, and folders left empty.

    Links are files here, and are not followed. What lies too deep, or in a closed folder, stays.

    Parameters
    ----------
    folder : Path
        Where; it stays itself.
    moment : float
        Seconds since 1970.
    """
    folders: list[str] = []
    with contextlib.suppress(OSError, TooDeepError):
        for entry in walk(folder, pass_closed=True):
            status = entry.status
            if entry.is_folder:
                if max(status.st_mtime, status.st_ctime) < moment:
                    folders.append(entry.path)
            elif max(status.st_mtime, status.st_ctime, status.st_atime) < moment:
                with contextlib.suppress(OSError):
                    os.unlink(entry.name, dir_fd=entry.folder)
    for path in reversed(folders):  # what is in a folder came after it
        with contextlib.suppress(OSError):
            (folder / path).rmdir()
