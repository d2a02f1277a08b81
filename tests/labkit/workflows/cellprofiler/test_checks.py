"""Everything that is refused or warned about before anything is started."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import labkit
from labkit.base.problems import Problem, RefusedError
from labkit.jobs import jobfile
from labkit.jobs.backends import local
from labkit.jobs.backends.capacity import Capacity
from labkit.workflows.cellprofiler import example, modules, workflow
from labkit.workflows.cellprofiler.checks import check_findings
from labkit.workflows.cellprofiler.pipeline import Findings
from tests.conftest import needs_env
from tests.labkit.workflows.cellprofiler import pipelines

TABLE = pd.DataFrame(
    {
        "FileName_DNA": ["a.tif", "a.tif", "b.tif"],
        "Metadata_Well": ["A01", "A02", "A02"],
        "Metadata_Site": ["1", "1", "2"],
    }
)
Settings = list[tuple[str, str]]
Parts = tuple[tuple[str, Settings], ...]


def grouped(name: str) -> tuple[str, Settings]:
    return ("LoadData", [*pipelines.LOAD[1][:2], ("Group images by metadata?", "Yes"),
                         ("Select metadata tags for grouping", name)])  # fmt: skip


ACROSS = [
    ("Crop", [("Apply which cycle's cropping pattern?", "First")]),
    (
        "CorrectIlluminationCalculate",
        [("Calculate function for each image individually, or based on all images?", "All")],
    ),
    (
        "CorrectIlluminationCalculate",
        [
            (
                "Calculate function for each image individually, or based on all images?",
                "All: First cycle",
            )
        ],
    ),
    ("RescaleIntensity", [("Method to calculate the minimum intensity", "Minimum of all images")]),
    ("MakeProjection", []),
    ("TrackObjects", []),
    ("Tile", [("Tile assembly method", "Across cycles")]),
    ("SaveImages", [("When to save", "Last cycle")]),
    ("DefineGrid", [("Define a grid for which cycle?", "Once")]),
]


@pytest.mark.parametrize("module", ACROSS, ids=lambda module: module[0])
def test_modules_across_image_sets_cannot_be_split(
    tmp_path: Path, module: tuple[str, Settings]
) -> None:
    pipeline = pipelines.made(pipelines.LOAD, module, pipelines.EXPORT)
    (problem,) = modules.check_splitting(pipeline, 12)
    assert not problem.warning and f"{module[0]} (module 2)" in str(problem)
    assert "chunk_size=12" in str(problem)
    # a grouping of the pipeline keeps them whole
    assert not modules.check_splitting(pipelines.made(grouped("Well"), module), 12)


@pytest.mark.parametrize("name", ["CalculateStatistics", "LabelImages"])
def test_modules_over_the_whole_run_are_refused_with_groups_too(tmp_path: Path, name: str) -> None:
    (problem,) = modules.check_splitting(pipelines.made(grouped("Well"), (name, [])), 12)
    assert name in str(problem)


def test_what_cellprofiler_itself_calls_aggregating_is_believed(tmp_path: Path) -> None:
    parts: Parts = (pipelines.LOAD, ("PluginThing", []))
    assert not modules.check_splitting(pipelines.made(*parts), 3)
    assert len(modules.check_splitting(pipelines.made(*parts, across=[2]), 3)) == 1


@pytest.mark.parametrize("module", ACROSS, ids=lambda module: module[0])
def test_one_image_set_is_never_split(module: tuple[str, Settings]) -> None:
    assert not modules.check_splitting(pipelines.made(pipelines.LOAD, module), 1)


@pytest.mark.parametrize(
    "name", ["CreateBatchFiles", "ExportToDatabase", "IdentifyObjectsManually"]
)
def test_modules_that_cannot_run_in_a_job(tmp_path: Path, name: str) -> None:
    (problem,) = modules.check_modules(pipelines.made(pipelines.LOAD, (name, [])))
    assert not problem.warning and name in str(problem)
    assert not modules.check_modules(pipelines.made(pipelines.LOAD, (name, []), disabled=[2]))


def test_loaddata_that_takes_a_range_or_no_images(tmp_path: Path) -> None:
    load = ("LoadData", [("Load images based on this data?", "No"),
                         ("Process just a range of rows?", "Yes")])  # fmt: skip
    assert len(modules.check_modules(pipelines.made(load))) == 2


def save(**settings: str) -> tuple[str, Settings]:
    given = {
        "Select the image to save": "X",
        "Select method for constructing file names": "From image filename",
        "Select image name for file prefix": "DNA",
        "Enter single file name": "one",
        "Append a suffix to the image file name?": "No",
        "Text to append to the image name": "",
        "Saved file format": "png",
        "Output file location": "Default Output Folder|",
        "When to save": "Every cycle",
    }
    return ("SaveImages", list((given | settings).items()))


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([save()], "1 of 3 images would be saved over"),
        (
            [save(**{"Select method for constructing file names": "Single name"})],
            "2 of 3 images would be saved over",
        ),
        (
            [
                save(
                    **{
                        "Append a suffix to the image file name?": "Yes",
                        "Text to append to the image name": r"_\g<Well>",
                    }
                )
            ],
            "",
        ),
        ([save(**{"Select method for constructing file names": "Sequential numbers"})], "numbers"),
        ([save(**{"Output file location": "Elsewhere...|/data"})], "outside of the job"),
        ([save(**{"Output file location": "Same folder as image|"})], "outside of the job"),
        ([save(**{"Output file location": "Default Output Folder sub-folder|../x"})], "outside"),
        ([save(), save()], "same names as SaveImages (module 2)"),
    ],
)
def test_images_that_would_collide(
    tmp_path: Path, parts: list[tuple[str, Settings]], says: str
) -> None:
    pipeline = pipelines.made(pipelines.LOAD, *parts, pipelines.EXPORT)
    found = " ".join(map(str, modules.check_exports(pipeline, TABLE)))
    assert says in found and bool(found) is bool(says)


def test_tables_that_would_collide_or_are_missing(tmp_path: Path) -> None:
    export = ("ExportToSpreadsheet", [
        ("Export all measurement types?", "No"),
        ("Data to export", "Nuclei"), ("File name", "x.csv"),
        ("Data to export", "Cells"), ("File name", "x.csv"),
    ])  # fmt: skip
    (problem,) = modules.check_exports(pipelines.made(pipelines.LOAD, export), TABLE)
    assert "writes x.csv over that of" in str(problem)
    (problem,) = modules.check_exports(pipelines.made(pipelines.LOAD), TABLE)
    assert "no module exports" in str(problem) and not problem.warning


@needs_env("cellprofiler")
def test_missing_channels_are_named(tmp_path: Path) -> None:
    images, _ = example.make_plate(tmp_path, wells=1, sites=1)
    (found,) = fatal(labkit.CellProfiler(example.CORRECTED, images).check())
    assert "CorrectIlluminationApply (module 2)" in found and "IllumDNA not in" in found
    assert "The images have OrigDNA, OrigER" in found and "Add FileName_IllumDNA" in found


def test_a_chosen_column_that_is_not_measured_is_a_warning() -> None:
    export = {"module": "ExportToSpreadsheet", "number": "3"}
    choice = "Worms|AreaShape_Center_Z is not one of the choices"
    for error, warning in ((choice, True), ("Worms is not one of the choices", False)):
        findings = Findings(invalid=({**export, "error": error},))
        (problem,) = check_findings(replace(pipelines.made(*PARTS), findings=findings))
        assert problem.warning is warning and error in str(problem)


def test_embedded_files_are_told_of() -> None:
    pipeline = replace(pipelines.made(*PARTS), findings=Findings(embedded=9))
    (problem,) = check_findings(pipeline)
    assert problem.warning and "list of 9 files" in str(problem)


def fatal(problems: list[Problem]) -> list[str]:
    return [str(problem) for problem in problems if not problem.warning]


PARTS: Parts = (pipelines.LOAD, ("IdentifyPrimaryObjects", []), pipelines.EXPORT)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of CellProfiler, an answer by the pipeline's name."""
    across = pipelines.made(pipelines.LOAD, *ACROSS[:1], pipelines.EXPORT)
    answers = {
        "analysis.cppipe": pipelines.made(*PARTS, path=example.ANALYSIS),
        "illumination.cppipe": pipelines.made(
            pipelines.LOAD, save(**{"Select the image to save": "IllumDNA"})
        ),
        "across.cppipe": across,
        "refused.cppipe": pipelines.made(pipelines.LOAD, ("CreateBatchFiles", [])),
    }
    monkeypatch.setattr(workflow, "load", lambda path, **_: answers[Path(path).name])


