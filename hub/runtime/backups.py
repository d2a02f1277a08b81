"""Backups: the hub's database, the secrets, the lab file and the lab's own apps in one archive.

Of what apps have stored there is in it what their service.yaml names. Homes, Unix accounts,
environments and logs are not.
"""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from hub.apps import backup
from hub.labfile import read
from hub.state import database_copy, sparse_tar
from hub.state.create import make_folders
from hub.state.database import HubDatabase
from hub.state.paths import Paths
from labkit.base.files import put_in_place, sync_path, temporary_beside
from labkit.base.problems import Problem, ProblemsError
from labkit.base.walk import DEEPEST, walk

MANIFEST = "labhub-backup.json"
FORMAT = 1
_FOLDERS = ("secrets", "config.d")
_APPS = ("services", "webapps")  # the lab's and the members', with whatever is in them
_DATABASE = "jupyterhub.sqlite"  # in the archive, wherever the hub keeps it
_FILES = ("lab.yaml", "services.yaml")
_NOT_KEPT = {"secrets/login_link.json"}  # works once, for a day
_LARGEST = 4 << 30  # bytes of one file
_LARGEST_OF_APPS = 1 << 44  # with its holes


@dataclass(frozen=True)
class Backup:
    """A backup that was made.

    Attributes
    ----------
    file : Path
        The archive, mode 0600: the secrets are in it.
    left_out : list of Problem
        The apps of which nothing is in it, and why.
    """

    file: Path
    left_out: list[Problem]


def create(paths: Paths, target: Path | None = None, limits: backup.Limits | None = None) -> Backup:
    """Write a backup, also while the portal runs.

    It has its name only once it is complete. An app that cannot be copied is left out, and named.

    Parameters
    ----------
    paths : Paths
        Where the portal keeps its state.
    target : Path, optional
        The file, which must not be there; default: a new one in ``backups/``.
    limits : Limits, optional
        What each app may take; default: as the lab file says.

    Raises
    ------
    ProblemsError
        There is nothing to save, the file cannot be written, or the database's server does not
        answer.
    """
    if not paths.lab_file.exists():
        hint = "start it once: labhub up"
        raise ProblemsError([Problem(str(paths.state), "this portal has never run", hint)])
    make_folders(paths)
    _tidy(paths.backups)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    target = (target or paths.backups / f"labhub-{stamp}.tar.gz").absolute()
    try:
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        with temporary_beside(target) as unfinished:
            handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as stream:
                left_out = _write(paths, stream, limits or _limits(paths))
            sync_path(unfinished)
            if not put_in_place(unfinished, target, exclusive=True):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    except OSError as error:
        text = f"cannot be written: {error.strerror}"
        raise ProblemsError([Problem(str(target), text, "name another file")]) from None
    return Backup(target, left_out)


def _tidy(folder: Path) -> None:
    """Remove what a backup that was killed has left."""
    for unfinished in folder.glob(".labhub-*.tar.gz.*.*"):
        maker = unfinished.name.split(".")[-2]
        if not Path("/proc", maker).exists():
            unfinished.unlink(missing_ok=True)


def _limits(paths: Paths) -> backup.Limits:
    try:
        said = read.read(paths.lab_file).backup
    except ProblemsError:  # a backup is most needed where something is wrong
        return backup.Limits()
    return backup.Limits(said.app_size, said.app_time.total_seconds())


