"""What can go wrong, each with its reason and the next step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """Why data cannot be shown, and what to do about it."""

    reason: str
    hint: str


class CellxGeneError(RuntimeError):
    """CellxGene could not be opened."""


class DataRefusedError(CellxGeneError):
    """The data cannot be shown; the message names all problems and the next steps.

    Attributes
    ----------
    problems : tuple of Problem
        Every problem that was found.
    """

    def __init__(self, title: str, problems: Sequence[Problem]):
        self.problems = tuple(problems)
        lines = [f"CellxGene cannot show {title}:"]
        for number, problem in enumerate(self.problems, 1):
            lines += [f"  {number}. {problem.reason}", f"     Next step: {problem.hint}"]
        super().__init__("\n".join(lines))


class NotEnoughMemoryError(CellxGeneError):
    """CellxGene would need more memory than there is."""


class StartFailedError(CellxGeneError):
    """CellxGene was started and died, or did not answer."""
