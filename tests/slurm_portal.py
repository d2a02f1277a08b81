"""A real portal on a real SLURM: user servers as jobs of several Unix users."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from labkit.testing import SlurmCluster
from labkit.testing.machine import missing_programs
from tests.portal import Portal

needs_slurm = pytest.mark.skipif(
    bool(missing_programs()), reason="needs SLURM (slurmctld, slurmd, slurm-client, munge)"
)


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
    """

    def __init__(
        self, cluster: SlurmCluster, slurm: Mapping[str, Any] | None = None, **more: Any
    ) -> None:
        lab: dict[str, Any] = {"target": "slurm", **more.pop("lab", {})}
        self.cluster = cluster
        super().__init__(lab, env={**cluster.environment, **more.pop("env", {})}, **more)
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

    def server(self, name: str, server: str = "") -> dict[str, Any]:
        """The hub's model of a server; empty where it does not run."""
        servers = self.api("GET", f"/users/{name}").json().get("servers", {})
        return dict(servers.get(server, {}))


def wait_for(condition: Callable[[], object], timeout: float = 30, what: str = "it") -> None:
    """Wait until something is true."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not happen within {timeout:g} s")
        time.sleep(0.1)
