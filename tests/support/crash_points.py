"""Processes that die before their k-th change of a file; and a quick scheduler.

Workers, schedulers and submitters are forks of the test here: they need no start of Python each.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.chaos import hook
from labkit.jobs.backends import local_scheduler
from labkit.jobs.backends.local_queue import LocalQueue
from labkit.jobs.backends.local_scheduler import Scheduler
from labkit.jobs.worker.main import main as run_worker
from tests.support.job_helpers import until

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


def _die(*_: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Forked:
    """A forked process, with what the scheduler asks of a Popen."""

    def __init__(self, function: Callable[[], int | None], log: Path, dies_at: int = 0) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid:
            return
        code = 1
        try:
            os.setsid()
            for number in SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(out, 1)
            os.dup2(out, 2)
            if dies_at:
                hook.before(dies_at, _die, hook.CHANGES)
            code = int(function() or 0)
        except BaseException:
            sys.setprofile(None)
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def poll(self) -> int | None:
        """Return its exit code, None while it lives."""
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float = 60.0) -> int:
        """Wait for its exit code; negative: the signal that killed it."""
        until(lambda: self.poll() is not None, timeout, every=0.002)
        assert self.returncode is not None
        return self.returncode


def worker(run: Path, words: Sequence[str], log: Path, dies_at: int = 0) -> Forked:
    """Start a worker of a run."""

    def work() -> int:
        sys.argv = [str(run / "worker")]
        return run_worker(list(words))

    return Forked(work, log, dies_at)


def serve(log: Path, place: Path | None = None) -> int:
    """Be the scheduler until the queue is empty, with forks for workers."""

    class Workers:
        """Stands in for the module subprocess."""

        DEVNULL = subprocess.DEVNULL

        @staticmethod
        def Popen(command: Sequence[str], *, env: dict[str, str], **_: Any) -> Forked:
            def work() -> int:
                sys.setprofile(None)
                os.environ.clear()
                os.environ.update(env)
                sys.argv = [command[3]]
                return run_worker(list(command[4:]))

            return Forked(work, log)

    setattr(local_scheduler, "subprocess", Workers)  # noqa: B010 -- its own name for the module
    queue = LocalQueue(place)
    scheduler = Scheduler(queue)
    while True:
        scheduler._look()
        if not queue.names():
            return 0
        scheduler._sleep()
