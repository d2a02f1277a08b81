"""What every backend offers: submit, find, poll, cancel, limits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar

from labkit.base.problems import LabkitError, Problem, unknown_name
from labkit.jobs.model import Reason, State
from labkit.jobs.plan import Plan
from labkit.jobs.runs.store import Run, Submission

# name -> "module:class"; loaded when asked for
_BACKENDS = {
    "local": "labkit.jobs.backends.local:LocalBackend",
    "slurm": "labkit.jobs.backends.slurm:SlurmBackend",
}


class BackendError(LabkitError):
    """The backend could not be asked; the text says why.

    Nothing is known about a submit that ends so: the intent stays, and :meth:`Backend.find`
    tells later whether the backend has it.
    """


class SubmitRefusedError(BackendError):
    """The backend surely did not take the submission; the text says why.

    The intent is withdrawn, so that another submit can ask differently.
    """


@dataclass(frozen=True)
class Limits:
    """What the backend can give.

    Attributes
    ----------
    cpu : float
        Most cores one task may ask for.
    memory : int
        Most bytes one task may ask for.
    tasks : int or None
        Most tasks in one array; longer stages are split by the backend itself.
    text : str
        How people read it: ``"2 cores, 24 GB"``.
    cores : int or None
        Cores of all that there is; None where nobody knows.
    shared : bool
        Others use it too: cores that one job leaves idle are not lost.
    """

    cpu: float
    memory: int
    tasks: int | None = None
    text: str = ""
    cores: int | None = None
    shared: bool = False


@dataclass(frozen=True)
class Sighting:
    """What the backend says of one task that it still has, or whose end it remembers.

    Attributes
    ----------
    state : State
        PENDING and RUNNING tasks are alive. A final state tells why there is no record.
    reason : Reason or None
        For a final state, e.g. NODE_FAIL.
    text : str
        The backend's own words, e.g. ``"waits for resources"``.
    """

    state: State
    reason: Reason | None = None
    text: str = ""


@dataclass(frozen=True)
class Sightings:
    """What the backend says of one run.

    Attributes
    ----------
    known : bool
        False: the query failed, and nothing may be concluded. ``text`` says why.
    tasks : mapping of (stage, index) to Sighting
        A task that is missing here while ``known`` is no longer with the backend.
    text : str
        What people should know, e.g. ``"waits for 4 GB of memory, 1 GB is free"``.
    """

    known: bool
    tasks: Mapping[tuple[str, int], Sighting] = field(default_factory=dict)
    text: str = ""


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


def over_limits(cpu: float, memory: int, limits: Limits) -> list[str]:
    """Return what is asked for beyond the limits, in words."""
    from labkit.jobs.plan import show_bytes

    over = []
    if cpu > limits.cpu:
        over.append(f"{cpu:g} cores")
    if memory > limits.memory:
        over.append(f"{show_bytes(memory)} of memory")
    return over


def names() -> list[str]:
    """Return the names of the backends."""
    return sorted(_BACKENDS)


def get(name: str) -> Backend:
    """Return a backend by its name.

    Raises
    ------
    LabkitError
        There is none of that name; the text lists them.
    """
    if name not in _BACKENDS:
        raise LabkitError(str(unknown_name("backend", str(name), _BACKENDS)))
    module, _, cls = _BACKENDS[name].partition(":")
    backend: Backend = getattr(import_module(module), cls)()
    return backend


def split_options(
    options: Mapping[str, Any], general: Iterable[str], backend: Backend
) -> tuple[dict[str, Any], dict[str, Any], list[Problem]]:
    """Split what a caller gave into general options and the backend's own.

    Options of another backend are checked by name and left aside, so that one call serves all.

    Returns
    -------
    tuple
        General options, the backend's own without prefix, and the unknown ones as problems.
    """
    valid = list(general)
    offered: dict[str, set[str]] = {}
    for name in names():
        try:
            offered[name] = set(get(name).options)
        except ImportError:  # a backend whose parts are not installed here
            continue
        valid += [f"{name}_{option}" for option in offered[name]]
    mine: dict[str, Any] = {}
    own: dict[str, Any] = {}
    problems = []
    for option, value in options.items():
        prefix, _, rest = option.partition("_")
        if option in general:
            mine[option] = value
        elif rest in offered.get(prefix, ()):
            if prefix == backend.name:
                own[rest] = value
        else:
            problems.append(unknown_name("option", option, valid))
    return mine, own, problems
