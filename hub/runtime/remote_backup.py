"""Backups at another place: the portal's archive and people's homes, and how they come back.

What was done is noted in ``backups/last.json``, for `labhub doctor`.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import pwd
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from secrets import token_urlsafe

from hub.labfile.backup import Backup
from hub.labfile.schema import Settings
from hub.runtime import backups, home_archive
from hub.runtime.home_archive import HomeError
from hub.runtime.repository import PASSWORD, Repository, RepositoryError, Snapshot
from hub.sandbox import accounts_of
from hub.state import secrets
from hub.state.create import make_folders
from hub.state.paths import Paths
from hub.targets import Finding
from labkit.base.files import locked, write_atomic
from labkit.base.problems import Problem, ProblemsError
from labkit.base.units import format_duration

PORTAL = "portal.tar"
_HOME = re.compile(r"home-([a-z][a-z0-9_-]{0,30})\.tar")
_PIECE = 1 << 20
_PORTAL_TIMEOUT = 4 * 3600.0  # seconds
_LATE = 2 * 86400.0  # seconds after which a daily backup is missed
_LOCK_TIMEOUT = 5.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Record:
    """What the last backups at another place came to.

    Attributes
    ----------
    place : str
        The repository's address.
    tried : float
        When the last one was begun, in seconds since 1970.
    good : float
        When the last one was made of which the portal's archive was read back; 0: never.
    homes : int
        How many homes it has.
    problems : tuple of str
        What is wrong with the last one.
    """

    place: str
    tried: float
    good: float = 0.0
    homes: int = 0
    problems: tuple[str, ...] = ()


def make_repository(paths: Paths, address: str) -> Path:
    """Make a new repository; its password is made, too, where there is none yet.

    Returns
    -------
    Path
        The file with the password.

    Raises
    ------
    ProblemsError
        It is there already, or cannot be made.
    """
    make_folders(paths)
    repository = Repository(address, paths)
    if not secrets.exists(paths, PASSWORD):
        write_atomic(paths.secrets / PASSWORD, token_urlsafe(32) + "\n", mode=0o600)
    try:
        repository.make()
    except RepositoryError as error:
        raise ProblemsError([Problem(address, str(error))]) from None
    return paths.secrets / PASSWORD


def create(paths: Paths, settings: Settings, address: str, say: Say = lambda _: None) -> Record:
    """Save the portal and, where the lab file says so, all homes at another place.

    The portal's archive is read back and compared. A home that cannot be saved is named, and
    stops no other.

    Parameters
    ----------
    paths : Paths
        Where the portal keeps its state.
    settings : Settings
        The lab file.
    address : str
        The repository's.
    say : callable
        Is told what is being done.

    Raises
    ------
    ProblemsError
        The portal itself was not saved.
    LockTimeoutError
        Another backup goes on.
    """
    make_folders(paths)
    with locked(paths.run / "backup.lock", _LOCK_TIMEOUT, "the backup of this portal"):
        before = last(paths)
        record = Record(address, time.time(), good=before.good if before else 0.0)
        try:
            problems, homes = _create(paths, settings, address, say)
        except (ProblemsError, RepositoryError) as error:
            problems = getattr(error, "problems", [Problem(address, str(error), _hint(address))])
            _note(paths, replace(record, problems=_texts(problems)))
            raise ProblemsError(list(problems)) from None
        record = replace(record, good=record.tried, homes=homes, problems=_texts(problems))
        _note(paths, record)
        return record


def _create(paths: Paths, settings: Settings, address: str, say: Say) -> tuple[list[Problem], int]:
    wanted = settings.backup
    repository = Repository(address, paths)
    say("the portal")
    with tempfile.TemporaryDirectory(dir=paths.run) as scratch:
        archive = Path(scratch, "portal.tar.gz")
        problems = backups.create(paths, archive).left_out
        _save_portal(repository, archive, Path(scratch, PORTAL))
    homes = 0
    for account in _people(settings) if wanted.homes else ():
        say(f"the home of {account.pw_name}")
        pieces = home_archive.pieces(
            account, wanted.home_size, timeout=wanted.home_time.total_seconds()
        )
        try:
            repository.save(f"home-{account.pw_name}.tar", pieces, _longest(wanted))
            homes += 1
        except (HomeError, RepositoryError) as error:
            problems.append(Problem(account.pw_dir, str(error), f"look at {account.pw_dir}"))
    say("tidying up")
    try:
        repository.forget(wanted.keep_daily, wanted.keep_weekly, wanted.keep_monthly)
        repository.check()
    except RepositoryError as error:
        problems.append(Problem(address, str(error), _hint(address)))
    return problems, homes


def _save_portal(repository: Repository, archive: Path, copy: Path) -> None:
    """Save the portal's archive, read it back and compare."""
    sent = hashlib.sha256()

    def pieces() -> Iterator[bytes]:
        # Without its compression: of what has not changed since yesterday nothing is stored.
        with gzip.open(archive) as stream:
            while piece := stream.read(_PIECE):
                sent.update(piece)
                yield piece

    repository.save(PORTAL, pieces(), _PORTAL_TIMEOUT)
    with copy.open("w+b") as target:
        repository.read(_newest(repository.snapshots())[PORTAL], target, _PORTAL_TIMEOUT)
        target.seek(0)
        same = hashlib.file_digest(target, "sha256").digest() == sent.digest()
    copy.unlink()
    if not same:
        raise RepositoryError("what is read back is not what was saved")


def _people(settings: Settings) -> list[pwd.struct_passwd]:
    """Return whose homes can be read: as root everybody's, else one's own."""
    people = [pwd.getpwnam(account.name) for account in accounts_of(settings).list()]
    me = os.geteuid()
    return [one for one in people if Path(one.pw_dir).is_dir() and me in (0, one.pw_uid)]


