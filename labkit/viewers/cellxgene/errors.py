"""What can go wrong, each with its reason and the next step."""

from __future__ import annotations

from collections.abc import Sequence

from labkit.base.problems import LabkitError, Problem, ProblemsError


class CellxGeneError(LabkitError):
    """CellxGene could not be opened."""


class DataRefusedError(CellxGeneError, ProblemsError):
    """The data cannot be shown; the message names all problems and the next steps.

    Parameters
    ----------
    title : str
        The data, as the person calls it.
    problems : sequence of Problem
        Every problem that was found.
    """

    def __init__(self, title: str, problems: Sequence[Problem]) -> None:
        self._title = title
        super().__init__(problems)

    def _text(self) -> str:
        lines = [f"CellxGene cannot show {self._title}:"]
        for number, problem in enumerate(self.problems, 1):
            lines += [f"  {number}. {problem.text}", f"     Next step: {problem.hint}"]
        return "\n".join(lines)


class NotEnoughMemoryError(CellxGeneError):
    """CellxGene would need more memory than there is."""


class StartFailedError(CellxGeneError):
    """CellxGene was started and died, or did not answer."""


class PortTakenError(StartFailedError):
    """Another program took CellxGene's port between its choice and its use."""
