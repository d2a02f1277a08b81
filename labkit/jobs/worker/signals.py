"""What a SIGTERM from outside means."""

from __future__ import annotations

import os
import re
from pathlib import Path

_TAIL = 4096  # bytes
_UNKNOWN = "was ended from outside (SIGTERM)"
# slurmstepd writes why it ends a job into the job's output before it sends SIGTERM.
_SLURM = re.compile(
    rb"\*\*\* (?:JOB|STEP) \S+ ON \S+ CANCELLED AT \S+(?: DUE TO ([A-Z ]+?))? \*\*\*"
)
_SLURMS = {
    b"PREEMPTION": ("PREEMPTED", "SLURM gave its node to a job with higher priority"),
    b"TIME LIMIT": ("TIMEOUT", "took longer than SLURM's time limit"),
    b"NODE FAILURE": ("NODE_FAIL", "its node failed"),
    b"JOB REQUEUE": ("PREEMPTED", "was put back into the queue by hand"),
    b"": ("CANCELLED", "was cancelled outside of labkit (scancel)"),
}


def of(told: str) -> tuple[str, str]:
    """Return reason and text of a SIGTERM.

    Parameters
    ----------
    told : str
        The reason, or ``"SLURM"``: then the job's output, where our stderr goes, says more.
    """
    if told != "SLURM":
        return told, _UNKNOWN
    return slurm() or ("PREEMPTED", _UNKNOWN)


def slurm() -> tuple[str, str] | None:
    """Return reason and text of what SLURM has ended this job for last; None where it has not."""
    try:
        with Path("/proc/self/fd/2").resolve().open("rb") as output:
            output.seek(max(0, os.fstat(output.fileno()).st_size - _TAIL))
            found = _SLURM.findall(output.read())
    except OSError:
        return None
    return _SLURMS.get(found[-1]) if found else None
