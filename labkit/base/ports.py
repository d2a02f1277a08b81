"""Ports of this machine for a program that binds its own a moment later."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from labkit.base.problems import LabkitError

LOOPBACK = "127.0.0.1"
_LOWEST, _HIGHEST = 10_000, 65_535
_OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")
_USUAL_OUTGOING = (32_768, 60_999)
# Browsers refuse to open these (WHATWG fetch, "port blocking"; those above 1023).
BLOCKED = frozenset(
    {1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, *range(6665, 6670)}
    | {6679, 6697, 10080}
)


class NoPortError(LabkitError):
    """There are fewer free ports than were asked for."""


def outgoing() -> range:
    """Return the ports that the kernel gives to outgoing connections.

    Any program takes one of them at any moment, without having chosen it.
    """
    try:
        first, last = map(int, _OUTGOING.read_text(encoding="ascii").split())
    except (OSError, ValueError):
        first, last = _USUAL_OUTGOING
    return range(first, last + 1)


def free_ports(count: int) -> list[int]:
    """Return free ports of 127.0.0.1 that no outgoing connection takes meanwhile.

    They are drawn at random, so that programs that choose at the same time rarely meet.

    Parameters
    ----------
    count : int
        How many, all different.

    Returns
    -------
    list of int
        Ports above 9,999 that browsers open.

    Raises
    ------
    NoPortError
        There are not as many.
    """
    taken = outgoing()
    quiet = [port for port in range(_LOWEST, _HIGHEST + 1) if port not in taken]
    # Where the kernel has nearly all for itself, any free one has to do.
    candidates = quiet if len(quiet) >= 1000 else list(range(_LOWEST, _HIGHEST + 1))
    free: list[int] = []
    for port in random.sample(candidates, len(candidates)):
        if len(free) == count:
            break
        if port not in BLOCKED and _is_free(port):
            free.append(port)
    if len(free) < count:
        raise NoPortError(
            f"There are no {count} free ports on {LOOPBACK}: end programs that hold them."
        )
    return free


def free_port() -> int:
    """Return one free port, as `free_ports` does."""
    return free_ports(1)[0]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
