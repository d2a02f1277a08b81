"""Delete a folder that somebody else has shaped: however deep, wide or closed it is.

Standard library alone.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class _LateError(Exception):
    """The deadline is over."""


def remove_tree(folder: Path, timeout: float | None = None) -> bool:
    """Delete a folder with all that is in it; nothing that a link names is touched.

    Nothing recurses, and two folders are open at most: one that lies deeper is brought up into
    the first one, and emptied from there.

    Parameters
    ----------
    folder : Path
        What goes.
    timeout : float, optional
        Give up after so many seconds.

    Returns
    -------
    bool
        Whether nothing is left. A file that cannot be deleted stays, all others go.
    """
    end = None if timeout is None else time.monotonic() + timeout
    with contextlib.suppress(OSError, _LateError):
        # A closed folder is opened by its owner; a link is not followed by the second line.
        if stat.S_ISDIR(folder.lstat().st_mode):
            folder.chmod(0o700)
        top = os.open(folder, _FOLDER)
        try:
            _empty(top, end)
        finally:
            os.close(top)
        folder.rmdir()
    return not os.path.lexists(folder)


def _empty(top: int, end: float | None) -> None:
    """Empty the folder that is open as `top`, as far as it can be."""
    waiting: list[str] = []  # folders in `top` that are still to be emptied
    raised = 0  # how many were brought up, for names that nothing in it has
    mark = f".labhub-{os.urandom(8).hex()}-"
    raised = _clear(top, top, mark, raised, waiting, end)
    while waiting:
        name = waiting.pop()
        try:
            inner = os.open(name, _FOLDER, dir_fd=top)
        except OSError:
            continue
        try:
            raised = _clear(inner, top, mark, raised, waiting, end)
        finally:
            os.close(inner)
        with contextlib.suppress(OSError):
            os.rmdir(name, dir_fd=top)


def _clear(
    folder: int, top: int, mark: str, raised: int, waiting: list[str], end: float | None
) -> int:
    """Delete a folder's files, bring its folders up into `top`; returns how many were so far."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if end is not None and time.monotonic() > end:
                raise _LateError
            if entry.name.startswith(mark):
                continue
            with contextlib.suppress(OSError):
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.name, dir_fd=folder)
                    continue
                # Its owner's to open again; a folder may be moved by who may write in it.
                os.chmod(entry.name, 0o700, dir_fd=folder)
                name = f"{mark}{raised}"
                os.rename(entry.name, name, src_dir_fd=folder, dst_dir_fd=top)
                raised += 1
                waiting.append(name)
    return raised
