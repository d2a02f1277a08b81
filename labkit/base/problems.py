"""Problems that are found before anything is started, all at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches


class LabkitError(Exception):
    """Something that labkit cannot do; the text names the cause and the next step."""


@dataclass(frozen=True)
class Problem:
    """One finding of a check.

    Attributes
    ----------
    where : str
        What it is about, e.g. ``"row 3, reads"``.
    text : str
        What is wrong.
    hint : str
        What to do about it.
    fatal : bool
        A fatal problem refuses the submit; the others are warnings.
    """

    where: str
    text: str
    hint: str = ""
    fatal: bool = True

    def __str__(self) -> str:
        hint = f" {self.hint}" if self.hint else ""
        return f"{self.where}: {self.text}{hint}"


class RefusedError(LabkitError, ValueError):
    """The job was refused before anything was started.

    Attributes
    ----------
    problems : tuple of Problem
        All of them, not only the first.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        head = "Refused, nothing was started" + (f" ({count} problems):" if count > 1 else ":")
        lines = [f"  {problem}" for problem in self.problems[:_SHOWN]]
        if count > _SHOWN:
            lines.append(f"  … and {count - _SHOWN} more (error.problems has them all)")
        super().__init__("\n".join([head, *lines]))


_SHOWN = 20


def refuse(problems: Iterable[Problem]) -> None:
    """Raise RefusedError where one of the problems is fatal."""
    fatal = [problem for problem in problems if problem.fatal]
    if fatal:
        raise RefusedError(fatal)


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> Problem:
    """Return the problem of a name that is not in a list, with the list and the likely one."""
    names = sorted(valid)
    likely = get_close_matches(name, names, n=1)
    guess = f"Did you mean {likely[0]!r}? " if likely else ""
    return Problem(name, f"there is no such {kind}.", f"{guess}Valid: {', '.join(names)}.")
