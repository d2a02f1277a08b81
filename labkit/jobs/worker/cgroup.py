"""A memory cgroup (v1, hybrid, v2) of one attempt."""

from __future__ import annotations

import os
import time
from pathlib import Path

from labkit.base import cgroups

_TRIES = 50


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
        parent, v2 = next(cgroups.groups("memory"), (None, False))
        if parent is None:
            raise OSError("no memory cgroup")
        self.path = parent / name
        self.path.mkdir(exist_ok=True)
        try:
            if v2:
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
        return cgroups.oom_kills(self.path)

    def peak(self) -> int:
        """Return the most memory the group held, in bytes, files included; 0 if not told."""
        return cgroups.memory_peak(self.path)

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
