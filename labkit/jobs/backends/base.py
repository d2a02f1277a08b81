"""What every backend offers: submit, find, poll, cancel, limits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from labkit.base.problems import LabkitError, Problem
from labkit.base.units import format_size
from labkit.jobs import plugins
from labkit.jobs.model import Limits, Sightings
from labkit.jobs.plan import Plan
from labkit.jobs.runs.store import Run, Submission


class BackendError(LabkitError):
    """The backend could not be asked; the text says why.

    Nothing is known about a submit that ends so: the intent stays, and :meth:`Backend.find`
    tells later whether the backend has it.
    """


class SubmitRefusedError(BackendError):
    """The backend surely did not take the submission; the text says why.

    The intent is withdrawn, so that another submit can ask differently.
    """


class Backend(ABC):
    """Where tasks run.

    Records in the run folder come first; the backend is asked only for what they do not tell.
    """

    name: ClassVar[str]
    #: Valid options of this backend with their help, without the prefix: ``slurm_partition=`` is
    #: ``partition`` here.
    options: ClassVar[Mapping[str, str]] = {}

    def check(self, plan: Plan, options: Mapping[str, Any]) -> list[Problem]:  # noqa: ARG002
        """Return what stands against running this plan here.

        Parameters
        ----------
        options : mapping
            This backend's own options, without prefix; unknown names were refused before.
        """
        limits = self.limits()
        return [
            Problem(
                f"stage {stage.name}",
                f"each task asks for {asked}, {self.name} has at most {limits.text}.",
                "Ask for less, or choose another backend.",
            )
            for stage in plan.stages
            for asked in over_limits(stage.resources.cpu, stage.resources.memory, limits)
        ]

    def complete(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options with this machine's defaults, as they are kept with a submission.

        What is found again later, perhaps by a process that has other defaults, is found by them.
        """
        return dict(options)

    #: Seconds between two looks at most while a job is waited for.
    slowest: ClassVar[float] = 5.0
    #: Seconds that a task may be missing, here and in the records, before it counts as lost: what
    #: a shared disk may take to show a record.
    grace: ClassVar[float] = 0.0

    @abstractmethod
    def limits(self) -> Limits:
        """Return what one task may ask for at most."""

    @abstractmethod
    def payload(self, plan: Plan, options: Mapping[str, Any]) -> str:
        """Return exactly what a submit would hand over, for people to read."""

    @abstractmethod
    def submit(self, run: Run, submission: Submission) -> dict[str, Any]:
        """Hand a submission over and return the handle (plain JSON) to find it again.

        It is called once per intent, under the run's lock. The backend must carry
        ``submission.name``, so that :meth:`find` sees it after a crash.

        Raises
        ------
        SubmitRefusedError
            It said no: a wrong partition, a limit.
        BackendError
            It could not be asked, or its answer was lost.
        """

    @abstractmethod
    def find(self, run: Run, submission: Submission) -> dict[str, Any] | None:
        """Return the handle of a submission that may or may not have been handed over.

        Returns
        -------
        dict or None
            None: the backend surely does not have it.

        Raises
        ------
        BackendError
            The query failed: nothing is known.
        """

    @abstractmethod
    def poll(self, runs: Sequence[Run]) -> dict[Run, Sightings]:
        """Ask for all runs with one query. Never raises: a query that fails is not ``known``."""

    @abstractmethod
    def cancel(self, run: Run, submissions: Iterable[Submission]) -> None:
        """End what these submissions still have pending or running.

        Raises
        ------
        BackendError
            It could not be asked.
        """

    def forget(self, run: Run, submissions: Iterable[Submission]) -> None:  # noqa: B027
        """Delete what lies outside of the run folder for a run that has ended and is deleted.

        Raises
        ------
        BackendError
            It could not be deleted.
        """


def over_limits(cpu: float, memory: int, limits: Limits) -> list[str]:
    """Return what is asked for beyond the limits, in words."""
    over = []
    if cpu > limits.cpu:
        over.append(f"{cpu:g} cores")
    if memory > limits.memory:
        over.append(f"{format_size(memory)} of memory")
    return over


def names() -> list[str]:
    """Return the names of the backends."""
    return plugins.names(plugins.BACKENDS)


def get(name: str) -> Backend:
    """Return a backend by its name.

    Raises
    ------
    LabkitError
        There is none of that name; the text lists them.
    PluginError
        It cannot be loaded, or several distributions declare it.
    """
    plugin = plugins.find(plugins.BACKENDS, name)
    backend: type[Backend] = plugin.load(Backend)
    if backend.name != name:
        raise plugins.PluginError(
            f"The backend {name!r} of the distribution {plugin.distribution!r} calls itself "
            f"{backend.name!r}: its attribute name must be the entry point's."
        )
    return backend()
