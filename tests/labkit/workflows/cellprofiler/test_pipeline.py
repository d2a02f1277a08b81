"""A pipeline is what CellProfiler makes of the file: old ones, odd ones, broken ones."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from labkit.workflows.cellprofiler import example, loading
from labkit.workflows.cellprofiler.loading import load, support_files
from labkit.workflows.cellprofiler.modules import check_splitting
from labkit.workflows.cellprofiler.pipeline import PipelineError
from tests.conftest import needs_env
from tests.labkit.workflows.cellprofiler import pipelines
from tests.support.portal import built_envs

_TO_JSON = """
import sys
from cellprofiler_core.preferences import set_headless
set_headless()
from cellprofiler_core.pipeline import Pipeline
from cellprofiler_core.pipeline.io._v6 import dump
pipeline = Pipeline()
pipeline.load(sys.argv[1])
dump(pipeline, open(sys.argv[2], "w"), False)
"""

pytestmark = pytest.mark.usefixtures("lab_home")


def test_modules_settings_and_what_is_disabled() -> None:
    pipeline = pipelines.made(
        pipelines.LOAD, ("Crop", [("Name the output image", "A,B")]), pipelines.EXPORT, disabled=[2]
    )
    assert [m.number for m in pipeline.enabled] == [1, 3]
    assert pipeline.loads_data and not pipeline.named("Crop")


@needs_env("cellprofiler")
def test_the_example_says_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = [f"FileName_{name}" for name in ("OrigDNA", "OrigER", "IllumDNA")]
    pipeline = load(example.CORRECTED, columns=columns, row=["x", "y", "z"])
    assert not pipeline.findings.invalid
    assert {"OrigDNA", "OrigER", "IllumDNA", "DNA"} <= pipeline.images_read
    assert pipeline.findings.version.startswith("4.2.8")
    assert [m.name for m in pipeline.enabled][:2] == ["LoadData", "CorrectIlluminationApply"]
    # once: the second time, nothing is started
    monkeypatch.setattr(loading, "_ask", lambda *_: pytest.fail("it was asked again"))
    assert load(example.CORRECTED, columns=columns) == pipeline


@needs_env("cellprofiler")
def test_an_answer_belongs_to_content_columns_folder_and_plugins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    answer = {
        "version": "4", "modules": [{"name": "LoadData", "number": 1, "enabled": True,
        "settings": [["Name of the file", "x.xml"]], "reads": []}], "across": [], "dropped": [],
        "invalid": [], "embedded": 0, "error": "", "text": "",
    }  # fmt: skip

    def ask(*args: object) -> dict[str, object]:
        asked.append(args)
        return answer

    monkeypatch.setattr(loading, "_ask", ask)
    one = pipelines.write(tmp_path, pipelines.text(pipelines.LOAD))
    (tmp_path / "in").mkdir()
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "a.py").write_text("1")

    def starts(**more: object) -> int:
        before = len(asked)
        load(one, **more)  # type: ignore[arg-type]
        load(one, **more)  # type: ignore[arg-type]
        return len(asked) - before

    assert starts() == 1 and starts() == 0
    assert starts(columns=["FileName_DNA"], row=["a"]) == 1
    assert starts(columns=["FileName_DNA"], row=["b"]) == 0
    assert starts(input_folder=tmp_path / "in") == 1
    (tmp_path / "in" / "x.xml").write_text("<model/>")  # a file that the pipeline names came
    assert starts(input_folder=tmp_path / "in") == 1
    assert starts(plugins=tmp_path / "plugins") == 1
    (tmp_path / "plugins" / "a.py").write_text("2")
    assert starts(plugins=tmp_path / "plugins") == 1
    one.write_text(one.read_text() + "\n")
    assert starts() == 1
    answer["invalid"] = [{"module": "Crop", "number": 2, "error": "no"}]
    one.write_text(one.read_text() + "\n")
    assert starts() == 2, "a fault may be mended elsewhere: it is not kept"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x89HDF\r\n", "project or batch file"),
        (b"hello", "does not begin like"),
        (b"", "does not begin like"),
    ],
)
def test_refuses_what_is_no_pipeline(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "x.cppipe"
    path.write_bytes(content)
    with pytest.raises(PipelineError, match=says):
        load(path)


def test_without_cellprofiler_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABHUB_ENVS", str(tmp_path))
    monkeypatch.setattr("sys.prefix", str(tmp_path / "notebook"))
    with pytest.raises(PipelineError, match=r"is not installed here(.|\n)*ask your lab's admin"):
        load(example.ANALYSIS)


def test_missing_file_and_broken_json(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="no pipeline at"):
        load(tmp_path / "none.cppipe")
    with pytest.raises(PipelineError, match="not a pipeline in JSON"):
        load(pipelines.write(tmp_path, "[1]", "x.json"))


@needs_env("cellprofiler")
class TestOldPipelines:
    """What CellProfiler upgrades, and what a reader of the text would get wrong."""

    def test_version_3_with_escaped_names_hides_nothing(self, tmp_path: Path) -> None:
        settings = [
            *(("Select the input image", "OrigDNA"), ("Name the output image", "Cropped")),
            *(("Select the cropping shape", "Rectangle"), ("Select the method", "Coordinates")),
            ("Apply which cycle's cropping pattern?", "First"),
            *(("Left and right", "5,100"), ("Top and bottom", "5,100"), ("Center", "200,500")),
            *(("Radius X", "400"), ("Radius Y", "200"), ("Remove empty rows?", "Edges")),
            *(("Mask", "None"), ("Image with a cropping mask", "None"), ("Objects", "None")),
        ]
        lines = "".join(f"    {key}:{value}\n" for key, value in settings)
        attributes = "|svn_version:'Unknown'|variable_revision_number:3|enabled:True]"
        content = pipelines.joined(
            pipelines.example_module("LoadData"), f"Crop:[module_num:2{attributes}\n{lines}"
        )
        path = pipelines.write(tmp_path, pipelines.version_3(content))
        assert "cycle\\'s" in path.read_text()
        pipeline = load(path, columns=["FileName_OrigDNA"], row=["x.tif"])
        assert pipeline.findings.error == "" and not pipeline.findings.dropped
        assert "Version:5" in pipeline.text and "\\'" not in pipeline.text
        (problem,) = check_splitting(pipeline, 3)
        assert problem.where == "Crop (module 2)"

    def test_version_4_values_are_text(self, tmp_path: Path) -> None:
        content = pipelines.version_4(pipelines.colocalization("OrigDNA", "OrigER", "Third"))
        assert "\\xff\\xfe1\\x005\\x00.\\x000\\x00" in content
        pipeline = load(pipelines.write(tmp_path, content))
        assert pipeline.findings.error == "" and not pipeline.findings.dropped
        module = pipeline.first("MeasureColocalization")
        assert module is not None and "15.0" in [value for _, value in module.settings]
        assert set(module.reads) == {"OrigDNA", "OrigER", "Third"}
        assert "\\x00" not in pipeline.text and "\0" not in pipeline.text

    def test_a_list_of_files_inside_is_not_run(self, tmp_path: Path) -> None:
        content = pipelines.names_and_types().replace(
            "HasImagePlaneDetails:False", "HasImagePlaneDetails:True"
        )
        content += '\n"Version":"1","PlaneCount":"1"\n"URL","Series","Index","Channel"\n'
        content += '"file:///etc/elsewhere_w1.tif",,,\n'
        pipeline = load(pipelines.write(tmp_path, content))
        assert pipeline.findings.embedded == 1
        assert "elsewhere" not in pipeline.text
        assert "HasImagePlaneDetails:False" in pipeline.text

    def test_json_gives_the_same_as_text(self, tmp_path: Path) -> None:
        path = tmp_path / "x.json"
        python = built_envs() / "cellprofiler" / "bin" / "python"
        subprocess.run([python, "-c", _TO_JSON, example.ANALYSIS, path], check=True, timeout=100)
        from_text, from_json = load(example.ANALYSIS), load(path)
        assert from_json.modules == from_text.modules and from_json.text == from_text.text
        path.write_text(path.read_text().replace('"module_count": 8', '"module_count": 9'))
        assert "it says it has 9 modules, but 8" in load(path).findings.error

    def test_a_cut_off_pipeline_is_noticed(self, tmp_path: Path) -> None:
        whole = example.ANALYSIS.read_text()
        path = pipelines.write(tmp_path, whole[: whole.index("MeasureObjectIntensity:")])
        assert "it says it has 8 modules, but 4 are in it" in load(path).findings.error


def test_files_of_the_input_folder_are_known(tmp_path: Path) -> None:
    (tmp_path / "WormModel.xml").write_text("<model/>")
    pipeline = pipelines.made(
        ("UntangleWorms", [("Training set file name", "WormModel.xml"), ("Other", "../x")])
    )
    assert support_files(pipeline, tmp_path) == [tmp_path / "WormModel.xml"]
    assert support_files(pipeline, None) == []
