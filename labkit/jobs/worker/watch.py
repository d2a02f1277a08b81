"""Watches one attempt while it runs: memory, time, progress, heartbeat."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labkit.base import cgroups, process_tree
from labkit.jobs.worker import cgroup

_TICK = 0.25  # seconds between two looks at memory and time
_HEARTBEAT = 10.0  # seconds between two heartbeats where nothing changes
_CHANGED = 2.0  # seconds between two heartbeats at least
# A scheduler ends all processes of a job at once: the program may be gone before SIGTERM is here.
_LATE = 0.5  # seconds


class Watch(threading.Thread):
    """Ends the attempt's processes when they are over their memory or time.

    Parameters
    ----------
    memory : int
        Bytes for the whole process tree.
    seconds : float or None
        Longest time.
    group : MemoryGroup or None
        The attempt's cgroup; else the process tree is measured.
    grace : float
        Seconds between SIGTERM and SIGKILL.
    progress : Path
        File that a program may write ``done total`` into.
    beat : callable
        Is given what is measured now; writes the heartbeat.
    """

    def __init__(
        self,
        *,
        memory: int,
        seconds: float | None,
        group: cgroup.MemoryGroup | None,
        grace: float,
        progress: Path,
        beat: Callable[[dict[str, Any]], None],
    ) -> None:
        super().__init__(daemon=True, name="labkit-watch")
        self._memory = memory
        self._seconds = seconds
        self._group = group
        self._grace = grace
        self._progress = progress
        self._beat = beat
        self._done = threading.Event()
        self._since = time.monotonic()
        self._beaten = -_HEARTBEAT
        self._shown: tuple[float, int] | None = None
        self._kills = group.kills() if group else 0
        self._oom_above = cgroups.own_oom_kills()
        self.peak = 0
        self.told: tuple[int, int] | None = None
        self.units: Callable[[], tuple[float, int]] = lambda: (0, 0)
        self.verdict: tuple[str, str] | None = None

    def run(self) -> None:
        """Look until the attempt is over."""
        while not self._done.wait(_TICK):
            pids = process_tree.descendants(os.getpid())
            now = process_tree.resident(pids)
            self.peak = max(self.peak, now)
            self._check(pids, now)
            self._read_progress()
            self._maybe_beat(pids, now)

    def stop(self, failed: bool) -> None:
        """End the watch; afterwards :attr:`verdict` and :attr:`peak` are final.

        Parameters
        ----------
        failed : bool
            Whether the program has failed, be it that it was ended from outside.
        """
        late = time.monotonic() + _LATE
        while failed and self.verdict is None and time.monotonic() < late:
            time.sleep(0.02)
        self._done.set()
        if self.is_alive():
            self.join()
        self._read_progress()
        if self._group and self._group.kills() > self._kills:
            self._memory_verdict(self._memory)
        # ru_maxrss sees the peak of the largest process between two looks; but a child begins as
        # a copy of this process, and that is not its own.
        largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        if largest > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss:
            self.peak = max(self.peak, largest * 1024)

    def killed_from_above(self) -> bool:
        """Return whether the kernel killed for want of memory in the group around us."""
        return cgroups.own_oom_kills() > self._oom_above

    def end_all(self, verdict: tuple[str, str]) -> None:
        """End the attempt's processes and remember why; the first reason stays."""
        if self.verdict is None:
            self.verdict = verdict
        process_tree.end(os.getpid(), self._grace)

    def _check(self, pids: list[int], now: int) -> None:
        if self._group and self._group.kills() > self._kills:
            self._memory_verdict(now)
            process_tree.kill(pids)
        elif now > self._memory and (exact := process_tree.proportional(pids)) > self._memory:
            self.peak = max(self.peak, now)
            self._memory_verdict(exact)
            process_tree.kill(pids)
        elif self._seconds is not None and time.monotonic() - self._since > self._seconds:
            self.end_all(("TIMEOUT", f"took longer than the {self._seconds:g} s it asked for"))

    def _memory_verdict(self, used: int) -> None:
        if self.verdict is None:
            from labkit.base.units import format_size  # datetime and more: not for each start

            asked, had = format_size(self._memory), format_size(max(used, self._memory))
            self.verdict = "OUT_OF_MEMORY", f"needed more than the {asked} it asked for (had {had})"

    def _read_progress(self) -> None:
        try:
            words = self._progress.read_text().split()[:2]
            self.told = (int(words[0]), int(words[1]) if len(words) > 1 else 0)
        except (OSError, ValueError, IndexError):
            return

    def _maybe_beat(self, pids: list[int], now: int) -> None:
        since = time.monotonic() - self._beaten
        units = self.units()
        if since < _CHANGED or (since < _HEARTBEAT and units == self._shown):
            return
        self._beaten, self._shown = time.monotonic(), units
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._beat(
            {
                "rss": now,
                "peak_rss": self.peak,
                "cpu_seconds": round(
                    process_tree.cpu_seconds(pids) + used.ru_utime + used.ru_stime, 2
                ),
            }
        )
