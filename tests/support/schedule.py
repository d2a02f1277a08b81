"""Which test files begin first: the longest, so that no worker is left with one at the end.

``tests/durations.json`` has the seconds of each file in a whole run; every run writes its own to
``test-artifacts/durations.json``, to be copied where the two have drifted apart.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

import pytest

TESTS = Path(__file__).resolve().parents[1]
KNOWN = TESTS / "durations.json"
WRITTEN = TESTS.parent / "test-artifacts" / "durations.json"
_NEW = 30.0  # seconds of a file that needs more than the Python of dev, and was never measured
_SHOWN = 20


def known() -> dict[str, float]:
    """Return the seconds of each file that is known, by its path below ``tests/``."""
    return {str(name): float(value) for name, value in json.loads(KNOWN.read_text()).items()}


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

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count one step of one test."""
        name = report.nodeid.partition("::")[0].removeprefix("tests/")
        self.seconds[name] += report.duration

    def pytest_terminal_summary(self, terminalreporter: Terminal) -> None:
        """Show the files that took longest, and write down all."""
        rows = sorted(self.seconds.items(), key=lambda row: -row[1])
        if not rows:
            return
        WRITTEN.parent.mkdir(exist_ok=True)
        text = json.dumps({name: round(value) for name, value in rows if value >= 1}, indent=0)
        WRITTEN.write_text(text + "\n")
        terminalreporter.section(f"slowest {_SHOWN} files")
        for name, value in rows[:_SHOWN]:
            terminalreporter.write_line(f"{value:7.1f}s {name}")
