"""What the spawn page shows of the cluster: where a server may run, and what that means."""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime

from hub.labfile.schema import Profile, Settings
from hub.slurm.cloud import Queue
from hub.slurm.cluster import Cluster, ClusterView, PartitionView, cluster_of, memory_of
from hub.slurm.prices import Prices, prices
from labkit.base.units import format_duration

_ROOM = {
    "now": "There is room: it starts at once.",
    "soon": "A node has to start first: some minutes.",
    "wait": "Full at the moment: it would wait in the queue.",
}


@dataclass(frozen=True)
class Place:
    """A partition on the spawn page.

    Attributes
    ----------
    name : str
        The partition.
    facts : tuple of str
        What is free, its limits, and on AWS the instances and their price; a line each.
    refused : mapping of str to str
        Profile -> why a server of it can never start here as things are.
    room : mapping of str to str
        Profile -> how soon it would start; only those that can.
    selected : bool
        Whether it is chosen before the person chooses.
    """

    name: str
    facts: tuple[str, ...]
    refused: Mapping[str, str]
    room: Mapping[str, str]
    selected: bool = False


@dataclass(frozen=True)
class Places:
    """All partitions that the lab file offers, for one person.

    Attributes
    ----------
    places : tuple of Place
        In the order of the lab file.
    profile : Profile or None
        The profile that is chosen before the person chooses; one that can start, if any.
    impossible : mapping of str to tuple of str
        Profile -> why it can start nowhere, one sentence for each reason.
    at : datetime or None
        When SLURM said so; None where it has not.
    trouble : str
        Why it does not answer.
    prices : date or None
        The day of the prices, where some are shown.
    prices_region : str
        And their region.
    """

    places: tuple[Place, ...]
    profile: Profile | None
    impossible: Mapping[str, tuple[str, ...]]
    at: datetime | None
    trouble: str
    prices: date | None
    prices_region: str

    @property
    def settled(self) -> bool:
        """Whether there is one partition alone, and nothing to be said against it."""
        return len(self.places) == 1 and not self.impossible


async def places(
    cluster: Cluster,
    settings: Settings,
    offered: Collection[Profile],
    selected: Profile | None,
    last: object,
    person: str,
) -> Places:
    """Describe the partitions for a person's spawn page.

    Parameters
    ----------
    cluster : Cluster
        Whom to ask.
    settings : Settings
        The lab file.
    offered : collection of Profile
        What the person may use.
    selected : Profile or None
        The profile of the last start, or the default.
    last : object
        The partition of the last start, if any; not trusted.
    person : str
        The account, for the partitions' groups.
    """
    view, groups = await asyncio.gather(cluster.describe(), asyncio.to_thread(unix_groups, person))
    names = dict.fromkeys(n for p in offered for n in settings.partitions_of(p))
    refused: dict[str, dict[str, str]] = {name: {} for name in names}
    for profile in offered:
        own = settings.partitions_of(profile)
        for name in names:
            reason = (
                cluster.refusal(view, profile, name, groups, settings.groups_of(person))
                if name in own
                else f"It is not for the profile {profile.title}"
            )
            if reason:
                refused[name][profile.name] = f"{reason}."
    impossible = {p.name: why for p in offered if (why := _nowhere(p, settings, refused))}
    if selected is not None and selected.name in impossible:
        selected = next((p for p in offered if p.name not in impossible), selected)
    chosen = _chosen(names, refused, selected, last)
    table = prices()
    places = tuple(
        Place(
            name=name,
            facts=_facts(view, name, table),
            refused=refused[name],
            room=_room(
                view,
                name,
                [p for p in offered if p.name not in refused[name]],
                own_nodes=settings.slurm is not None and settings.slurm.own_nodes,
            ),
            selected=name == chosen,
        )
        for name in names
    )
    priced = any(p.queue and p.queue.cost(table) for p in view.partitions.values())
    return Places(
        places=places,
        profile=selected,
        impossible=impossible,
        at=view.at,
        trouble=view.trouble,
        prices=table.day if priced else None,
        prices_region=table.region,
    )


