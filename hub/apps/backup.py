"""What apps have stored, for backups.

An app's folder is the app's own: it may hold links to anything. So it is read by a process of
the app's account, which can read no more than the app itself, and never by root.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import tarfile
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath

from hub.apps import catalogue, member_records, member_service
from hub.apps.app_paths import AppPaths
from hub.apps.declaration import FILE, Service, name_problem
from hub.labfile.read import read_as
from hub.state.paths import Paths
from labkit.base.problems import Problem, ProblemsError
from labkit.base.remove import remove_tree

FOLDER = "appdata"  # in the archive, as in the state folder
_SQLITE = b"SQLite format 3\0"  # https://www.sqlite.org/fileformat.html


def apps(paths: Paths) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the apps that have stored something to keep, also those that are off, and what.

    Raises
    ------
    ProblemsError
        An app's declaration is wrong: nobody knows what to keep.
    """
    app_paths = AppPaths(paths)
    for name, folder, _ in catalogue.folders(paths):
        if app_paths.data(name).is_dir():
            service = read_as(Service, folder / FILE, f"{name}/{FILE}")
            if service.backup:
                yield name, service.backup
    for name in member_records.read(paths):
        if app_paths.data(name).is_dir():
            yield name, (member_service.KEPT,)


def save(paths: Paths, name: str, kept: tuple[str, ...], archive: tarfile.TarFile) -> None:
    """Put what an app has stored into a backup, also while it runs.

    Parameters
    ----------
    paths : Paths
        Where the portal keeps its state.
    name : str
        The app.
    kept : tuple of str
        Files and folders of its data. Databases of SQLite are copied as of one moment, and before
        the files that they speak of.
    archive : TarFile
        The backup.

    Raises
    ------
    ProblemsError
        It cannot be read.
    """
    data = AppPaths(paths).data(name)
    owner = data.stat()
    with tempfile.TemporaryFile(dir=paths.run) as stream:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                if os.geteuid() == 0:
                    os.setgroups([])
                    os.setgid(owner.st_gid)
                    os.setuid(owner.st_uid)
                os.chdir(data)
                with tarfile.open(fileobj=stream, mode="w", dereference=True) as out:
                    _collect(kept, out)
                stream.flush()
                status = 0
            except BaseException:  # a copy of this process must end here
                traceback.print_exc()
            finally:
                os._exit(status)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            text = "what it has stored cannot be copied; the reason is above"
            raise ProblemsError([Problem(name, text, f"look at {data} and its disk")])
        stream.seek(0)
        with tarfile.open(fileobj=stream, mode="r:") as packed:
            for member in packed:
                member.name = f"{FOLDER}/{name}/{member.name}"
                if not is_ours(member.name) or not member.isreg():
                    raise ProblemsError([Problem(name, f"has stored {member.name!r}, no file")])
                member.uid = member.gid = 0
                member.uname = member.gname = ""
                member.mode = 0o600
                archive.addfile(member, packed.extractfile(member))


def _collect(kept: tuple[str, ...], out: tarfile.TarFile) -> None:
    """Write the files of the current folder; links and what is no file are left out."""
    files = sorted({file for name in kept for file in _files(Path(name))})
    databases = [file for file in files if _is_database(file)]
    scratch = Path(tempfile.mkdtemp(prefix=".labhub-backup-", dir="."))
    try:
        for file in databases:
            copy = scratch / "copy"
            with closing(sqlite3.connect(file)) as live, closing(sqlite3.connect(copy)) as other:
                live.backup(other)
            out.add(copy, str(file))
            copy.unlink()
        for file in files:
            if file not in databases:
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    out.add(file)
    finally:
        remove_tree(scratch)


def _files(place: Path) -> Iterator[Path]:
    if place.is_symlink():
        return
    if place.is_file():
        yield place
    for folder, _, names in os.walk(place):  # goes into no link
        for name in names:
            path = Path(folder, name)
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISREG(path.lstat().st_mode):
                    yield path


def _is_database(file: Path) -> bool:
    with contextlib.suppress(FileNotFoundError), file.open("rb") as stream:
        return stream.read(len(_SQLITE)) == _SQLITE
    return False


def is_ours(name: str) -> bool:
    """Return whether a name is one that `save` gives to a file in the archive."""
    parts = PurePosixPath(name).parts
    return (
        len(parts) > 2
        and parts[0] == FOLDER
        and not name_problem(parts[1])
        and not {"..", "."} & set(parts)
    )


def databases(folder: Path) -> Iterator[Path]:
    """Yield the databases of apps in an unpacked backup."""
    for file in sorted((folder / FOLDER).rglob("*")):
        if file.is_file() and _is_database(file):
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
        for path in folder.rglob("*"):
            if os.geteuid() == 0:
                os.chown(path, owner.pw_uid, owner.pw_gid)
        for path in folder.iterdir():
            path.rename(data / path.name)
