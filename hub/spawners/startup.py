"""What is told about a server that starts: its phases, its log's tail, why it failed."""

from __future__ import annotations

import asyncio
import html
import re
import signal
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyterhub.spawner import SpawnException

from labkit.base import files

TAIL_BYTES = 8192
TAIL_LINES = 25
LINE_LENGTH = 400
HEARTBEAT = 5.0  # seconds after which a watcher hears that the hub still lives
LOG_INTERVAL = 1.0  # seconds between two looks at the log, while somebody watches
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def tail(path: Path, start: int = 0) -> str:
    """Return the last lines of a log, fit to be shown: bounded, without control characters.

    Parameters
    ----------
    path : Path
        The log; where there is none, the tail is empty.
    start : int
        Bytes before this offset belong to an earlier run.
    """
    lines = _CONTROL.sub("", files.tail(path, most=TAIL_BYTES, start=start)).splitlines()
    return "\n".join(line[:LINE_LENGTH] for line in lines[-TAIL_LINES:]).strip()


def ended(status: int) -> str:
    """Say in words how a process ended, from what ``poll`` returned."""
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = str(-status)
        more = ", perhaps because it used too much memory" if name == "SIGKILL" else ""
        return f"it was ended by the signal {name}{more}"
    return f"it ended by itself (exit status {status})"


class StartError(SpawnException):
    """A server did not start; its owner is told why.

    Parameters
    ----------
    message : str
        The reason, in sentences that a person understands.
    log : str
        The last lines of the server's log.
    status_code : int
        The HTTP status.
    reason : str
        One word for JupyterHub's metrics.
    """

    def __init__(
        self, message: str, *, log: str = "", status_code: int = 500, reason: str = "start"
    ) -> None:
        super().__init__(message, reason=reason, status_code=status_code)
        self.log_tail = log
        self.jupyterhub_message = f"{message}\n\nThe end of its log:\n{log}" if log else message
        self.jupyterhub_html_message = f"<p>{html.escape(message)}</p>" + (
            f'<pre class="log">{html.escape(log)}</pre>' if log else ""
        )


@dataclass(frozen=True)
class Phase:
    """One step of a start.

    Attributes
    ----------
    text : str
        What is being done.
    at : float
        Seconds after the start began.
    """

    text: str
    at: float


class Startup:
    """The phases of one start, for any number of watchers, who may come and go.

    Parameters
    ----------
    log_file : Path
        The server's log.
    elapsed : float
        Seconds for which it has been starting already, under an earlier hub.
    """

    def __init__(self, log_file: Path, elapsed: float = 0.0) -> None:
        self.log_file = log_file
        self.phases: list[Phase] = []
        self.wait: Mapping[str, Any] | None = None
        self._began = time.monotonic() - elapsed
        self._log_start = log_file.stat().st_size if log_file.exists() else 0
        self._news = asyncio.Event()

    @property
    def elapsed(self) -> float:
        """Seconds since the start began."""
        return time.monotonic() - self._began

    def say(self, text: str) -> None:
        """Begin the next phase; call it on the hub's event loop."""
        self.phases.append(Phase(text, self.elapsed))
        self._news.set()
        self._news = asyncio.Event()

    def waits(self, facts: Mapping[str, Any] | None) -> None:
        """Say where in a queue the server is; None: no longer. Replaces what was said before."""
        if facts != self.wait:
            self.wait = facts
            self._news.set()
            self._news = asyncio.Event()

    def tail(self) -> str:
        """Return the tail of the log, as far as it is of this start."""
        return tail(self.log_file, self._log_start)

    async def events(self) -> AsyncGenerator[dict[str, Any], None]:
        """Yield what JupyterHub's progress stream carries: first all that was, then the new.

        Beside JupyterHub's ``progress`` and ``message``, an event has ``at`` and ``elapsed``
        (seconds since the start began), ``log`` (the tail, whole each time), or ``wait`` (the
        place in a queue, whole each time; None when it is over).
        """
        reports = 0
        size: int | None = None
        wait: Mapping[str, Any] | None = None
        spoken = time.monotonic()
        while True:
            news = self._news
            for phase in self.phases[reports:]:
                reports += 1
                spoken = time.monotonic()
                yield {
                    "progress": round(95 * (1 - 0.65**reports)),
                    "message": phase.text,
                    "at": round(phase.at, 1),
                    "elapsed": round(self.elapsed, 1),
                }
            if self.wait != wait:
                wait = self.wait
                spoken = time.monotonic()
                yield {"wait": wait, "elapsed": round(self.elapsed, 1)}
            now = await asyncio.to_thread(_size, self.log_file)
            if now != size:
                size = now
                text = await asyncio.to_thread(self.tail)
                if text:
                    spoken = time.monotonic()
                    yield {"log": text, "elapsed": round(self.elapsed, 1)}
            if time.monotonic() - spoken >= HEARTBEAT:
                spoken = time.monotonic()
                yield {"elapsed": round(self.elapsed, 1)}
            try:
                await asyncio.wait_for(news.wait(), LOG_INTERVAL)
            except TimeoutError:
                continue


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
