"""What SLURM could not do or has forgotten: it is asked again.

A node that dies while a job is handed to it leaves the job "launch failed requeued held": SLURM
never starts it by itself. Nothing of it has run, or its records tell what has.

The first stages of a job are held until the last one is there. A controller that is killed right
after it has released them forgets that, and would hold them for ever. They carry a comment until
they are released, so that what a person holds stays held. A cancel can be forgotten in the same
way, or have been asked for while the controller was away.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Collection, Iterable
from contextlib import suppress

from labkit.jobs.backends.slurm import array_layout
from labkit.slurm import commands
from labkit.slurm.commands import SlurmRefusedError, SlurmUnavailableError
from labkit.slurm.queue import Job

log = logging.getLogger(__name__)

#: Options of sbatch for a job that labkit itself holds.
HOLD = ("--hold", "--comment=held_by_labkit")
_HELD_BY_LABKIT = re.compile(r"\bComment=held_by_labkit\b")
_LAUNCH_FAILED = "launch_failed_requeued_held"
_HELD_BY_USER = "JobHeldUser"
_PAUSE = 60.0  # seconds between two tries
_TRIES = 5  # of one element; then its node, or the cluster, has to be looked at
# (job name, element or array) -> how often it was tried, and when last, on the monotonic clock
_tried: dict[tuple[str, str], tuple[int, float]] = {}


def let_go(arrays: Iterable[str]) -> None:
    """Release arrays that labkit holds, and take the mark off them.

    Raises
    ------
    SlurmRefusedError, SlurmUnavailableError
        They may be held still.
    """
    listed = ",".join(arrays)
    commands.run("scontrol", "release", listed)
    with suppress(SlurmRefusedError, SlurmUnavailableError):
        commands.run("scontrol", "update", f"JobId={listed}", "Comment=released")


def release(jobs: Iterable[Job], handed_over: Collection[str]) -> None:
    """Let SLURM go on with what nobody wants held; what it refuses is shown as on hold.

    Parameters
    ----------
    jobs : iterable of Job
        What squeue says of this user's jobs; those that are not labkit's are left alone.
    handed_over : collection of str
        Numbers of the arrays of submissions that are wholly in the queue.
    """
    for job in jobs:
        if job.state != "PENDING" or array_layout.parse_name(job.name) is None:
            continue
        reason = job.reason.replace(" ", "_")
        if reason == _LAUNCH_FAILED:
            chosen = job.elements if job.elements.isdigit() else f"[{job.elements}]"
            element = f"{job.array}_{chosen}"
            if _may_try(job.name, element):
                with suppress(SlurmRefusedError, SlurmUnavailableError):
                    commands.run("scontrol", "release", element)
                    log.info("%s could not be started on its node, and is tried again", element)
        elif reason == _HELD_BY_USER and job.array in handed_over and _may_try(job.name, job.array):
            with suppress(SlurmRefusedError, SlurmUnavailableError):
                if _HELD_BY_LABKIT.search(commands.run("scontrol", "show", "job", job.array)):
                    let_go([job.array])
                    log.info("SLURM had forgotten that %s was released", job.array)


def cancel_again(jobs: Iterable[Job], cancelled: Collection[str]) -> None:
    """Cancel what is still there of cancelled submissions.

    Parameters
    ----------
    jobs : iterable of Job
        What squeue says of this user's jobs.
    cancelled : collection of str
        Names of the cancelled submissions.
    """
    for job in jobs:
        named = array_layout.parse_name(job.name)
        if named is None or named[0] not in cancelled or job.state not in ("PENDING", "RUNNING"):
            continue
        if _may_try(job.name, f"cancel {job.array}"):
            with suppress(SlurmRefusedError, SlurmUnavailableError):
                commands.run("scancel", "--quiet", job.array)


def _may_try(name: str, what: str) -> bool:
    """Return whether it is time to try something again; not too often, and not for ever."""
    now = time.monotonic()
    count, last = _tried.get((name, what), (0, now - _PAUSE))
    if count >= _TRIES or now - last < _PAUSE:
        return False
    _tried[name, what] = (count + 1, now)
    return True
