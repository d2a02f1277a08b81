"""Handing a submission over to sbatch: all of its arrays or none."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Mapping
from typing import Any

from labkit.jobs.backends.base import BackendError, SubmitRefusedError
from labkit.jobs.backends.local_queue import clean_environment
from labkit.jobs.backends.slurm import held, queue
from labkit.jobs.backends.slurm.array_layout import JobArray, layout, most_elements
from labkit.jobs.backends.slurm.options import Options
from labkit.jobs.backends.slurm.script import StageRequest, arguments, script
from labkit.jobs.runs.store import Run, StageWork, Submission
from labkit.slurm import commands
from labkit.slurm.cluster import Cluster, Partition
from labkit.slurm.commands import SlurmRefusedError, SlurmUnavailableError, UnreadableError

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
    cluster, partition : Cluster, Partition
        Where.
    options : Options
        The options of the submit.
    submitted : mapping of JobArray to str
        Arrays that were submitted before a crash, and their job ids.
    """

    def __init__(
        self,
        run: Run,
        submission: Submission,
        cluster: Cluster,
        partition: Partition,
        options: Options,
        submitted: Mapping[JobArray, str] | None = None,
    ) -> None:
        self._run = run
        self._submission = submission
        self._cluster = cluster
        self._partition = partition
        self._options = options
        self._jobs = dict(submitted or {})
        self._works = {work.name: work for work in submission.stages}
        self._manifest = run.manifest

    def send(self) -> dict[str, Any]:
        """Submit what is not there yet, and return the handle.

        Raises
        ------
        SubmitRefusedError, SlurmRefusedError
            SLURM said no; nothing of it is left in the queue.
        BackendError, SlurmUnavailableError
            It cannot be said what SLURM has of it.
        """
        most = most_elements(self._cluster.max_jobs, self._options.max_jobs)
        each = max((array.each for array in self._jobs), default=0)
        while True:
            arrays = self._layout(most, each)
            try:
                self._send(arrays)
            except SlurmRefusedError as error:
                self._withdraw()
                elements = sum(array.count for array in arrays)
                if not _TOO_MANY.search(str(error)) or elements <= len(self._works):
                    raise
                # What others of this user's jobs take of the limit is not known.
                most, each = max(len(self._works), elements // 2), 0
            else:
                return self.handle()

    def handle(self) -> dict[str, Any]:
        """Return what finds the submission again."""
        jobs = [
            {"id": job, **vars(array)}
            for array, job in sorted(self._jobs.items(), key=lambda item: item[1])
        ]
        return {"cluster": self._cluster.name, "at": time.time(), "jobs": jobs}

    def _layout(self, most: int, each: int) -> list[JobArray]:
        """Return all arrays; with ``each``, laid out as those are that were submitted before."""
        works = list(self._works.values())
        if each:
            most = sum(-(-len(work.tasks) // each) for work in works)
        try:
            return layout(works, self._cluster.max_array, most)
        except ValueError as error:
            raise SubmitRefusedError(f"{error}: raise slurm_max_jobs.") from error

    def _send(self, arrays: list[JobArray]) -> None:
        waiting = []
        alone = len(arrays) == 1
        for array in arrays:
            first = not self._works[array.stage].depends_on
            if first and not alone:
                waiting.append(array)
            if array not in self._jobs:
                words = list(held.HOLD) if first and not alone else []
                self._jobs[array] = self._sbatch(array, words)
        if waiting:
            held.let_go(self._jobs[array] for array in waiting)

    def _sbatch(self, array: JobArray, words: list[str]) -> str:
        work = self._works[array.stage]
        request = self._request(work)
        place = str(self._run.path)
        name = array.name(self._submission.name)
        words = words + arguments(request, array, name, place, self._partition, self._options)
        before = [job for other, job in self._jobs.items() if other.stage in work.depends_on]
        if before:
            kind = "afterany" if work.tolerate_failures else "afterok"
            words.append(f"--dependency={kind}:{':'.join(before)}")
        path = self._manifest.path
        text = script(
            request, array, self._submission.number, place, path, self._cluster, self._partition,
            self._options, commands.folder(),
        )  # fmt: skip
        # An allow-list: no token reaches a job, nor does anything of a job around us: its SLURM_*
        # and SBATCH_* variables would be taken for options.
        env = {**clean_environment(), **commands.configuration(), "PATH": path}
        if self._manifest.envs:
            env["LABHUB_ENVS"] = self._manifest.envs
        try:
            printed = commands.run("sbatch", *words, stdin=text, env=env).strip()
            job = printed.partition(";")[0]  # "id;cluster" in a federation
            if not job.isdecimal():
                raise UnreadableError(f"sbatch printed {printed[:80]!r} instead of a job's number")
        except SlurmRefusedError:
            raise
        except SlurmUnavailableError as error:
            return self._lost(name, error)
        return job

    def _lost(self, name: str, error: SlurmUnavailableError) -> str:
        """Return the array of a name, whose sbatch had no usable answer: it may be there.

        Raises
        ------
        BackendError
            It cannot be seen: it may still come.
        """
        with contextlib.suppress(SlurmUnavailableError):
            for job in queue.query("--states=all"):
                if job.name == name and job.state != "CANCELLED":
                    return job.array
        raise BackendError(
            f"{error}. Nobody knows whether SLURM has taken the job. Submit it again, in a minute: "
            "it is looked for first, and never runs twice."
        ) from error

    def _request(self, work: StageWork) -> StageRequest:
        return StageRequest(work.name, work.resources, self._manifest.stage(work.name).environment)

    def _withdraw(self) -> None:
        """Take back the arrays that were accepted before another one was refused: all are held."""
        if self._jobs:
            commands.run("scancel", "--quiet", *self._jobs.values())
            self._jobs.clear()
