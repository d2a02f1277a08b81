"""Schedulers and workers that die or see a bad disk at the worst moment: nothing lost, doubled."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import labkit
from labkit.base import cgroups
from labkit.base.problems import LabkitError
from labkit.jobs.backends import local_job
from labkit.jobs.backends.local_queue import LocalQueue
from labkit.jobs.backends.local_scheduler import Scheduler
from labkit.jobs.job import open_job
from labkit.jobs.model import State
from labkit.jobs.runs import worker_copy
from labkit.jobs.runs.gc import garbage
from labkit.jobs.worker import reap
from labkit.jobs.worker.folder import Folder, read_json, unique_name
from tests.conftest import needs_root
from tests.support.backend_contract import Site
from tests.support.job_faults import fill, once, reasons, running, small_disk
from tests.support.job_helpers import Staged, end_scheduler, ran, records, stage, until, workers


@pytest.fixture
def site(tmp_path: Path, lab_home: Path) -> Site:
    return Site("local", tmp_path)


def worker_runs_first(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let workers run some code before anything else: a busy machine, a slow disk."""
    copy = worker_copy.write

    def changed(place: Path) -> None:
        copy(place)
        main = place / "__main__.py"
        main.write_text(code + main.read_text())

    monkeypatch.setattr(worker_copy, "write", changed)


def slow_to_start(monkeypatch: pytest.MonkeyPatch, folder: Path, seconds: float) -> None:
    """Let the first worker take its time before it does anything."""
    worker_runs_first(
        monkeypatch,
        "import os, time\n"
        f"try: os.mkdir({str(folder / 'slow')!r}); time.sleep({seconds})\n"
        "except FileExistsError: pass\n",
    )


