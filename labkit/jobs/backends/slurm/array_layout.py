"""How the tasks of a submission are laid out as job arrays."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from labkit.jobs.runs.store import StageWork

_NAME = re.compile(r"(?P<submission>.+)\.(?P<stage>[a-z][a-z0-9-]*)\.(\d+)\.(\d+)\.(\d+)")

_ELEMENTS = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?")


@dataclass(frozen=True)
class Part:
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
def parse_name(name: str) -> tuple[str, Part] | None:
    """Return the submission's name and the part that a job's name tells; None for other jobs."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    start, count, each = map(int, match.groups()[2:])
    return match["submission"], Part(match["stage"], start, count, each)


def elements(text: str) -> list[int]:
    """Return the array elements that squeue's ``%K`` names: ``"0-3,7,10-20:5%4"``."""
    if text.isdigit():
        return [int(text)]
    found: list[int] = []
    for piece in text.partition("%")[0].split(","):
        match = _ELEMENTS.fullmatch(piece)
        if match is None:  # "N/A": no array, so not ours
            continue
        first, last, step = match.groups()
        found.extend(range(int(first), int(last or first) + 1, int(step or 1)))
    return found


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


def layout(works: Sequence[StageWork], array: int, most: int) -> list[Part]:
    """Lay tasks out as job arrays.

    Parameters
    ----------
    works : sequence of StageWork
        The stages.
    array : int
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
    parts = []
    for work in works:
        elements = -(-len(work.tasks) // each)
        for first in range(0, elements, array):
            count = min(array, elements - first)
            parts.append(Part(work.name, first * each, count, each))
    return parts


def _elements(works: Sequence[StageWork], each: int) -> int:
    return sum(-(-len(work.tasks) // each) for work in works)
