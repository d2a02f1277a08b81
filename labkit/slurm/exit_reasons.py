"""How a job ended, in words for its owner."""

from __future__ import annotations

import re

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


_LAUNCHED = 10.0  # seconds after which a launch has not failed
# What SLURM's daemon on the node writes into a job's log when it ends it, with cgroups and without.
_DAEMON = re.compile(r"^slurmstepd\S*: error: (.*)", re.MULTILINE)
_MEMORY = re.compile(r"exceeded (?:\w+ )?memory limit|oom[-_]kill", re.IGNORECASE)


def over_memory(log: str, job: str) -> bool:
    """Whether SLURM says in a log that a job took too much memory.

    Parameters
    ----------
    log : str
        The log's end; an earlier job's where this one could not write there.
    job : str
        The job's number.
    """
    step = re.compile(rf"\b{re.escape(job)}\.\w")
    return any(step.search(line) and _MEMORY.search(line) for line in _DAEMON.findall(log))


def how(
    state: str,
    *,
    reason: str = "",
    ran: float = 0.0,
    over_memory: bool = False,
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
    ran : float
        Seconds that it ran: of a script that a signal has killed SLURM says, too, that it could
        not be launched.
    over_memory : bool
        Whether its log says so (`over_memory`): without cgroups, nothing else does.
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
    if state == "FAILED" and over_memory:
        state = "OUT_OF_MEMORY"
    elif reason == "JobLaunchFailure" and ran >= _LAUNCHED:
        whose = f"its own memory ({memory})" if memory else "its own memory"
        return f"it was killed on {place}, mostly because {whose} or the node's was used up"
    elif reason == "JobLaunchFailure":
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
