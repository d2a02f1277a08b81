"""A job: what a submit returns, and what finds it again after any restart."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.base import files
from labkit.base.problems import LabkitError
from labkit.base.units import format_duration
from labkit.jobs import plugins, task_names
from labkit.jobs import submission as submitting
from labkit.jobs.backends.base import BackendError
from labkit.jobs.backends.local_queue import LocalQueue
from labkit.jobs.model import State
from labkit.jobs.notebook.jobs import Jobs
from labkit.jobs.runs import tables
from labkit.jobs.runs.index import Index, is_run
from labkit.jobs.runs.store import Run, unreadable
from labkit.jobs.runs.watch import Snapshot, Watch

if TYPE_CHECKING:
    import pandas as pd

_FASTEST = 0.1  # seconds between two looks at first
_BACK_OFF = 1.3
_TAIL = 1024**2  # bytes of a log that are read at once: some logs are large


class Job:
    """A submitted job. Its run folder is the truth; this object can be thrown away.

    Parameters
    ----------
    run : Run
        Its run folder.

    Examples
    --------
    >>> job = labkit.Command("wc -l {reads}", over="samples.csv").submit()  # doctest: +SKIP
    >>> job.wait().failed()  # doctest: +SKIP
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._watch: Watch | None = None
        self.shown_in: int | None = None  # the cell that shows it already
        self.note = ""  # what its submit has to say, e.g. that an earlier result is used again

    @property
    def name(self) -> str:
        """Name of the run: the job's name and the start of its key."""
        return self.run.path.name

    @property
    def key(self) -> str:
        """Key of the work: the same work has the same key."""
        return self.run.key

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.run.path

    @property
    def state(self) -> State:
        """State now."""
        return self.refresh().state

    @property
    def backend(self) -> str:
        """Name of the backend of the last submission."""
        submissions = self.run.submissions()
        return submissions[-1].backend if submissions else ""

    def refresh(self) -> Snapshot:
        """Look at the records and ask the backend; return what the job is now.

        Raises
        ------
        LabkitError
            The run folder is gone, or cannot be read.
        """
        try:
            there = self.run.folder.manifest.exists()
        except OSError as error:
            raise unreadable(self.path, error) from error
        if not there:
            raise LabkitError(
                f"The run folder {self.path} is gone. If its disk comes back the job is there "
                "again; else submit it anew."
            )
        if self._watch is None:
            self._watch = Watch(self.run, submitting.grace(self.run))
        return self._watch.look(submitting.sightings(self.run))

    def wait(self, timeout: float | None = None) -> Job:
        """Wait until the job has ended, well or not; show the card meanwhile.

        Ctrl-C detaches: the job goes on.

        Parameters
        ----------
        timeout : float
            Longest time in seconds.

        Returns
        -------
        Job
            The job itself; see ``state`` and ``failed()``.

        Raises
        ------
        TimeoutError
            It had not ended then.
        """
        from labkit.jobs.notebook.detached import Detached
        from labkit.jobs.notebook.live import shown

        begun = time.monotonic()
        try:
            with shown(self) as show:
                for snapshot, pause in self.looks():
                    show(snapshot)
                    if timeout is not None and time.monotonic() + pause > begun + timeout:
                        raise TimeoutError(
                            f"{self.name} has not ended after {format_duration(timeout)}."
                        )
                    time.sleep(pause)
                show(self.refresh())
        except KeyboardInterrupt:
            raise Detached(
                f"Detached: {self.name} goes on. job.wait() watches it again, job.cancel() ends it."
            ) from None
        return self

    def __await__(self) -> Generator[Any, None, Job]:
        """Wait without blocking the kernel: ``await job``."""
        return self._wait_async().__await__()

    async def _wait_async(self) -> Job:
        from labkit.jobs.notebook.live import shown

        with shown(self) as show:
            for snapshot, pause in self.looks():
                show(snapshot)
                await asyncio.sleep(pause)
            show(self.refresh())
        return self

    def looks(self) -> Iterator[tuple[Snapshot, float]]:
        """Look until the job has ended; give each look and the pause after it."""
        pause, slowest = _FASTEST, submitting.slowest(self.run)
        while True:
            began = time.thread_time()
            snapshot = self.refresh()
            if snapshot.state.final:
                return
            # Looking takes 1 % of a core at most, however many tasks there are.
            yield snapshot, max(pause, 100 * (time.thread_time() - began))
            pause = min(slowest, pause * _BACK_OFF)

    def cancel(self) -> Job:
        """End the job; what has succeeded stays."""
        submitting.cancel(self.run)
        return self

    def retry(self, backend: str | None = None, **changes: Any) -> Job:
        """Run again only what failed, was cancelled or deleted, and what depends on it.

        Parameters
        ----------
        backend : str
            Another backend than before.
        changes
            ``memory="x2"`` (or a size), ``cpu``, ``time``, ``retries``, and the backend's own.

        Returns
        -------
        Job
            The job itself.
        """
        submitting.resubmit(self.run, backend, changes)
        return self

    def rerun(self, backend: str | None = None, **changes: Any) -> Job:
        """Run all of it again, also what succeeded; the earlier results are kept aside.

        They lie in ``results.before-<n>`` of the run folder.

        Parameters
        ----------
        backend, changes
            As in :meth:`retry`.

        Returns
        -------
        Job
            The job itself.

        Raises
        ------
        LabkitError
            It has not ended.
        """
        submitting.resubmit(self.run, backend, changes, rerun=True)
        self.note = ""
        return self

    def failed(self) -> pd.DataFrame:
        """Return what failed: one row per task (or image set), with its reason and log."""
        return tables.failed(self.run, self.refresh())

    def tasks(self) -> pd.DataFrame:
        """Return all tasks: state, attempts, time, CPU and memory used against asked."""
        snapshot = self.refresh()
        assert self._watch is not None  # noqa: S101 -- refresh() sets it
        return tables.tasks(self._watch, snapshot)

    def results(self, name: str | None = None, *, engine: str = "pandas") -> Any:
        """Return results.

        Parameters
        ----------
        name : str
            A table that the gather wrote (``"Nuclei"``), or a glob of files of the tasks
            (``"*.csv"``). None: every task's result folder.
        engine : {"pandas", "polars", "arrow"}
            How a table is returned.

        Returns
        -------
        DataFrame
            The table, or one row per file with its task's key and ``path``.

        Raises
        ------
        LabkitError
            There is nothing of that name; the text lists what there is.
        """
        return tables.results(self.run, name, engine)

    def logs(self, key: str | None = None, *, stage: str | None = None, lines: int = 50) -> str:
        """Return the end of a task's log.

        Parameters
        ----------
        key : str
            The task: its key, a value of its row (a sample, a file's name, a plate), its number;
            None: the first that failed, else the first that runs.
        stage : str
            Only of this stage.
        lines : int
            How many lines.

        Raises
        ------
        LabkitError
            There is no such task; the text names some that there are.
        """
        path = self.log_path(key, stage=stage)
        return files.tail(path, lines, most=_TAIL)

    def follow(self, key: str | None = None, *, stage: str | None = None) -> Iterator[str]:
        """Give the lines of a task's log as they come, until the task has ended.

        With a retry the next attempt's log follows.
        """
        where = task_names.find(self, key, stage)
        attempt, position = 0, 0
        while True:
            over = not any(
                (task.stage, task.index) == where and not task.state.final
                for task in self.refresh().open
            )
            newest = self._last_attempt(*where)
            if newest != attempt:
                attempt, position = newest, 0
            while attempt:
                log = self.run.folder.log(*where, attempt)
                position, text = files.read_lines(log, position, most=_TAIL)
                if not text:
                    break
                yield from text.splitlines()
            if over:
                return
            time.sleep(0.5)

    def log_path(self, key: str | None = None, *, stage: str | None = None) -> Path:
        """Return the log file of a task's last attempt."""
        where = task_names.find(self, key, stage)
        return self.run.folder.log(*where, self._last_attempt(*where) or 1)

    def tasks_called(self, name: str) -> list[task_names.Place]:
        """Return stage and index of the tasks that a person calls so, beside their keys.

        A workflow whose tasks have further names (a well, an image set) adds them here.
        """
        return task_names.called(self.run, name)

    def _last_attempt(self, stage: str, index: int) -> int:
        attempts = self.run.folder.attempts("logs", stage)
        return max((attempt for task, attempt in attempts if task == index), default=0)

    def warnings(self) -> list[str]:
        """Return what makes the results of an ended job doubtful, where its workflow says so."""
        return []

    def figure_html(self, snapshot: Snapshot) -> str:  # noqa: ARG002 -- for those who have one
        """Return more for the card, as HTML: numbers and figures of the workflow's own."""
        return ""

    def __repr__(self) -> str:
        from labkit.jobs.notebook.text import card

        return card(self)

    def _repr_html_(self) -> str:
        from labkit.jobs.notebook.card import card

        return card(self)

    def _ipython_display_(self) -> None:
        from labkit.jobs.notebook.live import display

        display(self)


