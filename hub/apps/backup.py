"""What apps have stored, for backups.

An app's folder is the app's own: it may hold links to anything. So it is read by a process of
the app's account, which can read no more than the app itself, and never by root.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sqlite3
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, NoReturn, cast

from hub.apps import catalogue, member_records, member_service
from hub.apps.app_paths import AppPaths
from hub.apps.declaration import FILE, Service, name_problem
from hub.labfile.read import read_as
from hub.state import sparse_tar
from hub.state.paths import Paths
from labkit.base.problems import Problem, ProblemsError
from labkit.base.remove import remove_tree
from labkit.base.units import format_duration, format_size
from labkit.base.walk import DEEPEST, TooDeepError, walk

FOLDER = "appdata"  # in the archive, as in the state folder
_SCRATCH = ".labhub-backup-"
_GRACE = 3.0  # seconds in which it may say itself what takes so long
_PAGES = 4096  # of a database between two looks at the clock
_PAGE = 512  # bytes, at least
_DEEPEST = DEEPEST - 100  # folders: `put_back` walks from above them
_SQLITE = b"SQLite format 3\0"  # https://www.sqlite.org/fileformat.html


@dataclass(frozen=True)
class Limits:
    """What one app may take of a backup.

    Attributes
    ----------
    size : int
        Bytes; holes in its files do not count.
    time : float
        Seconds.
    """

    size: int = 64 << 30
    time: float = 1800.0


class _TooMuchError(Exception):
    """The app is over one of its limits; the text says which, for people."""


def apps(paths: Paths) -> Iterator[str]:
    """Yield the apps that have stored something, also those that are off."""
    app_paths = AppPaths(paths)
    for name in (*(name for name, _, _ in catalogue.folders(paths)), *member_records.read(paths)):
        if app_paths.data(name).is_dir():
            yield name


def stored_for(paths: Paths, name: str) -> tuple[str, ...]:
    """Return which files and folders of an app's data a backup has.

    Raises
    ------
    ProblemsError
        The app's declaration is wrong: nobody knows what to save.
    """
    for known, folder, _ in catalogue.folders(paths):
        if known == name:
            return read_as(Service, folder / FILE, f"{name}/{FILE}").backup
    return (member_service.KEPT,)


def save(paths: Paths, name: str, archive: tarfile.TarFile, limits: Limits) -> None:
    """Put what an app has stored into a backup, also while it runs.

    Databases of SQLite are copied as of one moment, and before the files that they speak of.
    Nothing of the app is in the archive where it fails.

    Parameters
    ----------
    paths : Paths
        Where the portal keeps its state.
    name : str
        The app.
    archive : TarFile
        The backup.
    limits : Limits
        What it may take; an app that goes on for ever is no end of a backup.

    Raises
    ------
    ProblemsError
        It cannot be read, or takes too much.
    """
    names = stored_for(paths, name)
    if not names:
        return
    data = AppPaths(paths).data(name)
    with tempfile.TemporaryFile(dir=paths.run) as stream:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _become_app_and_collect(data, names, limits, stream, writing)
        os.close(writing)
        with os.fdopen(reading, "rb") as said:
            in_time = _ended(child, limits.time + _GRACE)
            reason = said.read(4096).decode("utf-8", "replace") if in_time else ""
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if not in_time:
            reason = f"has not let itself be copied within {format_duration(limits.time)}"
        if status or reason:
            reason = reason or "has stored what cannot be copied; the reason is above"
            raise ProblemsError([Problem(name, reason, f"look at {data} and its disk")])
        stream.seek(0)
        with tarfile.open(fileobj=stream, mode="r:") as packed:
            members = list(packed)
            for member in members:
                member.name = f"{FOLDER}/{name}/{member.name}"
                if not is_ours(member.name) or not member.isreg():
                    raise ProblemsError([Problem(name, f"has stored {member.name!r}, no file")])
            for member in members:
                member.mode = 0o600
                sparse_tar.copy(packed, member, archive)


def _ended(child: int, timeout: float) -> bool:
    """Wait for a process; returns whether it has ended by itself in time."""
    handle = os.pidfd_open(child)
    try:
        if select.select([handle], [], [], timeout)[0]:
            return True
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        return False
    finally:
        os.close(handle)


def _become_app_and_collect(
    data: Path, names: tuple[str, ...], limits: Limits, stream: IO[bytes], said: int
) -> NoReturn:
    """Collect what an app has stored, as its account; ends this copy of the process."""
    status = 1
    try:
        owner = data.stat()
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(owner.st_gid)
            os.setuid(owner.st_uid)
        os.chdir(data)
        with tarfile.open(fileobj=stream, mode="w", dereference=True) as out:
            _Collection(out, limits).collect(names)
        stream.flush()
        status = 0
    except (_TooMuchError, TooDeepError) as error:
        os.write(said, str(error).encode())
    except OSError as error:
        shown = f"{error.filename or data}: {error.strerror or error}"
        os.write(said, f"has stored what cannot be copied: {shown}".encode())
    except BaseException:  # a copy of this process must end here
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


class _Collection:
    """The files of the current folder; links and what is no file are left out."""

    def __init__(self, out: tarfile.TarFile, limits: Limits) -> None:
        self._out = out
        self._limits = limits
        self._end = time.monotonic() + limits.time
        self._left = limits.size

    def collect(self, names: tuple[str, ...]) -> None:
        for left_behind in Path().glob(f"{_SCRATCH}*"):  # by one that was killed
            remove_tree(left_behind)
        files = sorted({file for name in names for file in _files(Path(name))})
        databases = [file for file in files if _is_database(file)]
        scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir="."))
        try:
            for file in databases:
                copy = scratch / "copy"
                self._copy_database(file, copy)
                self._add(copy, file)
                copy.unlink()
            for file in files:
                if file not in databases:
                    with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                        self._add(file, file)
        finally:
            remove_tree(scratch)

    def _copy_database(self, file: Path, copy: Path) -> None:
        def look(_: int, left: int, pages: int) -> None:
            if time.monotonic() > self._end:
                raise _TooMuchError(f"keeps its database {file} to itself, and it is not copied")
            if pages and (pages - left) * _PAGE > self._left:
                raise self._too_much()

        with (
            closing(sqlite3.connect(file, timeout=0)) as live,
            closing(sqlite3.connect(copy)) as other,
        ):
            live.backup(other, pages=_PAGES, progress=look, sleep=0.1)

    def _add(self, source: Path, file: Path) -> None:
        with source.open("rb") as stream:
            where = sparse_tar.pieces(stream)
            self._left -= sum(length for _, length in where)
            if self._left < 0:
                raise self._too_much()
            info = self._out.gettarinfo(arcname=str(file), fileobj=stream)
            info.type, info.linkname = tarfile.REGTYPE, ""
            sparse_tar.add(self._out, info, cast(IO[bytes], sparse_tar.Data(stream, where)), where)

    def _too_much(self) -> _TooMuchError:
        return _TooMuchError(f"has stored more than {format_size(self._limits.size)}")


def _files(place: Path) -> Iterator[Path]:
    if place.is_symlink():
        return
    if place.is_file():
        yield place
    for entry in walk(place, deepest=_DEEPEST):
        if entry.is_file:
            yield place / entry.path


def _is_database(file: Path) -> bool:
    with contextlib.suppress(FileNotFoundError), file.open("rb") as stream:
        return stream.read(len(_SQLITE)) == _SQLITE
    return False


def is_ours(name: str) -> bool:
    """Return whether a name is one that `save` gives to a file in the archive."""
    parts = PurePosixPath(name).parts
    return (
        2 < len(parts) < DEEPEST
        and parts[0] == FOLDER
        and not name_problem(parts[1])
        and not {"..", "."} & set(parts)
    )


def databases(folder: Path) -> Iterator[Path]:
    """Yield the databases of apps in an unpacked backup."""
    for file in _files(folder / FOLDER):
        if _is_database(file):
            yield file


def put_back(paths: Paths, fresh: Path, aside: Path) -> None:
    """Give apps what they had stored.

    Parameters
    ----------
    paths : Paths
        Where the portal keeps its state; nothing of it runs.
    fresh : Path
        The unpacked backup, in a folder that only the portal's owner can enter.
    aside : Path
        Where what is there now is moved. Apps that are not in the backup keep what they have.
    """
    app_paths = AppPaths(paths)
    for folder in sorted((fresh / FOLDER).glob("*")):
        data = app_paths.data(folder.name)
        if data.exists():
            (aside / FOLDER).mkdir(mode=0o700, exist_ok=True)
            data.rename(aside / FOLDER / folder.name)
        owner = app_paths.make_app(folder.name)
        for entry in walk(folder):
            if os.geteuid() == 0:
                os.chown(folder / entry.path, owner.pw_uid, owner.pw_gid)
        for path in folder.iterdir():
            path.rename(data / path.name)
