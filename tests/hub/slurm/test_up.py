"""``./labhub`` itself with target slurm: check, up, a server, doctor, down."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from labkit.testing import SlurmCluster
from tests.conftest import needs_env, needs_root
from tests.support.cli_portal import LabhubPortal, eventually
from tests.support.portal import REPOSITORY, SUPPORT
from tests.support.slurm_portal import needs_slurm, own_address

pytestmark = [needs_root, needs_slurm, needs_env("proxy"), pytest.mark.slow]


ASK_APP = f"""
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
from labkit.portal.client import AppClient
class Told(AppClient):
    app, api, what = "testapp", "", "the test app"
print(dict(Told.from_environment().ask("GET", "told")["headers"])["x-labhub-user"])
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    with SlurmCluster(nodes=1) as running:
        yield running


@pytest.fixture(scope="module")
def portal(cluster: SlurmCluster, ada: str) -> Iterator[LabhubPortal]:
    made = LabhubPortal({"target": "slurm", "groups": {"imaging": [ada]}})
    made.env |= cluster.environment
    made.lab["slurm"] = {
        "partitions": ["main"],
        "hub_host": own_address(),
        "environments": str(made.envs),
    }
    made.write_lab()
    try:
        yield made
    finally:
        made.close()


def test_from_check_to_down(portal: LabhubPortal, cluster: SlurmCluster, ada: str) -> None:
    portal.labhub("check")
    portal.labhub("up")
    portal.labhub("app", "add", str(SUPPORT / "testapp"))
    portal.spawn(ada)
    assert portal.run(ada, "import getpass; print(getpass.getuser())").strip() == ada
    assert cluster.command("squeue", "-h", "-o", "%u") == ada
    assert "no job without its hub" in portal.labhub("slurm", "orphans").stderr
    # A server on a node reaches the lab's apps, by labkit's own client.
    assert portal.run(ada, ASK_APP).strip() == ada
    portal.labhub("restart", "hub")
    assert portal.run(ada, "print('goes on')").strip() == "goes on"
    portal.labhub("down", "--yes")
    eventually(lambda: not cluster.queue())


def test_check_names_what_the_cluster_lacks(portal: LabhubPortal) -> None:
    portal.lab["slurm"]["partitions"] = ["main", "nowhere"]
    portal.write_lab()
    done = portal.labhub("check", ok=False)
    assert "the cluster has no partition nowhere" in done.stderr
    assert "it has: main" in done.stderr
