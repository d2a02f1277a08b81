"""The SLURM backend on a real cluster with small limits, several partitions and preemption."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import labkit
from labkit.base import process_tree
from labkit.base.problems import RefusedError
from labkit.jobs.backends import base
from labkit.jobs.backends.slurm import held, queue
from labkit.jobs.backends.slurm.backend import SlurmBackend
from labkit.jobs.backends.slurm.submit import Sender
from labkit.jobs.job import open_job
from labkit.jobs.model import Resources, Stage, State
from labkit.jobs.runs.store import Run
from labkit.slurm import commands
from labkit.slurm.commands import SlurmUnavailableError
from labkit.testing import SlurmCluster
from tests.support.backend_contract import Site, hog
from tests.support.job_helpers import Staged, ran, records, stage, until, workers

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def unlucky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that is there: the next start of a job on a node fails, and takes it away."""
    return tmp_path_factory.mktemp("prolog") / "unlucky"


@pytest.fixture(scope="module")
def cluster(unlucky: Path) -> Iterator[SlurmCluster]:
    """A cluster with small limits; jobs of ``first`` push those of ``last`` aside."""
    prolog = unlucky.with_name("prolog")
    prolog.write_text(f"#!/bin/sh\n! rm {unlucky} 2>/dev/null\n")
    prolog.chmod(0o755)
    with SlurmCluster(
        nodes=2,
        cpus=4,
        memory=4000,
        partitions={
            "main": {"Default": "YES"},
            "short": {"Nodes": "node1", "MaxTime": "10"},
            "closed": {"State": "DOWN"},
            "last": {"Nodes": "node2", "PriorityTier": "1", "PreemptMode": "REQUEUE"},
            "first": {"Nodes": "node2", "PriorityTier": "9"},
        },
        features={"node2": "highmem"},
        gres={"node2": "gpu:1"},
        config={
            "PreemptType": "preempt/partition_prio",
            "PreemptMode": "REQUEUE",
            "Prolog": prolog,
        },
        max_array_size=4,
        max_submit_jobs=6,
    ) as made:
        yield made


