"""What JupyterLab deletes goes to the home's trash, which is kept small."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from labkit.base.remove import remove_tree

MOST = 1 << 30  # bytes in the trash; a single file or folder that is larger goes at once
AGE = 30 * 86400.0  # seconds
ROOM = 1 << 30  # bytes that must be free on the disk for anything to be kept


@dataclass(frozen=True)
class _Entry:
    path: Path
    info: Path
    since: float
    size: int


def folder() -> Path:
    """Return the trash (``$XDG_DATA_HOME/Trash``), as desktops have it."""
    base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "Trash"


def tidy(
    trash: Path | None = None, *, most: int = MOST, age: float = AGE, room: int = ROOM
) -> list[str]:
    """Delete for good what is old or too much in the trash; all of it where the disk is full.

    Parameters
    ----------
    trash : Path, optional
        The trash; the person's own where none is named.
    most : int
        Bytes that stay; the newest stay longest.
    age : float
        Seconds after which a thing goes.
    room : int
        Bytes that must be free on the disk for anything to stay.

    Returns
    -------
    list of str
        Names of what went.
    """
    trash = trash or folder()
    entries = sorted(_entries(trash), key=lambda entry: entry.since, reverse=True)
    gone, total = [], 0
    for entry in entries:
        total += entry.size
        full = shutil.disk_usage(trash).free < room
        if full or total > most or time.time() - entry.since > age:
            _remove(entry)
            gone.append(entry.path.name)
            total -= entry.size
    return gone


def _entries(trash: Path) -> Iterator[_Entry]:
    files = trash / "files"
    for path in files.iterdir() if files.is_dir() else ():
        info = trash / "info" / f"{path.name}.trashinfo"
        try:
            # The info is written when the thing comes in; its own times are older.
            since = (info if info.exists() else path).lstat().st_mtime
            yield _Entry(path, info, since, _size(path))
        except OSError:  # gone meanwhile
            continue


def _size(path: Path) -> int:
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_blocks * 512
    total = 0
    for top, _, names in os.walk(path):
        for name in names:
            total += Path(top, name).lstat().st_blocks * 512
    return total


def _remove(entry: _Entry) -> None:
    if entry.path.is_symlink() or not entry.path.is_dir():
        entry.path.unlink(missing_ok=True)
    else:
        remove_tree(entry.path)
    entry.info.unlink(missing_ok=True)