@pytest.mark.usefixtures("loaded")
class TestWorkflow:
    """The whole check, as a submit does it."""

    def test_all_problems_at_once(self, tmp_path: Path) -> None:
        images, _ = example.make_plate(tmp_path, wells=2, sites=1)
        task = labkit.CellProfiler(
            "refused.cppipe", images, group_by="Wel", plugins=tmp_path / "none", chunk_size=0
        )
        found = "\n".join(fatal(task.check()))
        for text in ("CreateBatchFiles", "Did you mean 'Well'", "no folder", "chunk_size"):
            assert text in found
        with pytest.raises(RefusedError, match="nothing was started"):
            task.submit(output=str(tmp_path / "out"))
        assert not (tmp_path / "out").exists()

    def test_cut_off_images_are_warned_of_by_place(self, tmp_path: Path) -> None:
        images, _ = example.make_plate(tmp_path, wells=2, sites=1)
        bad = tmp_path / "Plate1_A02_s1_ER.tif"
        bad.write_bytes(bad.read_bytes()[:-10])
        found = labkit.CellProfiler(example.ANALYSIS, images).check()
        assert not fatal(found)
        assert "plate Plate1  well A02  site 1" in str(found[-1])
        other = tmp_path / "Plate1_A01_s1_ER.tif"
        other.unlink()
        assert (
            "not one image set is whole"
            in fatal(labkit.CellProfiler(example.ANALYSIS, images).check())[0]
        )

    def test_across_modules_run_in_one_task(self, tmp_path: Path) -> None:
        images, _ = example.make_plate(tmp_path, wells=2, sites=1)
        assert fatal(labkit.CellProfiler("across.cppipe", images).check())
        assert not fatal(labkit.CellProfiler("across.cppipe", images, chunk_size=2).check())
        assert not fatal(labkit.CellProfiler("across.cppipe", images.head(1)).check())

    def test_illumination_needs_to_know_the_plates(self, tmp_path: Path) -> None:
        images, _ = example.make_plate(tmp_path, wells=2, sites=1)
        unknown = images.drop(columns="Metadata_Plate")

        def found(table: pd.DataFrame, **more: Any) -> str:
            light = example.ILLUMINATION
            task = labkit.CellProfiler(example.ANALYSIS, table, illumination=light, **more)
            return "\n".join(
                problem for problem in fatal(task.check()) if "reads none" not in problem
            )

        assert "the plate is not known for every image set" in found(unknown)
        assert "plate=<metadata>" in found(unknown)
        half = unknown.assign(Metadata_Plate=["P1", ""])
        assert "the plate is not known" in found(half)
        assert not found(images) and not found(unknown, plate="Well")
        assert not found(unknown, illumination_by="all")
        assert not found(unknown, illumination_by=["Dose", "Well"])
        assert "Did you mean 'Dose'" in found(unknown, illumination_by="Doze")

    def test_a_plate_map_that_does_not_fit_is_refused_at_once(self, tmp_path: Path) -> None:
        images, _ = example.make_plate(tmp_path, wells=2, sites=1)

        def found(wells: list[str], column: str = "well_position") -> str:
            plate_map = pd.DataFrame({column: wells, "broad_sample": [*"abcd"][: len(wells)]})
            task = labkit.CellProfiler(example.ANALYSIS, images, profiles=plate_map)
            return "\n".join(fatal(task.check()))

        assert not found(["A1", "A02", "H12"])
        assert "lacks wells A02" in found(["A01"])
        assert "A01 more than once" in found(["A01", "A02", "a1"])
        assert "no column Well; it has position" in found(["A01", "A02"], "position")
        (tmp_path / "map.csv").write_bytes(b"\xff\xfe")
        task = labkit.CellProfiler(example.ANALYSIS, images, profiles=tmp_path / "map.csv")
        assert "the plate map cannot be read" in fatal(task.check())[0]

    def test_illumination_must_fit_the_analysis(self, tmp_path: Path) -> None:
        images, _ = example.make_plate(tmp_path, wells=1, sites=1)
        task = labkit.CellProfiler(example.ANALYSIS, images, illumination=example.ILLUMINATION)
        assert "it saves IllumDNA, and analysis.cppipe reads none" in fatal(task.check())[0]

    def test_bad_arguments_do_not_crash_the_check(self, tmp_path: Path) -> None:
        task = labkit.CellProfiler(
            3,  # type: ignore[arg-type]
            tmp_path / "none",
            illumination=4,  # type: ignore[arg-type]
            profiles="none.csv",
            input_folder=tmp_path / "none",
        )
        assert len(fatal(task.check())) == 5


