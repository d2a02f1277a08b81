"""What the SLURM backend works out by itself: options, layout of arrays, answers of scontrol."""

from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from labkit.jobs.backends.slurm.array_layout import JobArray, layout, parse_name
from labkit.jobs.backends.slurm.options import HELP, Options
from labkit.jobs.backends.slurm.options import read as read_options
from labkit.jobs.backends.slurm.queue import Answer
from labkit.jobs.backends.slurm.script import StageRequest, arguments, script
from labkit.jobs.backends.slurm.sightings import sighting
from labkit.jobs.model import Container, Environment, Reason, Resources, State
from labkit.jobs.runs.store import StageWork
from labkit.slurm import commands
from labkit.slurm.cluster import Cluster, Partition
from labkit.slurm.nodes import MB, Node, parse_nodes

NODE = Node("n1", 8, 16_000 * MB, partitions=frozenset({"main"}))
MAIN = Partition("main", default=True, max_time=timedelta(hours=1), nodes=(NODE,))
CLUSTER = Cluster("lab", "22.05.8", partitions=(MAIN,))


def work(name: str, tasks: int) -> StageWork:
    return StageWork(name, tuple(range(tasks)), Resources())


@pytest.mark.parametrize("tasks", [1, 5, 1001, 1002, 4999, 5000, 10_000, 123_457])
@pytest.mark.parametrize(("array", "most"), [(1001, 5000), (4, 6), (100_000, 10**6), (1, 3)])
def test_every_task_is_in_one_element_within_both_limits(tasks: int, array: int, most: int) -> None:
    works = [work("analysis", tasks), work("gather", 1)]
    parts = layout(works, array, most)
    assert sum(part.count for part in parts) <= most
    for stage in works:
        seen = [
            index
            for part in parts
            if part.stage == stage.name
            for element in range(part.count)
            for index in stage.tasks[part.tasks(element)]
        ]
        assert seen == list(stage.tasks)
    assert max(part.count for part in parts) <= array
    if tasks + 1 <= most:
        assert {part.each for part in parts} == {1}, "nothing shares without need"


def test_more_stages_than_elements_are_refused() -> None:
    with pytest.raises(ValueError, match="2 stages"):
        layout([work("a", 1), work("b", 1)], 1001, 1)


def test_a_name_tells_the_part() -> None:
    part = JobArray("analysis", 1001, 999, 2)
    name = part.name("labkit-a.b-1f-2")
    assert parse_name(name) == ("labkit-a.b-1f-2", part)
    for other in ("labkit-x", "bash", "labkit-x.analysis.1.2", "labkit-x.An.1.2.3"):
        assert parse_name(other) is None


HOSTILE: dict[str, Any] = {
    "partition": "main; touch /tmp/x",
    "account": "--uid=0",
    "qos": "a\nb",
    "reservation": "$(id)",
    "constraint": "a&b`id`",
    "gres": "gpu:1 --uid=0",
    "exclusive": "perhaps",
    "array_limit": 0,
    "max_jobs": "many",
    "modules": ["a; id", "b"],
    "apptainer": "docker://x;id",
    "binds": ["/data:/etc:rw"],
    "environments": "relative/path",
}


def test_hostile_values_are_refused_all_at_once() -> None:
    assert set(HOSTILE) == set(HELP), "an option without an attack"
    options, problems = read_options(HOSTILE)
    assert {problem.where for problem in problems} == {f"slurm_{name}" for name in HELP}
    assert options == Options()


@pytest.mark.parametrize(
    ("name", "value", "passed"),
    [
        ("partition", "gpu-long_2", "gpu-long_2"),
        ("constraint", "icelake&nvme|x", "icelake&nvme|x"),
        ("gres", "gpu:a100:2", "gpu:a100:2"),
        ("exclusive", "true", True),
        ("modules", "java/17,cellprofiler/4.2.8", {"": ("java/17", "cellprofiler/4.2.8")}),
        ("modules", {"cellprofiler": "cp/4"}, {"cellprofiler": ("cp/4",)}),
        ("apptainer", "/images/my tool.sif", {"": "/images/my tool.sif"}),
        ("binds", "/data,/scratch", ("/data", "/scratch")),
    ],
)
def test_good_values_pass(name: str, value: Any, passed: Any) -> None:
    more = {"apptainer": "/i.sif"} if name == "binds" else {}
    options, problems = read_options({name: value, **more})
    assert not problems
    assert getattr(options, name) == passed


