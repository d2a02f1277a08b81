"""Where submitters and the local scheduler of one user on one machine meet."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import labkit
from labkit.base import files
from labkit.base.interpreter import lab_python
from labkit.jobs.backends import local_epoch
from labkit.jobs.backends.local_epoch import Epoch
from labkit.jobs.runs.store import Run, Submission
from labkit.jobs.worker.folder import read_json, write_json
from labkit.viewers.paths import private_folder, state_folder

_FRESH = 60.0  # seconds after which another machine's scheduler that says nothing is taken for dead


class LocalQueue:
    """A folder with a queue, a lock that the scheduler holds, and a pipe to wake it.

    Parameters
    ----------
    path : Path
        Default: below the user's state folder, one per machine.
    """

    def __init__(self, path: Path | None = None) -> None:
        if path is None:
            host = re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname()) or "localhost"
            path = private_folder(state_folder("jobs") / "local") / host
        self.path = private_folder(path)
        self.queue = private_folder(self.path / "queue")
        # A scheduler of an earlier version may hold it: the name stays.
        self.lock = self.path / "supervisor.lock"
        self.log = self.path / "scheduler.log"
        self.pipe = self.path / "wake"

    def entry(self, name: str) -> Path:
        """Return the queue's entry of a submission."""
        return self.queue / f"{name}.json"

    def names(self) -> list[str]:
        """Return the names of the submissions in the queue."""
        return [
            name.removesuffix(".json")
            for name in os.listdir(self.queue)  # noqa: PTH208 -- names are enough
            if name.endswith(".json") and not name.startswith(".") and ".status." not in name
        ]

    def read(self, name: str) -> dict[str, Any] | None:
        """Return what was queued under this name: ``run``, ``number``, ``queued``."""
        return read_json(self.entry(name))

    def runs(self) -> list[Path]:
        """Return the run folders of what is in the queue."""
        entries = [self.read(name) for name in self.names()]
        return [Path(entry["run"]) for entry in entries if entry]

    def add(self, name: str, run: Path, number: int) -> None:
        """Put a submission into the queue; it is on the disk afterwards."""
        entry = {"run": str(run), "number": number, "queued": time.time()}
        write_json(self.entry(name), entry, sync=True)

    def status(self, name: str) -> dict[str, Any] | None:
        """Return what the scheduler said last of a submission.

        ``text``, and by stage what is ``pending`` and ``running``; no ``stages`` where its run
        folder cannot be read.
        """
        return read_json(self.queue / f"{name}.status.json")

    def write_status(self, name: str, status: dict[str, Any]) -> None:
        """Say what has become of a submission."""
        write_json(self.queue / f"{name}.status.json", status)

    def elsewhere(self, submission: Submission, run: Run) -> LocalQueue | None:
        """Return the other machine's queue that has a submission; None where it is ours, or over.

        Several machines (or the containers of one user, one after the other) may share a home.
        The newest epoch says whose it is, before any began the answer to its submit.
        """
        about = local_epoch.holder(run.folder, submission.number) or submission.handle or {}
        path = about.get("queue")
        if not path or Path(path) == self.path or not Path(path).is_dir():
            return None
        theirs = LocalQueue(Path(path))
        return theirs if theirs.entry(submission.name).exists() else None

    @property
    def host(self) -> str:
        """Name of its machine."""
        return self.path.name

    def is_fresh(self) -> bool:
        """Return whether its scheduler has given a sign of life of late, on whatever machine."""
        try:
            return time.time() - self.lock.stat().st_mtime < _FRESH
        except FileNotFoundError:
            return False

    def take_over(self, submission: Submission, run: Run, theirs: LocalQueue) -> None:
        """Take a submission from the queue of a machine that is dead, or frozen.

        In this order somebody has it at any moment: it is in our queue before it is said to be
        ours, and in theirs until then.
        """
        self.add(submission.name, run.path, submission.number)
        Epoch.begin(run.folder, submission.number, self.path)
        theirs.entry(submission.name).unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """Take a submission that is over out of the queue."""
        self.entry(name).unlink(missing_ok=True)
        (self.queue / f"{name}.status.json").unlink(missing_ok=True)
        for half in self.queue.glob(f".{name}.*"):  # of writers that were killed
            half.unlink(missing_ok=True)

    @contextlib.contextmanager
    def held(self) -> Iterator[bool]:
        """Hold the scheduler's lock; False where another process has it."""
        with self.lock.open("a") as file:
            yield files.try_lock(file)

    def scheduler_pid(self) -> int | None:
        """Return the scheduler's process, None where none lives."""
        with self.held() as free:
            return None if free else int(self.lock.read_text() or 0)

    def is_served(self) -> bool:
        """Return whether a scheduler lives."""
        with self.held() as free:
            return not free

    def ensure_scheduler(self) -> None:
        """Start a scheduler where none lives; it outlives this process."""
        if self.is_served():
            return
        environment = {
            **clean_environment(),
            "PYTHONPATH": str(Path(labkit.__file__).parent.parent),
        }
        long = self.log.exists() and self.log.stat().st_size > _LOG
        with self.log.open("wb" if long else "ab") as log:
            subprocess.run(
                [lab_python(), "-c", _START, str(self.path)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                check=True,
                cwd="/",
            )

    def wake(self) -> None:
        """Tell the scheduler that there is something new."""
        try:
            descriptor = os.open(self.pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # none lives yet, or it just starts: it looks by itself
            return
        try:
            os.write(descriptor, b"!")
        except BlockingIOError:
            return  # enough has been said
        finally:
            os.close(descriptor)


_LOG = 1024**2  # bytes of the scheduler's log, beyond which the next one starts it anew

# It detaches before it loads anything: nobody waits for that.
_START = """\
import os
if os.fork():
    os._exit(0)
from labkit.jobs.backends.local_scheduler import main
raise SystemExit(main())
"""

# What tasks and their scheduler see of the notebook server's environment. Tokens stay behind.
_KEPT = (
    "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "PATH",
    "LD_LIBRARY_PATH", "JAVA_HOME", "R_HOME", "R_LIBS_USER", "CUDA_VISIBLE_DEVICES",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
    "http_proxy", "https_proxy", "no_proxy",
)  # fmt: skip
_KEPT_PREFIXES = ("LC_", "LABHUB_", "XDG_", "NVIDIA_")


def clean_environment() -> dict[str, str]:
    """Return the environment of tasks: an allow-list, so that no token reaches them."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or name.startswith(_KEPT_PREFIXES)
    }
