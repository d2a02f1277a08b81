"""What jobs on this machine survive: nothing lost, nothing doubled, the state tells the truth."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.base import process_tree
from labkit.base.problems import LabkitError
from labkit.jobs.backends.local import resume
from labkit.jobs.backends.local_queue import LocalQueue
from labkit.jobs.job import Job, open_job
from labkit.jobs.model import Resources, Stage, State, Task
from labkit.jobs.runs.store import Run
from tests.conftest import needs_root
from tests.support.backend_contract import HOG, Site
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
)
from tests.support.job_helpers import (
    PYTHON,
    Staged,
    end_scheduler,
    ran,
    records,
    shell,
    stage,
    until,
    workers,
)


@pytest.fixture
def site(tmp_path: Path, lab_home: Path) -> Site:
    return Site("local", tmp_path)


def test_a_killed_worker_is_lost_and_tried_again(site: Site, lab_home: Path) -> None:
    job = site.submit(once(site))
    running(site)
    (worker,) = workers(lab_home)
    os.kill(worker, signal.SIGKILL)
    job.wait(20)
    assert job.state is State.SUCCEEDED
    assert ran(site.trace) == ["ran", "ran"], "the first one's program was ended before the second"
    assert reasons(job) == ["LOST", "SUCCEEDED"]


def test_a_killed_program_is_not_taken_for_a_lost_worker(site: Site, lab_home: Path) -> None:
    job = site.submit(once(site))
    running(site)
    (worker,) = workers(lab_home)
    process_tree.kill(process_tree.descendants(worker))
    job.wait(20)
    assert reasons(job) == ["EXIT"]
    assert "signal 9" in job.failed()["text"][0]


def test_another_scheduler_adopts_what_runs(site: Site, lab_home: Path) -> None:
    job = site.submit(once(site, 2.5), stage("after", "true", depends_on=("once",)))
    running(site)
    first = end_scheduler()
    assert workers(lab_home), "workers outlive their scheduler"
    assert open_job(job.run).refresh().state is State.RUNNING
    second = until(lambda: LocalQueue().scheduler_pid())
    assert second != first
    job.wait(20)
    assert job.state is State.SUCCEEDED
    assert ran(site.trace) == ["ran"]
    assert reasons(job) == ["SUCCEEDED"]


def test_a_server_that_starts_takes_up_what_was_left(site: Site, lab_home: Path) -> None:
    assert not resume()
    job = site.submit(once(site, 0.5))
    running(site)
    process_tree.kill(
        [pid for pid in process_tree.marked("HOME", str(lab_home)) if pid != os.getpid()]
    )
    until(lambda: LocalQueue().scheduler_pid() is None)
    assert resume()
    until(lambda: (0, 2) in records(job, "once"))  # nobody but the scheduler looks
    assert reasons(job) == ["LOST", "SUCCEEDED"]


def test_what_ended_while_no_scheduler_lived_is_not_run_again(site: Site) -> None:
    job = site.submit(once(site, 1), stage("after", "true", depends_on=("once",)))
    running(site)
    end_scheduler()
    until(lambda: records(job, "once"))
    assert job.wait(20).state is State.SUCCEEDED
    assert ran(site.trace) == ["ran"]


def test_all_processes_of_all_jobs_are_killed(site: Site, lab_home: Path) -> None:
    job = site.submit(once(site, 2), stage("after", "echo x > y", depends_on=("once",)))
    running(site)
    everything = [pid for pid in process_tree.marked("HOME", str(lab_home)) if pid != os.getpid()]
    assert len(everything) >= 3
    process_tree.kill(everything)
    until(lambda: not workers(lab_home))
    assert job.wait(20).state is State.SUCCEEDED
    assert ran(site.trace) == ["ran", "ran"]
    assert reasons(job) == ["LOST", "SUCCEEDED"]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_the_kernel_dies_between_intent_and_answer(site: Site, moment: str) -> None:
    dies_while_submitting(site, moment)
    assert kernel(site).wait(30) == 0
    job = open_job(the_run(site)).wait(20)
    assert job.state is State.SUCCEEDED
    assert ran(site.trace) == ["ran"]
    assert len(job.run.submissions()) == 1


def test_the_kernel_dies_after_the_submit_and_the_job_goes_on(site: Site) -> None:
    assert kernel(site, after=DIE).wait(30) == -signal.SIGKILL
    run = the_run(site)
    # Nobody looks: the scheduler alone brings it to its end.
    until(lambda: run.folder.attempts("tasks", "once"))
    assert open_job(run).state is State.SUCCEEDED


def test_two_kernels_submit_at_once(site: Site) -> None:
    submit_at_once(site)
    run = the_run(site)
    assert len(run.submissions()) == 1
    assert not list((site.folder / "runs").glob(".staged-*")), "nothing is left aside"
    assert open_job(run).wait(20).state is State.SUCCEEDED
    assert ran(site.trace) == ["ran"]


def test_the_run_folder_vanishes_and_comes_back(site: Site, lab_home: Path) -> None:
    job = site.submit(once(site, 30))
    running(site)
    away = site.folder / "away"
    (site.folder / "runs").rename(away)
    with pytest.raises(LabkitError, match="is gone"):
        job.refresh()
    until(lambda: not workers(lab_home))
    (site.folder / "trace").unlink()
    away.rename(site.folder / "runs")
    until(lambda: ran(site.trace))
    assert job.refresh().state is State.RUNNING
    assert reasons(job) == ["LOST"]
    job.cancel().wait(20)


def test_a_deleted_run_folder_ends_its_job_alone(site: Site, lab_home: Path) -> None:
    job = site.submit(once(site, 30))
    running(site)
    other = site.submit(stage("other", "sleep 1; echo x > y"))
    shutil.rmtree(job.path)
    assert other.wait(20).state is State.SUCCEEDED
    until(lambda: not workers(lab_home))
    again = site.submit(once(site, 0.1))
    assert again.wait(20).state is State.SUCCEEDED


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MB."""
    with small_disk(tmp_path / "disk") as folder:
        yield folder
        end_scheduler()


