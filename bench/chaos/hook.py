"""Die, or stall, right before the k-th file operation of a process.

This text is also put into processes that know nothing of the bench: standard library only.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Collection
from types import FrameType
from typing import Any

# Whoever dies between two others of these leaves the disk as before the second.
CHANGES = {
    "rename", "replace", "link", "symlink", "unlink", "remove", "mkdir", "mkfifo", "rmdir", "write",
    "flush", "fsync", "ftruncate", "utime", "fork_exec", "kill", "execute", "commit",
}  # fmt: skip
_ALL = CHANGES | {"__exit__", "open", "flock", "listdir", "scandir", "stat"}
_HOMES = ("posix", "io", "_io", "fcntl", "_posixsubprocess", "sqlite3")


def arm(folder: str, role: str = "") -> None:
    """Take the order for a role, if there is one: ``crash.<role>``, ``k kill`` or ``k SECONDS``.

    Parameters
    ----------
    folder : str
        Where the orders lie; what was done is added to its file ``points``.
    role : str
        Empty: what the command line of the process tells.
    """
    if not role:
        words = getattr(sys, "argv", [""])
        role = "worker" if words[0].endswith("/worker") else "element"
    mine = f"{folder}/crash.{role}.{os.getpid()}"
    try:
        os.rename(f"{folder}/crash.{role}", mine)  # noqa: PTH104
        with open(mine) as file:  # noqa: PTH123
            at, what = file.read().split()
        os.unlink(mine)  # noqa: PTH108
    except OSError:
        return

    def done(called: str, where: str) -> None:
        points = os.open(f"{folder}/points", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(points, f"{role} {at} {what} {called} {where}\n".encode())
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(float(what))

    before(int(at), done)


def before(at: int, do: Callable[[str, str], None], names: Collection[str] = _ALL) -> None:
    """Do something right before this thread's ``at``-th file operation from now on.

    Parameters
    ----------
    at : int
        From 1.
    do : callable
        Is given the name of the operation, and the line of code that asks for it.
    names : collection of str
        Which operations count.
    """
    left = [at]

    def profile(frame: FrameType, event: str, called: Any) -> None:
        if event != "c_call" or getattr(called, "__name__", "") not in names:
            return
        owner = getattr(called, "__self__", None)
        home = getattr(called, "__module__", None) or type(owner).__module__
        if home not in _HOMES or frame.f_code.co_filename.startswith("<frozen"):
            return
        left[0] -= 1
        if left[0] == 0:
            do(called.__name__, f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}")

    sys.setprofile(profile)
