"""labkit's jobs on this machine: hand over, watch, find again, and the cost of one task.

The peer of one task's cost is ``xargs -P``, which keeps no record, checks nothing and retries
nothing: the difference is what labkit costs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import labkit
from labkit.base import process_tree
from labkit.jobs.backends.local import LocalBackend
from labkit.jobs.backends.local_queue import LocalQueue
from labkit.jobs.model import Sighting, Sightings, State
from labkit.jobs.runs.watch import Watch
from tests.support import job_helpers

MANY, RUNNING = 10_000, 1_000


@contextmanager
def home() -> Iterator[Path]:
    """Run with a home that is gone afterwards."""

    def env(name: str, value: str | None) -> None:
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value

    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="labkit-bench-") as folder:
        with job_helpers.home(Path(folder) / "home", env) as path:
            yield path
        os.environ.clear()
        os.environ.update(before)


def many_rows(folder: Path) -> list[dict[str, str]]:
    """Return a table of many rows, with an input each that is there."""
    (folder / "data").mkdir()
    rows = []
    for index in range(MANY):
        path = folder / "data" / f"{index}.tif"
        path.touch()
        rows.append({"site": f"s{index}", "image": str(path)})
    return rows


def hand_over(folder: Path) -> tuple[float, labkit.Job]:
    """Return the wall time of a submit of many tasks with an input each."""
    rows = many_rows(folder)
    original = LocalBackend.submit
    LocalBackend.submit = lambda *_: {"host": os.uname().nodename, "queue": ""}  # type: ignore[method-assign,assignment,misc]
    try:
        began = time.perf_counter()
        job = labkit.Command("wc -c {image}", over=rows, inputs=["image"]).submit()
        return time.perf_counter() - began, job
    finally:
        LocalBackend.submit = original  # type: ignore[method-assign]


def watch(job: labkit.Job) -> tuple[float, float]:
    """Return the CPU time of one look, at tasks whose heartbeats have and have not changed."""
    beat = {"stage": "command", "attempt": 1, "started": time.time(), "units_done": 0}
    seen = Sightings(True, {("command", i): Sighting(State.RUNNING) for i in range(RUNNING)})

    def write() -> None:
        for index in range(RUNNING):
            path = job.run.folder.running("command", index, 1)
            path.write_text(json.dumps({**beat, "index": index}))

    write()
    watcher = Watch(job.run)
    watcher.look(seen)
    began = time.process_time()
    for _ in range(10):
        watcher.look(seen)
    same = (time.process_time() - began) / 10
    write()
    began = time.process_time()
    watcher.look(seen)
    return same, time.process_time() - began


def find_again(job: labkit.Job) -> float:
    """Return the wall time of a first look at a run whose tasks have all ended."""
    record = {
        "stage": "command", "attempt": 1, "submission": 1, "state": "SUCCEEDED", "host": "node1",
        "started": 1.0, "ended": 2.0, "seconds": 1.0, "cpu": 1.0, "cpu_seconds": 0.5,
        "memory": 1 << 30, "peak_rss": 1 << 20, "units": 1, "units_done": 1,
    }  # fmt: skip
    for index in range(MANY):
        job.run.folder.record("command", index, 1).write_text(
            json.dumps({**record, "index": index})
        )
    began = time.perf_counter()
    snapshot = labkit.open_job(job.name).refresh()
    assert snapshot.count(State.SUCCEEDED) == MANY
    return time.perf_counter() - began


def one_task(count: int) -> tuple[float, float, float]:
    """Return wall and CPU time per task that does nothing, and the scheduler's share."""
    rows = [{"n": str(index)} for index in range(count)]
    cores = os.cpu_count() or 1
    began = time.perf_counter()
    job = labkit.Command("true {n}", over=rows, cpu=1, memory="50 MB").submit()
    while not (snapshot := job.refresh()).state.final:
        time.sleep(0.1)
    wall = time.perf_counter() - began
    assert snapshot.count(State.SUCCEEDED) == count
    scheduler = LocalQueue().scheduler_pid()
    assert scheduler
    stat = Path(f"/proc/{scheduler}/stat").read_text().rpartition(")")[2].split()
    own, children = (sum(int(v) for v in stat[i : i + 2]) / 100 for i in (11, 13))
    assert process_tree.start_time(scheduler)
    return wall / count * cores, (own + children) / count, own / count


def xargs(count: int) -> tuple[float, float]:
    """Return the same for xargs."""
    cores = os.cpu_count() or 1
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    numbers = "\n".join(map(str, range(count)))
    subprocess.run(
        ["xargs", "-P", str(cores), "-n", "1", "true"], input=numbers.encode(), check=True
    )
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall / count * cores, cpu / count


def main() -> None:
    """Run and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=200)
    arguments = parser.parse_args()
    with home() as folder:
        submit, job = hand_over(folder)
        same, changed = watch(job)
        again = find_again(job)
        print("| on this machine | | goal |\n|---|---|---|")
        print(f"| plan and submit {MANY:,} tasks, an input each | {submit:.2f} s | 1 s |")
        print(
            f"| one look at {RUNNING:,} running tasks | {same * 1e3:.0f} ms CPU, "
            f"{changed * 1e3:.0f} ms where all heartbeats are new | 50 ms (1 % at 5 s) |"
        )
        print(f"| find a run of {MANY:,} tasks again | {again:.2f} s | 1 s |")
    with home():
        wall, cpu, own = one_task(arguments.tasks)
        peer_wall, peer_cpu = xargs(arguments.tasks)
        print("\n| one task that does nothing | labkit | xargs -P |\n|---|---|---|")
        print(f"| time on one core | {wall * 1e3:.0f} ms | {peer_wall * 1e3:.1f} ms |")
        print(f"| CPU | {cpu * 1e3:.0f} ms | {peer_cpu * 1e3:.1f} ms |")
        print(f"| of it the scheduler | {own * 1e3:.1f} ms | |")


if __name__ == "__main__":
    main()
