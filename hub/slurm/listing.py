"""All user servers as the cluster has them: whose, which job, where, how, for how long."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from labkit.base.units import format_duration
from labkit.slurm.exit_reasons import how
from labkit.slurm.queue import Job
from labkit.slurm.reasons import why
from labkit.slurm.states import COMPLETING, ENDED, STARTING, WAITING


@dataclass(frozen=True)
class ServerJob:
    """A user server and its job.

    Attributes
    ----------
    user, server : str
        Whose, and its name; the unnamed one's is empty.
    job : str
        The job's number.
    state : str
        ``waits``, ``node starts``, ``runs``, ``suspended``, ``ends``, ``ended`` or ``unknown``.
    partition, node : str
        Where.
    left : float or None
        Seconds until its time limit; None where it does not run, or has none.
    reason : str
        Why it is in that state; may be empty.
    """

    user: str
    server: str
    job: str
    state: str
    partition: str = ""
    node: str = ""
    left: float | None = None
    reason: str = ""

    @property
    def time_left(self) -> str:
        """The time that is left, for people."""
        return "" if self.left is None else format_duration(self.left)


def server_jobs(
    servers: Mapping[tuple[str, str], str],
    rows: Mapping[str, Job],
    clock: Callable[[], float] = time.time,
) -> list[ServerJob]:
    """Return what SLURM says of each server, by user and server.

    Parameters
    ----------
    servers : mapping of (str, str) to str
        User and server -> its job, as the hub knows them.
    rows : mapping of str to Job
        SLURM's queue, by number.
    clock : callable, optional
        Returns seconds since 1970.
    """
    return [
        _one(user, server, job, rows.get(job), clock())
        for (user, server), job in sorted(servers.items())
    ]


def _one(user: str, server: str, job: str, row: Job | None, now: float) -> ServerJob:
    if row is None:
        return ServerJob(user, server, job, "unknown", reason="SLURM does not list it")
    node = row.host if row.host != "n/a" else ""
    if row.state in WAITING:
        reason = f"{why(row.reason).text} ({row.reason})"
        return ServerJob(user, server, job, "waits", row.partition, node, reason=reason)
    if row.state in STARTING:
        return ServerJob(user, server, job, "node starts", row.partition, node)
    if row.state == COMPLETING or row.state in ENDED:
        state = "ends" if row.state == COMPLETING else "ended"
        reason = how(row.state, reason=row.reason, ran=row.lasted, node=node)
        return ServerJob(user, server, job, state, row.partition, node, reason=reason)
    suspended = row.state in ("SUSPENDED", "STOPPED")
    return ServerJob(
        user,
        server,
        job,
        "suspended" if suspended else "runs",
        row.partition,
        node,
        None if row.end is None else max(0.0, row.end - now),
        "scontrol resume lets it go on" if suspended else "",
    )
