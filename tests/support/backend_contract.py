"""What every backend must do. A backend's test subclasses :class:`BackendContract`::

    class TestLocal(BackendContract):
        @pytest.fixture
        def site(self, tmp_path, lab_home):
            return Site("local", tmp_path)

The folder of the site must be one that the backend's nodes see.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

import labkit
from labkit.base.problems import LabkitError, RefusedError
from labkit.jobs.backends import base
from labkit.jobs.backends.base import BackendError, SubmitRefusedError
from labkit.jobs.job import Job, open_job
from labkit.jobs.model import Resources, Sightings, Stage, State, Task
from labkit.jobs.runs.store import Run
from tests.support.job_helpers import MB, PYTHON, Staged, ran, records, shell, stage, until


@dataclass
class Site:
    """Where the contract runs.

    Attributes
    ----------
    backend : str
        Name of the backend.
    folder : Path
        A folder that its nodes see.
    options : dict
        Options of each submit.
    patience : float
        Seconds that a small job may take.
    """

    backend: str
    folder: Path
    options: dict[str, Any] = field(default_factory=dict)
    patience: float = 30.0

    @property
    def trace(self) -> Path:
        """A file in which tasks leave a line each time they run."""
        return self.folder / "trace"

    def submit(self, *stages: Stage, **options: Any) -> Job:
        work = Staged(*stages, output=self.folder / "runs")
        return work.submit(self.backend, **{**self.options, **options})

    def run(self, *stages: Stage, **options: Any) -> Job:
        return self.submit(*stages, **options).wait(self.patience)


# It holds its memory for some looks of the worker's, which watches it where no cgroup does.
HOG = (
    "import time; data = bytearray({size} << 20); data[::4096] = b'x' * len(data[::4096]); "
    "print(len(data)); time.sleep(1)"
)


def hog(size: int, memory: str, **more: Any) -> Stage:
    """Return a stage whose task needs ``size`` MB and asks for ``memory``."""
    task = Task("hog", 0, (PYTHON, "-c", HOG.replace("{size}", str(size))))
    return Stage("hog", (task,), Resources.of(0.5, memory), **more)


class BackendContract:
    """What every backend keeps; a subclass brings the fixture ``site``.

    Attributes
    ----------
    memory_grows : bool
        A task that was over its memory is tried again with more, by the backend itself.
    """

    memory_grows: ClassVar[bool] = True

    @pytest.fixture
    @abstractmethod
    def site(self) -> Site: ...

    # success

    def test_success_commits_what_tasks_wrote(self, site: Site) -> None:
        job = site.run(
            stage("make", "echo one > a.txt", "echo two > a.txt", outputs=("a.txt",)),
        )
        assert job.state is State.SUCCEEDED
        paths = job.results("a.txt")
        assert [Path(path).read_text() for path in paths["path"]] == ["one\n", "two\n"]
        assert list(paths["key"]) == ["t0", "t1"]
        assert job.failed().empty

    def test_records_tell_time_cpu_and_memory(self, site: Site) -> None:
        busy = f"{PYTHON} -c 'x = b\"x\" * (60 << 20); sum(i * i for i in range(3000000))'"
        tasks = site.run(stage("work", busy)).tasks()
        row = tasks.iloc[0]
        assert row["seconds"] >= row["cpu_seconds"] > 0.05
        assert 60 * MB < row["peak_memory"] < 128 * MB
        assert row["memory"] == 128 * MB

    def test_placeholders_are_filled_in_on_the_node(self, site: Site) -> None:
        task = Task(
            "t0",
            0,
            ("sh", "-euc", 'printf "%s\\n" "$$@" > said', "sh", "${key}", "${cpu}", "${memory_mb}",
             "${attempt}", "${index}", "$$HOME;x"),
            outputs=("said",),
        )  # fmt: skip
        job = site.run(Stage("say", (task,), Resources.of(1, "100 MB")))
        said = (job.path / "results/say/t0/said").read_text().splitlines()
        assert said == ["t0", "1", "100", "1", "0", "$HOME;x"]

    # failures with their reasons

    def test_exit_code_is_the_reason(self, site: Site) -> None:
        job = site.run(stage("mix", "echo well > a.txt", "echo about to fail >&2; exit 3"))
        assert job.state is State.FAILED
        failed = job.failed()
        assert list(failed["key"]) == ["t1"]
        assert failed["reason"][0] == "EXIT"
        assert "3" in failed["text"][0]
        assert job.logs("t1") == "about to fail"
        assert failed["attempts"][0] == 1, "a program's own error is not retried by itself"
        assert (job.path / "results/mix/t0/a.txt").exists()
        assert not (job.path / "results/mix/t1").exists()

    def test_outputs_that_are_missing_or_empty_fail(self, site: Site) -> None:
        job = site.run(stage("lie", ": > a.txt", "true", outputs=("a.txt",)))
        failed = job.failed()
        assert list(failed["reason"]) == ["CHECK", "CHECK"]
        assert "a.txt is empty" in failed["text"][0]
        assert "a.txt was not written" in failed["text"][1]

    def test_inputs_that_are_missing_fail_before_the_program(self, site: Site) -> None:
        task = Task(
            "t0", 0, shell(f"echo ran >> {site.trace}"), inputs=(str(site.folder / "none"),)
        )
        job = site.run(Stage("read", (task,), Resources.of(0.5, "100 MB")))
        assert list(job.failed()["reason"]) == ["INPUT"]
        assert ran(site.trace) == []

    def test_a_program_that_is_not_there_is_named(self, site: Site) -> None:
        job = Staged(
            Stage("run", (Task("t0", 0, ("sh", "-c", "no-such-tool-x")),)),
            output=site.folder / "runs",
        ).submit(site.backend, **site.options)
        job.wait(site.patience)
        assert list(job.failed()["reason"]) == ["EXIT"]
        assert "no-such-tool-x" in job.logs()

    def test_over_its_time(self, site: Site) -> None:
        job = site.run(
            stage("slow", "sleep 60 & sleep 60", resources=Resources.of(0.5, "100 MB", "1 s"))
        )
        failed = job.failed()
        assert list(failed["reason"]) == ["TIMEOUT"]
        assert failed["attempts"][0] == 1

    def test_over_its_memory_is_retried_with_more(self, site: Site) -> None:
        job = site.run(hog(150, "100 MB"))
        if not self.memory_grows:
            assert list(job.failed()["reason"]) == ["OUT_OF_MEMORY"]
            job.retry(memory="x2").wait(site.patience)
        assert job.state is State.SUCCEEDED
        first, second = (job.run.folder.record("hog", 0, attempt).read_text() for attempt in (1, 2))
        assert '"reason":"OUT_OF_MEMORY"' in first
        assert f'"memory":{200 * MB}' in second
        assert job.refresh().attempts == 2, "a retry is visible"

    def test_retries_are_bounded(self, site: Site) -> None:
        job = site.run(hog(400, "60 MB", retries=1))
        failed = job.failed()
        assert list(failed["reason"]) == ["OUT_OF_MEMORY"]
        assert list(failed["attempts"]) == [2 if self.memory_grows else 1]
        assert job.retry(memory="x8").wait(site.patience).state is State.SUCCEEDED

    # cancel, dependencies, retry

    def test_cancel_keeps_what_has_succeeded(self, site: Site) -> None:
        job = site.submit(
            stage("first", "echo well > a.txt"), stage("last", "sleep 60", depends_on=("first",))
        )
        until(lambda: job.refresh().count(State.RUNNING) == 1 and records(job, "first"))
        job.cancel().wait(site.patience)
        assert job.state is State.CANCELLED
        assert (job.path / "results/first/t0/a.txt").exists()
        failed = job.failed()
        assert list(failed["stage"]) == ["last"]
        assert list(failed["reason"]) == ["CANCELLED"]

    def test_a_cancel_that_did_not_arrive_is_brought_again(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = site.submit(stage("slow", f"echo ran >> {site.trace}; sleep 60"))
        until(lambda: ran(site.trace) and job.refresh().count(State.RUNNING) == 1)

        def away(*_: object) -> None:
            raise BackendError("the scheduler is down")

        def blind(_: object, runs: list[Run]) -> dict[Run, Sightings]:
            return {run: Sightings(known=False, text="the scheduler is down") for run in runs}

        with monkeypatch.context() as patch:
            patch.setattr(type(base.get(site.backend)), "cancel", away)
            patch.setattr(type(base.get(site.backend)), "poll", blind)
            with pytest.raises(BackendError):
                job.cancel()
            assert job.refresh().state is State.RUNNING, "it may run on"
        assert job.cancel().wait(site.patience).state is State.CANCELLED

    def test_a_cancelled_job_can_be_taken_up_again(self, site: Site) -> None:
        gate = site.folder / "gate"
        wait = f"echo ran >> {site.trace}; while [ ! -e {gate} ]; do sleep 0.1; done"
        job = site.submit(stage("wait", wait))
        until(lambda: ran(site.trace))
        job.cancel().wait(site.patience)
        gate.touch()
        again = site.run(stage("wait", wait))
        assert again.path == job.path
        assert again.state is State.SUCCEEDED
        assert len(ran(site.trace)) == 2

    def test_stages_wait_for_those_before(self, site: Site) -> None:
        job = site.run(
            stage("one", f"sleep 0.5; echo one >> {site.trace}", f"echo one >> {site.trace}"),
            stage("two", f"echo two >> {site.trace}", depends_on=("one",)),
        )
        assert job.state is State.SUCCEEDED
        assert ran(site.trace) == ["one", "one", "two"]

    def test_a_failed_stage_stops_those_after(self, site: Site) -> None:
        job = site.run(
            stage("one", "exit 1"),
            stage("two", f"echo two >> {site.trace}", depends_on=("one",)),
        )
        assert job.state is State.FAILED
        assert ran(site.trace) == []
        reasons = dict(zip(job.failed()["stage"], job.failed()["reason"], strict=True))
        assert reasons == {"one": "EXIT", "two": "DEPENDENCY"}

    def test_a_gather_runs_over_what_is_there_and_again_after_a_retry(self, site: Site) -> None:
        mended = site.folder / "mended"
        stages = (
            stage("one", "echo 1 > n", f"test -e {mended}; echo 2 > n", outputs=("n",)),
            stage(
                "gather",
                'cat "$(dirname "$(dirname "$PWD")")"/../results/one/*/n > all',
                depends_on=("one",),
                tolerate_failures=True,
                outputs=("all",),
            ),
        )
        job = site.run(*stages)
        gathered = job.path / "results/gather/t0/all"
        assert job.state is State.FAILED
        assert gathered.read_text() == "1\n"
        mended.touch()
        job.retry().wait(site.patience)
        assert job.state is State.SUCCEEDED
        assert gathered.read_text() == "1\n2\n"
        assert records(job, "one") == [(0, 1), (1, 1), (1, 2)], "only the failed one ran again"

    # the same work is done once

    def test_submitting_again_finds_the_running_and_the_finished_job(self, site: Site) -> None:
        work = stage("once", f"echo ran >> {site.trace}; sleep 1")
        job = site.submit(work)
        again = site.submit(work)
        assert again.path == job.path
        again.wait(site.patience)
        assert site.submit(work).state is State.SUCCEEDED
        assert ran(site.trace) == ["ran"]
        assert len(job.run.submissions()) == 1

    def test_submitting_again_runs_only_what_is_missing(self, site: Site) -> None:
        mended = site.folder / "mended"
        work = stage("part", f"echo a >> {site.trace}", f"echo b >> {site.trace}; test -e {mended}")
        assert site.run(work).state is State.FAILED
        mended.touch()
        assert site.run(work).state is State.SUCCEEDED
        assert sorted(ran(site.trace)) == ["a", "b", "b"]

    def test_other_work_is_another_job(self, site: Site) -> None:
        one = site.run(stage("work", "echo 1 > n"))
        two = site.run(stage("work", "echo 2 > n"))
        assert one.path != two.path

    # adoption

    def test_a_crash_before_the_backend_was_called(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        work = stage("once", f"echo ran >> {site.trace}")

        def crash(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(type(base.get(site.backend)), "submit", crash)
            with pytest.raises(KeyboardInterrupt):
                site.submit(work)
        (path,) = [p for p in (site.folder / "runs").iterdir() if not p.name.startswith(".")]
        run = Run(path)
        assert [s.handle for s in run.submissions()] == [None]
        assert open_job(run).state is State.PENDING, "nothing was said to be lost"
        job = site.run(work)
        assert job.state is State.SUCCEEDED
        assert ran(site.trace) == ["ran"]
        assert len(run.submissions()) == 1

    def test_a_crash_before_the_answer_was_recorded(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        work = stage("once", f"echo ran >> {site.trace}; sleep 0.5")

        def crash(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Run, "accept", crash)
            with pytest.raises(KeyboardInterrupt):
                site.submit(work)
        job = site.run(work)
        assert job.state is State.SUCCEEDED
        assert ran(site.trace) == ["ran"], "the job was adopted, not doubled"
        assert len(job.run.submissions()) == 1

    def test_labkit_jobs_adopts_too(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        def crash(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Run, "accept", crash)
            with pytest.raises(KeyboardInterrupt):
                site.submit(stage("once", f"echo ran >> {site.trace}"))
        (job,) = labkit.jobs()
        assert job.wait(site.patience).state is State.SUCCEEDED
        assert ran(site.trace) == ["ran"]

    def test_a_query_that_fails_is_unknown_and_nothing_is_done(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gate = site.folder / "gate"
        wait = f"while [ ! -e {gate} ]; do sleep 0.1; done"
        work = stage("slow", f"echo ran >> {site.trace}; {wait}")
        job = site.submit(work)
        # Without a shared folder the heartbeat comes with a look, after the scheduler's word.
        beats = job.path / "running" / "slow"
        until(lambda: job.refresh().count(State.RUNNING) == 1 and any(beats.glob("*.json")))
        until(lambda: ran(site.trace))

        def blind(_: object, runs: list[Run]) -> dict[Run, Sightings]:
            return {run: Sightings(known=False, text="the scheduler is down") for run in runs}

        def silent(*_: object) -> None:
            raise BackendError("the scheduler is down")

        with monkeypatch.context() as patch:
            patch.setattr(type(base.get(site.backend)), "poll", blind)
            patch.setattr(type(base.get(site.backend)), "find", silent)
            snapshot = job.refresh()
            assert not snapshot.known
            assert snapshot.state is State.RUNNING
            fresh = open_job(job.run)
            assert fresh.refresh().state is State.RUNNING
            assert "scheduler is down" in repr(fresh)
            assert site.submit(work).path == job.path
            with pytest.raises(LabkitError, match="scheduler is down"):
                job.retry()
        gate.touch()
        job.wait(site.patience)
        assert ran(site.trace) == ["ran"]

    def test_a_refusal_by_the_backend_is_withdrawn(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        work = stage("once", f"echo ran >> {site.trace}")

        def refuse(*_: object) -> None:
            raise SubmitRefusedError("no such partition")

        with monkeypatch.context() as patch:
            patch.setattr(type(base.get(site.backend)), "submit", refuse)
            with pytest.raises(SubmitRefusedError):
                site.submit(work)
        assert labkit.jobs()[0].state is State.CANCELLED, "nothing is handed over again by itself"
        assert site.run(work).state is State.SUCCEEDED
        assert ran(site.trace) == ["ran"]

    def test_a_new_kernel_sees_the_same(self, site: Site) -> None:
        job = site.run(stage("mix", "true", "exit 1"))
        again = open_job(job.name)
        assert again.state is State.FAILED
        assert again.failed().equals(job.failed())

    # refusals

    def test_more_than_there_is_is_refused(self, site: Site) -> None:
        with pytest.raises(RefusedError, match="at most"):
            site.submit(stage("big", "true", resources=Resources.of(1e6, "4000 TB")))
        assert not (site.folder / "runs").exists()

    def test_unknown_options_are_refused_with_the_valid_ones(self, site: Site) -> None:
        with pytest.raises(RefusedError) as refused:
            site.submit(stage("one", "true"), memorry="2 GB", slurm_partion="x")
        text = str(refused.value)
        assert "memorry" in text
        assert "slurm_partion" in text
        assert "'memory'" in text, "the likely one"
        assert "retries" in text

    def test_plan_shows_what_would_be_and_starts_nothing(self, site: Site) -> None:
        plan = Staged(stage("one", f"echo ran >> {site.trace}")).plan(site.backend, **site.options)
        assert plan.tasks == 1
        assert plan.backend == site.backend
        assert plan.payload
        assert not ran(site.trace)
