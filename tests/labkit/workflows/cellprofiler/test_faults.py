"""Runs that go wrong in the worst way: none may pass as SUCCEEDED, and nothing good is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

import labkit
from labkit.base.problems import LabkitError
from labkit.jobs.model import State
from labkit.workflows.cellprofiler.job import CellProfilerJob
from labkit.workflows.cellprofiler.workflow import CellProfiler
from tests.conftest import needs_env
from tests.labkit.workflows.cellprofiler import pipelines
from tests.support.portal import built_envs

pytestmark = needs_env("notebook")  # gathers

FAKE = Path(__file__).with_name("fake_cellprofiler.py")
PIPELINE = pipelines.made(pipelines.LOAD, ("MeasureImageIntensity", []), pipelines.EXPORT)


@pytest.fixture
def envs(lab_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Environments with the stand-in for CellProfiler."""
    folder = lab_home / "envs"
    (folder / "cellprofiler" / "bin").mkdir(parents=True)
    shutil.copy(FAKE, folder / "cellprofiler" / "bin" / "cellprofiler")
    (folder / "notebook").symlink_to(built_envs() / "notebook")
    monkeypatch.setenv("LABHUB_ENVS", str(folder))
    monkeypatch.setattr("labkit.workflows.cellprofiler.workflow.load", lambda *_, **__: PIPELINE)
    return folder


def workflow(tmp_path: Path, *names: str, chunk: int = 10) -> CellProfiler:
    rows = []
    for number, name in enumerate(names):
        path = tmp_path / f"{number}-{name}.png"
        Image.new("L", (4, 4)).save(path)
        rows.append(
            {
                "FileName_DNA": path.name,
                "PathName_DNA": str(tmp_path),
                "Metadata_Plate": "P1",
                "Metadata_Well": f"A{number + 1:02d}",
                "Metadata_Site": 1,
            }
        )
    images = pd.DataFrame(rows)
    return labkit.CellProfiler(PIPELINE.path, images, chunk_size=chunk, profiles=False)


def run(tmp_path: Path, *names: str, chunk: int = 10) -> CellProfilerJob:
    job = workflow(tmp_path, *names, chunk=chunk).submit()
    assert isinstance(job, CellProfilerJob)
    job.wait(60)
    return job


def test_all_well(envs: Path, tmp_path: Path) -> None:
    job = run(tmp_path, "a", "b", "c", chunk=2)
    assert job.state is State.SUCCEEDED
    table = job.results("Image")
    assert list(table["ImageNumber"]) == [1, 2, 3]
    assert list(table["well"]) == ["A01", "A02", "A03"]
    assert job.summary["good"] == 3 and len(job.failed()) == 0


@pytest.mark.parametrize("fault", ["crash", "exit"])
def test_an_image_set_that_kills_the_process_fails_alone(
    envs: Path, tmp_path: Path, fault: str
) -> None:
    job = run(tmp_path, "a", fault, "c", "d", fault)
    assert job.state is State.FAILED
    failed = job.failed()
    assert list(failed["well"]) == ["A02", "A05"]
    assert set(failed["reason"]) == {"EXIT"}
    assert failed["text"].str.contains("after LoadData").all()
    assert list(job.results("Image")["ImageNumber"]) == [1, 3, 4]


def test_an_error_in_a_module_fails_its_image_set_alone(envs: Path, tmp_path: Path) -> None:
    job = run(tmp_path, "a", "raise", "c")
    (row,) = job.failed().to_dict("records")
    assert (row["plate"], row["well"], row["site"]) == ("P1", "A02", "1")
    assert row["text"] == "MeasureImageIntensity: ValueError: no light at all"
    assert list(job.results("Image")["ImageNumber"]) == [1, 3]


def test_a_lost_row_is_noticed(envs: Path, tmp_path: Path) -> None:
    job = run(tmp_path, "a", "lose", "c")
    (row,) = job.failed().to_dict("records")
    assert row["well"] == "A02" and "no row in the Image table" in row["text"]
    assert job.summary["good"] == 2


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("swap", "CellProfiler took other.tif as DNA"),
        ("drop", "left out a module"),
        ("nothing", "Image.csv was not written"),
        ("twice", "image set 1 twice"),
        ("failure", "says 'Failure'"),
        ("late", "ended by signal 11 while it exported"),
    ],
)
def test_complete_and_wrong_never_passes(envs: Path, tmp_path: Path, fault: str, says: str) -> None:
    job = run(tmp_path, "a", fault, "c", "d", chunk=2)
    assert job.state is State.FAILED
    failed = job.failed()
    assert len(failed) == 1 and says in failed["text"][0]
    assert list(job.results("Image")["ImageNumber"]) == [3, 4]
    assert [entry["ImageNumber"] for entry in job.summary["failed"]] == [1, 2]


def test_a_process_that_always_dies_is_given_up(envs: Path, tmp_path: Path) -> None:
    job = run(tmp_path, *["crash"] * 10, "fine", chunk=11)
    failed = job.failed()
    analysis = failed[failed["stage"] == "analysis"]
    assert len(analysis) == 11
    assert sum(text.startswith("not run: 9 others died") for text in analysis["text"]) == 2
    assert job.state is State.FAILED
    assert "not one of 11 image sets is good" in str(list(failed["text"]))


def test_retry_runs_only_what_failed(envs: Path, tmp_path: Path) -> None:
    job = run(tmp_path, "a", "crash", "c")
    program = envs / "cellprofiler" / "bin" / "cellprofiler"
    program.write_text(program.read_text().replace('"crash" in name', '"-none-" in name'))
    job.retry()
    job.wait(60)
    assert job.state is State.SUCCEEDED
    table = job.results("Image")
    assert list(table["ImageNumber"]) == [1, 2, 3]
    # the retried one was alone in its process: there it was the first
    assert list(table["Intensity"]) == [1.5, 1.5, 2.5]


def test_no_gather_no_results(envs: Path, tmp_path: Path) -> None:
    job = run(tmp_path, "failure")
    with pytest.raises(LabkitError, match=r"no gathered results yet(.|\n)*job.failed"):
        job.results("Image")
