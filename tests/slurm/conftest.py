from __future__ import annotations

from pathlib import Path

import pytest

from labkit.jobs.backends.slurm.backend import SlurmBackend
from labkit.testing import SlurmCluster
from labkit.testing.fixtures import slurm, slurm_cluster
from tests.labkit.jobs.conftest import lab_home
from tests.support.backend_contract import Site

__all__ = ["lab_home", "site", "slurm", "slurm_cluster"]


@pytest.fixture
def site(
    slurm: SlurmCluster, lab_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Site:
    """A place for jobs, on the cluster with all its nodes idle; its disk shows files at once."""
    monkeypatch.setattr(SlurmBackend, "grace", 3.0)
    slurm.wait_idle()
    return Site("slurm", tmp_path, patience=60)
