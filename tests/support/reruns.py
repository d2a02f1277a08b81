"""Tests that passed only when they ran again: named, and no more than a few.

``.ci/run`` lets a test that failed run once more (``--reruns 1``): among thousands on two busy
cores one may wait a moment too little. Each such test is a fault of its own, so the summary says
which and why, and a run with more than a few of them fails.
"""

from __future__ import annotations

from typing import Protocol

import pytest

MOST = 3


class Terminal(Protocol):
    """The part of pytest's terminal reporter that is used."""

    def section(self, title: str) -> None:
        """Show a heading."""

    def write_line(self, line: str) -> None:
        """Show a line."""


class Reruns:
    """Collects what ran again, on whichever worker."""

    def __init__(self) -> None:
        self.reports: list[pytest.TestReport] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the failure of a test that runs again."""
        if str(report.outcome) == "rerun":
            self.reports.append(report)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a run in which too many tests ran again."""
        if len(self.reports) > MOST and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Terminal) -> None:
        """Show what each failed with the first time."""
        if not self.reports:
            return
        terminalreporter.section(f"ran again: {len(self.reports)}, at most {MOST} in a run")
        for report in self.reports:
            terminalreporter.write_line(f"{report.nodeid} ({report.when})")
            terminalreporter.write_line(report.longreprtext)