@needs_env("cellprofiler")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("Saved file format:png", "Saved file format:mat"), "mat is not one of"),
        (("OverlayOutlines:[", "OverlayOutlinez:["), "would leave it out"),
        (("Select the input image:OrigER", "Select the input image:OrigRE"), "OrigRE not in"),
    ],
)
def test_cellprofiler_itself_is_asked(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    images, _ = example.make_plate(tmp_path / "img", wells=1, sites=1)
    pipeline = pipelines.changed(example.ANALYSIS, tmp_path, change)
    found = fatal(labkit.CellProfiler(pipeline, images).check())
    assert any(says in text for text in found), found


@needs_env("cellprofiler")
def test_cellprofiler_has_nothing_against_the_examples(tmp_path: Path) -> None:
    images, _ = example.make_plate(tmp_path / "img", wells=1, sites=2)
    assert labkit.CellProfiler(example.ANALYSIS, images).check() == []
    task = labkit.CellProfiler(example.CORRECTED, images, illumination=example.ILLUMINATION)
    assert task.check() == []
    assert task.prepared.pipeline is not None
    assert task.prepared.pipeline.findings.version.startswith("4.2.8")


@needs_env("cellprofiler")
@pytest.mark.usefixtures("loaded")
def test_a_job_file_describes_the_same(tmp_path: Path) -> None:
    images, _ = example.make_plate(tmp_path / "img", wells=2, sites=1)
    images.to_csv(tmp_path / "load.csv", index=False)
    content = {
        "workflow": "cellprofiler",
        "pipeline": str(example.ANALYSIS),
        "images": str(tmp_path / "load.csv"),
        "group_by": ["Well"],
        "chunk_size": 1,
    }
    plan = jobfile.parse(content).plan("local")
    assert [stage.name for stage in plan.stages] == ["analysis", "gather"]
    assert [task.params["rows"] for task in plan.stage("analysis").tasks] == ["1", "2"]
    wrong = jobfile.parse({**content, "pipeline": 3, "images": 4})
    assert isinstance(wrong.workflow, labkit.CellProfiler)
    assert {problem.where for problem in wrong.workflow.check()} == {"images", "pipeline"}


@needs_env("cellprofiler")
@pytest.mark.usefixtures("loaded")
def test_every_stage_fits_beside_the_notebook_in_a_standard_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gather that asked for all 4 GB of a server waited for ever: the notebook has some."""
    small = Capacity(cpu=2, memory=4 << 30)
    monkeypatch.setattr(local, "capacity", lambda: small)
    monkeypatch.setattr(local, "free_memory", lambda: 3 << 30)
    images, _ = example.make_plate(tmp_path / "img", wells=2, sites=1)
    plan = labkit.CellProfiler(example.ANALYSIS, images).plan("local")
    asked = {stage.name: stage.resources.memory for stage in plan.stages}
    assert max(asked.values()) <= 3 << 30
    assert asked["analysis"] * small.cpu <= 3 << 30, "no core waits for memory"
    assert not [p for p in plan.problems if "will wait" in p.text]
