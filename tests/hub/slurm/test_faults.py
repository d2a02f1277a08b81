"""Broken clusters and broken hubs: no server is lost, and none is left over."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from labkit.testing import SlurmCluster
from tests.conftest import needs_root
from tests.support.slurm_portal import SlurmPortal, held, labhub, needs_slurm, progress, wait_for

pytestmark = [needs_root, needs_slurm]
SERVERS = 20
MINUTE = 60.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    # With SLURM's own patience: munge's absence must not make nodes look dead.
    with SlurmCluster(nodes=2, cpus=32, config={"SlurmdTimeout": 300}) as running:
        yield running


@pytest.fixture(scope="module")
def portal(cluster: SlurmCluster) -> Iterator[SlurmPortal]:
    with SlurmPortal(cluster, lab={"named_servers": SERVERS}) as running:
        yield running


@pytest.fixture(scope="module")
def servers(portal: SlurmPortal, ada: str, bob: str) -> list[tuple[str, str]]:
    """Twenty running servers of two people."""
    wanted = [(name, f"s{number}") for name in (ada, bob) for number in range(SERVERS // 2)]
    for name in (ada, bob):
        portal.api("POST", f"/users/{name}")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: portal.spawn(one[0], server=one[1]), wanted))
    return wanted


def alive(portal: SlurmPortal, servers: list[tuple[str, str]]) -> int:
    """How many the hub knows as ready and that answer through the proxy."""
    found = 0
    for name in {name for name, _ in servers}:
        known = portal.api("GET", f"/users/{name}").json()["servers"]
        for _, server in [one for one in servers if one[0] == name]:
            if known.get(server, {}).get("ready"):
                found += portal.run(name, "print('alive')", server).strip() == "alive"
    return found


def silent(portal: SlurmPortal) -> bool:
    """Whether SLURM does not answer, by the hub's log."""
    log = portal.hub_log()
    return log.rfind("SLURM does not answer; servers are taken") > log.rfind("SLURM answers again")


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "kill -9"])
def test_a_hub_restart_loses_none_of_twenty(
    portal: SlurmPortal, servers: list[tuple[str, str]], sig: signal.Signals
) -> None:
    jobs = sorted(portal.jobs("RUNNING"))
    assert len(jobs) == SERVERS
    portal.restart_hub(sig)
    wait_for(lambda: alive(portal, servers) == SERVERS, 60, "that all are taken back")
    assert sorted(portal.jobs("RUNNING")) == jobs


def test_the_controller_is_down_for_a_minute(
    portal: SlurmPortal, cluster: SlurmCluster, servers: list[tuple[str, str]]
) -> None:
    """A whole minute by the clock: none is lost, none doubled.

    A new hub, too, that starts meanwhile believes no server gone; a stop is obeyed later.
    """
    jobs = set(portal.jobs("RUNNING"))
    cluster.stop_controller()
    began = time.monotonic()
    try:
        wait_for(lambda: "SLURM does not answer" in portal.hub_log(), 60)
        assert alive(portal, servers) == SERVERS
        portal.restart_hub(signal.SIGKILL)
        wait_for(lambda: alive(portal, servers) == SERVERS, 60)
        name, server = servers[-1]
        portal.stop_server(name, server, timeout=60)
        wait_for(lambda: time.monotonic() - began > MINUTE, MINUTE)
        assert alive(portal, servers) == SERVERS - 1
    finally:
        cluster.start_controller()
    wait_for(lambda: len(portal.jobs("RUNNING")) == SERVERS - 1, 60, "the late cancellation")
    assert set(portal.jobs()) < jobs
    assert alive(portal, servers) == SERVERS - 1
    portal.spawn(name, server=server)


def test_a_start_while_the_controller_is_down_says_so(
    portal: SlurmPortal, cluster: SlurmCluster, servers: list[tuple[str, str]], ada: str
) -> None:
    cluster.stop_controller()
    try:
        portal.api("POST", f"/users/{ada}/server", json={"profile": "stub"})
        wait_for(lambda: "SLURM does not answer at the moment" in portal.hub_log(), 60)
    finally:
        cluster.start_controller()
    assert len(portal.jobs()) == SERVERS


def test_munge_is_down(
    portal: SlurmPortal, cluster: SlurmCluster, servers: list[tuple[str, str]]
) -> None:
    wait_for(lambda: not silent(portal), 150, "that the outage before is over for the hub, too")
    cluster.stop_munge()
    try:
        wait_for(lambda: silent(portal), 90)
        assert alive(portal, servers) == SERVERS
    finally:
        cluster.start_munge()
    wait_for(lambda: not silent(portal), 150)
    assert alive(portal, servers) == SERVERS


