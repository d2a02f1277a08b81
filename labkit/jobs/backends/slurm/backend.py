"""SLURM as a backend."""

from __future__ import annotations

import os
import shlex
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from labkit.base.problems import Problem, refuse
from labkit.base.units import format_size
from labkit.jobs.backends.base import Backend, BackendError, SubmitRefusedError
from labkit.jobs.backends.slurm import array_layout, check, lost_tasks
from labkit.jobs.backends.slurm.array_layout import Part
from labkit.jobs.backends.slurm.lost_tasks import Ended
from labkit.jobs.backends.slurm.options import HELP
from labkit.jobs.backends.slurm.options import read as read_options
from labkit.jobs.backends.slurm.script import Asked, arguments, script
from labkit.jobs.backends.slurm.submit import Sender
from labkit.jobs.model import Limits, Sighting, Sightings, State
from labkit.jobs.plan import Plan
from labkit.jobs.runs.store import Run, StageWork, Submission
from labkit.slurm import cluster, commands, queue, states
from labkit.slurm.queue import Row

_NAMED = 500  # jobs of one scancel


class SlurmBackend(Backend):
    """Runs tasks as job arrays of the cluster that this machine belongs to.

    Only ``sbatch``, ``squeue``, ``scancel`` and ``scontrol`` are used: no accounting is needed.
    """

    name: ClassVar[str] = "slurm"
    options: ClassVar[Mapping[str, str]] = HELP
    slowest: ClassVar[float] = 5.0
    grace: ClassVar[float] = 60.0  # NFS shows a new file up to a minute later

    def limits(self) -> Limits:
        """Return what the partitions that take this user's jobs have at most."""
        have = cluster.current()
        usable = have.usable
        memory = max((part.most_memory for part in usable), default=0)
        cpus = max((part.most_cpus for part in usable), default=0)
        names = ", ".join(part.name for part in usable) or "none"
        size = format_size(memory) if memory < cluster.BOUNDLESS else "uncounted"
        text = f"{cpus} cores and {size} of memory (partitions: {names})"
        default = have.default or max(usable, key=lambda part: part.cores, default=None)
        cores = (default.cores or None) if default else None
        return Limits(cpus, memory, have.array, text, cores, shared=True)

    def check(self, plan: Plan, options: Mapping[str, Any]) -> list[Problem]:
        """Return what stands against running this plan here."""
        passed, problems = read_options(options)
        try:
            commands.program("sbatch")
            have = cluster.current()
        except BackendError as error:
            return [*problems, Problem("slurm", str(error))]
        problems += check.partition(have, passed)
        part = have.partition(passed.partition)
        if part is not None:
            for stage in plan.stages:
                asked = Asked(stage.name, stage.resources, stage.environment)
                problems += check.stage(asked, len(stage.tasks), have, part, passed)
        stages = sum(bool(stage.tasks) for stage in plan.stages)
        if stages > (most := array_layout.most_elements(have.jobs, passed.max_jobs)):
            text = f"{stages} stages need as many array elements; {most} are allowed."
            problems.append(Problem("slurm_max_jobs", text, "Raise it."))
        if part is not None and not any(not problem.warning for problem in problems):
            problems += check.by_slurm(plan, part, passed)
        return problems

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
        for piece in array_layout.layout(
            works, have.array, array_layout.most_elements(have.jobs, passed.max_jobs)
        ):
            stage = plan.stage(piece.stage)
            asked = Asked(stage.name, stage.resources, stage.environment)
            words = arguments(asked, piece, piece.name("JOB"), "RUN", part, passed)
            after = ", ".join(stage.depends_on)
            texts.append(f"# {stage.name}" + (f", after {after}" if after else ""))
            texts.append(shlex.join(["sbatch", *words]) + " <<'EOF'")
            path = os.environ.get("PATH", os.defpath)
            texts.append(
                script(asked, piece, 1, "RUN", path, have, part, passed, commands.folder()) + "EOF"
            )
        return "\n".join(texts)

    def submit(self, run: Run, submission: Submission) -> dict[str, Any]:
        """Hand a submission over: one job array per stage, more where the limits ask for it."""
        return self._sender(run, submission, {}).send()

    def find(self, run: Run, submission: Submission) -> dict[str, Any] | None:
        """Return the handle of a submission that may or may not have been handed over.

        Where a crash came between two of its arrays, the missing ones are submitted now.
        """
        there = {}
        for row in queue.query("--states=all"):
            found = array_layout.parse_name(row.name)
            # A cancelled one was taken back, before another was submitted in its place.
            if found and found[0] == submission.name and row.state != "CANCELLED":
                there[found[1]] = row.job
        started = run.started(submission)
        if not there and not started:
            return None
        sender = self._sender(run, submission, there)
        # The first arrays are released only when the last one is there.
        return sender.handle() if started else sender.send()

    def _sender(self, run: Run, submission: Submission, there: Mapping[Part, str]) -> Sender:
        have = cluster.current()
        passed, problems = read_options(submission.options)
        if problems:  # of a retry, whose options nobody has checked before
            raise SubmitRefusedError("; ".join(map(str, problems)))
        return Sender(run, submission, have, check.chosen(have, passed), passed, there)

    def poll(self, runs: Sequence[Run]) -> dict[Run, Sightings]:
        """Say what squeue has; one question serves all jobs and processes of a user."""
        submissions = {run: _mine(run) for run in runs}
        handles = [s.handle for found in submissions.values() for s in found if s.handle]
        since = max((handle["at"] for handle in handles), default=0.0)
        # A young job is looked at more often: it may be over in seconds.
        age = min(self.slowest, max(1.0, 0.05 * (time.time() - since)))
        try:
            here = cluster.name()
            answer = queue.Queue().look(age, since)
        except (BackendError, OSError) as error:
            return {run: Sightings(known=False, text=str(error)) for run in runs}
        if not answer.known:
            return {run: Sightings(known=False, text=answer.text) for run in runs}
        rows: dict[str, list[tuple[Part, Row]]] = {}
        for row in answer.rows:
            if found := array_layout.parse_name(row.name):
                rows.setdefault(found[0], []).append((found[1], row))
        return {run: _sightings(run, found, rows, here) for run, found in submissions.items()}

    def cancel(self, run: Run, submissions: Iterable[Submission]) -> None:  # noqa: ARG002
        """End what these submissions still have pending or running."""
        names = {submission.name for submission in submissions}
        jobs = []
        for row in queue.query():
            found = array_layout.parse_name(row.name)
            if found and found[0] in names and row.job not in jobs:
                jobs.append(row.job)
        for first in range(0, len(jobs), _NAMED):
            some = jobs[first : first + _NAMED]
            try:
                commands.run("scancel", "--quiet", *some)
            except SubmitRefusedError:  # those that have just ended cannot be cancelled
                if {row.job for row in queue.query()} & set(some):
                    raise


