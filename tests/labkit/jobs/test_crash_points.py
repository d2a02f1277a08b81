"""Every change of a file by worker, scheduler and submitter, as the moment where it dies.

Between two changes the disk is the same, whatever was read meanwhile.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import labkit
from labkit.jobs.backends.local_queue import LocalQueue
from labkit.jobs.job import open_job
from labkit.jobs.model import Resources, State
from labkit.jobs.runs.store import Run, StageWork
from labkit.jobs.worker.folder import read_json
from tests.support.crash_points import Forked, serve, worker
from tests.support.job_helpers import Staged, ran, stage

# More than each role has changes of files.
WORKER, SCHEDULER, SUBMITTER = 60, 60, 150
KILLED = -signal.SIGKILL


@pytest.fixture(autouse=True)
def no_scheduler(lab_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The test itself brings the scheduler; and no power is cut, so nothing need be synced."""
    monkeypatch.setattr(LocalQueue, "ensure_scheduler", lambda _: None)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    yield


def many(trace: Path, count: int) -> Run:
    """Submit a run of many tasks, each of which leaves its name when it runs."""
    scripts = [f"echo t{index} >> {trace}; echo {index} > out" for index in range(count)]
    work = stage("work", *scripts, outputs=("out",), resources=Resources.of(0.01, "10 MB"))
    return Staged(work).submit().run


def check(run: Run, trace: Path, tasks: range, died: int) -> Counter[str]:
    """Look whether each task has succeeded once; return how often each ran."""
    counted = Counter(ran(trace))
    for index in tasks:
        states = [
            (read_json(run.folder.record("work", index, attempt)) or {})["state"]
            for number, attempt in run.folder.attempts("tasks", "work")
            if number == index
        ]
        assert states.count("SUCCEEDED") == 1, (index, states)
        assert states[-1] == "SUCCEEDED", (index, states)
        assert (run.folder.result("work", f"t{index}") / "out").read_text() == f"{index}\n"
        assert 1 <= counted[f"t{index}"] <= died + 1, (index, states)
    for kind in ("tasks", "running"):
        left = [path.name for path in (run.path / kind / "work").iterdir()]
        # What was half written when its writer died is known to gc by its name.
        assert not [name for name in left if name.endswith(".reserved")]
        assert kind == "tasks" or not [name for name in left if not name.startswith(".")]
    return counted


def look() -> int:
    """Ask for all jobs, as somebody does who comes back."""
    labkit.jobs(SUBMITTER)
    return 0


@pytest.mark.slow
def test_a_worker_dies_before_each_of_its_changes_of_a_file(tmp_path: Path) -> None:
    trace, log = tmp_path / "trace", tmp_path / "log"
    run = many(trace, WORKER)
    for point in range(1, WORKER):
        run.folder.attempt("work", point, 1).mkdir()  # the claim
        words = ["work", str(point), "--attempt", "1", "--submission", "1"]
        if worker(run.path, words, log, dies_at=point).wait() != KILLED:
            break
    assert 12 < point < WORKER - 1, log.read_text()
    assert Forked(lambda: serve(log), log).wait(120) == 0, log.read_text()
    counted = check(run, trace, range(WORKER), died=1)
    twice = [key for key, count in counted.items() if count == 2]
    # After the commit nothing runs again; before the program nothing has run.
    assert 0 < len(twice) < point / 2
    assert open_job(run).state is State.SUCCEEDED


@pytest.mark.slow
def test_a_scheduler_dies_before_each_of_its_changes_of_a_file(tmp_path: Path) -> None:
    trace, log = tmp_path / "trace", tmp_path / "log"
    run = many(trace, SCHEDULER)
    queue = LocalQueue()
    (first,) = run.submissions()
    queue.remove(first.name)
    resources = Resources.of(0.01, "10 MB")
    for point in range(1, SCHEDULER):
        submission = run.intend("local", [StageWork("work", (point,), resources)], {})
        own = LocalQueue(tmp_path / f"queue{point}")  # where those before it are not in its way
        own.add(submission.name, run.path, submission.number)
        run.accept(submission, {"host": "here", "queue": str(queue.path)})
        code = Forked(partial(serve, log, own.path), log, dies_at=point).wait()
        if code != KILLED:
            break
        queue.add(submission.name, run.path, submission.number)
    assert Forked(lambda: serve(log), log).wait(300) == 0, log.read_text()
    assert 12 < point < SCHEDULER - 1, log.read_text()
    counted = check(run, trace, range(1, point), died=0)
    assert set(counted.values()) == {1}, "a scheduler's death costs no task its work"


@pytest.mark.slow
def test_a_submitter_dies_before_each_of_its_changes_of_a_file(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for point in range(1, SUBMITTER):
        runs = tmp_path / f"runs{point}"
        work = Staged(stage("work", f"echo t{point} >> {tmp_path}/trace"), output=runs)

        def submit(work: Staged = work) -> int:
            work.submit()
            return 0

        code = Forked(submit, log, dies_at=point).wait()
        if point % 2 or not list(runs.glob("[!.]*/submissions/0001.json")):
            assert Forked(submit, log).wait() == 0, log.read_text()
        else:  # they look what they have, and do not submit again
            assert Forked(look, log).wait() == 0, log.read_text()
        if code != KILLED:
            break
    assert 20 < point < SUBMITTER - 1, log.read_text()
    assert Forked(lambda: serve(log), log).wait(300) == 0, log.read_text()
    assert sorted(ran(tmp_path / "trace")) == sorted(f"t{number}" for number in range(1, point + 1))
    for number in range(1, point + 1):
        (path,) = (tmp_path / f"runs{number}").glob("[!.]*")
        assert len(Run(path).submissions()) == 1, number
