"""Real CellProfiler on a real SLURM: the same tables as on this machine."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import labkit
from labkit.jobs.model import State
from labkit.testing import SlurmCluster
from labkit.testing.fixtures import slurm, slurm_cluster
from labkit.workflows.cellprofiler import example
from labkit.workflows.cellprofiler.job import CellProfilerJob
from tests.conftest import needs_env
from tests.labkit.workflows.cellprofiler import pipelines

__all__ = ["slurm", "slurm_cluster"]
pytestmark = [needs_env("cellprofiler"), needs_env("notebook")]


def test_a_plate_on_slurm_equals_the_same_on_this_machine(
    lab_home: Path, tmp_path: Path, slurm: SlurmCluster
) -> None:
    made = [
        example.make_plate(tmp_path / name, 1, 2, plate=name, shading=0.4, size=160, seed=seed)
        for name, seed in (("P1", 1), ("P2", 2))
    ]
    images = pd.concat([part[0] for part in made], ignore_index=True)
    truth = pd.concat([part[1] for part in made], ignore_index=True)
    cut = tmp_path / "P2" / "P2_A01_s2_ER.tif"
    cut.write_bytes(cut.read_bytes()[:20_000])

    def job_on(backend: str) -> CellProfilerJob:
        workflow = labkit.CellProfiler(
            example.CORRECTED, images, illumination=example.ILLUMINATION, profiles=False
        )
        with pytest.warns(UserWarning, match="truncated"):
            job = workflow.submit(backend, output=str(tmp_path / backend))
        assert isinstance(job, CellProfilerJob)
        job.wait(170)
        return job

    there, here = job_on("slurm"), job_on("local")
    for job in (there, here):
        assert job.state is State.FAILED
        failed = job.failed()
        assert list(failed["well"]) == ["A01"] and list(failed["site"]) == ["2"]
        assert list(failed["plate"]) == ["P2"], "one bad site fails alone"
    assert there.tables == here.tables
    for name in ("Image", "Nuclei", "Cells"):
        ours = here.results(name, places=False)
        theirs = there.results(name, places=False).reset_index(drop=True)
        pipelines.assert_equal(theirs, ours.reset_index(drop=True))
    assert len(there.results("Nuclei")) < len(truth)
    handle = there.run.submissions()[0].handle
    assert handle is not None
    assert [job["stage"] for job in handle["jobs"]] == ["illumination", "analysis", "gather"]
