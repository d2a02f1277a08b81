"""What every workflow offers: check, plan, submit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from labkit.base.problems import Problem, refuse
from labkit.jobs.model import Resources, Stage, parse_memory, parse_time
from labkit.jobs.plan import Plan

if TYPE_CHECKING:
    from labkit.jobs.job import Job

#: Options of every submit, with their help.
OPTIONS = {
    "cpu": "cores of each task",
    "memory": "memory of each task, e.g. '4 GB'",
    "time": "longest time of each task, e.g. '2h'",
    "retries": "further attempts after a transient failure",
    "output": "folder that the run folder is made in",
}


class Workflow(ABC):
    """Something that can be planned and submitted.

    A subclass implements :meth:`check` and :meth:`build`.
    """

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
        from labkit.jobs.submission import backend_of, planned

        return planned(self, backend_of(backend), options)[0]

    def submit(self, backend: str | None = None, **options: Any) -> Job:
        """Submit the job, or find the same job that is there already.

        Parameters
        ----------
        backend : str
            ``"local"`` or ``"slurm"``; None: ``$LABKIT_BACKEND``, else local.
        options
            ``cpu``, ``memory``, ``time``, ``retries``, ``output``, and the backend's own with its
            prefix, e.g. ``slurm_partition=``.

        Returns
        -------
        Job
            The same work submitted again gives the running job, or the finished one; what is
            missing or failed runs again.

        Raises
        ------
        RefusedError
            With all problems; nothing was started.
        """
        from labkit.jobs.submission import submit

        return submit(self, backend, options)


def checked(workflow: Workflow, backend: str) -> Plan:
    """Return a workflow's plan with its warnings; refuse what is no warning."""
    problems = workflow.check()
    refuse(problems)
    plan = workflow.build(backend)
    return replace(plan, backend=backend, problems=(*plan.problems, *problems))


def with_options(plan: Plan, options: dict[str, Any]) -> Plan:
    """Return the plan with ``cpu``, ``memory``, ``time`` and ``retries`` of the caller.

    They are meant for the work itself: the stage ``gather`` keeps its own.

    Raises
    ------
    RefusedError
        One of them cannot be read.
    """
    problems: list[Problem] = []
    changes: dict[str, Any] = {}
    readers: dict[str, Callable[[Any], Any]] = {
        "cpu": float,
        "memory": parse_memory,
        "time": parse_time,
    }
    for name, reader in readers.items():
        if options.get(name) is None:
            continue
        try:
            changes[name] = reader(options[name])
            Resources(**{name: changes[name]})
        except (TypeError, ValueError) as error:
            problems.append(Problem(name, f"{error}."))
    retries = options.get("retries")
    if retries is not None and (not isinstance(retries, int) or not 0 <= retries <= 10):
        problems.append(Problem("retries", f"must be a number from 0 to 10, not {retries!r}."))
    refuse(problems)

    def changed(stage: Stage) -> Stage:
        if stage.name == "gather" and len(plan.stages) > 1:
            return stage
        stage = replace(stage, resources=replace(stage.resources, **changes))
        return stage if retries is None else replace(stage, retries=retries)

    return replace(plan, stages=tuple(changed(stage) for stage in plan.stages))
