"""A server that takes too much is held back, and the others do not notice."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import needs_root
from tests.security.neighbours import sandboxes_behind, wait_for
from tests.support.portal import Portal, portal

pytestmark = needs_root
LOG_BYTES = 1 << 20
PROFILES = [
    {
        "name": "stub",
        "title": "Stub",
        "environment": "stub",
        "memory": "256M",
        "processes": 64,
        "cpu": 0.5,
    }
]


@pytest.fixture(scope="module")
def lab(ada: str, bob: str) -> Iterator[Portal]:
    config = f"c.LocalSpawner.log_bytes = {LOG_BYTES}\n"
    with portal({"profiles": PROFILES}, config=config) as running:
        running.spawn(ada)
        running.spawn(bob)
        yield running


def is_well(lab: Portal, who: str) -> bool:
    """Whether a person's server still works, within the minute that its client waits."""
    return lab.run(who, "print(sum(range(1000)))").strip() == "499500"


def key(lab: Portal, who: str) -> str:
    return str(lab.api("GET", f"/users/{who}").json()["servers"][""]["state"]["box"])


def test_a_memory_hog_is_ended_and_others_stay_well(lab: Portal, ada: str, bob: str) -> None:
    # A kernel is a process of its own below the server, and so is the hog.
    said = lab.run(
        bob,
        "import subprocess, sys\n"
        "hog = 'b = [bytearray(1 << 20) for _ in range(2000)]; print(\"took all\")'\n"
        "done = subprocess.run([sys.executable, '-c', hog], capture_output=True, text=True)\n"
        "print(done.returncode, done.stdout)",
    )
    assert said.split() == ["-9"]
    assert sandboxes_behind(lab).oom_kills(key(lab, bob)) > 0
    assert is_well(lab, bob)
    assert is_well(lab, ada)


def test_shared_memory_counts_and_is_bounded(lab: Portal, bob: str) -> None:
    said = lab.run(
        bob,
        "import os\n"
        "try:\n"
        "    with open('/dev/shm/fill', 'wb') as f:\n"
        "        for _ in range(300): f.write(b'x' * (1 << 20))\n"
        "except OSError as e: print(e.errno)\n"
        "print(os.path.getsize('/dev/shm/fill') <= 64 << 20); os.remove('/dev/shm/fill')",
    )
    assert said.split() == ["28", "True"]


def test_a_fork_bomb_stops_at_its_limit(lab: Portal, ada: str, bob: str) -> None:
    bomb = (
        "import os, time\n"
        "end = time.monotonic() + 8\n"
        "while time.monotonic() < end:\n"
        "    try: os.fork()\n"
        "    except OSError: time.sleep(0.05)\n"
    )
    lab.run(bob, f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {bomb!r}])")
    sandboxes, sandbox = sandboxes_behind(lab), key(lab, bob)
    wait_for(lambda: len(sandboxes.groups.pids(sandbox)) > 40)
    seen = []
    for _ in range(10):
        seen.append(len(sandboxes.groups.pids(sandbox)))
        assert is_well(lab, ada)
    assert max(seen) <= 64
    lab.stop_server(bob)
    assert not sandboxes.groups.pids(sandbox)
    lab.spawn(bob)
    assert is_well(lab, bob)


def test_the_processor_is_shared_out(lab: Portal, bob: str) -> None:
    said = lab.run(
        bob,
        "import time\n"
        "began, used = time.monotonic(), time.process_time()\n"
        "while time.monotonic() < began + 2: pass\n"
        "print((time.process_time() - used) / (time.monotonic() - began))",
    )
    assert float(said) < 0.65


def test_a_log_flood_fills_no_disk(lab: Portal, ada: str, bob: str) -> None:
    flood = (
        "import os, time\n"
        "line, sent, end = b'flood ' * 10000, 0, time.monotonic() + 3\n"
        "while time.monotonic() < end: sent += os.write(2, line)\n"
        "print(sent)"
    )
    sent = int(lab.run(bob, flood))
    logs = list((lab.state / "log" / "servers").glob(f"{bob}*"))
    assert sent > 4 * LOG_BYTES
    assert 0 < sum(path.stat().st_size for path in logs) <= LOG_BYTES
    assert is_well(lab, ada)
    assert is_well(lab, bob)


def test_a_server_that_dies_of_memory_while_starting_says_so(lab: Portal, bob: str) -> None:
    program = lab.envs / "stub" / "bin" / "jupyterhub-singleuser"
    text = program.read_text()
    lab.stop_server(bob)
    program.write_text("#!/usr/bin/python3\nb = [bytearray(1 << 20) for _ in range(2000)]\n")
    try:
        answer = lab.api("POST", f"/users/{bob}/server", json={"profile": "stub"})
    finally:
        program.write_text(text)
    with contextlib.suppress(httpx.HTTPError):
        lab.stop_server(bob)
    assert answer.status_code == 500
    assert "more memory than its profile 'Stub' has (256 MB)" in answer.json()["message"]
    lab.spawn(bob)


def test_temporary_files_go_with_the_server(lab: Portal, bob: str) -> None:
    lab.run(bob, "open('/tmp/left', 'w').write('x')")
    lab.run(bob, "import os; os.symlink('/etc', '/tmp/link'); os.makedirs('/tmp/' + 'd/' * 200)")
    lab.stop_server(bob)
    assert Path("/etc/passwd").exists()
    lab.spawn(bob)
    assert lab.run(bob, "import os; print(os.path.exists('/tmp/left'))").strip() == "False"
