"""The cluster as it is now, asked once for everybody who looks at the spawn page."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from hub.labfile.schema import Profile, Settings
from hub.labfile.slurm import JobOptions
from hub.slurm.cloud import Queue, read_queues
from hub.slurm.commands import run_slurm
from hub.slurm.job_options import job_options
from labkit.base.units import format_duration, format_size
from labkit.slurm.cluster import CONFIG, PARTITIONS, Partition, parse
from labkit.slurm.commands import SlurmUnavailableError
from labkit.slurm.nodes import BOUNDLESS, NODES, Node
from labkit.slurm.reasons import aws_reason

log = logging.getLogger(__name__)

FRESH = 10.0  # seconds for which an answer, good or bad, is used again
TIMEOUT = 5.0  # seconds that the page waits for SLURM
_STATES = {
    "DOWN": "It starts no jobs at the moment",
    "DRAIN": "It takes no new jobs at the moment",
    "INACTIVE": "It is closed",
}


@dataclass(frozen=True)
class PartitionView:
    """One partition with its nodes.

    Attributes
    ----------
    rules : Partition
        Its limits, and who may use it.
    queue : Queue or None
        What ParallelCluster says of it.
    """

    rules: Partition
    queue: Queue | None = None

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Its nodes."""
        return self.rules.nodes

    @property
    def awake(self) -> list[Node]:
        """The nodes that are there now and work."""
        return [node for node in self.nodes if node.awake]

    @property
    def asleep(self) -> list[Node]:
        """The nodes that the cluster starts when a job needs them."""
        return [node for node in self.nodes if node.asleep]

    @property
    def waking(self) -> list[Node]:
        """The nodes that are being started."""
        return [node for node in self.nodes if node.works and node.waking]

    @property
    def free_nodes(self) -> int:
        """How many nodes no job uses, of those that are there now."""
        return sum(node.free_cpus == node.cpus for node in self.awake)

    @property
    def free_cores(self) -> int:
        """How many cores no job uses, of the nodes that are there now."""
        return sum(node.free_cpus for node in self.awake)

    @property
    def free_gpus(self) -> int:
        """How many graphics cards no job uses, of the nodes that are there now."""
        return sum(node.free_gpus for node in self.awake)

    def room(self, profile: Profile, *, own_nodes: bool = False) -> str:
        """Say whether a server of this profile could start now.

        Parameters
        ----------
        profile : Profile
            What it needs.
        own_nodes : bool
            Whether it shares its node with nobody.

        Returns
        -------
        str
            ``now``, ``soon`` (a sleeping node has to start first), or ``wait``.
        """
        ready = [n for n in self.awake if not own_nodes or n.free_cpus == n.cpus]
        if any(_holds(node, profile, free=True) for node in ready):
            return "now"
        return "soon" if any(_holds(n, profile, free=True) for n in self.asleep) else "wait"


@dataclass(frozen=True)
class ClusterView:
    """What is known of the cluster at one moment.

    Attributes
    ----------
    partitions : mapping of str to PartitionView
        By name, all of the cluster.
    at : datetime or None
        When SLURM said so; None: it has not answered yet.
    trouble : str
        Why there is no newer answer; empty where this is the newest.
    counts_memory : bool
        Whether SLURM gives jobs memory, or cores alone.
    """

    partitions: Mapping[str, PartitionView] = field(default_factory=dict)
    at: datetime | None = None
    trouble: str = ""
    counts_memory: bool = True


