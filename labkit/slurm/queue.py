"""What squeue prints: asked for by named columns, read into one kind of job."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from labkit.slurm.commands import UnreadableError

_ELEMENTS = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?")
_TIME = r"\d+|N/A|NONE|Unknown"  # NONE: the end of a job without a time limit
# Column -> squeue's letter, what it may hold. Jobs' owners write FREE ones as they like.
_COLUMNS = {
    "id": ("%i", r"\d+(?:[_+][^|]*)?"),
    "array": ("%F", r"\d+"),
    "elements": ("%K", r"[^|]*"),
    "state": ("%T", r"[A-Z_]+"),
    "reason": ("%r", r"[^|]*"),
    "partition": ("%P", r"[^|]+"),
    "user": ("%u", r"[^|]+"),
    "priority": ("%Q", r"\d+"),
    "submitted": ("%V", _TIME),
    "start": ("%S", _TIME),
    "end": ("%e", _TIME),
    "host": ("%B", r"[^|]*"),
    "name": ("%j", r".*"),
    "comment": ("%k", r".*"),
}
_FREE = ("name", "comment")


class Job(NamedTuple):
    """A line of squeue: a job, an element of a job array, or all of its elements that wait.

    Columns that were not asked for have their default.

    Attributes
    ----------
    id : str
        ``12``, ``12_3`` or, for elements that wait, ``12_[0-3%2]``.
    array : str
        The array's number; of any other job its own.
    elements : str
        Which of the array's elements, see `elements`.
    state, reason : str
        SLURM's words: ``PENDING``, ``Resources``.
    partition, user : str
        Where, and whose. A pending job may name several partitions, with commas.
    priority : int
        The larger, the sooner.
    submitted, start, end : float or None
        Seconds since 1970; while it is pending, start and end are SLURM's estimate.
    host : str
        The node on which its script runs; empty while it is pending.
    name, comment : str
        As its owner has called it.
    """

    id: str = ""
    array: str = ""
    elements: str = ""
    state: str = ""
    reason: str = ""
    partition: str = ""
    user: str = ""
    priority: int = 0
    submitted: float | None = None
    start: float | None = None
    end: float | None = None
    host: str = ""
    name: str = ""
    comment: str = ""

    @property
    def lasted(self) -> float:
        """The seconds from its start to its end; 0 where they are not known."""
        return 0.0 if self.start is None or self.end is None else self.end - self.start


@dataclass(frozen=True)
class Columns:
    """Columns of squeue.

    Parameters
    ----------
    names : tuple of str
        Fields of `Job`. What a job's owner writes freely (name, comment) may only be the last: a
        line break in it looks like another row. Do not ask for it where others' jobs are listed.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if set(self.names[:-1]) & set(_FREE):
            raise ValueError("a free text must be the last column")

    @cached_property
    def format(self) -> str:
        """The argument of ``squeue --format``."""
        return "|".join(_COLUMNS[name][0] for name in self.names)

    @cached_property
    def _row(self) -> re.Pattern[str]:
        return re.compile(r"\|".join(f"({_COLUMNS[name][1]})" for name in self.names))

    def parse(self, text: str) -> list[Job]:
        """Read squeue's answer, as `commands.environment` lets it print times.

        Raises
        ------
        UnreadableError
            One line is anything else: then no line can be trusted. Behind a free text only the
            first line must be a row: others may be the rest of that text.
        """
        jobs: list[Job] = []
        free = self.names[-1] in _FREE
        for line in text.splitlines():
            row = self._row.fullmatch(line if free else line.strip())
            if row is not None:
                jobs.append(Job(**dict(map(_read, self.names, row.groups()))))
            elif not (free and jobs):
                raise UnreadableError(f"squeue printed an unknown line: {line[:80]!r}")
        return jobs


def elements(text: str) -> list[int]:
    """Return the array elements that `Job.elements` names: ``"0-3,7,10-20:5%4"``."""
    if text.isdigit():
        return [int(text)]
    numbers: list[int] = []
    for piece in text.partition("%")[0].split(","):
        match = _ELEMENTS.fullmatch(piece)
        if match is None:  # "N/A": no array
            continue
        first, last, step = match.groups()
        numbers.extend(range(int(first), int(last or first) + 1, int(step or 1)))
    return numbers


def _read(name: str, text: str) -> tuple[str, Any]:
    if name in ("submitted", "start", "end"):
        return name, float(text) if text.isdecimal() and text != "0" else None
    if name == "priority":
        return name, int(text)
    if name == "host" and text in ("n/a", "N/A", "(null)", "None assigned"):
        return name, ""
    return name, text
