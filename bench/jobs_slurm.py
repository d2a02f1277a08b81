"""labkit's jobs on a real SLURM: hand over, watch, find again, and the cost of one task.

``python -m bench.jobs_slurm [--tasks 64] [--running 1000] [--seconds 60]``

The peers of one task's cost, in the same run on the same cluster: one ``sbatch`` per task (the
common practice), one plain job array, and submitit's ``map_array``. None of them keeps a record
of its own, checks outputs or retries (submitit pickles a result): the difference is what labkit
costs. CPU is of all processes that the nodes have started.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import submitit

import labkit
from bench.jobs import MANY, find_again, home, many_rows
from labkit.jobs.backends.slurm import queue
from labkit.jobs.job import open_job
from labkit.slurm import commands
from labkit.testing import SlurmCluster
from tests.support.job_helpers import until

LOOKS = 5.0  # seconds between two looks, as a job that is waited for takes them


@dataclass
class Cost:
    """What a number of tasks that do nothing took, per task.

    Attributes
    ----------
    submit, wall, cpu : float
        Seconds: to hand all over; until the last had ended; CPU on the nodes.
    """

    submit: float
    wall: float
    cpu: float


def clock_sbatch() -> Callable[[], float]:
    """Count the seconds that labkit spends in sbatch from now on; return what asks for them."""
    spent = [0.0]
    original = commands.run

    def timed(name: str, *words: str, **more: object) -> str:
        began = time.perf_counter()
        try:
            return original(name, *words, **more)  # type: ignore[arg-type]
        finally:
            spent[0] += time.perf_counter() - began if name == "sbatch" else 0.0

    commands.run = timed
    return lambda: spent[0]


def drain(cluster: SlurmCluster, drained: bool = True) -> None:
    """Let nothing start, or let it."""
    words = ("state=drain", "reason=bench") if drained else ("state=resume",)
    # A node that is not drained cannot resume, and says so.
    cluster.command("scontrol", "update", "nodename=ALL", *words, check=drained)


def hand_over(cluster: SlurmCluster, folder: Path) -> tuple[float, float, float, labkit.Job]:
    """Return wall times of a plan, of a submit and of its sbatch; nothing of it starts."""
    drain(cluster)
    rows = many_rows(folder)
    work = labkit.Command("wc -c {image}", over=rows, inputs=["image"])
    began = time.perf_counter()
    work.plan("slurm")
    plan = time.perf_counter() - began
    in_sbatch = clock_sbatch()
    began = time.perf_counter()
    job = work.submit("slurm")
    submit = time.perf_counter() - began
    return plan, submit, in_sbatch(), job


def watch(
    cluster: SlurmCluster, folder: Path, running: int, seconds: float
) -> tuple[int, float, float]:
    """Watch tasks that run.

    The job is labkit's; its elements only sleep, for this machine has not the memory for that
    many workers. Heartbeats are written for them, as workers do.

    Returns
    -------
    tuple
        Questions to squeue, seconds, share of a core here (squeue's own included).
    """
    rows = [{"n": str(n)} for n in range(running)]
    drain(cluster)
    job = labkit.Command("sleep {n}", over=rows, memory="1 MB").submit("slurm", output=str(folder))
    handle = dict(job.run.submissions()[0].handle or {})
    name = f"{job.run.submissions()[0].name}.command.0.{running}.1"
    cluster.cancel_all()
    drain(cluster, False)
    sleeper = folder / "sleep.sh"
    sleeper.write_text("#!/bin/sh\nexec sleep 3600\n")
    number = cluster.command(
        "sbatch", "--parsable", f"--job-name={name}", f"--array=0-{running - 1}", "--mem=1M",
        "--output=/dev/null", str(sleeper),
    )  # fmt: skip
    handle["jobs"] = [{**handle["jobs"][0], "id": number}]
    job.run.folder.accepted(1).write_text(json.dumps({**handle, "at": time.time() - 3600}))
    until(lambda: len(_running(cluster)) == running, 300)
    beats = [job.run.folder.running("command", index, 1) for index in range(running)]

    def beat(some: list[Path]) -> None:
        told = {"stage": "command", "attempt": 1, "started": time.time(), "units_done": 0}
        for path in some:
            path.write_text(json.dumps({**told, "submission": 1}))

    beat(beats)
    looker = open_job(job.run)
    until(lambda: looker.refresh().known, 120, every=1.0)
    asked = [0]
    original = queue.ask

    def counted(failures: int = 0) -> queue.Answer:
        asked[0] += 1
        return original(failures)

    queue.ask = counted
    spent, began, looks = 0.0, time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        beat(beats[looks % 2 :: 2])  # every ten seconds, as workers do
        before = _cpu()
        assert looker.refresh().known
        spent += _cpu() - before
        looks += 1
        time.sleep(LOOKS)
    took = time.perf_counter() - began
    queue.ask = original
    cluster.cancel_all()
    return asked[0], took, spent / took


def _running(cluster: SlurmCluster) -> list[str]:
    return [line for line in cluster.queue() if " RUNNING " in line]


def _cpu() -> float:
    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def on_nodes(cluster: SlurmCluster) -> float:
    """Return the CPU seconds of the nodes and of all that they have started and that has ended."""
    total = 0.0
    for kept in (kept for all_of in cluster._slurmds.values() for kept in all_of):
        slurmd = psutil.Process(kept.pid)
        keeper = slurmd.parent()
        own, below = slurmd.cpu_times(), keeper.cpu_times() if keeper else slurmd.cpu_times()
        total += own.user + own.system + own.children_user + own.children_system
        total += below.children_user + below.children_system
    return total


def measure(cluster: SlurmCluster, count: int, submit: Callable[[], Callable[[], bool]]) -> Cost:
    """Submit tasks that do nothing, and wait for them.

    Parameters
    ----------
    submit : callable
        Hands them over; returns what tells whether all have ended.
    """
    cluster.wait_idle()
    before, began = on_nodes(cluster), time.perf_counter()
    over = submit()
    handed = time.perf_counter() - began
    until(over, 600, every=0.1)
    wall = time.perf_counter() - began
    cluster.wait_idle()
    return Cost(handed / count, wall / count, (on_nodes(cluster) - before) / count)


def ways(
    cluster: SlurmCluster, folder: Path, count: int
) -> dict[str, Callable[[], Callable[[], bool]]]:
    """Return the ways of submitting tasks that do nothing."""

    def labkits() -> Callable[[], bool]:
        rows = [{"n": str(index)} for index in range(count)]
        job = labkit.Command("true {n}", over=rows, cpu=1, memory="50 MB").submit("slurm")
        records = job.run.folder.path / "tasks" / "command"
        return lambda: sum(p.name[0] != "." for p in records.iterdir()) == count

    def one_by_one() -> Callable[[], bool]:
        for _ in range(count):
            cluster.command("sbatch", "--output=/dev/null", "--mem=50M", "--wrap", "true")
        return lambda: not cluster.queue()

    def array() -> Callable[[], bool]:
        options = ("--output=/dev/null", "--mem=50M", f"--array=0-{count - 1}")
        cluster.command("sbatch", *options, "--wrap", "true")
        return lambda: not cluster.queue()

    def submitits() -> Callable[[], bool]:
        executor = submitit.SlurmExecutor(folder=folder / "submitit")
        executor.update_parameters(array_parallelism=count, mem="50MB", time=10)
        executor.map_array(abs, range(count))
        return lambda: len(list((folder / "submitit").glob("*_result.pkl"))) == count

    return {
        "labkit": labkits,
        "`sbatch` per task": one_by_one,
        "plain array": array,
        "submitit": submitits,
    }


def main() -> None:
    """Run and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=64)
    parser.add_argument("--running", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    config = {
        "MaxJobCount": 50_000,
        # The tests' cluster looks at each job's memory once a second: a thousand do nothing else.
        "JobAcctGatherType": "jobacct_gather/none",
        "JobAcctGatherFrequency": 0,
        "SchedulerParameters": "batch_sched_delay=0,sched_min_interval=0",
    }
    with (
        SlurmCluster(cpus=256, max_array_size=MANY + 1, config=config) as cluster,
        home() as folder,
        tempfile.TemporaryDirectory(prefix="labkit-bench-") as place,
    ):
        os.environ.update(cluster.environment)
        plan, submit, inside, job = hand_over(cluster, folder)
        again = find_again(job)
        cluster.cancel_all()
        print("| on SLURM | | goal |\n|---|---|---|")
        print(f"| plan {MANY:,} tasks, an input each | {plan:.2f} s | |")
        print(
            f"| submit them | {submit:.2f} s, of it sbatch {inside:.2f} s: {submit - inside:.2f} s "
            "beyond | 1 s beyond |"
        )
        print(f"| find a run of {MANY:,} tasks again | {again:.2f} s | 1 s |", flush=True)
        if options.running:
            asked, took, share = watch(cluster, Path(place), options.running, options.seconds)
            print(
                f"| watch {options.running:,} running tasks for {took:.0f} s | {asked} questions, "
                f"{share:.1%} of a core | {took / LOOKS:.0f}, 1 % |",
                flush=True,
            )
        drain(cluster, False)
        costs = {
            name: measure(cluster, options.tasks, way)
            for name, way in ways(cluster, Path(place), options.tasks).items()
        }
    print(f"\n| one of {options.tasks} tasks that do nothing | " + " | ".join(costs) + " |")
    print("|---" * (len(costs) + 1) + "|")
    for what in ("submit", "wall", "cpu"):
        cells = " | ".join(f"{getattr(cost, what) * 1e3:.1f} ms" for cost in costs.values())
        print(f"| {what} | {cells} |")


if __name__ == "__main__":
    main()
