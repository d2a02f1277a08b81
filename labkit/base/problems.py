"""One shape for everything that is wrong: where, what, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

_MOST_SHOWN = 20


class LabkitError(Exception):
    """Something that cannot be done; the text is for a person: the cause and the next step.

    The base of every error that the hub, the services and labkit tell people about: a command
    line prints the text of this class, and shows any other error as the fault it is; so does a
    notebook.
    """

    def _render_traceback_(self) -> list[str]:
        """Show the text instead of a traceback (IPython asks for it)."""
        return str(self).splitlines()


@dataclass(frozen=True)
class Problem:
    """One finding of a check.

    Attributes
    ----------
    where : str
        What it is about: ``"row 3, reads"``, ``"lab.yaml:12 profiles.0.memory"``, a path.
    text : str
        What is wrong.
    hint : str
        What to do about it; may be empty where ``text`` says it all.
    warning : bool
        True where the work goes on all the same.
    """

    where: str
    text: str
    hint: str = ""
    warning: bool = False

    def __str__(self) -> str:
        between = " " if self.text.endswith((".", "!", "?")) else "; "
        return f"{self.where}: {self.text}" + (f"{between}{self.hint}" if self.hint else "")


class ProblemsError(LabkitError):
    """Raised with all the problems found, not with the first.

    Parameters
    ----------
    problems : iterable of Problem
        What was found.

    Attributes
    ----------
    problems : tuple of Problem
        All of them.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self._text())

    def _text(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class RefusedError(ProblemsError, ValueError):
    """A job was refused before anything was started."""

    def _text(self) -> str:
        count = len(self.problems)
        head = "Refused, nothing was started" + (f" ({count} problems):" if count > 1 else ":")
        lines = [f"  {problem}" for problem in self.problems[:_MOST_SHOWN]]
        if count > _MOST_SHOWN:
            lines.append(f"  … and {count - _MOST_SHOWN} more (error.problems has them all)")
        return "\n".join([head, *lines])


def refuse(problems: Iterable[Problem]) -> None:
    """Raise where one of the problems is more than a warning.

    Raises
    ------
    RefusedError
        With all of those.
    """
    blocking = [problem for problem in problems if not problem.warning]
    if blocking:
        raise RefusedError(blocking)


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> Problem:
    """Return the problem of a name that is not in a list, with the list and the likely one.

    Parameters
    ----------
    kind : str
        What it would be the name of, e.g. ``"option"``.
    name : str
        The name as it was given.
    valid : iterable of str
        The names that there are.
    """
    names = sorted(valid)
    likely = get_close_matches(name, names, n=1)
    guess = f"Did you mean {likely[0]!r}? " if likely else ""
    return Problem(name, f"there is no such {kind}.", f"{guess}Valid: {', '.join(names)}.")
