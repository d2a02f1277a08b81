"""What is made for a server goes with it, however it ends; what runs outlives the hub."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from hub.sandbox.instance import sandbox_key
from hub.sandbox.sandboxes import Sandboxes
from tests.conftest import needs_root
from tests.security.neighbours import reach, sandboxes_behind, traces, wait_for
from tests.support.portal import Portal

pytestmark = needs_root
STUBBORN = """
import subprocess, sys
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
null = subprocess.DEVNULL
subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdin=null, stdout=null,
                 stderr=null)
"""


@pytest.fixture
def sandboxes(portal: Portal) -> Sandboxes:
    return sandboxes_behind(portal)


@pytest.fixture
def sandbox(portal: Portal, ada: str, sandboxes: Sandboxes) -> Iterator[str]:
    """A running server of ada's."""
    portal.spawn(ada)
    key = sandbox_key(pwd.getpwnam(ada).pw_uid, "")
    assert len(traces(sandboxes, key)) >= 6  # else nothing below would mean anything
    yield key
    if "" in portal.api("GET", f"/users/{ada}").json()["servers"]:
        portal.stop_server(ada)


def outer_process(sandboxes: Sandboxes, key: str, name: str) -> int:
    """Return the process of a sandbox with this name that is root's and outermost."""
    pids = sandboxes.groups.pids(key)
    return min(pid for pid in pids if Path(f"/proc/{pid}/comm").read_text().strip() == name)


def gone(portal: Portal, who: str) -> bool:
    return "" not in portal.api("GET", f"/users/{who}").json()["servers"]


def test_after_a_stop(portal: Portal, ada: str, sandboxes: Sandboxes, sandbox: str) -> None:
    # What ignores SIGTERM, has a session of its own and closed its streams goes all the same.
    portal.run(ada, STUBBORN)
    portal.stop_server(ada)
    assert traces(sandboxes, sandbox) == []
    assert not subprocess.run(["pgrep", "-u", ada], capture_output=True, text=True).stdout


def test_after_a_crash_of_the_server(
    portal: Portal, ada: str, sandboxes: Sandboxes, sandbox: str
) -> None:
    portal.run(ada, STUBBORN)  # what is left must not pass for the server
    portal.run(ada, "import os, threading; threading.Timer(0.1, os._exit, [7]).start()")
    wait_for(lambda: not traces(sandboxes, sandbox), timeout=30)
    wait_for(lambda: gone(portal, ada))


def test_after_bubblewrap_is_killed(
    portal: Portal, ada: str, sandboxes: Sandboxes, sandbox: str
) -> None:
    os.kill(outer_process(sandboxes, sandbox, "bwrap"), signal.SIGKILL)
    # The server itself lives on in its sandbox, and the hub still knows it.
    assert portal.run(ada, "print('alive')").strip() == "alive"
    portal.stop_server(ada)
    assert traces(sandboxes, sandbox) == []