class Cluster:
    """Asks SLURM, at most once in `FRESH` seconds, however many people look.

    Parameters
    ----------
    settings : Settings
        The lab file, of the slurm target.
    run : callable, optional
        As `hub.slurm.commands.run_slurm`.
    clock : callable, optional
        Returns seconds that only grow.
    """

    def __init__(
        self,
        settings: Settings,
        run: Callable[..., Awaitable[str]] = run_slurm,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if settings.slurm is None:
            raise ValueError("the lab file has no section slurm")
        self._settings = settings
        self._slurm = settings.slurm
        self._run = run
        self._clock = clock
        self._lock = asyncio.Lock()
        self._view = ClusterView()
        self._asked = -math.inf

    async def describe(self) -> ClusterView:
        """Return the cluster as it is, or as it was when SLURM last answered; never raises."""
        async with self._lock:
            if self._clock() - self._asked >= FRESH:
                self._view = await self._look()
                self._asked = self._clock()
            return self._view

    async def _look(self) -> ClusterView:
        try:
            answers = await asyncio.gather(
                *(
                    self._run("scontrol", *words, timeout=TIMEOUT)
                    for words in (CONFIG, PARTITIONS, NODES)
                )
            )
            cluster = parse(*answers)
            queues = await asyncio.to_thread(read_queues, self._slurm.cluster_config)
            return ClusterView(
                {
                    partition.name: PartitionView(partition, queues.get(partition.name))
                    for partition in cluster.partitions
                },
                datetime.now(UTC),
                counts_memory=cluster.counts_memory,
            )
        except SlurmUnavailableError as error:
            log.warning("SLURM does not describe the cluster: %s", error)
            return replace(self._view, trouble=str(error))

    def refusal(
        self,
        view: ClusterView,
        profile: Profile,
        partition: str,
        groups: Collection[str],
        lab_groups: Collection[str] = (),
    ) -> str:
        """Say why a server can never start there as things are; empty where it can.

        Where SLURM has never answered nothing is known, and nothing refused.

        Parameters
        ----------
        view : ClusterView
            What is known.
        profile : Profile
            What the server needs.
        partition : str
            Where.
        groups : collection of str
            The person's Unix groups.
        lab_groups : collection of str
            The person's groups in the lab, by which the job may have an account.
        """
        if view.at is None:
            return ""
        found = view.partitions.get(partition)
        if found is None:
            return "The cluster has no such partition: tell your lab's administrator"
        wanted = job_options(self._settings, profile, lab_groups)
        return self._closed(found.rules, groups, wanted) or _unfit(found, profile)

    def _closed(self, rules: Partition, groups: Collection[str], wanted: JobOptions) -> str:
        slurm = self._slurm
        if rules.state != "UP":
            return _STATES.get(rules.state, f"Its state is {rules.state}")
        if not rules.open_to(groups):
            who = f"the groups {', '.join(sorted(rules.groups))}" if rules.groups else "root alone"
            return f"It is for {who}"
        if why := closed_to_account(wanted, rules):
            return why
        if rules.max_time is not None and too_long(slurm.time_limit, rules):
            return (
                f"It gives a job at most {format_duration(rules.max_time)}, and servers ask for"
                f" {format_duration(slurm.time_limit)}"
            )
        return ""


def closed_to_account(wanted: JobOptions, rules: Partition) -> str:
    """Say why a partition does not take an account or quality of service; empty: it does.

    Parameters
    ----------
    wanted : JobOptions
        What the job asks for.
    rules : Partition
        The partition.
    """
    account, qos = wanted.account, wanted.qos
    if rules.accounts is not None and account not in rules.accounts:
        return f"It is for the accounts {', '.join(sorted(rules.accounts))} alone"
    if account in rules.denied_accounts:
        return f"It is not for the account {account}"
    if qos and ((rules.qos is not None and qos not in rules.qos) or qos in rules.denied_qos):
        return f"It does not take the quality of service {qos}"
    return ""


def too_long(limit: timedelta, rules: Partition) -> bool:
    """Whether a partition gives a job less time than this."""
    return rules.max_time is not None and limit > rules.max_time


def cluster_of(settings: Settings) -> Cluster:
    """Return the one `Cluster` of this process for a lab file.

    Spawners have copies of the settings: equal ones share it.
    """
    key = settings.model_dump_json(include={"slurm", "profiles"}) if settings.slurm else ""
    found = _CLUSTERS.get(key)
    if found is None:
        found = _CLUSTERS[key] = Cluster(settings)
    return found


_CLUSTERS: dict[str, Cluster] = {}


def memory_of(node: Node) -> str:
    """Write a node's memory for people."""
    return "uncounted" if node.memory >= BOUNDLESS else format_size(node.memory)


def _gpus(node: Node, kind: str | None, *, free: bool) -> int:
    if kind is None:
        return node.free_gpus if free else node.gpus
    name = f"gpu:{kind}"
    return node.gres.get(name, 0) - (node.used_gres.get(name, 0) if free else 0)


def _has_features(node: Node, constraint: str | None) -> bool:
    """Whether a node has all features; alternatives and counts are for SLURM to judge."""
    if constraint is None or not re.fullmatch(r"[\w.&-]+", constraint):
        return True
    return set(constraint.split("&")) <= node.features


def _holds(node: Node, profile: Profile, *, free: bool) -> bool:
    """Whether a node is large enough for a profile, or has that much free."""
    cores = node.free_cpus if free else node.cpus
    memory = node.free_memory if free else node.memory
    gpus = _gpus(node, profile.slurm.gpu_type, free=free)
    if not _has_features(node, profile.slurm.constraint):
        return False
    return math.ceil(profile.cpu) <= cores and profile.memory <= memory and profile.gpus <= gpus


def too_large(view: PartitionView, profile: Profile) -> str:
    """Say why no node of a partition could ever hold a profile; empty: one could.

    Parameters
    ----------
    view : PartitionView
        The partition and its nodes.
    profile : Profile
        What a server needs.
    """
    rules = view.rules
    most = rules.max_cpus
    if most is not None and math.ceil(profile.cpu) > most:
        return f"It gives a job at most {most} cores of a node"
    if not view.nodes:
        return "It has no nodes"
    limit = rules.memory_limit
    if limit is not None and profile.memory > limit:
        return f"It gives a job at most {format_size(limit)} of a node's memory"
    if not _large(view, profile):
        biggest = max(view.nodes, key=lambda node: (node.gpus, node.memory, node.cpus))
        cards = f", {biggest.gpus} GPU" if biggest.gpus else ", no GPU" if profile.gpus else ""
        kind = profile.slurm.gpu_type if profile.gpus else None
        if profile.slurm.constraint or kind:
            asked = " and ".join(filter(None, (kind and f"GPUs {kind}", profile.slurm.constraint)))
            return f"No node that is large enough has {asked}"
        return (
            f"No node is large enough: the largest has {biggest.cpus} cores,"
            f" {memory_of(biggest)} memory{cards}"
        )
    return ""


def _large(view: PartitionView, profile: Profile) -> list[Node]:
    return [node for node in view.nodes if _holds(node, profile, free=False)]


def _unfit(view: PartitionView, profile: Profile) -> str:
    if why := too_large(view, profile):
        return why
    large = _large(view, profile)
    if not any(node.works for node in large):
        node = large[0]
        if at_aws := aws_reason(node.reason):
            return at_aws[0].upper() + at_aws[1:]
        why = f" ({node.reason})" if node.reason else ""
        rest = f" and {len(large) - 1} more" if len(large) > 1 else ""
        return f"Its nodes are out of service: {node.name}{rest} is {node.trouble}{why}"
    return ""
