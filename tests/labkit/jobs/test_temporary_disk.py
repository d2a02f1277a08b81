"""TMPDIR is full, read-only or somebody else's: tasks fail in words, and nothing is left there."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.jobs.model import State
from labkit.jobs.worker import reap
from labkit.jobs.worker.folder import unique_name
from tests.conftest import needs_root
from tests.support.backend_contract import Site
from tests.support.job_faults import fill, once, running, small_disk
from tests.support.job_helpers import end_scheduler, ran, stage, until, workers

pytestmark = needs_root


@pytest.fixture
def site(lab_home: Path, tmp_path: Path) -> Site:
    return Site("local", tmp_path, patience=60)


@pytest.fixture
def tmp(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk of 3 MB that is TMPDIR of submitter, scheduler and worker."""
    with small_disk(site.folder / "tmp") as disk:
        monkeypatch.setenv("TMPDIR", str(disk))
        yield disk
        end_scheduler()


def set_mode(disk: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(disk)], check=True)


def test_on_a_full_one_the_task_says_which_disk_is_full(site: Site, tmp: Path) -> None:
    fill(tmp)
    work = stage("once", f"echo ran >> {site.trace}; head -c 10000 /dev/zero > $TMPDIR/x")
    job = site.run(work)
    assert list(job.failed()["reason"]) == ["DISK_FULL"]
    assert f"no space left for {tmp}/labkit-" in job.failed()["text"][0]
    (tmp / "filler").unlink()
    assert job.retry().wait(60).state is State.SUCCEEDED
    assert ran(site.trace) == ["ran", "ran"]
    assert list(tmp.iterdir()) == []


def test_on_a_read_only_one_the_task_says_what_to_do(site: Site, tmp: Path) -> None:
    set_mode(tmp, "ro")
    job = site.run(once(site, 0.0))
    assert list(job.failed()["reason"]) == ["STORAGE"]
    text = job.failed()["text"][0]
    assert f"{tmp} cannot be written: Read-only file system" in text
    assert "set TMPDIR to another place" in text
    assert ran(site.trace) == []
    set_mode(tmp, "rw")
    assert job.retry().wait(60).state is State.SUCCEEDED
    assert ran(site.trace) == ["ran"]


def test_what_dead_ones_left_while_it_was_read_only_goes_with_the_job(
    site: Site, lab_home: Path, tmp: Path
) -> None:
    """Scheduler and worker die, and the next scheduler cannot clear what the worker had there."""
    job = site.submit(once(site, 60.0))
    running(site)
    set_mode(tmp, "ro")
    end_scheduler()
    (worker,) = workers(lab_home)
    os.kill(worker, signal.SIGKILL)
    job.refresh()  # starts the next scheduler
    until(lambda: job.run.folder.record("once", 0, 1).exists())
    left = tmp / unique_name(job.path, "once", 0, 1)
    assert left.is_dir()
    assert job.wait(60).state is State.FAILED, "the second attempt has no temporary folder"
    set_mode(tmp, "rw")
    job.retry()
    until(lambda: not left.exists())
    job.cancel().wait(60)
    until(lambda: not list(tmp.iterdir()))


def test_what_others_put_there_under_our_names_is_left_alone(
    site: Site, lab_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of our folders can be read by all in /tmp: none of theirs may hinder or end a task."""
    shared = site.folder / "shared"
    shared.mkdir()
    monkeypatch.setenv("TMPDIR", str(shared))
    job = site.run(once(site, 0.0))
    name = unique_name(job.path, "once", 0, 7)
    theirs = [
        shared / name,
        shared / name.replace("-7-", "-seven-"),
        shared / name.replace("-once-0-7-", "-"),
    ]
    for path in theirs:
        path.mkdir()
        os.chown(path, 65534, 65534)
    ours = shared / unique_name(job.path, "once", 0, 8)
    ours.mkdir()
    (shared / unique_name(job.path, "once", 0, 9)).symlink_to(site.folder)
    reap.sweep_machine(job.run.folder)
    assert all(path.is_dir() for path in theirs) and not ours.exists()
    assert job.path.is_dir()
    monkeypatch.setenv("TMPDIR", str(site.folder / "missing"))
    reap.sweep_machine(job.run.folder)
