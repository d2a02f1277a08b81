"""Hold the user's server: it is not stopped for idleness while something is held.

    with labkit.base.activity.hold("aligning 96 samples"):
        ...

A hold is a small file in the user's own folder. It ends with the ``with`` block, and at the
latest with the process.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from labkit.base import files

_CLOCK_DRIFT = 5.0  # seconds: a process' time of creation follows the machine's clock
_TEXT = 200
_FILE_BYTES = 4096
_FILES = 1000
_STALE = 30 * 86400.0


@dataclass(frozen=True)
class Hold:
    """Something that must not be interrupted.

    Attributes
    ----------
    reason : str
        What the user is shown.
    since : float
        Seconds since 1970.
    pid, created : int, float
        The process that holds, and its time of creation: together they name it.
    place : str
        Machine and process space; homes are shared, process ids are not.
    """

    reason: str
    since: float
    pid: int
    created: float
    place: str


def folder() -> Path:
    """Return the folder of this user's labkit data (``$XDG_DATA_HOME/labkit``, 0700)."""
    base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    path = base / "labkit"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def hold(reason: str) -> Iterator[Hold]:
    """Keep the user's server running for the length of a ``with`` block.

    Parameters
    ----------
    reason : str
        What is going on; the user sees it on the page "My server".

    Raises
    ------
    ValueError
        There is no reason.

    Examples
    --------
    >>> with hold("copying the plate"):  # doctest: +SKIP
    ...     copy()
    """
    text = " ".join(str(reason).split())[:_TEXT]
    if not text:
        raise ValueError(
            "labkit.base.activity.hold: say what is going on, e.g. hold('copying the plate')"
        )
    held = Hold(text, time.time(), os.getpid(), psutil.Process().create_time(), _place())
    path: Path | None = None
    try:
        path = _write(held)
    except OSError as error:  # a full disk must not stop the work itself
        print(f"labkit: this work cannot hold the server: {error}", file=sys.stderr)
    try:
        yield held
    finally:
        # A forked child that leaves the block must not end its parent's hold.
        if path is not None and os.getpid() == held.pid:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def holds() -> list[Hold]:
    """Return what holds this server now, oldest first; what has ended is cleared away."""
    active = []
    now = time.time()
    for path in _files():
        held = _read(path)
        if held is None:
            _forget(path, now)
        elif held.place != _place():
            if now - held.since > _STALE:
                _forget(path, now)
        elif _lives(held):
            active.append(held)
        else:
            _forget(path, now)
    return sorted(active, key=lambda held: held.since)


def _files() -> list[Path]:
    try:
        return sorted((folder() / "busy").glob("*.json"))[:_FILES]
    except OSError:
        return []


def _write(held: Hold) -> Path:
    place = folder() / "busy"
    place.mkdir(mode=0o700, exist_ok=True)
    path = place / f"{held.pid}-{secrets.token_hex(4)}.json"
    files.write_atomic(path, json.dumps(asdict(held)), mode=0o600)
    return path


def _read(path: Path) -> Hold | None:
    try:
        with path.open("rb") as stream:
            fields = json.loads(stream.read(_FILE_BYTES))
        return Hold(
            reason=str(fields["reason"])[:_TEXT],
            since=float(fields["since"]),
            pid=int(fields["pid"]),
            created=float(fields["created"]),
            place=str(fields["place"]),
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _lives(held: Hold) -> bool:
    try:
        process = psutil.Process(held.pid)
        return (
            abs(process.create_time() - held.created) < _CLOCK_DRIFT
            and process.status() != psutil.STATUS_ZOMBIE
        )
    except (psutil.Error, ValueError, OverflowError):
        return False


def _forget(path: Path, now: float) -> None:
    with contextlib.suppress(OSError):
        # Not one that is being written by another version at this moment.
        if now - path.lstat().st_mtime > 1:
            path.unlink()


def _place() -> str:
    try:
        space = str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:  # no Linux
        space = ""
    return f"{socket.gethostname()}:{space}"
