"""Work in a folder that belongs to a person, with no more rights over files than they have.

Standard library alone.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path


def run_as_owner(folder: Path, work: Callable[[], object]) -> None:
    """Run something in a folder, as its owner in all that concerns files; waits for its end.

    A copy of this process does it: an error there ends it, and is nobody else's.

    Parameters
    ----------
    folder : Path
        Becomes the current folder; a link is refused.
    work : callable
        What to do.
    """
    owner = folder.lstat()
    child = os.fork()
    if child == 0:
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            os.fchdir(descriptor)
            if os.geteuid() == 0:
                os.setgroups([])
                # For files alone: a process of a person's would keep their account from going.
                libc = ctypes.CDLL(None)
                libc.setfsgid(owner.st_gid)
                libc.setfsuid(owner.st_uid)
                if libc.setfsuid(-1) != owner.st_uid:
                    raise PermissionError("root may not become the owner")
            work()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
