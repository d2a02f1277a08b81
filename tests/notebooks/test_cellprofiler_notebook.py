"""The CellProfiler tutorial with the real CellProfiler; its images' truth is known."""

from __future__ import annotations

import pytest

from tests.conftest import needs_env
from tests.notebooks.test_notebooks import Tutor, tutor
from tests.support.portal import built_envs

__all__ = ["tutor"]

needs_pycytominer = pytest.mark.skipif(
    not list((built_envs() / "notebook").glob("lib/python3*/site-packages/pycytominer")),
    reason="needs pycytominer in the environment 'notebook'",
)

_CHECKS = """
import numpy as np
grid = job.heatmap("Nuclei_AreaShape_Area").axes[0].images[0].get_array()
wells = truth.groupby("well")["area"].median()
seen = {
    "nuclei": len(nuclei), "truth": len(truth),
    "sites right": int((measured == drawn).sum()), "sites": len(drawn),
    "grid": [float(grid[0, column]) for column in range(6)],
    "wells": [float(wells[f"A{column + 1:02d}"]) for column in range(6)],
    "same table": sorted(found["FileName_DNA"]) == sorted(images["FileName_OrigDNA"]),
    "failed": len(job.failed()),
    "profiles": profiles.shape[0],
    "second": second.state.value,
    "second sets": len(second.results("Image")),
}
"""


@pytest.mark.slow
@needs_env("cellprofiler")
@needs_env("notebook")
@needs_pycytominer
def test_the_cellprofiler_tutorial_finds_the_truth(tutor: Tutor) -> None:
    seen = tutor.execute("02-cellprofiler.ipynb", _CHECKS)
    assert seen["nuclei"] == seen["truth"] == 132
    assert seen["sites right"] == seen["sites"] == 12
    assert seen["grid"] == seen["wells"]
    assert seen["same table"] and seen["failed"] == 0
    assert seen["profiles"] == 6
    assert (seen["second"], seen["second sets"]) == ("SUCCEEDED", 12)
