"""What a kernel says about the personal environment; an extension of IPython.

It speaks where the environment could not be used, where the lab's packages have changed below
it, and where an import fails in which it has a part.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from typing import Any

from labkit.environments.personal import Personal
from labkit.environments.start_kernel import PROBLEM

RENEWED = "LABKIT_LAB_RENEWED"
_RESET = (
    "Next step: repair it by `%pip install` or `%pip uninstall`, or take all of your own packages"
    " away by `labkit env reset` in a terminal (or on the page My server), then restart the kernel."
)


def load_ipython_extension(shell: Any) -> None:
    """Have the kernel say it: IPython calls this when it loads the extension."""
    Notes(shell).register()


class Notes:
    """The notes of one kernel.

    Parameters
    ----------
    shell : InteractiveShell
        The kernel's shell.
    personal : Personal, optional
        The personal environment; the one of this process where none is named.
    """

    def __init__(self, shell: Any, personal: Personal | None = None) -> None:
        self._shell = shell
        self._personal = personal or Personal()

    def register(self) -> None:
        """Begin to listen to the shell."""
        self._shell.events.register("pre_run_cell", self.begin)
        self._shell.events.register("post_run_cell", self.end)

    def begin(self, *_: Any) -> None:
        """Say before the first cell what there is to say."""
        self._shell.events.unregister("pre_run_cell", self.begin)
        for text in self.at_start():
            print(text, file=sys.stderr)

    def at_start(self) -> Iterator[str]:
        """Yield what a person should know before the first cell."""
        if problem := os.environ.pop(PROBLEM, ""):
            yield (
                f"Your own packages are left out: {problem}. This kernel runs with the lab's "
                f"packages alone.\n{_RESET}"
            )
        elif os.environ.pop(RENEWED, "") and (shadows := self._personal.shadows()):
            names = ", ".join(map(str, shadows))
            yield (
                "The lab's Python was renewed. Of your own packages these hide the lab's: "
                f"{names}. Where the lab's are right for you: `%pip uninstall` yours."
            )

    def end(self, result: Any) -> None:
        """Say after a failed import what the personal environment has to do with it."""
        error = result.error_in_exec or result.error_before_exec
        if isinstance(error, Exception) and (text := self.about(error)):
            print(text, file=sys.stderr)

    def about(self, error: BaseException) -> str:
        """Return what there is to say of an error; empty where the layer has no part in it.

        Parameters
        ----------
        error : BaseException
            What a cell ended with.
        """
        personal = self._personal
        frames = [frame for one in _chain(error) for frame in _frames(one)]
        own, lab = (f"{path}{os.sep}" for path in (personal.packages, personal.lab_packages))
        # Code at the top of a package's file runs while it is imported.
        importing = any(name == "<module>" and file.startswith((own, lab)) for file, name in frames)
        if not importing and not any(isinstance(one, ImportError) for one in _chain(error)):
            return ""
        shadows = personal.shadows()
        # A package of the lab's that meets another version than its own need not lead through it.
        if not any(file.startswith(own) for file, _ in frames) and not (importing and shadows):
            return ""
        names = f" They hide the lab's: {', '.join(map(str, shadows))}." if shadows else ""
        return (
            f"Your own packages ({personal.packages}) have a part in this import.{names}\n{_RESET}"
        )


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def _frames(error: BaseException) -> Iterator[tuple[str, str]]:
    """Yield file and function of each frame; for an ImportError the module that lacks something."""
    for frame in traceback.extract_tb(error.__traceback__):
        yield frame.filename, frame.name
    if path := getattr(error, "path", None):
        yield str(path), ""
