"""Attacks on the slurm target: the hub's API handler, options, other people's ports and logs."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from hub.slurm.commands import Account
from hub.slurm.owner import read_tail
from labkit.slurm.commands import SlurmUnavailableError
from labkit.testing import SlurmCluster
from tests.conftest import needs_root
from tests.security.neighbours import reach
from tests.support.portal import Browser
from tests.support.slurm_portal import SlurmPortal, held, needs_slurm, own_address, wait_for
from tests.support.tun import needs_namespaces, nodes_with_tun

pytestmark = [needs_root, needs_slurm]
SERVE = (
    "import http.server as h, threading\n"
    "s = h.ThreadingHTTPServer(('127.0.0.1', 0), h.BaseHTTPRequestHandler)\n"
    "threading.Thread(target=s.serve_forever, daemon=True).start()\n"
    "print(s.server_address[1])"
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    with nodes_with_tun(tmp_path_factory.mktemp("tun")):
        made = SlurmCluster(nodes=1, cpus=32)
    with made as running:
        yield running


@pytest.fixture(scope="module")
def portal(cluster: SlurmCluster, ada: str, bob: str) -> Iterator[SlurmPortal]:
    """Both people's servers on one node, without namespaces."""
    with SlurmPortal(cluster, {"network": "shared"}) as running:
        running.spawn(ada)
        running.spawn(bob)
        yield running


@pytest.fixture(scope="module")
def walled(cluster: SlurmCluster, ada: str, bob: str) -> Iterator[SlurmPortal]:
    """Both people's servers on one node, each in a network namespace."""
    with SlurmPortal(cluster, {"network": "namespace"}) as running:
        running.spawn(ada)
        running.spawn(bob)
        yield running


INHERITED = """
import ctypes, json, os, pathlib, platform
number = {"x86_64": 250, "aarch64": 219}[platform.machine()]
status = dict(
    line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines()
)
print(json.dumps({
    "keyring": ctypes.CDLL(None).syscall(number, 0, -3, 0),
    "umask": os.umask(0o077),
    "blocked": int(status["SigBlk"], 16),
    "oom": int(pathlib.Path("/proc/self/oom_score_adj").read_text()),
}))
"""


def test_jobs_of_one_node_share_no_keyring(portal: SlurmPortal, ada: str, bob: str) -> None:
    """Both are children of one slurmd, whose session keyring each would otherwise have."""
    here = ctypes.CDLL(None).syscall({"x86_64": 250, "aarch64": 219}[platform.machine()], 0, -3, 0)
    found = [json.loads(portal.run(who, INHERITED)) for who in (ada, bob)]
    assert min(one["keyring"] for one in found) > 0
    assert len({here, *(one["keyring"] for one in found)}) == 3
    for one in found:
        assert (one["umask"], one["blocked"]) == (0o077, 0)
        assert one["oom"] >= 0


def token_of(portal: SlurmPortal, name: str, server: str = "") -> str:
    return portal.run(name, "import os; print(os.environ['JUPYTERHUB_API_TOKEN'])", server).strip()


