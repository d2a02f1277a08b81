"""Two machines share a home: one scheduler has a job, whoever else is frozen and wakes up."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import labkit
from labkit.jobs.backends import local_epoch, local_queue
from labkit.jobs.backends.local_job import Job, TakenOverError
from labkit.jobs.backends.local_queue import LocalQueue
from labkit.jobs.job import open_job
from labkit.jobs.model import State
from labkit.jobs.worker import reap
from labkit.jobs.worker.folder import read_json
from tests.support.backend_contract import Site
from tests.support.job_faults import once, reasons, running
from tests.support.job_helpers import end_scheduler, ran, records, stage, until

MOST = 1 << 30


@pytest.fixture
def site(tmp_path: Path, lab_home: Path) -> Site:
    return Site("local", tmp_path)


def taken(site: Site, job: labkit.Job, host: str) -> Job:
    """Take a job as the scheduler of a machine does."""
    run = job.run
    return Job(run, run.submissions()[0], MOST, site.folder / host)


def submitted(site: Site, monkeypatch: pytest.MonkeyPatch) -> labkit.Job:
    """Submit a job that no scheduler takes."""
    monkeypatch.setattr(LocalQueue, "ensure_scheduler", lambda _: None)
    return site.submit(once(site, 0.1))


def worker(job: labkit.Job, attempt: int) -> subprocess.Popen[bytes]:
    path = job.path
    words = [str(path / "worker"), "once", "0", "--attempt", str(attempt)]
    return subprocess.Popen([sys.executable, "-I", "-S", *words])


def test_one_that_lost_its_turn_claims_nothing_more(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submitted(site, monkeypatch)
    first, second = taken(site, job, "a"), taken(site, job, "b")
    left = first.next_stage_tasks()
    assert left
    with pytest.raises(TakenOverError):
        first.claim(left, 0)
    with pytest.raises(TakenOverError):
        first.attend()
    folder = first.run.folder
    assert not folder.attempts("attempts", "once"), "its claim is given back"
    other = second.next_stage_tasks()
    assert other and second.claim(other, 0) == 1
    assert (local_epoch.holder(folder, 1) or {})["queue"].endswith("/b")
    assert len(list((folder.path / "submissions").glob("0001.scheduler.*"))) == 1


def test_what_was_claimed_before_the_take_over_begins_no_more(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen between its claim and the start of the worker."""
    job = submitted(site, monkeypatch)
    first = taken(site, job, "a")
    left = first.next_stage_tasks()
    assert left and first.claim(left, 0) == 1
    second = taken(site, job, "b")
    assert worker(job, 1).wait(60) == 1, "it wakes up and starts it"
    assert not ran(site.trace)
    assert second.attempts["once", 0] == 1
    assert list(second.stages["once"].todo) == [0]
    assert (read_json(second.run.folder.record("once", 0, 1)) or {})["began"] is False


