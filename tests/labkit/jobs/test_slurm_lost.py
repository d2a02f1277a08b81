"""What is said of tasks whose SLURM job has ended badly, or is forgotten: never what may change."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labkit.base import process_tree
from labkit.jobs.backends.slurm import array_layout, backend, lost_tasks
from labkit.jobs.model import Resources, State
from labkit.jobs.plan import Plan
from labkit.jobs.runs.gc import garbage
from labkit.jobs.runs.store import Run, StageWork
from labkit.jobs.runs.watch import Snapshot, TaskStatus, Watch
from labkit.jobs.worker import reap, slurm
from labkit.jobs.worker.folder import read_json, write_json
from labkit.slurm.queue import Job
from tests.support.job_helpers import stage

WHERE = ("x", 0, 1)
GRACE = 60.0


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A job of one task, that SLURM has taken as its job 7."""
    run = Run.create(Plan("lost", "test", (stage("x", "true"),)), tmp_path)
    submit(run, "7")
    return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock of what is lost: seconds since 1970, and since this machine's start."""
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: 5000.0 + now[0])
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(lost_tasks, "_SEEN", {})
    monkeypatch.setattr(backend.SlurmBackend, "grace", GRACE)
    return now


def submit(run: Run, job: str) -> None:
    submission = run.intend("slurm", [StageWork("x", (0,), Resources())], {})
    array = {"id": job, "stage": "x", "start": 0, "count": 1, "each": 1}
    run.accept(submission, {"cluster": "here", "at": 1.0, "jobs": [array]})


def squeue(run: Run, state: str, **more: Any) -> list[Job]:
    """Return what squeue says of the task's job."""
    submission = run.submissions()[-1]
    (array,) = (submission.handle or {})["jobs"]
    name = f"{submission.name}.x.0.1.1"
    about = {"host": "node1", "end": 6000.0, **more}
    return [Job(array=array["id"], elements="0", state=state, name=name, **about)]


def look(run: Run, jobs: list[Job], watch: Watch | None = None) -> tuple[Snapshot, TaskStatus]:
    by_name = {submission.name: submission for submission in run.submissions()}
    parsed: dict[str, list[Any]] = {name: [] for name in by_name}
    for job in jobs:
        name, array = array_layout.parse_name(job.name) or ("", None)
        parsed[name].append((array, job))
    said = backend._sightings(run, run.submissions(), parsed, "here")
    snapshot = (watch or Watch(run, GRACE)).look(said)
    (task,) = snapshot.open or [TaskStatus("x", 0, State.SUCCEEDED)]
    return snapshot, task


def beat(run: Run, attempt: int = 1, submission: int = 1) -> Path:
    """Write the heartbeat of a worker that lives: ours."""
    path = run.folder.running("x", 0, attempt)
    run.folder.attempt("x", 0, attempt).mkdir(exist_ok=True)
    about = {
        "stage": "x", "index": 0, "key": "t0", "attempt": attempt, "submission": submission,
        "state": "RUNNING", "pid": os.getpid(), "pid_start": process_tree.start_time(os.getpid()),
        "place": process_tree.place(), "started": 1.0, "cpu": 1.0, "memory": 1 << 26, "units": 1,
    }  # fmt: skip
    write_json(path, about)
    return path


def record(run: Run, attempt: int, state: str, submission: int = 1, reason: str = "") -> None:
    """Write the record of an attempt that had that heartbeat, and ends."""
    path = run.folder.running("x", 0, attempt)
    about = {**(read_json(path) or {}), "state": state, "reason": reason, "seconds": 1.0}
    about |= {"stage": "x", "index": 0, "attempt": attempt, "submission": submission, "ended": 2.0}
    assert run.write_record(about)


def test_a_task_that_runs_on_is_not_said_to_have_failed(run: Run, clock: list[float]) -> None:
    """Its node is cut off, or only the starter around the worker was killed."""
    beat(run)
    clock[0] += 10 * GRACE
    _, task = look(run, squeue(run, "FAILED"))
    assert task.state is State.RUNNING
    assert run.folder.attempts("tasks", "x") == [], "nor recorded: its own record comes"
    record(run, 1, "SUCCEEDED")
    snapshot, _ = look(run, squeue(run, "FAILED"))
    assert snapshot.state is State.SUCCEEDED


def test_what_slurm_ended_is_final_when_no_record_can_come_any_more(
    run: Run, clock: list[float]
) -> None:
    ended = squeue(run, "FAILED", end=6000.0)
    _, task = look(run, ended)
    assert task.state is State.RUNNING
    assert "known in a minute" in task.text
    clock[0] += GRACE + 1
    look(run, ended)  # writes the record
    snapshot, task = look(run, ended)
    assert (snapshot.state, task.reason) == (State.FAILED, "LOST")
    assert (read_json(run.folder.record(*WHERE)) or {})["by"] == "slurm"


