"""From a folder to the files of an app: what is taken, what is wrong, one archive of it."""

from __future__ import annotations

import ast
import os
import stat
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from labkit.base.problems import Problem
from labkit.base.walk import Entry, TooDeepError, walk
from labkit.portal.webapps.rules import ENTRIES, Kind, check_size, is_path, kind_of

_SKIPPED = frozenset({"__pycache__", "node_modules", "rsconnect"})
_DATE = (1980, 1, 1, 0, 0, 0)
_PIECE = 1 << 20


@dataclass
class Package:
    """The files of an app, as they are on disk.

    Attributes
    ----------
    root : Path
        The app's folder.
    files : dict
        Path below the folder -> size in bytes.
    left_out : list of str
        What was not taken: hidden files, and folders that are made by running it.
    kind : str or None
        ``shiny`` or ``dash``.
    problems : list of Problem
        All that is wrong.
    """

    root: Path
    files: dict[str, int] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    kind: Kind | None = None
    problems: list[Problem] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())

    def write(self, stream: BinaryIO) -> None:
        """Write the archive: the same files make the same bytes.

        Raises
        ------
        OSError
            A file has gone, or has become a link, since it was looked at.
        """
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted(self.files):
                entry = zipfile.ZipInfo(name, _DATE)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = (stat.S_IFREG | 0o644) << 16
                handle = os.open(self.root / name, os.O_RDONLY | os.O_NOFOLLOW)
                with os.fdopen(handle, "rb") as file, archive.open(entry, "w") as out:
                    while piece := file.read(_PIECE):
                        out.write(piece)


def collect(source: str | Path, most: int) -> Package:
    """Look at an app's folder, or at the one file that it is.

    Parameters
    ----------
    source : str or Path
        A folder, or ``app.R`` or ``app.py`` itself: then that file alone is taken.
    most : int
        Bytes that an app may have.
    """
    place = Path(source).expanduser()
    if place.is_file() and not place.is_symlink():
        package = Package(place.resolve().parent)
        if place.name in ENTRIES:
            package.files[place.name] = place.stat().st_size
        else:
            text = f"{place.name} is no app's file."
            package.problems.append(Problem("app", text, "It is called app.R or app.py."))
            return package
    elif place.is_dir():
        package = Package(place.resolve())
        _walk(package)
    else:
        package = Package(place)
        package.problems.append(Problem("app", f"{place} is neither a file nor a folder."))
        return package
    kind, problems = kind_of(package.files)
    package.kind = kind
    package.problems += problems
    package.problems += check_size(len(package.files), package.size, most)
    package.problems += _syntax(package)
    return package


def _walk(package: Package) -> None:
    try:
        for entry in walk(package.root, enter=lambda entry: not _is_left_out(entry)):
            below = entry.path
            if _is_left_out(entry):
                package.left_out.append(below)
            elif entry.is_link:
                text = f"is a link, to {os.readlink(entry.name, dir_fd=entry.folder)}."
                package.problems.append(Problem(below, text, "Put the file itself there."))
            elif entry.is_folder:
                continue
            elif not entry.is_file:
                package.problems.append(Problem(below, "is no file.", "Remove it."))
            elif not is_path(below):
                text = "its name begins or ends with a space, is too long, or cannot be shown."
                package.problems.append(Problem(repr(below), text, "Rename it."))
            else:
                package.files[below] = entry.status.st_size
    except TooDeepError as error:
        text = f"{error}."
        package.problems.append(Problem("app", text, "Take them out of the app's folder."))


def _is_left_out(entry: Entry) -> bool:
    return entry.name.startswith(".") or entry.name in _SKIPPED


def _syntax(package: Package) -> list[Problem]:
    """Return the syntax errors of the Python files; nothing of them is run."""
    problems = []
    for name in sorted(package.files):
        if package.kind != "dash" or not name.endswith(".py"):
            continue
        try:
            ast.parse((package.root / name).read_bytes(), name)
        except SyntaxError as error:
            text = f"{error.msg}: {(error.text or '').strip()[:80]}"
            problems.append(
                Problem(f"{name}, line {error.lineno}", text, "Correct it, then run it.")
            )
        except (ValueError, RecursionError, OSError) as error:
            problems.append(Problem(name, f"it cannot be read as Python: {error}."))
    return problems
