"""A server's own network on a node: names and the hub are found in it, or it is not entered."""

from __future__ import annotations

import http.server
import inspect
import json
import pwd
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from hub.slurm.job import shim
from hub.slurm.job.network import resolver
from hub.slurm.script import program
from tests.conftest import needs_root
from tests.support.portal import REPOSITORY
from tests.support.slurm_portal import needs_slurm, own_address
from tests.support.tun import needs_namespaces, open_device

LOOPBACK_DNS = "127.0.0.153"
ANSWER = "192.0.2.53"
NAME = "import socket; print('name', socket.gethostbyname('data.lab.test'))"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("nameserver 10.0.0.2\n", None),
        ("nameserver 127.0.0.53\n", "nameserver 10.0.2.3\n"),
        (
            "search lab.test\nnameserver 127.0.0.1\nnameserver ::1\nnameserver 10.0.0.2\n",
            "search lab.test\nnameserver 10.0.2.3\nnameserver 10.0.0.2\n",
        ),
        ("options edns0\n", "options edns0\n\nnameserver 10.0.2.3\n"),
    ],
)
def test_resolvers_on_loopback_are_replaced(before: str, after: str | None) -> None:
    assert resolver(before) == after


class Hub(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer((own_address(), 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://{own_address()}:{server.server_address[1]}/hub/api"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def names() -> Iterator[None]:
    """A resolver on loopback, as systemd-resolved is one: every name is ANSWER."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((LOOPBACK_DNS, 53))

    def serve() -> None:
        while True:
            try:
                question, peer = server.recvfrom(512)
            except OSError:
                return
            if not question:
                return
            end = question.index(b"\0", 12) + 5
            asked = question[12:end]
            ipv4 = asked[-4:] == b"\0\1\0\1"
            counts = b"\0\1" + (b"\0\1" if ipv4 else b"\0\0") + b"\0\0\0\0"
            answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(ANSWER) if ipv4 else b""
            server.sendto(question[:2] + b"\x81\x80" + counts + asked + answer, peer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"", (LOOPBACK_DNS, 53))
    thread.join(10)
    server.close()


def node(
    hub: str,
    who: str,
    folder: Path,
    network: str,
    nameserver: str,
    code: str = NAME,
    launcher: str = program(),
    command: tuple[str, ...] = (),
    env: Mapping[str, str] = MappingProxyType({}),
) -> subprocess.CompletedProcess[str]:
    """Run a job's launcher as a person on a "node" whose /etc/resolv.conf names a server."""
    account = pwd.getpwnam(who)
    (folder / "resolv.conf").write_text(f"nameserver {nameserver}\noptions timeout:2 attempts:1\n")
    open_device(folder)
    told = {
        "ports": [25000, 29999],
        "network": network,
        "addresses": ["127.0.0.1"],
        "accounts": [0],
        "seconds": 60,
        "shim": inspect.getsource(shim),
    }
    mount = (
        'mount --bind "$0/resolv.conf" "$(readlink -f /etc/resolv.conf)" &&'
        ' mount --bind "$0/tun" /dev/net/tun && shift && exec "$@"'
    )
    return subprocess.run(
        [
            *("unshare", "--mount", "sh", "-c", mount, str(folder), "-"),
            *("setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}"),
            *("--clear-groups", "/usr/bin/python3", "-I", "-S", "-c", launcher),
            json.dumps(told),
            *(command or ("/usr/bin/python3", "-c", code)),
        ],
        env={
            "PATH": "/usr/bin:/bin",
            "JUPYTERHUB_SERVICE_URL": "http://127.0.0.1:0/user/x/",
            "JUPYTERHUB_API_URL": hub,
            "JUPYTERHUB_API_TOKEN": "t",
            "HOME": account.pw_dir,
            **env,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@needs_root
@needs_namespaces
@pytest.mark.usefixtures("names")
def test_names_are_found_where_the_nodes_resolver_is_on_loopback(
    hub: str, ada: str, tmp_path: Path
) -> None:
    done = node(hub, ada, tmp_path, "namespace", LOOPBACK_DNS)
    assert f"name {ANSWER}" in done.stdout, done.stderr
    assert "a network of its own" in done.stderr


@needs_root
@needs_namespaces
def test_a_network_without_the_hub_is_not_entered(ada: str, tmp_path: Path) -> None:
    """The hub is on the node's loopback, which no namespace reaches."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub = f"http://127.0.0.1:{server.server_address[1]}/hub/api"
    try:
        done = node(hub, ada, tmp_path, "auto", "192.0.2.1", "print('started')")
        assert "started" in done.stdout, done.stderr
        assert "the hub is not reached from it" in done.stderr
        refused = node(hub, ada, tmp_path, "namespace", "192.0.2.1", "print('started')")
        assert refused.returncode == 78
        assert "the hub is not reached from it" in refused.stderr
        assert "started" not in refused.stdout
    finally:
        server.shutdown()
        server.server_close()


@needs_root
@needs_namespaces
@pytest.mark.usefixtures("names")
def test_a_network_without_names_is_not_entered(hub: str, ada: str, tmp_path: Path) -> None:
    """Without a resolver of its own, as it once was."""
    blind = program().replace("        own_resolver()\n", "")
    assert blind != program()
    done = node(hub, ada, tmp_path, "auto", LOOPBACK_DNS, launcher=blind)
    assert "names are not found in it" in done.stderr
    assert f"name {ANSWER}" in done.stdout, "it goes on without"


CLUSTER = f"""
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
from labkit.testing import SlurmCluster
with SlurmCluster(nodes=2) as cluster:
    print("ran", cluster.command("srun", "-n2", "echo", "task").split())
    print(cluster.command("sbatch", "--wait", "--output=/dev/null", "--wrap", "srun true"))
"""


@needs_root
@needs_namespaces
@needs_slurm
def test_a_cluster_of_ones_own_runs_in_a_servers_network(
    hub: str, ada: str, tmp_path: Path
) -> None:
    """labkit.testing in a notebook, with the default network and all that a job leaves behind."""
    words = (sys.executable, "-c", CLUSTER)
    left = {"SLURM_NODELIST": "node7", "SLURM_JOB_ID": "7", "SLURM_MEM_PER_NODE": "4000"}
    done = node(hub, ada, tmp_path, "auto", own_address(), command=words, env=left)
    assert "a network of its own" in done.stderr
    assert "ran ['task', 'task']" in done.stdout, done.stderr
    assert "Submitted batch job" in done.stdout, done.stderr