@pytest.fixture
def site(
    tmp_path: Path, lab_home: Path, cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(SlurmBackend, "grace", 3.0)  # this cluster's disk shows files at once
    yield Site("slurm", tmp_path, patience=60)
    cluster.cancel_all()


def small(name: str, *scripts: str, **more: Any) -> Stage:
    return stage(name, *scripts, resources=Resources.of(1, "60 MB"), **more)


def submitted(site: Site) -> list[list[str]]:
    """Return job id, elements and dependencies of what is in the queue."""
    said = commands.run("squeue", "--noheader", "--format=%F|%K|%E|%j")
    return [line.split("|") for line in said.splitlines()]


def test_tasks_beyond_the_limits_share_array_elements(site: Site) -> None:
    work = small("many", *(f"echo t{n} >> {site.trace}" for n in range(11)))
    job = site.submit(work, small("gather", "true", depends_on=("many",)))
    handle = job.run.submissions()[0].handle
    assert handle is not None
    arrays = [(j["stage"], j["start"], j["count"], j["each"]) for j in handle["jobs"]]
    assert sum(count for _, _, count, _ in arrays) <= 6, "MaxSubmitJobs"
    assert max(count for _, _, count, _ in arrays) <= 4, "MaxArraySize"
    job.wait(60)
    assert job.state is State.SUCCEEDED
    assert sorted(ran(site.trace)) == sorted(f"t{n}" for n in range(11))


def test_a_failure_in_a_shared_element_is_its_own(site: Site) -> None:
    scripts = [f"echo t{n} >> {site.trace}; test {n} != 2" for n in range(4)]
    job = site.run(small("many", *scripts), slurm_max_jobs=1)
    assert list(job.failed()["key"]) == ["t2"]
    assert ran(site.trace) == ["t0", "t1", "t2", "t3"], "one after the other"


def test_what_cannot_run_is_refused_with_what_there_is(site: Site) -> None:
    big = Stage("big", small("x", "true").tasks, Resources.of(8, "5 GB", "2h"))
    cases: dict[str, dict[str, Any]] = {
        "slurm_partition: the partition closed is DOWN": {"slurm_partition": "closed"},
        "Valid: first, last, main, short": {"slurm_partition": "mian"},
        "at most 4 a node": {},
        "short gives at most 0:10:00": {"slurm_partition": "short"},
        "no such feature of short's nodes": {
            "slurm_partition": "short", "slurm_constraint": "highmem", "cpu": 1,
            "memory": "1 GB", "time": "1 min",
        },
        "main has at most 1 of gpu": {
            "slurm_gres": "gpu:2", "cpu": 1, "memory": "1 GB", "time": "1 min",
        },
    }  # fmt: skip
    for says, options in cases.items():
        with pytest.raises(RefusedError) as refused:
            Staged(big, output=site.folder / "runs").submit("slurm", **options)
        assert says in str(refused.value)
    assert not (site.folder / "runs").exists()


def test_slurm_itself_is_asked_for_what_only_it_knows(site: Site) -> None:
    with pytest.raises(RefusedError, match="reservation"):
        site.submit(small("x", "true"), slurm_reservation="none")


def test_a_partition_that_would_do_is_named(site: Site) -> None:
    fits = Stage("x", small("x", "true").tasks, Resources.of(1, "1 GB", "1h"))
    assert Staged(fits).plan("slurm").tasks == 1
    job = site.run(small("x", "true"), slurm_constraint="highmem", slurm_gres="gpu:1")
    assert job.state is State.SUCCEEDED


def test_squeue_is_asked_once_for_all_who_look(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = tmp_path / "asked"
    real = shutil.which("squeue")
    wrapper = tmp_path / "bin" / "squeue"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\necho asked >> {asked}\nexec {real} "$@"\n')
    wrapper.chmod(0o755)
    jobs = [site.submit(small("slow", f"sleep 6; echo {n}")) for n in range(3)]
    monkeypatch.setenv("PATH", f"{wrapper.parent}{os.pathsep}{os.environ['PATH']}")
    began = time.monotonic()
    watchers = [
        threading.Thread(target=open_job(job.run).wait, args=(60,)) for job in jobs for _ in "ab"
    ]
    for watcher in watchers:
        watcher.start()
    for watcher in watchers:
        watcher.join()
    took = time.monotonic() - began
    assert 1 <= len(ran(asked)) <= took + 2, "six watchers, at most one question a second"
    assert all(job.state is State.SUCCEEDED for job in jobs)


def test_the_job_depends_on_the_stage_before_by_slurms_own_means(site: Site) -> None:
    job = site.submit(
        small("one", "sleep 30"),
        small("two", "true", depends_on=("one",)),
        small("gather", "true", depends_on=("two",), tolerate_failures=True),
    )
    found = {name.split(".")[1]: (number, after) for number, _, after, name in submitted(site)}
    assert found["two"][1].startswith(f"afterok:{found['one'][0]}")
    assert found["gather"][1].startswith(f"afterany:{found['two'][0]}")
    until(lambda: "stage before" in repr(job) or job.refresh().count(State.RUNNING))
    job.cancel().wait(30)
    assert not submitted(site)


@pytest.mark.parametrize("arrays", [1, 2])
def test_a_crash_between_two_arrays_is_completed_and_nothing_doubled(
    site: Site, monkeypatch: pytest.MonkeyPatch, arrays: int
) -> None:
    work = [
        small("one", f"echo one >> {site.trace}"),
        small("two", f"echo two >> {site.trace}", depends_on=("one",)),
        small("gather", f"echo gather >> {site.trace}", depends_on=("two",)),
    ]
    original = Sender._sbatch
    done: list[str] = []

    def dying(self: Sender, *words: object) -> str:
        if len(done) == arrays:
            raise KeyboardInterrupt
        done.append(original(self, *words))  # type: ignore[arg-type]
        return done[-1]

    with monkeypatch.context() as patch:
        patch.setattr(Sender, "_sbatch", dying)
        with pytest.raises(KeyboardInterrupt):
            site.submit(*work)
    assert len(submitted(site)) == arrays
    assert not ran(site.trace), "nothing runs before all of it is there"
    job = site.run(*work)
    assert job.state is State.SUCCEEDED
    assert ran(site.trace) == ["one", "two", "gather"]


def test_a_controller_that_forgot_the_release_is_told_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was killed right after it: the job came back as it was saved last, on hold."""
    work = [
        small("one", f"echo one >> {site.trace}"),
        small("two", f"echo two >> {site.trace}", depends_on=("one",)),
    ]
    monkeypatch.setattr(held, "_tried", {})
    with monkeypatch.context() as patch:
        patch.setattr(held, "let_go", lambda _: None)
        job = site.submit(*work)
    reasons = commands.run("squeue", "--noheader", "--format=%r").split()
    assert "JobHeldUser" in reasons
    assert job.wait(60).state is State.SUCCEEDED
    assert ran(site.trace) == ["one", "two"]


def test_a_job_that_its_node_could_not_start_goes_on_elsewhere(
    site: Site, unlucky: Path, cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SLURM leaves it "launch failed requeued held", and would never start it by itself."""
    monkeypatch.setattr(held, "_tried", {})
    with monkeypatch.context() as patch:
        patch.setattr(held, "_TRIES", 0)
        unlucky.touch()
        job = site.submit(small("one", f"echo one >> {site.trace}"))
        until(lambda: "launch failed requeued held" in commands.run("squeue", "--format=%r"))
        job.refresh()
        assert job.state is State.PENDING
    assert job.wait(60).state is State.SUCCEEDED
    assert ran(site.trace) == ["one"]
    for node in ("node1", "node2"):  # SLURM drained the one that failed
        if "DRAIN" in cluster.command("scontrol", "show", "node", node):
            cluster.command("scontrol", "update", f"NodeName={node}", "State=RESUME")


def test_a_controller_that_forgot_a_cancel_is_told_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "_tried", {})
    with monkeypatch.context() as patch:
        patch.setattr(held, "let_go", lambda _: None)
        job = site.submit(small("one", "true"), small("two", "true", depends_on=("one",)))
    job.run.request_cancel(job.run.submissions()[0])  # and the queue is as it was before
    assert job.wait(60).state is State.CANCELLED
    assert submitted(site) == []


def test_what_was_refused_in_part_leaves_nothing_in_the_queue(site: Site) -> None:
    stages = [small("s0", "true")]
    stages += [small(f"s{n}", "true", depends_on=(f"s{n - 1}",)) for n in range(1, 7)]
    with pytest.raises(base.SubmitRefusedError, match="AssocMaxSubmitJobLimit"):
        site.submit(*stages)
    assert not submitted(site)
    assert labkit.jobs()[0].state is State.CANCELLED


def test_what_was_cancelled_within_a_second_counts_no_more(cluster: SlurmCluster) -> None:
    cluster.cancel_all()
    script = ("sbatch", "--parsable", "--hold", "--output=/dev/null", "--wrap", "true")
    for _ in range(3):
        said = [cluster.command(*script, check=False) for _ in range(7)]
        cluster.cancel_all()
        assert all(text.isdigit() for text in said[:6]), said
        assert "AssocMaxSubmitJobLimit" in said[6]


def test_nothing_of_a_job_around_us_and_no_secret_reaches_the_task(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "SLURM_JOB_ID": "77", "SLURM_MEM_PER_CPU": "99999999", "SBATCH_PARTITION": "closed",
        "SLURM_ARRAY_TASK_ID": "9", "SQUEUE_FORMAT": "%i", "JUPYTERHUB_API_TOKEN": "geheim",
        "AWS_SECRET_ACCESS_KEY": "geheim", "SBATCH_EXPORT": "NONE", "FOO": "geheim",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    job = site.run(small("env", "env > env.txt", outputs=("env.txt",)))
    assert job.state is State.SUCCEEDED
    text = Path(job.results("env.txt")["path"][0]).read_text()
    assert "geheim" not in text
    assert "99999999" not in text and "SLURM_JOB_ID=77" not in text


def test_a_folder_with_a_hostile_name(site: Site) -> None:
    folder = site.folder / "it's $(touch hacked) %A;`id`"
    job = Staged(small("x", "echo well > a", outputs=("a",)), output=folder).submit("slurm")
    job.wait(30)
    assert job.state is State.SUCCEEDED
    assert list((job.path / "logs" / "x").glob("slurm-*_0.out"))
    assert not list(site.folder.rglob("hacked"))


def test_a_retry_with_hostile_options_is_refused_and_withdrawn(site: Site) -> None:
    job = site.run(small("x", f"echo ran >> {site.trace}; exit 1"))
    with pytest.raises(base.SubmitRefusedError, match="slurm_partition"):
        job.retry(slurm_partition="main; touch hacked")
    with pytest.raises(base.SubmitRefusedError, match="closed is DOWN"):
        job.retry(slurm_partition="closed")
    job.retry(slurm_partition="main").wait(30)
    assert ran(site.trace) == ["ran", "ran"]


def test_what_depends_on_a_task_waits_for_its_further_attempts(site: Site) -> None:
    job = site.submit(
        hog(150, "100 MB"), small("after", f"echo after >> {site.trace}", depends_on=("hog",))
    )
    until(lambda: records(job, "hog") == [(0, 1)])
    assert not ran(site.trace), "the first attempt has failed, the task has not"
    job.wait(60)
    assert job.state is State.SUCCEEDED
    assert records(job, "hog") == [(0, 1), (0, 2)]
    assert ran(site.trace) == ["after"]


def test_scancel_by_hand_is_told(site: Site) -> None:
    job = site.submit(small("x", f"echo ran >> {site.trace}; sleep 60"))
    until(lambda: ran(site.trace))
    commands.run("scancel", submitted(site)[0][0])
    job.wait(30)
    assert job.state is State.CANCELLED
    assert "outside of labkit" in job.failed()["text"][0]
    assert records(job, "x") == [(0, 1)], "and not tried again"


def test_a_preempted_task_runs_again(site: Site) -> None:
    low = site.submit(
        small("low", f"echo low >> {site.trace}; test $(wc -l < {site.trace}) -gt 1 || sleep 60"),
        cpu=4, slurm_partition="last",
    )  # fmt: skip
    until(lambda: ran(site.trace))
    site.run(small("high", f"echo high >> {site.trace}"), cpu=4, slurm_partition="first")
    low.wait(60)
    assert low.state is State.SUCCEEDED
    first = low.run.folder.record("low", 0, 1).read_text()
    assert '"reason":"PREEMPTED"' in first
    assert records(low, "low") == [(0, 1), (0, 2)]
    assert ran(site.trace) == ["low", "high", "low"]


def test_a_worker_that_was_killed_is_tried_again_where_it_is(site: Site, lab_home: Path) -> None:
    job = site.submit(small("x", f"echo ran >> {site.trace}; sleep 1.5"))
    until(lambda: ran(site.trace))
    (worker,) = workers(lab_home)
    os.kill(worker, signal.SIGKILL)
    job.wait(30)
    assert job.state is State.SUCCEEDED
    assert ran(site.trace) == ["ran", "ran"]
    assert '"reason":"LOST"' in job.run.folder.record("x", 0, 1).read_text()


def test_what_slurm_ended_without_a_record_gets_one(
    site: Site, lab_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SlurmBackend, "grace", 0.0)
    job = site.submit(
        small("x", f"echo ran >> {site.trace}; test $(wc -l < {site.trace}) -gt 1 || sleep 60")
    )
    until(lambda: ran(site.trace))
    process_tree.kill(
        [pid for pid in process_tree.marked("HOME", str(lab_home)) if pid != os.getpid()]
    )
    job.wait(30)
    failed = job.failed()
    assert list(failed["reason"]) == ["LOST"]
    until(lambda: job.refresh() and records(job, "x"))
    assert '"by":"slurm"' in job.run.folder.record("x", 0, 1).read_text()
    assert job.retry().wait(30).state is State.SUCCEEDED


def test_a_job_of_another_cluster_is_unknown_here(site: Site) -> None:
    job = site.submit(small("x", "sleep 30"))
    path = job.run.folder.accepted(1)
    path.write_text(path.read_text().replace('"cluster":"', '"cluster":"other-'))
    snapshot = open_job(job.run).refresh()
    assert not snapshot.known
    assert "runs on the cluster other-" in snapshot.text
    with pytest.raises(base.BackendError, match="cancel it from a machine of that cluster"):
        job.cancel()


def test_after_a_cancel_no_answer_from_before_is_believed(site: Site) -> None:
    """Answers about an older job serve for seconds: it was listed as running."""
    job = site.submit(small("x", "sleep 60"))
    until(lambda: job.refresh().state is State.RUNNING)
    before = queue.Queue().look(100).at
    assert queue.Queue().look(100).at == before, "the shared answer serves"
    job.cancel()
    assert queue.Queue().look(100).at > before
    job.wait(30)
    assert labkit.jobs()[0].state is State.CANCELLED


def test_modules_and_a_container(site: Site, lab_home: Path, tmp_path: Path) -> None:
    """The stand-ins write down what they are asked for, and run the rest as it is."""
    (lab_home / ".bash_profile").write_text(
        'module() { echo "$@" >> ~/loaded; export LOADED="$2"; }\nexport -f module\n'
    )
    tool = tmp_path / "bin" / "apptainer"
    tool.parent.mkdir()
    tool.write_text(
        '#!/bin/sh\nprintf "%s\\n" "$@" > ~/boxed\n'
        'while [ "$1" != python3 ]; do shift; done\nexec "$@"\n'
    )
    tool.chmod(0o755)
    image = tmp_path / "tool.sif"
    image.touch()
    path = f"{tool.parent}{os.pathsep}{os.environ['PATH']}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", path)
        job = site.run(
            small("x", "echo $LOADED > a", outputs=("a",)),
            slurm_modules="tool/1.2", slurm_apptainer=str(image), slurm_binds="/tmp",
        )  # fmt: skip
    assert job.state is State.SUCCEEDED, job.failed()
    assert Path(job.results("a")["path"][0]).read_text() == "tool/1.2\n"
    assert ran(lab_home / "loaded") == ["load", "tool/1.2"]
    boxed = (lab_home / "boxed").read_text().splitlines()
    assert boxed[:6] == ["exec", "--bind", str(job.path), "--bind", "/tmp", str(image)]


def test_what_is_missing_on_the_node_is_named(site: Site, lab_home: Path) -> None:
    (lab_home / ".bash_profile").write_text("unset -f module 2>/dev/null || true\n")
    job = site.run(small("x", "true"), slurm_modules="tool/1.2")
    assert job.state is State.FAILED
    assert "there is no `module` command on" in job.failed()["text"][0]


def test_the_plan_shows_the_script_and_the_call(site: Site) -> None:
    plan = Staged(small("one", "true"), small("two", "true", depends_on=("one",))).plan(
        "slurm", slurm_partition="short", time="5 min"
    )
    assert plan.payload.count("sbatch --parsable") == 2
    assert "--partition=short" in plan.payload and "--time=7" in plan.payload
    assert "#!/bin/sh" in plan.payload and "--submission 1" in plan.payload
    assert not submitted(site)


def test_a_run_that_was_adopted_elsewhere_is_not_run_twice(site: Site) -> None:
    """sbatch's answer was lost, and another submit was quicker: the first job ends by itself."""
    job = site.submit(small("x", f"echo ran >> {site.trace}"))
    run = Run(job.path)
    job.wait(30)
    path = run.folder.accepted(1)
    path.write_text(path.read_text().replace('"id":"', '"id":"9'))
    script = commands.run("scontrol", "write", "batch_script", job_of(job), "-")
    with pytest.raises(SlurmUnavailableError, match="Submitted batch job"):  # its exit code is 1
        commands.run("sbatch", "--wait", "--array=0", f"--output={site.folder}/out", stdin=script)
    assert "submitted twice" in (site.folder / "out").read_text()
    assert ran(site.trace) == ["ran"]


def job_of(job: labkit.Job) -> str:
    handle = job.run.submissions()[0].handle
    assert handle is not None
    return str(handle["jobs"][0]["id"]).removeprefix("9") + "_0"