def knock(portal: SlurmPortal, token: str, body: Any, **more: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    url = f"http://127.0.0.1:{portal.hub_port}/hub/api/batchspawner"
    headers = {"Authorization": f"token {token}"} if token else {}
    return httpx.post(url, content=content, headers={**headers, **more.pop("headers", {})})


# -- /hub/api/batchspawner --------------------------------------------------------------------


def test_a_running_server_cannot_name_a_port_again(portal: SlurmPortal, ada: str) -> None:
    assert knock(portal, token_of(portal, ada), {"port": 25555}).status_code == 409
    assert portal.run(ada, "print('same place')").strip() == "same place"


@pytest.mark.parametrize(
    "body",
    [
        {"port": 25555, "cmd": ["/bin/sh"]},
        {"cmd": ["/bin/sh"]},
        {"batch_query_cmd": "touch /tmp/labhub-pwned"},
        {"exec_prefix": "touch /tmp/labhub-pwned;"},
        {"ip": "192.0.2.77", "port": 25555},
        {"port": "25555"},
        {"port": True},
        {"port": 25555.0},
        {"port": [25555]},
        {"port": None},
        {"port": {"$gt": 0}},
        {"port": 22},
        {"port": -1},
        {"port": 70000},
        {"port": 31000},
        {},
        [],
        None,
        "port",
        b"",
        b"\xff\xfe",
        b'{"port": 25555' + b" " * 50_000 + b"}",
    ],
    ids=str,
)
def test_the_handler_takes_a_port_and_nothing_else(
    portal: SlurmPortal, cluster: SlurmCluster, bob: str, body: Any
) -> None:
    """While the server is being started, when a port would be taken."""
    before = portal.hub_log().count("Traceback")
    answer = knock(portal, token_of(portal, bob), body)
    assert answer.status_code in (400, 413), answer.text
    assert not Path("/tmp/labhub-pwned").exists()
    assert portal.hub_log().count("Traceback") == before


def test_no_token_is_taken_but_the_starting_servers_own(
    portal: SlurmPortal, ada: str, bob: str
) -> None:
    portal.api("POST", f"/users/{ada}")
    own = portal.api("POST", f"/users/{ada}/tokens", json={}).json()["token"]
    for token in ("", "x" * 32, own, portal.admin_token):
        assert knock(portal, token, {"port": 25555}).status_code == 403
    browser = Browser(portal)
    browser.login(ada)
    answer = browser.hub("POST", "/batchspawner", json={"port": 25555})
    assert answer.status_code == 403


def test_one_server_cannot_name_anothers_port(
    portal: SlurmPortal, cluster: SlurmCluster, ada: str, bob: str
) -> None:
    """Bob's token, and that of Ada's other server, while Ada's second one is waiting."""
    path = f"/users/{ada}/servers/second"
    with held(cluster):
        assert portal.api("POST", path, json={"profile": "stub"}).is_success
        wait_for(lambda: portal.jobs("PENDING"))
        for name in (ada, bob):
            assert knock(portal, token_of(portal, name), {"port": 25777}).status_code == 409
    wait_for(lambda: portal.server(ada, "second").get("ready"), 60)
    assert portal.run(ada, "print('own place')", "second").strip() == "own place"
    portal.stop_server(ada, "second")


def test_a_server_is_told_of_its_own_time_limit_alone(
    portal: SlurmPortal, cluster: SlurmCluster, ada: str, bob: str
) -> None:
    url = f"http://127.0.0.1:{portal.hub_port}/hub/api/labhub/time-limit"

    def ask(token: str) -> httpx.Response:
        return httpx.get(url, headers={"Authorization": f"token {token}"} if token else {})

    wait_for(lambda: ask(token_of(portal, bob)).json()["ends"], what="SLURM's word")
    job = portal.job_of(bob)
    shown = cluster.command("squeue", "-h", "-j", job, "-o", "%e")
    then = time.mktime(time.strptime(shown.strip(), "%Y-%m-%dT%H:%M:%S"))
    assert ask(token_of(portal, bob)).json() == {"ends": then}
    own = portal.api("POST", f"/users/{ada}/tokens", json={}).json()["token"]
    for token in ("", "x" * 32, own, portal.admin_token):
        assert ask(token).status_code == 403


def test_stock_batchspawners_handler_is_nowhere() -> None:
    code = (
        "from hub.slurm import api_handlers; api_handlers.install()\n"
        "from jupyterhub.apihandlers import default_handlers\n"
        "print([h.__module__ for p, h in default_handlers if 'batchspawner' in p])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.stdout.strip() == "['hub.slurm.api_handlers']"


def test_the_hub_listens_for_the_nodes_on_one_address_and_for_the_portal_on_loopback(
    portal: SlurmPortal,
) -> None:
    hub = psutil.Process(portal.processes["hub"].pid)
    heard = {c.laddr for c in hub.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    assert {(place.ip, place.port) for place in heard} == {
        (own_address(), portal.hub_port),
        ("127.0.0.1", portal.hub_port),
    }


# -- options ----------------------------------------------------------------------------------

HOSTILE = [
    {"profile": "stub", "partition": "main --uid=0"},
    {"profile": "stub", "partition": "main\n#SBATCH --uid=0"},
    {"profile": "stub", "partition": "$(touch /tmp/labhub-pwned)"},
    {"profile": "stub", "partition": "other"},
    {"profile": "stub", "req_options": "--uid=0"},
    {"profile": "stub", "batch_script": "#!/bin/sh\nid"},
    {"profile": "stub", "cmd": "id"},
    {"profile": "stub; id"},
]


@pytest.mark.parametrize("options", HOSTILE, ids=str)
@pytest.mark.parametrize("way", ["form", "query", "REST"])
def test_hostile_options_reach_nothing(
    portal: SlurmPortal, bob: str, options: dict[str, str], way: str
) -> None:
    before = sorted(portal.jobs())
    if way == "REST":
        path = f"/users/{bob}/servers/evil"
        answer = portal.api("POST", path, json=options)
    else:
        browser = Browser(portal)
        browser.login(bob)
        url = f"/hub/spawn/{bob}/evil"
        if way == "form":
            browser.get(url)
            answer = browser.post(url, data={**options, "_xsrf": browser.xsrf})
        else:
            answer = browser.get(url, params=options)
    assert answer.status_code in (400, 403), answer.text[:500]
    assert sorted(portal.jobs()) == before
    assert not Path("/tmp/labhub-pwned").exists()


# -- ports on the node ------------------------------------------------------------------------


def ports(portal: SlurmPortal, name: str) -> tuple[int, int]:
    """A server's own port, and the one that the hub uses."""
    url = portal.run(name, "import os; print(os.environ['JUPYTERHUB_SERVICE_URL'])")
    routes = portal.api("GET", "/proxy").json()
    route = next(r for r in routes.values() if r["data"].get("user") == name)
    return httpx.URL(url.strip()).port or 0, httpx.URL(route["target"]).port or 0


ASK = """
import socket
try:
    with socket.create_connection(({host!r}, {port}), timeout=5) as c:
        c.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        print(c.recv(1000))
except OSError as error:
    print("closed")
"""


@pytest.mark.parametrize("host", ["127.0.0.1", "own"])
def test_bob_gets_no_answer_at_adas_door_on_the_node(
    portal: SlurmPortal, ada: str, bob: str, host: str
) -> None:
    """Also where he is on the hub's own machine, whose addresses may connect."""
    _, outer = ports(portal, ada)
    place = own_address() if host == "own" else host
    assert portal.run(bob, ASK.format(host=place, port=outer)).strip() in ("b''", "closed")
    assert portal.run(ada, "print('open for the hub')").strip() == "open for the hub"


@needs_namespaces
def test_in_namespaces_adas_ports_are_adas_alone(walled: SlurmPortal, ada: str, bob: str) -> None:
    app = int(walled.run(ada, SERVE))
    inner, outer = ports(walled, ada)
    assert reach(walled, ada, "127.0.0.1", app) == "open"
    for host in ("127.0.0.1", own_address(), "10.0.2.2", "10.0.2.100"):
        for port in {app, inner} - {outer}:
            assert reach(walled, bob, host, port) != "open", (host, port)


@needs_namespaces
def test_in_a_namespace_the_hub_and_the_world_are_reached(walled: SlurmPortal, ada: str) -> None:
    assert reach(walled, ada, own_address(), walled.hub_port) == "open"
    assert reach(walled, ada, "127.0.0.1", walled.hub_port) != "open"
    user = walled.run(ada, "import getpass; print(getpass.getuser())")
    assert user.strip() == ada


@needs_namespaces
def test_a_namespace_leaves_nothing_behind(
    walled: SlurmPortal, cluster: SlurmCluster, ada: str
) -> None:
    walled.spawn(ada, server="second")
    found = walled.run(ada, "import os; print(os.readlink('/proc/self/ns/net'))", "second").strip()
    walled.stop_server(ada, "second")
    wait_for(lambda: found not in _namespaces(), 20, "the end of all in the namespace")


CALL = """
import json, subprocess
done = subprocess.run({words!r}, input={stdin!r}, capture_output=True, text=True, timeout=110)
print(json.dumps([done.returncode, done.stdout, done.stderr]))
"""


def call(portal: SlurmPortal, name: str, *words: str, stdin: str = "") -> tuple[int, str, str]:
    """Run a command in a server; returns its status, output and errors."""
    status, out, errors = json.loads(portal.run(name, CALL.format(words=words, stdin=stdin)))
    return status, out, errors


@needs_namespaces
def test_srun_and_salloc_work_in_a_servers_own_network(walled: SlurmPortal, ada: str) -> None:
    """Nodes connect to them: they run outside of it, and nobody notices."""
    assert walled.run(ada, "import os; print(os.environ['LABHUB_NETWORK'])").strip() == "own"
    status, out, errors = call(walled, ada, "srun", "-n2", "sh", "-c", "id -un; echo no >&2")
    assert (status, out, errors) == (0, f"{ada}\n" * 2, "no\n" * 2)
    assert call(walled, ada, "srun", "cat", stdin="typed")[:2] == (0, "typed")
    assert call(walled, ada, "srun", "sh", "-c", "exit 7")[0] == 7
    status, out, errors = call(walled, ada, "salloc", "srun", "echo", "granted")
    assert (status, out) == (0, "granted\n"), errors
    status, out, errors = call(walled, ada, "srun", "--partition=nowhere", "true")
    assert status == 1
    assert "invalid partition" in errors


TYPED = """
import os, pty, select, time
pid, terminal = pty.fork()
if pid == 0:
    os.execvp("sh", ["sh", "-c", "stty rows 33 cols 99; salloc bash --norc; echo left-$((40 + 2))"])
shown, end = "", time.monotonic() + 50
dialogue = [
    ("$ ", b"tty && echo size $(stty size) && sleep 600\\n"),
    ("size 33 99", b"\\x03"),
    ("$ ", b"exit 0\\n"),
    ("left-42", b""),
]
seen = 0
for waited, typed in dialogue:
    while waited not in shown[seen:] and time.monotonic() < end:
        if select.select([terminal], [], [], 1)[0]:
            shown += os.read(terminal, 4096).decode()
    seen = len(shown)
    os.write(terminal, typed)
print(shown)
"""


@needs_namespaces
def test_salloc_gives_a_shell_with_a_terminal_of_its_own(walled: SlurmPortal, ada: str) -> None:
    """Ctrl-C ends what runs in that shell, and not the shell."""
    shown = walled.run(ada, TYPED)
    assert "left-42" in shown, shown
    assert "/dev/pts/" in shown
    assert "no job control" not in shown


HELD = """
import signal, subprocess
words = ["srun", "--job-name=held", "sleep", "600"]
held = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
"""


@needs_namespaces
@pytest.mark.parametrize("number", ["SIGTERM", "SIGKILL"])
def test_a_signal_to_srun_ends_its_job(
    walled: SlurmPortal, cluster: SlurmCluster, ada: str, number: str
) -> None:
    pid = walled.run(ada, f"{HELD}\nprint(held.pid)").strip()

    def state() -> str:
        return cluster.command("squeue", "-h", "-n", "held", "-o", "%T")

    wait_for(lambda: state() == "RUNNING", what="the start")
    walled.run(ada, f"import os, signal; os.kill({pid}, signal.{number})")
    wait_for(lambda: not state(), what="the end")


@needs_namespaces
def test_what_runs_srun_outside_obeys_its_owner_alone_and_ends_with_the_server(
    walled: SlurmPortal, ada: str, bob: str
) -> None:
    walled.spawn(ada, server="second")
    shim = walled.run(ada, "print(open('/usr/bin/srun').read())", "second")
    place = next(word for word in shlex.split(shim) if word.endswith("/broker"))
    assert Path(place).is_socket()
    connect = f"import socket; socket.socket(socket.AF_UNIX).connect({place!r})"
    walled.run(ada, connect)
    with pytest.raises(RuntimeError, match="Permission denied"):
        walled.run(bob, connect)
    other = f"""
import json, socket
broker = socket.socket(socket.AF_UNIX)
broker.connect({place!r})
body = json.dumps(
    {{"argv": ["sh", "-c", "echo ran"], "env": {{}}, "folder": "/", "umask": 0}}
).encode()
socket.send_fds(broker, [b"%010d" % len(body)], [0, 1, 2])
broker.sendall(body)
print(broker.recv(100))
"""
    assert walled.run(ada, other).strip() == "b''", "only SLURM's commands are run"
    walled.stop_server(ada, "second")
    wait_for(lambda: not Path(place).parent.exists(), what="the end of what ran srun")


def _namespaces() -> set[str]:
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found.add(str((process / "ns" / "net").readlink()))
        except OSError:
            continue
    return found


# -- files ------------------------------------------------------------------------------------


def test_the_hub_reads_a_log_as_its_owner_may(portal: SlurmPortal, bob: str) -> None:
    """Bob puts a link in the log's place: root's own file must not be shown."""
    secret = portal.state / "secrets" / "cookie_secret"
    log = f"/home/{bob}/.labhub-server-third.log"
    portal.run(bob, f"import os\nos.symlink({str(secret)!r}, {log!r})")
    answer = portal.api("POST", f"/users/{bob}/servers/third", json={"profile": "dies"})
    wait_for(lambda: not portal.server(bob, "third"), 60)
    value = secret.read_text().strip()
    assert len(value) == 64, "root can read it, so the hub could have"
    assert value not in answer.text
    assert value not in portal.hub_log()


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
async def test_what_is_no_log_holds_nobody_up(ada: str, kind: str) -> None:
    path = Path(f"/home/{ada}/.labhub-server-{kind}.log")
    make: dict[str, Callable[[], object]] = {
        "link": lambda: path.symlink_to("/etc/shadow"),
        "fifo": lambda: os.mkfifo(path, 0o666),
        "folder": path.mkdir,
    }
    make[kind]()
    with pytest.raises(SlurmUnavailableError):
        await asyncio.wait_for(read_tail(Account.of(ada), str(path)), 120)


def test_a_jobs_name_cannot_forge_a_row(
    portal: SlurmPortal, cluster: SlurmCluster, ada: str, bob: str
) -> None:
    """Bob's job is called like a row that says that Ada's server has ended."""
    job = portal.job_of(ada)
    row = f"x\n{job}|COMPLETED|None|main|{ada}|1|1|1|1|evil"
    words = [
        "sbatch",
        "--parsable",
        f"--job-name={row}",
        f"--comment={row}",
        "-D/tmp",
        "-o/dev/null",
    ]
    forged = cluster.command(*words, "--wrap=sleep 60", user=bob).strip()
    try:
        text = portal.hub_log()
        wait_for(lambda: cluster.command("squeue", "-h", "-j", forged, "-o", "%T") == "RUNNING")
        portal.restart_hub()  # which asks SLURM before it believes anything
        wait_for(lambda: portal.server(ada).get("ready"), 60)
        assert portal.run(ada, "print('not moved')").strip() == "not moved"
        assert "printed an unknown line" not in portal.hub_log()[len(text) :]
    finally:
        cluster.command("scancel", forged)
