"""What `labhub check` says of a lab file that does not fit its cluster."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError
from traitlets.config import Config

from hub.apps.supervisor_config import gate_config
from hub.labfile.schema import Settings
from hub.slurm import checks
from hub.slurm.configure import configure
from hub.state.paths import Paths
from labkit.slurm.commands import SlurmUnavailableError


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What SLURM's programs print; changed by the tests."""
    said = {
        "config": "ClusterName             = lab\nPrivateData             = none\n",
        "partition": "PartitionName=main State=UP MaxTime=1:00:00\n"
        "PartitionName=gpu State=UP MaxTime=UNLIMITED\n",
    }

    async def run(program: str, *words: str, timeout: float = 0) -> str:
        if words[-1] not in said:
            raise SlurmUnavailableError("Unable to contact slurm controller")
        return said[words[-1]]

    monkeypatch.setattr(checks, "run_slurm", run)
    monkeypatch.setattr(checks, "find", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return said


def found(tmp_path: Path, **slurm: object) -> list[tuple[str, bool]]:
    values = {"partitions": ["main"], "hub_host": "127.0.0.1", "environments": str(tmp_path)}
    settings = Settings.model_validate(
        {"target": "slurm", "authentication": {"method": "pam"}, "slurm": {**values, **slurm}}
    )
    place = tmp_path / "notebook" / "bin"
    place.mkdir(parents=True, exist_ok=True)
    (place / "jupyterhub-singleuser").touch()
    paths = Paths(tmp_path / "state", tmp_path / "other")
    return [(problem.where, problem.warning) for problem in checks.problems(settings, paths)]


def test_a_lab_file_that_fits(cluster: dict[str, str], tmp_path: Path) -> None:
    assert found(tmp_path) == []


def test_every_misfit_is_named_at_once(cluster: dict[str, str], tmp_path: Path) -> None:
    wrong = found(tmp_path, partitions=["main", "tiny", "big"], hub_host="nowhere.invalid")
    assert wrong == [
        ("slurm.hub_host", False),
        ("slurm.partitions", False),
        ("slurm.partitions", False),
    ]


def settings(**slurm: object) -> Settings:
    values = {"partitions": ["main"], "hub_host": "head.lab.example", "environments": "/shared"}
    return Settings.model_validate({"target": "slurm", "slurm": {**values, **slurm}})


@pytest.mark.parametrize(
    ("slurm", "address"),
    [
        ({}, "0.0.0.0"),
        ({"hub_host": "10.1.2.3"}, "10.1.2.3"),
        ({"listen": "10.1.2.4"}, "10.1.2.4"),
        ({"hub_host": "10.1.2.3", "listen": "0.0.0.0"}, "0.0.0.0"),
    ],
)
def test_the_hub_listens_no_wider_than_the_lab_file_says(
    slurm: dict[str, str], address: str, tmp_path: Path
) -> None:
    given = settings(**slurm)
    assert given.slurm is not None
    assert given.slurm.bind_address == address
    c = Config()
    configure(c, given.model_copy(), Paths(tmp_path, tmp_path))
    assert c.JupyterHub.hub_bind_url == f"http://{address}:8081"
    assert gate_config([], given, Paths(tmp_path, tmp_path)).portal.outside == address


def test_an_address_that_is_not_this_hosts_is_refused(
    cluster: dict[str, str], tmp_path: Path
) -> None:
    assert found(tmp_path, listen="192.0.2.77") == [("slurm.listen", False)]
    assert found(tmp_path, listen="0.0.0.0") == []


def test_internal_ssl_needs_one_address_of_the_nodes() -> None:
    for slurm in ({}, {"listen": "0.0.0.0"}, {"hub_host": "127.0.0.1"}):
        with pytest.raises(ValidationError, match=r"slurm\.listen"):
            settings(internal_ssl=True, **slurm)
    assert settings(internal_ssl=True, listen="10.1.2.3")


def test_doctor_warns_of_what_the_internet_may_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "own_addresses", lambda: ["127.0.0.1", "10.1.2.3", "8.8.8.8"])
    assert checks.exposure(settings(listen="10.1.2.3")) == []
    (everywhere,) = checks.exposure(settings())
    (public,) = checks.exposure(settings(listen="8.8.8.8"))
    for problem in (everywhere, public):
        assert problem.warning
        assert "of the internet (8.8.8.8)" in problem.text
        assert "8081 and 8082" in problem.hint
    monkeypatch.setattr(checks, "own_addresses", lambda: ["127.0.0.1", "10.1.2.3"])
    (inside,) = checks.exposure(settings())
    assert "all addresses (127.0.0.1, 10.1.2.3)" in inside.text


def test_a_missing_environment(cluster: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    wrong = found(tmp_path, environments=str(tmp_path / "empty"))
    assert wrong == [("profiles.standard.environment", False)]
    elsewhere = {"notebook": {"modules": ["jupyter/4"]}}
    assert found(tmp_path, environments=str(tmp_path / "empty"), software=elsewhere) == []


def test_a_silent_cluster_is_a_warning(cluster: dict[str, str], tmp_path: Path) -> None:
    """The portal may start before its cluster does."""
    del cluster["partition"]
    assert found(tmp_path) == [("slurm", True)]


def test_a_hub_that_cannot_see_others_jobs(
    cluster: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster["config"] = "ClusterName=lab\nPrivateData             = jobs,usage\n"
    assert found(tmp_path) == []
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    monkeypatch.setattr(checks, "_rights", lambda _: [])
    assert found(tmp_path) == [("slurm", False)]
