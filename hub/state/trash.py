"""What ended sandboxes have left on the disk: put aside at once, deleted in the background.

Its users have shaped it, a million files or three thousand folders in each other: nobody waits
for that, and it goes under the account whose files they are. One process does it for a portal;
what it has not done after its deadline is tried again when the portal starts. Standard library
alone: that process is small.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from hub.state.owners import run_as_owner
from hub.state.paths import REPOSITORY
from labkit.base.files import try_lock
from labkit.base.remove import remove_tree

TIMEOUT = 1800.0  # seconds for what one sandbox has left
_NICE = 19
_LOCK = ".lock"
_MAIN = "import sys; sys.path.insert(0, sys.argv[1]); from hub.state import trash; trash.main()"
_running: list[subprocess.Popen[bytes]] = []


def put_aside(folder: Path, trash: Path) -> None:
    """Take a folder out of the way, in one step; nothing is done where it is not there.

    Parameters
    ----------
    folder : Path
        A sandbox's.
    trash : Path
        Where it waits to be deleted; on the same disk.

    Raises
    ------
    OSError
        It cannot be moved.
    """
    trash.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        folder.rename(trash / f"{folder.name}-{os.urandom(6).hex()}")


def empty(trash: Path) -> None:
    """Begin to delete what is in the trash, in a process of its own; returns at once.

    Raises
    ------
    OSError
        It cannot be started.
    """
    _running[:] = [process for process in _running if process.poll() is None]
    if not contents(trash):
        return
    _running.append(
        subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _MAIN, str(REPOSITORY), str(trash)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={},
            cwd="/",
        )
    )


def contents(trash: Path) -> list[Path]:
    """Return what waits to be deleted."""
    if not trash.is_dir():
        return []
    return sorted(entry for entry in trash.iterdir() if entry.name != _LOCK)


def main() -> None:
    """Empty the trash named by the second argument, unless another process is at it."""
    trash = Path(sys.argv[2])
    os.nice(_NICE)
    tried: set[str] = set()
    while left := [entry for entry in contents(trash) if entry.name not in tried]:
        # Freed before the next look: who came meanwhile and found it held has gone.
        with (trash / _LOCK).open("a") as lock:
            if not try_lock(lock):
                return  # that one looks again before it ends
            for entry in left:
                tried.add(entry.name)
                _delete(entry)


def _delete(folder: Path) -> None:
    """Delete one sandbox's folder: its users' files as their owner, the rest as the portal."""
    for entry in list(folder.iterdir()):
        owner = entry.lstat()
        if owner.st_uid in (0, os.geteuid()):
            continue
        # What is in it: the folder itself is the portal's.
        with contextlib.suppress(OSError):
            run_as_owner(entry, lambda: remove_tree(Path(), TIMEOUT))
    # Of root's own making: a file or two, and the empty places of what was mounted below /var/tmp.
    for entry in list(folder.iterdir()):
        with contextlib.suppress(OSError):
            if not remove_tree(entry, TIMEOUT):
                entry.unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()