def test_the_scheduler_dies_while_a_worker_starts(
    site: Site, lab_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_to_start(monkeypatch, site.folder, 1.5)
    job = site.submit(once(site, 3.0))
    until(lambda: (site.folder / "slow").exists())
    end_scheduler()
    assert job.wait(30).state is State.SUCCEEDED
    until(lambda: not workers(lab_home))
    assert ran(site.trace) == ["ran"]
    assert open_job(job.path).state is State.SUCCEEDED, "the record that was read is still there"


DIES = """
import os, signal
from labkit.jobs.worker import execute
def dying(*words, do=execute.{step}, **more):
    try:
        os.mkdir({once!r})
    except FileExistsError:
        return do(*words, **more)
    os.kill(os.getpid(), signal.SIGKILL)
execute.{step} = dying
"""


@pytest.mark.parametrize(
    ("step", "lost"),
    [("reserve", False), ("write_json", False), ("fill", True), ("commit.commit", True)],
)
def test_a_worker_dies_on_its_way(
    site: Site, monkeypatch: pytest.MonkeyPatch, step: str, lost: bool
) -> None:
    worker_runs_first(monkeypatch, DIES.format(step=step, once=str(site.folder / "died")))
    job = site.run(once(site, 0.1))
    assert job.state is State.SUCCEEDED
    assert (site.folder / "died").exists()
    assert ran(site.trace) == ["ran"] * (1 + lost)
    assert reasons(job) == ["LOST", "SUCCEEDED"]
    assert (job.path / "results/once/t0/out").read_text() == "done\n"


def test_a_commit_carries_its_record(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that dies after the commit has told how it ended: nothing runs again."""
    worker_runs_first(monkeypatch, DIES.format(step="publish", once=str(site.folder / "died")))
    job = site.run(once(site, 0.1))
    assert job.state is State.SUCCEEDED
    assert (site.folder / "died").exists()
    assert ran(site.trace) == ["ran"]
    assert reasons(job) == ["SUCCEEDED"]
    assert not list((job.path / "tasks/once").glob(".*")), "and nothing is left"


def test_a_success_counts_more_than_a_loss_that_was_written_later(site: Site) -> None:
    job = site.run(once(site, 0.1))
    record = read_json(job.run.folder.record("once", 0, 1))
    assert record is not None
    lost = {**record, "attempt": 2, "state": "FAILED", "reason": "LOST", "text": "was taken for it"}
    assert job.run.write_record(lost)
    assert open_job(job.path).state is State.SUCCEEDED, "the watcher"
    taken = local_job.Job(job.run, job.run.submissions()[0], 1 << 30, site.folder / "queue")
    assert taken.over and not taken.stages["once"].failed, "the scheduler"
    assert open_job(job.path).retry().wait(20).state is State.SUCCEEDED
    assert ran(site.trace) == ["ran"], "retry"


def test_a_record_that_a_power_cut_left_empty_comes_from_the_result(site: Site) -> None:
    job = site.run(once(site, 0.1))
    place = job.run.folder.record("once", 0, 1)
    record = place.read_bytes()
    place.unlink()  # not written over: the result's has the same bytes
    place.touch()
    assert local_job.Job(job.run, job.run.submissions()[0], 1 << 30, site.folder / "queue").over
    assert place.read_bytes() == record


@pytest.mark.parametrize("listing", range(1, 6))
def test_a_worker_ends_while_the_next_scheduler_reads_the_run_folder(
    site: Site, monkeypatch: pytest.MonkeyPatch, listing: int
) -> None:
    """Between any two of its looks."""
    job = site.submit(once(site, 1.0))
    running(site)
    pid = LocalQueue().scheduler_pid()
    assert pid
    os.kill(pid, signal.SIGKILL)
    attempts, looks = Folder.attempts, []

    def slow(self: Folder, kind: str, stage: str) -> Any:
        names = attempts(self, kind, stage)
        looks.append(kind)
        if len(looks) == listing:
            until(lambda: records(job, "once") and not attempts(self, "running", stage))
        return names

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "attempts", slow)
        taken = local_job.Job(job.run, job.run.submissions()[0], 1 << 30, site.folder / "queue")

    def seen() -> bool:
        if records(job, "once") and not taken.live:
            return True
        taken.attend()
        return False

    until(seen)
    assert not taken.stages["once"].todo, "it has succeeded"
    assert reasons(job) == ["SUCCEEDED"]


def test_a_disk_that_cannot_be_read_for_a_moment_loses_no_task(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = site.submit(once(site, 5.0))
    running(site)
    end_scheduler()
    taken = local_job.Job(job.run, job.run.submissions()[0], 1 << 30, site.folder / "queue")
    (live,) = taken.live
    os.kill(live.pid, signal.SIGKILL)
    until(live.gone)

    def broken(path: Path) -> Any:
        raise OSError(errno.EIO, "Input/output error", str(path))

    with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output"):
        patch.setattr(local_job, "read_json", broken)
        taken.attend()
    assert not taken.over, "it still knows the task"
    taken.attend()
    assert reasons(job) == ["LOST"]
    assert list(taken.stages["once"].todo) == [0], "it is tried again"


@pytest.fixture
def look(site: Site) -> Iterator[Callable[[], object]]:
    """Look once as a scheduler does; the test's own process is the scheduler."""
    handler = signal.getsignal(signal.SIGCHLD)
    schedulers: list[Scheduler] = []
    with ExitStack() as held:

        def once_more() -> None:
            if not schedulers:
                assert held.enter_context(LocalQueue().held())
                schedulers.append(Scheduler(LocalQueue()))
            schedulers[0]._look()

        yield once_more
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, handler)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EACCES])
def test_one_bad_run_folder_ends_no_other_job(
    site: Site, monkeypatch: pytest.MonkeyPatch, look: Callable[[], object], number: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(LocalQueue, "ensure_scheduler", lambda self: None)
        bad = site.submit(stage("bad", "true"))
        good = site.submit(stage("good", "true"))
    exists = Path.exists

    def broken(self: Path, **more: Any) -> bool:
        if self == bad.run.folder.manifest:
            raise OSError(number, os.strerror(number), str(self))
        return exists(self, **more)

    def ended() -> bool:
        look()
        return bool(records(good, "good"))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "exists", broken)
        until(ended)
        assert good.name in [job.name for job in labkit.jobs()]
        with pytest.raises(LabkitError, match=rf"cannot be read: {os.strerror(number)}"):
            bad.refresh()
    until(lambda: look() or good.run.submissions()[0].name not in LocalQueue().names())
    assert reasons(good, "good") == ["SUCCEEDED"]
    until(lambda: look() or records(bad, "bad"))
    assert reasons(bad, "bad") == ["SUCCEEDED"], "it goes on when its disk is back"


