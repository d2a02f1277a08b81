"""The worker: on an old Python, with a driver, started twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import labkit
from labkit.base import process_tree
from labkit.jobs.job import open_job
from labkit.jobs.model import Resources, Stage, State, Task
from labkit.jobs.plan import Plan
from labkit.jobs.runs.store import Run, StageWork
from labkit.jobs.worker.folder import fill, parse_name, read_json, reserve, unique_name, write_json
from tests.support.backend_contract import Site
from tests.support.job_helpers import shell, stage, until


@pytest.fixture
def site(tmp_path: Path, lab_home: Path) -> Site:
    return Site("local", tmp_path)


def prepare(folder: Path, *stages: Stage) -> Run:
    """Make a run with a submission and start nothing."""
    run = Run.create(Plan("work", "test", stages), folder / "runs")
    run.intend(
        "none",
        [StageWork(s.name, tuple(range(len(s.tasks))), s.resources) for s in stages],
        {},
    )
    return run


def work(run: Run, *words: str, python: str = sys.executable) -> int:
    """Start a worker as a scheduler does."""
    command = [python, "-I", "-S", str(run.path / "worker"), *words]
    return subprocess.run(command, timeout=60).returncode


def record(run: Run, name: str, attempt: int = 1) -> dict[str, Any]:
    found = read_json(run.folder.record(name, 0, attempt))
    assert found is not None
    return found


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.13"])
def test_other_pythons(version: str, tmp_path: Path) -> None:
    python = shutil.which(f"python{version}")
    if not python or subprocess.run([python, "-V"], capture_output=True).returncode:
        pytest.skip(f"needs Python {version}")
    run = prepare(tmp_path, stage("one", "echo x > y", outputs=("y",)))
    assert work(run, "one", "0", python=python) == 0
    assert record(run, "one")["state"] == "SUCCEEDED"


DRIVER = """
from . import helper

def run(task):
    task.say("begins")
    seen = []
    code = task.call(["sh", "-c", "echo line 1; echo line 2; exit 3"], on_line=seen.append)
    (task.out / "seen").write_text(f"{seen} {code} {helper.ANSWER} {task.params['plate']}")
    task.fact("load_seconds", 1.5)
    task.progress(2)
    before = [unit["key"] for unit in task.failed_before]
    for site in task.params["sites"]:
        if before and site not in before:
            (task.out / site).write_text((task.earlier / site).read_text() + " kept")
        elif site == "bad" and not (task.files / "mended").exists():
            task.unit_failed(site, "CHECK", "is torn", well="A01")
        else:
            (task.out / site).write_text("done")