def _mine(run: Run) -> list[Submission]:
    return [s for s in run.submissions() if s.backend == SlurmBackend.name]


def _sightings(
    run: Run,
    submissions: list[Submission],
    rows: Mapping[str, list[tuple[Part, Row]]],
    here: str,
) -> Sightings:
    """Return what squeue's rows say of a run's tasks."""
    tasks: dict[tuple[str, int], Sighting] = {}
    waits: Counter[str] = Counter()
    for submission in submissions:
        there = (submission.handle or {}).get("cluster", here)
        if there != here:
            return Sightings(known=False, text=f"runs on the cluster {there}: ask there")
        works = {work.name: work for work in submission.stages}
        # A folder that was deleted may have had jobs of the same name.
        ids = {job["id"] for job in (submission.handle or {}).get("jobs", ())}
        over: list[Ended] = []
        for part, row in rows.get(submission.name, ()):
            seen = states.sighting(row.state, row.reason)
            if seen is None or row.job not in ids:
                continue
            if seen.state.final and submission.cancelled:
                continue
            if seen.state is State.RUNNING and part.each > 1:
                # Which of its tasks runs is told by a heartbeat.
                seen = Sighting(State.PENDING, text="has its turn in a running array element")
            # squeue forgets the number of an only element that was cancelled while it waited.
            elements = array_layout.elements(row.elements) or [0] * (part.count == 1)
            for element in elements:
                chosen = works[part.stage].tasks[part.tasks(element)]
                if seen.state.final:
                    at, job = _seconds(row.end), f"{row.job}_{element}"
                    over += [Ended(part.stage, index, seen, at, job) for index in chosen]
                    continue
                tasks.update(((part.stage, index), seen) for index in chosen)
                waits[seen.text] += len(chosen) if seen.state is State.PENDING else 0
        try:
            tasks = {**lost_tasks.explain(run, submission, over, SlurmBackend.grace), **tasks}
        except OSError as error:
            return Sightings(known=False, text=f"{run.path}: {error.strerror}")
    text = ""
    if waits and not any(seen.state is State.RUNNING for seen in tasks.values()):
        text = waits.most_common(1)[0][0]
    return Sightings(known=True, tasks=tasks, text=text)


def _seconds(text: str) -> float:
    """Return squeue's time, which is local and has no zone, in seconds since 1970."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return time.time()