def test_a_job_that_cannot_be_read_says_so(
    site: Site, monkeypatch: pytest.MonkeyPatch, look: Callable[[], object]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(LocalQueue, "ensure_scheduler", lambda self: None)
        job = site.submit(stage("one", "true"))
        listing = os.listdir

        def broken(path: Any) -> list[str]:
            if str(path).startswith(str(job.path / "attempts")):
                raise OSError(errno.ESTALE, "Stale file handle", str(path))
            return listing(path)

        with monkeypatch.context() as disk:
            disk.setattr(os, "listdir", broken)
            look()
        snapshot = job.refresh()
        assert snapshot.state is State.PENDING
        assert "cannot be read" in snapshot.text and "Stale file handle" in snapshot.text


def test_a_manifest_that_a_power_cut_left_empty_hides_no_other_job(site: Site) -> None:
    bad = site.submit(stage("bad", "true")).wait(20)
    good = site.submit(stage("good", "true")).wait(20)
    bad.run.folder.manifest.write_text("")
    with pytest.warns(UserWarning, match=f"{bad.name} cannot be read"):
        assert [job.name for job in labkit.jobs()] == [good.name]


@pytest.mark.parametrize("by", ["a look at the job", "the scheduler"])
def test_a_queue_entry_that_a_power_cut_left_empty(
    site: Site, monkeypatch: pytest.MonkeyPatch, look: Callable[[], object], by: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(LocalQueue, "ensure_scheduler", lambda self: None)
        job = site.submit(stage("once", f"echo ran >> {site.trace}"))
        (entry,) = LocalQueue().queue.glob("*.json")
        entry.write_text("")
        if by == "a look at the job":
            assert job.refresh().state is State.PENDING
            assert entry.read_text()
        until(lambda: look() or records(job, "once"))
    assert job.wait(20).state is State.SUCCEEDED
    assert ran(site.trace) == ["ran"]


def test_an_intent_that_a_power_cut_left_empty_gives_its_number_to_no_other(site: Site) -> None:
    job = site.run(stage("once", f"echo ran >> {site.trace}; exit 1", retries=0))
    job.run.folder.submission(2).write_text("")
    job.retry().wait(20)
    assert [submission.number for submission in job.run.submissions()] == [1, 3]
    assert ran(site.trace) == ["ran", "ran"]


def test_a_task_whose_worker_lives_is_not_lost_because_the_queue_is(site: Site) -> None:
    job = site.submit(once(site, 3.0))
    running(site)
    end_scheduler()
    LocalQueue().remove(job.run.submissions()[0].name)
    assert job.refresh().state is State.RUNNING
    with pytest.raises(LabkitError, match="still runs"):
        job.retry()
    assert job.wait(20).state is State.SUCCEEDED
    assert ran(site.trace) == ["ran"]


def test_what_a_killed_submitter_left_in_the_queue_goes_with_the_job(site: Site) -> None:
    job = site.submit(once(site, 1.0))
    name = job.run.submissions()[0].name
    queue = LocalQueue().queue
    half = queue / f".{name}.json.77.00aa"
    half.touch()
    job.wait(60)
    until(lambda: not list(queue.iterdir()))


def test_a_job_elsewhere_is_found_by_its_place_in_the_queue(site: Site, lab_home: Path) -> None:
    job = Staged(once(site, 2.0), output=site.folder / "elsewhere").submit()
    (index,) = lab_home.rglob("index.sqlite")
    index.unlink()
    assert [found.path for found in labkit.jobs()] == [job.path]
    job.wait(20)


def test_what_a_killed_writer_left_is_known_as_garbage(site: Site) -> None:
    job = site.run(once(site, 0.1))
    left = [
        job.path / "tasks/once/.0.2.reserved",
        job.path / "tasks/once/.0.1.json.77.00aa",
        job.path / "running/once/.0.1.json.77.00aa",
        job.path / "running/once/0.1.json",
        job.path / "submissions/.0001.json.77.00aa",
        job.path.with_name(f".{job.path.name}.77.123"),
    ]
    for path in left:
        path.write_text("half")
    os.utime(left[-1], (0, 0))
    fresh = job.path.with_name(f".{job.path.name}.78.123")
    fresh.touch()
    what = garbage(job.run)
    assert set(what.paths) == set(left)
    assert what.size == 4 * len(left)
    what.remove()
    assert not [path for path in left if path.exists()]
    assert fresh.exists(), "somebody may be making it"


@needs_root
def test_a_retry_on_a_full_disk_says_so_and_starts_nothing(site: Site) -> None:
    with small_disk(site.folder / "disk") as disk:
        work = stage("one", f"echo ran >> {site.trace}; exit 1", retries=0)
        job = Staged(work, output=disk).submit().wait(20)
        fill(disk)
        with pytest.raises(LabkitError, match=r"cannot be written: No space left.*Make room"):
            job.retry()
        assert len(job.run.submissions()) == 1
        assert ran(site.trace) == ["ran"]
        end_scheduler()


def test_what_dead_attempts_left_on_a_machine_is_cleared_and_the_living_kept(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(site.folder / "tmp"))
    job = site.submit(once(site, 3.0))
    running(site)
    living = site.folder / "tmp" / unique_name(job.path, "once", 0, 1)
    assert living.is_dir()
    dead = site.folder / "tmp" / unique_name(job.path, "a-stage", 12, 3)
    other = site.folder / "tmp" / unique_name(site.folder / "other-123", "once", 0, 1)
    for path in (dead, other):
        path.mkdir()
    reap.sweep_machine(job.run.folder)
    assert living.is_dir() and other.is_dir() and not dead.exists()
    assert job.wait(60).state is State.SUCCEEDED


@needs_root
def test_jobs_are_listed_while_the_disk_of_the_state_is_full(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(site.folder / "disk") as disk:
        monkeypatch.setenv("XDG_STATE_HOME", str(disk / "state"))
        job = Staged(once(site, 0.1), output=site.folder / "elsewhere").submit().wait(60)
        end_scheduler()
        fill(disk)
        assert [found.path for found in labkit.jobs()] == [job.path]
        assert open_job(job.name).state is State.SUCCEEDED
        (disk / "filler").unlink()
        assert [found.path for found in labkit.jobs()] == [job.path], "nothing was lost"


def test_a_clock_that_is_set_back_gives_no_negative_time() -> None:
    later = {"started": time.time() + 3600}
    lost = reap.record(later, ("one", 0, 1), 1, ("FAILED", "LOST", "gone"), "scheduler")
    assert lost["seconds"] == 0


CANCELLED = """
import os, signal, time
from labkit.jobs.worker import cgroup
made = cgroup.MemoryGroup.__init__
def cancelled(self, name, limit):
    made(self, name, limit)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.05)
cgroup.MemoryGroup.__init__ = cancelled
"""


@needs_root
def test_a_cancel_during_a_start_leaves_no_cgroup(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker_runs_first(monkeypatch, CANCELLED)
    job = site.run(stage("once", f"echo ran >> {site.trace}", retries=0))
    assert reasons(job) == ["LOST"]
    assert not ran(site.trace)
    name = unique_name(job.path, "once", 0, 1)
    assert not [group for group, _ in cgroups.groups("memory") if (group / name).exists()]
