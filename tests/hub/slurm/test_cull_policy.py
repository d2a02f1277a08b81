"""How often SLURM is asked, and for how long a start may take: with the hub's usual settings."""

from __future__ import annotations

import time

from labkit.testing import SlurmCluster
from tests.conftest import needs_root
from tests.support.slurm_portal import SlurmPortal, held, needs_slurm, wait_for

pytestmark = [needs_root, needs_slurm]


def test_one_question_serves_all_and_a_start_that_takes_too_long_leaves_no_job(
    ada: str, bob: str
) -> None:
    """Three servers that run and one that waits until the hub's patience ends.

    The questions are those that slurmctld itself has counted.
    """
    config = "c.SlurmSpawner.start_timeout = 20\n"
    with (
        SlurmCluster(nodes=2) as cluster,
        SlurmPortal(cluster, quick=False, config=config) as portal,
    ):
        for name, server in ((ada, ""), (bob, ""), (ada, "second")):
            portal.spawn(name, server=server)
        with held(cluster):
            began, before = time.monotonic(), questions(cluster)
            portal.api("POST", f"/users/{bob}/servers/second", json={"profile": "stub"})
            assert len(portal.jobs("PENDING")) == 1
            wait_for(lambda: time.monotonic() - began > 30, 40)
            asked = questions(cluster) - before
            # Ten in any minute at most: four at once, then one in ten seconds.
            assert 0 < asked <= 7
            wait_for(lambda: not portal.jobs("PENDING"), 30, "the cancellation")
        assert "did not answer within 20 seconds" in portal.hub_log()
        assert len(portal.jobs("RUNNING")) == 3


def questions(cluster: SlurmCluster) -> int:
    """How often slurmctld was asked for the queue."""
    lines = [line.strip() for line in cluster.command("sdiag").splitlines()]
    asked = [line for line in lines if line.startswith("REQUEST_JOB_INFO ")]
    return int(asked[0].split("count:")[1].split()[0]) if asked else 0
