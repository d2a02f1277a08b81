"""What SLURM's words say of a labkit task."""

from __future__ import annotations

from functools import lru_cache

from labkit.jobs.model import Reason, Sighting, State
from labkit.slurm import states
from labkit.slurm.exit_reasons import how
from labkit.slurm.reasons import why

# Why a task in one of the final states has no record.
_REASONS = {
    "BOOT_FAIL": Reason.NODE_FAIL,
    "CANCELLED": Reason.CANCELLED,
    "DEADLINE": Reason.TIMEOUT,
    "FAILED": Reason.LOST,
    "NODE_FAIL": Reason.NODE_FAIL,
    "OUT_OF_MEMORY": Reason.OUT_OF_MEMORY,
    "PREEMPTED": Reason.PREEMPTED,
    "REVOKED": Reason.CANCELLED,
    "TIMEOUT": Reason.TIMEOUT,
}
# Labkit leaves a mark before it cancels: then nobody asks for these words.
_ENDS = {
    "CANCELLED": "its job was cancelled outside of labkit (scancel)",
    "FAILED": "it ended before it could leave a record",
}
# Where labkit knows more than SLURM, which names neither stages nor labkit's options.
_OURS = {
    "Dependency": "It waits for the stage before it.",
    "DependencyNeverSatisfied": "It will not run: the stage before it failed.",
    "JobArrayTaskLimit": "As many tasks run at once as slurm_array_limit allows.",
}
_LIVE = {
    "REQUEUED": "It was put back into the queue.",
    "REQUEUE_FED": "It was put back into the queue.",
    "REQUEUE_HOLD": "It is on hold: `scontrol release` lets it go on.",
    "RESV_DEL_HOLD": "It is on hold: its reservation was deleted.",
    "SPECIAL_EXIT": "It is on hold: `scontrol release` lets it go on.",
    "CONFIGURING": "Its node is starting.",
    "STOPPED": "Its processes are stopped.",
    "SUSPENDED": "It is suspended: a job with higher priority has its node.",
}
#: What squeue is asked for: all but COMPLETED, whose record tells more.
QUERIED = ",".join(sorted(states.ALL - {"COMPLETED"}))


@lru_cache(1024)  # thousands of tasks are in few states
def sighting(state: str, reason: str) -> Sighting | None:
    """Return what a state and reason of squeue say of a task; None where records tell better."""
    if state == "PENDING":
        return Sighting(State.PENDING, text=waits(reason))
    if state in states.WAITING | states.STARTING:
        return Sighting(State.PENDING, text=_LIVE[state])
    # What completes may be put back into the queue.
    if state in states.RUNNING or state == states.COMPLETING:
        return Sighting(State.RUNNING, text=_LIVE.get(state, ""))
    if state not in _REASONS or reason == "DependencyNeverSatisfied":
        return None
    cause = _REASONS[state]
    final = State.CANCELLED if cause is Reason.CANCELLED else State.FAILED
    return Sighting(final, cause, _ENDS.get(state) or how(state))


def waits(reason: str) -> str:
    """Return a pending reason in plain words, with SLURM's own in brackets."""
    code = reason.strip().strip("()")
    if code == "":
        return ""
    text = _OURS.get(code) or why(code).text
    return text if code == "None" or code in text else f"{text.rstrip('.')} ({code})."