def test_a_vanished_server_is_noticed(
    portal: SlurmPortal, cluster: SlurmCluster, servers: list[tuple[str, str]]
) -> None:
    name, server = servers[0]
    job = portal.job_of(name, server)
    cluster.command("scancel", job)
    wait_for(lambda: not portal.server(name, server), 60)
    assert alive(portal, servers) == SERVERS - 1
    portal.spawn(name, server=server)


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "kill -9"])
def test_a_start_in_the_queue_outlives_its_hub(
    portal: SlurmPortal,
    cluster: SlurmCluster,
    servers: list[tuple[str, str]],
    ada: str,
    sig: signal.Signals,
) -> None:
    """It keeps its place, its owner sees it waiting, and it becomes the server."""
    with held(cluster):
        began = time.monotonic()
        assert portal.api("POST", f"/users/{ada}/server", json={"profile": "stub"}).is_success
        wait_for(lambda: portal.jobs("PENDING"))
        (job,) = portal.jobs("PENDING")
        portal.restart_hub(sig)
        assert portal.server(ada)["pending"] == "spawn"
        assert portal.jobs("PENDING") == [job]
        assert portal.api("POST", f"/users/{ada}/server").status_code == 202  # no second one
        events = progress(portal, ada, lambda event: event.get("wait"))
        assert "restart of the portal" in events[1]["message"]
        waited = time.monotonic() - began
        assert waited - 2 < events[-1]["elapsed"] < waited + 30, "the clock of before"
        with portal.browser() as browser:
            browser.login(ada)
            page = browser.get(f"/hub/spawn-pending/{ada}").text
        assert "Stub · partition main" in page
    last = progress(portal, ada, lambda event: event.get("ready"))[-1]
    assert last.get("ready"), last
    assert portal.job_of(ada) == job
    assert alive(portal, servers) == SERVERS
    portal.restart_hub()  # it is a server like any other now
    wait_for(lambda: portal.server(ada).get("ready"))
    portal.stop_server(ada)
    wait_for(lambda: len(portal.jobs()) == SERVERS, what="the end of its job")


def test_a_start_that_was_taken_over_can_be_cancelled(
    portal: SlurmPortal, cluster: SlurmCluster, servers: list[tuple[str, str]], ada: str
) -> None:
    with held(cluster):
        assert portal.api("POST", f"/users/{ada}/server", json={"profile": "stub"}).is_success
        wait_for(lambda: portal.jobs("PENDING"))
        portal.restart_hub(signal.SIGKILL)
        assert portal.server(ada)["pending"] == "spawn"
        portal.stop_server(ada)
        wait_for(lambda: not portal.jobs("PENDING"), what="the end of its job")
    portal.spawn(ada)
    portal.stop_server(ada)
    assert alive(portal, servers) == SERVERS


def test_a_start_that_ends_while_no_hub_is_there_is_told_as_failed(
    portal: SlurmPortal, cluster: SlurmCluster, servers: list[tuple[str, str]], ada: str
) -> None:
    with held(cluster):
        assert portal.api("POST", f"/users/{ada}/server", json={"profile": "stub"}).is_success
        wait_for(lambda: portal.jobs("PENDING"))
        (job,) = portal.jobs("PENDING")
        portal.stop("hub", signal.SIGKILL)
        cluster.command("scancel", job)
        portal.start_hub()
        wait_for(lambda: not portal.server(ada), what="the failure")
    assert f"(job {job})" in portal.hub_log().split("was not resumed:")[-1].splitlines()[0]
    browser = portal.browser()
    browser.login(ada)
    assert "its job was cancelled" in browser.get(f"/hub/spawn-pending/{ada}").text
    assert alive(portal, servers) == SERVERS


def test_orphans_are_listed_and_stopped_by_word(
    portal: SlurmPortal, cluster: SlurmCluster, servers: list[tuple[str, str]], bob: str
) -> None:
    """A job of this portal that no hub knows, as a lost database would leave it."""
    name = cluster.command("squeue", "-h", "-o", "%j").splitlines()[0]
    words = ["sbatch", "--parsable", f"--job-name={name}", "--output=/dev/null", "--chdir=/tmp"]
    orphan = cluster.command(*words, "--wrap=sleep 600", user=bob).strip()
    words = ["sbatch", "--parsable", "--output=/dev/null", "--chdir=/tmp", "--wrap=sleep 600"]
    stranger = cluster.command(*words, user=bob)
    wait_for(lambda: len(portal.jobs("RUNNING")) == SERVERS + 1)
    listed = json.loads(labhub(portal, "orphans", "--json").stdout)
    assert [(row["id"], row["user"]) for row in listed] == [(orphan, bob)]
    running = portal.jobs("RUNNING")
    other = next(job for job in running if job != orphan)
    refused = labhub(portal, "stop", other, status=1)
    assert "is no orphan" in refused.stderr
    done = labhub(portal, "stop", "--all", "--yes")
    assert done.returncode == 0, done.stderr
    wait_for(lambda: orphan not in portal.jobs())
    assert json.loads(labhub(portal, "orphans", "--json").stdout) == []
    assert alive(portal, servers) == SERVERS
    assert "RUNNING" in cluster.command("squeue", "-h", "-j", stranger.strip(), "-o", "%T")
    cluster.command("scancel", stranger.strip())