@needs_root
def test_a_program_fills_the_disk(site: Site, disk: Path) -> None:
    work = stage("big", "head -c 2000000 /dev/zero > a; head -c 2000000 /dev/zero > b")
    job = Staged(work, output=disk).submit()
    job.wait(20)
    failed = job.failed()
    assert list(failed["reason"]) == ["DISK_FULL"]
    assert "no space left" in failed["text"][0]
    enlarge(disk)
    assert job.retry().wait(20).state is State.SUCCEEDED


@needs_root
def test_the_disk_is_full_when_a_task_ends(site: Site, disk: Path) -> None:
    work = stage("calm", f"echo ran >> {site.trace}; echo x > y; sleep 1.5")
    job = Staged(work, output=disk).submit()
    running(site)
    fill(disk)
    job.wait(20)
    assert job.state is State.SUCCEEDED, "the record's space was kept from the start"
    assert ran(site.trace) == ["ran"]


@needs_root
def test_the_disk_is_full_before_a_task_starts(site: Site, disk: Path) -> None:
    first = f"echo ran >> {site.trace}; sleep 1"
    job = Staged(
        stage("one", first), stage("two", "echo x > y", depends_on=("one",)), output=disk
    ).submit()
    running(site)
    fill(disk)
    until(lambda: records(job, "one"))
    snapshot = job.refresh()
    assert snapshot.state in (State.RUNNING, State.FAILED)
    (disk / "filler").unlink()
    job.wait(20)
    if job.state is State.FAILED:
        assert list(job.failed()["reason"]) == ["DISK_FULL"]
        job.retry().wait(20)
    assert job.state is State.SUCCEEDED
    assert ran(site.trace) == ["ran"]


@needs_root
def test_a_submit_onto_a_full_disk_says_so_and_leaves_nothing(site: Site, disk: Path) -> None:
    fill(disk)
    with pytest.raises(LabkitError, match="No space left"):
        Staged(stage("one", "true"), output=disk).submit()
    assert not [path for path in disk.iterdir() if path.name != "filler"]


