"""What the benchmarks share: a bare JupyterHub as the peer, and how things are measured."""

from __future__ import annotations

import asyncio
import os
import platform
import pwd
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.support.portal import Portal

BARE = """
import os
c = get_config()
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub_port}"
c.JupyterHub.db_url = "sqlite:///{state}/jupyterhub.sqlite"
c.JupyterHub.cookie_secret_file = "{state}/secrets/cookie_secret"
c.JupyterHub.cleanup_servers = False
c.JupyterHub.cleanup_proxy = False
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api_port}"
c.ConfigurableHTTPProxy.auth_token = os.environ["CONFIGPROXY_AUTH_TOKEN"]
c.JupyterHub.spawner_class = "jupyterhub.spawner.LocalProcessSpawner"
c.Spawner.cmd = ["{command}"]
c.PAMAuthenticator.open_sessions = False
c.Authenticator.allow_all = True
c.JupyterHub.services = [
    {{"name": "test-admin", "api_token": os.environ["TEST_ADMIN_TOKEN"], "admin": True}}
]
"""


class Bare(Portal):
    """JupyterHub by itself: LocalProcessSpawner, same versions, same proxy, same command."""

    def __init__(self, environment: str = "stub") -> None:
        super().__init__({"isolation": "path"})
        self.environment = environment

    def start_hub(self, wait: bool = True) -> None:
        """Start the hub with a plain configuration."""
        config = self.state / "bare_config.py"
        config.write_text(
            BARE.format(
                port=self.port,
                hub_port=self.hub_port,
                api_port=self.api_port,
                state=self.state,
                command=self.envs / self.environment / "bin" / "jupyterhub-singleuser",
            )
        )
        self._start("hub", [sys.executable, "-m", "jupyterhub", "-f", str(config)])
        if wait:
            self.wait_ready()


def machine() -> str:
    """Name the machine and the versions that a result belongs to."""
    memory = psutil.virtual_memory().total / (1 << 30)
    packages = ", ".join(f"{name} {version(name)}" for name in ("jupyterhub", "tornado"))
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}, {packages}"
    )


def spread(values: Sequence[float]) -> str:
    """Write the median and the range of some times."""
    return f"{statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f})"


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share of the values lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def pss(names: Iterable[str]) -> int:
    """Return the proportional memory, in bytes, of all processes of some Unix users."""
    uids = {pwd.getpwnam(name).pw_uid for name in names}
    total = 0
    for process in psutil.process_iter():
        try:
            if process.uids().real in uids:
                rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
                line = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
                total += int(line.split()[1]) * 1024
        except (psutil.Error, OSError, StopIteration):
            continue
    return total


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process and its ended children have used."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


async def time_api(portal: Portal, until: Callable[[], bool]) -> list[float]:
    """Ask the hub's API again and again until told to stop; return each answer's time."""
    times = []
    headers = {"Authorization": f"token {portal.admin_token}"}
    async with httpx.AsyncClient(base_url=portal.url, headers=headers, timeout=60) as client:
        while not until():
            begin = time.perf_counter()
            (await client.get("/hub/api/users?limit=20")).raise_for_status()
            times.append(time.perf_counter() - begin)
            await asyncio.sleep(0.05)
    return times


async def start_all(portal: Portal, names: Sequence[str]) -> tuple[float, int, list[float]]:
    """Start all users' servers at once.

    Returns
    -------
    wall : float
        Seconds until the last was ready.
    failed : int
        How many did not start.
    api : list of float
        Answer times of the hub's API meanwhile.
    """
    headers = {"Authorization": f"token {portal.admin_token}"}
    body: dict[str, Any] = {} if isinstance(portal, Bare) else {"profile": "stub"}
    done = False
    async with httpx.AsyncClient(base_url=portal.url, headers=headers, timeout=180) as client:
        for name in names:
            await client.post(f"/hub/api/users/{name}")
        watch = asyncio.create_task(time_api(portal, lambda: done))

        async def start(name: str) -> bool:
            answer = await client.post(f"/hub/api/users/{name}/server", json=body)
            for _ in range(600):
                if answer.status_code == 201:
                    return True
                if answer.status_code not in (202, 200):
                    return False
                model = (await client.get(f"/hub/api/users/{name}")).json()
                if model["servers"].get("", {}).get("ready"):
                    return True
                await asyncio.sleep(0.1)
            return False

        begin = time.perf_counter()
        started: list[bool] = await _gather(start(name) for name in names)
        wall = time.perf_counter() - begin
        done = True
        return wall, started.count(False), await watch


async def _gather(tasks: Iterable[Awaitable[bool]]) -> list[bool]:
    return list(await asyncio.gather(*tasks))
