"""What a job is made of: resources, environments, tasks, stages, states and reasons."""

from __future__ import annotations

import math
import re
import string
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from labkit.base.units import parse_duration, parse_size

DEFAULT_MEMORY = 2 * 1024**3  # bytes
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=@-]{0,119}")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")


class State(StrEnum):
    """State of a job, a stage, a task or an attempt."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def final(self) -> bool:
        """Whether it stays so without a retry."""
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED)


class Reason(StrEnum):
    """Why a task failed or was cancelled."""

    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    TIMEOUT = "TIMEOUT"
    PREEMPTED = "PREEMPTED"
    NODE_FAIL = "NODE_FAIL"
    SPOT_RECLAIM = "SPOT_RECLAIM"
    LOST = "LOST"  # its process is gone and left no record
    EXIT = "EXIT"  # the program ended with an error
    CHECK = "CHECK"  # the program said it was well, its outputs say otherwise
    INPUT = "INPUT"  # a declared input is missing
    DISK_FULL = "DISK_FULL"
    STORAGE = "STORAGE"  # the run folder cannot be written
    DRIVER = "DRIVER"  # labkit's own code around the program failed
    DEPENDENCY = "DEPENDENCY"  # a stage before it failed
    SUPERSEDED = "SUPERSEDED"  # another attempt was first
    CANCELLED = "CANCELLED"  # somebody asked for it


def parse_time(value: timedelta | int | float | str | None) -> timedelta | None:
    """Return the span of ``"90 min"``, ``"1h30m"``, ``"2-12:00:00"`` or a number of seconds.

    Raises
    ------
    ValueError
        It is no span of time, or not above zero.
    """
    if value is None:
        return None
    span = parse_duration(value)
    if span <= timedelta(0):
        raise ValueError(f"time must be above zero, not {value!r}")
    return span


def grow_memory(memory: int, wish: int | float | str) -> int:
    """Return ``memory`` (bytes) times two for ``"x2"``, or the wish itself as a size."""
    if isinstance(wish, str) and (factor := re.fullmatch(r"x\s*([0-9]*\.?[0-9]+)", wish.strip())):
        return max(1, int(memory * float(factor[1])))
    return parse_size(wish)


@dataclass(frozen=True)
class Resources:
    """What one task asks for.

    Attributes
    ----------
    cpu : float
        Cores.
    memory : int
        Bytes, of the task's whole process tree.
    time : timedelta or None
        Longest time an attempt may take; None: no limit of ours.
    scratch : int
        Bytes of temporary disk.
    gpus : int
        GPUs.
    """

    cpu: float = 1.0
    memory: int = DEFAULT_MEMORY
    time: timedelta | None = None
    scratch: int = 0
    gpus: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.cpu) and self.cpu > 0):
            raise ValueError(f"cpu must be above zero, not {self.cpu!r}")
        if self.memory < 1:
            raise ValueError(f"memory must be above zero, not {self.memory!r}")
        if self.scratch < 0 or self.gpus < 0:
            raise ValueError("scratch and gpus cannot be below zero")

    @classmethod
    def of(
        cls,
        cpu: float = 1.0,
        memory: int | str = DEFAULT_MEMORY,
        time: timedelta | int | float | str | None = None,
        scratch: int | str = 0,
        gpus: int = 0,
    ) -> Resources:
        """Make resources of what people write: ``Resources.of(2, "4 GB", "1h")``."""
        return cls(
            cpu=float(cpu),
            memory=parse_size(memory),
            time=parse_time(time),
            scratch=parse_size(scratch) if scratch else 0,
            gpus=int(gpus),
        )

    def with_memory(self, memory: int) -> Resources:
        """Return the same with other memory (bytes)."""
        return replace(self, memory=memory)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON; the time in seconds."""
        return {**asdict(self), "time": self.time.total_seconds() if self.time else None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Resources:
        """Make them of what :meth:`to_json` wrote."""
        time = data.get("time")
        return cls(
            cpu=data["cpu"],
            memory=data["memory"],
            time=timedelta(seconds=time) if time else None,
            scratch=data.get("scratch", 0),
            gpus=data.get("gpus", 0),
        )


@dataclass(frozen=True)
class Environment:
    """A named environment of the lab (``images/<name>``): ``$LABHUB_ENVS/<name>/bin`` on a disk.

    Attributes
    ----------
    name : str
        E.g. ``"cellprofiler"``.
    """

    name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no name of an environment: use a-z, 0-9 and -")


@dataclass(frozen=True)
class Container:
    """A container image, for backends that run containers.

    Attributes
    ----------
    image : str
        Reference, best by digest: ``name@sha256:…``; for Apptainer the path of a .sif file.
    """

    image: str


def literal(value: object) -> str:
    """Return text that stays as it is in a task's ``argv``, ``env``, ``inputs`` and ``outputs``.

    These are :class:`string.Template` texts, filled in on the node where the task runs; see
    :data:`PLACEHOLDERS`. A dollar of the user's own must be doubled.
    """
    return str(value).replace("$", "$$")


PLACEHOLDERS = {
    "out": "folder of this attempt; it is committed as ${results}/<stage>/<key>",
    "run": "run folder",
    "files": "the plan's own files (Plan.files)",
    "results": "committed results, one folder per stage and key",
    "tmp": "temporary folder of this attempt, removed at its end",
    "envs": "folder of the lab's environments (LABHUB_ENVS)",
    "cpu": "cores, rounded up",
    "memory": "memory in bytes",
    "memory_mb": "memory in MB",
    "attempt": "number of this attempt, from 1",
    "key": "key of the task",
    "index": "index of the task, from 0",
}


@dataclass(frozen=True)
class Task:
    """One command over one slice of a table.

    Attributes
    ----------
    key : str
        Name, unique in its stage and safe as a file name.
    index : int
        Place in its stage, from 0: the array index.
    argv : tuple of str
        Program and arguments, each a :class:`string.Template` over :data:`PLACEHOLDERS`
        (see :func:`literal`). A driver gets it filled in.
    inputs : tuple of str
        Files or folders that must exist before the task starts. Objects in S3 (``s3://…``) are
        fetched before, to ``${tmp}/`` and :func:`labkit.base.remote.local_name` of the address.
    outputs : tuple of str
        Globs below the attempt's folder; each must match something that is not empty.
    env : mapping
        Environment variables beside the standard ones.
    units : int
        What progress counts, e.g. image sets.
    params : mapping
        Plain JSON for the stage's driver.
    """

    key: str
    index: int
    argv: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    units: int = 1
    params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _KEY.fullmatch(self.key):
            raise ValueError(f"{self.key!r} is no key of a task: see labkit.jobs.model.safe_key")
        for text in (*self.argv, *self.inputs, *self.outputs, *self.env.values()):
            if "$" not in text:
                continue
            template = string.Template(text)
            if not template.is_valid() or set(template.get_identifiers()) - set(PLACEHOLDERS):
                raise ValueError(
                    f"{text!r}: a dollar must be doubled (labkit.jobs.model.literal), or name "
                    f"one of {', '.join(PLACEHOLDERS)}"
                )


def safe_key(text: object) -> str:
    """Return a task key made of any text: what a file name cannot carry becomes ``_``."""
    key = re.sub(r"[^A-Za-z0-9._+=@-]+", "_", str(text)).lstrip("._+=@-")[:120]
    return key or "task"


@dataclass(frozen=True)
class Stage:
    """Tasks that ask for the same and may run at the same time: one job array.

    Attributes
    ----------
    name : str
        E.g. ``"analysis"``; the last stage of a workflow that gathers is ``"gather"``.
    tasks : tuple of Task
        Their ``index`` counts from 0.
    resources : Resources
        What each asks for.
    environment : Environment, Container or None
        Where the programs come from; None: the PATH of the one who submits.
    depends_on : tuple of str
        Stages that must have ended before.
    tolerate_failures : bool
        Start also where tasks of those stages failed (a gather over what is there).
    retries : int
        Further attempts after a transient failure; memory doubles after OUT_OF_MEMORY.
    driver : Path or None
        Python module (standard library, 3.9+) with ``run(task)``, which the worker calls instead
        of running ``argv``. The package (folder) that it lies in is copied whole into the run
        folder: there is no labkit on a node.
    """

    name: str
    tasks: tuple[Task, ...]
    resources: Resources = field(default_factory=Resources)
    environment: Environment | Container | None = None
    depends_on: tuple[str, ...] = ()
    tolerate_failures: bool = False
    retries: int = 2
    driver: Path | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no name of a stage: use a-z, 0-9 and -")
        if [task.index for task in self.tasks] != list(range(len(self.tasks))):
            raise ValueError(f"stage {self.name}: the tasks' indices must count from 0")
        if len({task.key for task in self.tasks}) != len(self.tasks):
            raise ValueError(f"stage {self.name}: two tasks have the same key")
        if self.retries < 0:
            raise ValueError(f"stage {self.name}: retries cannot be below zero")
        if self.driver is not None:
            for part in (self.driver.parent.name, self.driver.stem):
                if not part.isidentifier():
                    raise ValueError(
                        f"stage {self.name}: {part!r} of its driver cannot be imported"
                    )


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


def to_ranges(indices: Iterable[int]) -> str:
    """Return ``"0-4,7"`` for 0, 1, 2, 3, 4 and 7."""
    parts: list[str] = []
    start = end = -2
    for index in [*sorted(set(indices)), -1]:
        if index == end + 1:
            end = index
            continue
        if start >= 0:
            parts.append(f"{start}" if start == end else f"{start}-{end}")
        start = end = index
    return ",".join(parts)


def from_ranges(text: str) -> list[int]:
    """Return the numbers of ``"0-4,7"``."""
    indices: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        indices.extend(range(int(first), int(last or first) + 1))
    return indices
