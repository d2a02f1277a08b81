"""What SLURM's states and pending reasons mean, in labkit's words and in plain ones."""

from __future__ import annotations

from functools import lru_cache

from labkit.jobs.model import Reason, Sighting, State

#: Final states and why a task in one of them has no record.
ENDED = {
    "BOOT_FAIL": (Reason.NODE_FAIL, "its node did not start"),
    "CANCELLED": (Reason.CANCELLED, "was cancelled outside of labkit (scancel)"),
    "DEADLINE": (Reason.TIMEOUT, "its deadline has passed"),
    "FAILED": (Reason.LOST, "ended before it could leave a record"),
    "NODE_FAIL": (Reason.NODE_FAIL, "its node failed"),
    "OUT_OF_MEMORY": (Reason.OUT_OF_MEMORY, "SLURM ended it: out of memory"),
    "PREEMPTED": (Reason.PREEMPTED, "SLURM gave its node to a job with higher priority"),
    "REVOKED": (Reason.CANCELLED, "another cluster runs it"),
    "TIMEOUT": (Reason.TIMEOUT, "took longer than SLURM's time limit"),
}
#: States in which SLURM still has a job, or will run it.
_RUNNING = {
    "RUNNING": "",
    "COMPLETING": "",
    "RESIZING": "",
    "SIGNALING": "",
    "STAGE_OUT": "",
    "STOPPED": "its processes are stopped",
    "SUSPENDED": "is suspended: a job with higher priority has its node",
}
_WAITING = {
    "CONFIGURING": "its node is starting",
    "REQUEUED": "was put back into the queue",
    "REQUEUE_FED": "was put back into the queue",
    "REQUEUE_HOLD": "is held: `scontrol release` lets it go on",
    "RESV_DEL_HOLD": "is held: its reservation was deleted",
    "SPECIAL_EXIT": "is held: `scontrol release` lets it go on",
}
_REASONS = {
    "": "",
    "None": "waits for the scheduler's next round",
    "Resources": "waits for free nodes",
    "Priority": "waits: jobs with higher priority come first",
    "Dependency": "waits for the stage before it",
    "DependencyNeverSatisfied": "will not run: the stage before it failed",
    "BeginTime": "starts again shortly",
    "JobArrayTaskLimit": "waits: as many tasks run as slurm_array_limit allows",
    "JobHeldUser": "is held: `scontrol release` lets it go on",
    "JobHeldAdmin": "is held by an administrator",
    "job requeued in held state": "is held: `scontrol release` lets it go on",
    "launch failed requeued held": "is held: it could not be started; ask the cluster's admin",
    "PartitionDown": "waits: the partition is down",
    "PartitionInactive": "waits: the partition takes no jobs now",
    "PartitionNodeLimit": "asks for more nodes than the partition has, or they are down",
    "PartitionTimeLimit": "asks for more time than the partition gives",
    "PartitionConfig": "asks for what the partition does not give",
    "NodeDown": "waits: the nodes that it needs are down",
    "ReqNodeNotAvail": "waits: the nodes that it needs are down or reserved",
    "BadConstraints": "no node has what slurm_constraint asks for",
    "Constraints": "waits for a node that has what slurm_constraint asks for",
    "Reservation": "waits for its reservation",
    "Licenses": "waits for a licence",
    "FrontEndDown": "waits: the cluster's front end is down",
    "InvalidAccount": "slurm_account is not valid",
    "InvalidQOS": "slurm_qos is not valid",
    "SchedDefer": "waits for the scheduler's next round",
    "SystemFailure": "SLURM or its file system has failed; ask the cluster's admin",
    "JobLaunchFailure": "could not be started; ask the cluster's admin",
    "Cleaning": "waits until its last attempt is cleaned up",
    "BurstBufferResources": "waits for burst-buffer space",
    "FedJobLock": "waits for another cluster",
}
_PREFIXES = (
    ("ReqNodeNotAvail", "waits: the nodes that it needs are down or reserved"),
    ("Nodes required for job are DOWN", "waits: the nodes that it needs are down or reserved"),
    ("QOSMax", "waits: the QOS allows no more at once"),
    ("QOSGrp", "waits: the QOS allows its users together no more at once"),
    ("QOS", "waits: a limit of the QOS is reached"),
    ("AssocMax", "waits: your account allows no more at once"),
    ("AssocGrp", "waits: your account's users together may run no more at once"),
    ("Assoc", "waits: a limit of your account is reached"),
    ("MaxGRES", "waits: a limit on GPUs is reached"),
    ("Max", "waits: a limit of your account is reached"),
    ("BurstBuffer", "waits for burst-buffer space"),
)
#: What squeue is asked for: all but COMPLETED, whose record tells more.
QUERIED = ",".join(sorted({*ENDED, *_RUNNING, *_WAITING, "PENDING"}))


@lru_cache(1024)  # thousands of tasks are in few states
def sighting(state: str, reason: str) -> Sighting | None:
    """Return what a state and reason of squeue say of a task; None where records tell better."""
    if state == "PENDING":
        return Sighting(State.PENDING, text=plain(reason))
    if state in _WAITING:
        return Sighting(State.PENDING, text=_WAITING[state])
    if state in _RUNNING:
        return Sighting(State.RUNNING, text=_RUNNING[state])
    if state not in ENDED or reason == "DependencyNeverSatisfied":
        return None
    why, text = ENDED[state]
    final = State.CANCELLED if why is Reason.CANCELLED else State.FAILED
    return Sighting(final, why, text)


def plain(reason: str) -> str:
    """Return a pending reason in plain words, with SLURM's own in brackets."""
    word = reason.strip().strip("()")
    text = _REASONS.get(word)
    if text is None:
        text = next((words for start, words in _PREFIXES if word.startswith(start)), "waits")
    return f"{text} ({word})" if text and word not in ("", "None") else text
