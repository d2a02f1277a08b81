"""User servers as jobs of a real SLURM, under real Unix accounts."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from labkit.testing import SlurmCluster
from tests.conftest import needs_root
from tests.slurm_portal import SlurmPortal, needs_slurm, wait_for

pytestmark = [needs_root, needs_slurm]


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    partitions = {
        "main": {"Default": "YES"},
        "tiny": {"Nodes": "node4", "MaxTime": "1", "OverTimeLimit": "0"},
    }
    config = {"SlurmdTimeout": 5, "InactiveLimit": 0}
    with SlurmCluster(cpus=8, partitions=partitions, config=config) as running:
        yield running


@pytest.fixture(scope="module")
def portal(cluster: SlurmCluster) -> Iterator[SlurmPortal]:
    slurm = {"partitions": ["main", "tiny", "nowhere"], "queue_timeout": "1m"}
    profiles = [
        {"name": "stub", "title": "Stub", "environment": "stub", "memory": "512M"},
        {"name": "dies", "title": "Dies", "environment": "stub-dies", "memory": "512M"},
        {"name": "whole", "title": "Whole", "environment": "stub", "cpu": 8, "memory": "512M"},
        {"name": "huge", "title": "Huge", "environment": "stub", "memory": "900G"},
    ]
    config = "c.SlurmSpawner.queries_per_minute = 300\n"
    with SlurmPortal(cluster, slurm, lab={"profiles": profiles}, config=config) as running:
        yield running


@pytest.fixture(autouse=True)
def clean(portal: SlurmPortal, cluster: SlurmCluster) -> Iterator[None]:
    yield
    portal.stop_servers()
    wait_for(lambda: not portal.jobs(), what="the end of all jobs")


def start(portal: SlurmPortal, name: str, **options: str) -> threading.Thread:
    """Ask for a server and do not wait: the hub answers 202 after ten seconds."""
    portal.api("POST", f"/users/{name}")
    thread = threading.Thread(
        target=lambda: portal.api("POST", f"/users/{name}/server", json=options)
    )
    thread.start()
    return thread


def failure(portal: SlurmPortal, name: str, **options: str) -> str:
    """Start a server that fails and return what its owner is told."""
    portal.api("POST", f"/users/{name}")
    answer = portal.api("POST", f"/users/{name}/server", json=options)
    if answer.status_code < 400:  # it is pending
        headers = {"Authorization": f"token {portal.admin_token}"}
        url = f"{portal.url}/hub/api/users/{name}/server/progress"
        events = []
        with httpx.stream("GET", url, headers=headers, timeout=60) as stream:
            for line in stream.iter_lines():
                if line.startswith("data:"):
                    events.append(json.loads(line[5:]))
        return str(events[-1].get("message", ""))
    return str(answer.json()["message"])


def test_a_server_is_its_owners_job(portal: SlurmPortal, cluster: SlurmCluster, ada: str) -> None:
    portal.spawn(ada)
    assert portal.run(ada, "import getpass; print(getpass.getuser())").strip() == ada
    shown = cluster.command("squeue", "-h", "-o", "%u %P %C %m")
    assert shown.split() == [ada, "main", "1", "512M"]
    portal.stop_server(ada)
    wait_for(lambda: not portal.jobs())


def test_nothing_of_the_hubs_machine_is_in_its_variables(portal: SlurmPortal, ada: str) -> None:
    portal.spawn(ada)
    env = json.loads(portal.run(ada, "import json, os; print(json.dumps(dict(os.environ)))"))
    assert env["HOME"] == f"/home/{ada}"
    assert env["PATH"].startswith(str(portal.envs / "stub" / "bin"))
    for name in ("VIRTUAL_ENV", "CONFIGPROXY_AUTH_TOKEN", "TEST_ADMIN_TOKEN", "SLURM_TIME_FORMAT"):
        assert name not in env
    assert portal.admin_token not in env.values()


def test_no_secret_is_in_the_script_or_in_the_queue(
    portal: SlurmPortal, cluster: SlurmCluster, ada: str, tmp_path: Path
) -> None:
    portal.spawn(ada)
    token = portal.run(ada, "import os; print(os.environ['JUPYTERHUB_API_TOKEN'])").strip()
    assert len(token) > 20
    (job,) = portal.jobs()
    cluster.command("scontrol", "write", "batch_script", job, str(tmp_path / "script"))
    assert token not in (tmp_path / "script").read_text()
    assert token not in cluster.command("scontrol", "show", "job", job)
    assert token not in portal.hub_log()


def test_named_servers_are_jobs_of_their_own(portal: SlurmPortal, ada: str) -> None:
    portal.spawn(ada)
    portal.spawn(ada, server="second")
    assert len(portal.jobs("RUNNING")) == 2
    portal.stop_server(ada, "second")
    wait_for(lambda: len(portal.jobs()) == 1)
    assert portal.run(ada, "print('still here')").strip() == "still here"


def test_cancelling_a_pending_start_cancels_its_job(
    portal: SlurmPortal, cluster: SlurmCluster, ada: str
) -> None:
    cluster.command("scontrol", "update", "partition=main", "state=down")
    try:
        thread = start(portal, ada, profile="stub", partition="main")
        wait_for(lambda: portal.jobs("PENDING"))
        portal.stop_server(ada)
        wait_for(lambda: not portal.jobs())
        thread.join()
    finally:
        cluster.command("scontrol", "update", "partition=main", "state=up")


def test_the_wait_is_told(portal: SlurmPortal, cluster: SlurmCluster, ada: str) -> None:
    cluster.command("scontrol", "update", "partition=main", "state=down")
    try:
        thread = start(portal, ada, profile="stub", partition="main")
        wait_for(lambda: portal.jobs("PENDING"))
        headers = {"Authorization": f"token {portal.admin_token}"}
        url = f"{portal.url}/hub/api/users/{ada}/server/progress"
        waits = []
        with httpx.stream("GET", url, headers=headers, timeout=30) as stream:
            for line in stream.iter_lines():
                event = json.loads(line[5:]) if line.startswith("data:") else {}
                if event.get("wait"):
                    waits.append(event["wait"])
                    break
        assert waits[0]["position"] == 1
        assert waits[0]["why"]
    finally:
        cluster.command("scontrol", "update", "partition=main", "state=up")
        thread.join()
    wait_for(lambda: portal.server(ada).get("ready"))


def test_a_server_that_dies_shows_its_logs_end(portal: SlurmPortal, ada: str) -> None:
    told = failure(portal, ada, profile="dies", partition="main")
    assert "it ended with an error" in told
    assert "the disk is on fire" in told


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"profile": "stub", "partition": "nowhere"}, "partition"),
        ({"profile": "huge", "partition": "main"}, "can not be satisfied"),
    ],
    ids=["no such partition", "larger than any node"],
)
def test_what_slurm_refuses_is_told_with_its_reason(
    portal: SlurmPortal, cluster: SlurmCluster, ada: str, options: dict[str, str], words: str
) -> None:
    told = failure(portal, ada, **options)
    assert words.lower() in told.lower(), told
    assert not portal.jobs()


def test_the_time_limit_ends_a_server_and_the_hub_notices(
    portal: SlurmPortal, cluster: SlurmCluster, ada: str
) -> None:
    portal.spawn(ada)
    (job,) = portal.jobs("RUNNING")
    end = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 2))
    cluster.command("scontrol", "update", f"jobid={job}", f"endtime={end}")
    wait_for(lambda: not portal.server(ada), 120, "that the hub notices")
    assert "reached its time limit" in portal.hub_log()


def test_a_failed_node_is_noticed_and_another_start_works(
    portal: SlurmPortal, cluster: SlurmCluster, ada: str
) -> None:
    portal.spawn(ada)
    node = cluster.command("squeue", "-h", "-o", "%B").strip()
    cluster.kill_node(node)
    try:
        cluster.command("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
        wait_for(lambda: not portal.server(ada), 60, "that the hub notices")
        assert f"the node {node} failed" in portal.hub_log()
        portal.spawn(ada)
        assert portal.run(ada, "print(1)").strip() == "1"
    finally:
        cluster.start_node(node)
