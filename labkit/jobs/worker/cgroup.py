"""The cgroups (v1, hybrid, v2) of this process: limits above it, and an own group for a task."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

_TRIES = 50
_NO_LIMIT = 1 << 60  # v1 writes a number near 2**63 for "none"


def groups(controller: str) -> Iterator[tuple[Path, bool]]:
    """Return the folders of this process' group and all above it; True where it is v2.

    Parameters
    ----------
    controller : str
        ``"memory"`` or ``"cpu"``.
    """
    try:
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        own = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    v1 = v2 = None
    for line in mounts:
        _, where, kind, options = line.split()[:4]
        if kind == "cgroup" and controller in options.split(","):
            v1 = Path(where)
        elif kind == "cgroup2":
            v2 = v2 or Path(where)
    for line in own:
        _, names, path = line.split(":", 2)
        root = v1 if controller in names.split(",") else v2 if not names else None
        if root is None:
            continue
        group = root / path.lstrip("/")
        if not os.path.exists(group / "cgroup.procs"):  # noqa: PTH110 - False where it is closed
            group = root  # a namespace shows its own root
        while True:
            yield group, bool(not names)
            if group == root or root not in group.parents:
                break
            group = group.parent


def memory_limit() -> int | None:
    """Return the least memory limit of this process' groups, in bytes."""
    found = [
        _number(group / ("memory.max" if v2 else "memory.limit_in_bytes"))
        for group, v2 in groups("memory")
    ]
    limits = [value for value in found if value is not None and value < _NO_LIMIT]
    return min(limits, default=None)


def memory_free() -> int | None:
    """Return what is left below the tightest limit, in bytes; the file cache counts as free."""
    left = []
    for group, v2 in groups("memory"):
        limit = _number(group / ("memory.max" if v2 else "memory.limit_in_bytes"))
        if limit is None or limit >= _NO_LIMIT:
            continue
        used = _number(group / ("memory.current" if v2 else "memory.usage_in_bytes")) or 0
        cache = _field(group / "memory.stat", "file" if v2 else "total_cache") or 0
        shared = _field(group / "memory.stat", "shmem" if v2 else "total_shmem") or 0
        left.append(limit - max(0, used - max(0, cache - shared)))
    return min(left, default=None)


def cpu_limit() -> float | None:
    """Return the least CPU quota of this process' groups, in cores."""
    quotas = []
    for group, v2 in groups("cpu"):
        if v2:
            text = _text(group / "cpu.max")
            quota, _, period = text.partition(" ")
            if quota.isdigit() and period.strip():
                quotas.append(int(quota) / int(period))
        else:
            value = _number(group / "cpu.cfs_quota_us")
            length = _number(group / "cpu.cfs_period_us")
            if value and value > 0 and length:
                quotas.append(value / length)
    return min(quotas, default=None)


def oom_kills() -> int:
    """Return how often the kernel killed for want of memory in this process' own group."""
    for group, v2 in groups("memory"):
        name = "memory.events" if v2 else "memory.oom_control"
        return _field(group / name, "oom_kill") or 0
    return 0


class MemoryGroup:
    """A memory cgroup of one attempt, below the group of this process.

    Parameters
    ----------
    name : str
        Name of the group.
    limit : int
        Bytes.

    Raises
    ------
    OSError
        Groups cannot be made here; then the process tree is watched instead.
    """

    def __init__(self, name: str, limit: int) -> None:
        parent, self._v2 = next(groups("memory"), (None, False))
        if parent is None:
            raise OSError("no memory cgroup")
        self.path = parent / name
        self.path.mkdir(exist_ok=True)
        try:
            if self._v2:
                _write(self.path / "memory.max", limit)
                _write(self.path / "memory.oom.group", 1)
                swap = self.path / "memory.swap.max"
                if swap.exists():
                    _write(swap, 0)
            else:
                _write(self.path / "memory.limit_in_bytes", limit)
                both = self.path / "memory.memsw.limit_in_bytes"
                if both.exists():
                    _write(both, limit)
            self._procs = os.open(self.path / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            self.remove()
            raise

    def join(self) -> None:
        """Move this process into the group; for use after fork."""
        os.write(self._procs, b"0")

    def kills(self) -> int:
        """Return how often the kernel killed here."""
        name = "memory.events" if self._v2 else "memory.oom_control"
        return _field(self.path / name, "oom_kill") or 0

    def peak(self) -> int:
        """Return the most memory the group held, in bytes, files included; 0 if not told."""
        name = "memory.peak" if self._v2 else "memory.max_usage_in_bytes"
        return _number(self.path / name) or 0

    def remove(self) -> None:
        """Remove the group; it must be empty."""
        remove(self.path)


def remove(group: Path) -> None:
    """Remove an empty group; the kernel lets go of it a moment after its last process."""
    for _ in range(_TRIES):
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.01)
        else:
            return


def _write(path: Path, value: int) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, str(value).encode())
    finally:
        os.close(descriptor)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.lstrip("-").isdigit() else None


def _field(path: Path, name: str) -> int | None:
    for line in _text(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return None
