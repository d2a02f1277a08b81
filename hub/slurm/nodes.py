"""What sinfo and scontrol say of nodes and partitions, read by fixed formats."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

# A reason is free text of the administrator and stands last.
NODE_FIELDS = (
    "Partition",
    "NodeList",
    "StateLong",
    "CPUsState",
    "Memory",
    "AllocMem",
    "Gres",
    "GresUsed",
    "Features",
    "Reason",
)
NODES = ("--all", "--Node", "--noheader", "-O", ",".join(f"{name}:|" for name in NODE_FIELDS))
PARTITIONS = ("--oneliner", "show", "partition")

# https://slurm.schedmd.com/sinfo.html, "NODE STATE CODES": what follows the state.
_FLAGS = {
    "*": "silent",
    "~": "asleep",
    "#": "waking",
    "!": "falling asleep",
    "%": "falling asleep",
    "$": "maintenance",
    "@": "reboot",
    "^": "reboot",
    "-": "planned",
    "+": "",
}
_WORKING = frozenset({"idle", "mixed", "allocated", "allocated+", "completing", "planned"})
_WORDS = {
    "down": "down",
    "drained": "taken out of service",
    "draining": "being taken out of service",
    "drain": "taken out of service",
    "fail": "about to fail",
    "failing": "about to fail",
    "error": "broken",
    "maint": "in maintenance",
    "reserved": "reserved",
    "reboot": "restarting",
    "inval": "wrongly configured",
    "blocked": "held for another job",
    "unknown": "not known yet",
    "future": "not there yet",
}


@dataclass(frozen=True)
class Node:
    """A node in one of its partitions.

    Attributes
    ----------
    partition, name : str
        Where, and which.
    state : str
        SLURM's base state: ``idle``, ``mixed``, ``allocated``, ``drained``, ``down``, ...
    flags : frozenset of str
        ``asleep`` (powered down, ``~``), ``waking`` (``#``), ``falling asleep`` (``%``,
        ``!``), ``silent`` (``*``), ``maintenance``, ``reboot``, ``planned``.
    cores, free_cores : int
        As SLURM counts them; free are those that no job has, also where the node sleeps.
    memory, free_memory : int
        MB that jobs may have, and that no job has.
    gpus, free_gpus : int
        Graphics cards.
    features : tuple of str
        On ParallelCluster the instance type is one of them.
    reason : str
        Why it is out of service.
    """

    partition: str
    name: str
    state: str
    flags: frozenset[str]
    cores: int
    free_cores: int
    memory: int
    free_memory: int
    gpus: int
    free_gpus: int
    features: tuple[str, ...]
    reason: str

    @property
    def works(self) -> bool:
        """Whether it takes jobs, now or once it is awake."""
        return self.state in _WORKING and not self.flags & {"silent", "maintenance"}

    @property
    def awake(self) -> bool:
        """Whether it is there at this moment."""
        return self.works and not self.flags & {"asleep", "waking", "falling asleep"}

    @property
    def trouble(self) -> str:
        """Why it takes no jobs, in words; empty where it does."""
        if self.works:
            return ""
        if "maintenance" in self.flags:
            return "in maintenance"
        if "silent" in self.flags:
            return "not answering"
        return _WORDS.get(self.state, self.state)


@dataclass(frozen=True)
class Partition:
    """A partition's rules.

    Attributes
    ----------
    name, state : str
        Its name, and ``UP``, ``DOWN``, ``DRAIN`` or ``INACTIVE``.
    max_time : timedelta or None
        The longest that a job may ask for; None: no limit.
    max_cores_per_node, max_memory_per_node : int or None
        Cores and MB; None: no limit.
    groups, accounts, qos : frozenset of str or None
        Who may use it: Unix groups, accounts, qualities of service; None: all.
    denied_accounts, denied_qos : frozenset of str
        Who may not.
    """

    name: str
    state: str
    max_time: timedelta | None
    max_cores_per_node: int | None
    max_memory_per_node: int | None
    groups: frozenset[str] | None
    accounts: frozenset[str] | None
    qos: frozenset[str] | None
    denied_accounts: frozenset[str]
    denied_qos: frozenset[str]


class Unreadable(ValueError):
    """SLURM printed what these formats do not have."""


def parse_nodes(text: str) -> tuple[Node, ...]:
    """Read ``sinfo`` called with `NODES`.

    Raises
    ------
    Unreadable
        A line is none of them.
    """
    return tuple(_node(line) for line in text.splitlines() if line.strip())


def parse_partitions(text: str) -> dict[str, Partition]:
    """Read ``scontrol`` called with `PARTITIONS`.

    Raises
    ------
    Unreadable
        A line is none of them.
    """
    found = [_partition(line) for line in text.splitlines() if line.startswith("PartitionName=")]
    return {partition.name: partition for partition in found}


def parse_time(text: str) -> timedelta | None:
    """Read SLURM's length of time: ``30:00``, ``8:00:00``, ``2-00:00:00``; None: no limit.

    Raises
    ------
    Unreadable
        It is none.
    """
    if text.upper() in ("UNLIMITED", "INFINITE", "NONE", "N/A", ""):
        return None
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if not found:
        raise Unreadable(f"{text[:40]!r} is no length of time")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def gpus_of(gres: str) -> int:
    """Count the graphics cards in ``gpu:t4:2(S:0),gpu:1,lic:3``."""
    plain = re.sub(r"\([^)]*\)", "", gres)
    found = re.findall(r"(?:^|,)gpu(?::[^:,]+)??(?::(\d+))?(?=,|$)", plain)
    return sum(int(count or 1) for count in found)


def _node(line: str) -> Node:
    values = line.split("|", len(NODE_FIELDS) - 1)
    if len(values) != len(NODE_FIELDS):
        raise Unreadable(f"sinfo printed an unknown line: {line[:80]!r}")
    row = dict(zip(NODE_FIELDS, (value.strip() for value in values), strict=True))
    state = row["StateLong"].lower()
    base = state.rstrip("".join(_FLAGS))
    flags = frozenset(_FLAGS[sign] for sign in state[len(base) :]) - {""}
    if base in ("powered_down", "powering_up", "powering_down", "power_down"):
        flags |= {{"powered_down": "asleep", "powering_up": "waking"}.get(base, "falling asleep")}
        base = "idle"
    cores = re.fullmatch(r"(\d+)/(\d+)/(\d+)/(\d+)", row["CPUsState"])
    if not cores or not row["Memory"].isdecimal():
        raise Unreadable(f"sinfo printed an unknown line: {line[:80]!r}")
    memory, used = int(row["Memory"]), row["AllocMem"]
    gpus = gpus_of(row["Gres"])
    reason = row["Reason"].removesuffix("|").strip()
    return Node(
        partition=row["Partition"].rstrip("*"),
        name=row["NodeList"],
        state=base,
        flags=flags,
        cores=int(cores[4]),
        free_cores=int(cores[2]),
        memory=memory,
        free_memory=max(0, memory - (int(used) if used.isdecimal() else 0)),
        gpus=gpus,
        free_gpus=max(0, gpus - _used_gpus(row["GresUsed"])) if gpus else 0,
        features=tuple(f for f in row["Features"].split(",") if f and f != "(null)"),
        reason="" if reason.lower() == "none" else reason,
    )


def _used_gpus(gres: str) -> int:
    return gpus_of(gres) if "gpu:" in gres else 0


def _partition(line: str) -> Partition:
    row = dict(item.partition("=")[::2] for item in line.split())
    try:
        return Partition(
            name=row["PartitionName"],
            state=row["State"],
            max_time=parse_time(row["MaxTime"]),
            max_cores_per_node=_number(row.get("MaxCPUsPerNode", "")),
            max_memory_per_node=_number(row.get("MaxMemPerNode", "")),
            groups=_some(row.get("AllowGroups", "ALL")),
            accounts=_some(row.get("AllowAccounts", "ALL")),
            qos=_some(row.get("AllowQos", "ALL")),
            denied_accounts=_some(row.get("DenyAccounts", "")) or frozenset(),
            denied_qos=_some(row.get("DenyQos", "")) or frozenset(),
        )
    except KeyError as missing:
        raise Unreadable(f"scontrol printed a partition without {missing}") from None


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and int(text) else None


def _some(text: str) -> frozenset[str] | None:
    return None if text.upper() in ("ALL", "(NULL)", "") else frozenset(text.split(","))
