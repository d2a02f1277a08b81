"""The files of a section: nothing above its folder, nothing hidden, nothing through a link.

Each step of a path is opened in the folder before it, and no link is followed: also one that is
put there between a look and the next cannot lead out.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

MOST_FILES, MOST_DEPTH = 50_000, 20
MARKDOWN, HTML = (".md", ".markdown"), (".html", ".htm")
INDEXES = ("index.md", "README.md", "readme.md", "index.html")
# Shown in navigation and search beside pages; other files are what pages show and link to.
_PAPERS = (".pdf", ".docx", ".xlsx", ".pptx", ".txt", ".csv", ".tsv")
_NO_PAGES = ("404.html", "robots.txt")  # of built sites
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")


class NoFileError(Exception):
    """There is no such file, or none that is shown."""


@dataclass(frozen=True)
class File:
    """A file of a section.

    Attributes
    ----------
    path : str
        Below the section's folder.
    stamp : tuple of int
        Changes whenever the file does.
    changed : float
        When that was, in seconds since 1970.
    """

    path: str
    stamp: tuple[int, int, int]
    changed: float

    @property
    def is_markdown(self) -> bool:
        """Whether it is shown as a page of ours."""
        return self.path.lower().endswith(MARKDOWN)

    @property
    def is_html(self) -> bool:
        """Whether it is a page as it is."""
        return self.path.lower().endswith(HTML)

    @property
    def is_listed(self) -> bool:
        """Whether it is something to read by itself."""
        lowered = self.path.lower()
        return lowered.endswith((*MARKDOWN, *HTML, *_PAPERS)) and not lowered.endswith(_NO_PAGES)


def parts_of(path: str) -> list[str]:
    """Return the steps of a path.

    Raises
    ------
    NoFileError
        It has a step that is never shown: hidden, upwards, or no name of a file.
    """
    parts = [part for part in path.split("/") if part]
    if len(parts) > MOST_DEPTH or any(p.startswith(".") or _CONTROL.search(p) for p in parts):
        raise NoFileError(path)
    return parts


def open_below(folder: Path, path: str) -> int:
    """Open a file or folder of a section for reading.

    Parameters
    ----------
    folder : Path
        The section's.
    path : str
        Below it.

    Returns
    -------
    int
        Its descriptor, which the caller closes.

    Raises
    ------
    NoFileError
        There is nothing of that name that is shown.
    PermissionError
        The app's account may not read it.
    """
    steps = parts_of(path)
    try:
        # The folder itself is the administrator's word: it may be a link.
        place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for last, step in ((number == len(steps) - 1, step) for number, step in enumerate(steps)):
            # Without O_NONBLOCK a pipe would make us wait for its writer.
            kind = os.O_NONBLOCK if last else os.O_DIRECTORY
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | kind
            try:
                below = os.open(step, flags, dir_fd=place)
            finally:
                os.close(place)
            place = below
    except PermissionError:
        raise
    except (OSError, ValueError):
        raise NoFileError(path) from None
    mode = os.fstat(place).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return place
    os.close(place)
    raise NoFileError(path)


def is_folder(descriptor: int) -> bool:
    """Return whether something open is a folder."""
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


def read_text(folder: Path, path: str, most: int) -> str:
    """Return the text of a file, at most so many bytes of it.

    Raises
    ------
    NoFileError, PermissionError
        See `open_below`.
    """
    descriptor = open_below(folder, path)
    if is_folder(descriptor):
        os.close(descriptor)
        raise NoFileError(path)
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read(most).decode("utf-8-sig", "replace")


def walk(folder: Path) -> Iterator[File]:
    """Yield the files of a section, at most `MOST_FILES`; a folder that is not there has none."""
    root, count = folder.resolve(), 0
    for place, folders, names, descriptor in _tree(root):
        below = PurePosixPath(place).relative_to(root)
        deep = len(below.parts) + 1 >= MOST_DEPTH
        folders[:] = [] if deep else sorted(name for name in folders if _is_shown(name))
        for name in sorted(filter(_is_shown, names)):
            try:
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            except OSError:  # deleted meanwhile
                continue
            if not stat.S_ISREG(status.st_mode):
                continue
            stamp = (status.st_mtime_ns, status.st_ctime_ns, status.st_size)
            yield File(str(below / name), stamp, status.st_mtime)
            count += 1
            if count == MOST_FILES:
                return


def _tree(root: Path) -> Iterator[tuple[str, list[str], list[str], int]]:
    """Yield folders, each open; ends where one is gone or closed, as also the first may be."""
    with contextlib.suppress(OSError):
        yield from os.fwalk(root, follow_symlinks=False)


def _is_shown(name: str) -> bool:
    # A name that is not UTF-8 has no address.
    return not name.startswith(".") and not _CONTROL.search(name) and name.isprintable()
