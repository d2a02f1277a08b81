"""Which files begin first, and what a run writes down about them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Literal, cast

import pytest

from tests.support import schedule

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController


def test_the_longest_come_first_and_new_heavy_ones_before_the_light() -> None:
    key = schedule.rank({"a.py": 20.0, "b.py": 90.0, "quick.py": 1.0}, {"a.py", "new.py"})
    files = ["other.py", "a.py", "quick.py", "new.py", "b.py"]
    assert sorted(files, key=key) == ["b.py", "new.py", "a.py", "quick.py", "other.py"]


def test_most_files_that_are_known_are_there() -> None:
    """One that was renamed begins as a new one does; with many, the table orders nothing."""
    known = schedule.known()
    existing = [name for name in known.seconds if (schedule.TESTS / name).is_file()]
    assert len(existing) > 0.8 * len(known.seconds) > 20
    assert min(known.seconds.values()) >= 1
    assert "slurm/test_faults.py" in known.waiting
    assert set(known.waiting) <= set(known.seconds)


def test_a_file_of_the_kind_that_is_wanted_comes_next_or_else_the_first() -> None:
    files, waiting = ["a.py", "slurm/b.py", "c.py"], {"slurm/b.py"}
    assert schedule.choose(files, waiting, wait=True) == "slurm/b.py"
    assert schedule.choose(files, waiting, wait=False) == "a.py"
    assert schedule.choose(["a.py"], waiting, wait=True) == "a.py"
    assert schedule.choose(["slurm/b.py"], waiting, wait=False) == "slurm/b.py"


class Worker:
    """A worker of xdist that runs what it is sent, when the test says so."""

    def __init__(self, gateway_id: str) -> None:
        self.gateway = SimpleNamespace(id=gateway_id)
        self.sent: list[int] = []
        self.shutting_down = False

    def send_runtest_some(self, indices: list[int]) -> None:
        self.sent += indices

    def shutdown(self) -> None:
        self.shutting_down = True


def test_one_worker_in_four_waits_and_all_files_are_run(
    pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pytestconfig.option, "loadscopereorder", False, raising=False)
    monkeypatch.setattr(pytestconfig.option, "tx", ["5*popen"])
    names = ["wait/1", "wait/2", *(f"busy/{number}" for number in range(6)), "wait/3"]
    collected = [f"tests/{name}.py::test_{number}" for name in names for number in range(3)]
    scheduling = schedule.Scheduling(pytestconfig, {f"wait/{number}.py" for number in (1, 2, 3)})
    workers = [Worker(f"gw{number}") for number in range(5)]
    for worker in workers:
        scheduling.add_node(cast("WorkerController", worker))
        scheduling.add_node_collection(cast("WorkerController", worker), collected)
    scheduling.schedule()
    assert [collected[worker.sent[0]].split("::")[0] for worker in workers] == [
        "tests/wait/1.py", *(f"tests/busy/{number}.py" for number in range(4))
    ]  # fmt: skip
    waited: set[Worker] = set()
    while busy := [worker for worker in workers if worker.sent]:
        waiting = [worker for worker in busy if "/wait/" in collected[worker.sent[0]]]
        assert len(waiting) <= 1 or not any("/busy/" in name for name in scheduling.workqueue)
        waited.update(waiting)
        for worker in busy:
            index = worker.sent.pop(0)
            scheduling.mark_test_complete(cast("WorkerController", worker), index)
    assert scheduling.tests_finished
    assert all(worker.shutting_down for worker in workers)


class Terminal:
    """What pytest shows."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def section(self, title: str) -> None:
        self.lines.append(title)

    def write_line(self, line: str) -> None:
        self.lines.append(line)


def report(
    nodeid: str, when: Literal["setup", "call"], seconds: float, *marks: str
) -> pytest.TestReport:
    keywords: dict[str, Literal[1]] = dict.fromkeys(marks, 1)
    return pytest.TestReport(
        nodeid, (nodeid, 0, ""), keywords, "passed", None, when=when, duration=seconds
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
        report("tests/slurm/test_c.py::test_z", "call", 3.0, "slurm"),
        report("tests/slurm/test_d.py::test_z", "call", 0.2, "slurm"),
    ):
        durations.pytest_runtest_logreport(step)
    durations.pytest_terminal_summary(terminal)
    assert terminal.lines[1:] == [
        "   42.2s slow/test_b.py",
        "    3.0s slurm/test_c.py",
        "    0.4s quick/test_a.py",
        "    0.2s slurm/test_d.py",
    ]
    assert json.loads(written.read_text()) == {
        "seconds": {"slow/test_b.py": 42, "slurm/test_c.py": 3},
        "waiting": ["slurm/test_c.py"],
    }
