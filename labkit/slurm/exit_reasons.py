"""How a job ended, in words for its owner."""

from __future__ import annotations

# State -> words, and what may be added in brackets.
_WORDS = {
    "COMPLETED": "it ended by itself",
    "COMPLETING": "it has just ended",
    "CANCELLED": "its job was cancelled",
    "DEADLINE": "its deadline has passed",
    "FAILED": "it ended with an error",
    "TIMEOUT": "it reached its time limit{limit}",
    "OUT_OF_MEMORY": "it used more memory than it has{memory}",
    "NODE_FAIL": "{node} failed",
    "BOOT_FAIL": "{node} could not be started",
    "PREEMPTED": "it had to give way to a job with higher priority",
    "REVOKED": "another cluster runs it",
}


def how(state: str, *, limit: str = "", memory: str = "", node: str = "") -> str:
    """Say how a job ended.

    Parameters
    ----------
    state : str
        SLURM's word; empty: it does not remember the job.
    limit, memory : str, optional
        What it was given: time and memory.
    node : str, optional
        Where it ran.

    Returns
    -------
    str
        A sentence without its full stop, whose "it" is what the job ran.
    """
    if not state:
        return "its job is not in SLURM's queue any more"
    return _WORDS.get(state, f"its job ended as {state}").format(
        limit=f" ({limit})" if limit else "",
        memory=f" ({memory})" if memory else "",
        node=f"the node {node}" if node else "its node",
    )
