"""What ``scontrol show node`` says of the nodes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import zip_longest

from labkit.slurm.commands import UnreadableError

MB = 1024**2
BOUNDLESS = 1 << 60  # bytes or CPUs, where nobody counts them
#: The arguments of scontrol.
NODES = ("--all", "--oneliner", "--details", "show", "node")

_FIELD = re.compile(r"(?:^| )([A-Za-z][A-Za-z0-9_/:]*)=")
# An administrator's free text, then who wrote it and when. What follows it is as free.
_REASON = re.compile(r" Reason=(.*?)(?: \[[^\[\]]*@[^\[\]]*\].*)?$")
_FREE = re.compile(r" (?:Reason|Comment|Extra)=")
_WORKING = frozenset({"idle", "mixed", "allocated"})
_SPELLINGS = {"power": "powered_down", "power_up": "powering_up", "maint": "maintenance",
              "inval": "invalid_reg", "drained": "drain", "draining": "drain"}  # fmt: skip
_ASLEEP = frozenset({"powered_down", "powering_up", "powering_down", "power_down"})
# Flags with which a node takes no jobs, the most telling first, and how people read them.
_TROUBLES = {
    "maintenance": "in maintenance",
    "not_responding": "not answering",
    "drain": "taken out of service",
    "fail": "about to fail",
    "invalid_reg": "wrongly configured",
    "reserved": "reserved",
    "reboot_issued": "restarting",
    "blocked": "held for another job",
}
_STATES = {
    "down": "down",
    "error": "broken",
    "unknown": "not known yet",
    "future": "not there yet",
}


@dataclass(frozen=True)
class Node:
    """One node.

    Attributes
    ----------
    name, address : str
        SLURM's name of it, and where it is reached.
    state : str
        The base state: ``idle``, ``mixed``, ``allocated``, ``down``, ``future``, ...
    flags : frozenset of str
        What SLURM adds to it: ``drain``, ``powered_down``, ``not_responding``, ...
    partitions : frozenset of str
        Where it belongs.
    cpus, free_cpus : int
        CPUs that jobs may use, and that no job has; also where the node is switched off.
    memory, free_memory : int
        Bytes that jobs may use, and that no job has; `BOUNDLESS` where SLURM does not count them.
    gres, used_gres : mapping of str to int
        Generic resources by name, and by name and type: ``gpu``, ``gpu:t4``.
    features : frozenset of str
        On ParallelCluster the instance type is one of them.
    reason : str
        Why it is out of service.
    """

    name: str
    cpus: int
    memory: int
    state: str = "idle"
    flags: frozenset[str] = frozenset()
    partitions: frozenset[str] = frozenset()
    free_cpus: int = 0
    free_memory: int = 0
    gres: Mapping[str, int] = field(default_factory=dict)
    used_gres: Mapping[str, int] = field(default_factory=dict)
    features: frozenset[str] = frozenset()
    reason: str = ""
    address: str = ""

    @property
    def gpus(self) -> int:
        """Graphics cards."""
        return self.gres.get("gpu", 0)

    @property
    def free_gpus(self) -> int:
        """Graphics cards that no job has."""
        return max(0, self.gpus - self.used_gres.get("gpu", 0))

    @property
    def works(self) -> bool:
        """Whether it takes jobs, now or once it is switched on."""
        return self.state in _WORKING and not self.flags & set(_TROUBLES)

    @property
    def awake(self) -> bool:
        """Whether it is there at this moment."""
        return self.works and not self.flags & _ASLEEP

    @property
    def waking(self) -> bool:
        """Whether it is being switched on."""
        return "powering_up" in self.flags

    @property
    def asleep(self) -> bool:
        """Whether it is switched off, or nearly, until a job needs it."""
        return self.works and not self.awake and not self.waking

    @property
    def trouble(self) -> str:
        """Why it takes no jobs, in words; empty where it does."""
        if self.works:
            return ""
        if "drain" in self.flags and self.state in ("mixed", "allocated"):
            return "being taken out of service"
        flag = next((words for name, words in _TROUBLES.items() if name in self.flags), "")
        return flag or _STATES.get(self.state, self.state)


def parse_nodes(text: str, *, counts_memory: bool = True) -> tuple[Node, ...]:
    """Read ``scontrol`` called with `NODES`.

    Parameters
    ----------
    text : str
        What it printed.
    counts_memory : bool
        Whether SLURM gives memory to jobs, or only CPUs.

    Raises
    ------
    UnreadableError
        A line is none of them.
    """
    lines = (line.strip() for line in text.splitlines() if line.strip())
    return tuple(_node(line, counts_memory) for line in lines if line != "No nodes in the system")


def record(line: str) -> dict[str, str]:
    """Return the fields of a line of ``scontrol --oneliner``; the first of a name counts."""
    marks = list(_FIELD.finditer(line))
    fields: dict[str, str] = {}
    for mark, following in zip_longest(marks, marks[1:]):
        end = following.start() if following else len(line)
        fields.setdefault(mark[1], line[mark.end() : end].strip())
    return fields


def parse_gres(text: str) -> dict[str, int]:
    """Return how many of each resource: ``gpu:a100:2(S:0-1)`` is 2 of gpu and of gpu:a100."""
    counts: dict[str, int] = {}
    for part in listed(re.sub(r"\([^)]*\)", "", text)):
        words = part.split(":")
        counted = len(words) > 1 and words[-1].isdigit()
        kind = words[:-1] if counted else words
        for name in {kind[0], ":".join(kind)}:
            counts[name] = counts.get(name, 0) + (int(words[-1]) if counted else 1)
    return counts


def listed(text: str) -> list[str]:
    """Return the items of a list as scontrol writes it."""
    return [] if text in ("", "(null)", "N/A") else [item for item in text.split(",") if item]


def number(text: str, otherwise: int) -> int:
    """Return the number that a text begins with: ``"30 sec"`` is 30."""
    match = re.match(r"\d+", text)
    return int(match[0]) if match else otherwise


def _node(line: str, counts_memory: bool) -> Node:
    free_text = _FREE.search(line)
    row = record(line[: free_text.start()] if free_text else line)
    reason = _REASON.search(line)
    name, state = row.get("NodeName", ""), row.get("State", "")
    cpus, memory = row.get("CPUEfctv", row.get("CPUTot", "")), row.get("RealMemory", "")
    if not (name and state and cpus.isdecimal() and memory.isdecimal()):
        raise UnreadableError(f"scontrol printed an unknown line: {line[:80]!r}")
    base, flags = _state(state)
    usable = int(memory) - number(row.get("MemSpecLimit", ""), 0)
    bytes_ = BOUNDLESS if usable <= 1 and not counts_memory else usable * MB
    why = reason[1].strip() if reason else ""
    return Node(
        name=name,
        address=row.get("NodeAddr", name),
        state=base,
        flags=flags,
        partitions=frozenset(listed(row.get("Partitions", ""))),
        cpus=int(cpus),
        free_cpus=max(0, int(cpus) - number(row.get("CPUAlloc", ""), 0)),
        memory=bytes_,
        free_memory=max(0, bytes_ - number(row.get("AllocMem", ""), 0) * MB),
        gres=parse_gres(row.get("Gres", "")),
        used_gres=parse_gres(row.get("GresUsed", "")),
        features=frozenset(listed(row.get("AvailableFeatures", ""))),
        reason="" if why.lower() == "none" else why,
    )


def _state(text: str) -> tuple[str, frozenset[str]]:
    """Split ``IDLE+CLOUD+POWERED_DOWN``, or ``DOWN*`` of older releases."""
    base, *rest = text.lower().split("+")
    flags = {_SPELLINGS.get(word.rstrip("*"), word.rstrip("*")) for word in rest}
    if base.endswith("*") or any(word.endswith("*") for word in rest):
        flags.add("not_responding")
    base = base.rstrip("*~#!%$@^-")
    if flags & _ASLEEP:  # nobody expects an answer
        flags.discard("not_responding")
    if base in _SPELLINGS or base in _ASLEEP or base in _TROUBLES:  # as sinfo shortens them
        return "idle", frozenset({*flags, _SPELLINGS.get(base, base)})
    return base, frozenset(flags)
