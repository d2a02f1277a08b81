"""Backups at another place: a repository of restic, which encrypts, and keeps equal pieces once.

https://restic.readthedocs.io
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import IO

from hub.state import secrets
from hub.state.paths import Paths
from labkit.base.problems import Problem, ProblemsError

PASSWORD = "backup_password"  # noqa: S105 - the secret's name
VARIABLES = "backup_env"  # what a storage asks for, such as AWS_ACCESS_KEY_ID; NAME=VALUE lines
TAG = "labhub"
TIMEOUT = 900.0  # seconds for what moves no data
_TAIL = 2000  # bytes of what it said
_LINE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")


class RepositoryError(Exception):
    """The repository does not do what it should; the text is for people."""


@dataclass(frozen=True)
class Snapshot:
    """One thing that was saved.

    Attributes
    ----------
    id : str
        The repository's name for it.
    name : str
        What it is: ``portal.tar``.
    time : datetime
        When it was saved.
    """

    id: str
    name: str
    time: datetime


class Repository:
    """A repository of restic.

    Parameters
    ----------
    address : str
        As restic writes it; see `hub.labfile.backup`.
    paths : Paths
        Where the portal keeps its state: the repository's password is one of its secrets.

    Raises
    ------
    ProblemsError
        restic is missing.
    """

    def __init__(self, address: str, paths: Paths) -> None:
        self.address = address
        self._paths = paths
        if shutil.which("restic") is None:
            hint = "apt-get install restic"
            raise ProblemsError([Problem("restic", "is not installed; it makes backups", hint)])

    def make(self) -> None:
        """Make a new repository at this address.

        Raises
        ------
        ProblemsError, RepositoryError
            The password cannot be read; there is one already, or it cannot be made.
        """
        self._run(["init", "--quiet"])

    def save(self, name: str, pieces: Iterable[bytes], timeout: float) -> None:
        """Save a stream of bytes; nothing is kept where it breaks off.

        Parameters
        ----------
        name : str
            What it is.
        pieces : iterable of bytes
            The stream; an error of its own ends all and is raised again.
        timeout : float
            Seconds.

        Raises
        ------
        ProblemsError, RepositoryError
            The password cannot be read; it was not taken, or not in time.
        """
        words = ["backup", "--quiet", "--stdin", "--stdin-filename", name, "--tag", TAG]
        with tempfile.TemporaryFile() as said, self._watched(timeout) as watch:
            process = watch(words, stdin=subprocess.PIPE, stdout=said, stderr=said)
            if process.stdin is None:
                raise RuntimeError("restic was started without a pipe")
            try:
                with contextlib.suppress(BrokenPipeError):  # it says why
                    for piece in pieces:
                        process.stdin.write(piece)
                    process.stdin.close()
            except BaseException:
                _interrupt(process)  # before the end of its input: that would be a snapshot
                raise
            self._ended(process, said, f"save {name}")

    def read(self, snapshot: Snapshot, target: IO[bytes] | int, timeout: float) -> None:
        """Write what was saved to a file or pipe.

        Raises
        ------
        ProblemsError, RepositoryError
            The password cannot be read; what was saved cannot, or not in time.
        """
        words = ["dump", "--quiet", snapshot.id, f"/{snapshot.name}"]
        with tempfile.TemporaryFile() as said, self._watched(timeout) as watch:
            process = watch(words, stdin=subprocess.DEVNULL, stdout=target, stderr=said)
            self._ended(process, said, f"read {snapshot.name}")

    def snapshots(self) -> list[Snapshot]:
        """Return what Labhub has saved there, the newest last.

        Raises
        ------
        ProblemsError, RepositoryError
            The password cannot be read; the repository cannot.
        """
        rows = json.loads(self._run(["snapshots", "--json", "--tag", TAG])) or []
        made = [
            Snapshot(row["id"], row["paths"][0].lstrip("/"), _time(row["time"])) for row in rows
        ]
        return sorted(made, key=lambda one: one.time)

    def forget(self, daily: int, weekly: int, monthly: int) -> None:
        """Remove what is older than what is to be kept of each thing.

        Raises
        ------
        ProblemsError, RepositoryError
            The password cannot be read; the repository cannot be changed.
        """
        words = ["forget", "--quiet", "--prune", "--tag", TAG, "--group-by", "paths"]
        for kind, number in (("daily", daily), ("weekly", weekly), ("monthly", monthly)):
            words += [f"--keep-{kind}", str(number)] if number else []
        try:
            self._run(words, timeout=TIMEOUT * 8)
        except RepositoryError:
            self._run(["unlock", "--quiet"])  # of processes that were killed
            self._run(words, timeout=TIMEOUT * 8)

    def check(self) -> None:
        """Look whether its parts fit together; what was saved is not read.

        Raises
        ------
        ProblemsError, RepositoryError
            The password cannot be read; the repository is damaged.
        """
        self._run(["check", "--quiet"], timeout=TIMEOUT * 8)

    # -- restic itself ----------------------------------------------------------------

    def _run(self, words: Sequence[str], timeout: float = TIMEOUT) -> str:
        with (
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as said,
            self._watched(timeout) as watch,
        ):
            process = watch(words, stdin=subprocess.DEVNULL, stdout=out, stderr=said)
            self._ended(process, said, words[0])
            out.seek(0)
            return out.read().decode()

    @contextlib.contextmanager
    def _watched(self, timeout: float) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
        """Give what starts restic; it is killed when the time is over."""
        timers: list[threading.Timer] = []

        def start(words: Sequence[str], **streams: object) -> subprocess.Popen[bytes]:
            process: subprocess.Popen[bytes] = subprocess.Popen(  # type: ignore[call-overload]
                ["restic", *words], env=self._environment(), cwd="/", umask=0o077, **streams
            )
            timers.append(threading.Timer(timeout, process.kill))
            timers[0].daemon = True
            timers[0].start()
            return process

        try:
            yield start
        finally:
            for timer in timers:
                timer.cancel()

    def _ended(self, process: subprocess.Popen[bytes], said: IO[bytes], what: str) -> None:
        code = process.wait()
        if not code:
            return
        size = said.seek(0, os.SEEK_END)
        said.seek(max(0, size - _TAIL))
        text = " ".join(said.read().decode("utf-8", "replace").split())
        if code == -signal.SIGKILL:
            text = f"it did not end in time. {text}".rstrip()
        raise RepositoryError(f"restic cannot {what}: {text or f'it ended with {code}'}")

    def _environment(self) -> dict[str, str]:
        """Return its variables; address and password are in no argument list."""
        what = "the password of the backups' repository"
        if not secrets.exists(self._paths, PASSWORD):
            hint = "the first time: labhub backup --new; else write it there, and chmod 600"
            place = str(secrets.place(self._paths, PASSWORD))
            raise ProblemsError([Problem(place, f"{what} is missing", hint)])
        secrets.read(self._paths, PASSWORD, what)
        return {
            **self._storage(),
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": os.path.expanduser("~"),  # noqa: PTH111 - for ssh's keys
            "LC_ALL": "C.UTF-8",
            "TMPDIR": str(self._paths.run),
            "RESTIC_REPOSITORY": self.address,
            "RESTIC_PASSWORD_FILE": str(self._paths.secrets / PASSWORD),
            "RESTIC_CACHE_DIR": str(self._paths.run / "backup-cache"),
        }

    def _storage(self) -> dict[str, str]:
        if not secrets.exists(self._paths, VARIABLES):
            return {}
        out = {}
        for line in secrets.read(self._paths, VARIABLES, "the storage's keys").splitlines():
            if not line.strip() or line.startswith("#"):
                continue
            parts = _LINE.fullmatch(line.strip())
            if parts is None:
                text = "has a line that is not NAME=VALUE"
                raise ProblemsError([Problem(str(self._paths.secrets / VARIABLES), text)])
            out[parts[1]] = parts[2]
        return out


def _interrupt(process: subprocess.Popen[bytes]) -> None:
    """End restic so that it takes its lock away and keeps nothing."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _time(text: str) -> datetime:
    # Nanoseconds, which Python does not read.
    return datetime.fromisoformat(re.sub(r"\.\d+", "", text).replace("Z", "+00:00"))