async def refusal(settings: Settings, profile: Profile, partition: str, person: str) -> str:
    """Say why a person's server cannot start there, as the spawn page would; empty: it can.

    Parameters
    ----------
    settings : Settings
        The lab file.
    profile : Profile
        What the server needs.
    partition : str
        Where.
    person : str
        The account, for the partitions' groups.
    """
    cluster = cluster_of(settings)
    view, groups = await asyncio.gather(cluster.describe(), asyncio.to_thread(unix_groups, person))
    return cluster.refusal(view, profile, partition, groups, settings.groups_of(person))


def unix_groups(person: str) -> frozenset[str]:
    """Return the names of an account's Unix groups; none where there is no such account."""
    try:
        account = pwd.getpwnam(person)
    except KeyError:
        return frozenset()
    names = set()
    for gid in os.getgrouplist(person, account.pw_gid):
        try:
            names.add(grp.getgrgid(gid).gr_name)
        except KeyError:
            continue
    return frozenset(names)


def _chosen(
    names: Collection[str],
    refused: Mapping[str, Mapping[str, str]],
    selected: Profile | None,
    last: object,
) -> str:
    possible = [n for n in names if selected is not None and selected.name not in refused[n]]
    return str(last) if last in possible else next(iter(possible), "")


def _nowhere(
    profile: Profile, settings: Settings, refused: Mapping[str, Mapping[str, str]]
) -> tuple[str, ...]:
    own = settings.partitions_of(profile)
    if not own or any(profile.name not in refused[name] for name in own):
        return ()
    reasons: dict[str, list[str]] = {}
    for name in own:
        reasons.setdefault(refused[name][profile.name], []).append(name)
    return tuple(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())


def _room(
    view: ClusterView, name: str, possible: Collection[Profile], *, own_nodes: bool
) -> dict[str, str]:
    partition = view.partitions.get(name)
    if partition is None or view.trouble:
        return {}
    return {
        profile.name: _ROOM[partition.room(profile, own_nodes=own_nodes)] for profile in possible
    }


def _facts(view: ClusterView, name: str, table: Prices) -> tuple[str, ...]:
    partition = view.partitions.get(name)
    if partition is None:
        return ()
    lines = []
    if partition.rules.state == "UP":
        lines.append(_free(partition))
    limit = partition.rules.max_time
    size = [_shape(partition), f"at most {format_duration(limit)}" if limit else "no time limit"]
    lines.append(" · ".join(filter(None, size)))
    if partition.queue:
        lines.append(f"{', '.join(partition.queue.instances)}: {_cost(partition.queue, table)}")
    return tuple(filter(None, lines))


def _shape(partition: PartitionView) -> str:
    shapes = {(node.cpus, node.memory, node.gpus): node for node in partition.nodes}
    if not shapes:
        return ""
    largest = shapes[max(shapes)]
    cores, gpus = largest.cpus, largest.gpus
    cards = f", {gpus} {'GPU' if gpus == 1 else 'GPUs'}" if gpus else ""
    most = "up to " if len(shapes) > 1 else ""
    return f"Nodes of {most}{cores} cores, {memory_of(largest)} memory{cards}"


def _free(partition: PartitionView) -> str:
    awake = partition.awake
    cores = sum(node.cpus for node in awake)
    lines = []
    if awake:
        lines.append(
            f"Free now: {partition.free_cores} of {cores} cores,"
            f" {partition.free_nodes} of {_nodes(len(awake))}"
        )
        if gpus := sum(node.gpus for node in awake):
            lines.append(f"{partition.free_gpus} of {gpus} GPUs")
    if partition.waking:
        lines.append(f"{_nodes(len(partition.waking))} starting")
    if partition.asleep:
        lines.append(f"{_nodes(len(partition.asleep))} can be started")
    broken = sum(not node.works for node in partition.nodes)
    if broken:
        lines.append(f"{_nodes(broken)} out of service")
    return ", ".join(lines)


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"


def _cost(queue: Queue, table: Prices) -> str:
    cost = queue.cost(table)
    if cost is None:
        return "spot, price not known" if queue.spot else "price not known"
    low, high = cost
    if queue.spot:
        return f"spot, a node for less than {high:.2f} USD per hour, but AWS may take it away"
    amount = f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f}"
    return f"a node for {amount} USD per hour"
