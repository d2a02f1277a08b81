"""Clean what a crash has left behind; leave what runs alone."""

from __future__ import annotations

import logging

from hub.sandbox.sandboxes import Sandboxes

log = logging.getLogger(__name__)


def reap(sandboxes: Sandboxes) -> list[str]:
    """Remove every sandbox whose server has ended, or whose start was cut off by the hub's end.

    Call it when the hub starts, before its first server: a server that runs is kept, since
    the hub adopts it again.

    Returns
    -------
    list of str
        The sandboxes removed.
    """
    gone = [
        key
        for key in sorted(sandboxes.known())
        if sandboxes.starting(key) or not sandboxes.serving(key)
    ]
    for key in gone:
        sandboxes.destroy(key)
    if gone:
        log.warning("Removed what %d ended user servers had left: %s", len(gone), ", ".join(gone))
    return gone


def remove_all(sandboxes: Sandboxes) -> None:
    """End every user server of the portal and remove all that it has made in the kernel."""
    for key in sandboxes.known():
        sandboxes.destroy(key)
    sandboxes.network.remove()
    sandboxes.groups.remove_parents()
