"""First process of a test cluster's namespaces: starts its parts, and takes up what they leave.

It runs below ``unshare`` (network, mounts, processes, host name): with it ends all of the cluster.
What it needs is in one JSON file, and it says on its way by files in the same folder.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

_SYSCTLS = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops")


def _run(*words: str) -> None:
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL)


def _mounts(folder: Path) -> None:
    """Give the parts folders of their own where they insist on fixed ones."""
    _run("mount", "--make-rprivate", "/")
    for place, name in (("/var/log", "podlog"), ("/var/lib/cni", "cnistate")):
        Path(place).mkdir(parents=True, exist_ok=True)
        (folder / "run" / name).mkdir()
        _run("mount", "--bind", str(folder / "run" / name), place)
    _run("mount", "-t", "tmpfs", "tmpfs", "/run")
    for name in _SYSCTLS:  # the kubelet insists on writing these, which are the whole machine's
        path, own = Path("/proc/sys") / name, folder / "run" / name.replace("/", "-")
        own.write_text(path.read_text())
        _run("mount", "--bind", str(own), str(path))


def _network(task: dict[str, Any]) -> None:
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "link", "set", task["link"], "name", "eth0")
    _run("ip", "addr", "add", f"{task['address']}/24", "dev", "eth0")
    _run("ip", "link", "set", "eth0", "up")
    _run("ip", "route", "add", "default", "via", task["gateway"])
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _start(name: str, words: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "log" / f"{name}.log").open("ab") as log:
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def main(folder: Path) -> None:
    """Start all, and stay until the end of the first part, or of the one who started us."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    while not (folder / "task.json").exists():  # its network interface is there then
        time.sleep(0.02)
    task = json.loads((folder / "task.json").read_text())
    _run("hostname", task["name"])
    _mounts(folder)
    _network(task)
    parts = {_start(name, words, folder).pid: name for name, words in task["commands"].items()}
    while True:
        with suppress(InterruptedError):
            pid, status = os.wait()
            if pid in parts:
                (folder / "ended").write_text(f"{parts[pid]} ended with status {status}")
                return


if __name__ == "__main__":
    main(Path(sys.argv[1]))
