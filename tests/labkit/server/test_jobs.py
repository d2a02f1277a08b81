"""A server that starts takes up the jobs that an earlier one left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.labkit.server.conftest import Server, wait_for

SUBMIT = """
import labkit

table = [{"name": "a.txt"}]
job = labkit.Command("sleep 2 && echo done > {name}", over=table, outputs=["{name}"], shell=True)
print(job.submit("local").path)
"""


def test_jobs_go_on_when_the_server_starts() -> None:
    server = Server()
    try:
        done = subprocess.run(
            [sys.executable, "-c", SUBMIT],
            env=server.env,
            cwd=server.home,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        folder = Path(done.stdout.split()[-1])
        wait_for(lambda: len(_left(server.home)) >= 2)  # its scheduler, and the task's worker
        _end_all(server.home)  # as the end of the server's sandbox does
        assert not list(folder.rglob("a.txt"))
        server.start()
        wait_for(lambda: list(folder.rglob("a.txt")), 30)
        assert "Jobs of an earlier server go on" in server.log.read_text()
    finally:
        _end_all(server.home)
        server.stop()


def _end_all(home: Path) -> None:
    while pids := _left(home):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _left(home: Path) -> list[int]:
    """Schedulers and workers of that home."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"HOME={home}\0" in (entry / "environ").read_text():
                found.append(int(entry.name))
        except (OSError, UnicodeDecodeError):
            continue
    return found
