"""What jobs on SLURM survive: nothing lost, nothing doubled, the state tells the truth.

The same faults as on this machine (tests/labkit/jobs/test_faults.py), made on a real SLURM.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.base import process_tree
from labkit.base.problems import LabkitError
from labkit.jobs.backends.base import BackendError
from labkit.jobs.job import open_job
from labkit.jobs.model import Resources, Stage, State, Task
from labkit.testing import SlurmCluster
from tests.conftest import needs_root
from tests.support.backend_contract import Site, hog
from tests.support.job_faults import (
    DIE,
    dies_while_submitting,
    enlarge,
    fill,
    kernel,
    once,
    reasons,
    running,
    small_disk,
    submit_at_once,
    the_run,
    workers_of,
)
from tests.support.job_helpers import Staged, ran, records, stage, until


def element(cluster: SlurmCluster, name: str = "once") -> tuple[str, str]:
    """Return the number and the state of the only array element of a stage; "" if there is none."""
    found = [line.split() for line in cluster.queue() if f".{name}." in line]
    return (found[0][0], found[0][1]) if found else ("", "")


def start_now(cluster: SlurmCluster) -> None:
    """Start what was put back into the queue soon: by itself SLURM waits two minutes.

    Not at once: a node refuses what is started within the second of its requeue.
    """
    until(lambda: element(cluster)[1] == "PENDING")
    cluster.command("scontrol", "update", f"JobId={element(cluster)[0]}", "StartTime=now+2")


def node_of(cluster: SlurmCluster) -> str:
    """Return the node on which the only job runs."""
    return cluster.command("squeue", "-h", "-t", "R", "-o", "%N")


def down(cluster: SlurmCluster, node: str) -> None:
    """Say what SLURM finds out by itself after SlurmdTimeout."""
    cluster.command("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")


# --- processes ------------------------------------------------------------------------------------


def test_a_killed_worker_is_lost_and_tried_again(site: Site) -> None:
    job = site.submit(once(site))
    running(site)
    (worker,) = workers_of(job.path)
    os.kill(worker, signal.SIGKILL)
    assert job.wait(60).state is State.SUCCEEDED
    assert ran(site.trace) == ["ran", "ran"], "the first one's program was ended before the second"
    assert reasons(job) == ["LOST", "SUCCEEDED"]


def test_all_processes_of_the_job_are_killed(site: Site, slurm: SlurmCluster) -> None:
    job = site.submit(once(site, 3), stage("after", "true", depends_on=("once",)))
    running(site)
    (worker,) = workers_of(job.path)
    number = os.getpgid(worker)  # SLURM's step is a process group
    everything = [
        int(path.name)
        for path in Path("/proc").glob("[0-9]*")
        if _group(int(path.name)) == number or int(path.name) in process_tree.descendants(worker)
    ]
    assert len(everything) >= 3
    process_tree.kill(everything)
    assert job.wait(60).state is State.FAILED
    assert list(job.failed()["reason"]) == ["LOST", "DEPENDENCY"]
    until(lambda: not slurm.queue())
    assert job.retry().wait(60).state is State.SUCCEEDED
    assert ran(site.trace) == ["ran", "ran"]


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


@pytest.mark.parametrize("moment", ["before", "after"])
def test_the_kernel_dies_between_intent_and_answer(site: Site, moment: str) -> None:
    dies_while_submitting(site, moment)
    assert kernel(site).wait(60) == 0
    job = open_job(the_run(site)).wait(60)
    assert job.state is State.SUCCEEDED
    assert ran(site.trace) == ["ran"]
    assert len(job.run.submissions()) == 1


def test_the_kernel_dies_after_the_submit_and_the_job_goes_on(site: Site) -> None:
    assert kernel(site, after=DIE).wait(60) == -signal.SIGKILL
    run = the_run(site)
    until(lambda: run.folder.attempts("tasks", "once"), 60)  # nobody looks
    assert open_job(run).state is State.SUCCEEDED


def test_two_kernels_submit_at_once(site: Site) -> None:
    submit_at_once(site)
    run = the_run(site)
    assert len(run.submissions()) == 1
    assert open_job(run).wait(60).state is State.SUCCEEDED
    assert ran(site.trace) == ["ran"]


# --- daemons --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_controller_is_down_for_a_minute(site: Site, slurm: SlurmCluster) -> None:
    """All that can happen in that minute: a task ends, one wants more memory, one is submitted."""
    go = site.folder / "go"
    wait = f"while [ ! -e {go} ]; do sleep 0.1; done"
    job = site.submit(
        stage("once", f"echo ran >> {site.trace}; {wait}; echo x > y"),
        stage("after", f"echo after >> {site.trace}", depends_on=("once",)),
    )
    hungry = site.submit(
        Stage(
            "hungry",
            (Task("t", 0, ("sh", "-euc", wait.replace("$", "$$") + "; exec " + _eat(300))),),
            Resources.of(0.5, "100 MB", "10 min"),
        )
    )
    doomed = site.submit(stage("doomed", "sleep 600"))
    running(site)
    until(lambda: workers_of(hungry.path) and workers_of(doomed.path))
    slurm.stop_controller()
    begun = os.times().elapsed
    go.touch()
    until(lambda: records(job, "once") and records(hungry, "hungry"))
    late = stage("late", f"echo late >> {site.trace}")
    with pytest.raises(BackendError):
        site.submit(late)
    snapshot = job.refresh()
    assert not snapshot.known
    assert not snapshot.state.final
    assert "lurm" in snapshot.text
    with pytest.raises(LabkitError):
        doomed.cancel()
    assert doomed.refresh().state is State.RUNNING, "it was not reached"
    until(lambda: os.times().elapsed - begun > 60, 90, every=0.5)
    slurm.start_controller()
    assert doomed.cancel().wait(60).state is State.CANCELLED
    assert not workers_of(doomed.path)
    assert site.submit(late).wait(60).state is State.SUCCEEDED
    assert job.wait(60).state is State.SUCCEEDED
    assert hungry.wait(60).state is State.SUCCEEDED
    assert reasons(hungry, "hungry")[0] == "OUT_OF_MEMORY"
    assert sorted(ran(site.trace)) == ["after", "late", "ran"]


def _eat(size: int) -> str:
    return f"python3 -c \"data = b'x' * ({size} << 20); import time; time.sleep(0.5)\""


def test_the_controller_is_killed_right_after_a_submit(site: Site, slurm: SlurmCluster) -> None:
    """What it had not saved is lost to SLURM, but not to the job."""
    slurm.stop_controller()  # slurmctld 22.05 itself falls over where it has never saved its nodes
    slurm.start_controller()
    slurm.wait_idle()
    job = site.submit(once(site, 0.5))
    slurm.stop_controller(kill=True)
    slurm.start_controller()
    job.wait(60)
    if job.state is State.FAILED:
        assert reasons(job) + list(job.failed()["reason"]) == ["LOST"]
        job.retry().wait(60)
    assert job.state is State.SUCCEEDED
    assert ran(site.trace) == ["ran"]


def test_munge_is_down_for_a_while(site: Site, slurm: SlurmCluster) -> None:
    go = site.folder / "go"
    job = site.submit(
        stage("once", f"echo ran >> {site.trace}; while [ ! -e {go} ]; do sleep 0.1; done"),
        stage("after", f"echo after >> {site.trace}", depends_on=("once",)),
    )
    running(site)
    slurm.stop_munge()
    assert job.refresh().state is State.RUNNING
    until(lambda: not job.refresh().known)
    assert job.refresh().state is State.RUNNING, "a query that fails says nothing"
    late = stage("late", f"echo late >> {site.trace}")
    with pytest.raises(LabkitError, match=r"(?i)munge"):
        site.submit(late)
    slurm.start_munge()
    go.touch()
    assert job.wait(60).state is State.SUCCEEDED
    assert site.submit(late).wait(60).state is State.SUCCEEDED
    assert ran(site.trace) == ["ran", "after", "late"]


# --- nodes ----------------------------------------------------------------------------------------


def test_a_node_dies_and_the_task_runs_on_another(site: Site, slurm: SlurmCluster) -> None:
    job = site.submit(once(site, 2), stage("after", "true", depends_on=("once",)))
    running(site)
    node = node_of(slurm)
    slurm.kill_node(node)
    assert job.refresh().state is State.RUNNING
    down(slurm, node)
    start_now(slurm)
    assert job.wait(60).state is State.SUCCEEDED
    assert reasons(job) == ["NODE_FAIL", "SUCCEEDED"]
    assert ran(site.trace) == ["ran", "ran"]


def test_a_node_is_cut_off_and_its_task_works_on(site: Site, slurm: SlurmCluster) -> None:
    """SLURM gives the task to another node while the first still runs it."""
    go = site.folder / "go"
    job = site.submit(
        stage("once", f"echo ran >> {site.trace}; while [ ! -e {go} ]; do sleep 0.1; done")
    )
    running(site)
    node = node_of(slurm)
    slurm.kill_node(node, jobs=False)
    down(slurm, node)
    start_now(slurm)
    until(lambda: element(slurm)[1] == "RUNNING")
    assert job.refresh().state is State.RUNNING
    go.touch()
    assert job.wait(60).state is State.SUCCEEDED
    assert reasons(job) == ["SUCCEEDED"]
    assert ran(site.trace) == ["ran"]


def test_all_nodes_lose_their_power(site: Site, slurm: SlurmCluster) -> None:
    job = site.submit(
        once(site, 2), stage("after", f"echo after >> {site.trace}", depends_on=("once",))
    )
    running(site)
    begun = time.monotonic()
    for name in slurm.nodes:
        slurm.kill_node(name)
    assert not workers_of(job.path)
    # BatchStartTimeout and MessageTimeout: so long a job may be missing from its node at its start.
    until(lambda: time.monotonic() > begun + 21)
    for name in slurm.nodes:
        slurm.start_node(name)
    # A node that came back tells that it does not have the job; SLURM puts it into the queue again.
    start_now(slurm)
    assert job.wait(60).state is State.SUCCEEDED
    assert ran(site.trace) == ["ran", "ran", "after"]
    assert reasons(job) == ["NODE_FAIL", "SUCCEEDED"]


# --- disks ----------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path, slurm: SlurmCluster) -> Iterator[Path]:
    """A disk of 3 MB."""
    with small_disk(tmp_path / "disk") as folder:
        yield folder
        slurm.cancel_all()


@needs_root
def test_a_program_fills_the_disk(site: Site, disk: Path) -> None:
    work = stage("big", "head -c 2000000 /dev/zero > a; head -c 2000000 /dev/zero > b")
    job = Staged(work, output=disk).submit("slurm").wait(60)
    assert list(job.failed()["reason"]) == ["DISK_FULL"]
    enlarge(disk)
    assert job.retry().wait(60).state is State.SUCCEEDED


@needs_root
def test_the_disk_is_full_when_a_task_ends(site: Site, disk: Path) -> None:
    work = stage("calm", f"echo ran >> {site.trace}; echo x > y; sleep 1.5")
    job = Staged(work, output=disk).submit("slurm")
    running(site)
    fill(disk)
    job.wait(60)
    assert job.state is State.SUCCEEDED, "the record's space was kept from the start"
    assert ran(site.trace) == ["ran"]


@needs_root
def test_the_disk_is_full_before_a_task_starts(site: Site, disk: Path) -> None:
    first = f"echo ran >> {site.trace}; sleep 1"
    job = Staged(
        stage("one", first), stage("two", "echo x > y", depends_on=("one",)), output=disk
    ).submit("slurm")
    running(site)
    fill(disk)
    until(lambda: records(job, "one"))
    assert job.wait(60).state is State.FAILED
    assert job.failed()["reason"][0] in ("DISK_FULL", "LOST")
    (disk / "filler").unlink()
    assert job.retry().wait(60).state is State.SUCCEEDED
    assert ran(site.trace) == ["ran"]


@needs_root
def test_a_submit_onto_a_full_disk_says_so_and_leaves_nothing(
    site: Site, disk: Path, slurm: SlurmCluster
) -> None:
    fill(disk)
    with pytest.raises(LabkitError, match="No space left"):
        Staged(stage("one", "true"), output=disk).submit("slurm")
    assert slurm.queue() == []
    assert not [path for path in disk.iterdir() if path.name != "filler"]


def test_the_run_folder_vanishes_and_comes_back(site: Site, slurm: SlurmCluster) -> None:
    job = site.submit(once(site, 8), stage("after", "true", depends_on=("once",)))
    running(site)
    away = site.folder / "away"
    (site.folder / "runs").rename(away)
    with pytest.raises(LabkitError, match="is gone"):
        job.refresh()
    until(lambda: not workers_of(job.path))
    until(lambda: not any("RUNNING" in line for line in slurm.queue()))
    away.rename(site.folder / "runs")
    assert job.wait(60).state is State.FAILED
    assert job.failed()["reason"][0] == "LOST"
    site.trace.unlink()
    job.retry()
    running(site, 60)
    assert job.refresh().state is State.RUNNING
    job.cancel().wait(60)


def test_a_deleted_run_folder_ends_its_job_alone(site: Site, slurm: SlurmCluster) -> None:
    job = site.submit(once(site, 8))
    running(site)
    other = site.submit(stage("other", "sleep 1; echo x > y"))
    shutil.rmtree(job.path)
    assert other.wait(60).state is State.SUCCEEDED
    until(lambda: not workers_of(job.path))
    until(lambda: not slurm.queue())
    assert site.submit(once(site, 0.1)).wait(60).state is State.SUCCEEDED


# --- limits, and other people's hands -------------------------------------------------------------


def test_over_its_memory_and_every_retry(site: Site, slurm: SlurmCluster) -> None:
    job = site.submit(hog(400, "60 MB", retries=1), stage("calm", "echo x > y"))
    assert job.wait(60).state is State.FAILED
    failed = job.failed()
    assert list(failed["reason"]) == ["OUT_OF_MEMORY"]
    assert list(failed["attempts"]) == [2]
    assert (job.path / "results/calm/t0/y").exists()
    until(lambda: not slurm.queue())
    assert job.retry(memory="x8").wait(60).state is State.SUCCEEDED


def test_over_slurms_time_limit(site: Site, slurm: SlurmCluster) -> None:
    job = site.submit(once(site, 600))
    running(site)
    soon = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 1))
    number, _ = element(slurm)
    slurm.command("scontrol", "update", f"JobId={number}", "TimeLimit=1")
    slurm.command("scontrol", "update", f"JobId={number}", f"EndTime={soon}")
    assert job.wait(100).state is State.FAILED
    assert list(job.failed()["reason"]) == ["TIMEOUT"]
    assert ran(site.trace) == ["ran"]


def test_cancelled_by_scancel(site: Site, slurm: SlurmCluster) -> None:
    stages = (once(site, 30), stage("after", "true", depends_on=("once",)))
    job = site.submit(*stages)
    running(site)
    slurm.command("scancel", element(slurm)[0])
    assert job.wait(60).state is State.CANCELLED
    assert job.failed()["reason"][0] == "CANCELLED"
    until(lambda: not slurm.queue())
    assert site.submit(*stages).path == job.path
    until(lambda: len(ran(site.trace)) == 2)
    job.cancel().wait(60)


def test_a_waiting_stage_is_cancelled_by_scancel(site: Site, slurm: SlurmCluster) -> None:
    job = site.submit(once(site, 3), stage("after", "true", depends_on=("once",)))
    running(site)
    slurm.command("scancel", element(slurm, "after")[0])
    assert job.wait(60).state is State.CANCELLED
    assert list(job.failed()["stage"]) == ["after"]
    assert list(job.failed()["reason"]) == ["CANCELLED"]
    assert job.retry().wait(60).state is State.SUCCEEDED
    assert ran(site.trace) == ["ran"]


def test_requeued_by_hand(site: Site, slurm: SlurmCluster) -> None:
    job = site.submit(once(site, 2))
    running(site)
    slurm.command("scontrol", "requeue", element(slurm)[0])
    until(lambda: element(slurm)[1] == "PENDING")
    assert job.refresh().state in (State.PENDING, State.RUNNING)
    start_now(slurm)
    assert job.wait(60).state is State.SUCCEEDED
    assert reasons(job) == ["PREEMPTED", "SUCCEEDED"]
    assert ran(site.trace) == ["ran", "ran"]
