"""How much memory a viewer needs, and how much there is: in bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

# What CellxGene takes before it has read any data (Python, numba, pandas).
BASE_BYTES = 340 * 2**20
# Bytes that a comparison of two groups takes per cell and gene at its peak. Measured with 6,000
# cells x 10,000 genes, one group against all others: 12.9 sparse, 11.9 dense.
COMPARE_BYTES = 13
# cgroup v1 writes "no limit" as a number close to 2**63.
_UNLIMITED = 2**60
_CGROUP_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Available:
    """Memory that a new process may take.

    Attributes
    ----------
    size : int
        In bytes.
    limit_by : str
        What sets the limit, in words for the user.
    """

    size: int
    limit_by: str


def available() -> Available:
    """Return the memory that a new process of this user may take.

    The smallest of: the profile's limit (``LABHUB_MEMORY_BYTES``) less what the user's processes
    hold, the limits of the cgroups this process is in (v1 and v2) less their use, and the
    machine's available memory.
    """
    found = [Available(psutil.virtual_memory().available, "the machine's free memory")]
    found += [
        Available(max(0, limit - used), "the memory limit of your server")
        for limit, used in _cgroup_limits(_CGROUP_ROOT, Path("/proc/self/cgroup"))
    ]
    for profile in _profile():
        left = max(0, profile - _own_processes())
        found.append(Available(left, "the memory limit of your server's profile"))
    return min(found, key=lambda one: one.size)


def limit() -> int:
    """Return the memory, in bytes, that this process and its children can ever take together.

    The smallest of the machine's memory, the limits of the cgroups this process is in, and what
    the portal says (``LABHUB_MEMORY_BYTES``).
    """
    limits = [most for most, _ in _cgroup_limits(_CGROUP_ROOT, Path("/proc/self/cgroup"))]
    return int(min([psutil.virtual_memory().total, *limits, *_profile()]))


def _profile() -> list[int]:
    """Return the limit that the portal says, in bytes; nothing where it says none."""
    said = os.environ.get("LABHUB_MEMORY_BYTES", "")
    return [int(said)] if said.isascii() and said.isdigit() and int(said) > 0 else []


def _own_processes() -> int:
    """Return the memory held by all visible processes of this user (unique pages), in bytes."""
    total = 0
    for process in psutil.process_iter():
        try:
            if process.uids().real == os.getuid():
                total += process.memory_full_info().uss
        except psutil.Error:
            continue  # ended meanwhile, or not ours to look at
    return total


def _cgroup_limits(root: Path, membership: Path) -> Iterator[tuple[int, int]]:
    """Yield (limit, use) of each memory cgroup from this process' own up to the root."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            tree, names = root, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            tree = root / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        folder = tree / group.lstrip("/")
        # In a container the path may be the host's: then the mount's root is the own group.
        for candidate in (folder, *folder.parents):
            if tree in (candidate, *candidate.parents):
                yield from _limit_of(candidate, *names)


def _limit_of(folder: Path, limit: str, use: str, cache: str) -> Iterator[tuple[int, int]]:
    try:
        most = int((folder / limit).read_text())
        used = int((folder / use).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return  # no such file, or "max": no limit here
    if most < _UNLIMITED:
        # File cache that the kernel drops on demand is not really used.
        yield most, max(0, used - int(stat.get(cache, 0)))