"""


def package(folder: Path, **modules: str) -> Path:
    """Write a package of drivers; return its module ``driver``."""
    (folder / "task_code").mkdir()
    for name, text in modules.items():
        (folder / "task_code" / f"{name}.py").write_text(text)
    return folder / "task_code" / "driver.py"


@pytest.fixture
def driven(tmp_path: Path) -> Stage:
    driver = package(tmp_path, driver=DRIVER, helper="ANSWER = 42\n")
    params = {"plate": "P1", "sites": ["a", "bad", "c"]}
    task = Task("chunk", 0, units=3, params=params)
    return Stage("analysis", (task,), Resources.of(0.5, "100 MB"), driver=driver)


def test_one_bad_unit_fails_alone_and_only_it_runs_again(site: Site, driven: Stage) -> None:
    job = site.run(driven)
    assert job.state is State.FAILED
    failed = job.failed()
    assert list(failed["key"]) == ["bad"]
    assert list(failed["reason"]) == ["CHECK"]
    assert list(failed["well"]) == ["A01"]
    result = job.path / "results/analysis/chunk"
    assert (result / "a").read_text() == "done", "the others are there"
    assert (result / "seen").read_text() == "['line 1', 'line 2'] 3 42 P1"
    assert job.refresh().units_done == 2
    assert record(job.run, "analysis")["facts"] == {"load_seconds": 1.5}
    assert job.logs("chunk") == "begins\nline 1\nline 2"
    (job.path / "files" / "mended").touch()
    job.retry().wait(20)
    assert job.state is State.SUCCEEDED
    assert (result / "a").read_text() == "done kept"
    assert (result / "bad").read_text() == "done"


@pytest.mark.parametrize(
    ("body", "reason", "text"),
    [
        ("task.fail('CHECK', 'row counts differ')", "CHECK", "row counts differ"),
        ("1 / 0", "DRIVER", "ZeroDivisionError"),
        ("task.call([task.program('no-such-x')])", "EXIT", "no-such-x"),
        ("import none_such", "DRIVER", "none_such"),
    ],
)
def test_a_driver_that_fails(tmp_path: Path, body: str, reason: str, text: str) -> None:
    driver = package(tmp_path, driver=f"def run(task):\n    {body}\n")
    run = prepare(tmp_path, Stage("one", (Task("t", 0),), driver=driver))
    assert work(run, "one", "0") == 1
    found = record(run, "one")
    assert (found["state"], found["reason"]) == ("FAILED", reason)
    assert text in found["text"] + found["log_tail"]
    assert not (run.path / "results/one/t").exists()


def test_a_task_that_is_done_is_not_run_again(tmp_path: Path) -> None:
    run = prepare(tmp_path, stage("one", f"echo ran >> {tmp_path}/trace; echo x > y"))
    assert work(run, "one", "0") == 0
    assert work(run, "one", "0") == 0, "a scheduler may start it twice"
    assert (tmp_path / "trace").read_text() == "ran\n"
    assert run.folder.attempts("tasks", "one") == [(0, 1)]


def test_two_at_once_and_the_first_one_counts(tmp_path: Path) -> None:
    script = f"mkdir {tmp_path}/first && sleep 1; echo $LABKIT_ATTEMPT > who"
    run = prepare(tmp_path, stage("one", script))
    command = [sys.executable, "-I", "-S", str(run.path / "worker"), "one", "0"]
    twins = [subprocess.Popen(command) for _ in range(2)]
    assert sorted(twin.wait(30) for twin in twins) == [0, 1]
    states = {record(run, "one", n)["state"] for n in (1, 2)}
    assert states == {"SUCCEEDED", "CANCELLED"}
    loser = next(n for n in (1, 2) if record(run, "one", n)["state"] == "CANCELLED")
    assert record(run, "one", loser)["reason"] == "SUPERSEDED"
    who = (run.path / "results/one/t0/who").read_text()
    assert f"0.{3 - loser}" in who


def test_two_workers_of_one_attempt_run_it_once(tmp_path: Path) -> None:
    run = prepare(tmp_path, stage("one", f"echo ran >> {tmp_path}/trace; sleep 1; echo x > y"))
    command = [sys.executable, "-I", "-S", str(run.path / "worker"), "one", "0", "--attempt", "1"]
    twins = [subprocess.Popen(command) for _ in range(2)]
    assert sorted(twin.wait(30) for twin in twins) == [0, 74]
    assert (tmp_path / "trace").read_text() == "ran\n"
    assert record(run, "one")["state"] == "SUCCEEDED"


def test_a_worker_that_comes_too_late_does_nothing(tmp_path: Path) -> None:
    """Its attempt was given up meanwhile, and another may run."""
    run = prepare(tmp_path, stage("one", f"echo ran >> {tmp_path}/trace"))
    lost = {"stage": "one", "index": 0, "attempt": 1, "submission": 1, "state": "FAILED"}
    run.write_record({**lost, "reason": "LOST"})
    assert work(run, "one", "0", "--attempt", "1") == 1
    assert not (tmp_path / "trace").exists()
    assert record(run, "one") == {**lost, "reason": "LOST"}, "no record replaces another"
    assert not list((run.path / "running/one").iterdir())
    assert not list((run.path / "tasks/one").glob(".*"))


def test_a_result_brings_no_record_of_another_attempt(tmp_path: Path) -> None:
    """A task may copy all of an earlier, partial result."""
    run = prepare(tmp_path, stage("one", "echo '{}' > .record.json; echo x > y"))
    assert work(run, "one", "0") == 0
    assert read_json(run.folder.carried("one", "t0")) == record(run, "one")


def test_attempts_are_claimed_without_being_told(tmp_path: Path) -> None:
    run = prepare(tmp_path, stage("one", "exit 1"))
    assert [work(run, "one", "0") for _ in range(3)] == [1, 1, 1]
    assert run.folder.attempts("tasks", "one") == [(0, 1), (0, 2), (0, 3)]


@pytest.mark.parametrize(
    "words", [(), ("one",), ("one", "0", "--nope", "1"), ("one", "0", "--attempt")]
)
def test_wrong_arguments(tmp_path: Path, words: tuple[str, ...]) -> None:
    run = prepare(tmp_path, stage("one", "true"))
    assert work(run, *words) == 64


def test_no_run_folder_is_said_by_the_exit_code(tmp_path: Path) -> None:
    run = prepare(tmp_path, stage("one", "true"))
    run.folder.manifest.unlink()
    assert work(run, "one", "0") == 74


def test_sigterm_from_outside_has_the_reason_the_backend_gave(tmp_path: Path) -> None:
    run = prepare(tmp_path, Stage("one", (Task("t0", 0, shell("echo $$ > pid; sleep 60")),)))
    command = [sys.executable, "-I", "-S", str(run.path / "worker"), "one", "0"]
    worker = subprocess.Popen([*command, "--on-term", "PREEMPTED", "--grace", "2"])
    pid = run.path / "attempts/one/0.1/pid"
    until(lambda: pid.exists() and pid.read_text().strip())
    worker.terminate()
    assert worker.wait(10) == 1
    assert record(run, "one")["reason"] == "PREEMPTED"
    assert process_tree.start_time(int(pid.read_text())) is None


def test_the_program_is_ended_before_the_worker(tmp_path: Path) -> None:
    """A scheduler sends SIGTERM to all processes of a job, in whatever order."""
    run = prepare(tmp_path, Stage("one", (Task("t0", 0, shell("echo $$ > pid; sleep 60")),)))
    command = [sys.executable, "-I", "-S", str(run.path / "worker"), "one", "0"]
    worker = subprocess.Popen([*command, "--on-term", "PREEMPTED", "--grace", "2"])
    pid = run.path / "attempts/one/0.1/pid"
    until(lambda: pid.exists() and pid.read_text().strip())
    for child in process_tree.descendants(worker.pid):
        os.kill(child, signal.SIGTERM)
    until(lambda: process_tree.start_time(int(pid.read_text())) is None)
    worker.terminate()
    assert worker.wait(10) == 1
    assert record(run, "one")["reason"] == "PREEMPTED"


def test_no_script_of_the_folder_is_imported(tmp_path: Path) -> None:
    """A file beside the task cannot stand in for a module of the standard library."""
    script = "echo 'raise SystemExit(9)' > json.py; echo x > y"
    run = prepare(tmp_path, stage("one", script, outputs=("y",)))
    assert work(run, "one", "0") == 0


def test_the_temporary_folder_is_ours_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name can be guessed and /tmp is everybody's: a link put there leads nowhere."""
    shared, theirs = tmp_path / "shared", tmp_path / "theirs"
    monkeypatch.setenv("TMPDIR", str(shared))
    theirs.mkdir()
    run = prepare(tmp_path, stage("one", "stat -c %a $TMPDIR > mode"))
    trap = shared / unique_name(run.path, "one", 0, 1)
    shared.mkdir()
    trap.symlink_to(theirs)
    assert work(run, "one", "0") == 1
    told = record(run, "one")
    assert told["reason"] == "STORAGE" and str(trap) in told["text"]
    assert not list(theirs.iterdir())
    assert work(run, "one", "0") == 0, "the next attempt has another name"
    assert (run.path / "results/one/t0/mode").read_text() == "700\n"


