"""Tasks are found by what a person calls them, in every workflow by one mechanism."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest

import labkit
from labkit.base.problems import LabkitError
from labkit.jobs.job import Job, open_job
from labkit.jobs.runs.store import Run

ROWS = [
    {"sample": "Probe 1 (α)", "reads": "/data/größe.fq", "lanes": ["L1", "/data/L2.fq"]},
    {"sample": "Probe 2 (β)", "reads": "/data/b.fq", "lanes": ["L3"]},
    {"sample": "1", "reads": "/data/c.fq", "lanes": ["L4"]},
]


@pytest.fixture
def job(tmp_path: Path, lab_home: Path) -> Job:
    plan = labkit.Command("echo {sample} {reads} {lanes}", ROWS).plan()
    return open_job(Run.create(plan, tmp_path))


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("Probe 1 (α)", 0),  # as the table has it
        ("Probe_1_", 0),  # as the folder is called
        (" Probe 2 (β) ", 1),
        ("größe.fq", 0),
        (unicodedata.normalize("NFD", "größe.fq"), 0),  # as a Mac writes it
        ("/data/b.fq", 1),
        ("L1", 0),
        ("L2.fq", 0),
        ("1", 2),  # a sample's name goes before a task's number
        ("0", 0),
    ],
)
def test_what_a_person_calls_it(job: Job, name: str, index: int) -> None:
    assert job.log_path(name).name == f"{index}.1.log"


def test_a_number_need_not_be_text(job: Job) -> None:
    assert job.log_path(1) == job.log_path("1")  # type: ignore[arg-type]


def test_an_unknown_name_is_told_with_some_that_there_are(job: Job) -> None:
    text = "There is no task 'Probe 3' in command. There are 3, e.g. Probe_2_, Probe_1_;"
    with pytest.raises(LabkitError, match=re.escape(text)):
        job.logs("Probe 3")
    with pytest.raises(LabkitError, match="no stage 'other'; there are: command"):
        job.logs("1", stage="other")