def _write(paths: Paths, stream: IO[bytes], limits: backup.Limits) -> list[Problem]:
    """Write the archive; returns the apps that are not in it, and why."""
    left_out: list[Problem] = []
    with (
        tarfile.open(fileobj=stream, mode="w:gz") as archive,
        tempfile.TemporaryDirectory(dir=paths.run) as scratch,
    ):
        manifest = Path(scratch, MANIFEST)
        made = {"format": FORMAT, "made": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        manifest.write_text(json.dumps(made))
        archive.add(manifest, MANIFEST, filter=_anonymous)
        for name in _names(paths):
            source = os.path.realpath(paths.state / name)
            archive.add(source, name, recursive=False, filter=_anonymous)
        database = HubDatabase.in_force(paths)
        if database.exists():
            copy = Path(scratch, _DATABASE)
            database_copy.save(database, copy)
            archive.add(copy, _DATABASE, filter=_anonymous)
        for name in backup.apps(paths):
            try:
                backup.save(paths, name, archive, limits)
            except ProblemsError as error:
                left_out += error.problems
    return left_out


def restore(paths: Paths, source: Path) -> Path:
    """Put a backup back; the portal must not run.

    Everything is read and checked before anything is changed. What was there is moved into
    ``backups/before-restore-...``.

    Returns
    -------
    Path
        Where the earlier state is kept.

    Raises
    ------
    ProblemsError
        The archive is damaged, hostile or not one of ours; nothing was changed.
    """
    make_folders(paths)
    with tempfile.TemporaryDirectory(dir=paths.run) as scratch:
        fresh = Path(scratch)
        _unpack(source, fresh)
        _check(source, fresh)
        aside = paths.backups / time.strftime("before-restore-%Y%m%d-%H%M%S")
        aside.mkdir(mode=0o700)
        _put_database_back(fresh, paths, aside)
        for name in (*_FILES, *_FOLDERS, *_APPS):
            old, new = paths.state / name, fresh / name
            if old.exists() or old.is_symlink():
                old.rename(aside / name)
            if new.exists():
                new.rename(old)
        backup.put_back(paths, fresh, aside)
    make_folders(paths)
    return aside


def _put_database_back(fresh: Path, paths: Paths, aside: Path) -> None:
    """Replace the database that the restored lab file names; what was there goes aside."""
    copy = fresh / _DATABASE
    settings = read.read(fresh / "lab.yaml")
    database = HubDatabase.of(settings, Paths(fresh, paths.envs))
    if not database.password:  # none is in the backup
        database = HubDatabase.of(settings, paths)
    if database.file is None:
        if copy.is_file():
            if database.exists():
                database_copy.save(database, aside / _DATABASE)
            database_copy.load(copy, database)
        return
    file = database.file
    if file.exists() and file not in (paths.database, HubDatabase.in_force(paths).file):
        text = f"its lab file names the database {file}, which is there and not this portal's"
        raise ProblemsError([Problem("the backup", text, "move that file away first")])
    for end in ("", "-wal", "-shm"):
        old = Path(f"{file}{end}")
        if old.exists():
            shutil.move(old, aside / f"{_DATABASE}{end}")
    if copy.is_file():
        shutil.move(copy, file)
        file.chmod(0o600)


def _names(paths: Paths) -> Iterator[str]:
    for name in _FILES:
        if (paths.state / name).is_file():
            yield name
    for folder in _FOLDERS:
        for file in sorted((paths.state / folder).glob("*")):
            name = f"{folder}/{file.name}"
            if file.is_file() and name not in _NOT_KEPT:
                yield name
    for folder in _APPS:
        for entry in walk(paths.state / folder):
            if entry.is_file and not entry.path.startswith("."):  # that one is half done
                yield f"{folder}/{entry.path}"


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o700 if member.mode & 0o100 else 0o600
    return member


def _unpack(source: Path, target: Path) -> None:
    """Unpack plain files of known names; a link, a device or a way out refuses the archive."""
    try:
        with gzip.open(source) as packed, tarfile.open(fileobj=packed, mode="r:") as archive:
            for member in archive:
                if not _is_ours(member):
                    text = f"holds {member.name!r}, which no backup of a portal does"
                    hint = "do not use this file; nothing was changed"
                    raise ProblemsError([Problem(str(source), text, hint)])
                place = target / member.name
                place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                mode = 0o700 if member.mode & 0o100 else 0o600
                handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
                with os.fdopen(handle, "wb") as stream:
                    sparse_tar.extract(archive, member, stream)
            while packed.read(1 << 20):  # to the end, where the checksum is
                pass
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        text = f"cannot be read as a backup: {reason}"
        raise ProblemsError([Problem(str(source), text, "nothing was changed")]) from None


def _is_ours(member: tarfile.TarInfo) -> bool:
    parts = PurePosixPath(member.name).parts
    known = member.name in (MANIFEST, _DATABASE, *_FILES) or (
        len(parts) == 2 and parts[0] in _FOLDERS and parts[1] not in ("..", ".")
    )
    of_apps = 2 < len(parts) < DEEPEST and parts[0] in _APPS and not {"..", "."} & set(parts)
    known = known or of_apps
    plain = member.isreg() and "\0" not in member.name and "//" not in member.name
    largest = _LARGEST
    if backup.is_ours(member.name):
        known, largest = True, _LARGEST_OF_APPS
    return known and plain and member.size <= largest and member.name not in _NOT_KEPT


def _check(source: Path, fresh: Path) -> None:
    """Look into an unpacked backup before it replaces anything."""
    problems = []
    place = str(source)
    try:
        manifest = json.loads((fresh / MANIFEST).read_text())
        if manifest["format"] != FORMAT:
            problems.append(Problem(place, "was written by another version of Labhub"))
    except (OSError, ValueError, KeyError, TypeError):
        problems.append(Problem(place, "is not a backup of a portal: it has no manifest"))
    if not (fresh / "lab.yaml").is_file():
        problems.append(Problem(place, "has no lab file"))
    else:
        try:
            read.read(fresh / "lab.yaml")
        except ProblemsError as error:
            problems += [Problem(f"{place}, {p.where}", p.text, p.hint) for p in error.problems]
    hubs = fresh / _DATABASE
    for file in (*((hubs,) if hubs.is_file() else ()), *backup.databases(fresh)):
        with closing(sqlite3.connect(file)) as db:
            try:
                state = db.execute("PRAGMA integrity_check").fetchone()[0]
            except sqlite3.DatabaseError as error:
                state = str(error)
        if state != "ok":
            which = "its database" if file == hubs else f"the database {file.relative_to(fresh)}"
            problems.append(Problem(place, f"{which} is damaged: {state}"))
    if problems:
        raise ProblemsError(problems)
