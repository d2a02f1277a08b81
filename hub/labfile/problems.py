"""One shape for everything that is wrong: where, what, and how to fix it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """Something that a person has to fix.

    Attributes
    ----------
    place : str
        Where it is: ``lab.yaml:12 profiles.0.memory``, a path, a port.
    text : str
        What is wrong, in one sentence.
    hint : str
        What to do about it, in one sentence; may be empty where ``text`` says it all.
    warning : bool
        True where the portal runs all the same.
    """

    place: str
    text: str
    hint: str = ""
    warning: bool = False

    def __str__(self) -> str:
        line = f"{self.place}: {self.text}"
        return f"{line}\n    {self.hint}" if self.hint else line


class ProblemsError(Exception):
    """Raised with all the problems found, not with the first."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))