def test_two_that_begin_at_once_leave_one_newest(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submitted(site, monkeypatch)
    folder = job.run.folder
    listed = local_epoch._numbers
    begun: list[Any] = []

    def slow(*words: object) -> list[int]:
        names = listed(*words)  # type: ignore[arg-type]
        if not begun:
            begun.append(None)
            begun.append(local_epoch.Epoch.begin(folder, 1, site.folder / "b"))
        return names

    monkeypatch.setattr(local_epoch, "_numbers", slow)
    epoch = local_epoch.Epoch.begin(folder, 1, site.folder / "a")
    assert epoch.is_newest() and not begun[1].is_newest()


def test_no_attempt_runs_beside_an_earlier_one(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has started both: two elements of SLURM, two schedulers."""
    job = submitted(site, monkeypatch)
    first = taken(site, job, "a")
    left = first.next_stage_tasks()
    assert left and first.claim(left, 0) == 1
    late = worker(job, 2)
    assert late.wait(60) == 0, "the first had not begun, and may not begin any more"
    assert worker(job, 1).wait(60) == 0, "it looks for the success"
    assert ran(site.trace) == ["ran"]
    assert reasons(job) == ["SUPERSEDED", "SUCCEEDED"]


def test_an_attempt_gives_way_to_an_earlier_one_that_lives(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalQueue, "ensure_scheduler", lambda _: None)
    job = site.submit(once(site, 6.0))
    early = worker(job, 1)
    running(site)
    assert worker(job, 2).wait(60) == 1
    assert early.poll() is None
    record = read_json(job.run.folder.record("once", 0, 2)) or {}
    assert (record["began"], record["text"]) == (False, "attempt 1 of this task still runs")
    adopted = taken(site, job, "a")
    assert [live.attempt for live in adopted.live] == [1]
    adopted.surrender()
    assert early.wait(60) == -signal.SIGKILL
    assert reasons(job) == ["LOST", "SUPERSEDED"]
    assert ran(site.trace) == ["ran"]


@pytest.mark.parametrize("same_machine", [True, False], ids=["container", "machine"])
def test_a_frozen_scheduler_wakes_up_after_another_has_taken_over(
    site: Site, monkeypatch: pytest.MonkeyPatch, same_machine: bool
) -> None:
    """With another host name, and with another start of the machine: its pids mean nothing."""
    twin = site.folder / "twin"
    script = (
        f"for pid in $(cat {twin}.* 2>/dev/null); do "
        "grep -qs '^State:.[RSDT]' /proc/$pid/status && "
        "grep -qs LABKIT_ATTEMPT=$LABKIT_ATTEMPT /proc/$pid/environ && echo TWICE >> {trace}; "
        "done; echo $$ > {twin}.$$; echo {name} >> {trace}; sleep 0.7"
    )
    names = [f"t{index}" for index in range(6)]
    scripts = [
        script.replace("{trace}", str(site.trace)).replace("{twin}", f"{twin}.{name}")
        .replace(f"cat {twin}.*", f"cat {twin}.{name}.*").replace("{name}", name)
        for name in names
    ]  # fmt: skip
    job = site.submit(stage("many", *scripts), local_cpu=0.5)
    running(site)
    frozen = LocalQueue()
    pid = frozen.scheduler_pid()
    assert pid
    os.kill(pid, signal.SIGSTOP)
    os.utime(frozen.lock, (0, 0))  # as after more than a minute
    monkeypatch.setattr(socket, "gethostname", lambda: "other")
    if not same_machine:
        elsewhere = "process_tree.place = lambda: 'another start'\nraise SystemExit"
        code = local_queue._START.replace(
            "raise SystemExit", f"from labkit.base import process_tree\n{elsewhere}"
        )
        monkeypatch.setattr(local_queue, "_START", code)
    other = LocalQueue()
    assert other.path != frozen.path
    again = open_job(job.path)
    again.refresh()
    until(lambda: other.scheduler_pid() and len(ran(site.trace)) >= 3)
    os.kill(pid, signal.SIGCONT)
    try:
        again.wait(120)
        assert again.state is State.SUCCEEDED
        until(lambda: "was taken over" in frozen.log.read_text())
        assert not frozen.names()
    finally:
        end_scheduler()
        os.kill(pid, signal.SIGKILL)
    lines = ran(site.trace)
    assert "TWICE" not in lines
    assert sorted(set(lines)) == names
    for index in range(6):
        states = [
            (read_json(job.run.folder.record("many", index, attempt)) or {})["state"]
            for number, attempt in records(job, "many")
            if number == index
        ]
        assert states.count("SUCCEEDED") == 1
        assert lines.count(f"t{index}") <= len(states)


def test_the_machine_left_behind_says_who_has_the_job(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And takes it for nothing less: its tasks are not lost, a retry starts nothing."""
    job = submitted(site, monkeypatch)
    here = LocalQueue()
    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "other")
        other = LocalQueue()
    (submission,) = job.run.submissions()
    other.lock.touch()
    other.take_over(submission, job.run, here)
    snapshot = open_job(job.path).refresh()
    assert (snapshot.known, snapshot.state) == (False, State.PENDING)
    assert "runs on other" in snapshot.text
    os.utime(other.lock, (time.time() - 100,) * 2)
    assert open_job(job.path).refresh().known, "it is dead: we have it again"
    assert here.names() == [submission.name] and not other.names()


def test_a_frozen_workers_heartbeat_is_no_longer_fresh(tmp_path: Path) -> None:
    beat = tmp_path / "beat"
    beat.touch()
    elsewhere = {"place": "another start", "pid": os.getpid(), "pid_start": 0}
    assert reap.lives(elsewhere, beat)
    os.utime(beat, (time.time() - 60,) * 2)
    assert not reap.lives(elsewhere, beat)
