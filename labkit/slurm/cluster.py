"""What a cluster has, as ``scontrol show`` tells: its limits, partitions and nodes."""

from __future__ import annotations

import grp
import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta

from labkit.jobs.model import parse_time
from labkit.slurm.commands import run

MB = 1024**2
_FIELD = re.compile(r"(?:^| )([A-Za-z][A-Za-z0-9_/:]*)=")
_UNUSABLE = {"DOWN", "DRAIN", "DRAINED", "DRAINING", "FAIL", "FAILING", "ERROR", "FUTURE",
             "UNKNOWN", "INVALID_REG", "INVAL", "MAINT"}  # fmt: skip
BOUNDLESS = 1 << 60  # bytes or CPUs, where nobody counts them
_FRESH = 5.0  # seconds
_SEEN: dict[str, tuple[float, Cluster]] = {}


@dataclass(frozen=True)
class Node:
    """One node.

    Attributes
    ----------
    cpus : int
        CPUs that jobs may use.
    memory : int
        Bytes that jobs may use.
    usable : bool
        Up, or powered down until a job asks for it.
    """

    name: str
    cpus: int
    memory: int
    features: frozenset[str]
    gres: dict[str, int]
    partitions: frozenset[str]
    usable: bool
    state: str = ""


@dataclass(frozen=True)
class Partition:
    """One partition.

    Attributes
    ----------
    state : str
        UP, DOWN, DRAIN or INACTIVE.
    default : bool
        Whether jobs go there that name none.
    longest, usual : timedelta or None
        Longest time of a job; what one gets that asks for none. None: no limit.
    memory, cpus : int
        Most bytes and CPUs of a job on one node, as far as the partition limits them.
    open : bool
        Whether this user's groups may use it.
    """

    name: str
    state: str
    default: bool
    longest: timedelta | None
    usual: timedelta | None
    memory: int
    cpus: int
    open: bool
    accounts: tuple[str, ...] = ()
    qos: tuple[str, ...] = ()
    nodes: tuple[Node, ...] = field(default=(), repr=False)

    @property
    def most_cpus(self) -> int:
        """Most CPUs that a task can have."""
        return min(self.cpus, max((node.cpus for node in self.nodes), default=0))

    @property
    def cores(self) -> int:
        """Cores of all its usable nodes."""
        return sum(min(self.cpus, node.cpus) for node in self.nodes if node.usable)

    @property
    def most_memory(self) -> int:
        """Most bytes that a task can have."""
        return min(self.memory, max((node.memory for node in self.nodes), default=0))

    @property
    def limit(self) -> timedelta | None:
        """What a job is held to that asks for no time."""
        return self.usual or self.longest


@dataclass(frozen=True)
class Cluster:
    """A cluster.

    Attributes
    ----------
    name : str
        ClusterName.
    array : int
        Most elements of one job array (MaxArraySize).
    jobs : int
        Most jobs that the controller keeps (MaxJobCount).
    kill_wait : float
        Seconds between SIGTERM and SIGKILL.
    counts_memory : bool
        Whether memory is given to jobs, or only CPUs are.
    """

    name: str
    version: str
    array: int
    jobs: int
    kill_wait: float
    counts_memory: bool
    partitions: tuple[Partition, ...]

    @property
    def default(self) -> Partition | None:
        """The partition of jobs that name none."""
        return next((part for part in self.partitions if part.default), None)

    def partition(self, name: str | None) -> Partition | None:
        """Return a partition by its name, the default one for None."""
        if name is None:
            return self.default
        return next((part for part in self.partitions if part.name == name), None)

    @property
    def usable(self) -> list[Partition]:
        """Partitions that this user can submit to now."""
        return [part for part in self.partitions if part.open and part.state == "UP"]


def current() -> Cluster:
    """Return what the cluster has, asked a few seconds ago at most.

    Raises
    ------
    BackendError
        It cannot be asked, or SLURM is not installed here.
    """
    conf = os.environ.get("SLURM_CONF", "")
    at, found = _SEEN.get(conf, (-_FRESH, None))
    if found is None or time.monotonic() - at > _FRESH:
        found = read()
        _SEEN[conf] = (time.monotonic(), found)
    return found


def name() -> str:
    """Return the cluster's name; it is asked for once.

    Raises
    ------
    BackendError
        It cannot be asked, or SLURM is not installed here.
    """
    conf = os.environ.get("SLURM_CONF", "")
    return _SEEN[conf][1].name if conf in _SEEN else current().name


