"""Real CellProfiler on images with known truth, and compared with one process over everything."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import labkit
from labkit.base.problems import LabkitError
from labkit.jobs.model import State
from labkit.workflows.cellprofiler import example, workflow
from labkit.workflows.cellprofiler.job import CellProfilerJob
from labkit.workflows.cellprofiler.loading import load
from labkit.workflows.cellprofiler.pipeline import Pipeline
from tests.conftest import needs_env
from tests.labkit.workflows.cellprofiler import pipelines

pytestmark = [needs_env("cellprofiler"), needs_env("notebook")]

needs_example_fly = pytest.mark.skipif(
    not pipelines.EXAMPLE_FLY.is_dir(), reason="needs ExampleFly (../shared/data/imaging)"
)


def finish(task: labkit.CellProfiler, output: Path) -> CellProfilerJob:
    job = task.submit(output=str(output))
    assert isinstance(job, CellProfilerJob)
    job.wait(170)
    return job


@dataclass
class Plates:
    """Two plates: one image is cut off, one has another size."""

    job: CellProfilerJob
    images: pd.DataFrame
    truth: pd.DataFrame
    first_failed: pd.DataFrame
    first_nuclei: pd.DataFrame
    folder: Path


@pytest.fixture(scope="module")
def plates(module_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Plates:
    folder = tmp_path_factory.mktemp("plates")
    made = [
        example.make_plate(folder / name, 2, 2, plate=name, shading=0.4, seed=seed)
        for name, seed in (("P1", 1), ("P2", 2))
    ]
    images, truth = (pd.concat(part, ignore_index=True) for part in zip(*made, strict=True))
    cut, small = folder / "P1/P1_A02_s1_ER.tif", folder / "P2/P2_A01_s2_ER.tif"
    whole = {path: path.read_bytes() for path in (cut, small)}
    cut.write_bytes(whole[cut][:50_000])
    Image.fromarray(np.asarray(Image.open(small))[:128, :128].copy()).save(small)
    task = labkit.CellProfiler(
        example.CORRECTED, images, illumination=example.ILLUMINATION, group_by=["Well"]
    )
    with pytest.warns(UserWarning, match="P1_A02_s1_ER.tif: truncated"):
        job = finish(task, folder / "runs")
    assert job.state is State.FAILED
    failed, nuclei = job.failed(), job.results("Nuclei")
    for path, data in whole.items():
        path.write_bytes(data)
    job.retry()
    job.wait(170)
    return Plates(job, images, truth, failed, nuclei, folder)


def test_bad_sites_fail_alone_by_name(plates: Plates) -> None:
    found: Any = plates.first_failed.set_index("image_number")
    assert list(found.index) == [3, 6]
    assert list(found.loc[3, ["plate", "well", "site", "reason"]]) == ["P1", "A02", "1", "INPUT"]
    assert list(found.loc[6, ["plate", "well", "site", "reason"]]) == ["P2", "A01", "2", "EXIT"]
    assert "truncated: 50000 of" in found.loc[3, "text"]
    assert "same size" in found.loc[6, "text"]
    assert set(plates.first_nuclei["ImageNumber"]) == {1, 2, 4, 5, 7, 8}


def test_retry_completes_the_plates_and_the_truth_is_found(plates: Plates) -> None:
    assert plates.job.state is State.SUCCEEDED
    assert len(plates.job.failed()) == 0
    nuclei = plates.job.results("Nuclei")
    places = ["plate", "well", "site"]
    found, truth = nuclei.groupby(places), plates.truth.groupby(places)
    assert found.size().to_dict() == truth.size().to_dict()
    areas = found["AreaShape_Area"].apply(sorted).to_dict()
    assert areas == truth["area"].apply(sorted).to_dict()


def test_equals_one_process_over_everything(plates: Plates) -> None:
    light = {
        f"{plate}": pipelines.one_process(
            example.ILLUMINATION, plates.folder / f"light-{plate}", rows
        )
        for plate, rows in plates.images.groupby("Metadata_Plate")
    }
    assert set(light) == {"P1", "P2"}
    images = plates.images.assign(
        FileName_IllumDNA="IllumDNA.npy",
        PathName_IllumDNA=[
            str(plates.folder / f"light-{plate}") for plate in plates.images["Metadata_Plate"]
        ],
    )
    # illumination was calculated while one image was cut off: the same images here
    results = plates.job.path / "results" / "illumination"
    for plate in light:
        ours = np.load(results / plate / "part-1" / "IllumDNA.npy")
        assert ours.shape == (256, 256) and ours.min() >= 1.0
        np.save(plates.folder / f"light-{plate}" / "IllumDNA.npy", ours)
    theirs = pipelines.one_process(example.CORRECTED, plates.folder / "whole", images)
    assert set(theirs) == set(plates.job.tables)
    for name in ("Image", "Nuclei", "Cells"):
        pipelines.assert_equal(plates.job.results(name, places=False), theirs[name])


def test_saved_images_are_indexed_and_shown(plates: Plates) -> None:
    saved = plates.job.images("Outlined")
    assert list(saved["ImageNumber"]) == list(range(1, 9))
    assert all(Path(path).is_file() for path in saved["path"])
    row = saved[saved["ImageNumber"] == 6].iloc[0]
    assert row["path"].endswith("P2_A01_s2_DNA_outlines.png") and row["well"] == "A01"
    figure = plates.job.show(plate="P2", well="A01", site=2, channels="OrigDNA")
    assert [axis.get_title() for axis in figure.axes] == ["OrigDNA", "Outlined"]
    with pytest.raises(LabkitError, match="no such well"):
        plates.job.show(well="H12")
    with pytest.raises(LabkitError, match="OrigDNA, OrigER"):
        plates.job.show(channels=["DAPI"])


def test_heat_map_shows_the_dose(plates: Plates) -> None:
    figure = plates.job.heatmap("Nuclei_AreaShape_Area")
    grid: Any = figure.axes[0].images[0].get_array()
    truth = plates.truth[plates.truth["plate"] == "P1"].groupby("well")["area"].median()
    assert grid[0, 0] == truth["A01"] and grid[0, 1] == truth["A02"]
    assert np.ma.count(grid) == 2
    other = plates.job.heatmap("Count_Nuclei", plate="P2")
    counts: Any = other.axes[0].images[0].get_array()
    assert counts[0, 0] == 28 and counts[0, 1] == 16
    with pytest.raises(LabkitError, match="no feature"):
        plates.job.heatmap("Nucleus_Area")
    with pytest.raises(LabkitError, match="no such column"):
        plates.job.heatmap("Nuclei_AreaShape_Aera")


def test_results_as_asked(plates: Plates, tmp_path: Path) -> None:
    job = plates.job
    assert list(job.results()["table"]) == ["Cells", "Experiment", "Image", "Nuclei"]
    few = job.results("Nuclei", columns=["AreaShape_Area"])
    assert list(few) == [
        *("plate", "well", "site", "ImageNumber", "ObjectNumber", "AreaShape_Area")
    ]
    assert job.results("Nuclei", engine="arrow").count_rows() == len(plates.truth)
    for name, says in (("Nucleus", "Did you mean 'Nuclei'"), ("x", "Valid: Cells")):
        with pytest.raises(LabkitError, match=says):
            job.results(name)
    with closing(sqlite3.connect(job.to_sqlite(tmp_path / "x.sqlite"))) as database:
        (count,) = database.execute("SELECT count(*) FROM Nuclei WHERE ImageNumber = 1").fetchone()
    assert count == 14
    with pytest.raises(LabkitError, match="there already"):
        job.to_sqlite(tmp_path / "x.sqlite")
    files = {path.name: path for path in job.to_csv(tmp_path / "csv")}
    assert len(pd.read_csv(files["Nuclei.csv"])) == len(plates.truth)


def test_the_cost_was_learnt(plates: Plates) -> None:
    facts = plates.job.summary["facts"]
    assert all(fact["startup"] > 0.5 and fact["working"] > 0.5 for fact in facts)
    learnt = json.loads(
        Path(json.loads((plates.job.path / "files/gather.json").read_text())["costs"]).read_text()
    )
    cost = next(entry for key, entry in learnt.items() if not key.startswith("size:"))
    assert cost["image_sets"] >= 6 and cost["memory"] > 100e6


def test_submitting_again_returns_the_finished_job(plates: Plates) -> None:
    """The learnt cost would now size tasks otherwise: the same work stays the same job."""
    task = labkit.CellProfiler(
        example.CORRECTED, plates.images, illumination=example.ILLUMINATION, group_by=["Well"]
    )
    before = {path.name for path in (plates.folder / "runs").iterdir()}
    (settings,) = plates.job.run.folder.files.glob("analysis.json")
    assert settings.is_file()
    plan = task.plan(output=str(plates.folder / "runs"))
    assert len(plan.stage("analysis").tasks) == len(list(plates.job.run.folder.tasks("analysis")))
    assert {path.name for path in (plates.folder / "runs").iterdir()} == before


@needs_example_fly
def test_example_fly_in_two_tasks_equals_one_process(lab_home: Path, tmp_path: Path) -> None:
    pipeline = pipelines.EXAMPLE_FLY / "ExampleFly_every.cppipe"
    task = labkit.CellProfiler(
        pipeline, pipelines.EXAMPLE_FLY / "images", chunk_size=2, profiles=False
    )
    job = finish(task, tmp_path / "runs")
    assert job.state is State.SUCCEEDED, job.failed()
    assert [task["units"] for task in job.run.folder.tasks("analysis")] == [2, 1]
    theirs = pipelines.one_process(pipeline, tmp_path / "whole", pipelines.EXAMPLE_FLY / "images")
    assert set(job.tables) == set(theirs) == {"Image", "Nuclei", "Cells", "Cytoplasm"}
    for name, table in theirs.items():
        pipelines.assert_equal(job.results(name, places=False), table)
    assert list(job.images("RGBImage")["ImageNumber"]) == [1, 2, 3]


@needs_example_fly
def test_example_fly_as_it_comes_cannot_be_split(lab_home: Path) -> None:
    task = labkit.CellProfiler(
        pipelines.EXAMPLE_FLY / "ExampleFly.cppipe", pipelines.EXAMPLE_FLY / "images"
    )
    fatal = [problem.where for problem in task.check() if not problem.warning]
    assert fatal == ["Crop (module 5)", "Crop (module 6)", "Crop (module 7)"]


def measuring(folder: Path, groups: list[str]) -> Path:
    """Return a pipeline that reads files by name, groups them, and measures."""
    head = pipelines.names_and_types(
        match="Metadata",
        keys="[{'OrigDNA': 'Plate', 'OrigER': 'Plate'}, {'OrigDNA': 'Site', 'OrigER': 'Site'}, "
        "{'OrigDNA': 'Well', 'OrigER': 'Well'}]",
        groups=groups,
        regexp=r"^(?P<Plate>.*)_(?P<Well>[A-P][0-9]+)_s(?P<Site>[0-9]+)_",
        rules=(("OrigDNA", '"DNA"'), ("OrigER", '"ER"')),
    )
    body = example.ANALYSIS.read_text().split("\n\n", 2)[2]
    for number in range(8, 1, -1):
        body = body.replace(f"[module_num:{number}|", f"[module_num:{number + 3}|")
    content = head.replace("ModuleCount:4", "ModuleCount:11") + "\n" + body
    return pipelines.write(folder, content, "measuring.cppipe")


def test_groups_of_files_equal_one_process(lab_home: Path, tmp_path: Path) -> None:
    example.make_plate(tmp_path / "img", 3, 2, size=160)
    pipeline = measuring(tmp_path, ["Well"])
    task = labkit.CellProfiler(pipeline, tmp_path / "img", chunk_size=3, profiles=False)
    job = finish(task, tmp_path / "runs")
    assert job.state is State.SUCCEEDED, job.failed()
    assert [task["units"] for task in job.run.folder.tasks("analysis")] == [2, 2, 2]
    theirs = pipelines.one_process(pipeline, tmp_path / "whole", tmp_path / "img")
    assert list(theirs["Image"]["Group_Number"]) == [1, 1, 2, 2, 3, 3]
    for name in ("Image", "Nuclei", "Cells"):
        pipelines.assert_equal(job.results(name, places=False), theirs[name])


def test_a_module_that_the_node_cannot_load_fails_the_job(
    lab_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check here cannot know the node's CellProfiler: there, it ends Complete without it."""

    def elsewhere(path: str | Path, **more: Any) -> Pipeline:
        pipeline = load(path, **more)
        name = "MeasureObjectSizeShape:["
        text = pipeline.text.replace(name, "MeasureObjectSizeShapes:[")
        return replace(pipeline, text=text)

    monkeypatch.setattr(workflow, "load", elsewhere)
    images, _ = example.make_plate(tmp_path / "img", 1, 1, size=160)
    job = finish(labkit.CellProfiler(example.ANALYSIS, images), tmp_path / "runs")
    assert job.state is State.FAILED
    (failed, gather) = job.failed().to_dict("records")
    assert failed["reason"] == "CHECK" and "left out a module" in failed["text"]
    assert "not one of 1 image sets is good" in gather["text"]


