"""What user servers reach outside: the internet, and of the LAN what the lab file names.

The outside is a network namespace of the test's own, with public, private and metadata
addresses, behind a router as the real ones are.
"""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from hub.sandbox import network
from tests.conftest import needs_root
from tests.security.neighbours import reach, sandboxes_behind, served
from tests.support.portal import Portal, portal

pytestmark = needs_root

PUBLIC = "203.0.113.7"  # RFC 5737: an example, nobody's
ALLOWED, PRIVATE, CARRIER = "10.77.1.2", "192.168.77.2", "100.64.77.2"
METADATA = ("169.254.169.254", "168.63.129.16", "100.100.100.200", "192.0.0.192")
ROUTED = (PUBLIC, ALLOWED, PRIVATE, CARRIER, *METADATA)
NEIGHBOUR = "198.51.100.2"  # public, but on the host's own wire: that is the LAN, too
PORT = 8099


@pytest.fixture(scope="module")
def outside() -> Iterator[str]:
    """A host with all those addresses, next to this one."""
    tag = secrets.token_hex(3)
    namespace, link = f"labtest-{tag}", f"lt{tag}"
    commands = [
        f"netns add {namespace}",
        f"link add {link} type veth peer name eth0 netns {namespace}",
        f"addr add 198.51.100.1/24 dev {link}",
        f"link set {link} up",
        *(f"route add {address}/32 via {NEIGHBOUR} dev {link} onlink" for address in ROUTED),
    ]
    inside = [
        "link set lo up",
        "link set eth0 up",
        f"addr add {NEIGHBOUR}/24 dev eth0",
        *(f"addr add {address}/32 dev eth0" for address in ROUTED),
        "route add default via 198.51.100.1",
    ]
    with ExitStack() as stack:
        stack.callback(
            subprocess.run, ["ip", "netns", "del", namespace], check=False, capture_output=True
        )
        batch(["ip", "-batch", "-"], commands)
        batch(["ip", "-n", namespace, "-batch", "-"], inside)
        stack.enter_context(served("0.0.0.0", PORT, namespace=namespace))
        stack.enter_context(served("0.0.0.0", 53, namespace=namespace))
        yield namespace


def batch(command: list[str], lines: list[str]) -> None:
    subprocess.run(command, input="\n".join(lines) + "\n", text=True, check=True)


@pytest.fixture(scope="module")
def lab(outside: str, ada: str) -> Iterator[Portal]:
    with portal() as running:
        running.spawn(ada)
        yield running


def test_the_internet_is_reached(lab: Portal, ada: str) -> None:
    assert reach(lab, ada, PUBLIC, PORT) == "open"


@pytest.mark.parametrize("address", [ALLOWED, PRIVATE, CARRIER, NEIGHBOUR, *METADATA])
def test_the_lan_and_metadata_are_closed(lab: Portal, ada: str, address: str) -> None:
    assert reach(lab, ada, address, PORT) == "EHOSTUNREACH"
    assert reach(lab, ada, address, 53) == "EHOSTUNREACH"


def test_nobody_outside_reaches_a_server(lab: Portal, ada: str, outside: str) -> None:
    url = lab.run(ada, "import os; print(os.environ['JUPYTERHUB_SERVICE_URL'])")
    host = url.split("//")[1].split(":")[0]
    program = f"import socket; socket.create_connection(({host!r}, 8888), timeout=2)"
    done = subprocess.run(
        ["nsenter", f"--net=/run/netns/{outside}", "/usr/bin/python3", "-c", program],
        capture_output=True,
        text=True,
    )
    assert "Error" in done.stderr


def test_a_resolver_on_the_lan_answers_on_its_port_alone(
    lab: Portal, ada: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "resolvers_of_host", lambda: ([PRIVATE], None))
    rules = sandboxes_behind(lab).network
    assert rules.resolv_conf().startswith(f"nameserver {PRIVATE}\n")
    rules.ensure()
    try:
        assert reach(lab, ada, PRIVATE, 53) == "open"
        assert reach(lab, ada, PRIVATE, PORT) == "EHOSTUNREACH"
        assert reach(lab, ada, ALLOWED, 53) == "EHOSTUNREACH"
    finally:
        monkeypatch.undo()
        sandboxes_behind(lab).network.ensure()
    assert reach(lab, ada, PRIVATE, 53) == "EHOSTUNREACH"


def test_a_resolver_on_the_hosts_loopback_is_handed_on(
    lab: Portal, ada: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "resolvers_of_host", lambda: ([], "127.0.0.54"))
    rules = sandboxes_behind(lab).network
    gateway = rules.gateway
    assert rules.resolv_conf().startswith(f"nameserver {gateway}\n")
    with served("127.0.0.54", 53):
        rules.ensure()
        try:
            assert reach(lab, ada, gateway, 53) == "open"
        finally:
            monkeypatch.undo()
            sandboxes_behind(lab).network.ensure()
        assert reach(lab, ada, gateway, 53) == "EHOSTUNREACH"


def test_connections_of_one_do_not_use_up_the_hosts_table(lab: Portal, ada: str, bob: str) -> None:
    lab.spawn(bob)
    flood = (
        "import socket\n"
        "sent = refused = 0\n"
        "for port in range(1, 6000):\n"
        "    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        f"    s.connect(({PUBLIC!r}, port))\n"
        "    try: sent += bool(s.send(b'x') and s.send(b'x'))\n"
        "    except OSError: refused += 1\n"
        "    s.close()\n"
        "print(sent, refused)"
    )
    lab.run(bob, flood)
    assert reach(lab, bob, PUBLIC, PORT) == "EHOSTUNREACH"
    assert reach(lab, ada, PUBLIC, PORT) == "open"
    lab.stop_server(bob)


def test_the_lab_file_opens_a_network_also_to_servers_that_run(lab: Portal, ada: str) -> None:
    lab.lab["local"]["allow_networks"] = ["10.77.1.0/24"]
    lab.write_lab()
    lab.restart_hub()
    assert reach(lab, ada, ALLOWED, PORT) == "open"
    assert reach(lab, ada, PRIVATE, PORT) == "EHOSTUNREACH"
    assert reach(lab, ada, METADATA[0], PORT) == "EHOSTUNREACH"


def test_rules_that_an_administrator_flushed_come_back(lab: Portal, ada: str) -> None:
    sandboxes = sandboxes_behind(lab)
    sandboxes.network.remove()
    assert not sandboxes.network.in_force()
    lab.stop_server(ada)
    lab.spawn(ada)
    assert sandboxes.network.in_force()
    assert reach(lab, ada, PRIVATE, PORT) == "EHOSTUNREACH"
