from __future__ import annotations

import json
from pathlib import Path

import pytest

from labkit.workflows.cellprofiler import example
from labkit.workflows.cellprofiler.pipeline import Pipeline, PipelineError
from tests.labkit.workflows.cellprofiler import pipelines


def test_reads_modules_settings_and_what_is_disabled(tmp_path: Path) -> None:
    content = pipelines.text(
        pipelines.LOAD, ("Crop", [("Name the output image", "A,B")]), pipelines.EXPORT, disabled=[2]
    )
    pipeline = Pipeline.read(pipelines.write(tmp_path, content))
    assert [(m.number, m.name) for m in pipeline.modules] == [
        (1, "LoadData"), (2, "Crop"), (3, "ExportToSpreadsheet"),
    ]  # fmt: skip
    assert [m.number for m in pipeline.enabled] == [1, 3]
    assert pipeline.loads_data
    assert pipeline.exports == ("*",)
    assert pipeline.made == frozenset()


def test_example_pipeline_says_what_it_reads_and_makes() -> None:
    pipeline = Pipeline.read(example.CORRECTED)
    assert {"OrigDNA", "OrigER", "IllumDNA", "DNA"} <= set(pipeline.used_images)
    assert {"DNA", "Nuclei", "Cells", "Outlined"} <= pipeline.made
    assert pipeline.used_images["IllumDNA"].name == "CorrectIlluminationApply"


def test_json_gives_the_same_as_text(tmp_path: Path) -> None:
    settings = [{"text": "Select the input image", "value": "DNA"}]
    attributes = {"module_name": "Crop", "enabled": True, "variable_revision_number": 3}
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"modules": [{"attributes": attributes, "settings": settings}]}))
    module = Pipeline.read(path).modules[0]
    assert (module.number, module.name, module.revision) == (1, "Crop", 3)
    assert module.get("Select the input image") == "DNA"


def test_escapes_are_undone(tmp_path: Path) -> None:
    content = pipelines.text(("Crop", [("Value", r"a\x5Bb\x5D")]))
    assert Pipeline.read(pipelines.write(tmp_path, content)).modules[0].get("Value") == "a[b]"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x89HDF\r\n", "project or batch file"),
        (b"hello", "does not begin like"),
        (b"", "does not begin like"),
        (b"CellProfiler Pipeline: http://x\nVersion:5\n", "holds no modules"),
    ],
)
def test_refuses_what_is_no_pipeline(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "x.cppipe"
    path.write_bytes(content)
    with pytest.raises(PipelineError, match=says):
        Pipeline.read(path)


def test_a_cut_off_pipeline_is_noticed(tmp_path: Path) -> None:
    whole = example.ANALYSIS.read_text()
    path = pipelines.write(tmp_path, whole[: whole.index("MeasureObjectIntensity:")])
    with pytest.raises(PipelineError, match=r"incomplete: it says it has 8 modules, but 4"):
        Pipeline.read(path)


def test_missing_file_and_broken_json(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="no pipeline at"):
        Pipeline.read(tmp_path / "none.cppipe")
    with pytest.raises(PipelineError, match="not a pipeline in JSON"):
        Pipeline.read(pipelines.write(tmp_path, '{"modules": [1]}', "x.json"))
