"""How the tasks of a submission are laid out as job arrays."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from labkit.jobs.runs.store import StageWork

_NAME = re.compile(r"(?P<submission>.+)\.(?P<stage>[a-z][a-z0-9-]*)\.(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True)
class JobArray:
    """One job array: some tasks of one stage.

    Its name tells all of it, so that squeue's answer is enough to find it again.

    Attributes
    ----------
    stage : str
        Name of the stage.
    start : int
        Place of its first task among the submission's tasks of that stage, from 0.
    count : int
        Elements.
    each : int
        Tasks that an element runs, one after the other; the last element may have fewer.
    """

    stage: str
    start: int
    count: int
    each: int

    def name(self, submission: str) -> str:
        """Return the job's name."""
        return f"{submission}.{self.stage}.{self.start}.{self.count}.{self.each}"

    def tasks(self, element: int) -> slice:
        """Return which of the stage's tasks an element has."""
        first = self.start + element * self.each
        return slice(first, first + self.each)


@lru_cache(1024)  # a thousand running tasks have one name
def parse_name(name: str) -> tuple[str, JobArray] | None:
    """Return the submission's name and the array that a job's name tells; None for other jobs."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    start, count, each = map(int, match.groups()[2:])
    return match["submission"], JobArray(match["stage"], start, count, each)


def most_elements(kept: int, wished: int | None) -> int:
    """Return how many array elements one submission may put into the queue.

    Parameters
    ----------
    kept : int
        MaxJobCount: the controller keeps so many jobs of all users, those that have ended lately
        included. At most half of that is for one submission.
    wished : int or None
        What a person allows.
    """
    most = max(1, kept // 2)
    return min(most, wished) if wished else most


def layout(works: Sequence[StageWork], largest: int, most: int) -> list[JobArray]:
    """Lay tasks out as job arrays.

    Parameters
    ----------
    works : sequence of StageWork
        The stages.
    largest : int
        Most elements of one array.
    most : int
        Most elements in all. Where there are more tasks, elements share them.

    Raises
    ------
    ValueError
        There are more stages than elements.
    """
    if len(works) > most:
        raise ValueError(f"{len(works)} stages need as many array elements; {most} are allowed")
    each = 1
    while _elements(works, each) > most:
        each = max(each + 1, -(-sum(len(work.tasks) for work in works) // most))
    arrays = []
    for work in works:
        elements = -(-len(work.tasks) // each)
        for first in range(0, elements, largest):
            count = min(largest, elements - first)
            arrays.append(JobArray(work.name, first * each, count, each))
    return arrays


def _elements(works: Sequence[StageWork], each: int) -> int:
    return sum(-(-len(work.tasks) // each) for work in works)
