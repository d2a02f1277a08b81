"""What `labhub check` says of a lab file that does not fit its cluster."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hub import targets
from hub.labfile.addresses import Outside
from hub.labfile.schema import Settings
from hub.slurm import checks, reachable, trial
from hub.slurm.commands import Account
from hub.state.paths import Paths
from labkit.base.problems import Problem
from labkit.slurm.commands import SlurmRefusedError, SlurmUnavailableError

COUNTS = "SelectTypeParameters = CR_CORE_MEMORY\n"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What SLURM's programs print; changed by the tests."""
    said = {
        "config": "ClusterName             = lab\nPrivateData             = none\n"
        "SelectTypeParameters    = CR_CORE_MEMORY\n",
        "partition": "PartitionName=main State=UP MaxTime=12:00:00\n"
        "PartitionName=gpu State=UP MaxTime=UNLIMITED\n",
        "node": "NodeName=node1 NodeAddr=127.0.0.1 State=IDLE CPUTot=8 RealMemory=64000"
        " Partitions=main,gpu\n",
    }

    async def run(program: str, *words: str, timeout: float = 0) -> str:
        if words[-1] not in said:
            raise SlurmUnavailableError("Unable to contact slurm controller")
        return said[words[-1]]

    async def sbatch(_: Account, program: str, words: list[str], **more: object) -> str:
        assert (program, words[0]) == ("sbatch", "--test-only")
        if said.get("refusal"):
            raise SlurmRefusedError(said["refusal"])
        return "Job 1 to start"

    monkeypatch.setattr(checks, "run_slurm", run)
    monkeypatch.setattr(trial, "member", lambda _: Account("ada", 1, 1, (1,), "/home/ada", "sh"))
    monkeypatch.setattr(trial, "as_owner", sbatch)
    monkeypatch.setattr(checks, "find", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.delenv("LABHUB_ENVS", raising=False)
    return said


def found(tmp_path: Path, **slurm: Any) -> list[tuple[str, bool]]:
    return [(problem.where, problem.warning) for problem in problems(tmp_path, **slurm)]


def problems(
    tmp_path: Path, profile: dict[str, object] | None = None, **slurm: Any
) -> list[Problem]:
    values = {"partitions": ["main"], "hub_host": "127.0.0.1", "environments": str(tmp_path)}
    lab: dict[str, object] = {
        "target": "slurm",
        "authentication": {"method": "pam"},
        "slurm": {**values, **slurm},
    }
    if profile:
        lab["profiles"] = [
            {"name": "large", "title": "Large", "environment": "notebook", **profile}
        ]
    settings = Settings.model_validate(lab)
    place = tmp_path / "notebook" / "bin"
    place.mkdir(parents=True, exist_ok=True)
    (place / "jupyterhub-singleuser").touch()
    return targets.of(settings, Paths(tmp_path / "state", tmp_path / "other")).problems()


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


def exposure(**slurm: object) -> list[Problem]:
    given = settings(**slurm)
    assert given.slurm is not None
    return checks.exposure(given, given.slurm)


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
    addresses = targets.of(given, Paths(tmp_path, tmp_path)).addresses
    assert addresses.hub_bind == f"http://{address}:8081"
    assert addresses.gate_outside == Outside(address)
    for host, _ in (addresses.hub_for_portal, addresses.proxy_api, addresses.gate):
        assert host == "127.0.0.1"


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
    assert exposure(listen="10.1.2.3") == []
    (everywhere,) = exposure()
    (public,) = exposure(listen="8.8.8.8")
    for problem in (everywhere, public):
        assert problem.warning
        assert "of the internet (8.8.8.8)" in problem.text
        assert "8081 and 8082" in problem.hint
    monkeypatch.setattr(checks, "own_addresses", lambda: ["127.0.0.1", "10.1.2.3"])
    (inside,) = exposure()
    assert "all addresses (127.0.0.1, 10.1.2.3)" in inside.text


def test_the_lab_file_alone_says_where_the_environments_are(
    cluster: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found(tmp_path, environments=str(tmp_path / "new")) == []
    monkeypatch.setenv("LABHUB_ENVS", str(tmp_path / "second"))
    (problem,) = problems(tmp_path)
    assert (problem.where, problem.warning) == ("slurm.environments", False)
    assert "unset LABHUB_ENVS" in problem.hint
    assert found(tmp_path, environments="/nowhere-at-all/envs") == [("slurm.environments", True)]


def test_a_silent_cluster_is_a_warning(cluster: dict[str, str], tmp_path: Path) -> None:
    """The portal may start before its cluster does."""
    del cluster["partition"]
    assert found(tmp_path) == [("slurm.hub_host", True), ("slurm", True)]


def test_a_hub_that_cannot_see_others_jobs(
    cluster: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster["config"] = "ClusterName=lab\nPrivateData = jobs,usage\n" + COUNTS
    assert found(tmp_path) == []
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    monkeypatch.setattr(checks, "_rights", lambda _: [])
    assert found(tmp_path) == [("slurm", False)]


# -- addresses ----------------------------------------------------------------------------------

ELSEWHERE = (
    "NodeName=node1 NodeAddr=10.1.2.9 State=IDLE CPUTot=8 RealMemory=64000 Partitions=main,gpu\n"
)


@pytest.mark.parametrize(
    ("address", "listen", "expected"),
    [
        ("127.0.1.1", None, [("slurm.hub_host", False)]),
        ("127.0.0.1", "10.1.2.3", [("slurm.hub_host", False)]),
        ("10.1.2.3", "10.1.2.4", [("slurm.listen", False)]),
        ("10.1.2.3", "10.1.2.3", []),
        ("10.1.2.3", None, []),
        ("10.1.2.3", "0.0.0.0", []),
        ("203.0.113.7", None, [("slurm.hub_host", True)]),
    ],
)
def test_an_address_that_cannot_work_is_refused(
    cluster: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    listen: str | None,
    expected: list[tuple[str, bool]],
) -> None:
    """The name of this host leads to its loopback on Debian, to another address elsewhere."""
    cluster["node"] = ELSEWHERE
    own = ["10.1.2.3", "10.1.2.4", "127.0.0.1"]
    monkeypatch.setattr(reachable, "own_addresses", lambda: own)
    known = {"head.lab.example": [address], "10.1.2.9": ["10.1.2.9"]}
    monkeypatch.setattr(reachable, "addresses_of", lambda name: known[name])
    assert found(tmp_path, hub_host="head.lab.example", listen=listen) == expected


def test_loopback_is_right_where_all_nodes_are_this_host(
    cluster: dict[str, str], tmp_path: Path
) -> None:
    assert found(tmp_path) == []


# -- times, sizes, accounts ---------------------------------------------------------------------


def test_a_time_limit_over_the_partitions_own(cluster: dict[str, str], tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, time_limit="1d")
    assert (problem.where, problem.warning) == ("slurm.time_limit", False)
    assert "gives a job (12 h)" in problem.text
    assert found(tmp_path, time_limit="1d", partitions=["main", "gpu"]) == [
        ("slurm.time_limit", True)
    ]


@pytest.mark.parametrize("size", [{"cpu": 9}, {"memory": "65G"}, {"gpus": 1}], ids=str)
def test_a_profile_that_no_node_holds(
    cluster: dict[str, str], tmp_path: Path, size: dict[str, object]
) -> None:
    (problem,) = problems(tmp_path, profile=size)
    assert (problem.where, problem.warning) == ("profiles.large", False)
    assert "the largest has 8 cores, 62.5 GB memory" in problem.text


@pytest.mark.parametrize(
    ("said", "where"),
    [
        ("Invalid account or account/partition combination specified", "slurm.account"),
        ("Invalid qos specification", "slurm.qos"),
        ("Requested time limit is invalid (missing or exceeds some limit)", "slurm.time_limit"),
        ("Invalid feature specification", "profiles.standard.constraint"),
        ("Required node not available (down, drained or reserved)", None),
        ("Requested nodes are busy", None),
    ],
)
def test_what_slurm_itself_would_refuse(
    cluster: dict[str, str], tmp_path: Path, said: str, where: str | None
) -> None:
    cluster["refusal"] = said
    assert found(tmp_path) == ([(where, False)] if where else [])


def test_an_account_that_a_partition_does_not_take(cluster: dict[str, str], tmp_path: Path) -> None:
    cluster["partition"] = "PartitionName=main State=UP MaxTime=UNLIMITED AllowAccounts=physics\n"
    assert found(tmp_path, account="chemistry") == [("slurm.account", False)]
    assert found(tmp_path) == [("slurm.account", False)]
    assert found(tmp_path, account="physics") == []


def test_memory_that_nobody_counts_is_said(cluster: dict[str, str], tmp_path: Path) -> None:
    cluster["config"] = "ClusterName = lab\nSelectTypeParameters = CR_CORE\n"
    (problem,) = problems(tmp_path)
    assert problem.warning
    assert "counts cores only" in problem.text


def test_a_warning_after_the_end_is_refused() -> None:
    with pytest.raises(ValidationError, match="warn_before must be shorter"):
        settings(time_limit="30m", warn_before="1h")
