"""One user server that wants all of the hub: its connections, its memory, its log, its tokens."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from hub.sandbox.inherited import may_raise
from tests.conftest import needs_root
from tests.security.neighbours import reach, wait_for
from tests.support.http_client import LocalhostTransport
from tests.support.portal import PASSWORD, REPOSITORY, Portal, portal

pytestmark = needs_root
LOGINS = 30
MEGABYTE = 1 << 20
# Opens connections to the hub for as long as it is let; says how many it holds, then keeps on.
FLOOD = """
import socket, sys, threading
host, port, wanted = {host!r}, {port}, 5000
held, lock = [], threading.Lock()
def work():
    for _ in range(wanted // 10):
        try:
            one = socket.create_connection((host, port), timeout=30)
        except OSError:
            continue
        with lock:
            held.append(one)
globals_of_server = sys.modules.setdefault("flood", type(sys)("flood"))
globals_of_server.held = held
threads = [threading.Thread(target=work, daemon=True) for _ in range(10)]
for one in threads: one.start()
globals_of_server.threads = threads
"""
HELD = """
import select, sys
flood = sys.modules["flood"]
open_ones = [one for one in flood.held if not select.select([one], [], [], 0)[0]]
print(len(open_ones), sum(one.is_alive() for one in flood.threads))
"""


@pytest.fixture(scope="module")
def lab(ada: str, bob: str) -> Iterator[Portal]:
    with portal() as running:
        running.spawn(ada)
        yield running


def gateway(lab: Portal) -> str:
    return f"{lab.lab['local']['subnet'].rpartition('.')[0]}.1"


def log_size(lab: Portal) -> int:
    return sum(file.stat().st_size for file in Path(lab.state, "log").glob("hub.log*"))


def test_a_flood_of_connections_keeps_nobody_out(lab: Portal, ada: str, bob: str) -> None:
    before = log_size(lab)
    lab.run(ada, FLOOD.format(host=gateway(lab), port=8081))
    seconds = []
    for _ in range(LOGINS):
        with lab.browser() as browser:
            began = time.monotonic()
            answer = browser.login(bob, PASSWORD)
            seconds.append(time.monotonic() - began)
        assert answer.status_code == 200
        assert answer.url.path == "/hub/home"
    # The machine may be busy with other tests: one slow login is no proof of anything.
    assert statistics.median(seconds) < 2
    wait_for(lambda: lab.run(ada, HELD).split()[1] == "0", timeout=120)
    held = int(lab.run(ada, HELD).split()[0])
    assert 0 < held <= 64
    assert log_size(lab) - before < MEGABYTE
    # The hub is not shut to it for good.
    lab.run(ada, "import sys\nfor one in sys.modules['flood'].held: one.close()")
    wait_for(lambda: reach(lab, ada, gateway(lab), 8081) == "open", timeout=60)


def test_a_flood_of_requests_fills_no_log(lab: Portal, ada: str) -> None:
    before = log_size(lab)
    flood = (
        "import http.client\n"
        f"hub = http.client.HTTPConnection({gateway(lab)!r}, 8081, timeout=30)\n"
        "for number in range(2000):\n"
        "    hub.request('GET', '/hub/api/users/' + 'x' * 1000 + str(number))\n"
        "    hub.getresponse().read()\n"
        "print('sent')"
    )
    assert lab.run(ada, flood).strip() == "sent"
    assert log_size(lab) - before < MEGABYTE
    assert "lines like this were left out" in _after_a_while(lab, ada)


def _after_a_while(lab: Portal, ada: str) -> str:
    """Return the hub's log once one more request was let into it."""
    end = time.monotonic() + 60
    while "left out" not in lab.hub_log() and time.monotonic() < end:
        lab.run(
            ada,
            "import http.client\n"
            f"hub = http.client.HTTPConnection({gateway(lab)!r}, 8081, timeout=30)\n"
            "hub.request('GET', '/hub/api/users/x'); hub.getresponse().read()",
        )
        time.sleep(0.1)
    return lab.hub_log()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_before_the_login_takes_no_memory(lab: Portal, chunked: bool) -> None:
    hub = psutil.Process(lab.processes["hub"].pid)
    lab.browser().get("/hub/login")
    before = hub.memory_info().rss
    most = before
    body = b"username=" + b"x" * (32 * MEGABYTE)
    with httpx.Client(transport=LocalhostTransport(), timeout=60) as client:
        for _ in range(2):
            sent = (body[start : start + MEGABYTE] for start in range(0, len(body), MEGABYTE))
            answer = client.post(
                f"http://127.0.0.1:{lab.hub_port}/hub/login", content=sent if chunked else body
            )
            assert answer.status_code == 413
            most = max(most, hub.memory_info().rss)
        through_the_proxy = client.post(f"{lab.url}/hub/login", content=body)
        assert through_the_proxy.status_code == 413
        assert "larger than" in through_the_proxy.text
    assert most - before < 10 * MEGABYTE
    assert lab.browser().get("/hub/login").status_code == 200


def test_tokens_have_a_limit(lab: Portal, bob: str) -> None:
    with lab.browser() as browser:
        browser.login(bob, PASSWORD)
        long = browser.hub("POST", f"/users/{bob}/tokens", json={"note": "x" * 501})
        assert long.status_code == 400
        assert "at most 500 characters" in long.json()["message"]
        for number in range(100):
            made = browser.hub("POST", f"/users/{bob}/tokens", json={"note": f"x{number}"})
            assert made.status_code == 201, made.text
        more = browser.hub("POST", f"/users/{bob}/tokens", json={"note": "one more"})
        assert more.status_code == 409
        assert "Revoke some" in more.json()["message"]
        browser.hub("DELETE", f"/users/{bob}/tokens/{made.json()['id']}")
        assert browser.hub("POST", f"/users/{bob}/tokens", json={}).status_code == 201
    # Who may not ask is not told.
    stranger = httpx.post(f"{lab.url}/hub/api/users/{bob}/tokens", json={}, timeout=60)
    assert stranger.status_code == 403


def test_a_server_that_is_refused_is_in_no_list(lab: Portal, bob: str) -> None:
    """Else anybody fills a page with servers that never were."""
    lab.api("POST", f"/users/{bob}")
    with lab.browser() as browser:
        browser.login(bob, PASSWORD)
        for options in ({"profile": "none"}, {"cmd": "sh"}):
            answer = browser.hub("POST", f"/users/{bob}/servers/refused", json=options)
            assert answer.status_code in (400, 403), answer.text
        model = browser.hub("GET", f"/users/{bob}?include_stopped_servers").json()
        assert "refused" not in model["servers"]
        assert "refused" not in browser.get("/hub/home").text


def test_hub_proxy_and_gate_may_open_many_files() -> None:
    code = (
        "import resource; from hub.runtime.run import raise_open_files; raise_open_files();"
        "print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    few = ["prlimit", "--nofile=256:", sys.executable, "-c", code]
    done = subprocess.run(few, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    soft, hard = map(int, done.stdout.split())
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert (soft, hard) == (
        (1 << 16, max(most, 1 << 16)) if may_raise() else (min(most, 1 << 16), most)
    )
