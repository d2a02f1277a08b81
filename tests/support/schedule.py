"""Which test files begin first, and beside which others.

The longest begin first, so that no worker is left with one at the end. Files of a SLURM cluster
wait for its daemons nine seconds in ten: a worker in four is for them, as long as there are any,
so that they do not wait one after the other at the end, nor all at once while the cores are idle.

``tests/durations.json`` has the seconds of each file in a whole run, and which use a cluster;
every run writes its own to ``test-artifacts/durations.json``, to be copied where the two have
drifted apart.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

TESTS = Path(__file__).resolve().parents[1]
KNOWN = TESTS / "durations.json"
WRITTEN = TESTS.parent / "test-artifacts" / "durations.json"
_WAITING = 4  # of so many workers one is for files that wait
_NEW = 30.0  # seconds of a file that needs more than the Python of dev, and was never measured
_SHOWN = 20


@dataclass(frozen=True)
class Known:
    """What earlier runs told of the files, by their paths below ``tests/``.

    Attributes
    ----------
    seconds : mapping
        What each took.
    waiting : collection of str
        Those that mostly wait, for a SLURM cluster.
    """

    seconds: Mapping[str, float] = field(default_factory=dict)
    waiting: Collection[str] = frozenset()


def known() -> Known:
    """Return what ``tests/durations.json`` has."""
    stored = json.loads(KNOWN.read_text())
    return Known(stored["seconds"], frozenset(stored["waiting"]))


def rank(seconds: Mapping[str, float], heavy: Iterable[str]) -> Callable[[str], float]:
    """Return the key that sorts files: the longest first.

    Parameters
    ----------
    seconds : mapping
        What is known of each file.
    heavy : iterable of str
        Files with tests that are no unit tests.
    """
    guessed = dict.fromkeys(heavy, _NEW) | dict(seconds)
    return lambda name: -guessed.get(name, 0.0)


def choose(queue: Iterable[str], waiting: Collection[str], *, wait: bool) -> str:
    """Return the file that a worker takes next.

    Parameters
    ----------
    queue : iterable of str
        The files that nobody has begun, in their order. Not empty.
    waiting : collection of str
        Those that mostly wait.
    wait : bool
        Whether this worker is to take one of them; another where none is left.
    """
    files = list(queue)
    return next((name for name in files if (name in waiting) is wait), files[0])


class Scheduling(LoadFileScheduling):
    """Gives each worker a whole file at a time, and keeps one in four with files that wait."""

    def __init__(self, config: pytest.Config, waiting: Collection[str]) -> None:
        super().__init__(config)
        self._waiting = frozenset(f"{TESTS.name}/{name}" for name in waiting)

    def _assign_work_unit(self, node: WorkerController) -> None:
        workers = sum(
            any(name in self._waiting and not all(tests.values()) for name, tests in files.items())
            for files in self.assigned_work.values()
        )
        wait = workers < self.numnodes // _WAITING
        self.workqueue.move_to_end(choose(self.workqueue, self._waiting, wait=wait), last=False)
        super()._assign_work_unit(node)


class Terminal(Protocol):
    """The part of pytest's terminal reporter that is used."""

    def section(self, title: str) -> None:
        """Show a heading."""

    def write_line(self, line: str) -> None:
        """Show a line."""


class Durations:
    """Adds up what each file takes, on whichever worker it runs."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.waiting: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count one step of one test."""
        name = report.nodeid.partition("::")[0].removeprefix("tests/")
        self.seconds[name] += report.duration
        if "slurm" in report.keywords:
            self.waiting.add(name)

    def pytest_terminal_summary(self, terminalreporter: Terminal) -> None:
        """Show the files that took longest, and write down all."""
        rows = sorted(self.seconds.items(), key=lambda row: -row[1])
        if not rows:
            return
        WRITTEN.parent.mkdir(exist_ok=True)
        seconds = {name: round(value) for name, value in rows if value >= 1}
        stored = {"seconds": seconds, "waiting": sorted(self.waiting & seconds.keys())}
        WRITTEN.write_text(json.dumps(stored, indent=0) + "\n")
        terminalreporter.section(f"slowest {_SHOWN} files")
        for name, value in rows[:_SHOWN]:
            terminalreporter.write_line(f"{value:7.1f}s {name}")
