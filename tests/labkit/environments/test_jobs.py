"""Jobs that use the PATH see a person's own packages: plan, key, manifest and task."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import labkit
from labkit.environments.personal import Personal, folder
from labkit.jobs.model import State
from tests.labkit.jobs.conftest import lab_home

__all__ = ["lab_home"]

COMMAND = "python -c 'import labprobe; print(labprobe.ANSWER)'"


@pytest.fixture
def personal(lab_home: Path, monkeypatch: pytest.MonkeyPatch) -> Personal:
    """The layer of a person whose server has set PATH."""
    assert str(lab_home) in str(folder())
    one = Personal()
    one.ensure()
    monkeypatch.setenv("PATH", f"{one.path}:{os.environ['PATH']}")
    return one


def install(personal: Personal, version: str, answer: int) -> None:
    for old in personal.packages.glob("labprobe*.dist-info"):
        (old / "METADATA").unlink()
        old.rmdir()
    # Python takes a compiled file for current by second and size: answers differ in length.
    (personal.packages / "labprobe.py").write_text(f"ANSWER = {answer}\n")
    info = personal.packages / f"labprobe-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: labprobe\nVersion: {version}\n")


def answer() -> tuple[labkit.Job, str]:
    work = labkit.Command(COMMAND, name="probe")
    job = work.submit("local").wait(120)
    assert job.state is State.SUCCEEDED, job.failed()["text"].tolist()
    return job, job.logs().strip().splitlines()[-1]


def test_a_changed_package_is_another_job(personal: Personal) -> None:
    install(personal, "1.0", 42)
    plan = labkit.Command(COMMAND, name="probe").plan("local")
    assert "With your own packages: labprobe==1.0" in repr(plan)
    assert "With your own packages: labprobe==1.0" in plan._repr_html_()
    first, text = answer()
    assert text == "42"
    assert first.run.manifest.packages == ("labprobe==1.0",)
    install(personal, "2.0", 4300)
    second, text = answer()
    assert text == "4300"
    assert second.key != first.key
    assert labkit.open_job(first.name).run.manifest.packages == ("labprobe==1.0",)


def test_who_has_no_packages_keeps_the_keys_of_before(
    personal: Personal, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = labkit.Command("echo 1", name="probe")
    with_empty = work.submit("local").key
    monkeypatch.setenv("PATH", os.environ["PATH"].removeprefix(f"{personal.path}:"))
    assert work.submit("local").key == with_empty
    assert Personal(Path(sys.prefix)).freeze() == []