def test_an_old_pipeline_gives_every_task_the_same_columns(lab_home: Path, tmp_path: Path) -> None:
    """Upgrading it, CellProfiler passes image names through a set: their order is the process'."""
    images, _ = example.make_plate(tmp_path / "img", 3, 1, size=160)
    images = images.assign(
        FileName_Third=list(images["FileName_OrigDNA"][::-1]),
        PathName_Third=images["PathName_OrigDNA"],
        FileName_Fourth=list(images["FileName_OrigER"][::-1]),
        PathName_Fourth=images["PathName_OrigER"],
    )
    old = pipelines.colocalization("OrigDNA", "OrigER", "Third", "Fourth")
    for name, content in (("v3", pipelines.version_3(old)), ("v4", pipelines.version_4(old))):
        pipeline = pipelines.write(tmp_path, content, f"{name}.cppipe")
        task = labkit.CellProfiler(pipeline, images, chunk_size=1, profiles=False)
        job = finish(task, tmp_path / "runs")
        assert job.state is State.SUCCEEDED, job.failed()
        theirs = pipelines.one_process(pipeline, tmp_path / name, images)["Image"]
        assert sum(str(column).startswith("Correlation_Costes_") for column in theirs) == 12
        pipelines.assert_equal(job.results("Image", places=False), theirs)