def open_job(run: Run | str | Path) -> Job:
    """Open a job by its run folder, its name or the start of its key.

    Raises
    ------
    LabkitError
        There is none.
    """
    opened = run if isinstance(run, Run) else Index().find(str(run))
    return _job_class(opened.manifest.workflow)(opened)


def _job_class(workflow: str) -> type[Job]:
    """Return the class of a workflow's jobs.

    A job stays in reach without its workflow: it can be watched, cancelled and read as any other.
    """
    if workflow not in plugins.names(plugins.WORKFLOWS):
        return Job
    try:
        job_class = plugins.find(plugins.WORKFLOWS, workflow).load().job_class
    except (plugins.PluginError, AttributeError) as error:
        warnings.warn(f"This job is shown without what its workflow adds. {error}", stacklevel=3)
        return Job
    return job_class if issubclass(job_class, Job) else Job


def jobs(limit: int = 20) -> Jobs:
    """Return my jobs, the newest first, after any restart of kernel, server or hub.

    What a crash has left half submitted is found at its backend, or handed over now.

    Parameters
    ----------
    limit : int
        How many at most.
    """
    found = Jobs()
    index = Index()
    # Also where the index was lost, and output= is elsewhere.
    queued = [Run(path) for path in LocalQueue().runs() if is_run(path)]
    for run in queued:
        with contextlib.suppress(LabkitError, ValueError, KeyError, sqlite3.Error, OSError):
            index.add(run)
    listed = index.runs()
    listed += [run for run in queued if run not in listed]
    for run in listed[:limit]:
        try:  # the others are listed all the same
            _reconcile(run)
            found.append(open_job(run))
        except (LabkitError, OSError, ValueError, KeyError) as error:
            warnings.warn(f"{run.path.name} cannot be read: {error}", stacklevel=2)
    return found


def _reconcile(run: Run) -> None:
    if any(s.handle is None and not s.cancelled for s in run.submissions()):
        try:
            with run.lock():
                submitting.reconcile(run)
        except BackendError as error:
            warnings.warn(f"{run.path.name}: {error}", stacklevel=3)
