"""What this server uses of what it may use: memory in bytes, processors in cores."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import psutil

from labkit.base import process_tree


@dataclass(frozen=True)
class Usage:
    """What is used now and the limits; 0 where there is none."""

    memory: int
    memory_limit: int
    cores: float
    cores_limit: float
    processes: int


class Meter:
    """Measures this server's processes; cores are those since the measurement before."""

    def __init__(self) -> None:
        self._before: dict[tuple[int, float], float] = {}
        self._at = time.monotonic()
        self.read()

    def read(self) -> Usage:
        """Measure now; takes about a millisecond for each process."""
        now = time.monotonic()
        times: dict[tuple[int, float], float] = {}
        memory = 0
        for process in own_processes():
            try:
                used = process.cpu_times()
                times[process.pid, process.create_time()] = used.user + used.system
                memory += process_tree.proportional([process.pid])
            except psutil.Error:
                continue  # ended meanwhile
        spent = sum(t - self._before.get(key, 0.0) for key, t in times.items())
        elapsed = now - self._at
        cores = max(0.0, spent) / elapsed if self._before and elapsed > 0.1 else 0.0
        self._before, self._at = times, now
        return Usage(
            memory=memory,
            memory_limit=int(_limit("LABHUB_MEMORY_BYTES", "MEM_LIMIT")),
            cores=round(cores, 2),
            cores_limit=_limit("CPU_LIMIT"),
            processes=len(times),
        )


def own_processes() -> Iterator[psutil.Process]:
    """Yield this server's processes.

    In a sandbox of its own (its own process ids) these are all of the user's; elsewhere this
    process and its descendants, since the rest may be the user's desktop.
    """
    candidates: Iterable[psutil.Process]
    me = psutil.Process()
    try:
        first = psutil.Process(1)  # the portal's sandbox begins with bubblewrap, which is root's
        mine = first.uids().real == os.getuid() or first.name() == "bwrap"
        boxed = mine and os.getuid() != 0
        candidates = psutil.process_iter() if boxed else [me, *me.children(recursive=True)]
    except psutil.Error:
        candidates = [me]
    for process in candidates:
        try:
            if process.uids().real == os.getuid():
                yield process
        except psutil.Error:
            continue


def _limit(*names: str) -> float:
    for name in names:
        try:
            if (value := float(os.environ.get(name, "0"))) > 0:
                return value
        except ValueError:
            continue
    return 0.0
