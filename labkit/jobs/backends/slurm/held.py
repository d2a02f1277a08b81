"""Jobs that SLURM holds since it could not start them on their node: it is asked to try again.

A node that dies while a job is handed to it leaves the job "launch failed requeued held": SLURM
never starts it by itself. Nothing of it has run, or its records tell what has.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from contextlib import suppress

from labkit.jobs.backends.slurm import array_layout
from labkit.slurm import commands
from labkit.slurm.commands import SlurmRefusedError, SlurmUnavailableError
from labkit.slurm.queue import Job

log = logging.getLogger(__name__)

_LAUNCH_FAILED = "launch_failed_requeued_held"
_PAUSE = 60.0  # seconds between two tries
_TRIES = 5  # of one element; then its node, or the cluster, has to be looked at
# element -> how often it was tried, and when last, on the monotonic clock
_tried: dict[str, tuple[int, float]] = {}


def release(jobs: Iterable[Job]) -> None:
    """Let SLURM try again what it could not start; what it refuses is shown as on hold.

    Parameters
    ----------
    jobs : iterable of Job
        What squeue says of this user's jobs; those that are not labkit's are left alone.
    """
    now = time.monotonic()
    for job in jobs:
        if job.state != "PENDING" or job.reason.replace(" ", "_") != _LAUNCH_FAILED:
            continue
        if array_layout.parse_name(job.name) is None:
            continue
        chosen = job.elements if job.elements.isdigit() else f"[{job.elements}]"
        element = f"{job.array}_{chosen}"
        count, last = _tried.get(element, (0, now - _PAUSE))
        if count >= _TRIES or now - last < _PAUSE:
            continue
        _tried[element] = (count + 1, now)
        with suppress(SlurmRefusedError, SlurmUnavailableError):
            commands.run("scontrol", "release", element)
            log.info("%s could not be started on its node, and is tried again", element)
