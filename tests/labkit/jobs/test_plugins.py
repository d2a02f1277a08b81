"""Backends and workflows that are declared: ours, others', and those that are declared wrongly."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import labkit
from labkit.base.problems import LabkitError, RefusedError
from labkit.jobs import plugins
from labkit.jobs.backends import base
from labkit.jobs.backends.base import Backend
from labkit.jobs.jobfile import parse
from labkit.jobs.model import Stage, Task
from labkit.jobs.options import split_options
from labkit.jobs.plugins import BACKENDS, WORKFLOWS, PluginError
from labkit.workflows.base import Workflow

Install = Callable[..., None]

MODULE = """
from labkit.jobs.backends.local import LocalBackend
from labkit.jobs.job import Job
from labkit.jobs.plan import Plan
from labkit.workflows.base import Workflow


class OtherBackend(LocalBackend):
    name = "other"
    options = {"queue": "which queue"}


class CountJob(Job):
    pass


class Count(Workflow):
    job_class = CountJob

    def check(self):
        return []

    def build(self, backend):
        return Plan("count", "count 1.0", ())
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a distribution with entry points where Python finds it."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def put(distribution: str, points: str, **modules: str) -> None:
        info = folder / f"{distribution}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
        )
        (info / "entry_points.txt").write_text(points)
        for name, text in modules.items():
            (folder / f"{name}.py").write_text(text)
            monkeypatch.delitem(sys.modules, name, raising=False)
        plugins.declared.cache_clear()

    yield put
    plugins.declared.cache_clear()


def test_what_is_built_in_is_what_the_distribution_declares() -> None:
    pyproject = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    assert pyproject["project"]["name"] == plugins.DISTRIBUTION
    assert pyproject["project"]["entry-points"] == plugins.OURS


@pytest.mark.parametrize(("group", "kind"), [(BACKENDS, Backend), (WORKFLOWS, Workflow)])
def test_ours_can_all_be_loaded(group: str, kind: type) -> None:
    for name in plugins.OURS[group]:
        assert issubclass(plugins.find(group, name).load(kind), kind)


def test_ours_are_not_doubled_by_an_installed_copy(install: Install) -> None:
    install("labhub", "[labhub.backends]\nlocal = old.place:LocalBackend\n")
    assert plugins.find(BACKENDS, "local").value == plugins.OURS[BACKENDS]["local"]


def test_a_distribution_brings_a_backend_and_a_workflow(install: Install) -> None:
    install(
        "my-lab",
        "[labhub.backends]\nother = my_lab_a:OtherBackend\n"
        "[labhub.workflows]\ncount = my_lab_a:Count\n",
        my_lab_a=MODULE,
    )
    assert "other" in base.names()
    assert base.get("other").name == "other"
    own = split_options({"other_queue": "long"}, [], base.get("other"))
    assert own == ({}, {"queue": "long"}, [])
    workflow = parse({"workflow": "count"}).workflow
    assert type(workflow) is labkit.Count
    assert vars(labkit.Count)["job_class"].__name__ == "CountJob"


def test_two_distributions_with_one_name_are_both_named(install: Install) -> None:
    install("one-lab", "[labhub.backends]\nother = one_lab:OtherBackend\n")
    install("two-lab", "[labhub.backends]\nother = two_lab:OtherBackend\nlocal = two_lab:Local\n")
    with pytest.raises(PluginError, match=r"'other' is declared .* 'one-lab' and 'two-lab'"):
        base.get("other")
    with pytest.raises(PluginError, match=r"'local' is declared .* 'labhub' and 'two-lab'"):
        base.get("local")
    assert base.get("slurm").name == "slurm", "the others are not touched"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("broken_lab:OtherBackend", "cannot be loaded: ZeroDivisionError"),
        ("no_such_module_x:OtherBackend", "cannot be loaded: ModuleNotFoundError"),
        ("my_lab_b:Nothing", "cannot be loaded: AttributeError"),
        ("my_lab_b:Count", "is no Backend"),
        ("my_lab_b", "is declared wrongly"),
    ],
)
def test_a_backend_that_cannot_be_used_says_whose_it_is(
    install: Install, value: str, text: str
) -> None:
    install("my-lab", f"[labhub.backends]\nother = {value}\n", my_lab_b=MODULE, broken_lab="1 / 0")
    with pytest.raises(PluginError, match=f"'other' of the distribution 'my-lab' {text}"):
        base.get("other")
    assert labkit.Command("true").plan("local").tasks == 1, "others work on"
    with pytest.raises(RefusedError, match="other_queue"):
        labkit.Command("true").plan("local", other_queue="long")


def test_a_backend_must_have_its_entry_points_name(install: Install) -> None:
    install("my-lab", "[labhub.backends]\nspool = my_lab_c:OtherBackend\n", my_lab_c=MODULE)
    with pytest.raises(PluginError, match="'my-lab' calls itself 'other'"):
        base.get("spool")


def test_a_workflow_that_cannot_be_used_says_whose_it_is(install: Install) -> None:
    install("my-lab", "[labhub.workflows]\ncount = broken_lab:Count\n", broken_lab="1 / 0")
    with pytest.raises(LabkitError, match="'count' of the distribution 'my-lab' cannot be loaded"):
        parse({"workflow": "count"})
    with pytest.raises(LabkitError, match="'my-lab'"):
        _ = labkit.Count


def test_a_job_stays_in_reach_without_its_workflow(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from labkit.jobs.job import Job, open_job
    from labkit.jobs.plan import Plan
    from labkit.jobs.runs.store import Run

    run = Run.create(Plan("c", "count 1.0", (Stage("one", (Task("t", 0, ("true",)),)),)), tmp_path)
    assert type(open_job(run)) is Job
    install("my-lab", "[labhub.workflows]\ncount = broken_lab:Count\n", broken_lab="1 / 0")
    with pytest.warns(UserWarning, match="'my-lab' cannot be loaded"):
        assert type(open_job(run)) is Job