def test_after_the_log_writer_is_killed(
    portal: Portal, ada: str, sandboxes: Sandboxes, sandbox: str
) -> None:
    writers = [
        pid
        for pid in sandboxes.groups.pids(sandbox)
        if b"log_writer" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    os.kill(writers[0], signal.SIGKILL)
    assert portal.run(ada, "print('alive')").strip() == "alive"


def test_a_killed_hub_loses_no_server(
    portal: Portal, ada: str, sandboxes: Sandboxes, sandbox: str
) -> None:
    portal.run(ada, "import builtins; builtins.remembered = 42")
    portal.stop("hub", signal.SIGKILL)
    assert portal.run(ada, "import builtins; print(builtins.remembered)").strip() == "42"
    portal.start_hub()
    assert portal.run(ada, "import builtins; print(builtins.remembered)").strip() == "42"
    assert not gone(portal, ada)
    assert reach(portal, ada, sandboxes.network.gateway, 8081) == "open"
    portal.stop_server(ada)
    assert traces(sandboxes, sandbox) == []


def test_a_server_that_ends_while_the_hub_is_away(
    portal: Portal, ada: str, sandboxes: Sandboxes, sandbox: str
) -> None:
    portal.stop("hub", signal.SIGKILL)
    sandboxes.groups.kill(sandbox)
    assert traces(sandboxes, sandbox)  # nobody was there to clean
    portal.start_hub()
    wait_for(lambda: not traces(sandboxes, sandbox))
    assert gone(portal, ada)


def test_a_start_that_the_hubs_end_cut_off(portal: Portal, ada: str, sandboxes: Sandboxes) -> None:
    key = sandbox_key(pwd.getpwnam(ada).pw_uid, "")
    with ThreadPoolExecutor() as pool:
        request = pool.submit(portal.api, "POST", f"/users/{ada}/server", json={"profile": "slow"})
        wait_for(lambda: sandboxes.serving(key))
        portal.stop("hub", signal.SIGKILL)
        with contextlib.suppress(httpx.HTTPError):
            request.result()
    assert sandboxes.serving(key)
    assert sandboxes.starting(key)
    portal.start_hub()
    wait_for(lambda: not traces(sandboxes, key))
    wait_for(lambda: gone(portal, ada))
    portal.spawn(ada)
    portal.stop_server(ada)


def test_a_start_that_fails(portal: Portal, ada: str, sandboxes: Sandboxes) -> None:
    answer = portal.api("POST", f"/users/{ada}/server", json={"profile": "dies"})
    assert answer.status_code == 500
    assert "exit status 3" in answer.json()["message"]
    assert "the disk is on fire" in answer.json()["message"]
    assert traces(sandboxes, sandbox_key(pwd.getpwnam(ada).pw_uid, "")) == []


def test_named_servers_have_sandboxes_of_their_own(
    portal: Portal, ada: str, sandboxes: Sandboxes, sandbox: str
) -> None:
    portal.spawn(ada, server="second")
    second = sandbox_key(pwd.getpwnam(ada).pw_uid, "second")
    serve = (
        "import http.server as h, threading\n"
        "s = h.ThreadingHTTPServer(('127.0.0.1', 5005), h.BaseHTTPRequestHandler)\n"
        "threading.Thread(target=s.serve_forever, daemon=True).start()"
    )
    portal.run(ada, serve)
    portal.run(ada, serve, server="second")
    portal.stop_server(ada, server="second")
    assert traces(sandboxes, second) == []
    assert portal.run(ada, "print('alive')").strip() == "alive"


def test_two_portals_with_one_subnet_do_not_meet(
    portal: Portal, ada: str, bob: str, sandboxes: Sandboxes, sandbox: str
) -> None:
    with Portal({"local": {"subnet": portal.lab["local"]["subnet"]}}) as other:
        # The same accounts want the same addresses.
        other.spawn(ada)
        other.spawn(bob)
        first = portal.run(ada, "import os; print(os.environ['JUPYTERHUB_SERVICE_URL'])")
        second = other.run(ada, "import os; print(os.environ['JUPYTERHUB_SERVICE_URL'])")
        assert first != second
        host = first.split("//")[1].split(":")[0]
        assert reach(other, bob, host, 8888) in {"EHOSTUNREACH", "ECONNREFUSED"}
    assert portal.run(ada, "print('alive')").strip() == "alive"
    assert traces(sandboxes, sandbox)


def test_a_start_that_takes_too_long(ada: str) -> None:
    with Portal(config="c.Spawner.start_timeout = 3\n") as impatient:
        sandboxes = sandboxes_behind(impatient)
        impatient.api("POST", f"/users/{ada}")
        answer = impatient.api("POST", f"/users/{ada}/server", json={"profile": "slow"})
        assert answer.status_code == 500
        assert "did not answer within 3 seconds" in answer.json()["message"]
        assert traces(sandboxes, sandbox_key(pwd.getpwnam(ada).pw_uid, "")) == []
    assert not sandboxes.network.in_force()
