"""How much memory a viewer needs, and how much there is: in bytes."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil

from labkit.base import cgroups

# What CellxGene takes before it has read any data (Python, numba, pandas).
BASE_BYTES = 340 * 2**20
# Bytes that a comparison of two groups takes per cell and gene at its peak. Measured with 6,000
# cells x 10,000 genes, one group against all others: 12.9 sparse, 11.9 dense.
COMPARE_BYTES = 13


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
    bounds = [Available(psutil.virtual_memory().available, "the machine's free memory")]
    bounds += [
        Available(max(0, one.limit - one.used), "the memory limit of your server")
        for one in cgroups.memory_limits()
    ]
    for profile in _profile():
        left = max(0, profile - _own_processes())
        bounds.append(Available(left, "the memory limit of your server's profile"))
    return min(bounds, key=lambda one: one.size)


def limit() -> int:
    """Return the memory, in bytes, that this process and its children can ever take together.

    The smallest of the machine's memory, the limits of the cgroups this process is in, and what
    the portal says (``LABHUB_MEMORY_BYTES``).
    """
    limits = [one.limit for one in cgroups.memory_limits()]
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
