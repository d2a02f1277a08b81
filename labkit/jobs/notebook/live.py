"""Show a job while the kernel lives: one output that is updated, or one line in a terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from labkit.base.problems import LabkitError
from labkit.jobs.notebook import card, text
from labkit.jobs.runs.watch import Snapshot

if TYPE_CHECKING:
    from labkit.jobs.job import Job

_QUIET = 30.0  # seconds between two lines where output is no terminal


@contextmanager
def shown(job: Job) -> Iterator[Callable[[Snapshot], None]]:
    """Give a function that shows the job as it is now, in place of what it showed before."""
    if _shell() is not None and hasattr(_shell(), "kernel"):
        job.shown_in = _cell()
        yield _notebook(job)
    elif sys.stderr.isatty():
        try:
            yield lambda now: _rewrite(text.line(job, now))
        finally:
            sys.stderr.write("\n")
    else:
        yield _Lines(job)


def display(job: Job) -> None:
    """Show a job as the value of a cell, and keep it up to date while the kernel lives."""
    if _shell() is None or not hasattr(_shell(), "kernel"):
        sys.stdout.write(text.card(job) + "\n")
        return
    if job.shown_in is not None and job.shown_in == _cell():
        return  # wait() has shown it in this cell
    show = _notebook(job)
    snapshot = job.refresh()
    show(snapshot)
    if not snapshot.state.final:
        # A job object of its own: this one stays free for the user's cells.
        follower = type(job)(job.run)
        threading.Thread(
            target=_follow, args=(follower, show), daemon=True, name="labkit-card"
        ).start()


def _follow(job: Job, show: Callable[[Snapshot], None]) -> None:
    try:
        for snapshot, pause in job.looks():
            show(snapshot)
            time.sleep(max(1.0, pause))
        show(job.refresh())
    except LabkitError:  # the run folder is gone: the card says of when it is
        return


def _notebook(job: Job) -> Callable[[Snapshot], None]:
    from IPython.display import DisplayHandle

    handle: Any = DisplayHandle()  # type: ignore[no-untyped-call]
    before: list[str] = []

    def show(snapshot: Snapshot) -> None:
        content = {
            "text/html": card.card(job, snapshot, live=True),
            "text/plain": text.card(job, snapshot),
        }
        if before:
            handle.update(content, raw=True)
        else:
            handle.display(content, raw=True)
        before[:] = [content["text/html"]]

    return show


class _Lines:
    """Lines for a log file: when the counts change, and not more often than people can read."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._at = 0.0
        self._state = ""

    def __call__(self, snapshot: Snapshot) -> None:
        if snapshot.state == self._state and time.monotonic() - self._at < _QUIET:
            return
        self._at, self._state = time.monotonic(), snapshot.state
        sys.stderr.write(f"{self._job.name} {text.line(self._job, snapshot)}\n")
        sys.stderr.flush()


def _rewrite(line: str) -> None:
    sys.stderr.write(f"\r\x1b[2K{line}")
    sys.stderr.flush()


def _shell() -> Any:
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


def _cell() -> int | None:
    shell = _shell()
    return None if shell is None else int(shell.execution_count)