def without_cgroups(work: Stage, folder: Path) -> Job:
    """Submit with a worker that may make no cgroups, as most people's may not."""
    flow = Staged(work, output=folder)
    run = Run.create(flow.build("local"), folder)
    code = run.path / "worker/labkit/jobs/worker/cgroup.py"
    code.write_text(
        code.read_text().replace(
            "        parent, v2 =",
            '        raise PermissionError("for this test")\n        parent, v2 =',
        )
    )
    return flow.submit()


def test_memory_is_watched_without_cgroups(site: Site) -> None:
    task = Task(
        "hog", 0, (PYTHON, "-c", HOG.replace("{size}", "300") + "; import time; time.sleep(3)")
    )
    work = Stage("hog", (task,), Resources.of(0.5, "100 MB"), retries=0)
    job = without_cgroups(work, site.folder / "runs").wait(20)
    failed = job.failed()
    assert list(failed["reason"]) == ["OUT_OF_MEMORY"]
    assert "100 MB" in failed["text"][0]
    assert job.retry(memory="500 MB").wait(30).state is State.SUCCEEDED


def test_memory_counts_for_the_whole_tree(site: Site) -> None:
    one = "x = b'x' * (60 << 20); import time; time.sleep(8)"
    script = " & ".join([f'{PYTHON} -c "{one}"'] * 3) + " & wait"
    work = stage("tree", script, resources=Resources.of(0.5, "100 MB"), retries=0)
    job = without_cgroups(work, site.folder / "runs").wait(20)
    assert list(job.failed()["reason"]) == ["OUT_OF_MEMORY"]


def test_shared_memory_counts_once_without_cgroups(site: Site) -> None:
    code = (
        "import os, time; x = bytearray(b'x' * (60 << 20)); "
        "[os.fork() or (time.sleep(2), os._exit(0)) for _ in range(3)]; "
        "[os.wait() for _ in range(3)]"
    )
    task = Task("fork", 0, (PYTHON, "-c", code))
    work = Stage("fork", (task,), Resources.of(0.5, "140 MB"), retries=0)
    job = without_cgroups(work, site.folder / "runs").wait(20)
    assert job.state is State.SUCCEEDED


def test_background_processes_end_with_their_task(site: Site, lab_home: Path) -> None:
    work = stage("left", "setsid sleep 300 & echo x > y", outputs=("y",))
    job = site.run(work)
    assert job.state is State.SUCCEEDED
    commands = [
        Path(f"/proc/{pid}/cmdline").read_bytes()
        for pid in process_tree.marked("HOME", str(lab_home))
    ]
    assert not [command for command in commands if b"300" in command]


def test_a_stubborn_program_ends_on_time(site: Site) -> None:
    script = shell("trap '' TERM; while :; do sleep 1; done")
    work = Stage("deaf", (Task("t", 0, script),), Resources.of(0.5, "100 MB", "1 s"))
    job = site.run(work)
    assert list(job.failed()["reason"]) == ["TIMEOUT"]


def test_a_worker_of_another_process_namespace_is_known_by_its_heartbeat(
    site: Site, lab_home: Path
) -> None:
    """Two servers of one person share the home, and a pid of one means nothing in the other."""
    job = site.submit(once(site, 4))
    running(site)
    (worker,) = workers(lab_home)
    end_scheduler()
    beat = job.run.folder.running("once", 0, 1)
    until(lambda: '"updated"' in beat.read_text())
    beat.write_text(
        beat.read_text().replace("pid:[", "pid:[9").replace(f'"pid":{worker}', '"pid":1')
    )
    job.refresh()
    until(lambda: LocalQueue().scheduler_pid())
    assert job.wait(20).state is State.SUCCEEDED
    assert ran(site.trace) == ["ran"]


@needs_root
def test_a_run_folder_that_somebody_else_laid_out_is_not_run(site: Site) -> None:
    work = once(site)
    run = Run.create(Staged(work).build("local"), site.folder / "runs")
    shutil.chown(run.path, "nobody")
    with pytest.raises(LabkitError, match="somebody else"):
        site.submit(work)
    shutil.chown(run.path, "root")
    run.path.chmod(0o777)
    with pytest.raises(LabkitError, match="somebody else"):
        site.submit(work)
    assert ran(site.trace) == []
