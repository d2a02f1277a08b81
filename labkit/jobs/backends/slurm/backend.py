"""SLURM as a backend."""

from __future__ import annotations

import os
import shlex
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain
from typing import Any, ClassVar

from labkit.base.problems import Problem, refuse
from labkit.base.units import format_size
from labkit.jobs.backends.base import Backend, BackendError, SubmitRefusedError
from labkit.jobs.backends.slurm import array_layout, check, held, lost_tasks, queue
from labkit.jobs.backends.slurm.array_layout import JobArray
from labkit.jobs.backends.slurm.lost_tasks import LostTask
from labkit.jobs.backends.slurm.options import HELP
from labkit.jobs.backends.slurm.options import read as read_options
from labkit.jobs.backends.slurm.script import StageRequest, arguments, script
from labkit.jobs.backends.slurm.sightings import sighting
from labkit.jobs.backends.slurm.submit import Sender
from labkit.jobs.model import Limits, Sighting, Sightings, State
from labkit.jobs.plan import Plan
from labkit.jobs.runs.store import Run, StageWork, Submission
from labkit.slurm import cluster, commands
from labkit.slurm.commands import SlurmRefusedError, SlurmUnavailableError
from labkit.slurm.nodes import BOUNDLESS
from labkit.slurm.queue import Job, elements

_NAMED = 500  # jobs of one scancel


@contextmanager
def _asking() -> Iterator[None]:
    """Say what the client says in the words that all backends have."""
    try:
        yield
    except SlurmRefusedError as error:
        raise SubmitRefusedError(str(error)) from error
    except SlurmUnavailableError as error:
        raise BackendError(str(error)) from error


