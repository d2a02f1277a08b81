"""Handing a submission over to sbatch: all of its arrays or none."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from labkit.jobs.backends.base import BackendError, SubmitRefusedError
from labkit.jobs.backends.slurm.array_layout import Part, layout, most_elements
from labkit.jobs.backends.slurm.options import Options
from labkit.jobs.backends.slurm.script import Asked, arguments, script
from labkit.jobs.runs.store import Run, StageWork, Submission
from labkit.slurm import commands
from labkit.slurm.cluster import Cluster, Partition

# A limit on the number of jobs: fewer elements with more tasks each may still pass.
_TOO_MANY = re.compile(r"accounting/qos policy|submit ?job|job submit limit|MaxJob", re.IGNORECASE)


class Sender:
    """Submits the arrays of one submission.

    The first arrays are held until the last one is there, so that either all of it runs, or, after
    a crash, nothing has run yet.

    Parameters
    ----------
    run, submission : Run, Submission
        What is to be submitted.
    have, partition : Cluster, Partition
        Where.
    options : Options
        The options of the submit.
    there : mapping of Part to str
        Arrays that were submitted before a crash, and their job ids.
    """

    def __init__(
        self,
        run: Run,
        submission: Submission,
        have: Cluster,
        partition: Partition,
        options: Options,
        there: Mapping[Part, str] | None = None,
    ) -> None:
        self._run = run
        self._submission = submission
        self._have = have
        self._partition = partition
        self._options = options
        self._jobs = dict(there or {})
        self._works = {work.name: work for work in submission.stages}
        self._manifest = run.manifest

    def send(self) -> dict[str, Any]:
        """Submit what is not there yet, and return the handle.

        Raises
        ------
        SubmitRefusedError
            SLURM said no; nothing of it is left in the queue.
        BackendError
            It cannot be said what SLURM has of it.
        """
        most = most_elements(self._have.jobs, self._options.max_jobs)
        each = max((part.each for part in self._jobs), default=0)
        while True:
            parts = self._layout(most, each)
            try:
                self._send(parts)
            except SubmitRefusedError as error:
                self._withdraw()
                elements = sum(part.count for part in parts)
                if not _TOO_MANY.search(str(error)) or elements <= len(self._works):
                    raise
                # What others of this user's jobs take of the limit is not known.
                most, each = max(len(self._works), elements // 2), 0
            else:
                return self.handle()

    def handle(self) -> dict[str, Any]:
        """Return what finds the submission again."""
        jobs = [
            {"id": job, **vars(part)}
            for part, job in sorted(self._jobs.items(), key=lambda item: item[1])
        ]
        return {"cluster": self._have.name, "at": time.time(), "jobs": jobs}

    def _layout(self, most: int, each: int) -> list[Part]:
        """Return all parts; with ``each``, laid out as those are that were submitted before."""
        works = list(self._works.values())
        if each:
            most = sum(-(-len(work.tasks) // each) for work in works)
        try:
            return layout(works, self._have.array, most)
        except ValueError as error:
            raise SubmitRefusedError(f"{error}: raise slurm_max_jobs.") from error

    def _send(self, parts: list[Part]) -> None:
        held = []
        alone = len(parts) == 1
        for part in parts:
            first = not self._works[part.stage].depends_on
            if first and not alone:
                held.append(part)
            if part not in self._jobs:
                words = ["--hold"] if first and not alone else []
                self._jobs[part] = self._sbatch(part, words)
        if held:
            commands.run("scontrol", "release", ",".join(self._jobs[part] for part in held))

    def _sbatch(self, part: Part, words: list[str]) -> str:
        work = self._works[part.stage]
        asked = self._asked(work)
        place = str(self._run.path)
        words = words + arguments(
            asked, part, part.name(self._submission.name), place, self._partition, self._options
        )
        before = [job for other, job in self._jobs.items() if other.stage in work.depends_on]
        if before:
            kind = "afterany" if work.tolerate_failures else "afterok"
            words.append(f"--dependency={kind}:{':'.join(before)}")
        path = self._manifest.path
        text = script(
            asked, part, self._submission.number, place, path, self._have, self._partition,
            self._options, commands.folder(),
        )  # fmt: skip
        more = {"PATH": path}
        if self._manifest.envs:
            more["LABHUB_ENVS"] = self._manifest.envs
        answer = commands.run("sbatch", *words, text=text, more=more).strip()
        job = answer.partition(";")[0]  # "id;cluster" in a federation
        if not job.isdigit():
            raise BackendError(f"sbatch answered {answer!r} instead of a job's number.")
        return job

    def _asked(self, work: StageWork) -> Asked:
        return Asked(work.name, work.resources, self._manifest.stage(work.name).environment)

    def _withdraw(self) -> None:
        """Take back the arrays that were accepted before another one was refused: all are held."""
        if self._jobs:
            commands.run("scancel", "--quiet", *self._jobs.values())
            self._jobs.clear()
