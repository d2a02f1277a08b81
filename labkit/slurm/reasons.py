"""SLURM's codes in words: why a job waits, and what a person can do about it.

The codes are those of Slurm's documentation, "Job Reason Codes" and squeue's "JOB REASON
CODES", of the releases 20.11 to 25.05.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """Why a job waits.

    Attributes
    ----------
    text : str
        One sentence.
    hint : str
        What a person can do; empty where waiting is all there is to do.
    hopeless : bool
        Whether the job never starts unless somebody does something.
    """

    text: str
    hint: str = ""
    hopeless: bool = False


_ASK = "Ask your lab's administrator."
_OTHER = "Cancel, and choose another profile or partition."
_LATER = "It starts when your other jobs and servers end; you can stop one of them."

_EXACT = {
    "None": Reason("The cluster has not looked at it yet."),
    "Priority": Reason("Other jobs are before it in the queue."),
    "Resources": Reason("It is next: it waits until enough cores and memory are free."),
    "Nodes_required_for_job_are_DOWN,_DRAINED_or_reserved_for_jobs_in_higher_priority_partitions": (
        Reason("The nodes that it could run on are down, or held for more urgent jobs.", _OTHER)
    ),
    "ReqNodeNotAvail": Reason(
        "Nodes that it needs are not available: down, or reserved, perhaps for maintenance.", _OTHER
    ),
    "NodeDown": Reason("A node that it needs is down.", _OTHER),
    "Reservation": Reason("It waits for the time that was reserved for it."),
    "BeginTime": Reason("It is not to start before a set time; after a failed node SLURM waits."),
    "Cleaning": Reason("Its last run is still being cleaned up."),
    "Prolog": Reason("The cluster prepares the node."),
    "Dependency": Reason("It waits for another job to end."),
    "DependencyNeverSatisfied": Reason(
        "It waits for another job that failed.", _ASK, hopeless=True
    ),
    "Licenses": Reason("It waits for a licence."),
    "JobArrayTaskLimit": Reason("As many tasks of its array run as may run at once."),
    "JobHeldUser": Reason("It is on hold.", "Cancel and start again.", hopeless=True),
    "JobHeldAdmin": Reason("An administrator holds it.", _ASK, hopeless=True),
    "JobHoldMaxRequeue": Reason(
        "It was started too often without success, and is on hold.", _ASK, hopeless=True
    ),
    "launch_failed_requeued_held": Reason(
        "It could not be started on its node, and is on hold.", _ASK, hopeless=True
    ),
    "job_requeued_in_held_state": Reason("It was put back and is on hold.", _ASK, hopeless=True),
    "JobLaunchFailure": Reason("It could not be started on its node.", _ASK, hopeless=True),
    "InvalidAccount": Reason("The cluster does not know its account.", _ASK, hopeless=True),
    "AccountNotAllowed": Reason("Its account may not use this partition.", _OTHER, hopeless=True),
    "InvalidQOS": Reason("The cluster does not know its quality of service.", _ASK, hopeless=True),
    "QOSNotAllowed": Reason("Its quality of service is not allowed here.", _OTHER, hopeless=True),
    "QOSJobLimit": Reason("As many jobs of its kind run as may run at once."),
    "QOSResourceLimit": Reason("Jobs of its kind use as much as they may."),
    "QOSTimeLimit": Reason("Jobs of its kind have used up their time.", _ASK),
    "QOSUsageThreshold": Reason("Too much was used lately.", _ASK),
    "AccountingPolicy": Reason("A limit of your account is reached.", _LATER),
    "AssociationJobLimit": Reason("As many of your jobs run as may run at once.", _LATER),
    "AssociationResourceLimit": Reason("Your jobs use as much as they may.", _LATER),
    "AssociationTimeLimit": Reason("Your jobs have used up their time.", _ASK),
    "PartitionDown": Reason("The partition starts no jobs at the moment.", _OTHER, hopeless=True),
    "PartitionInactive": Reason("The partition is closed.", _OTHER, hopeless=True),
    "PartitionNodeLimit": Reason(
        "It asks for more nodes than the partition gives, or its nodes are down.", _OTHER, True
    ),
    "PartitionTimeLimit": Reason(
        "It asks for more time than the partition gives.", _OTHER, hopeless=True
    ),
    "PartitionConfig": Reason("It does not fit the partition's limits.", _OTHER, hopeless=True),
    "BadConstraints": Reason("No node of the cluster is like what it needs.", _OTHER, True),
    "Constraints": Reason("No node that is like what it needs is free."),
    "MaxMemPerLimit": Reason("It asks for more memory than it may.", _OTHER, hopeless=True),
    "DeadLine": Reason("It cannot end before its deadline.", _OTHER, hopeless=True),
    "FedJobLock": Reason("The clusters of the federation agree on who runs it."),
    "InactiveLimit": Reason("It was inactive for too long.", _ASK),
    "SystemFailure": Reason("The cluster, a file system or the network failed.", _ASK),
    "ReservationDeleted": Reason("Its reservation is gone.", _ASK, hopeless=True),
    "BurstBufferOperation": Reason("Its fast storage could not be prepared.", _ASK),
    "BurstBufferResources": Reason("Its fast storage is full.", _ASK),
    "BurstBufferStageIn": Reason("Its data are being brought."),
    "FrontEndDown": Reason("The cluster's front end is down.", _ASK),
    "SchedDefer": Reason("The cluster looks at it in its next round."),
}
# The many limits of accounts and qualities of service, by how their codes are made.
_PATTERNS = (
    (r"ReqNodeNotAvail.*", _EXACT["ReqNodeNotAvail"]),
    (r"(Assoc|QOS)(Grp|Max)Submit.*", Reason("Too many jobs are in the queue already.", _LATER)),
    (r"AssocGrp.*Minutes.*", Reason("Your group has used up its time on the cluster.", _ASK)),
    (r"AssocGrp.*", Reason("Your group's jobs use as much as they may together.", _LATER)),
    (r"AssocMaxJobs.*", _EXACT["AssociationJobLimit"]),
    (r"AssocMax.*", Reason("It asks for more than your account may use in one job.", _OTHER, True)),
    (r"QOSGrp.*Minutes.*", _EXACT["QOSTimeLimit"]),
    (r"QOSGrp.*", _EXACT["QOSResourceLimit"]),
    (r"QOSMax.*PerUser(Limit)?", Reason("Your jobs of this kind use as much as they may.", _LATER)),
    (r"QOSMin.*", Reason("It asks for less than a job of this kind must.", _OTHER, True)),
    (r"QOSMax.*", Reason("It asks for more than a job of this kind may.", _OTHER, hopeless=True)),
    (r"QOS.*", Reason("A limit of its quality of service (QOS) is reached.", _LATER)),
    (r"Assoc.*", _EXACT["AccountingPolicy"]),
    (r"Max.*PerAccount", Reason("Your account's jobs use as much as they may.", _LATER)),
    (r"BurstBuffer.*", _EXACT["BurstBufferOperation"]),
)

_NONE_FREE = "AWS has none of these instances free; the cluster tries again after some minutes"
_LIMIT_REACHED = "the lab's limit at AWS is reached; an administrator can ask AWS for more"
# ParallelCluster writes EC2's error codes into the reason of a node that could not be started.
_AWS = {
    "InsufficientInstanceCapacity": _NONE_FREE,
    "InsufficientHostCapacity": _NONE_FREE,
    "InsufficientReservedInstanceCapacity": _NONE_FREE,
    "InsufficientCapacity": _NONE_FREE,
    "UnfulfillableCapacity": _NONE_FREE,
    "SpotMaxPriceTooLow": "the spot price is higher than what the lab wants to pay",
    "MaxSpotInstanceCountExceeded": _LIMIT_REACHED,
    "VcpuLimitExceeded": _LIMIT_REACHED,
    "InstanceLimitExceeded": _LIMIT_REACHED,
    "Unsupported": "AWS does not offer these instances there",
}


def aws_reason(reason: str) -> str:
    """Say why AWS did not start a node; empty where it had no part in it.

    Parameters
    ----------
    reason : str
        The node's reason: ``(Code:InsufficientInstanceCapacity)Failure when resuming nodes``.
    """
    match = re.match(r"\(Code:(\w{1,60})\)", reason)
    return _AWS.get(match[1], f"AWS did not start it ({match[1]})") if match else ""


def why(code: str) -> Reason:
    """Return SLURM's reason for a waiting job in words.

    Parameters
    ----------
    code : str
        squeue's ``%r`` or ``%R``, with or without brackets.

    Returns
    -------
    Reason
        For an unknown code one that shows the code itself.
    """
    plain = code.strip().strip("()").replace(" ", "_")
    text = _EXACT.get(plain) or _EXACT.get(plain.split(",", 1)[0])
    if text is None:
        text = next((r for pattern, r in _PATTERNS if re.fullmatch(pattern, plain)), None)
    if text is None and plain.startswith("Nodes_required"):
        text = _EXACT["ReqNodeNotAvail"]
    shown = re.sub(r"[^\w,.:*\[\]-]", "", plain)[:80]
    return text or Reason(f"The cluster says: {shown or 'nothing'}.")
