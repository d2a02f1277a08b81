"""The SLURM backend keeps the contract of all backends, on a real SLURM."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit.testing import SlurmCluster
from labkit.testing.fixtures import slurm, slurm_cluster  # noqa: F401
from tests.support.backend_contract import BackendContract, Site


class TestSlurm(BackendContract):
    @pytest.fixture
    def site(self, tmp_path: Path, lab_home: Path, slurm: SlurmCluster) -> Site:  # noqa: F811
        return Site("slurm", tmp_path, patience=60)
