"""Look through a folder that somebody else has shaped: nothing recurses, no link is followed.

Standard library alone.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from labkit.base.problems import LabkitError

DEEPEST = 500  # folders in each other; each is held open
_LONGEST = 4000  # bytes of a path; the kernel takes 4,096 with the folder's own
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class TooDeepError(LabkitError):
    """Folders lie too deep in each other; the text says where."""


@dataclass(frozen=True)
class Entry:
    """What lies in a folder or below it.

    Attributes
    ----------
    path : str
        From the folder where the walk began.
    name : str
        The last part of it.
    folder : int
        Descriptor of the folder that it lies in; open until the next entry is asked for.
    status : stat_result
        Its own, not that of what it links to.
    """

    path: str
    name: str
    folder: int
    status: os.stat_result

    @property
    def is_file(self) -> bool:
        """Whether it is a plain file."""
        return stat.S_ISREG(self.status.st_mode)

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.status.st_mode)

    def open(self) -> int:
        """Open a plain file for reading; returns the descriptor.

        Raises
        ------
        OSError
            It cannot be read, or is a plain file no more.
        """
        descriptor = os.open(self.name, _FILE, dir_fd=self.folder)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(f"{self.path} is a plain file no more")
        return descriptor


def walk(
    top: Path,
    enter: Callable[[Entry], bool] = lambda _: True,
    deepest: int = DEEPEST,
    *,
    pass_closed: bool = False,
) -> Iterator[Entry]:
    """Yield all that lies below a folder, each folder before what is in it.

    What goes away meanwhile is left out.

    Parameters
    ----------
    top : Path
        The folder; nothing comes of a link or a file.
    enter : callable
        Says of a folder whether to look into it.
    deepest : int
        So many folders may lie in each other.
    pass_closed : bool
        Leave a folder that may not be read where it is, and go on.

    Raises
    ------
    TooDeepError
        More do, or a path is too long to be used.
    OSError
        A folder cannot be read, or may not be without `pass_closed`.
    """
    if not top.is_dir() or top.is_symlink():
        return
    opened: list[tuple[int, str, Iterator[str]]] = []

    def go_into(name: str, inside: int | None, path: str) -> None:
        descriptor = os.open(name, _FOLDER, dir_fd=inside)
        opened.append((descriptor, path, iter(())))
        with os.scandir(descriptor) as entries:
            names = sorted(entry.name for entry in entries)
        opened[-1] = (descriptor, path, iter(names))

    try:
        go_into(str(top), None, "")
        while opened:
            folder, above, names = opened[-1]
            name = next(names, None)
            if name is None:
                os.close(opened.pop()[0])
                continue
            path = f"{above}/{name}" if above else name
            if len(os.fsencode(path)) > _LONGEST:
                raise _too_deep(path)
            try:
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                continue
            entry = Entry(path, name, folder, status)
            yield entry
            if not entry.is_folder or not enter(entry):
                continue
            if len(opened) > deepest:
                raise _too_deep(path)
            try:
                go_into(name, folder, path)
            except FileNotFoundError:
                continue
            except PermissionError:
                if not pass_closed:
                    raise
    finally:
        for descriptor, _, _ in opened:
            os.close(descriptor)


def _too_deep(path: str) -> TooDeepError:
    shown = path if len(path) <= 80 else f"{path[:40]}...{path[-30:]}"
    return TooDeepError(f"has too many folders in each other, at {shown}")
