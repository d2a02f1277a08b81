"""pytest's fixtures; import the ones you want in your conftest.py.

``from labkit.testing.fixtures import slurm, slurm_cluster``
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from labkit.testing.machine import missing_programs
from labkit.testing.slurm import SlurmCluster


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[SlurmCluster]:
    """Give a SLURM cluster of four nodes with 16 cores each, one for the whole run of tests."""
    if missing := missing_programs():
        pytest.skip(f"needs SLURM ({missing})")
    with SlurmCluster() as cluster:
        yield cluster


@pytest.fixture
def slurm(slurm_cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmCluster]:
    """Make the cluster the one that ``sbatch`` and ``submit("slurm")`` find, and tidy up."""
    for name, value in slurm_cluster.environment.items():
        monkeypatch.setenv(name, value)
    yield slurm_cluster
    slurm_cluster.repair()
    slurm_cluster.cancel_all()