class SlurmBackend(Backend):
    """Runs tasks as job arrays of the cluster that this machine belongs to.

    Only ``sbatch``, ``squeue``, ``scancel`` and ``scontrol`` are used: no accounting is needed.
    """

    name: ClassVar[str] = "slurm"
    options: ClassVar[Mapping[str, str]] = HELP
    slowest: ClassVar[float] = 5.0
    grace: ClassVar[float] = 60.0  # NFS shows a new file up to a minute later

    @_asking()
    def limits(self) -> Limits:
        """Return what the partitions that take this user's jobs have at most."""
        have = cluster.current()
        usable = check.usable(have)
        memory = max((part.most_memory for part in usable), default=0)
        cpus = max((part.most_cpus for part in usable), default=0)
        names = ", ".join(part.name for part in usable) or "none"
        size = format_size(memory) if memory < BOUNDLESS else "uncounted"
        text = f"{cpus} cores and {size} of memory (partitions: {names})"
        default = have.default or max(usable, key=lambda part: part.cores, default=None)
        cores = (default.cores or None) if default else None
        return Limits(cpus, memory, have.max_array, text, cores, shared=True)

    @_asking()
    def check(self, plan: Plan, options: Mapping[str, Any]) -> list[Problem]:
        """Return what stands against running this plan here."""
        passed, problems = read_options(options)
        try:
            commands.find("sbatch")
            have = cluster.current()
        except SlurmUnavailableError as error:
            hint = "submit('local') runs it on this machine."
            return [*problems, Problem("slurm", f"{error}".rstrip(".") + ".", hint)]
        problems += check.partition(have, passed)
        part = have.partition(passed.partition)
        if part is not None:
            for stage in plan.stages:
                request = StageRequest(stage.name, stage.resources, stage.environment)
                problems += check.stage(request, len(stage.tasks), have, part, passed)
        stages = sum(bool(stage.tasks) for stage in plan.stages)
        if stages > (most := array_layout.most_elements(have.max_jobs, passed.max_jobs)):
            text = f"{stages} stages need as many array elements; {most} are allowed."
            problems.append(Problem("slurm_max_jobs", text, "Raise it."))
        if part is not None and not any(not problem.warning for problem in problems):
            problems += check.by_slurm(plan, part, passed)
        return problems

    @_asking()
    def payload(self, plan: Plan, options: Mapping[str, Any]) -> str:
        """Return the sbatch call and the job script of each array, RUN being the run folder."""
        passed, problems = read_options(options)
        refuse(problems)
        have = cluster.current()
        part = check.chosen(have, passed)
        works = [
            StageWork(stage.name, tuple(range(len(stage.tasks))), stage.resources)
            for stage in plan.stages
            if stage.tasks
        ]
        texts = []
        for array in array_layout.layout(
            works, have.max_array, array_layout.most_elements(have.max_jobs, passed.max_jobs)
        ):
            stage = plan.stage(array.stage)
            request = StageRequest(stage.name, stage.resources, stage.environment)
            words = arguments(request, array, array.name("JOB"), "RUN", part, passed)
            after = ", ".join(stage.depends_on)
            texts.append(f"# {stage.name}" + (f", after {after}" if after else ""))
            texts.append(shlex.join(["sbatch", *words]) + " <<'EOF'")
            path = os.environ.get("PATH", os.defpath)
            texts.append(
                script(request, array, 1, "RUN", path, have, part, passed, commands.folder())
                + "EOF"
            )
        return "\n".join(texts)

    @_asking()
    def submit(self, run: Run, submission: Submission) -> dict[str, Any]:
        """Hand a submission over: one job array per stage, more where the limits ask for it."""
        return self._sender(run, submission, {}).send()

    @_asking()
    def find(self, run: Run, submission: Submission) -> dict[str, Any] | None:
        """Return the handle of a submission that may or may not have been handed over.

        Where a crash came between two of its arrays, the missing ones are submitted now.
        """
        submitted = {}
        for job in queue.query("--states=all"):
            named = array_layout.parse_name(job.name)
            # A cancelled one was taken back, before another was submitted in its place.
            if named and named[0] == submission.name and job.state != "CANCELLED":
                submitted[named[1]] = job.array
        started = run.started(submission)
        if not submitted and not started:
            return None
        sender = self._sender(run, submission, submitted)
        # The first arrays are released only when the last one is there.
        return sender.handle() if started else sender.send()

    def _sender(
        self, run: Run, submission: Submission, submitted: Mapping[JobArray, str]
    ) -> Sender:
        have = cluster.current()
        passed, problems = read_options(submission.options)
        if problems:  # of a retry, whose options nobody has checked before
            raise SubmitRefusedError("; ".join(map(str, problems)))
        return Sender(run, submission, have, check.chosen(have, passed), passed, submitted)

    def poll(self, runs: Sequence[Run]) -> dict[Run, Sightings]:
        """Say what squeue has; one question serves all jobs and processes of a user."""
        submissions = {run: _mine(run) for run in runs}
        handles = [s.handle for mine in submissions.values() for s in mine if s.handle]
        since = max((handle["at"] for handle in handles), default=0.0)
        # A young job is looked at more often: it may be over in seconds.
        age = min(self.slowest, max(1.0, 0.05 * (time.time() - since)))
        try:
            here = cluster.name()
            answer = queue.Queue().look(age, since)
        except (SlurmUnavailableError, OSError) as error:
            return {run: Sightings(known=False, text=str(error)) for run in runs}
        if not answer.known:
            return {run: Sightings(known=False, text=answer.text) for run in runs}
        held.release(answer.jobs, _handed_over(submissions.values(), here))
        each = chain.from_iterable(submissions.values())
        held.cancel_again(answer.jobs, {s.name for s in each if s.cancelled})
        jobs: dict[str, list[tuple[JobArray, Job]]] = {}
        for job in answer.jobs:
            if named := array_layout.parse_name(job.name):
                jobs.setdefault(named[0], []).append((named[1], job))
        return {run: _sightings(run, mine, jobs, here) for run, mine in submissions.items()}

    @_asking()
    def cancel(self, run: Run, submissions: Iterable[Submission]) -> None:  # noqa: ARG002
        """End what these submissions still have pending or running."""
        mine = list(submissions)
        here = cluster.name()
        elsewhere = {home for s in mine if (home := _home(s, here)) != here}
        if elsewhere:
            raise BackendError(
                f"It runs on the cluster {', '.join(sorted(elsewhere))}, and this is {here}: cancel"
                " it from a machine of that cluster."
            )
        names = {submission.name for submission in mine}
        arrays = []
        for job in queue.query():
            named = array_layout.parse_name(job.name)
            if named and named[0] in names and job.array not in arrays:
                arrays.append(job.array)
        for first in range(0, len(arrays), _NAMED):
            some = arrays[first : first + _NAMED]
            try:
                commands.run("scancel", "--quiet", *some)
            except SlurmRefusedError:  # those that have just ended cannot be cancelled
                if {job.array for job in queue.query()} & set(some):
                    raise
        with suppress(OSError):  # a full disk: what was known serves for some seconds
            queue.Queue().forget()


