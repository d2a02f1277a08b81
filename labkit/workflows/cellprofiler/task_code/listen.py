"""Understand what CellProfiler writes while it runs: progress, errors, modules left out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

_MODULE = re.compile(
    r"Image # (\d+), module (\w+) # (\d+): CPU_time = ([\d.]+) secs, Wall_time = ([\d.]+) secs"
)
_ERROR = re.compile(r"Error detected during run of module (\w+)")
# What CellProfiler logs, and then goes on without the module or without its images.
_LOADING = re.compile(r"Failed to load pipeline|Could not find the \w+ module")
_PREPARE = re.compile(r"Failed to prepare run for module (\w+)|Exception.* in prepare_run")
# What stands between chained exceptions: only the last one counts.
_TRACEBACK = ("Traceback (most recent", "During handling of", "The above exception")
_LONGEST = 300


class Listener:
    """Follows one CellProfiler process by its output.

    Parameters
    ----------
    modules : mapping of int to str
        Enabled modules by number, as the pipeline's text has them.
    count : int
        Image sets it will work on.
    progress : callable
        Gets the number of image sets that are through.
    """

    def __init__(
        self, modules: Mapping[int, str], count: int, progress: Callable[[int], None]
    ) -> None:
        self.modules = dict(modules)
        self.count = count
        self.progress = progress
        self.last = max(self.modules, default=0)
        #: local image number -> how it failed
        self.failed: dict[int, str] = {}
        #: local image numbers that went through their last module
        self.done: set[int] = set()
        #: local image number and the last module it went through
        self.current: tuple[int, str] | None = None
        #: why nothing of this process can be trusted
        self.distrust = ""
        #: CPU seconds inside modules, and of each kind
        self.working = 0.0
        self.by_module: dict[str, float] = {}
        self._seen: set[int] = set()
        self._error: str | None = None
        self._said: list[str] = []

    def __call__(self, line: str) -> None:
        """Take one line of output."""
        match = _MODULE.search(line)
        if match:
            self._module(int(match[1]), match[2], int(match[3]), float(match[4]))
            return
        if _LOADING.search(line):
            self.distrust = self.distrust or "CellProfiler left out a module it could not load"
        if prepare := _PREPARE.search(line):
            name = prepare[1] or "a module"
            self.distrust = self.distrust or f"{name} could not be prepared"
        if error := _ERROR.search(line):
            self._error = error[1]
            self._said = []
        elif line.startswith(_TRACEBACK):
            self._said = []
        elif line.strip() and not line[0].isspace():
            self._said.append(line.strip())

    def _module(self, image: int, name: str, number: int, seconds: float) -> None:
        self.working += seconds
        self.by_module[name] = self.by_module.get(name, 0.0) + seconds
        if self.modules.get(number) != name:
            wanted = self.modules.get(number, "nothing")
            self.distrust = self.distrust or (
                f"module {number} is {name}, the pipeline has {wanted} there: "
                "CellProfiler left out a module it could not load"
            )
        self._seen.add(image)
        self.current = (image, name)
        if self._error is not None:
            said = " ".join(self._said) or "no reason was given"
            self.failed[image] = f"{self._error}: {said}"[:_LONGEST]
            self._error = None
        elif number == self.last:
            self.done.add(image)
        if number == self.last or image in self.failed:
            self.progress(len(self.done | set(self.failed)))

    @property
    def culprit(self) -> int | None:
        """The image set that a process was working on when it died, if there is one."""
        if not self._seen:
            return 1 if self.count == 1 else None
        newest = max(self._seen)
        if newest not in self.done and newest not in self.failed:
            return newest
        return newest + 1 if newest < self.count else None
