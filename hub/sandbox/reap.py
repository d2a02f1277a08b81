"""Clean what a crash has left behind; leave what runs alone."""

from __future__ import annotations

import logging

from hub.sandbox.sandboxes import Boxes

log = logging.getLogger(__name__)


def reap(boxes: Boxes) -> list[str]:
    """Remove every box whose server has ended, or whose start was cut off by the hub's end.

    Call it when the hub starts, before its first server: a server that runs is kept, since
    the hub adopts it again.

    Returns
    -------
    list of str
        The boxes removed.
    """
    gone = [key for key in sorted(boxes.known()) if boxes.starting(key) or not boxes.serving(key)]
    for key in gone:
        boxes.destroy(key)
    if gone:
        log.warning("Removed what %d ended user servers had left: %s", len(gone), ", ".join(gone))
    return gone


def remove_all(boxes: Boxes) -> None:
    """End every user server of the portal and remove all that it has made in the kernel."""
    for key in boxes.known():
        boxes.destroy(key)
    boxes.network.remove()
    boxes.groups.remove_parents()
