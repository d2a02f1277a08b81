"""A backend in one file: each submission is a process in the background, task after task."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from labkit.base.problems import Problem
from labkit.base.units import format_size
from labkit.jobs.backends.base import Backend, BackendError
from labkit.jobs.model import Limits, Sighting, Sightings, State
from labkit.jobs.plan import Plan
from labkit.jobs.runs.store import Run, StageWork, Submission
from labkit.jobs.worker import reap
from labkit.jobs.worker.folder import read_json, write_json
from labkit.jobs.worker.retry import retry_memory

MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class BackgroundBackend(Backend):
    """Runs each submission as one process in the background of this machine."""

    name: ClassVar[str] = "background"
    options: ClassVar[Mapping[str, str]] = {"nice": "how far tasks give way to others, 0 to 19"}
    slowest: ClassVar[float] = 1.0

    def limits(self) -> Limits:
        """Return what one task may ask for at most."""
        cores = os.cpu_count() or 1
        text = f"{cores} cores, {format_size(MEMORY)}"
        return Limits(cpu=cores, memory=MEMORY, text=text, cores=1)

    def check(self, plan: Plan, options: Mapping[str, Any]) -> list[Problem]:
        """Return what stands against this plan, or these options."""
        problems = super().check(plan, options)
        nice = options.get("nice", 0)
        if not (isinstance(nice, int) and 0 <= nice <= 19):
            problems.append(Problem("background_nice", f"must be from 0 to 19, not {nice!r}."))
        return problems

    def payload(self, plan: Plan, options: Mapping[str, Any]) -> str:
        """Return what a submit would start."""
        return f"nice -n {options.get('nice', 0)} python3 -m outsider.background RUN 1"

    def submit(self, run: Run, submission: Submission) -> dict[str, Any]:
        """Start the process; it has the lock before it lives, so that find() never misses it."""
        try:
            with lock_file(run, submission.number).open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                process = subprocess.Popen(
                    ["nice", "-n", str(submission.options.get("nice", 0)), sys.executable, "-m",
                     "outsider.background", str(run.path), str(submission.number)],
                    pass_fds=[lock.fileno()], start_new_session=True, cwd="/",
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                )  # fmt: skip
        except OSError as error:
            raise BackendError(f"the background process cannot be started: {error}") from error
        return {"pid": process.pid}

    def find(self, run: Run, submission: Submission) -> dict[str, Any] | None:
        """Return a handle where the process runs, or has run."""
        if lives(run, submission.number) or run.started(submission):
            return {"pid": None}
        return None

    def poll(self, runs: Sequence[Run]) -> dict[Run, Sightings]:
        """Tell what is still to be done; never raises."""
        answers = {}
        for run in runs:
            try:
                answers[run] = Sightings(known=True, tasks=dict(tasks_left(run)))
            except OSError as error:
                answers[run] = Sightings(known=False, text=str(error))
        return answers

    def cancel(self, run: Run, submissions: Iterable[Submission]) -> None:
        """Nothing to do: the wish is in the run folder, and the process looks there."""


def lock_file(run: Run, number: int) -> Path:
    """Return the file that the process of a submission holds while it lives."""
    return run.path / "submissions" / f"{number:04d}.background"


def lives(run: Run, number: int) -> bool:
    """Return whether the process of a submission lives."""
    path = lock_file(run, number)
    if not path.exists():
        return False
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def tasks_left(run: Run) -> Iterable[tuple[tuple[str, int], Sighting]]:
    """Give each task that a living process still has to do, or is doing."""
    for submission in run.submissions():
        if not lives(run, submission.number):
            continue
        left = read_json(lock_file(run, submission.number).with_suffix(".left"))
        for work in submission.stages:
            running = {index for index, _ in run.folder.attempts("running", work.name)}
            for index in work.tasks if left is None else left.get(work.name, ()):
                state = State.RUNNING if index in running else State.PENDING
                yield (work.name, index), Sighting(state)


class Background:
    """The process: all tasks of one submission, one after the other."""

    def __init__(self, run: Run, number: int) -> None:
        self.run = run
        self.submission = next(s for s in run.submissions() if s.number == number)
        self.left = {work.name: list(work.tasks) for work in self.submission.stages}
        self.failed: set[str] = set()

    def work(self) -> None:
        """Run every stage; those that depend on a failed one are left out."""
        for stage in self.submission.stages:
            if not self.failed & set(stage.depends_on) or stage.tolerate_failures:
                for index in stage.tasks:
                    if not self.task(stage, index):
                        self.failed.add(stage.name)
                    self.left[stage.name].remove(index)
                    self.tell()
            else:
                self.failed.add(stage.name)
            self.left[stage.name] = []
            self.tell()

    def tell(self) -> None:
        """Leave word of what is still to be done."""
        path = lock_file(self.run, self.submission.number).with_suffix(".left")
        write_json(path, self.left)

    def cancelled(self) -> bool:
        """Return whether somebody wants it to end."""
        return self.run.folder.cancelled(self.submission.number).exists()

    def task(self, stage: StageWork, index: int) -> bool:
        """Run a task, with the retries that it may have; return whether it succeeded."""
        memory: int | None = stage.resources.memory
        used = 0
        while memory is not None and not self.cancelled():
            used += 1
            record = self.attempt(stage.name, index, memory)
            if record["state"] == State.SUCCEEDED:
                return True
            memory = retry_memory(record["reason"], memory, used, stage.retries, MEMORY)
        return False

    def attempt(self, stage: str, index: int, memory: int) -> dict[str, Any]:
        """Run labkit's worker once, and return the record that it, or we, wrote."""
        folder = self.run.folder
        begun = folder.attempts("attempts", stage) + folder.attempts("tasks", stage)
        number = 1 + max((attempt for task, attempt in begun if task == index), default=0)
        words = ["-I", "-S", str(folder.path / "worker"), stage, str(index)]
        words += ["--attempt", str(number), "--submission", str(self.submission.number)]
        words += ["--memory", str(memory), "--on-term", "CANCELLED", "--grace", "2"]
        worker = subprocess.Popen([sys.executable, *words])
        told = False
        while worker.poll() is None:
            if self.cancelled() and not told:
                worker.terminate()
                told = True
            time.sleep(0.05)
        if not folder.record(stage, index, number).exists():
            reap.clear(folder.path, stage, index, number)
            beat = read_json(folder.running(stage, index, number)) or {}
            verdict = ("FAILED", "LOST", f"its worker ended with code {worker.returncode}")
            where = (stage, index, number)
            self.run.write_record(
                reap.record(beat, where, self.submission.number, verdict, "background")
            )
        return read_json(folder.record(stage, index, number)) or {}


def main(arguments: Sequence[str]) -> None:
    """Work, and hold the lock that was inherited until the end."""
    path, number = arguments
    Background(Run(Path(path)), int(number)).work()


if __name__ == "__main__":
    main(sys.argv[1:])
