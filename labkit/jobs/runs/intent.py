"""What a submission asks for: recorded before the backend is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from labkit.jobs.model import Resources, from_ranges, to_ranges


@dataclass(frozen=True)
class StageWork:
    """What a submission runs of one stage.

    Attributes
    ----------
    name : str
        The stage.
    tasks : tuple of int
        Indices, rising.
    resources : Resources
        What each asks for at its first attempt of this submission.
    depends_on : tuple of str
        Stages of this same submission that must have ended before.
    tolerate_failures : bool
        Start also where tasks of those failed.
    retries : int
        Further attempts after a transient failure.
    since : mapping of int to int
        For a task's index, the first submission whose success of it counts. A task that is not
        here is made anew: only a success of this submission, or a later one, counts.
    """

    name: str
    tasks: tuple[int, ...]
    resources: Resources
    depends_on: tuple[str, ...] = ()
    tolerate_failures: bool = False
    retries: int = 2
    since: Mapping[int, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        since: dict[int, list[int]] = {}
        for index, number in self.since.items():
            since.setdefault(number, []).append(index)
        return {
            "name": self.name,
            "tasks": to_ranges(self.tasks),
            "resources": self.resources.to_json(),
            "depends_on": list(self.depends_on),
            "tolerate_failures": self.tolerate_failures,
            "retries": self.retries,
            "since": {str(number): to_ranges(indices) for number, indices in since.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StageWork:
        """Make it of what :meth:`to_json` wrote; earlier versions knew no ``since``."""
        return cls(
            name=data["name"],
            tasks=tuple(from_ranges(data["tasks"])),
            resources=Resources.from_json(data["resources"]),
            depends_on=tuple(data["depends_on"]),
            tolerate_failures=data["tolerate_failures"],
            retries=data["retries"],
            since={
                index: int(number)
                for number, indices in data.get("since", {}).items()
                for index in from_ranges(indices)
            },
        )


@dataclass(frozen=True)
class Submission:
    """An intent to run tasks, recorded before the backend is called.

    Attributes
    ----------
    number : int
        Counts from 1 in its run.
    name : str
        Deterministic and unique: what the backend carries, so that it can be found again.
    backend : str
        Name of the backend.
    options : mapping
        The backend's own options, without prefix.
    stages : tuple of StageWork
        In order.
    handle : mapping or None
        What the backend answered; None: not (known to be) handed over.
    cancelled : bool
        Whether somebody asked to cancel it.
    """

    number: int
    name: str
    backend: str
    stages: tuple[StageWork, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    created: str = ""
    handle: Mapping[str, Any] | None = None
    cancelled: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the intent as plain JSON."""
        return {
            "number": self.number,
            "name": self.name,
            "backend": self.backend,
            "options": dict(self.options),
            "created": self.created,
            "stages": [stage.to_json() for stage in self.stages],
        }

    @classmethod
    def from_json(
        cls, data: Mapping[str, Any], handle: Mapping[str, Any] | None, cancelled: bool
    ) -> Submission:
        """Make it of what :meth:`to_json` wrote, with what has become of it."""
        return cls(
            number=data["number"],
            name=data["name"],
            backend=data["backend"],
            options=data["options"],
            created=data["created"],
            stages=tuple(StageWork.from_json(stage) for stage in data["stages"]),
            handle=handle,
            cancelled=cancelled,
        )


def success_since(submissions: Sequence[Submission]) -> dict[str, dict[int, int]]:
    """Return by stage and index the first submission whose success of a task counts.

    Parameters
    ----------
    submissions : sequence of Submission
        All of a run, the first first.
    """
    since: dict[str, dict[int, int]] = {}
    for submission in submissions:
        for work in submission.stages:
            tasks = since.setdefault(work.name, {})
            tasks.update(dict.fromkeys(work.tasks, submission.number))
            tasks.update(work.since)
    return since
