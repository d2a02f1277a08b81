"""How much people's homes hold, measured as their owners: `du` goes through any tree."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import subprocess
import time
from dataclasses import dataclass

from labkit.base.units import format_size

PAGE_TIMEOUT = 300.0  # seconds for one home, in the background of the home page
_FRESH = 3600.0  # seconds until a home is measured again
_NICE = ("nice", "-n", "19", "ionice", "-c", "idle")


def _command(account: pwd.struct_passwd) -> list[str]:
    tool = ["du", "--summarize", "--one-file-system", "--block-size=1", "--", account.pw_dir]
    if os.geteuid() != 0:
        return [*_NICE, *tool]
    identity = ["--reuid", str(account.pw_uid), "--regid", str(account.pw_gid), "--clear-groups"]
    return [*_NICE, "setpriv", *identity, *tool]


_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}


def measure(account: pwd.struct_passwd, timeout: float) -> int | None:
    """Return how many bytes a home takes on its disk; None: it was not measured in time.

    Parameters
    ----------
    account : struct_passwd
        Whose; what its owner cannot read is left out.
    timeout : float
        Seconds.
    """
    try:
        done = subprocess.run(
            _command(account),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
            cwd="/",
            env=_ENVIRONMENT,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    number = done.stdout.split(b"\t")[0]
    return int(number) if number.isdigit() else None


@dataclass(frozen=True)
class _Measured:
    size: int | None
    at: float


class HomeUse:
    """Measures homes in the background, one at a time, when somebody asks.

    Parameters
    ----------
    timeout : float
        Seconds for one home.
    """

    def __init__(self, timeout: float = PAGE_TIMEOUT) -> None:
        self._timeout = timeout
        self._known: dict[str, _Measured] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._one = asyncio.Lock()

    def text(self, name: str) -> str:
        """Return what a person's home holds, in words; empty while it is not known.

        It is measured when this is asked for, at most once an hour: the next call tells.

        Parameters
        ----------
        name : str
            Whose.
        """
        known = self._known.get(name)
        if (known is None or time.monotonic() - known.at > _FRESH) and name not in self._running:
            with contextlib.suppress(KeyError, RuntimeError):  # no account, or no running loop
                account = pwd.getpwnam(name)
                task = asyncio.get_running_loop().create_task(self._measure(account))
                self._running[name] = task
        return format_size(known.size) if known and known.size is not None else ""

    async def _measure(self, account: pwd.struct_passwd) -> None:
        try:
            async with self._one:
                size = await asyncio.to_thread(measure, account, self._timeout)
                self._known[account.pw_name] = _Measured(size, time.monotonic())
        finally:
            self._running.pop(account.pw_name, None)