def _longest(wanted: Backup) -> float:
    return wanted.home_time.total_seconds() + 600.0  # `home_archive` says first what is wrong


def _newest(snapshots: list[Snapshot], day: date | None = None) -> dict[str, Snapshot]:
    """Return the newest snapshot of each thing, up to the end of a day."""
    return {
        one.name: one for one in snapshots if day is None or one.time.astimezone().date() <= day
    }


# -- back again ---------------------------------------------------------------------------


def restore(paths: Paths, address: str, day: date | None = None) -> Path:
    """Put the portal back as it was saved; it must not run.

    Parameters
    ----------
    paths : Paths
        Where the portal keeps its state; its secrets have the repository's password.
    address : str
        The repository's.
    day : date, optional
        As it was at the end of this day; default: the newest.

    Returns
    -------
    Path
        Where the earlier state is kept.

    Raises
    ------
    ProblemsError
        It cannot be read, or is no good backup; nothing was changed.
    """
    make_folders(paths)
    repository = Repository(address, paths)
    try:
        snapshot = _newest(repository.snapshots(), day).get(PORTAL)
        if snapshot is None:
            text = f"no portal was saved there{f' up to {day}' if day else ''}"
            raise ProblemsError([Problem(address, text)])
        with tempfile.TemporaryDirectory(dir=paths.run) as scratch:
            plain, archive = Path(scratch, PORTAL), Path(scratch, "portal.tar.gz")
            with plain.open("wb") as target:
                repository.read(snapshot, target, _PORTAL_TIMEOUT)
            with plain.open("rb") as source, gzip.open(archive, "wb", 1) as packed:
                shutil.copyfileobj(source, packed, _PIECE)
            plain.unlink()
            return backups.restore(paths, archive)
    except RepositoryError as error:
        raise ProblemsError([Problem(address, str(error), _hint(address))]) from None


def restore_homes(
    paths: Paths, settings: Settings, address: str, names: tuple[str, ...], day: date | None = None
) -> tuple[list[Path], list[Problem]]:
    """Put homes back: into a new account's home itself, else into a new folder of the home.

    Parameters
    ----------
    paths : Paths
        Where the portal keeps its state; its secrets have the repository's password.
    settings : Settings
        The lab file.
    address : str
        The repository's.
    names : tuple of str
        Whose; empty: everybody's whose home was saved.
    day : date, optional
        As they were at the end of this day; default: the newest.

    Returns
    -------
    folders : list of Path
        Where they are now.
    problems : list of Problem
        What was not put back, and why.

    Raises
    ------
    ProblemsError
        The repository cannot be read.
    """
    repository = Repository(address, paths)
    try:
        newest = _newest(repository.snapshots(), day)
    except RepositoryError as error:
        raise ProblemsError([Problem(address, str(error), _hint(address))]) from None
    saved = {match[1]: one for name, one in newest.items() if (match := _HOME.fullmatch(name))}
    folders: list[Path] = []
    problems: list[Problem] = []
    accounts = {account.pw_name: account for account in _people(settings)}
    for name in names or sorted(saved):
        if name not in saved:
            problems.append(Problem(name, "no home of this name was saved there"))
        elif name not in accounts:
            hint = f"labhub user add {name}"
            problems.append(Problem(name, "has no account here, or its home is not there", hint))
        else:
            account = accounts[name]
            stamp = time.strftime("restored-%Y%m%d-%H%M%S")
            folder = "" if home_archive.is_new(Path(account.pw_dir)) else stamp
            limit = settings.backup.home_time.total_seconds()
            send = partial(repository.read, saved[name], timeout=limit)
            try:
                home_archive.put_back(account, send, folder, limit)
                folders.append(Path(account.pw_dir, folder))
            except (HomeError, RepositoryError) as error:
                problems.append(Problem(account.pw_dir, str(error), f"look at {account.pw_dir}"))
    return folders, problems


# -- what is known of the last one --------------------------------------------------------


def last(paths: Paths) -> Record | None:
    """Return what the last backup at another place came to; None: there was none."""
    try:
        fields = json.loads(_record(paths).read_text())
        return Record(**{**fields, "problems": tuple(fields["problems"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def finding(settings: Settings, paths: Paths) -> Finding:
    """Say when the last backup at another place was made, and whether it could be read back."""
    address, record = settings.backup.to, last(paths)
    if address is None:
        detail = "none at another place: backup.to in the lab file"
        return Finding("backups", detail)
    first = f"labhub backup; the first time: labhub backup --new --to {address}"
    if record is None or record.place != address or not record.good:
        failed = record.problems if record and record.place == address else ()
        text = f"none was made at {address}{': ' if failed else ''}{'; '.join(failed)}"
        return Finding("backups", "none", (Problem("backup.to", text, first),))
    age = max(0.0, time.time() - record.good)
    made = datetime.fromtimestamp(record.good, UTC).astimezone()
    detail = f"{made:%Y-%m-%d %H:%M}, read back, {record.homes} homes, at {address}"
    problems = [Problem("backup", text) for text in record.problems]
    if age > _LATE:
        text = f"the last good one is {format_duration(age)} old"
        problems.append(Problem("backup", text, "labhub systemd timer, or a line for cron"))
    return Finding("backups", detail, tuple(problems))


def _record(paths: Paths) -> Path:
    return paths.backups / "last.json"


def _note(paths: Paths, record: Record) -> None:
    write_atomic(_record(paths), json.dumps(record.__dict__, indent=1) + "\n", mode=0o600)


def _texts(problems: list[Problem]) -> tuple[str, ...]:
    return tuple(f"{problem.where}: {problem.text}" for problem in problems)


def _hint(address: str) -> str:
    return f"the first time: labhub backup --new --to {address}"