def read() -> Cluster:
    """Ask the controller.

    Raises
    ------
    BackendError
        It cannot be asked, or SLURM is not installed here.
    """
    config = _config(run("scontrol", "show", "config"))
    counted = "MEMORY" in config.get("SelectTypeParameters", "").upper()
    nodes = [_node(entry, counted) for entry in records(run("scontrol", "-o", "show", "node"))]
    partitions = [
        _partition(entry, nodes) for entry in records(run("scontrol", "-o", "show", "partition"))
    ]
    return Cluster(
        name=config.get("ClusterName", ""),
        version=config.get("SLURM_VERSION", ""),
        array=_number(config.get("MaxArraySize", ""), 1001),
        jobs=_number(config.get("MaxJobCount", ""), 10_000),
        kill_wait=float(_number(config.get("KillWait", ""), 30)),
        counts_memory=counted,
        partitions=tuple(partitions),
    )


def records(text: str) -> list[dict[str, str]]:
    """Return the fields of each line of ``scontrol -o show``."""
    found = []
    for line in text.splitlines():
        marks = list(_FIELD.finditer(line))
        ends = [mark.start() for mark in marks[1:]] + [len(line)]
        entry = {
            mark[1]: line[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)
        }
        if entry:
            found.append(entry)
    return found


def _config(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _number(text: str, otherwise: int) -> int:
    """Return the number that a text begins with: ``"30 sec"`` is 30."""
    match = re.match(r"\d+", text)
    return int(match[0]) if match else otherwise


def _node(entry: dict[str, str], counted: bool) -> Node:
    state = entry.get("State", "")
    words = {re.sub(r"[^A-Z_]", "", word) for word in state.upper().split("+")}
    memory = _number(entry.get("RealMemory", ""), 0) - _number(entry.get("MemSpecLimit", ""), 0)
    if memory <= 1 and not counted:  # nobody has told SLURM
        memory = BOUNDLESS // MB
    return Node(
        name=entry.get("NodeName", ""),
        cpus=_number(entry.get("CPUEfctv", entry.get("CPUTot", "")), 0),
        memory=memory * MB,
        features=frozenset(_listed(entry.get("AvailableFeatures", ""))),
        gres=_gres(entry.get("Gres", "")),
        partitions=frozenset(_listed(entry.get("Partitions", ""))),
        usable=not words & _UNUSABLE,
        state=state,
    )


def _partition(entry: dict[str, str], nodes: Iterable[Node]) -> Partition:
    name = entry.get("PartitionName", "")
    mine = tuple(node for node in nodes if name in node.partitions)
    groups = _listed(entry.get("AllowGroups", "ALL"))
    per_cpu = _number(entry.get("MaxMemPerCPU", ""), 0) * MB
    per_node = _number(entry.get("MaxMemPerNode", ""), 0) * MB or BOUNDLESS
    if per_cpu:  # SLURM gives a job more CPUs rather than refuse its memory
        per_node = min(per_node, per_cpu * max((node.cpus for node in mine), default=1))
    may = entry.get("RootOnly") != "YES" or os.geteuid() == 0
    return Partition(
        name=name,
        state=entry.get("State", ""),
        default=entry.get("Default") == "YES",
        longest=_time(entry.get("MaxTime", "")),
        usual=_time(entry.get("DefaultTime", "")),
        memory=per_node,
        cpus=_number(entry.get("MaxCPUsPerNode", ""), BOUNDLESS),
        open=may and (groups == ["ALL"] or os.geteuid() == 0 or bool(_groups() & set(groups))),
        accounts=tuple(_unless_all(entry.get("AllowAccounts", "ALL"))),
        qos=tuple(_unless_all(entry.get("AllowQos", "ALL"))),
        nodes=mine,
    )


def _groups() -> set[str]:
    names = set()
    for number in {os.getegid(), *os.getgroups()}:
        try:
            names.add(grp.getgrgid(number).gr_name)
        except KeyError:
            continue
    return names


def _unless_all(text: str) -> list[str]:
    listed = _listed(text)
    return [] if listed == ["ALL"] else listed


def _listed(text: str) -> list[str]:
    return [] if text in ("", "(null)", "N/A") else text.split(",")


def _gres(text: str) -> dict[str, int]:
    """Return how many of each resource: ``gpu:a100:2(S:0-1)`` is 2 of gpu and of gpu:a100."""
    found: dict[str, int] = {}
    for part in _listed(re.sub(r"\([^)]*\)", "", text)):
        words = part.split(":")
        count = _number(words[-1], 1) if len(words) > 1 and words[-1].isdigit() else 1
        names = words[:-1] if len(words) > 1 and words[-1].isdigit() else words
        for name in {names[0], ":".join(names)}:
            found[name] = found.get(name, 0) + count
    return found


def _time(text: str) -> timedelta | None:
    if text in ("", "UNLIMITED", "NONE", "INFINITE"):
        return None
    return parse_time(text)
