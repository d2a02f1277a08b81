"""Die, or stall, right before the k-th file operation of a process.

This text is also put into processes that know nothing of the bench: standard library only.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType
from typing import Any

_NAMES = {
    "open", "rename", "replace", "link", "unlink", "remove", "mkdir", "rmdir", "write", "fsync",
    "ftruncate", "flock", "listdir", "scandir", "fork_exec", "kill", "utime", "__exit__", "execute",
    "commit", "stat", "symlink",
}  # fmt: skip
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
    left = [int(at)]

    def profile(frame: FrameType, event: str, called: Any) -> None:
        if event != "c_call" or getattr(called, "__name__", "") not in _NAMES:
            return
        owner = getattr(called, "__self__", None)
        home = getattr(called, "__module__", None) or type(owner).__module__
        if home not in _HOMES or frame.f_code.co_filename.startswith("<frozen"):
            return
        left[0] -= 1
        if left[0]:
            return
        where = f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"
        points = os.open(f"{folder}/points", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(points, f"{role} {at} {what} {called.__name__} {where}\n".encode())
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(float(what))

    sys.setprofile(profile)