def test_the_same_work_in_two_folders_shares_nothing(tmp_path: Path) -> None:
    one, other = (tmp_path / name / "work-3f2a" for name in ("a", "b"))
    assert unique_name(one, "one", 0, 1) != unique_name(other, "one", 0, 1)


def test_a_record_needs_no_space_beyond_what_was_kept(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    reserve(path)
    blocks = path.stat().st_blocks
    fill(path, {"state": "FAILED", "text": "x" * 50_000, "log_tail": "y" * 50_000})
    data = json.loads(path.read_text())
    assert data["state"] == "FAILED"
    assert path.stat().st_blocks <= blocks


def test_a_record_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "1.1.json"
    assert write_json(path, {"by": "worker"}, exclusive=True)
    assert not write_json(path, {"by": "scheduler"}, exclusive=True)
    assert read_json(path) == {"by": "worker"}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "found"),
    [("1.2.json", (1, 2)), ("0.1", (0, 1)), ("7.10.log", (7, 10)), (".1.2.reserved", None),
     ("1.json", None), ("1.2.before", None), ("x", None)],
)  # fmt: skip
def test_names_of_attempts(name: str, found: tuple[int, int] | None) -> None:
    assert parse_name(name) == found


def test_progress_of_a_plain_program(site: Site) -> None:
    hold = site.folder / "hold"
    script = f"echo 3 10 > $LABKIT_PROGRESS; while [ ! -e {hold} ]; do sleep 0.1; done"
    task = Task("t0", 0, shell(script), units=100)
    job = site.submit(Stage("count", (task,), Resources.of(0.5, "100 MB")))
    until(lambda: job.refresh().units_done == 30)
    hold.touch()
    assert job.wait(20).refresh().units_done == 100


def test_the_environment_of_a_stage_is_first_in_the_path(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = site.folder / "envs/tools/bin/greet"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho hello from $0 > said\n")
    program.chmod(0o755)
    monkeypatch.setenv("LABHUB_ENVS", str(site.folder / "envs"))
    job = labkit.Command("greet", environment="tools", outputs=["said"]).submit().wait(20)
    assert job.state is State.SUCCEEDED
    assert (job.path / "results/command/row1/said").read_text() == f"hello from {program}\n"
    program.unlink()
    assert open_job(job.name).state is State.SUCCEEDED
