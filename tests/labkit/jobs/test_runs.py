"""Run folders, the key of the work, and the index that may be lost."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

import labkit
from labkit.base.problems import LabkitError
from labkit.jobs.backends.local_queue import LocalQueue
from labkit.jobs.job import Job, open_job
from labkit.jobs.model import (
    Environment,
    Reason,
    Resources,
    Sighting,
    Sightings,
    Stage,
    State,
    Task,
    from_ranges,
    grow_memory,
    parse_time,
    safe_key,
    to_ranges,
)
from labkit.jobs.plan import Plan
from labkit.jobs.runs.index import Index
from labkit.jobs.runs.store import Run, StageWork
from labkit.jobs.runs.watch import Watch
from labkit.jobs.worker.retry import retry_memory
from tests.support.job_helpers import Staged, stage, until

MANY = 10_000


def many(folder: Path, count: int = MANY) -> Run:
    tasks = tuple(
        Task(f"s{index:05d}", index, ("tool", f"/data/plate/{index}.tif")) for index in range(count)
    )
    run = Run.create(Plan("many", "test", (Stage("work", tasks),)), folder)
    run.accept(run.intend("local", [StageWork("work", tuple(range(count)), Resources())], {}), {})
    return run


def record(run: Run, index: int, state: str = "SUCCEEDED", **more: Any) -> None:
    data = {
        "stage": "work", "index": index, "key": f"s{index:05d}", "attempt": 1, "submission": 1,
        "state": state, "host": "node1", "started": 1.0, "ended": 2.0, "seconds": 1.0, "cpu": 1.0,
        "cpu_seconds": 0.5, "memory": 1 << 30, "peak_rss": 1 << 20, "units": 1, "units_done": 1,
        **more,
    }  # fmt: skip
    run.folder.record("work", index, data["attempt"]).write_text(json.dumps(data))


def test_ten_thousand_tasks_are_seen_in_a_second(tmp_path: Path, lab_home: Path) -> None:
    run = many(tmp_path)
    for index in range(MANY):
        record(run, index)
    began = time.process_time()  # what others do on this machine is no part of it
    snapshot = Watch(run).look(Sightings(known=True))
    taken = time.process_time() - began
    assert snapshot.state is State.SUCCEEDED
    assert snapshot.count(State.SUCCEEDED) == MANY
    assert taken < 1.5, "the goal is one second of a core"


def test_watching_a_thousand_running_tasks_costs_little(tmp_path: Path, lab_home: Path) -> None:
    run = many(tmp_path, 1000)
    for index in range(1000):
        beat = {"stage": "work", "index": index, "attempt": 1, "started": 1.0, "units_done": 0}
        run.folder.running("work", index, 1).write_text(json.dumps(beat))
    seen = {("work", index): Sighting(State.RUNNING) for index in range(1000)}
    watch = Watch(run)
    watch.look(Sightings(known=True, tasks=seen))
    began = time.process_time()
    for _ in range(10):
        snapshot = watch.look(Sightings(known=True, tasks=seen))
    each = (time.process_time() - began) / 10
    assert snapshot.count(State.RUNNING) == 1000
    assert each < 0.05, "one look every five seconds: under 1 % of a core"


def test_planning_and_handing_over_ten_thousand(
    tmp_path: Path, lab_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from labkit.jobs.backends.local import LocalBackend

    monkeypatch.setattr(LocalBackend, "submit", lambda *_: {"host": "x", "queue": str(tmp_path)})
    (tmp_path / "data").mkdir()
    rows = []
    for index in range(MANY):
        path = tmp_path / "data" / f"{index}.tif"
        path.touch()
        rows.append({"site": f"s{index}", "image": str(path)})
    command = labkit.Command("wc -c {image}", over=rows, inputs=["image"])
    began = time.process_time()
    job = command.submit()
    assert time.process_time() - began < 1.5, "the goal is one second of a core"
    assert sum(1 for _ in job.run.folder.tasks("command")) == MANY


def test_records_first_the_backend_second(tmp_path: Path, lab_home: Path) -> None:
    run = many(tmp_path, 5)
    record(run, 0)
    record(run, 1, "FAILED", reason="EXIT", text="ended with code 1")
    run.folder.running("work", 2, 1).write_text(json.dumps({"started": 1.0, "index": 2}))
    seen = {
        ("work", 1): Sighting(State.RUNNING),  # it will be tried again
        ("work", 2): Sighting(State.RUNNING),
        ("work", 3): Sighting(State.PENDING, text="Resources"),
    }
    watch = Watch(run)
    snapshot = watch.look(Sightings(known=True, tasks=seen))
    states = {task.index: (task.state.value, str(task.reason)) for task in snapshot.open}
    assert states == {
        1: ("RUNNING", ""), 2: ("RUNNING", ""), 3: ("PENDING", ""), 4: ("FAILED", "LOST"),
    }  # fmt: skip
    blind = Watch(run).look(Sightings(known=False, text="timeout"))
    states = {task.index: (task.state.value, str(task.reason)) for task in blind.open}
    assert states[4] == ("PENDING", ""), "unknown is never gone"
    assert states[2] == ("RUNNING", "")
    assert states[1] == ("FAILED", "EXIT")
    ended = {("work", 4): Sighting(State.FAILED, Reason.NODE_FAIL, "node3 is down")}
    snapshot = watch.look(Sightings(known=True, tasks=ended))
    last = next(task for task in snapshot.open if task.index == 4)
    assert (last.state, last.reason, last.text) == (State.FAILED, "NODE_FAIL", "node3 is down")


def test_a_shared_disk_gets_time_to_show_a_record(tmp_path: Path, lab_home: Path) -> None:
    run = many(tmp_path, 1)
    watch = Watch(run, grace=0.2)
    assert watch.look(Sightings(known=True)).state is State.PENDING
    assert 0 < watch.unsettled <= 0.2
    time.sleep(0.25)
    assert watch.look(Sightings(known=True)).state is State.FAILED
    again = Watch(run, grace=0.2)
    assert again.look(Sightings(known=True)).state is State.FAILED, "it has had its time"
    record(run, 0)
    assert watch.look(Sightings(known=True)).state is State.SUCCEEDED


def test_half_a_record_is_no_record(tmp_path: Path, lab_home: Path) -> None:
    run = many(tmp_path, 1)
    run.folder.record("work", 0, 1).write_text('{"stage":"work","ind')
    seen = {("work", 0): Sighting(State.RUNNING)}
    assert Watch(run).look(Sightings(known=True, tasks=seen)).state is State.RUNNING


# the key


def key(*stages: Stage, folder: Path, **more: Any) -> str:
    return Run.create(Plan("k", "test", stages, **more), folder).key


def test_what_belongs_to_the_key(
    tmp_path: Path, lab_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "in"
    data.write_text("1")
    packages = tmp_path / "envs/tools/lib/python3.11/site-packages"
    (packages / "tool-1.0.dist-info").mkdir(parents=True)
    monkeypatch.setenv("LABHUB_ENVS", str(tmp_path / "envs"))
    task = Task("a", 0, ("tool", "x"), inputs=(str(data),))
    base = Stage("one", (task,), environment=Environment("tools"))

    def of(*stages: Stage, **more: Any) -> str:
        return key(*(stages or (base,)), folder=tmp_path / "runs", **more)

    first = of()
    assert of() == first
    assert of(Stage("one", (task,), Resources.of(4), Environment("tools"), retries=5)) == first
    others = {
        of(Stage("one", (Task("a", 0, ("tool", "y"), inputs=(str(data),)),))),
        of(Stage("one", (task,))),
        of(parameters={"p": 1}),
        of(files={"pipeline": "x"}),
        of(files={"pipeline": "y"}),
    }
    data.write_text("22")
    others.add(of())
    (packages / "tool-1.0.dist-info").rename(packages / "tool-1.1.dist-info")
    others.add(of())
    assert len(others) == 7
    assert first not in others


def test_a_changed_file_in_an_input_folder_is_other_work(tmp_path: Path, lab_home: Path) -> None:
    plate = tmp_path / "plate"
    (plate / "A01").mkdir(parents=True)
    (plate / "A01" / "s1.tif").write_text("1")
    work = Stage("one", (Task("a", 0, ("tool",), inputs=(str(plate),)),))
    first = key(work, folder=tmp_path / "runs")
    (plate / "A01" / "s2.tif").write_text("2")
    assert key(work, folder=tmp_path / "runs") != first


def test_files_of_a_plan_stay_in_the_run_folder(tmp_path: Path, lab_home: Path) -> None:
    with pytest.raises(ValueError, match="outside"):
        key(stage("one", "true"), folder=tmp_path / "runs", files={"../../x": "y"})
    assert not list((tmp_path / "runs").iterdir())


# the index


def test_the_index_can_be_lost_or_broken(tmp_path: Path, lab_home: Path) -> None:
    one = Staged(stage("one", "true")).submit()
    two = Staged(stage("two", "true"), output=tmp_path / "elsewhere").submit()
    assert {job.path for job in labkit.jobs()} == {one.path, two.path}
    for job in (one, two):  # what is in the queue is found there
        job.wait(20)
    until(lambda: not LocalQueue().names())
    index = Index()
    index.path.write_bytes(b"this is no database" * 100)
    assert [job.path for job in labkit.jobs()] == [one.path]
    assert index.rebuild([tmp_path / "elsewhere"]) == 2
    assert {job.path for job in labkit.jobs()} == {one.path, two.path}
    index.path.unlink()
    assert [job.path for job in labkit.jobs()] == [one.path]
    assert open_job(two.path).path == two.path


def test_a_submit_does_not_need_the_index(lab_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError("disk quota")

    monkeypatch.setattr(Index, "add", broken)
    with pytest.warns(UserWarning, match="disk quota"):
        job = Staged(stage("one", "true")).submit()
    assert job.wait(20).state is State.SUCCEEDED


def test_names(tmp_path: Path, lab_home: Path) -> None:
    one = Staged(stage("one", "true"), name="first").submit()
    Staged(stage("two", "true"), name="first").submit()
    Staged(stage("two", "true"), name="other").submit()
    assert open_job(one.name).path == one.path
    assert open_job(one.key).path == one.path
    assert open_job(one.name.rpartition("-")[2][:6]).path == one.path
    assert open_job("oth").name.startswith("other-")
    with pytest.raises(LabkitError, match="may be any of"):
        open_job("first")
    with pytest.raises(LabkitError, match="no run 'nope'"):
        open_job("nope")


def test_a_newer_format_is_refused(tmp_path: Path, lab_home: Path) -> None:
    run = many(tmp_path, 1)
    data = json.loads(run.folder.manifest.read_text())
    run.folder.manifest.write_text(json.dumps({**data, "format": 99}))
    with pytest.raises(ValueError, match="newer labkit"):
        Job(Run(run.path)).refresh()


# values


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90 min", 5400), ("1h30m", 5400), ("2d", 172800), ("1:30:00", 5400), ("1-12:00:00", 129600),
     (30, 30), ("45s", 45)],
)  # fmt: skip
def test_time(text: str | int, seconds: int) -> None:
    span = parse_time(text)
    assert span is not None
    assert span.total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "soon", "1 fortnight", "0", -3])
def test_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="time"):
        parse_time(text)


def test_ranges() -> None:
    for numbers in ([], [0], [0, 1, 2, 5, 7, 8], list(range(10_000))):
        assert from_ranges(to_ranges(numbers)) == numbers
    assert to_ranges([3, 1, 2, 2]) == "1-3"


def test_growth() -> None:
    assert grow_memory(100, "x2") == 200
    assert grow_memory(100, "x1.5") == 150
    assert grow_memory(100, "1 GB") == 1 << 30
    assert retry_memory("OUT_OF_MEMORY", 100, 1, 2, 150) == 150
    assert retry_memory("OUT_OF_MEMORY", 150, 1, 2, 150) is None
    assert retry_memory("LOST", 100, 2, 2, 150) == 100
    assert retry_memory("LOST", 100, 3, 2, 150) is None
    assert retry_memory("EXIT", 100, 1, 2, 150) is None


@pytest.mark.parametrize("text", ["../x", "a/b", "", "x" * 300, "..", "a b;c", "ünï", "-rf", 7.5])
def test_safe_keys(text: str) -> None:
    assert Task(safe_key(text), 0).key == safe_key(text)


@pytest.mark.parametrize("bad", ["../x", "a/b", "", ".hidden", "-rf", "a\nb", "x" * 200])
def test_unsafe_keys_are_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="key"):
        Task(bad, 0)


@pytest.mark.parametrize("argument", ["$HOME", "${nope}", "cost: 5$"])
def test_a_single_dollar_is_refused_early(argument: str) -> None:
    with pytest.raises(ValueError, match="doubled"):
        Task("a", 0, (argument,))


@pytest.mark.parametrize("name", ["../x", "Upper", "a b", ""])
def test_names_of_stages_and_environments(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        Stage(name, ())
    with pytest.raises(ValueError, match="name"):
        Environment(name)


def test_environments_are_found_beside_this_python_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, beside = tmp_path / "named", tmp_path / "beside"
    for folder in (named / "a", beside / "a", beside / "b"):
        folder.mkdir(parents=True)
    monkeypatch.setenv("LABHUB_ENVS", str(named))
    monkeypatch.setattr("sys.prefix", str(beside / "python"))

    def envs(name: str) -> str:
        plan = Plan("p", "test", (Stage("s", (), environment=Environment(name)),))
        return Run.create(plan, tmp_path / name).manifest.envs

    assert envs("a") == str(named)
    assert envs("b") == str(beside)
    assert envs("none") == str(named)
