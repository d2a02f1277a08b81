"""Several submissions of one job: which success counts for which, and who still starts anything."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from labkit.base import process_tree
from labkit.jobs import submission as submitting
from labkit.jobs.backends import base
from labkit.jobs.backends.local_job import Job
from labkit.jobs.backends.local_stage import Live
from labkit.jobs.backends.slurm import lost_tasks
from labkit.jobs.model import Limits, Resources, Sightings, State
from labkit.jobs.plan import Plan
from labkit.jobs.runs.store import Run, StageWork, Submission
from labkit.jobs.runs.watch import Snapshot
from labkit.jobs.worker import pod, reap, slurm
from labkit.jobs.worker.folder import read_json, write_json
from tests.support.job_helpers import stage

MOST = 1 << 30


class Forgetful(base.Backend):
    """A backend that takes everything, and has forgotten it when it is asked."""

    name: ClassVar[str] = "forgetful"

    def limits(self) -> Limits:
        return Limits(64, 1 << 40, None, "all", None)

    def payload(self, plan: Plan, options: Mapping[str, Any]) -> str:
        return ""

    def submit(self, run: Run, submission: Submission) -> dict[str, Any]:
        return {"jobs": [{"id": "7"}]}

    def find(self, run: Run, submission: Submission) -> None:
        return None

    def poll(self, runs: Sequence[Run]) -> dict[Run, Sightings]:
        return {run: Sightings(known=True) for run in runs}

    def cancel(self, run: Run, submissions: Iterable[Submission]) -> None: ...


@pytest.fixture(autouse=True)
def _forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "get", lambda _: Forgetful())
    monkeypatch.setattr(os, "fsync", lambda _: None)  # a hundred run folders are made


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A job of one task, handed over once."""
    return submitted(tmp_path, stage("x", f"echo ran >> {tmp_path}/trace; echo x > y"))


def submitted(folder: Path, *stages: Any) -> Run:
    run = Run.create(Plan("several", "test", stages), folder / "runs")
    submitting.submit(run, Forgetful(), Plan("several", "test", stages), {})
    return run


def again(run: Run, kind: str = "retry") -> bool:
    """Retry or rerun; return whether anything was handed over."""
    before = len(run.submissions())
    submitting.resubmit(run, None, {}, rerun=kind == "rerun")
    return len(run.submissions()) > before


def look(run: Run) -> Snapshot:
    return submitting.look(run)


def record(run: Run, submission: int, state: str, name: str = "x", reason: str = "") -> None:
    """Write the record of the task's next attempt, which a submission has started."""
    attempt = len(run.folder.attempts("tasks", name)) + 1
    about = {"stage": name, "index": 0, "key": "t0", "attempt": attempt, "seconds": 1.0}
    about |= {"submission": submission, "state": state, "reason": reason, "ended": 2.0}
    if state == "SUCCEEDED":
        run.folder.result(name, "t0").mkdir(exist_ok=True)
    assert run.write_record(about)


@pytest.fixture
def element(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., slurm.Element]]:
    """Return the element that SLURM starts for a submission."""
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    before = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]

    def make(run: Run, submission: int, name: str = "x") -> slurm.Element:
        given = {
            "--submission": f"{submission}", "--start": "0", "--each": "1", "--most": f"{MOST}",
            "--margin": "0", "--grace": "1", "--bin": "/usr/bin",
        }  # fmt: skip
        return slurm.Element(run.folder, name, given, [])

    yield make
    for number, handler in before:
        signal.signal(number, handler)


def local(run: Run, submission: int) -> Job:
    """Return the submission as the local scheduler takes it up."""
    return Job(run, run.submissions()[submission - 1], MOST, run.path.parent / "queue")


def work(run: Run, submission: int) -> int:
    """Start a worker as a scheduler does."""
    command = [sys.executable, "-I", "-S", str(run.path / "worker"), "x", "0"]
    return subprocess.run([*command, "--submission", f"{submission}"], timeout=60).returncode


