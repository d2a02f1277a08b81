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


def how(
    state: str,
    *,
    reason: str = "",
    limit: str = "",
    memory: str = "",
    node: str = "",
    home: str = "",
) -> str:
    """Say how a job ended.

    Parameters
    ----------
    state : str
        SLURM's word; empty: it does not remember the job.
    reason : str, optional
        squeue's reason, which tells more than the state of some ends.
    limit, memory : str, optional
        What it was given: time and memory.
    node : str, optional
        Where it ran.
    home : str, optional
        Its owner's home, where its log is written.

    Returns
    -------
    str
        A sentence without its full stop, whose "it" is what the job ran.
    """
    place = f"the node {node}" if node else "its node"
    if reason == "JobLaunchFailure":
        folder = f"its owner's home ({home})" if home else "its owner's home"
        return (
            f"{place} could not begin it, mostly because {folder} is missing there or cannot be"
            " written"
        )
    if state == "COMPLETING" and reason == "TimeLimit":
        state = "TIMEOUT"
    if not state:
        return "its job is not in SLURM's queue any more"
    return _WORDS.get(state, f"its job ended as {state}").format(
        limit=f" ({limit})" if limit else "",
        memory=f" ({memory})" if memory else "",
        node=place,
    )
