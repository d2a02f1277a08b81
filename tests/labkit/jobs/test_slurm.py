"""The SLURM backend keeps the contract of all backends, on a real SLURM."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit.jobs.model import State
from labkit.testing import SlurmCluster
from labkit.testing.fixtures import slurm, slurm_cluster  # noqa: F401
from labkit.testing.moto import MotoServer
from labkit.workflows.command import Command
from tests.support.backend_contract import BackendContract, Site


class TestSlurm(BackendContract):
    @pytest.fixture
    def site(self, tmp_path: Path, lab_home: Path, slurm: SlurmCluster) -> Site:  # noqa: F811
        return Site("slurm", tmp_path, patience=60)


def test_inputs_in_s3_reach_the_node(
    tmp_path: Path,
    lab_home: Path,
    slurm: SlurmCluster,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By profile, region and endpoint of who submits; the keys lie in a file, as at home."""
    import boto3

    keys = tmp_path / "keys"
    keys.write_text("[default]\naws_access_key_id = test\naws_secret_access_key = test\n")
    with MotoServer() as moto:
        s3 = boto3.client("s3", **moto.client_options)
        s3.create_bucket(Bucket="lab-slurm")
        for name in ("a", "b", "genome"):
            s3.put_object(Bucket="lab-slurm", Key=f"run 7/{name}", Body=name.encode())
        for name, value in moto.environment.items():
            if "KEY" not in name:
                monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
        place = "s3://lab-slurm/run 7"
        job = Command(
            "cat {reads} {genome} > {out}/all",
            over=[{"reads": f"{place}/{name}", "genome": f"{place}/genome"} for name in "ab"],
            inputs=["reads", "genome"],
            shell=True,
            output=tmp_path / "runs",
        ).submit("slurm")
        assert job.wait(300).state is State.SUCCEEDED, job.failed()
    texts = [path.read_text() for path in sorted((job.path / "results").rglob("all"))]
    assert texts == ["agenome", "bgenome"]
