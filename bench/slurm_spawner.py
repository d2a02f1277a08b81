"""Labhub's SLURM spawner against stock batchspawner: same cluster, same server, same run.

Run as root where SLURM and sudo are installed:
``python -m bench.slurm_spawner [--rounds 9] [--servers 20,100] [--seconds 60]``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.common import cpu_seconds, machine, spread
from labkit.testing import SlurmCluster
from tests.support.portal import People, Portal
from tests.support.slurm_portal import SlurmPortal, held, own_address

NODES = 4
STOCK = """
import os
c = get_config()
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_bind_url = "http://0.0.0.0:{hub_port}"
c.JupyterHub.hub_connect_url = "http://{address}:{hub_port}"
c.JupyterHub.db_url = "sqlite:///{state}/jupyterhub.sqlite"
c.JupyterHub.cookie_secret_file = "{state}/secrets/cookie_secret"
c.JupyterHub.cleanup_servers = False
c.JupyterHub.cleanup_proxy = False
c.JupyterHub.allow_named_servers = True
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api_port}"
c.ConfigurableHTTPProxy.auth_token = os.environ["CONFIGPROXY_AUTH_TOKEN"]
import batchspawner
# The variant of SlurmSpawner for several slurmd on one host: it maps their names to addresses.
c.JupyterHub.spawner_class = batchspawner.MultiSlurmSpawner
c.MultiSlurmSpawner.daemon_resolver = {resolver}
c.MultiSlurmSpawner.batchspawner_singleuser_cmd = "{python} -m batchspawner.singleuser"
c.MultiSlurmSpawner.req_partition = "main"
c.MultiSlurmSpawner.req_memory = "256M"
c.MultiSlurmSpawner.req_srun = "{srun}"
c.Spawner.cmd = ["{command}"]
c.Spawner.environment = {{"SLURM_CONF": "{conf}"}}
c.Spawner.start_timeout = 300
c.Spawner.poll_interval = 30
c.Authenticator.allow_all = True
c.JupyterHub.services = [
    {{"name": "test-admin", "api_token": os.environ["TEST_ADMIN_TOKEN"], "admin": True}}
]
"""


class Stock(SlurmPortal):
    """JupyterHub with batchspawner as it comes."""

    def start_hub(self, wait: bool = True) -> None:
        """Start the hub with a plain configuration."""
        config = self.state / "stock_config.py"
        config.write_text(
            STOCK.format(
                port=self.port,
                hub_port=self.hub_port,
                api_port=self.api_port,
                address=own_address(),
                state=self.state,
                resolver=dict.fromkeys(self.cluster.nodes, "127.0.0.1"),
                python=sys.executable,
                srun="srun",  # its default
                conf=self.cluster.conf,
                command=self.envs / "stub" / "bin" / "jupyterhub-singleuser",
            )
        )
        self._start("hub", [sys.executable, "-m", "jupyterhub", "-f", str(config)])
        if wait:
            self.wait_ready()


def labhub(cluster: SlurmCluster, network: str = "shared") -> SlurmPortal:
    """Return the portal with its usual settings."""
    profile = {"name": "stub", "title": "Stub", "environment": "stub", "memory": "256M"}
    lab = {"profiles": [profile], "named_servers": 50}
    slurm = {"network": network, "time_limit": "1h"}
    return SlurmPortal(cluster, slurm, quick=False, lab=lab)


def start(portal: Portal, name: str, server: str) -> float:
    """Return the seconds from asking for a server until it is ready."""
    path = f"/users/{name}/servers/{server}" if server else f"/users/{name}/server"
    begin = time.perf_counter()
    answer = portal.api("POST", path)
    if answer.status_code >= 400:
        raise RuntimeError(answer.text)
    while not portal.api("GET", f"/users/{name}").json()["servers"].get(server, {}).get("ready"):
        if time.perf_counter() - begin > 300:
            raise RuntimeError(f"{name}/{server} did not start\n{portal.hub_log()[-2000:]}")
        time.sleep(0.02)
    return time.perf_counter() - begin


def questions(cluster: SlurmCluster) -> int:
    """Return how often slurmctld was asked for jobs, by its own statistics."""
    count = 0
    for line in cluster.command("sdiag").splitlines():
        if line.strip().startswith(("REQUEST_JOB_INFO ", "REQUEST_JOB_INFO_SINGLE ")):
            count += int(line.split("count:")[1].split()[0])
    return count


def crowd(
    portal: SlurmPortal, people: Sequence[str], sizes: Sequence[int], seconds: float
) -> dict[int, tuple[float, float, float, int]]:
    """Fill a hub step by step; return wall, questions a minute, hub CPU (%) and the failed."""
    found = {}
    running = 0
    cluster = portal.cluster
    for name in people:
        portal.api("POST", f"/users/{name}")
    for size in sizes:
        wanted = [(people[i % len(people)], f"s{i}") for i in range(running, size)]
        begin = time.perf_counter()
        with ThreadPoolExecutor(10) as pool:
            failed = sum(pool.map(lambda one: _fails(portal, *one), wanted))
        wall = time.perf_counter() - begin
        running = size
        time.sleep(5)
        pid = portal.processes["hub"].pid
        asked, used, begin = questions(cluster), cpu_seconds(pid), time.perf_counter()
        time.sleep(seconds)
        taken = time.perf_counter() - begin
        rate = (questions(cluster) - asked) * 60 / taken
        print(f"  {type(portal).__name__}, {size}: {rate:.1f} a minute", file=sys.stderr)
        found[size] = (wall, rate, (cpu_seconds(pid) - used) / taken * 100, failed)
    return found


def _fails(portal: Portal, name: str, server: str) -> bool:
    try:
        start(portal, name, server)
    except RuntimeError as error:
        print(str(error)[:300], file=sys.stderr)
        return True
    return False


def pending(portal: SlurmPortal, name: str, seconds: float) -> float:
    """Return the questions a minute while one start waits in the queue."""
    cluster = portal.cluster
    with held(cluster), ThreadPoolExecutor(1) as pool:
        work = pool.submit(portal.api, "POST", f"/users/{name}/servers/waits")
        time.sleep(15)  # its first looks are over
        asked, begin = questions(cluster), time.perf_counter()
        time.sleep(seconds)
        rate = (questions(cluster) - asked) * 60 / (time.perf_counter() - begin)
        work.result()
    return rate


def spawns(cluster: SlurmCluster, name: str, rounds: int) -> None:
    """Spawn to ready, by turns."""
    times: dict[str, list[float]] = {"stock": [], "labhub": [], "walled": []}
    with (
        Stock(cluster) as stock,
        labhub(cluster) as ours,
        labhub(cluster, "auto") as walled,
    ):
        portals = {"stock": stock, "labhub": ours, "walled": walled}
        for portal in portals.values():
            portal.api("POST", f"/users/{name}")
        for turn in range(rounds + 1):
            for label, portal in portals.items():
                seconds = start(portal, name, "")
                if turn:  # the first warms the disk cache
                    times[label].append(seconds)
                portal.stop_server(name)
                time.sleep(12)  # a lab's pace: one start in some seconds, never ten at once
    base = statistics.median(times["stock"])
    print("\n| spawn to ready (stub) | seconds | ratio |\n|---|---|---|")
    for label, text in (
        ("stock", "batchspawner 1.3.0"),
        ("labhub", "Labhub"),
        ("walled", "Labhub, each in a network namespace"),
    ):
        ratio = statistics.median(times[label]) / base
        print(f"| {text} | {spread(times[label])} | {ratio:.2f} |")


def main() -> None:
    """Run and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--servers", default="20,100")
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.servers.split(",")]
    load = Path("/proc/loadavg").read_text().split()[0]
    print(f"{machine()}; load before: {load}")
    people = People()
    try:
        names = [people.add(f"p{number}") for number in range(5)]
        with SlurmCluster(nodes=NODES, cpus=64) as cluster:
            if arguments.rounds:
                spawns(cluster, names[0], arguments.rounds)
            rows = {}
            waits = {}
            for label, portal in (("stock", Stock(cluster)), ("labhub", labhub(cluster))):
                with portal:
                    portal.api("POST", f"/users/{names[0]}")
                    rows[label] = crowd(portal, names, sizes, arguments.seconds)
                    waits[label] = pending(portal, names[0], min(30, arguments.seconds))
                    cluster.cancel_all()
        print("\n| | batchspawner | Labhub |\n|---|---|---|")
        for size in sizes:
            stock, ours = rows["stock"][size], rows["labhub"][size]
            for text, left, right in (
                ("until the last was ready", f"{stock[0]:.0f} s", f"{ours[0]:.0f} s"),
                ("failed starts", stock[3], ours[3]),
                ("queries of the queue a minute", f"{stock[1]:.0f}", f"{ours[1]:.1f}"),
                ("hub CPU while all are idle", f"{stock[2]:.1f} %", f"{ours[2]:.1f} %"),
            ):
                print(f"| {size} servers: {text} | {left} | {right} |")
        text = "and one that waits: queries of the queue a minute"
        print(f"| {text} | {waits['stock']:.0f} | {waits['labhub']:.1f} |")
    finally:
        people.remove_all()


if __name__ == "__main__":
    main()