def test_what_a_path_holds_stays_one_word_in_the_script() -> None:
    place = '/lab/it\'s $(touch x) `id`;"y"'
    options, problems = read_options(
        {"apptainer": "/img/a b.sif", "binds": "/da ta", "modules": "m/1", "environments": "/e e"}
    )
    assert not problems
    asked = StageRequest("measure", Resources(), None)
    text = script(
        asked, JobArray("measure", 0, 1, 1), 1, place, "/p th", CLUSTER, MAIN, options, "/usr/bin"
    )
    *_, command = text.strip().splitlines()
    words = shlex.split(command)
    assert words[words.index("--bind") + 1] == place
    assert words[-1] == "/img/a b.sif"
    assert words[6] == place
    assert "export LABHUB_ENVS='/e e'" in text
    (output,) = (
        word
        for word in arguments(asked, JobArray("measure", 0, 1, 1), "n", "/a%A", MAIN, options)
        if word.startswith("--output")
    )
    assert output == "--output=/a%%A/logs/measure/slurm-%A_%a.out"


def test_modules_and_images_by_environment_leave_the_others_alone() -> None:
    options, _ = read_options({"modules": {"cellprofiler": "cp/4"}, "apptainer": "/all.sif"})
    analysis = StageRequest("analysis", Resources(), Environment("cellprofiler"))
    gather = StageRequest("gather", Resources(), Environment("notebook"))
    boxed = StageRequest("tool", Resources(), Container("/own.sif"))
    assert analysis.option(options.modules) == ("cp/4",)
    assert gather.option(options.modules) is None
    assert (analysis.image(options), gather.image(options), boxed.image(options)) == (
        "/all.sif", None, "/own.sif",
    )  # fmt: skip


def test_time_and_memory_leave_room_for_the_worker_but_never_more_than_there_is() -> None:
    small = StageRequest("a", Resources.of(1, "100 MB", "10 min"), None)
    assert small.memory(MAIN) == (164, 64)
    assert small.time(MAIN, 1) == timedelta(minutes=12)
    assert small.time(MAIN, 100) == timedelta(hours=1)
    whole = StageRequest("a", Resources(memory=NODE.memory), None)
    assert whole.memory(MAIN) == (16_000, 0)


def test_where_slurm_does_not_count_memory_none_is_asked_for() -> None:
    line = "NodeName=n1 CPUTot=4 RealMemory=1 State=IDLE Partitions=main"
    part = replace(MAIN, nodes=parse_nodes(line, counts_memory=False))
    asked = StageRequest("a", Resources(), None)
    words = arguments(asked, JobArray("a", 0, 1, 1), "n", "/run", part, Options())
    assert not [word for word in words if word.startswith("--mem")]


def test_states_and_reasons_in_plain_words() -> None:
    def seen(state: str, reason: str = "None") -> Any:
        return sighting(state, reason)

    assert seen("PENDING", "Resources").text == (
        "It is next: it waits until enough cores and memory are free (Resources)."
    )
    assert (
        "of this kind use as much as they may (QOS" in seen("PENDING", "QOSMaxCpuPerUserLimit").text
    )
    assert seen("PENDING", "Unheard").text == "The cluster says: Unheard."
    assert seen("PENDING", "Dependency").text.startswith("It waits for the stage before it")
    assert seen("COMPLETING").state is State.RUNNING, "it may have been put back into the queue"
    assert seen("OUT_OF_MEMORY").reason is Reason.OUT_OF_MEMORY
    assert seen("CANCELLED").state is State.CANCELLED
    assert seen("CANCELLED", "DependencyNeverSatisfied") is None, "the stage before it tells why"
    assert seen("COMPLETED") is None


def test_after_failures_squeue_is_asked_more_and_more_seldom() -> None:
    waits = []
    for failures in range(1, 9):
        answer = Answer(at=1000.0, failures=failures)
        waits.append(next(s / 10 for s in range(1, 1000) if not answer.serves(1000 + s / 10, 1, 0)))
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (1.0, 30.0)
    slow = Answer(at=1000.0, took=1.0)
    assert slow.serves(1040, 1, 0), "a controller that needs a second is asked once in 50 s"
    assert not Answer(at=1000.0).serves(1000.5, 1, since=1000.2), "older than the job"


def test_slurm_that_is_not_installed_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import labkit
    from labkit.base.problems import RefusedError
    from labkit.jobs.backends.local import LocalBackend
    from labkit.jobs.options import split_options

    monkeypatch.setattr(commands, "FOLDERS", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RefusedError, match=r"SLURM is not installed .*login node"):
        labkit.Command("true").plan("slurm")
    _, _, problems = split_options({"slurm_partition": "x"}, ["memory"], LocalBackend())
    assert not problems, "an option of a backend that is not here is no mistake"


def test_every_option_is_in_the_users_page() -> None:
    page = (Path(__file__).parents[3] / "docs/how-to/jobs-on-slurm.md").read_text()
    assert [name for name in HELP if f"`slurm_{name}`" not in page] == []
