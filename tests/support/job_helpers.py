"""A home of its own for a test's jobs, small workflows, and what tests look at."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from labkit.base import cgroups, process_tree
from labkit.base.problems import Problem
from labkit.jobs.backends.local_queue import LocalQueue
from labkit.jobs.job import Job
from labkit.jobs.model import Resources, Stage, Task, literal
from labkit.jobs.plan import Plan
from labkit.jobs.worker import cgroup
from labkit.workflows.base import Workflow

MB = 1024**2
PYTHON = sys.executable


class Staged(Workflow):
    """A workflow of given stages."""

    def __init__(self, *stages: Stage, name: str = "staged", output: Path | None = None) -> None:
        self._stages = stages
        self._name = name
        self.output = str(output) if output else None

    def check(self) -> list[Problem]:
        return []

    def build(self, backend: str) -> Plan:
        return Plan(name=self._name, tool="test", stages=self._stages)


def shell(script: str, **values: object) -> tuple[str, ...]:
    """Return an argv that runs a script; ``{name}`` is a value, ``$`` is the shell's own."""
    for name, value in values.items():
        script = script.replace("{" + name + "}", str(value))
    return ("sh", "-euc", literal(script))


def stage(name: str, *scripts: str, outputs: tuple[str, ...] = (), **more: object) -> Stage:
    """Return a stage with one task per script."""
    tasks = tuple(
        Task(key=f"t{index}", index=index, argv=shell(script), outputs=outputs)
        for index, script in enumerate(scripts)
    )
    more.setdefault("resources", Resources.of(0.5, "128 MB"))
    return Stage(name=name, tasks=tasks, **more)  # type: ignore[arg-type]


def until(what: Callable[[], object], seconds: float = 120.0, every: float = 0.05) -> object:
    """Wait until something is true, and return it."""
    deadline = time.monotonic() + seconds
    while True:
        if found := what():
            return found
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(every)


def ran(path: Path) -> list[str]:
    """Return the lines that tasks have left in a file, one per time they ran."""
    return path.read_text().split() if path.exists() else []


def records(job: Job, stage_name: str) -> list[tuple[int, int]]:
    """Return (index, attempt) of all records of a stage."""
    return job.run.folder.attempts("tasks", stage_name)


@contextmanager
def home(folder: Path, env: Callable[[str, str | None], None]) -> Iterator[Path]:
    """Give jobs a home of their own; whatever they started is gone afterwards."""
    folder.mkdir(exist_ok=True)
    env("HOME", str(folder))
    env("LABKIT_RUNS", str(folder / "runs"))
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "LABKIT_BACKEND"):
        env(name, None)
    try:
        yield folder
    finally:
        end_scheduler()
        left = [pid for pid in process_tree.marked("HOME", str(folder)) if pid != os.getpid()]
        process_tree.kill(left)
        _remove_groups(folder.parent)


def _remove_groups(folder: Path) -> None:
    """Remove the cgroups of attempts that were killed and that nobody will look at again."""
    keys = {path.parent.name.rpartition("-")[2] for path in folder.rglob("manifest.json")}
    for group, _ in cgroups.groups("memory"):
        for child in group.glob("labkit-*"):
            if child.name.split("-")[1] in keys:
                cgroup.remove(child)


def end_scheduler() -> int | None:
    """Kill the scheduler with no chance to say goodbye; return its process."""
    pid = LocalQueue().scheduler_pid()
    if pid:
        os.kill(pid, signal.SIGKILL)
        until(lambda: process_tree.start_time(pid) is None)
    return pid


def workers(home_folder: Path) -> list[int]:
    """Return the workers that live."""
    found = []
    for pid in process_tree.marked("HOME", str(home_folder)):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.endswith(b"/worker") for word in command[:4]):
            found.append(pid)
    return found
