"""Clean what a crash has left behind; leave what runs alone."""

from __future__ import annotations

import logging

from hub.sandbox.sandboxes import Sandboxes
from hub.state import trash

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
        _destroy(sandboxes, key)
    trash.empty(sandboxes.instance.trash)  # what an earlier portal had no time for
    if gone:
        log.warning("Removed what %d ended user servers had left: %s", len(gone), ", ".join(gone))
    return gone


def remove_all(sandboxes: Sandboxes) -> None:
    """End every user server of the portal and remove all that it has made in the kernel."""
    for key in sorted(sandboxes.known()):
        _destroy(sandboxes, key)
    sandboxes.network.remove()
    sandboxes.groups.remove_parents()


def _destroy(sandboxes: Sandboxes, key: str) -> None:
    """Remove one; what is wrong with it is its own matter, not the others'."""
    try:
        sandboxes.destroy(key)
    except (OSError, RuntimeError) as error:
        log.error("Sandbox %s cannot be removed, the next start tries again: %s", key, error)
