"""The user's list of runs: an SQLite file that can be lost, for the run folders are the truth."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from labkit.base.problems import LabkitError
from labkit.jobs.runs.store import Run
from labkit.jobs.worker.folder import MANIFEST
from labkit.viewers.paths import state_folder

_WAIT = 10.0  # seconds for another to let go of it
_STALE = 60.0  # seconds after which whoever held it is dead: it is held for milliseconds
_SELECT = "SELECT path, created FROM runs"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    path TEXT PRIMARY KEY,
    key TEXT NOT NULL,
    name TEXT NOT NULL,
    created TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS runs_by_time ON runs (created);
"""


def default_root() -> Path:
    """Return where run folders are made by default: ``$LABKIT_RUNS`` or ``~/labkit-runs``."""
    return Path(os.environ.get("LABKIT_RUNS") or Path.home() / "labkit-runs").expanduser()


class Index:
    """The list of runs.

    Parameters
    ----------
    path : Path
        The SQLite file; default: in the user's state folder.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or state_folder("jobs") / "index.sqlite"

    def add(self, run: Run) -> None:
        """Remember a run."""
        manifest = run.manifest
        row = (str(run.path), manifest.key, manifest.name, manifest.created)
        with self._open() as database:
            database.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?)", row)

    def forget(self, run: Run) -> None:
        """Forget a run; its folder stays."""
        with self._open() as database:
            database.execute("DELETE FROM runs WHERE path = ?", (str(run.path),))

    def runs(self) -> list[Run]:
        """Return the runs whose folders are there, the newest first.

        What lies in the default place is found even where the file was lost.
        """
        known = {Path(path): created for path, created in self._rows()}
        for run in scan([default_root()]):
            if run.path not in known:
                known[run.path] = self._found(run)
        there = [path for path in known if is_run(path)]
        return [Run(path) for path in sorted(there, key=lambda path: known[path], reverse=True)]

    def _rows(self) -> list[tuple[str, str]]:
        """Return what is listed; nothing where that cannot be read: it is only an index."""
        with suppress(sqlite3.Error, OSError), self._open() as database:
            return database.execute(_SELECT).fetchall()
        with suppress(sqlite3.Error, OSError):  # its disk is full, or can only be read
            address = f"file:{quote(str(self.path))}?immutable=1"
            with closing(sqlite3.connect(address, uri=True)) as database:
                return database.execute(_SELECT).fetchall()
        return []

    def rebuild(self, roots: Iterable[Path] = ()) -> int:
        """Write the list anew from the folders below these places and the default one.

        Returns
        -------
        int
            Number of runs found.
        """
        known = [path.parent for path in map(_path, self.runs())]
        self.path.unlink(missing_ok=True)
        found = {run.path: run for run in scan([default_root(), *known, *roots])}
        for run in found.values():
            self._found(run)
        return len(found)

    def _found(self, run: Run) -> str:
        """Add a run that was found, and return when it was made; nothing where it is unreadable."""
        try:
            created = run.manifest.created
        except (LabkitError, ValueError, KeyError):
            return ""
        with suppress(sqlite3.Error, OSError):  # listed all the same
            self.add(run)
        return created

    def find(self, name: str) -> Run:
        """Return the run of this name, start of a name or key, or path.

        Raises
        ------
        LabkitError
            There is none, or more than one.
        """
        path = Path(name).expanduser()
        if is_run(path):
            return Run(path)
        runs = self.runs()
        found = [run for run in runs if run.path.name == name]
        if not found:
            short = name.removeprefix("sha256:")
            found = [
                run
                for run in runs
                if run.path.name.startswith(name)
                or (len(short) >= 4 and run.path.name.rpartition("-")[2].startswith(short[:12]))
            ]
        if len(found) == 1:
            return found[0]
        if found:
            alike = len({run.path.name for run in found}) < len(found)
            names = "\n".join(f"  {run.path if alike else run.path.name}" for run in found[:10])
            more = "Give its path." if alike else "Give more of the name."
            raise LabkitError(f"{name!r} may be any of\n{names}\n{more}")
        raise LabkitError(f"There is no run {name!r}. `labkit jobs` lists them.")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            database = self._connect()
        except sqlite3.OperationalError:  # a full disk, one that can only be read: it is well
            raise
        except sqlite3.DatabaseError:  # broken: it is only an index
            self.path.unlink(missing_ok=True)
            database = self._connect()
        with closing(database), database:
            yield database

    def _connect(self) -> sqlite3.Connection:
        # Its lock is a folder: the kernel's locks can hang for ever on a home that machines share.
        lock = self.path.with_name(f"{self.path.name}.lock")
        with suppress(OSError):
            if time.time() - lock.stat().st_mtime > _STALE:
                lock.rmdir()
        address = f"{self.path.absolute().as_uri()}?vfs=unix-dotfile"
        database = sqlite3.connect(address, uri=True, timeout=_WAIT)
        try:
            database.executescript(_SCHEMA)
        except sqlite3.DatabaseError:
            database.close()
            raise
        return database


def is_run(path: Path) -> bool:
    """Return whether a folder is a run folder, readable now or not."""
    try:
        return (path / MANIFEST).exists()
    except OSError:  # no permission, a disk that is away: one folder must not hide the others
        return True


def scan(roots: Iterable[Path]) -> Iterator[Run]:
    """Return the run folders right below some places."""
    for root in dict.fromkeys(roots):
        if not root.is_dir():
            continue
        for entry in os.scandir(root):
            if not entry.name.startswith(".") and is_run(Path(entry.path)):
                yield Run(Path(entry.path))


def _path(run: Run) -> Path:
    return run.path
