"""One user attacks another on the same machine, with two real accounts and a real hub."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from labkit.base.ports import free_port
from tests.conftest import needs_root
from tests.security.neighbours import REACH, listen, reach, sandboxes_behind, served
from tests.support.portal import REPOSITORY, Portal

pytestmark = needs_root
CLOSED = {"EHOSTUNREACH", "ECONNREFUSED"}  # and never a time-out: programs should not hang


@pytest.fixture(scope="module", autouse=True)
def servers(portal: Portal, ada: str, bob: str) -> Iterator[None]:
    portal.spawn(ada)
    portal.spawn(bob)
    yield


@pytest.fixture(scope="module")
def ada_address(portal: Portal, ada: str) -> str:
    url = portal.run(ada, "import os; print(os.environ['JUPYTERHUB_SERVICE_URL'])")
    return str(httpx.URL(url.strip()).host)


@pytest.fixture(scope="module")
def gateway(portal: Portal) -> str:
    return sandboxes_behind(portal).network.gateway


# -- the network --------------------------------------------------------------------------


def test_loopback_is_each_ones_own(portal: Portal, ada: str, bob: str) -> None:
    listen(portal, ada, "127.0.0.1", 5005)
    assert reach(portal, ada, "127.0.0.1", 5005) == "open"
    assert reach(portal, bob, "127.0.0.1", 5005) == "ECONNREFUSED"
    listen(portal, bob, "127.0.0.1", 5005)  # the same port, at the same time
    assert reach(portal, bob, "localhost", 5005) == "open"


def test_a_neighbours_server_and_ports_are_closed(
    portal: Portal, ada: str, bob: str, ada_address: str
) -> None:
    listen(portal, ada, "0.0.0.0", 5006)
    assert reach(portal, ada, ada_address, 5006) == "open"
    assert reach(portal, bob, ada_address, 5006) in CLOSED
    assert reach(portal, bob, ada_address, 8888) in CLOSED


def test_only_hub_and_proxy_reach_a_server_from_the_host(
    portal: Portal, bob: str, ada_address: str
) -> None:
    probe = [sys.executable, "-I", "-S", "-c", REACH.format(host=ada_address, port=8888)]
    account = pwd.getpwnam(bob)
    as_bob = ["setpriv", "--reuid", str(account.pw_uid), "--clear-groups", "/usr/bin/python3"]
    root = subprocess.run(probe, capture_output=True, text=True, check=True)
    other = subprocess.run([*as_bob, *probe[1:]], capture_output=True, text=True, check=True)
    assert root.stdout.strip() == "open"
    assert other.stdout.strip() in CLOSED


def test_the_hubs_api_answers_at_the_own_gateway(portal: Portal, bob: str, gateway: str) -> None:
    said = portal.run(
        bob,
        "import os, urllib.request as u\n"
        "print(u.urlopen(os.environ['JUPYTERHUB_API_URL'], timeout=5).read())",
    )
    assert "version" in said
    assert reach(portal, bob, gateway, 8081) == "open"


def test_the_hubs_api_answers_nowhere_else(
    portal: Portal, bob: str, gateway: str, ada_address: str
) -> None:
    own = portal.run(bob, "import os; print(os.environ['JUPYTERHUB_SERVICE_URL'])").strip()
    for host in (ada_address, str(httpx.URL(own).host), *host_addresses()):
        for port in (8081, portal.hub_port):
            assert reach(portal, bob, host, port) in CLOSED, (host, port)
    assert reach(portal, bob, gateway, portal.hub_port) in CLOSED


def test_the_hosts_services_are_closed(portal: Portal, bob: str, gateway: str) -> None:
    port = free_port()
    with served("0.0.0.0", port):
        for host in (gateway, *host_addresses()):
            with socket.create_connection((host, port), timeout=3):
                pass  # it is there for the host itself
            assert reach(portal, bob, host, port) in CLOSED, host
    for port in (portal.port, portal.api_port):
        assert reach(portal, bob, gateway, port) in CLOSED
        assert reach(portal, bob, "127.0.0.1", port) == "ECONNREFUSED"


def test_there_is_no_ipv6_to_go_around_by(portal: Portal, bob: str) -> None:
    said = portal.run(bob, "print(open('/proc/net/if_inet6').read())").split()
    assert set(said[5::6]) <= {"lo"}
    for host in ("fd00:ec2::254", "fe80::1%eth0", "2001:db8::1"):
        assert reach(portal, bob, host, 80) in {"ENETUNREACH", "EADDRNOTAVAIL"}


def test_nobody_borrows_an_address(portal: Portal, bob: str, ada_address: str) -> None:
    said = portal.run(
        bob,
        "import socket\n"
        "s = socket.socket()\n"
        f"try:\n    s.bind(({ada_address!r}, 0)); print('bound')\n"
        "except OSError as e: print('refused')\n"
        "for kind in (socket.AF_PACKET, socket.AF_INET):\n"
        "    try:\n        socket.socket(kind, socket.SOCK_RAW, 1); print('raw')\n"
        "    except PermissionError: print('refused')\n",
    )
    assert said.split() == ["refused"] * 3


def test_abstract_sockets_are_each_ones_own(portal: Portal, ada: str, bob: str) -> None:
    portal.run(
        ada,
        "import socket, builtins\n"
        "builtins.kept = socket.socket(socket.AF_UNIX)\n"
        "builtins.kept.bind('\\0labhub-test'); builtins.kept.listen()",
    )
    connect = (
        "import socket\n"
        "try:\n    socket.socket(socket.AF_UNIX).connect('\\0labhub-test'); print('open')\n"
        "except OSError as e: print(type(e).__name__)"
    )
    assert portal.run(ada, connect).strip() == "open"
    assert portal.run(bob, connect).strip() == "ConnectionRefusedError"


# -- files, memory, processes -------------------------------------------------------------


@pytest.mark.parametrize("folder", ["/tmp", "/var/tmp", "/dev/shm"])
def test_temporary_files_are_each_ones_own(portal: Portal, ada: str, bob: str, folder: str) -> None:
    path = f"{folder}/labhub-test-secret"
    portal.run(ada, f"open({path!r}, 'w').write('x')")
    portal.run(ada, f"import os; os.chmod({path!r}, 0o666)")
    assert portal.run(bob, f"import os; print(os.path.exists({path!r}))").strip() == "False"
    assert not Path(path).exists()


def test_temporary_files_are_on_disk_and_shared_memory_is_sized(portal: Portal, bob: str) -> None:
    mounts = portal.run(bob, "print(open('/proc/mounts').read())").splitlines()
    kinds = {line.split()[1]: line.split()[2:4] for line in mounts if line}
    assert kinds["/tmp"][0] != "tmpfs"
    assert f"size={512 * 1024 // 4}k" in kinds["/dev/shm"][1]


def test_shared_memory_segments_are_each_ones_own(portal: Portal, ada: str, bob: str) -> None:
    make = "import ctypes; print(ctypes.CDLL(None).shmget(4711, 4096, {}))"
    assert int(portal.run(ada, make.format(0o1666))) >= 0
    assert int(portal.run(bob, make.format(0))) == -1


def test_processes_of_others_are_not_seen(portal: Portal, ada: str, bob: str) -> None:
    said = portal.run(
        bob,
        "import os, glob\n"
        "print(sorted({os.stat(p).st_uid for p in glob.glob('/proc/[0-9]*')}))\n"
        "print(len(glob.glob('/proc/[0-9]*')))",
    ).split("\n")
    assert said[0] == str([0, pwd.getpwnam(bob).pw_uid])  # bwrap's own first process is root's
    assert int(said[1]) < 6
    look = "try:\n    open('/proc/1/environ').read(); print('read')\nexcept OSError: print('no')"
    assert portal.run(bob, look).strip() == "no"


def test_an_open_home_is_not_shown_and_new_files_are_private(
    portal: Portal, ada: str, bob: str
) -> None:
    home = Path(pwd.getpwnam(ada).pw_dir)
    home.chmod(0o755)
    portal.stop_server(ada)
    portal.spawn(ada)
    assert home.stat().st_mode & 0o777 == 0o755  # it was there before the portal
    assert portal.run(bob, f"import os; print(os.path.exists({str(home)!r}))").strip() == "False"
    assert portal.run(bob, "import os; print(os.listdir('/home'))").strip() == f"['{bob}']"
    portal.run(bob, "open('new', 'w').close()")
    new = Path(pwd.getpwnam(bob).pw_dir) / "new"
    assert new.stat().st_mode & 0o777 == 0o600
    assert new.owner() == bob


def test_the_portals_own_files_and_sockets_are_not_there(portal: Portal, bob: str) -> None:
    places = [str(portal.state), str(portal.state / "secrets"), "/root", "/run/netns", "/mnt"]
    said = portal.run(bob, f"import os; print([os.path.exists(p) for p in {places!r}])")
    assert said.strip() == str([False] * len(places))
    assert portal.run(bob, "import os; print(os.listdir('/run'))").strip() == "[]"
    opened = portal.run(
        bob,
        "import os\n"
        "for fd in os.listdir('/proc/self/fd'):\n"
        "    try: print(os.readlink('/proc/self/fd/' + fd))\n"
        "    except OSError: pass",
    )
    assert not [line for line in opened.splitlines() if "memfd" in line or "labhub" in line]


def test_the_system_cannot_be_written(portal: Portal, bob: str) -> None:
    said = portal.run(
        bob,
        "import os\n"
        "for p in ('/usr', '/etc', '/opt', '/run', '/', '/sys/fs/cgroup/pids', '/home', '/dev',\n"
        "          os.environ['LABHUB_ENVS']):\n"
        "    try:\n        open(p + '/x', 'w'); print(p)\n    except OSError: pass",
    )
    assert said == ""


def test_no_way_to_more_rights(portal: Portal, bob: str) -> None:
    status = portal.run(bob, "print(open('/proc/self/status').read())")
    fields = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
    assert fields["NoNewPrivs"].strip() == "1"
    assert {int(fields[name], 16) for name in fields if name.startswith("Cap")} == {0}
    assert set(fields["Uid"].split()) == {str(pwd.getpwnam(bob).pw_uid)}
    said = portal.run(
        bob,
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "print(libc.mount(b'none', b'/tmp', b'tmpfs', 0, None), libc.umount2(b'/run', 2))\n"
        "for call in (lambda: os.setuid(0), lambda: os.kill(1, 9), lambda: os.mknod('d', 24960)):\n"
        "    try:\n        call(); print('done')\n    except OSError: print('no')",
    )
    assert said.split() == ["-1", "-1", "no", "no", "no"]


def test_the_secrets_of_a_server_are_in_no_command_line(portal: Portal, ada: str) -> None:
    token = portal.run(ada, "import os; print(os.environ['JUPYTERHUB_API_TOKEN'])").strip()
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert len(token) > 20
    assert not [line for line in lines if token.encode() in line]
    assert token not in portal.hub_log()


def test_options_choose_nothing_of_the_walls(portal: Portal, bob: str) -> None:
    portal.stop_server(bob)
    try:
        for options in (
            {"net": "none"},
            {"box": False},
            {"profile": "stub", "subnet": "0.0.0.0/0"},
        ):
            answer = portal.api("POST", f"/users/{bob}/server", json=options)
            assert answer.status_code == 400, options
    finally:
        portal.spawn(bob)


def host_addresses() -> list[str]:
    """Return the host's addresses on its real interfaces."""
    done = subprocess.run(
        ["ip", "-o", "-4", "addr", "show", "scope", "global"],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.split() for line in done.stdout.splitlines()]
    found = [row[3].partition("/")[0] for row in rows if not row[1].startswith(("lh", "lt"))]
    assert found or os.environ.get("CI"), "a host without any address"
    return found


def test_the_repository_is_not_there(portal: Portal, bob: str) -> None:
    """The tutorials come with the environment: nobody has to read the portal's own code."""
    code = f"import os; print(os.path.exists({str(REPOSITORY / 'hub')!r}))"
    assert portal.run(bob, code).strip() == "False"
