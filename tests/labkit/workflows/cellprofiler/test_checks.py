"""Everything that is refused or warned about before anything is started."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import labkit
from labkit.base.problems import Problem, RefusedError
from labkit.jobs import jobfile
from labkit.jobs.backends import local
from labkit.jobs.backends.capacity import Capacity
from labkit.workflows.cellprofiler import checks, example, modules
from labkit.workflows.cellprofiler.pipeline import Pipeline
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


def read(tmp_path: Path, *parts: tuple[str, Settings]) -> Pipeline:
    return Pipeline.read(pipelines.write(tmp_path, pipelines.text(*parts)))


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
    pipeline = read(tmp_path, pipelines.LOAD, module, pipelines.EXPORT)
    (problem,) = modules.check_splitting(pipeline, 12)
    assert not problem.warning and f"{module[0]} (module 2)" in str(problem)
    assert "chunk_size=12" in str(problem)
    # a grouping of the pipeline keeps them whole
    assert not modules.check_splitting(read(tmp_path, grouped("Well"), module), 12)


@pytest.mark.parametrize("name", ["CalculateStatistics", "LabelImages"])
def test_modules_over_the_whole_run_are_refused_with_groups_too(tmp_path: Path, name: str) -> None:
    (problem,) = modules.check_splitting(read(tmp_path, grouped("Well"), (name, [])), 12)
    assert name in str(problem)


def test_what_cellprofiler_itself_calls_aggregating_is_believed(tmp_path: Path) -> None:
    pipeline = read(tmp_path, pipelines.LOAD, ("PluginThing", []))
    assert not modules.check_splitting(pipeline, 3)
    assert len(modules.check_splitting(pipeline, 3, [2])) == 1


@pytest.mark.parametrize(
    "name", ["CreateBatchFiles", "ExportToDatabase", "IdentifyObjectsManually"]
)
def test_modules_that_cannot_run_in_a_job(tmp_path: Path, name: str) -> None:
    (problem,) = modules.check_modules(read(tmp_path, pipelines.LOAD, (name, [])))
    assert not problem.warning and name in str(problem)
    content = pipelines.text(pipelines.LOAD, (name, []), disabled=[2])
    assert not modules.check_modules(Pipeline.read(pipelines.write(tmp_path, content)))


def test_loaddata_that_takes_a_range_or_no_images(tmp_path: Path) -> None:
    load = ("LoadData", [("Load images based on this data?", "No"),
                         ("Process just a range of rows?", "Yes")])  # fmt: skip
    assert len(modules.check_modules(read(tmp_path, load))) == 2


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
    pipeline = read(tmp_path, pipelines.LOAD, *parts, pipelines.EXPORT)
    found = " ".join(map(str, modules.check_exports(pipeline, TABLE)))
    assert says in found and bool(found) is bool(says)


def test_tables_that_would_collide_or_are_missing(tmp_path: Path) -> None:
    export = ("ExportToSpreadsheet", [
        ("Export all measurement types?", "No"),
        ("Data to export", "Nuclei"), ("File name", "x.csv"),
        ("Data to export", "Cells"), ("File name", "x.csv"),
    ])  # fmt: skip
    (problem,) = modules.check_exports(read(tmp_path, pipelines.LOAD, export), TABLE)
    assert "writes x.csv over that of" in str(problem)
    (problem,) = modules.check_exports(read(tmp_path, pipelines.LOAD), TABLE)
    assert "no module exports" in str(problem) and not problem.warning


def test_missing_channels_are_named(tmp_path: Path) -> None:
    images, _ = example.make_plate(tmp_path, wells=1, sites=1)
    workflow = labkit.CellProfiler(example.CORRECTED, images)
    found = checks.check_channels(
        Pipeline.read(example.CORRECTED),
        workflow.prepared.sets,  # type: ignore[arg-type]
    )
    assert [problem.where for problem in found] == ["channel IllumDNA"]
    assert "CorrectIlluminationApply (module 2)" in str(found[0])


def fatal(problems: list[Problem]) -> list[str]:
    return [str(problem) for problem in problems if not problem.warning]


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "probe", lambda *_: checks.Probe(False))


@pytest.mark.usefixtures("no_environment")
class TestWorkflow:
    """The whole check, as a submit does it, without CellProfiler on the machine."""

    def test_all_problems_at_once(self, tmp_path: Path) -> None:
        images, _ = example.make_plate(tmp_path, wells=2, sites=1)
        pipeline = pipelines.write(
            tmp_path, pipelines.text(pipelines.LOAD, *ACROSS[:1], ("CreateBatchFiles", []))
        )
        workflow = labkit.CellProfiler(
            pipeline, images, group_by="Wel", plugins=tmp_path / "none", chunk_size=0
        )
        found = "\n".join(fatal(workflow.check()))
        for text in ("CreateBatchFiles", "Did you mean 'Well'", "no folder", "chunk_size"):
            assert text in found
        with pytest.raises(RefusedError, match="nothing was started"):
            workflow.submit(output=str(tmp_path / "out"))
        assert not (tmp_path / "out").exists()

    def test_missing_environment_is_a_warning(self, tmp_path: Path) -> None:
        images, _ = example.make_plate(tmp_path, wells=1, sites=1)
        (problem,) = labkit.CellProfiler(example.ANALYSIS, images).check()
        assert problem.warning and "not on this machine" in str(problem)

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
        pipeline = pipelines.write(
            tmp_path, pipelines.text(pipelines.LOAD, *ACROSS[:1], pipelines.EXPORT)
        )
        assert fatal(labkit.CellProfiler(pipeline, images).check())
        assert not fatal(labkit.CellProfiler(pipeline, images, chunk_size=2).check())

    def test_illumination_must_fit_the_analysis(self, tmp_path: Path) -> None:
        images, _ = example.make_plate(tmp_path, wells=1, sites=1)
        workflow = labkit.CellProfiler(example.ANALYSIS, images, illumination=example.ILLUMINATION)
        assert "it saves IllumDNA, and analysis.cppipe reads none" in fatal(workflow.check())[0]

    def test_bad_arguments_do_not_crash_the_check(self, tmp_path: Path) -> None:
        workflow = labkit.CellProfiler(
            tmp_path / "none.cppipe", tmp_path / "none", illumination=tmp_path, profiles="none.csv"
        )
        assert len(fatal(workflow.check())) == 3


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
    workflow = labkit.CellProfiler(example.CORRECTED, images, illumination=example.ILLUMINATION)
    assert workflow.check() == []
    assert workflow.prepared.probe is not None
    assert workflow.prepared.probe.version.startswith("4.2.8")


@needs_env("cellprofiler")
@pytest.mark.usefixtures("no_environment")
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
    assert {problem.where for problem in wrong.workflow.check()} == {"pipeline"}


@needs_env("cellprofiler")
@pytest.mark.usefixtures("no_environment")
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
