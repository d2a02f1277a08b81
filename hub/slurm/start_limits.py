"""How long a start may take: in the queue, and from the node's choice to the server's answer."""

from __future__ import annotations

import time
from collections.abc import Callable

from hub.labfile.slurm import Slurm
from labkit.base.units import format_duration
from labkit.slurm.queue import Job
from labkit.slurm.reasons import why
from labkit.slurm.states import STARTING, WAITING


class StartLimits:
    """The two time-outs of a start, each with its own words.

    Parameters
    ----------
    slurm : Slurm
        The lab file's section: ``queue_timeout`` and ``boot_timeout``.
    waited : float
        Seconds that it has waited already, under an earlier hub.
    clock : callable, optional
        Returns seconds that only grow.
    """

    def __init__(
        self, slurm: Slurm, waited: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._queue = slurm.queue_timeout.total_seconds()
        self._boot = slurm.boot_timeout.total_seconds()
        self._clock = clock
        self._since = clock() - waited
        self._placed: float | None = None

    def verdict(self, job: Job) -> str:
        """Return why a start has taken too long; empty while it has not.

        Parameters
        ----------
        job : Job
            As SLURM has it now.
        """
        now = self._clock()
        if job.state in WAITING:
            self._placed = None  # it may have been put back
            if now - self._since < self._queue:
                return ""
            return (
                f"it waited in the queue of the partition {job.partition} for"
                f" {format_duration(self._queue)}, the longest that the lab allows:"
                f" {why(job.reason).text} Try again later, or with a smaller profile"
            )
        if self._placed is None:
            self._placed = now
        if now - self._placed < self._boot:
            return ""
        most = format_duration(self._boot)
        if job.state in STARTING:
            return f"the node {job.host} was not ready {most} after it was chosen"
        return f"its job runs on {job.host}, but the server did not answer within {most}"