def test_a_disk_that_is_full_keeps_nobody_waiting(
    run: Run, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    ended = squeue(run, "FAILED", end=100.0)
    with monkeypatch.context() as patch:
        patch.setattr(Run, "write_record", full)
        snapshot, _ = look(run, ended)
    assert (snapshot.known, snapshot.state) == (True, State.FAILED)
    look(run, ended)
    assert run.folder.record(*WHERE).exists(), "written when there is room"


@pytest.mark.parametrize("end", [None, 9e9], ids=["no end", "its clock is ahead"])
def test_a_job_whose_end_tells_nothing_is_over_by_our_own_clock(
    run: Run, clock: list[float], end: float | None
) -> None:
    ended = squeue(run, "NODE_FAIL", end=end)
    look(run, ended)
    clock[0] += GRACE - 1
    assert look(run, ended)[1].state is State.RUNNING
    clock[0] += 2
    _, task = look(run, ended)
    assert (task.state, task.reason) == (State.FAILED, "NODE_FAIL")


def test_what_never_had_a_node_is_over_at_once(run: Run, clock: list[float]) -> None:
    _, task = look(run, squeue(run, "CANCELLED", host=""))
    assert task.state is State.CANCELLED


def test_a_later_attempt_that_lives_counts_more_than_the_record_of_the_one_before(
    run: Run, clock: list[float]
) -> None:
    """slurmctld has lost its state, and its element goes on with the next attempt."""
    beat(run)
    record(run, 1, "FAILED", reason="LOST")
    beat(run, 2)
    snapshot, task = look(run, [])
    assert (snapshot.state, task.state) == (State.RUNNING, State.RUNNING)
    assert snapshot.attempts == 2
    record(run, 2, "SUCCEEDED")
    assert look(run, [])[0].state is State.SUCCEEDED


def test_a_cancelled_task_is_said_to_be_so_when_it_has_ended(run: Run, clock: list[float]) -> None:
    path = beat(run)
    run.request_cancel(run.submissions()[0])
    watch = Watch(run, GRACE)
    for jobs in ([], squeue(run, "CANCELLED")):
        _, task = look(run, jobs, watch)
        assert (task.state, task.text) == (State.RUNNING, "It is being cancelled.")
    path.unlink()
    assert look(run, [], watch)[1].state is State.CANCELLED


# --- the element on the node ----------------------------------------------------------------------


@pytest.fixture
def element(run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., slurm.Element]]:
    """Make the element of a submission."""
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")

    def make(submission: int, job: str) -> slurm.Element:
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", job)
        given = {
            "--submission": f"{submission}", "--start": "0", "--each": "1", "--most": f"{1 << 40}",
            "--margin": "0", "--grace": "1", "--bin": "/usr/bin",
        }  # fmt: skip
        return slurm.Element(run.folder, "x", given, [])

    before = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    yield make
    for number, handler in before:
        signal.signal(number, handler)


def test_an_element_waits_for_an_attempt_of_an_earlier_submission(
    run: Run, element: Callable[..., slurm.Element], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not start one attempt after the other that has no turn."""
    beat(run)
    submit(run, "8")
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            record(run, 1, "FAILED", reason="EXIT")

    monkeypatch.setattr(time, "sleep", sleep)
    assert element(2, "8").run()
    assert len(slept) == 3
    assert run.folder.attempts("tasks", "x") == [(0, 1), (0, 2)]


@pytest.mark.parametrize("by", ["element", "worker"])
def test_a_heartbeat_that_a_killed_reaper_left_beside_its_record_goes_with_the_next_attempt(
    run: Run, element: Callable[..., slurm.Element], by: str
) -> None:
    path = beat(run)
    dead = {**(read_json(path) or {}), "pid_start": 1}
    record(run, 1, "FAILED", reason="LOST")
    write_json(path, dead)
    run.folder.reserved(*WHERE).touch()
    assert path in garbage(run).paths
    if by == "element":
        assert element(1, "7").run()
    else:
        assert reap.no_turn(run.folder, "x", 0, 2, 1, 1) == {}
    assert not path.exists() and not run.folder.reserved(*WHERE).exists()


def test_an_element_that_is_ended_while_it_waits_leaves_the_living_alone(
    run: Run, element: Callable[..., slurm.Element], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = beat(run)
    monkeypatch.setattr(time, "sleep", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    assert not element(1, "7").run()
    assert path.exists()
    assert run.folder.attempts("tasks", "x") == []
    assert run.folder.attempts("attempts", "x") == [(0, 1)]


def test_an_element_records_its_own_dead_attempt_and_not_anothers(
    run: Run, element: Callable[..., slurm.Element], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two starts of one element live, as its node was cut off: each has claimed an attempt."""
    called: list[dict[str, str]] = []

    def killed(command: list[str], env: dict[str, str], **_: Any) -> int:
        assert command[command.index("--attempt") + 1] == "1"
        assert run.folder.attempt(*WHERE).is_dir(), "claimed before it starts"
        called.append(env)
        beat(run, 2)
        return -signal.SIGKILL

    monkeypatch.setattr(subprocess, "call", killed)
    mine = element(1, "7")
    mine._attempt(0, 1 << 26)
    assert called[0]["LABKIT_ATTEMPT"] == f"{run.path}:x:0.1"
    assert (read_json(run.folder.record(*WHERE)) or {})["reason"] == "LOST"
    assert read_json(run.folder.record("x", 0, 2)) is None
    assert run.folder.running("x", 0, 2).exists()
