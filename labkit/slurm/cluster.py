"""What a cluster has, as ``scontrol show`` tells: its limits, partitions and nodes."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import timedelta

from labkit.slurm.commands import UnreadableError, configuration, run
from labkit.slurm.nodes import BOUNDLESS, MB, NODES, Node, listed, number, parse_nodes, record

#: The arguments of scontrol.
CONFIG = ("show", "config")
PARTITIONS = ("--all", "--oneliner", "show", "partition")

_FRESH = 5.0  # seconds
_SEEN: dict[str, tuple[float, Cluster]] = {}


@dataclass(frozen=True)
class Partition:
    """One partition: its rules and its nodes.

    Attributes
    ----------
    name, state : str
        Its name, and ``UP``, ``DOWN``, ``DRAIN`` or ``INACTIVE``.
    default : bool
        Whether jobs go there that name none.
    max_time, default_time : timedelta or None
        Longest time of a job; what one gets that asks for none. None: no limit.
    max_cpus, max_memory, max_memory_per_cpu : int or None
        Most CPUs and bytes of a job on one node, and for each of its CPUs. None: no limit.
    groups, accounts, qos : frozenset of str or None
        Who may use it: Unix groups, accounts, qualities of service. None: all.
    denied_accounts, denied_qos : frozenset of str
        Who may not.
    root_only : bool
        Whether only root may use it.
    hidden : bool
        Whether SLURM's commands do not list it unless they are asked to.
    """

    name: str
    state: str = "UP"
    default: bool = False
    max_time: timedelta | None = None
    default_time: timedelta | None = None
    max_cpus: int | None = None
    max_memory: int | None = None
    max_memory_per_cpu: int | None = None
    groups: frozenset[str] | None = None
    accounts: frozenset[str] | None = None
    qos: frozenset[str] | None = None
    denied_accounts: frozenset[str] = frozenset()
    denied_qos: frozenset[str] = frozenset()
    root_only: bool = False
    hidden: bool = False
    nodes: tuple[Node, ...] = field(default=(), repr=False)

    @property
    def most_cpus(self) -> int:
        """Most CPUs that a job can have on one node."""
        largest = max((node.cpus for node in self.nodes), default=0)
        return largest if self.max_cpus is None else min(self.max_cpus, largest)

    @property
    def most_memory(self) -> int:
        """Most bytes that a job can have on one node; `BOUNDLESS` where nobody counts them."""
        largest = max((node.memory for node in self.nodes), default=0)
        return largest if self.memory_limit is None else min(self.memory_limit, largest)

    @property
    def memory_limit(self) -> int | None:
        """Most bytes that its rules give a job on one node; None: no limit."""
        if self.max_memory_per_cpu is None:
            return self.max_memory
        # SLURM gives a job more CPUs rather than refuse its memory.
        return self.max_memory_per_cpu * max((node.cpus for node in self.nodes), default=1)

    @property
    def cores(self) -> int:
        """CPUs of all its nodes that work."""
        most = BOUNDLESS if self.max_cpus is None else self.max_cpus
        return sum(min(most, node.cpus) for node in self.nodes if node.works)

    @property
    def time_limit(self) -> timedelta | None:
        """What a job is held to that asks for no time."""
        return self.default_time or self.max_time

    def open_to(self, groups: Collection[str], *, root: bool = False) -> bool:
        """Whether somebody of these Unix groups may use it."""
        return root or (
            not self.root_only and (self.groups is None or not self.groups.isdisjoint(groups))
        )


@dataclass(frozen=True)
class Cluster:
    """A cluster.

    Attributes
    ----------
    name, version : str
        ClusterName, and SLURM's version.
    max_array : int
        Most elements of one job array (MaxArraySize).
    max_jobs : int
        Most jobs that the controller keeps (MaxJobCount).
    kill_wait : float
        Seconds between SIGTERM and SIGKILL.
    counts_memory : bool
        Whether memory is given to jobs, or only CPUs are.
    partitions : tuple of Partition
        All of them, hidden ones too.
    private : frozenset of str
        What people cannot see of each other (PrivateData): ``jobs``, ``nodes``, ...
    """

    name: str
    version: str = ""
    max_array: int = 1001
    max_jobs: int = 10_000
    kill_wait: float = 30.0
    counts_memory: bool = True
    partitions: tuple[Partition, ...] = ()
    private: frozenset[str] = frozenset()

    @property
    def default(self) -> Partition | None:
        """The partition of jobs that name none."""
        return next((part for part in self.partitions if part.default), None)

    def partition(self, name: str | None) -> Partition | None:
        """Return a partition by its name, the default one for None."""
        if name is None:
            return self.default
        return next((part for part in self.partitions if part.name == name), None)


def current() -> Cluster:
    """Return what the cluster has, asked a few seconds ago at most.

    Raises
    ------
    SlurmUnavailableError
        It cannot be asked, or SLURM is not installed here.
    """
    conf = configuration().get("SLURM_CONF", "")
    at, cluster = _SEEN.get(conf, (0.0, None))
    if cluster is None or time.monotonic() - at > _FRESH:
        cluster = parse(run("scontrol", *CONFIG), run("scontrol", *PARTITIONS),
                        run("scontrol", *NODES))  # fmt: skip
        _SEEN[conf] = (time.monotonic(), cluster)
    return cluster


def name() -> str:
    """Return the cluster's name; it is asked for once.

    Raises
    ------
    SlurmUnavailableError
        It cannot be asked, or SLURM is not installed here.
    """
    conf = configuration().get("SLURM_CONF", "")
    return _SEEN[conf][1].name if conf in _SEEN else current().name


def parse(config: str, partitions: str, nodes: str = "") -> Cluster:
    """Read what ``scontrol`` printed when called with `CONFIG`, `PARTITIONS` and `NODES`.

    Raises
    ------
    UnreadableError
        It is none of that.
    """
    pairs = (line.partition("=") for line in config.splitlines() if "=" in line)
    settings = {key.strip(): value.strip() for key, _, value in pairs}
    if "ClusterName" not in settings:
        raise UnreadableError(f"scontrol printed no configuration: {config[:80]!r}")
    counts = "MEMORY" in settings.get("SelectTypeParameters", "").upper()
    return Cluster(
        name=settings["ClusterName"],
        version=settings.get("SLURM_VERSION", ""),
        max_array=number(settings.get("MaxArraySize", ""), 1001),
        max_jobs=number(settings.get("MaxJobCount", ""), 10_000),
        kill_wait=float(number(settings.get("KillWait", ""), 30)),
        counts_memory=counts,
        partitions=parse_partitions(partitions, parse_nodes(nodes, counts_memory=counts)),
        private=frozenset(settings.get("PrivateData", "").lower().split(",")) - {"", "none"},
    )


def parse_partitions(text: str, nodes: Iterable[Node] = ()) -> tuple[Partition, ...]:
    """Read ``scontrol`` called with `PARTITIONS`.

    Raises
    ------
    UnreadableError
        A line is none of them.
    """
    known = tuple(nodes)
    lines = (line.strip() for line in text.splitlines() if line.strip())
    return tuple(_partition(line, known) for line in lines if line != "No partitions in the system")


def parse_time(text: str) -> timedelta | None:
    """Read SLURM's length of time: ``30:00``, ``8:00:00``, ``2-00:00:00``; None: no limit.

    Raises
    ------
    UnreadableError
        It is none.
    """
    if text.upper() in ("UNLIMITED", "INFINITE", "NONE", "N/A", ""):
        return None
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if not match:
        raise UnreadableError(f"{text[:40]!r} is no length of time")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def _partition(line: str, nodes: tuple[Node, ...]) -> Partition:
    row = record(line)
    if not {"PartitionName", "State", "MaxTime"} <= set(row):
        raise UnreadableError(f"scontrol printed an unknown line: {line[:80]!r}")
    title = row["PartitionName"]
    return Partition(
        name=title,
        state=row["State"],
        default=row.get("Default") == "YES",
        max_time=parse_time(row["MaxTime"]),
        default_time=parse_time(row.get("DefaultTime", "")),
        max_cpus=_limit(row.get("MaxCPUsPerNode", "")),
        max_memory=_limit(row.get("MaxMemPerNode", ""), MB),
        max_memory_per_cpu=_limit(row.get("MaxMemPerCPU", ""), MB),
        groups=_some(row.get("AllowGroups", "ALL")),
        accounts=_some(row.get("AllowAccounts", "ALL")),
        qos=_some(row.get("AllowQos", "ALL")),
        denied_accounts=frozenset(listed(row.get("DenyAccounts", ""))),
        denied_qos=frozenset(listed(row.get("DenyQos", ""))),
        root_only=row.get("RootOnly") == "YES",
        hidden=row.get("Hidden") == "YES",
        nodes=tuple(node for node in nodes if title in node.partitions),
    )


def _limit(text: str, unit: int = 1) -> int | None:
    return int(text) * unit if text.isdecimal() and int(text) else None


def _some(text: str) -> frozenset[str] | None:
    return None if text.upper() in ("ALL", "(NULL)", "") else frozenset(listed(text))
