"""Reading cgroups (v1, hybrid, v2): the groups around this process, their limits, use and kills.

Standard library and Python 3.9: the worker takes this file along into a run folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

#: v1 writes a number near 2**63 for "no limit".
UNLIMITED = 1 << 60
_SELF = Path("/proc/self")


class MemoryUse(NamedTuple):
    """One memory limit above this process.

    Attributes
    ----------
    limit : int
        In bytes.
    used : int
        In bytes, without the file cache: the kernel drops that when it needs the room.
    """

    limit: int
    used: int


def mounts(proc: Path = _SELF) -> tuple[dict[str, Path], Path | None]:
    """Return where the hierarchies are mounted: v1's by controller, and v2's.

    Parameters
    ----------
    proc : Path
        Folder of a process in /proc.

    Raises
    ------
    OSError
        There is no such process.
    """
    v1: dict[str, Path] = {}
    v2: Path | None = None
    for line in (proc / "mounts").read_text().splitlines():
        _, where, kind, options = line.split()[:4]
        if kind == "cgroup":
            v1.update((option, Path(where)) for option in options.split(","))
        elif kind == "cgroup2":
            v2 = v2 or Path(where)
    return v1, v2


def groups(controller: str, proc: Path = _SELF) -> Iterator[tuple[Path, bool]]:
    """Yield the folders of a process' group and of all above it; True where it is v2.

    Parameters
    ----------
    controller : str
        ``"memory"`` or ``"cpu"``.
    proc : Path
        Folder of the process in /proc.
    """
    try:
        v1, v2 = mounts(proc)
        own = (proc / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in own:
        _, names, path = line.split(":", 2)
        root = v1.get(controller) if controller in names.split(",") else None if names else v2
        if root is None:
            continue
        group = root / path.lstrip("/")
        if not os.path.exists(group / "cgroup.procs"):  # noqa: PTH110 - False where it is closed
            group = root  # a namespace shows its own root
        while True:
            yield group, not names
            if group == root or root not in group.parents:
                break
            group = group.parent


def memory_limits(proc: Path = _SELF) -> Iterator[MemoryUse]:
    """Yield each memory limit above a process, with what is used of it."""
    for group, v2 in groups("memory", proc):
        limit = number(group / ("memory.max" if v2 else "memory.limit_in_bytes"))
        if limit is None or limit >= UNLIMITED:
            continue
        used = number(group / ("memory.current" if v2 else "memory.usage_in_bytes")) or 0
        cache = field(group / "memory.stat", "file" if v2 else "total_cache")
        # Shared memory is counted as cache, and nobody can drop it.
        shared = field(group / "memory.stat", "shmem" if v2 else "total_shmem")
        yield MemoryUse(limit, max(0, used - max(0, cache - shared)))


def memory_limit() -> int | None:
    """Return the least memory limit of this process' groups, in bytes."""
    return min((one.limit for one in memory_limits()), default=None)


def memory_free() -> int | None:
    """Return what is left below the tightest limit, in bytes; the file cache counts as free."""
    return min((one.limit - one.used for one in memory_limits()), default=None)


def cpu_limit() -> float | None:
    """Return the least CPU quota of this process' groups, in cores."""
    quotas = []
    for group, v2 in groups("cpu"):
        if v2:
            quota, _, period = text(group / "cpu.max").partition(" ")
            if quota.isdigit() and period.strip():
                quotas.append(int(quota) / int(period))
        else:
            value = number(group / "cpu.cfs_quota_us")
            length = number(group / "cpu.cfs_period_us")
            if value and value > 0 and length:
                quotas.append(value / length)
    return min(quotas, default=None)


def oom_kills(group: Path) -> int:
    """Return how often the kernel killed in a group for want of memory; 0 where it does not say."""
    return max(field(group / name, "oom_kill") for name in ("memory.events", "memory.oom_control"))


def own_oom_kills() -> int:
    """Return how often the kernel killed for want of memory in this process' own group."""
    return next((oom_kills(group) for group, _ in groups("memory")), 0)


def memory_peak(group: Path) -> int:
    """Return the most memory a group held, in bytes, files included; 0 where it does not say."""
    return number(group / "memory.peak") or number(group / "memory.max_usage_in_bytes") or 0


def processes(group: Path) -> list[int]:
    """Return the process ids of a group, none where there is no group."""
    return [int(line) for line in text(group / "cgroup.procs").split()]


def text(path: Path) -> str:
    """Return what a file of a group says; nothing where it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""


def number(path: Path) -> int | None:
    """Return the number in a file of a group; None where there is none, or ``max``."""
    said = text(path).strip()
    return int(said) if said.lstrip("-").isdigit() else None


def field(path: Path, name: str) -> int:
    """Return one number of a file with a name and a number a line; 0 where it has none."""
    for line in text(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0
