"""What a person is told of a server that waits in SLURM's queue."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from typing import Any

from hub.slurm.cluster import ClusterView
from labkit.slurm.nodes import Node
from labkit.slurm.queue import Job
from labkit.slurm.reasons import aws_reason, why
from labkit.slurm.states import STARTING, WAITING


@dataclass(frozen=True)
class Wait:
    """A server's place in the queue.

    Attributes
    ----------
    title : str
        What happens, in one sentence.
    why : str
        Why it waits; may be empty.
    hint : str
        What the person can do; may be empty.
    hopeless : bool
        Whether it never starts unless somebody does something.
    partition : str
        The queue.
    position, length : int or None
        Its place among the waiting jobs of the partition, 1 being the next, and how many
        wait there.
    expected : float or None
        When SLURM expects it to start, in seconds since 1970.
    """

    title: str
    why: str = ""
    hint: str = ""
    hopeless: bool = False
    partition: str = ""
    position: int | None = None
    length: int | None = None
    expected: float | None = None

    def event(self) -> dict[str, Any]:
        """Return it as the pending page gets it."""
        return asdict(self)


def wait_of(
    job: Job,
    jobs: Collection[Job],
    view: ClusterView,
    clock: Callable[[], float] = time.time,
) -> Wait | None:
    """Describe a job's wait.

    Parameters
    ----------
    job : Job
        The server's job.
    jobs : collection of Job
        All that is in the queue, of everybody.
    view : ClusterView
        The cluster; may know nothing.
    clock : callable, optional
        Returns seconds since 1970.

    Returns
    -------
    Wait or None
        None where it does not wait (any more).
    """
    if job.state in STARTING:
        return _starting(job, view)
    if job.state not in WAITING:
        return None
    reason = why(job.reason)
    place, length = position(job, jobs)
    title = "It waits in the queue"
    text = reason.text
    if job.reason == "Resources" and _wakes_for(job, view):
        text = "No node is free: the cluster starts one, which takes some minutes."
    elif at_aws := _refused_by_aws(job, view):
        text = f"Nodes that it could run on are not there: {at_aws}."
    return Wait(
        title=title,
        why=text,
        hint=reason.hint,
        hopeless=reason.hopeless,
        partition=job.partition,
        position=place,
        length=length,
        # SLURM's estimate may lie in the past until it plans anew.
        expected=job.start if job.start and job.start > clock() else None,
    )


def position(job: Job, jobs: Collection[Job]) -> tuple[int, int]:
    """Return a job's place among the waiting ones of its partitions, and how many they are.

    SLURM goes by priority, then by number. A smaller job may still overtake (backfill).
    """
    places = set(job.partition.split(","))
    queue = sorted(
        (
            other
            for other in jobs
            if other.state in WAITING and places & set(other.partition.split(","))
        ),
        key=_turn,
    )
    ids = [other.id for other in queue]
    return (ids.index(job.id) + 1 if job.id in ids else len(ids) + 1), max(len(ids), 1)


def _turn(job: Job) -> tuple[int, int, str]:
    number = job.id.split("_")[0].split("+")[0]
    return -job.priority, int(number) if number.isdecimal() else 0, job.id


def _starting(job: Job, view: ClusterView) -> Wait:
    node = _node(job.host, view)
    if node is None or not node.awake:
        kind = _instance(job, node, view)
        return Wait(
            title=f"The node {job.host or 'for it'} is starting{kind}",
            why="The cluster has switched it on for you; a new node takes some minutes.",
            partition=job.partition,
        )
    return Wait(
        title=f"The node {job.host} is being prepared",
        why="The job is there; SLURM waits until the node says that it is ready.",
        partition=job.partition,
    )


def _node(name: str, view: ClusterView) -> Node | None:
    nodes = (node for partition in view.partitions.values() for node in partition.nodes)
    return next((node for node in nodes if node.name == name), None)


def _instance(job: Job, node: Node | None, view: ClusterView) -> str:
    partition = view.partitions.get(job.partition)
    if node is None or partition is None or partition.queue is None:
        return ""
    kinds = [name for name in partition.queue.instances if name in node.features]
    return f" (AWS, {kinds[0]})" if kinds else " (AWS)"


def _refused_by_aws(job: Job, view: ClusterView) -> str:
    found = [view.partitions.get(name) for name in job.partition.split(",")]
    broken = [node for p in found if p for node in p.nodes if not node.works]
    return next(filter(None, (aws_reason(node.reason) for node in broken)), "")


def _wakes_for(job: Job, view: ClusterView) -> bool:
    found = [view.partitions.get(name) for name in job.partition.split(",")]
    return any(p is not None and p.asleep and not p.free_cores for p in found)
