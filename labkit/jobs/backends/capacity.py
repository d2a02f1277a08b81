"""What this machine, or the cgroup around us, has and has left."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from labkit.base import cgroups
from labkit.base.units import format_size


@dataclass(frozen=True)
class Capacity:
    """What all local tasks together may use.

    Attributes
    ----------
    cpu : float
        Cores: the least of the machine's, this process' CPU set and its cgroups' quotas.
    memory : int
        Bytes: the least of the machine's and its cgroups' limits.
    """

    cpu: float
    memory: int

    def __str__(self) -> str:
        return f"{self.cpu:g} cores and {format_size(self.memory)} of memory"


def capacity() -> Capacity:
    """Measure the capacity now."""
    cores = float(len(os.sched_getaffinity(0)))
    quota = cgroups.cpu_limit()
    limit = cgroups.memory_limit()
    memory = _meminfo("MemTotal")
    return Capacity(
        cpu=min(cores, quota) if quota else cores,
        memory=min(memory, limit) if limit else memory,
    )


def free_memory() -> int:
    """Return the bytes that could be used now without pushing anybody out."""
    here = _meminfo("MemAvailable")
    group = cgroups.memory_free()
    return here if group is None else min(here, group)


def _meminfo(name: str) -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/meminfo has no {name}")
