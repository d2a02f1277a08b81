"""A real alignment on a real SLURM: one job array, the reference made once before it."""

from __future__ import annotations

from pathlib import Path

import pytest

import labkit
from labkit.jobs.model import State
from tests.conftest import needs_env
from tests.labkit.alignment import helpers
from tests.labkit.workflows.alignment import stepwise
from tests.labkit.workflows.alignment.conftest import Data, data
from tests.support.backend_contract import Site
from tests.support.portal import built_envs

__all__ = ["data"]

pytestmark = [needs_env("alignment"), pytest.mark.slow]


def test_samples_are_tasks_of_one_array_and_share_the_reference(
    site: Site, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABHUB_ENVS", str(built_envs()))
    rows = [{**row, "sample": f"s{number}"} for number, row in enumerate(data.rows)]
    reference = labkit.Reference(data.fasta, cache=site.folder / "refs")
    workflow = helpers.Streams(rows, reference, aligner="bwa", output=site.folder / "runs")
    job = workflow.submit(site.backend, cpu=1, memory="1 GB", **site.options).wait(150)
    assert job.state is State.SUCCEEDED, job.failed().to_dict("records")
    assert len(list(Path(site.folder / "refs").glob("*/bwa/made.json"))) == 1
    for number in range(2):
        found = stepwise.records(helpers.sample(job, f"s{number}") / f"s{number}.bam")
        assert sum(record.primary and not record.flag & 4 for record in found) == 6000
