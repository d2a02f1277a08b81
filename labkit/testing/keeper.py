"""Keeps one daemon of a test cluster, and ends it with all it has started.

A keeper is a process of its own. It is the "init" of its daemon: a process that the daemon starts
cannot leave it, not even by a double fork. It ends everything when it is told so, and also when
the process that started it is gone, however that came: exit, Ctrl-C, ``kill -9``.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from labkit.base import process_tree

_SOURCES = str(Path(__file__).resolve().parents[2])
_MAIN = (
    "import sys; sys.path.insert(0, sys.argv.pop(1));"
    "from labkit.testing.keeper import main; main(sys.argv[1:])"
)
_TIMEOUT = 10.0  # seconds


class Kept:
    """A daemon and its keeper, seen from the process that started them.

    Parameters
    ----------
    argv : sequence of str
        The daemon, in the foreground. Empty: there is none, the keeper only removes ``folder``.
    env : mapping
        The daemon's whole environment.
    log : Path
        Where the daemon's output is appended.
    remove : Path, optional
        A folder that is removed at the end.
    groups : sequence of Path
        Control groups that are removed at the end, with those below them.
    """

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        log: Path,
        remove: Path | None = None,
        groups: Sequence[Path] = (),
    ) -> None:
        task = {
            "argv": list(argv),
            "log": str(log),
            "remove": str(remove) if remove else None,
            "groups": [str(group) for group in groups],
        }
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _MAIN, _SOURCES, json.dumps(task)],
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # Ctrl-C in the terminal is for the tests, not for the cluster
        )
        self._told = _pipe(self._process.stdout)
        #: The daemon's process id; 0 where there is none.
        self.pid = int(self._told.readline() or 0)

    @property
    def alive(self) -> bool:
        """Whether the daemon, or something that it started, lives."""
        return self._process.poll() is None

    @property
    def running(self) -> bool:
        """Whether the daemon itself lives."""
        return self.alive and process_tree.start_time(self.pid) is not None

    def signal(self, number: signal.Signals) -> None:
        """Send the daemon a signal, and wait until it is gone; what it has started goes on."""
        if self.running:
            os.kill(self.pid, number)
        deadline = time.monotonic() + _TIMEOUT
        while self.running:
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {self.pid} did not end by {number.name}")
            time.sleep(0.01)

    def end(self) -> None:
        """Kill the daemon and all it has started, and wait until they are gone."""
        _pipe(self._process.stdin).close()
        self._process.wait()
        self._told.close()


def _pipe(file: IO[bytes] | None) -> IO[bytes]:
    assert file is not None  # noqa: S101 - Popen was given PIPE
    return file


def main(argv: Sequence[str]) -> None:
    """Start the daemon, tell its process id on stdout, and keep it."""
    parent = os.getppid()
    task: dict[str, Any] = json.loads(argv[0])
    asked = [False]
    signal.signal(signal.SIGTERM, lambda *_: asked.__setitem__(0, True))
    process_tree.adopt_orphans()
    pid = 0
    if task["argv"]:
        with Path(task["log"]).open("ab") as log:
            daemon = subprocess.Popen(
                task["argv"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, close_fds=True
            )
        pid = daemon.pid
    sys.stdout.write(f"{pid}\n")
    sys.stdout.close()
    while not asked[0] and os.getppid() == parent and (_reap() or not pid):
        readable, _, _ = select.select([0], [], [], 0.25)
        if readable and not os.read(0, 64):
            break
    process_tree.end(os.getpid(), 0.0)
    for group in task["groups"]:
        _remove_group(Path(group))
    if task["remove"]:
        _remove(Path(task["remove"]))


def _reap() -> bool:
    """Take up the children that have ended; return whether some are left."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return True
        except ChildProcessError:
            return False


def _remove(folder: Path) -> None:
    """Remove a folder into which other processes may still write for a moment."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


def _remove_group(group: Path) -> None:
    """Remove a control group; the kernel lets go of it a moment after its last process."""
    for _ in range(100):
        for folder, _, _ in os.walk(group, topdown=False):
            with suppress(OSError):
                Path(folder).rmdir()
        if not group.exists():
            return
        time.sleep(0.1)
