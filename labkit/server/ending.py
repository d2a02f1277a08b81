"""The cluster ends this server: say so to whoever has it open, while it still can.

SLURM sends SIGTERM to a job's processes and waits (KillWait, 30 seconds) before it kills them;
its daemon on the node has just written the reason into the job's log, which is this server's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import stat
from collections.abc import Callable
from types import FrameType
from typing import Any

from labkit.slurm.exit_reasons import how, over_memory

log = logging.getLogger(__name__)

_TAIL = 4096  # bytes of the log
_SAVE = 4.0  # seconds for open pages to save their documents
_LINE = re.compile(r"\*\*\* JOB (\d+) ON (\S+) CANCELLED AT \S+(?: DUE TO ([A-Z ]+?))? \*\*\*")
_STATES = {
    "TIME LIMIT": "TIMEOUT",
    "PREEMPTION": "PREEMPTED",
    "NODE FAILURE": "NODE_FAIL",
    None: "CANCELLED",
}


def reason(text: str) -> str:
    """Return why SLURM ends a job, from the end of its log; empty where it does not say.

    Parameters
    ----------
    text : str
        What stands in the log last.
    """
    found = list(_LINE.finditer(text))
    if not found:
        return ""
    job, node, due = found[-1].groups()
    if due is None and over_memory(text, job):
        return how("OUT_OF_MEMORY")
    return how(_STATES.get(due, "CANCELLED"), node=node)


class Ending:
    """Holds SIGTERM back for as long as open pages need to save, and tells them why.

    Parameters
    ----------
    read : callable, optional
        Returns the end of the server's log.
    save : float
        Seconds that pages get; none where no page listens.
    """

    def __init__(self, read: Callable[[], str] | None = None, save: float = _SAVE) -> None:
        self.why = ""
        self._read = read or _own_log
        self._save = save
        self._begun = asyncio.Event()
        self._listeners = 0
        self._before: Any = None
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Take SIGTERM over from Jupyter Server, on the main thread and its running loop."""
        self._loop = asyncio.get_running_loop()
        self._before = signal.signal(signal.SIGTERM, self._signalled)

    async def wait(self, seconds: float) -> str:
        """Wait until the cluster ends the server, and return why; empty: it does not yet.

        Parameters
        ----------
        seconds : float
            The longest wait.
        """
        self._listeners += 1
        try:
            await asyncio.wait_for(self._begun.wait(), seconds)
        except TimeoutError:
            return ""
        finally:
            self._listeners -= 1
        return self.why

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        loop = self._loop
        if loop is None or loop.is_closed():
            self._end(number, frame)
        else:
            loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        if self._task is None:
            self._task = asyncio.ensure_future(self._go())

    async def _go(self) -> None:
        try:
            self.why = reason(await asyncio.to_thread(self._read))
        except OSError as error:
            log.debug("The log does not say why the server ends: %s", error)
        if self.why:
            log.warning("The cluster ends this server: %s", self.why)
            pages = self._listeners
            self._begun.set()
            if pages:
                await asyncio.sleep(self._save)
        self._end(signal.SIGTERM, None)

    def _end(self, number: int, frame: FrameType | None) -> None:
        if callable(self._before):
            self._before(number, frame)
        else:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)


def _own_log() -> str:
    """Return the end of the file that this server's errors go to."""
    handle = os.open("/proc/self/fd/2", os.O_RDONLY | os.O_NONBLOCK)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            return ""
        return os.pread(handle, _TAIL, max(0, status.st_size - _TAIL)).decode(errors="replace")
    finally:
        os.close(handle)