LATER = [kinds for n in range(3) for kinds in itertools.product(["retry", "rerun"], repeat=n)]


@pytest.mark.parametrize("kinds", LATER, ids="-".join)
def test_a_success_counts_for_all_submissions_since_the_last_rerun(
    kinds: tuple[str, ...], tmp_path: Path, element: Callable[..., slurm.Element]
) -> None:
    """Whichever submission it is of, and however many were sent before it was seen."""
    last = len(kinds) + 1
    for of, seen in itertools.combinations_with_replacement(range(1, last + 1), 2):
        run = submitted(tmp_path / f"{of}-{seen}", stage("x", "true"))
        since = 1
        for number, kind in enumerate(["submit", *kinds], start=1):
            if number > 1 and again(run, kind) and kind == "rerun":
                since = len(run.submissions())
            if number == seen:
                record(run, of, "SUCCEEDED")
        counts = of >= since
        latest = len(run.submissions())
        assert (look(run).state is State.SUCCEEDED) is counts
        assert element(run, latest)._next(0) == (0 if counts else element(run, latest).asked)
        assert list(local(run, latest).stages["x"].todo) == ([] if counts else [0])
        done = lost_tasks._recorded(run, run.submissions()[-1], "x")
        assert done == ({0} if counts else set())
        assert again(run) is not counts


def test_a_worker_that_finds_a_success_of_an_earlier_submission_starts_nothing(run: Run) -> None:
    again(run)
    record(run, 1, "SUCCEEDED")
    assert work(run, 2) == 0
    assert not (run.path.parents[1] / "trace").exists()
    assert run.folder.attempts("attempts", "x") == []
    again(run, "rerun")
    assert work(run, 3) == 0
    assert (run.path.parents[1] / "trace").read_text() == "ran\n"


def test_of_two_submissions_at_work_the_first_success_counts(tmp_path: Path) -> None:
    """The later one's attempt ends, too; its result does not take the place of the first."""
    run = submitted(tmp_path, stage("x", f"read _ < {tmp_path}/go; echo 2 > y"))
    again(run)
    os.mkfifo(tmp_path / "go")
    command = [sys.executable, "-I", "-S", str(run.path / "worker"), "x", "0", "--attempt", "1"]
    later = subprocess.Popen([*command, "--submission", "2"])
    with (tmp_path / "go").open("w") as go:  # opens when the program reads
        about = {"stage": "x", "index": 0, "key": "t0", "attempt": 2, "submission": 1}
        assert run.write_record({**about, "state": "SUCCEEDED"})
        go.write("\n")
    assert later.wait(60) == 1
    ended = read_json(run.folder.record("x", 0, 1)) or {}
    assert (ended["state"], ended["reason"]) == ("CANCELLED", "SUPERSEDED")
    assert not run.folder.result("x", "t0").exists()
    assert look(run).state is State.SUCCEEDED


def test_what_depends_on_a_task_that_runs_again_is_made_anew(tmp_path: Path) -> None:
    """Also where it had succeeded, with less to gather."""
    gather: Any = {"depends_on": ("x",), "tolerate_failures": True}
    run = submitted(tmp_path, stage("x", "true"), stage("gather", "true", **gather))
    record(run, 1, "FAILED", reason="EXIT")
    record(run, 1, "SUCCEEDED", "gather")
    assert [task.stage for task in look(run).open] == ["x"]
    assert again(run)
    assert [task.stage for task in look(run).open] == ["x", "gather"]
    record(run, 1, "SUCCEEDED")  # late
    assert [task.stage for task in look(run).open] == ["gather"]
    assert again(run), "the gather alone"
    assert [work.name for work in run.submissions()[2].stages] == ["gather"]
    record(run, 2, "SUCCEEDED", "gather")
    assert look(run).state is State.SUCCEEDED
    assert not again(run)


