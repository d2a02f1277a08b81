"""The machine itself as a backend: a queue, and a scheduler that outlives the kernel."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar

from labkit.base.problems import Problem
from labkit.base.units import format_size
from labkit.jobs.backends.base import Backend, BackendError
from labkit.jobs.backends.capacity import capacity, free_memory
from labkit.jobs.backends.local_queue import LocalQueue
from labkit.jobs.model import (
    Container,
    Environment,
    Limits,
    Sighting,
    Sightings,
    Stage,
    State,
    from_ranges,
)
from labkit.jobs.plan import Plan
from labkit.jobs.runs.manifest import environment_folder
from labkit.jobs.runs.store import Run, Submission


class LocalBackend(Backend):
    """Runs tasks on this machine, never more at once than it (or our cgroup) has."""

    name: ClassVar[str] = "local"
    options: ClassVar[Mapping[str, str]] = {
        "cpu": "most cores this job may use at once; the default is all there are",
    }

    slowest: ClassVar[float] = 1.0

    def __init__(self, queue: LocalQueue | None = None) -> None:
        self._queue = queue or LocalQueue()

    def limits(self) -> Limits:
        """Return what the machine, or the cgroup around us, has."""
        have = capacity()
        cores = max(1, int(have.cpu))
        return Limits(cpu=have.cpu, memory=have.memory, text=str(have), cores=cores)

    def check(self, plan: Plan, options: Mapping[str, Any]) -> list[Problem]:
        """Return what stands against running this plan here."""
        problems = super().check(plan, options)
        problems += [
            Problem(
                f"stage {stage.name}",
                "asks for a container; the local backend runs environments.",
                "Choose an environment, or another backend.",
            )
            for stage in plan.stages
            if isinstance(stage.environment, Container)
        ]
        problems += [
            Problem(f"stage {stage.name}", "asks for GPUs; the local backend does not share them.")
            for stage in plan.stages
            if stage.resources.gpus
        ]
        free = free_memory()
        problems += [
            Problem(
                f"stage {stage.name}",
                f"each task asks for {format_size(stage.resources.memory)} of memory and "
                f"{format_size(free)} are free now: it will wait.",
                "Close notebooks that hold data, or ask for less (memory=).",
                warning=True,
            )
            for stage in plan.stages
            if free < stage.resources.memory <= self.limits().memory
        ]
        for stage in plan.stages:
            problems += _check_programs(stage)
        cpu = options.get("cpu")
        if cpu is not None and not (isinstance(cpu, int | float) and cpu > 0):
            problems.append(Problem("local_cpu", f"must be above zero, not {cpu!r}."))
        elif cpu is not None:
            problems += [
                Problem(
                    f"stage {stage.name}", f"needs {stage.resources.cpu:g} cores, above local_cpu."
                )
                for stage in plan.stages
                if stage.resources.cpu > cpu
            ]
        return problems

    def payload(self, plan: Plan, options: Mapping[str, Any]) -> str:
        """Return the command of the first task of each stage, as the scheduler starts it."""
        have = capacity()
        lines = [f"# this machine: {have}; for each task:"]
        lines += [f"# {name} = {value}" for name, value in options.items()]
        for stage in plan.stages:
            lines.append(f"python3 RUN/worker {stage.name} 0..{len(stage.tasks) - 1}")
            if stage.tasks and stage.tasks[0].argv:
                lines.append(f"  runs {list(stage.tasks[0].argv)}")
        return "\n".join(lines)

    def submit(self, run: Run, submission: Submission) -> dict[str, Any]:
        """Put the submission into the queue and see to it that a scheduler lives."""
        try:
            self._queue.add(submission.name, run.path, submission.number)
            self._queue.ensure_scheduler()
        except (OSError, subprocess.SubprocessError) as error:
            raise BackendError(f"The local queue cannot be written: {error}") from error
        self._queue.wake()
        return {"host": _host(), "queue": str(self._queue.path)}

    def find(self, run: Run, submission: Submission) -> dict[str, Any] | None:
        """Return the handle of a submission that is in the queue, or was."""
        theirs = self._queue.elsewhere(submission, run)
        if theirs is not None:
            return {"host": theirs.host, "queue": str(theirs.path)}
        queued = self._queue.entry(submission.name).exists()
        if not queued and not run.started(submission):
            return None
        return {"host": _host(), "queue": str(self._queue.path)}

    def poll(self, runs: Sequence[Run]) -> dict[Run, Sightings]:
        """Say what the scheduler has; where it was killed, the next one is started."""
        try:
            queued = set(self._queue.names())
            elsewhere = {run: self._elsewhere(run, queued) for run in runs}
            if queued:
                self._queue.ensure_scheduler()
        except (OSError, subprocess.SubprocessError) as error:
            return {run: Sightings(known=False, text=f"local queue: {error}") for run in runs}
        return {
            run: Sightings(known=False, text=f"runs on {host}: ask there")
            if (host := elsewhere[run])
            else self._sightings(run, queued)
            for run in runs
        }

    def _elsewhere(self, run: Run, queued: set[str]) -> str:
        """Return the living machine that has this run; what a dead one left is taken over."""
        for submission in run.submissions():
            if submission.name in queued or submission.backend != self.name:
                continue
            theirs = self._queue.elsewhere(submission, run)
            if theirs is None:
                continue
            if theirs.is_fresh():
                return theirs.host
            self._queue.take_over(submission, run, theirs)
            queued.add(submission.name)
        return ""

    def _sightings(self, run: Run, queued: set[str]) -> Sightings:
        tasks: dict[tuple[str, int], Sighting] = {}
        texts = []
        pending, running = Sighting(State.PENDING), Sighting(State.RUNNING)
        for submission in run.submissions():
            if submission.name not in queued:
                continue
            entry = self._queue.entry(submission.name)
            # A power cut has emptied it. One that is gone since it was listed is over.
            if self._queue.read(submission.name) is None and entry.exists():
                with suppress(FileNotFoundError):  # over in this moment, cleared by the scheduler
                    self._queue.add(submission.name, run.path, submission.number)
            status = self._queue.status(submission.name)
            if status is None and not entry.exists():
                continue  # cleared since it was listed: the records say how it ended
            status = status or {"text": ""}
            texts.append(status["text"])
            if "stages" not in status:
                tasks |= {(w.name, i): pending for w in submission.stages for i in w.tasks}
                continue
            for stage, left in status["stages"].items():
                tasks |= {(stage, index): pending for index in from_ranges(left["pending"])}
                tasks |= {(stage, index): running for index in from_ranges(left["running"])}
        return Sightings(known=True, tasks=tasks, text="; ".join(filter(None, texts)))

    def cancel(self, run: Run, submissions: Iterable[Submission]) -> None:  # noqa: ARG002
        """Wake the scheduler: the wish to cancel is in the run folder already."""
        try:
            if any(self._queue.entry(submission.name).exists() for submission in submissions):
                self._queue.ensure_scheduler()
                self._queue.wake()
        except (OSError, subprocess.SubprocessError) as error:
            raise BackendError(f"The local queue cannot be read: {error}") from error


def resume() -> bool:
    """Take up again what a stopped server has left in the queue; for the server's start.

    Returns
    -------
    bool
        Whether there was anything.
    """
    queue = LocalQueue()
    if not queue.names():
        return False
    queue.ensure_scheduler()
    return True


def _check_programs(stage: Stage) -> list[Problem]:
    """Return what is not installed here: the environment, or the programs of the tasks."""
    path = os.environ.get("PATH", os.defpath)
    place = "your PATH"
    if isinstance(stage.environment, Environment):
        folder = environment_folder(stage.environment.name) / "bin"
        if not folder.is_dir():
            return [
                Problem(
                    f"stage {stage.name}",
                    f"the environment {stage.environment.name!r} is not installed: no {folder}.",
                    "Ask your lab's admin, or set LABHUB_ENVS to where the environments are.",
                )
            ]
        path = f"{folder}{os.pathsep}{path}"
        place = f"the environment {stage.environment.name!r} nor in your PATH"
    programs = {task.argv[0] for task in stage.tasks if task.argv and not stage.driver}
    return [
        Problem(
            f"stage {stage.name}",
            f"the program {program!r} is not in {place}.",
            "Is it spelled right? environment= names one of the lab's environments.",
        )
        for program in sorted(programs)
        if "$" not in program and shutil.which(program, path=path) is None
    ]


def _host() -> str:
    return os.uname().nodename
