"""What every workflow offers: check, plan, submit."""

from __future__ import annotations

import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from labkit.base.addresses import address_problem
from labkit.base.problems import Problem, refuse
from labkit.jobs import prices, submission
from labkit.jobs.backends.base import Backend
from labkit.jobs.job import Job, open_job
from labkit.jobs.options import OPTIONS, split_options, with_options
from labkit.jobs.plan import Plan
from labkit.jobs.runs.index import default_root
from labkit.jobs.runs.store import Run


class Workflow(ABC):
    """Something that can be planned and submitted.

    A subclass implements :meth:`check` and :meth:`build`, and is declared as an entry point of
    ``labhub.workflows`` (see :mod:`labkit.jobs.plugins`). The entry point's name is what a job
    file says after ``workflow:``, and the first word of :attr:`labkit.jobs.plan.Plan.tool`.
    """

    #: What :meth:`submit` and ``labkit.open_job`` return; a subclass of Job may do more.
    job_class: ClassVar[type[Job]] = Job
    #: Folder that the run folder is made in; None: ``$LABKIT_RUNS`` or ``~/labkit-runs``.
    output: str | None = None

    @abstractmethod
    def check(self) -> list[Problem]:
        """Return all problems; those that are no warnings refuse the submit."""

    @abstractmethod
    def build(self, backend: str) -> Plan:
        """Return the plan; only called when :meth:`check` found nothing but warnings.

        Parameters
        ----------
        backend : str
            Name of the backend it will run on, e.g. to size chunks.
        """

    def plan(self, backend: str | None = None, **options: Any) -> Plan:
        """Return what a submit would do (dry run): tasks, resources, the exact payload.

        Raises
        ------
        RefusedError
            With all problems; nothing was started.
        """
        return _prepare(self, submission.backend_of(backend), options)[0]

    def submit(self, backend: str | None = None, *, rerun: bool = False, **options: Any) -> Job:
        """Submit the job, or find the same job that is there already.

        Parameters
        ----------
        backend : str
            ``"local"`` or ``"slurm"``; None: ``$LABKIT_BACKEND``, else local.
        rerun : bool
            Run all of it again where the same work is finished; the earlier results are kept
            aside, in ``results.before-<n>`` of the run folder.
        options
            ``cpu``, ``memory``, ``time``, ``retries``, ``output``, and the backend's own with its
            prefix, e.g. ``slurm_partition=``.

        Returns
        -------
        Job
            The same work submitted again gives the running job, or the finished one and says so;
            what is missing, deleted or failed runs again.

        Raises
        ------
        RefusedError
            With all problems; nothing was started.
        LabkitError
            It is to run again and has not ended.
        """
        where = submission.backend_of(backend)
        plan, own, root = _prepare(self, where, options)
        for problem in plan.problems:
            warnings.warn(str(problem), stacklevel=2)
        run = Run.create(plan, root)
        submission.remember(run)
        note = submission.submit(run, where, plan, own, rerun=rerun)
        job = open_job(run)
        if note:
            job.note = note
            print(f"{job.name}: {note}", file=sys.stderr)
        return job


def _prepare(
    workflow: Workflow, backend: Backend, options: Mapping[str, Any]
) -> tuple[Plan, dict[str, Any], Path]:
    """Return a workflow's plan, the backend's own options and the folder of the run folder.

    All problems are told at once where that is possible: of the options, then of the workflow,
    then of the backend.
    """
    general, own, unknown = split_options(options, OPTIONS, backend)
    refuse(unknown)
    output = general.get("output") or workflow.output or default_root()
    no_folder = address_problem("output", output)
    problems = [*([no_folder] if no_folder else []), *workflow.check()]
    refuse(problems)
    plan = workflow.build(backend.name)
    plan = replace(plan, backend=backend.name, problems=(*plan.problems, *problems))
    plan = with_options(plan, general)
    problems = backend.check(plan, own)
    refuse(problems)
    payload = backend.payload(plan, own)
    plan = replace(plan, problems=(*plan.problems, *problems), payload=payload)
    if cost := prices.before(plan, backend.name):
        plan = replace(plan, notes=(*plan.notes, cost))
    return plan, own, Path(output).expanduser().absolute()
