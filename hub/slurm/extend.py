"""Give a running job more time, and no more than its partition gives any job."""

from __future__ import annotations

import math
from datetime import timedelta

from hub.slurm.commands import run_slurm
from hub.slurm.poller import COLUMNS
from hub.slurm.poller import parse as parse_rows
from labkit.base.problems import Problem, ProblemsError
from labkit.base.units import format_duration
from labkit.slurm.cluster import PARTITIONS, parse_partitions


async def extend(job_id: str, more: timedelta) -> float:
    """Move a job's time limit and return its new end, in seconds since 1970.

    SLURM itself lets its operators go beyond the partition's limit.

    Parameters
    ----------
    job_id : str
        The job.
    more : timedelta
        How much later it is to end; whole minutes.

    Raises
    ------
    ProblemsError
        It does not run, has no time limit, or would have more than its partition gives.
    SlurmUnavailableError, SlurmRefusedError
        As `hub.slurm.commands.run_slurm`.
    """
    text = await run_slurm("squeue", "-h", "-a", "-j", job_id, "-o", COLUMNS.format)
    row = parse_rows(text).get(job_id)
    if row is None or row.start is None or row.end is None:
        raise ProblemsError([Problem(f"job {job_id}", "has no end that could be moved", "squeue")])
    minutes = max(1, math.ceil(more.total_seconds() / 60))
    partitions = parse_partitions(await run_slurm("scontrol", *PARTITIONS))
    limit = next((p.max_time for p in partitions if p.name == row.partition), None)
    whole = timedelta(seconds=row.end - row.start, minutes=minutes)
    if limit is not None and whole > limit:
        left = limit - timedelta(seconds=row.end - row.start)
        text = (
            f"it would have {format_duration(whole)}, and the partition {row.partition} gives a job"
            f" at most {format_duration(limit)}"
        )
        can = f"at most {format_duration(left)} more" if left >= timedelta(minutes=1) else "no more"
        raise ProblemsError([Problem(f"job {job_id}", text, f"it can have {can}")])
    await run_slurm("scontrol", "update", f"JobId={job_id}", f"TimeLimit=+{minutes}")
    return row.end + 60 * minutes
