"""What squeue says of labkit's jobs, asked once for all processes of a user."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.base import files
from labkit.jobs.backends.slurm.sightings import QUERIED
from labkit.jobs.worker.folder import read_json, write_json
from labkit.slurm import commands
from labkit.slurm.commands import SlurmUnavailableError
from labkit.slurm.queue import Columns, Job
from labkit.viewers.paths import private_folder, state_folder

_COLUMNS = Columns(("array", "elements", "state", "end", "host", "reason", "name"))
_TIMEOUT = 20.0
_LONGEST = 30.0  # seconds of back-off at most
_SHARE = 0.02  # of the time, at most, the controller shall be busy with our questions


@dataclass(frozen=True)
class Answer:
    """What squeue said.

    Attributes
    ----------
    at : float
        When it was asked, in seconds since 1970.
    took : float
        Seconds until it had answered.
    failures : int
        How often in a row it could not be asked; above 0 nothing is known.
    text : str
        Why not.
    jobs : list of Job
        labkit's only.
    """

    at: float = 0.0
    took: float = 0.0
    failures: int = 0
    text: str = ""
    jobs: list[Job] = field(default_factory=list)

    @property
    def known(self) -> bool:
        """Whether it was answered."""
        return not self.failures

    def serves(self, now: float, age: float, since: float) -> bool:
        """Return whether it is young enough, or it is too early to ask again after a failure.

        Parameters
        ----------
        age : float
            Seconds that it may be old.
        since : float
            Time that it must not be older than: a job was submitted then.
        """
        if self.at > now:  # the clock was put back
            return False
        if self.failures:
            return now - self.at < min(_LONGEST, 0.5 * 2.0**self.failures)
        return self.at >= since and now - self.at < max(age, self.took / _SHARE)


class Queue:
    """The queue as this user sees it. All processes of the user on this machine share answers.

    Parameters
    ----------
    path : Path, optional
        Where answers are shared; default: the user's state folder, one file per cluster.
    """

    def __init__(self, path: Path | None = None) -> None:
        if path is None:
            conf = os.environ.get("SLURM_CONF", "")
            mark = hashlib.sha256(f"{os.uname().nodename}\0{conf}".encode()).hexdigest()[:12]
            path = private_folder(state_folder("jobs") / "slurm") / f"queue-{mark}.json"
        self.path = path

    def look(self, age: float, since: float = 0.0) -> Answer:
        """Return an answer that is young enough; ask only where there is none."""
        answer = self._read()
        if answer.serves(time.time(), age, since):
            return answer
        with self._lock() as mine:
            answer = self._read()
            if answer.serves(time.time(), age, since):
                return answer
            if not mine:
                text = "SLURM answers slowly; another process is asking it"
                return Answer(time.time(), failures=1, text=text)
            answer = ask(answer.failures)
            try:
                write_json(self.path, vars(answer))
            except OSError:
                return answer  # a full disk: the others ask for themselves
        return answer

    def forget(self) -> None:
        """Let nobody be served an answer from before now: jobs were cancelled.

        Answers about an older job serve for seconds, and many where squeue is slow: until then the
        job would be said to run.
        """
        with self._lock():  # an answer that is on its way is from before, too
            self.path.unlink(missing_ok=True)

    def _read(self) -> Answer:
        try:
            status = self.path.stat()
        except OSError:
            return Answer()
        mark = (status.st_mtime_ns, status.st_ino)
        key = str(self.path)
        if key not in _SEEN or _SEEN[key][0] != mark:
            data: dict[str, Any] = read_json(self.path) or {}
            try:
                jobs = [Job(*job) for job in data.pop("jobs", ())]
                _SEEN[key] = (mark, Answer(**data, jobs=jobs))
            except TypeError:  # another version's
                return Answer()
        return _SEEN[key][1]

    @contextmanager
    def _lock(self) -> Iterator[bool]:
        """Let one process ask; the others wait for its answer a while."""
        with self.path.with_suffix(".lock").open("a") as file:
            try:
                mine = files.try_lock(file, _TIMEOUT + 5)
            except OSError:  # a disk without locks
                mine = False
            yield mine


_SEEN: dict[str, tuple[tuple[int, int], Answer]] = {}


def ask(failures: int = 0) -> Answer:
    """Ask squeue for this user's jobs.

    Parameters
    ----------
    failures : int
        How often in a row it could not be asked before.
    """
    at, began = time.time(), time.monotonic()
    try:
        jobs = query("--states", QUERIED)
    except SlurmUnavailableError as error:
        return Answer(at, time.monotonic() - began, failures + 1, str(error))
    return Answer(at, time.monotonic() - began, 0, "", jobs)


def query(*words: str) -> list[Job]:
    """Return labkit's jobs of this user; elements of an array that wait are one of them.

    Raises
    ------
    SlurmUnavailableError
        squeue cannot be asked.
    """
    said = commands.run(
        "squeue",
        "--noheader",
        f"--user={os.geteuid()}",
        f"--format={_COLUMNS.format}",
        *words,
        env={**commands.environment(), "SLURM_BITSTR_LEN": "0"},  # the elements, however many
        timeout=_TIMEOUT,
    )
    return [job for job in _COLUMNS.parse(said) if job.name.startswith("labkit-")]