def _mine(run: Run) -> list[Submission]:
    return [s for s in run.submissions() if s.backend == SlurmBackend.name]


def _handed_over(submissions: Iterable[list[Submission]], here: str) -> set[str]:
    """Return the numbers of the arrays that this cluster has, and that nobody has cancelled."""
    return {
        str(job["id"])
        for submission in chain.from_iterable(submissions)
        if submission.handle and not submission.cancelled and _home(submission, here) == here
        for job in submission.handle["jobs"]
    }


def _home(submission: Submission, here: str) -> str:
    """Return the cluster that has a submission."""
    return str((submission.handle or {}).get("cluster", here))


def _sightings(
    run: Run,
    submissions: list[Submission],
    jobs: Mapping[str, list[tuple[JobArray, Job]]],
    here: str,
) -> Sightings:
    """Return what squeue's jobs say of a run's tasks."""
    tasks: dict[tuple[str, int], Sighting] = {}
    waits: Counter[str] = Counter()
    for submission in submissions:
        home = _home(submission, here)
        if home != here:
            return Sightings(known=False, text=f"runs on the cluster {home}: ask there")
        works = {work.name: work for work in submission.stages}
        # A folder that was deleted may have had jobs of the same name.
        ids = {job["id"] for job in (submission.handle or {}).get("jobs", ())}
        lost: list[LostTask] = []
        for array, job in jobs.get(submission.name, ()):
            seen = sighting(job.state, job.reason)
            if seen is None or job.array not in ids:
                continue
            if seen.state.final and submission.cancelled:
                continue
            if seen.state is State.RUNNING and array.each > 1:
                # Which of its tasks runs is told by a heartbeat.
                seen = Sighting(State.PENDING, text="It has its turn in a running array element.")
            if submission.cancelled:
                seen = replace(seen, text="It is being cancelled.")
            # squeue forgets the number of an only element that was cancelled while it waited.
            for element in elements(job.elements) or [0] * (array.count == 1):
                chosen = works[array.stage].tasks[array.tasks(element)]
                if seen.state.final:
                    about = (job.end or time.time(), f"{job.array}_{element}", bool(job.host))
                    lost += [LostTask(array.stage, index, seen, *about) for index in chosen]
                    continue
                tasks.update(((array.stage, index), seen) for index in chosen)
                waits[seen.text] += len(chosen) if seen.state is State.PENDING else 0
        try:
            tasks = {**lost_tasks.explain(run, submission, lost, SlurmBackend.grace), **tasks}
        except OSError as error:
            return Sightings(known=False, text=f"{run.path}: {error.strerror}")
    text = ""
    if waits and not any(seen.state is State.RUNNING for seen in tasks.values()):
        text = waits.most_common(1)[0][0]
    return Sightings(known=True, tasks=tasks, text=text)
