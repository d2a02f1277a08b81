"""Never more CPU or memory than the machine, or the cgroup around us, has."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import labkit
from labkit.base import cgroups
from labkit.base.problems import RefusedError
from labkit.jobs.backends import local
from labkit.jobs.backends.capacity import capacity, free_memory
from labkit.jobs.backends.local_queue import LocalQueue
from labkit.jobs.model import Resources
from tests.conftest import needs_root
from tests.support.backend_contract import Site
from tests.support.job_helpers import MB, stage, until

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def site(tmp_path: Path, lab_home: Path) -> Site:
    return Site("local", tmp_path)


def test_the_machine() -> None:
    have = capacity()
    assert 0 < have.cpu <= (os.cpu_count() or 1)
    assert free_memory() <= have.memory


def most_at_once(trace: Path) -> int:
    """Return how many tasks ran at the same time, from lines ``+`` and ``-``."""
    now = most = 0
    for sign in trace.read_text().split():
        now += 1 if sign == "+" else -1
        most = max(most, now)
    return most


def busy(site: Site, count: int, **resources: object) -> object:
    script = f"echo + >> {site.trace}; sleep 0.4; echo - >> {site.trace}"
    asked = Resources.of(**resources)  # type: ignore[arg-type]
    return stage("busy", *[script] * count, resources=asked)


def test_no_more_tasks_than_cores(site: Site) -> None:
    cores = int(capacity().cpu)
    site.run(busy(site, 3 * cores, cpu=1, memory="50 MB"))  # type: ignore[arg-type]
    assert most_at_once(site.trace) == cores


def test_two_jobs_share_the_cores(site: Site) -> None:
    cores = int(capacity().cpu)
    one = site.submit(busy(site, 2 * cores, cpu=1, memory="50 MB"))  # type: ignore[arg-type]
    two = site.submit(busy(site, 2 * cores, cpu=1, memory="51 MB"), local_cpu=1)  # type: ignore[arg-type]
    assert one.path == two.path, "more memory is the same work"
    other = site.submit(busy(site, 2 * cores + 1, cpu=1, memory="50 MB"))  # type: ignore[arg-type]
    assert other.path != one.path
    one.wait(30)
    other.wait(30)
    assert most_at_once(site.trace) == cores


def test_no_more_tasks_than_memory(site: Site) -> None:
    third = capacity().memory // 3 + MB
    job = site.submit(busy(site, 4, cpu=0.01, memory=third))  # type: ignore[arg-type]
    until(lambda: "memory" in job.refresh().text)
    job.wait(30)
    assert most_at_once(site.trace) <= 2


def test_more_memory_than_is_free_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "free_memory", lambda: 100 * MB)
    rows = [{"n": "1"}]
    (problem,) = labkit.Command("true {n}", over=rows, memory="200 MB").plan("local").problems
    assert "it will wait" in problem.text and problem.warning
    assert not labkit.Command("true {n}", over=rows, memory="50 MB").plan("local").problems


def test_a_job_that_finds_no_room_is_in_nobodys_way(site: Site) -> None:
    """Memory that a notebook holds never comes free: what asks for all of it waits alone."""
    queue = LocalQueue()
    impatient = "from labkit.jobs.backends import local_scheduler as s; s._STARVED = 0.0; s.main()"
    process = subprocess.Popen([sys.executable, "-c", impatient, str(queue.path)], cwd=ROOT)
    try:
        until(lambda: queue.scheduler_pid() == process.pid)
        large = site.submit(busy(site, 1, memory=capacity().memory))  # type: ignore[arg-type]
        until(lambda: "are free" in large.refresh().text)
        small = site.submit(busy(site, 2, cpu=0.5, memory="50 MB"))  # type: ignore[arg-type]
        assert small.wait(30).state.value == "SUCCEEDED"
        assert large.refresh().state.value == "PENDING"
        large.cancel()
    finally:
        process.kill()
        process.wait()


def test_a_cap_of_ones_own(site: Site) -> None:
    site.run(busy(site, 4, cpu=0.5, memory="50 MB"), local_cpu=0.5)  # type: ignore[arg-type]
    assert most_at_once(site.trace) == 1


def test_a_cap_must_be_a_number(site: Site) -> None:
    with pytest.raises(RefusedError, match="local_cpu"):
        site.run(busy(site, 1), local_cpu="many")  # type: ignore[arg-type]


def test_a_task_above_the_cap_is_refused(site: Site) -> None:
    with pytest.raises(RefusedError, match="above local_cpu"):
        site.run(busy(site, 1, cpu=1, memory="50 MB"), local_cpu=0.5)  # type: ignore[arg-type]


@pytest.fixture
def small_group() -> Iterator[list[Path]]:
    """Cgroups with half a core and 300 MB (v1 or v2)."""
    made = []
    name = f"labkit-test-{os.getpid()}"
    limits = {
        "memory": [("memory.limit_in_bytes", str(300 * MB)), ("memory.max", str(300 * MB))],
        "cpu": [("cpu.cfs_quota_us", "50000"), ("cpu.max", "50000 100000")],
    }
    try:
        for controller, files in limits.items():
            parent, _ = next(cgroups.groups(controller))
            group = parent / name
            group.mkdir(exist_ok=True)
            made.append(group)
            for file, value in files:
                if (group / file).exists():
                    (group / file).write_text(value)
                    break
            else:
                pytest.skip(f"needs the cgroup controller {controller}")
    except (OSError, StopIteration) as error:
        pytest.skip(f"needs the right to make cgroups: {error}")
    yield made
    for group in set(made):
        group.rmdir()


@needs_root
def test_the_cgroup_around_us(small_group: list[Path], site: Site) -> None:
    code = (
        "import os, sys\n"
        f"for group in {[str(g) for g in small_group]!r}:\n"
        "    open(group + '/cgroup.procs', 'w').write(str(os.getpid()))\n"
        "from labkit.jobs.backends.capacity import capacity, free_memory\n"
        "have = capacity(); print(have.cpu, have.memory, free_memory())\n"
        "x = b'x' * (100 << 20); print(free_memory())\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    cpu, memory, free, less = float(said[0]), int(said[1]), int(said[2]), int(said[3])
    assert cpu == 0.5
    assert memory == 300 * MB
    assert 0 < free < 300 * MB
    assert free - less > 90 * MB
