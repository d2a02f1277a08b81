"""How a server's job ended, in words for its owner."""

from __future__ import annotations

from hub.slurm.poller import ENDED, JobRow


def how(row: JobRow | None, job_id: str, *, memory: str, limit: str) -> str:
    """Say how a job ended.

    Parameters
    ----------
    row : JobRow or None
        What SLURM last said of it; None: it does not remember it.
    job_id : str
        Its number.
    memory, limit : str
        What it was given: memory and time.

    Returns
    -------
    str
        The end of a sentence about the server.
    """
    state = row.state if row and row.state in ENDED else ""
    if row and state == "COMPLETING" and row.reason == "TimeLimit":
        state = "TIMEOUT"
    node = f"the node {row.host}" if row and row.host else "its node"
    words = {
        "": "its job is not in SLURM's queue any more",
        "COMPLETED": "it ended by itself",
        "COMPLETING": "it has just ended",
        "CANCELLED": "its job was cancelled",
        "FAILED": "it ended with an error",
        "TIMEOUT": f"it reached its time limit ({limit})",
        "OUT_OF_MEMORY": f"it used more memory than it has ({memory})",
        "NODE_FAIL": f"{node} failed",
        "BOOT_FAIL": f"{node} could not be started",
        "PREEMPTED": "it had to give way to another job",
    }
    return f"{words.get(state, f'its job ended as {state}')} (job {job_id})"
