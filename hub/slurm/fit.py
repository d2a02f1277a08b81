"""Whether the lab file fits its cluster: partitions, times, sizes, accounts."""

from __future__ import annotations

from collections.abc import Iterator

from hub.labfile.schema import Settings
from hub.labfile.slurm import Slurm
from hub.slurm.cluster import PartitionView, closed_to_account, too_large, too_long
from hub.slurm.job_options import job_options
from labkit.base.problems import Problem
from labkit.base.units import format_duration
from labkit.slurm.cluster import Cluster, Partition


def misfits(settings: Settings, cluster: Cluster) -> list[Problem]:
    """Return what no server could start with, and what some could not.

    Parameters
    ----------
    settings : Settings
        The lab file, of the slurm target.
    cluster : Cluster
        With its partitions and nodes.
    """
    slurm = settings.slurm
    if slurm is None:
        return []
    offered = [part for name in slurm.partitions if (part := cluster.partition(name))]
    return [
        *_partitions(slurm, cluster),
        *_times(slurm, offered),
        *_accounts(settings, cluster),
        *_sizes(settings, cluster),
        *_memory(cluster),
    ]


def _partitions(slurm: Slurm, cluster: Cluster) -> Iterator[Problem]:
    names = sorted(partition.name for partition in cluster.partitions)
    for name in slurm.partitions:
        if name not in names:
            text = f"the cluster has no partition {name}"
            yield Problem("slurm.partitions", text, f"it has: {', '.join(names)}")


def _times(slurm: Slurm, offered: list[Partition]) -> Iterator[Problem]:
    short = [part for part in offered if too_long(slurm.time_limit, part)]
    for part in short:
        most = format_duration(part.max_time) if part.max_time else ""
        yield Problem(
            "slurm.time_limit",
            f"{format_duration(slurm.time_limit)} is more than the partition {part.name} gives a"
            f" job ({most}): no server starts there",
            f"make it {most} or less, or take {part.name} out of slurm.partitions",
            warning=len(short) < len(offered),
        )


def _accounts(settings: Settings, cluster: Cluster) -> Iterator[Problem]:
    """Name profiles that nobody's account or quality of service brings into any partition."""
    groups: tuple[tuple[str, ...], ...] = ((), *((name,) for name in settings.groups))
    for profile in settings.profiles:
        names = settings.partitions_of(profile)
        known = [part for name in names if (part := cluster.partition(name))]
        reasons = {
            part.name: why
            for part in known
            if (why := closed_to_account(job_options(settings, profile), part))
            and all(closed_to_account(job_options(settings, profile, g), part) for g in groups)
        }
        if known and len(reasons) == len(known):
            key = "qos" if all("quality" in why for why in reasons.values()) else "account"
            told = "; ".join(f"{name}: {why}" for name, why in reasons.items())
            hint = "scontrol show partition; account and qos: in slurm, slurm.groups or the profile"
            yield Problem(f"slurm.{key}", f"{profile.name} starts nowhere ({told})", hint)


def _sizes(settings: Settings, cluster: Cluster) -> Iterator[Problem]:
    for profile in settings.profiles:
        parts = [cluster.partition(name) for name in settings.partitions_of(profile)]
        known = [part for part in parts if part is not None]
        reasons = {part.name: too_large(PartitionView(part), profile) for part in known}
        if known and all(reasons.values()):
            told = "; ".join(f"{name}: {why}" for name, why in reasons.items())
            hint = "make cpu, memory or gpus smaller, or name other partitions"
            yield Problem(f"profiles.{profile.name}", f"fits no node ({told})", hint)


def _memory(cluster: Cluster) -> Iterator[Problem]:
    if not cluster.counts_memory:
        yield Problem(
            "slurm",
            "the cluster counts cores only: SLURM puts more servers on a node than its memory"
            " holds, and nothing ends one that takes too much",
            "SelectTypeParameters=CR_Core_Memory in slurm.conf (ParallelCluster:"
            " EnableMemoryBasedScheduling: true), or slurm.own_nodes: true",
            warning=True,
        )