def test_a_deleted_result_is_made_anew(run: Run) -> None:
    record(run, 1, "SUCCEEDED")
    run.folder.result("x", "t0").rmdir()
    assert again(run)
    assert look(run).state is not State.SUCCEEDED
    assert again(run), "it was lost"
    record(run, 2, "SUCCEEDED")
    assert look(run).state is State.SUCCEEDED


def test_an_intent_of_an_earlier_version_asks_for_its_own_success(run: Run) -> None:
    again(run)
    intent = read_json(run.folder.submission(2)) or {}
    assert intent["stages"][0].pop("since") == {"1": "0"}
    run.folder.submission(2).write_text(json.dumps(intent))
    record(run, 1, "SUCCEEDED")
    assert look(run).state is not State.SUCCEEDED
    record(run, 2, "SUCCEEDED")
    assert look(run).state is State.SUCCEEDED


def test_what_slurm_had_said_to_be_over_and_starts_again_gives_way_to_the_later_submission(
    run: Run, element: Callable[..., slurm.Element], capfd: pytest.CaptureFixture[str]
) -> None:
    """A controller that was killed goes back to its last saved state, and starts it again."""
    record(run, 1, "FAILED", reason="LOST")
    assert again(run)
    assert not element(run, 1).run()
    assert "belongs to submission 2 now" in capfd.readouterr().out
    assert run.folder.attempts("attempts", "x") == []
    assert element(run, 2).run()
    assert (run.path.parents[1] / "trace").read_text() == "ran\n"
    assert element(run, 1).run(), "it looks for the success first"


def test_the_later_submission_may_be_of_other_tasks(
    tmp_path: Path, element: Callable[..., slurm.Element]
) -> None:
    run = submitted(tmp_path, stage("x", "true"), stage("z", "true"))
    run.intend("forgetful", [StageWork("z", (0,), Resources())], {})
    assert element(run, 1, "x")._next(0) and element(run, 1, "z")._next(0) is None


@pytest.mark.parametrize(
    ("kind", "state", "once_more"),
    [("retry", "SUCCEEDED", False), ("retry", "FAILED", True), ("rerun", "SUCCEEDED", True)],
)
def test_the_local_scheduler_waits_for_an_earlier_submissions_attempt_and_goes_on(
    run: Run, kind: str, state: str, once_more: bool
) -> None:
    """How that one ends says something of its own submission, unless its success counts."""
    again(run, kind)
    job = local(run, 2)
    left = job.stages["x"]
    alive = {
        "stage": "x", "index": 0, "key": "t0", "attempt": 1, "submission": 1, "state": "RUNNING",
        "pid": os.getpid(), "pid_start": process_tree.start_time(os.getpid()), "cpu": 1.0,
        "place": process_tree.place(), "started": 1.0, "memory": 1 << 26,
    }  # fmt: skip
    write_json(run.folder.running("x", 0, 1), alive)
    assert left.todo.popleft() == 0
    assert job.claim(left, 0) == 2
    verdict = ("CANCELLED", "SUPERSEDED", "attempt 1 of this task still runs")
    run.write_record({**reap.record({}, ("x", 0, 2), 2, verdict, "worker"), "began": False})
    job._settle(left, Live("x", 0, 2, 0, 0, 1.0, 1), "it ended")
    assert [live.attempt for live in job.live] == [1]
    run.write_record({**alive, "state": state, "reason": "EXIT", "ended": 2.0})
    job._settle(left, job.live[0], "it ended")
    assert (list(left.todo), left.failed) == ([0] if once_more else [], 0)
    assert job.used == {}, "no attempt of this submission's"


def test_a_pod_that_finds_a_success_of_an_earlier_submission_starts_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "0")
    before = signal.getsignal(signal.SIGTERM)
    again(run)
    record(run, 1, "SUCCEEDED")
    try:
        for submission in (1, 2):
            given = {"--submission": f"{submission}", "--start": "0"}
            assert pod.Pod(run.folder, "x", given).run() == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    assert run.folder.attempts("attempts", "x") == []
