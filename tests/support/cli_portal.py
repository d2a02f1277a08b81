"""A portal that is run by ./labhub itself, in a folder of its own."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from hub.apps.app_paths import AppPaths
from hub.state.paths import Paths
from tests.support.portal import REPOSITORY, Portal

LABHUB = REPOSITORY / "labhub"


def run(
    *words: str, env: Mapping[str, str], stdin: str | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Call ./labhub; stdin is no terminal."""
    return subprocess.run(
        [LABHUB, *words],
        env=dict(env),
        input=stdin or "",
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        cwd="/",
    )


class LabhubPortal(Portal):
    """The tests' portal, but started and stopped by the command line."""

    def __init__(self, lab: Mapping[str, Any] | None = None) -> None:
        super().__init__(lab)
        # The tests' own Python has all of the hub's; a link is used as it is.
        (self.envs / "hub").symlink_to(Path(sys.prefix).resolve())

    @property
    def environ(self) -> dict[str, str]:
        env = super().environ
        for name in ("PYTHONPATH", "CONFIGPROXY_AUTH_TOKEN", "LABHUB_CULLER_TOKEN"):
            env.pop(name, None)
        return env

    def labhub(
        self, *words: str, stdin: str | None = None, ok: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Call ./labhub for this portal; ``ok`` is whether it should succeed."""
        done = run(*words, env=self.environ, stdin=stdin)
        if (done.returncode == 0) != ok:
            logs = "".join(
                f"\n--- {p.name}\n{p.read_text(errors='replace')[-3000:]}"
                for p in (self.state / "log").glob("*.log")
            )
            raise AssertionError(
                f"labhub {words}: {done.returncode}\n{done.stderr}{done.stdout}{logs}"
            )
        return done

    def pids(self) -> dict[str, int]:
        """Return the programs' process ids."""
        done = run("status", "--json", env=self.environ)
        programs = json.loads(done.stdout)["programs"]
        return {name: row["pid"] or 0 for name, row in programs.items()}

    def close(self) -> None:
        """Stop everything and remove the folder."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            run("down", "--yes", env=self.environ)
        for pid in leftovers(self.folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        begin = AppPaths(Paths(self.state, self.envs)).account("")
        for entry in pwd.getpwall():
            if entry.pw_name.startswith(begin):  # the gate's and the apps'
                subprocess.run(["userdel", entry.pw_name], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def leftovers(folder: Path) -> list[int]:
    """Return the processes that have a folder on their command line."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        if process.pid != os.getpid() and any(
            str(folder) in word for word in process.info["cmdline"] or ()
        ):
            found.append(process.pid)
    return found


def eventually(what: Callable[[], object], timeout: float = 120, say: str = "") -> None:
    """Wait until something is true."""
    end = time.monotonic() + timeout
    while not what():
        if time.monotonic() > end:
            raise AssertionError(say or f"not within {timeout} s")
        time.sleep(0.2)
