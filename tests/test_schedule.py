"""Which files begin first, and what a run writes down about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest

from tests.support import schedule


def test_the_longest_come_first_and_new_heavy_ones_before_the_light() -> None:
    key = schedule.rank({"a.py": 20.0, "b.py": 90.0, "quick.py": 1.0}, {"a.py", "new.py"})
    files = ["other.py", "a.py", "quick.py", "new.py", "b.py"]
    assert sorted(files, key=key) == ["b.py", "new.py", "a.py", "quick.py", "other.py"]


def test_most_files_that_are_known_are_there() -> None:
    """One that was renamed begins as a new one does; with many, the table orders nothing."""
    known = schedule.known()
    there = [name for name in known if (schedule.TESTS / name).is_file()]
    assert len(there) > 0.8 * len(known) > 20
    assert min(known.values()) >= 1


class Terminal:
    """What pytest shows."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def section(self, title: str) -> None:
        self.lines.append(title)

    def write_line(self, line: str) -> None:
        self.lines.append(line)


def report(nodeid: str, when: Literal["setup", "call"], seconds: float) -> pytest.TestReport:
    return pytest.TestReport(
        nodeid, (nodeid, 0, ""), {}, "passed", None, when=when, duration=seconds
    )


def test_a_run_shows_and_writes_what_each_file_took(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written = tmp_path / "made" / "durations.json"
    monkeypatch.setattr(schedule, "WRITTEN", written)
    durations, terminal = schedule.Durations(), Terminal()
    for step in (
        report("tests/quick/test_a.py::test_x", "call", 0.4),
        report("tests/slow/test_b.py::test_y[1]", "setup", 40.0),
        report("tests/slow/test_b.py::test_y[2]", "call", 2.25),
    ):
        durations.pytest_runtest_logreport(step)
    durations.pytest_terminal_summary(terminal)
    assert terminal.lines[1:] == ["   42.2s slow/test_b.py", "    0.4s quick/test_a.py"]
    assert json.loads(written.read_text()) == {"slow/test_b.py": 42}
