"""User servers as jobs of a real SLURM, under real Unix accounts."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import websocket  # websocket-client

from hub.labfile.read import read
from hub.slurm.node_check import try_node
from hub.state.paths import Paths
from labkit.testing import SlurmCluster
from tests.conftest import needs_env, needs_root
from tests.labkit.server.conftest import kernel_run_at
from tests.support.http_client import LocalhostTransport
from tests.support.slurm_portal import SlurmPortal, held, labhub, needs_slurm, progress, wait_for

pytestmark = [needs_root, needs_slurm]
# The hub's picture of the cluster stays what it was at first.
ONE_LOOK = "import hub.slurm.cluster\nhub.slurm.cluster.FRESH = 3600.0\n"


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    partitions = {
        "main": {"Default": "YES", "PreemptMode": "OFF"},
        "tiny": {"Nodes": "node4", "MaxTime": "1", "OverTimeLimit": "0"},
        "spare-requeue": {"Nodes": "node3", "PreemptMode": "REQUEUE"},
        "spare-cancel": {"Nodes": "node3", "PreemptMode": "CANCEL"},
        "first": {"Nodes": "node3", "PriorityTier": "2"},
    }
    config = {
        "SlurmdTimeout": 5,
        "InactiveLimit": 0,
        "PreemptType": "preempt/partition_prio",
        "PreemptMode": "REQUEUE",
    }
    with SlurmCluster(cpus=8, partitions=partitions, config=config) as running:
        yield running


@pytest.fixture(scope="module")
def portal(cluster: SlurmCluster, bob: str) -> Iterator[SlurmPortal]:
    """Bob is its administrator."""
    partitions = ["main", "tiny", "nowhere", "spare-requeue", "spare-cancel"]
    slurm = {"partitions": partitions, "queue_timeout": "1m"}
    profiles = [
        {"name": "stub", "title": "Stub", "environment": "stub", "memory": "512M"},
        {"name": "dies", "title": "Dies", "environment": "stub-dies", "memory": "512M"},
        {"name": "whole", "title": "Whole", "environment": "stub", "cpu": 8, "memory": "512M"},
        {"name": "huge", "title": "Huge", "environment": "stub", "memory": "900G"},
        {"name": "notebook", "title": "Notebook", "memory": "2G"},
    ]
    with SlurmPortal(
        cluster, slurm, lab={"profiles": profiles, "admins": [bob]}, config=ONE_LOOK
    ) as running:
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
        return str(progress(portal, name, lambda _: False)[-1].get("message", ""))
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


# Each is misled by the server's own job: its memory, its node, its number.
PLAIN = (
    "cd $HOME && sbatch --wait --mem-per-cpu=100 -o batch.out --wrap 'srun hostname'"
    " && grep -q . batch.out && srun --mem-per-cpu=100 -n2 hostname"
    " && salloc --mem-per-cpu=100 srun hostname && echo all-$((40 + 2))"
)


def test_plain_slurm_commands_of_a_servers_owner_work(portal: SlurmPortal, ada: str) -> None:
    portal.spawn(ada)
    code = f"import subprocess; print(subprocess.getoutput({PLAIN!r}))"
    answer = portal.run(ada, code)
    assert "all-42" in answer, answer
    left = (
        "import os; print([n for n in os.environ if n.startswith(('SLURM', 'SBATCH_', 'SRUN_'))])"
    )
    assert portal.run(ada, left).strip() == "['SLURM_CONF']"


@needs_env("notebook")
def test_plain_slurm_commands_work_in_a_notebook_and_in_a_terminal(
    portal: SlurmPortal, ada: str
) -> None:
    portal.spawn(ada, "notebook", timeout=120)
    scopes = {"scopes": [f"access:servers!user={ada}"]}
    token = portal.api("POST", f"/users/{ada}/tokens", json=scopes).json()["token"]
    headers = {"Authorization": f"token {token}"}
    base = portal.user_url(ada)
    with httpx.Client(
        base_url=base, headers=headers, transport=LocalhostTransport(), timeout=60
    ) as client:
        kernel = client.post("api/kernels", json={"name": "python3"}).json()["id"]
        code = f"said = get_ipython().getoutput({PLAIN!r})\nassert 'all-42' in said, said"
        kernel_run_at(base, token, kernel, code, wait=True).close()
        terminal = client.post("api/terminals").json()["name"]
    parts = urlsplit(base)
    connection = websocket.create_connection(
        f"ws://{parts.netloc}{parts.path}terminals/websocket/{terminal}",
        header=[f"Authorization: token {token}"],
        timeout=60,
        socket=socket.create_connection(("127.0.0.1", portal.port), timeout=60),
    )
    connection.send(json.dumps(["stdin", f"{PLAIN}\r"]))
    shown = ""
    while "all-42" not in shown and "error" not in shown:
        kind, text = json.loads(connection.recv())[:2]
        shown += text if kind == "stdout" else ""
    connection.close()
    assert "all-42" in shown, shown
    told: list[dict[str, str]] = []
    asked = threading.Event()

    def listen() -> None:
        """As JupyterLab does while it is open."""
        with httpx.Client(
            headers=headers,
            transport=LocalhostTransport(),
            timeout=60,
            event_hooks={"request": [lambda _: asked.set()]},
        ) as client:
            told.append(client.get(f"{base}labkit/api/ending").json())

    open_page = threading.Thread(target=listen)
    open_page.start()
    (job,) = portal.jobs("RUNNING")
    assert asked.wait(60)  # and scancel takes longer than the way to the server
    portal.cluster.command("scancel", job)
    open_page.join(60)
    assert told == [{"why": "its job was cancelled"}]


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
    with held(cluster):
        thread = start(portal, ada, profile="stub", partition="main")
        wait_for(lambda: portal.jobs("PENDING"))
        portal.stop_server(ada)
        wait_for(lambda: not portal.jobs())
        thread.join()


def test_the_wait_is_told(portal: SlurmPortal, cluster: SlurmCluster, ada: str) -> None:
    with held(cluster):
        thread = start(portal, ada, profile="stub", partition="main")
        wait_for(lambda: portal.jobs("PENDING"))
        wait = progress(portal, ada, lambda event: event.get("wait"))[-1]["wait"]
        assert wait["position"] == 1
        assert wait["why"]
    thread.join()
    wait_for(lambda: portal.server(ada).get("ready"))


def test_a_server_that_dies_shows_its_logs_end(portal: SlurmPortal, ada: str) -> None:
    told = failure(portal, ada, profile="dies", partition="main")
    assert "it ended with an error" in told
    assert "the disk is on fire" in told


REFUSED = [
    ({"profile": "stub", "partition": "nowhere"}, "no such partition"),
    ({"profile": "huge", "partition": "main"}, "no node is large enough"),
    ({"profile": "stub", "partition": "tiny"}, "it gives a job at most 1 min"),
]


@pytest.mark.parametrize("way", ["REST", "link", "form"])
@pytest.mark.parametrize(("options", "words"), REFUSED, ids=["partition", "size", "time"])
def test_what_the_page_does_not_offer_no_request_gets(
    portal: SlurmPortal, ada: str, options: dict[str, str], words: str, way: str
) -> None:
    """Nothing is asked of SLURM for it."""
    if way == "REST":
        told = failure(portal, ada, **options)
    else:
        browser = portal.browser()
        browser.login(ada)
        page = browser.get(f"/hub/spawn/{ada}", params=options if way == "link" else None)
        if way == "form":
            data = {**options, "_xsrf": browser.xsrf}
            page = browser.post(f"/hub/spawn/{ada}", data=data)
        assert page.status_code == 400, page.text
        told = page.text
    assert words in told, told
    assert not portal.server(ada)
    assert not portal.jobs()


def test_what_slurm_itself_refuses_is_told_with_its_reason(
    portal: SlurmPortal, cluster: SlurmCluster, ada: str
) -> None:
    """The hub does not know yet that the partition was closed a moment ago."""
    portal.spawn(ada)  # it has looked at the cluster
    portal.stop_server(ada)
    cluster.command("scontrol", "update", "partition=main", "state=drain")
    try:
        told = failure(portal, ada, profile="stub", partition="main")
    finally:
        cluster.command("scontrol", "update", "partition=main", "state=up")
    assert "SLURM does not take the job" in told
    assert not portal.jobs()


def test_more_time_moves_the_end_that_a_server_is_told(portal: SlurmPortal, ada: str) -> None:
    portal.spawn(ada)
    ask = (
        "import json, os, urllib.request\n"
        "url = os.environ['JUPYTERHUB_API_URL'] + '/labhub/time-limit'\n"
        "token = 'token ' + os.environ['JUPYTERHUB_API_TOKEN']\n"
        "request = urllib.request.Request(url, headers={'Authorization': token})\n"
        "ends = json.load(urllib.request.urlopen(request))['ends']\n"
        "print(ends or 0, os.environ['LABHUB_ENDS_AT'])"
    )

    def ends() -> float:
        return float(portal.run(ada, ask).split()[0])

    wait_for(ends, what="SLURM's word")
    first, by_itself = (float(word) for word in portal.run(ada, ask).split())
    assert abs(first - by_itself) < 30
    labhub(portal, "extend", ada, "2h")
    wait_for(lambda: ends() == first + 7200, what="the later end")
    with portal.browser() as browser:
        browser.login(ada)
        home = browser.get("/hub/home").text
    then = datetime.fromtimestamp(first + 7200, UTC).isoformat(timespec="seconds")
    assert "Stops if unused" in home
    assert then not in home, "its limit is later than the end of its idle time"


def test_the_time_limit_ends_a_server_and_the_hub_notices(
    portal: SlurmPortal, cluster: SlurmCluster, ada: str
) -> None:
    portal.spawn(ada)
    (job,) = portal.jobs("RUNNING")
    end = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 2))
    cluster.command("scontrol", "update", f"jobid={job}", f"endtime={end}")
    wait_for(lambda: not portal.server(ada), 120, "that the hub notices")
    assert portal.hub_log().count("has ended: it reached its time limit") == 1
    assert "it reached its time limit (8 h)" in told_after(portal, ada)
    portal.restart_hub()
    assert "it reached its time limit (8 h)" in told_after(portal, ada)
    portal.spawn(ada)
    portal.stop_server(ada)
    assert "It ended" not in told_after(portal, ada), "its owner has stopped it since"


def told_after(portal: SlurmPortal, name: str) -> str:
    """What the home page and the page of a server that does not run say, which must agree."""
    with portal.browser() as browser:
        browser.login(name)
        home = browser.get("/hub/home").text
        page = browser.get(f"/hub/user/{name}/").text
    assert ("It ended on" in home) == ("It ended on" in page)
    return page


def test_a_cancelled_job_is_called_cancelled(
    portal: SlurmPortal, cluster: SlurmCluster, ada: str
) -> None:
    portal.spawn(ada)
    (job,) = portal.jobs("RUNNING")
    before = portal.hub_log().count("has ended")
    cluster.command("scancel", job)
    wait_for(lambda: not portal.server(ada), 60, "that the hub notices")
    assert f"its job was cancelled (job {job})" in told_after(portal, ada)
    assert portal.hub_log().count("has ended") == before + 1


@pytest.mark.parametrize("mode", ["requeue", "cancel"])
def test_a_preempted_server_is_called_so(
    portal: SlurmPortal, cluster: SlurmCluster, ada: str, mode: str
) -> None:
    """It is not queued again either: another server would come while nobody waits for it."""
    start(portal, ada, profile="stub", partition=f"spare-{mode}").join()
    wait_for(lambda: portal.server(ada).get("ready"))
    (job,) = portal.jobs("RUNNING")
    words = ["--partition=first", "--exclusive", "--output=/dev/null", "--wrap=true"]
    cluster.command("sbatch", "-D/tmp", *words, user=ada)
    wait_for(lambda: not portal.server(ada), 60, "that the hub notices")
    told = told_after(portal, ada)
    assert f"it had to give way to a job with higher priority (job {job})" in told, told
    assert not portal.jobs()


def test_a_server_over_its_memory_is_called_so(
    portal: SlurmPortal, cluster: SlurmCluster, ada: str
) -> None:
    portal.spawn(ada)
    (job,) = portal.jobs("RUNNING")
    hog = "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {0!r}])"
    portal.run(ada, hog.format("import time; full = b'x' * 800_000_000; time.sleep(600)"))
    wait_for(lambda: not portal.server(ada), 120, "that the hub notices")
    told = told_after(portal, ada)
    assert f"it used more memory than it has (512 MB) (job {job})" in told, told


def test_a_suspended_server_is_called_so(
    portal: SlurmPortal, cluster: SlurmCluster, ada: str
) -> None:
    portal.spawn(ada)
    (job,) = portal.jobs("RUNNING")
    with portal.browser() as browser:
        browser.login(ada)
        cluster.command("scontrol", "suspend", job)
        try:
            told = "The cluster has suspended it"
            wait_for(lambda: told in browser.get("/hub/home").text, 60, "the word")
            (row,) = json.loads(labhub(portal, "list", "--json").stdout)
        finally:
            cluster.command("scontrol", "resume", job)
    assert (row["user"], row["job"], row["state"]) == (ada, job, "suspended")
    (row,) = json.loads(labhub(portal, "list", "--json").stdout)
    assert row["state"] == "runs"
    assert row["node"].startswith("node")
    assert 7.5 * 3600 < row["left"] <= 8 * 3600
    assert ada in labhub(portal, "list").stdout


def test_administrators_see_the_jobs_and_nobody_else(
    portal: SlurmPortal, ada: str, bob: str
) -> None:
    portal.spawn(ada)
    (job,) = portal.jobs("RUNNING")
    with portal.browser() as browser:
        browser.login(ada)
        assert browser.get("/hub/jobs").status_code == 403
        assert "/hub/jobs" not in browser.get("/hub/home").text
    with portal.browser() as browser:
        browser.login(bob)
        page = browser.get("/hub/jobs")
        assert page.status_code == 200
        assert f">{job}</td>" in page.text
        assert '/hub/admin">Admin</a>' in page.text.partition("<main")[2]
        assert "/hub/jobs" in browser.get("/hub/home").text


def test_a_home_that_cannot_be_written_on_the_node_is_named(portal: SlurmPortal, ada: str) -> None:
    home = Path(f"/home/{ada}")
    owner = home.stat()
    os.chown(home, 0, 0)
    try:
        told = failure(portal, ada, profile="stub", partition="main")
    finally:
        os.chown(home, owner.st_uid, owner.st_gid)
    assert f"its owner's home ({home}) is missing there or cannot be written" in told


def test_a_failed_node_is_noticed_and_another_start_works(
    portal: SlurmPortal, cluster: SlurmCluster, ada: str
) -> None:
    portal.spawn(ada)
    node = cluster.command("squeue", "-h", "-t", "RUNNING", "-o", "%B").strip()
    cluster.kill_node(node)
    try:
        cluster.command("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
        wait_for(lambda: not portal.server(ada), 60, "that the hub notices")
        assert "It ended on" in told_after(portal, ada)
        assert f"the node {node} failed" in told_after(portal, ada)
        assert portal.hub_log().count(f"has ended: the node {node} failed") == 1
        portal.spawn(ada)
        assert portal.run(ada, "print(1)").strip() == "1"
    finally:
        cluster.start_node(node)


def test_a_node_is_tried_and_tells_what_works(
    portal: SlurmPortal, ada: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", portal.cluster.environment["SLURM_CONF"])
    settings = read(portal.state / "lab.yaml")
    report = try_node(settings, Paths(portal.state, portal.envs), "main")
    assert report.node.startswith("node")
    gate = next(p for p in report.problems if str(portal.gate_port) in p.text)
    assert "is not reached" in gate.text, "this portal has no gate"
    assert report.problems == (gate,)
    said = " ".join(report.seen)
    assert f":{portal.hub_port}/hub/api answers" in said
    assert "this host reaches node" in said
    nowhere = try_node(settings, Paths(portal.state, portal.envs), "gpu")
    assert "offers no partition gpu" in nowhere.problems[0].text


def test_a_start_that_does_not_reach_the_hub_says_so_soon(portal: SlurmPortal, ada: str) -> None:
    """As where a firewall is, or hub_host is wrong: nobody listens for the node there."""
    right = portal.lab["slurm"]["hub_host"]
    portal.lab["slurm"] |= {"hub_host": "127.0.0.9", "listen": right}
    portal.write_lab()
    portal.restart_hub()
    try:
        began = time.monotonic()
        told = failure(portal, ada, profile="stub", partition="main")
        assert time.monotonic() - began < 60, "30 s on a machine that is not loaded"
        assert f"does not reach the hub at http://127.0.0.9:{portal.hub_port}/hub/api" in told
        assert "Connection refused" in told
        assert "doctor --node" in told
        wait_for(lambda: not portal.jobs(), what="the end of its job")
    finally:
        del portal.lab["slurm"]["listen"]
        portal.lab["slurm"]["hub_host"] = right
        portal.write_lab()
        portal.restart_hub()
