"""Look through a person's home for what a page can open."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from labkit.server import shared_folders

SECONDS = 4.0  # the longest that a page waits for a search
_SKIPPED = frozenset({"node_modules", "__pycache__", "site-packages", "renv", "packrat"})
_LIBRARY = "-library"  # x86_64-pc-linux-gnu-library: R packages, with examples of their own
_DEPTH = 6
_ENTRIES = 50_000
_SHOWN = 300


@dataclass(frozen=True)
class Found:
    """A file or folder that a page can open.

    Attributes
    ----------
    path : str
        From where the search began.
    size : int or None
        In bytes; None for a folder.
    modified : float
        Seconds since 1970.
    """

    path: str
    size: int | None
    modified: float


def find(home: Path, deadline: float, wanted: Callable[[str], bool]) -> tuple[list[Found], bool]:
    """Look for files and folders by their names.

    Parameters
    ----------
    home : Path
        Where to look; links to folders are not followed.
    deadline : float
        Value of `time.monotonic` at which to give up.
    wanted : callable
        Says of a name, in small letters, whether it is looked for.

    Returns
    -------
    found : list of Found
        Newest first; paths relative to ``home``.
    complete : bool
        False where a bound (depth, number, time) cut the search short.
    """
    found: list[Found] = []
    complete = True
    seen = 0
    folders = [(home, 0)]
    while folders:
        folder, depth = folders.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            seen += 1
            if seen > _ENTRIES or time.monotonic() > deadline:
                return _newest(found), False
            if entry.name.startswith(".") or entry.name in _SKIPPED:
                continue
            with contextlib.suppress(OSError):
                folder_like = entry.is_dir(follow_symlinks=False)
                if wanted(entry.name.lower()):
                    status = entry.stat()
                    size = None if folder_like else status.st_size
                    relative = str(Path(entry.path).relative_to(home))
                    found.append(Found(relative, size, status.st_mtime))
                elif folder_like and entry.name.endswith(_LIBRARY):
                    continue
                elif folder_like and depth < _DEPTH:
                    folders.append((Path(entry.path), depth + 1))
                elif folder_like:
                    complete = False
    return _newest(found), complete


def find_everywhere(
    home: Path, deadline: float, wanted: Callable[[str], bool]
) -> tuple[list[Found], bool]:
    """Look through the home and the shared folders, whose paths begin with ``shared/``.

    Parameters and what is returned are those of `find`.
    """
    found, complete = find(home, deadline, wanted)
    for name, path in shared_folders.folders().items():
        more, whole = find(path, deadline, wanted)
        complete = complete and whole
        above = f"{shared_folders.NAME}/{name}"
        # A link of that name that somebody made leads elsewhere.
        below = above if (home / above).resolve() == path.resolve() else str(path)
        found += [replace(one, path=f"{below}/{one.path}") for one in more]
    return _newest(found), complete


def _newest(found: list[Found]) -> list[Found]:
    return sorted(found, key=lambda one: -one.modified)[:_SHOWN]
