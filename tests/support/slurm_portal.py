"""A real portal on a real SLURM: user servers as jobs of several Unix users."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from hub.slurm.orphans import job_of
from hub.state.paths import Paths
from labkit.testing import SlurmCluster
from tests.support.portal import REPOSITORY, Portal

needs_slurm = pytest.mark.slurm


# Answers are wanted soon in tests; how seldom is enough is tested with the poller itself.
QUICK = """\
c.SlurmSpawner.queries_per_minute = 200
c.Spawner.poll_interval = 1
c.JupyterHub.tornado_settings["slow_spawn_timeout"] = 1
"""


def own_address() -> str:
    """An address of this machine that is not loopback, as compute nodes would see it."""
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # sends nothing: only the route is looked up
        return str(probe.getsockname()[0])
    return "127.0.0.1"


class SlurmPortal(Portal):
    """A portal whose user servers are jobs of a test cluster.

    Parameters
    ----------
    cluster : SlurmCluster
        Where they run.
    slurm : mapping, optional
        Merged over the lab file's section ``slurm``.
    quick : bool
        With `QUICK`; benchmarks take the portal as labs have it.
    """

    def __init__(
        self,
        cluster: SlurmCluster,
        slurm: Mapping[str, Any] | None = None,
        *,
        quick: bool = True,
        config: str = "",
        **more: Any,
    ) -> None:
        lab: dict[str, Any] = {"target": "slurm", **more.pop("lab", {})}
        self.cluster = cluster
        env = {**cluster.environment, **more.pop("env", {})}
        super().__init__(lab, env=env, config=(QUICK if quick else "") + config, **more)
        self.lab["slurm"] = {
            "partitions": ["main"],
            "hub_host": own_address(),
            "environments": str(self.envs),
            "network": "shared",
            **(slurm or {}),
        }
        self.write_lab()

    def jobs(self, *states: str) -> list[str]:
        """The numbers of the portal's jobs in the queue."""
        words = ["squeue", "-h", "-o", "%i %T %j"]
        rows = [line.split() for line in self.cluster.command(*words).splitlines()]
        wanted = states or ("PENDING", "CONFIGURING", "RUNNING")
        return [row[0] for row in rows if row[2].startswith("labhub-") and row[1] in wanted]

    def job_of(self, name: str, server: str = "") -> str:
        """The number of a server's job, as the hub knows it."""
        return job_of(Paths(self.state, self.envs), name, server)

    def server(self, name: str, server: str = "") -> dict[str, Any]:
        """The hub's model of a server; empty where it does not run."""
        servers = self.api("GET", f"/users/{name}").json().get("servers", {})
        return dict(servers.get(server, {}))


def labhub(portal: Portal, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run ``labhub slurm ...`` for a portal."""
    done = subprocess.run(
        [sys.executable, "-m", "hub", "slurm", *words],
        cwd=REPOSITORY,
        env={**portal.environ, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, (done.stdout, done.stderr)
    return done


def progress(
    portal: Portal, name: str, until: Callable[[dict[str, Any]], object]
) -> list[dict[str, Any]]:
    """Return what the page of a server that starts is told, up to an event, or the last."""
    headers = {"Authorization": f"token {portal.admin_token}"}
    url = f"{portal.url}/hub/api/users/{name}/server/progress"
    events = []
    with portal.http.stream("GET", url, headers=headers) as stream:
        for line in stream.iter_lines():
            if line.startswith("data:"):
                events.append(json.loads(line[5:]))
                if until(events[-1]):
                    break
    return events


def wait_for(condition: Callable[[], object], timeout: float = 120, what: str = "it") -> None:
    """Wait until something is true."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not happen within {timeout:g} s")
        time.sleep(0.1)


@contextlib.contextmanager
def held(cluster: SlurmCluster, partition: str = "main") -> Iterator[None]:
    """Let no job of a partition start; it stays open, so that servers may wait for it."""
    cluster.command("scontrol", "update", f"partition={partition}", "MaxNodes=0")
    try:
        yield
    finally:
        cluster.command("scontrol", "update", f"partition={partition}", "MaxNodes=UNLIMITED")
