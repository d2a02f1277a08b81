"""A pipeline run on arrays in a kernel: equal to CellProfiler's own run of the same files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import labkit
from labkit.workflows.cellprofiler import example
from labkit.workflows.cellprofiler.interactive import NotInThisKernelError, objects2df
from tests.conftest import needs_env
from tests.labkit.workflows.cellprofiler import pipelines
from tests.support.portal import REPOSITORY, built_envs

_BEGIN = """
import sys
from pathlib import Path
import numpy as np
import labkit
from labkit.base.problems import LabkitError
from labkit.workflows.cellprofiler import example

def tried(pipeline, images, **options):
    try:
        return labkit.run_pipeline(pipeline, images, progress=False, **options)
    except LabkitError as error:
        print(type(error).__name__, error, sep="\\n")
"""


def in_the_kernel(code: str, folder: Path) -> str:
    """Run code with the Python of the kernel; return what it prints."""
    done = subprocess.run(
        [str(built_envs() / "cellprofiler" / "bin" / "python"), "-c", _BEGIN + code],
        env={**pipelines.ONE_THREAD, "PYTHONPATH": str(REPOSITORY)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_other_kernels_say_which_one_to_take() -> None:
    with pytest.raises(NotInThisKernelError, match=r"Change Kernel > Python 3 \(cellprofiler\)"):
        labkit.run_pipeline(example.ANALYSIS, {})


def test_a_table_has_a_row_for_each_object_also_where_it_was_not_measured() -> None:
    class Measured:
        def get_object_names(self) -> list[str]:
            return ["Image", "Nuclei", "Experiment"]

        def get_feature_names(self, _: str) -> list[str]:
            return ["Area", "Texture", "Number_Object_Number", "Never"]

        def get_current_measurement(self, objects: str, name: str) -> object:
            values = {"Area": [5.0, 6.0, 7.0], "Texture": [0.5], "Number_Object_Number": [1, 2, 3]}
            return 3 if objects == "Image" else values.get(name)

    table = objects2df(Measured(), "Nuclei")
    assert table.index.to_list() == [1, 2, 3]
    assert list(table) == ["Area", "Texture", "Never"]
    assert table["Texture"].isna().to_list() == [False, True, True]
    with pytest.raises(labkit.base.problems.LabkitError, match="Nuclei"):  # type: ignore[attr-defined]
        objects2df(Measured(), "Nuclie")


@pytest.mark.slow
@needs_env("cellprofiler")
def test_every_cell_of_every_table_is_that_of_cellprofilers_own_run(tmp_path: Path) -> None:
    images, truth = example.make_plate(tmp_path / "plate", wells=1, sites=1)
    theirs = pipelines.one_process(example.ANALYSIS, tmp_path / "out", images)
    said = in_the_kernel(
        """
from PIL import Image
pixels = {
    f"Orig{name}": np.asarray(Image.open(f"plate/Plate1_A01_s1_{name}.tif"))
    for name in ("DNA", "ER")
}
result = tried(example.ANALYSIS, pixels, metadata={"Well": "A01"})
for name in ("Nuclei", "Cells", "Image"):
    result.table(name).to_parquet(f"{name}.parquet")
result.show("Outlined").savefig("colour.png")
result.show("OrigDNA", "Nuclei").savefig("grey.png")
print(result.left_out, {name: labels.max() for name, labels in result.objects.items()})
""",
        tmp_path,
    )
    assert f"'Nuclei': {len(truth)}, 'Cells': {len(truth)}" in said
    assert "['LoadData', 'SaveImages', 'ExportToSpreadsheet']" in said
    for name, columns in (("Nuclei", 71), ("Cells", 71), ("Image", 8)):
        ours, table = pd.read_parquet(tmp_path / f"{name}.parquet"), theirs[name]
        both = [column for column in ours if column in table and ours[column].dtype.kind in "fiu"]
        assert len(both) >= columns, both
        for column in both:  # CellProfiler writes 32-bit numbers with the digits of 32 bits
            written = table[column].astype(ours[column].dtype).to_numpy()
            np.testing.assert_array_equal(ours[column].to_numpy(), written, err_msg=column)
    for picture in ("colour.png", "grey.png"):
        assert (tmp_path / picture).stat().st_size > 5000


@pytest.mark.slow
@needs_env("cellprofiler")
def test_what_is_wrong_is_said_at_once_and_a_failed_module_is_named(tmp_path: Path) -> None:
    said = in_the_kernel(
        """
grey = np.zeros((64, 64), np.uint16)
tried(example.ANALYSIS, {"OrigDna": grey, "OrigER": grey.astype(int)})
tried(example.ANALYSIS, {"OrigDNA": grey[0], "OrigER": np.full((64, 64), np.nan)})
tried(example.ILLUMINATION, {"OrigDNA": grey})
tried("nowhere.cppipe", {})
Path("broken.cppipe").write_text(example.ANALYSIS.read_text().partition("MeasureObject")[0])
tried("broken.cppipe", {})
print("FAILED")
tried(example.ANALYSIS, {"OrigDNA": grey, "OrigER": np.zeros((32, 32, 3))})
print("EMPTY")
result = tried(example.ANALYSIS, {"OrigDNA": grey, "OrigER": grey})
print(result.table("Nuclei").shape[0], result.table("Image")["Count_Nuclei"][0])
""",
        tmp_path,
    )
    refused, _, rest = said.partition("FAILED")
    for words in (
        "OrigDNA is missing",
        "the pipeline reads no OrigDna",
        "int64, whose full scale nobody knows",
        "its shape is (64,)",
        "not finite",
        "works on all image sets together",
        "there is no such file",
        "it is incomplete",
    ):
        assert words in refused, (words, refused)
    failed, _, empty = rest.partition("EMPTY")
    assert "PipelineRunError\nModule " in failed
    assert list(map(float, empty.split())) == [0, 0]
