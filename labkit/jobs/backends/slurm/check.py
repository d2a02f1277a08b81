"""What stands against a plan on a cluster, told before anything is submitted."""

from __future__ import annotations

import contextlib
import grp
import math
import os
import re
from pathlib import Path

from labkit.base.problems import Problem, unknown_name
from labkit.base.units import format_size
from labkit.jobs.backends.base import SubmitRefusedError
from labkit.jobs.backends.slurm.array_layout import JobArray
from labkit.jobs.backends.slurm.options import Options
from labkit.jobs.backends.slurm.script import StageRequest, arguments
from labkit.jobs.plan import Plan
from labkit.slurm import commands
from labkit.slurm.cluster import Cluster, Partition
from labkit.slurm.commands import SlurmRefusedError, SlurmUnavailableError
from labkit.slurm.nodes import Node

_NOW = re.compile(r"\bdown\b|drain|busy|not available now", re.IGNORECASE)


def usable(cluster: Cluster) -> list[Partition]:
    """Return the partitions that this user can submit to now."""
    return [part for part in cluster.partitions if _offered(part)]


def chosen(cluster: Cluster, options: Options) -> Partition:
    """Return the partition that a job goes to.

    Raises
    ------
    SubmitRefusedError
        There is none (any more).
    """
    found = cluster.partition(options.partition)
    problems = partition(cluster, options)
    if found is None or problems:
        raise SubmitRefusedError("; ".join(map(str, problems)))
    return found


def partition(cluster: Cluster, options: Options) -> list[Problem]:
    """Check the partition that a job would go to."""
    valid = [part.name for part in usable(cluster)]
    where = "slurm_partition"
    if not valid:
        return [
            Problem(
                where,
                f"no partition of {cluster.name} takes your jobs now.",
                "Ask the cluster's admin; `scontrol show partition` shows their states.",
            )
        ]
    found = cluster.partition(options.partition)
    use = f"Use one of: {', '.join(valid)}."
    if found is None and options.partition is None:
        return [Problem(where, f"the cluster {cluster.name} has no default partition.", use)]
    if found is None:
        return [unknown_name("partition", str(options.partition), valid)]
    problems = []
    if found.state != "UP":
        problems.append(Problem(where, f"the partition {found.name} is {found.state} now.", use))
    if not _open(found):
        problems.append(Problem(where, f"the partition {found.name} is not for your groups.", use))
    for name, allowed in (("account", found.accounts), ("qos", found.qos)):
        value = getattr(options, name)
        if allowed and value is not None and value not in allowed:
            text = f"the partition {found.name} does not take {value!r}."
            problems.append(
                Problem(f"slurm_{name}", text, f"It takes: {', '.join(sorted(allowed))}.")
            )
    return problems


def stage(
    request: StageRequest, tasks: int, cluster: Cluster, part: Partition, options: Options
) -> list[Problem]:
    """Check what a stage asks for against a partition's nodes and limits."""
    where = f"stage {request.name}"
    resources = request.resources
    problems = []
    cpus, memory = math.ceil(resources.cpu), resources.memory
    if cpus > part.most_cpus:
        text = f"each task asks for {cpus} cores; {part.name} has at most {part.most_cpus} a node."
        problems.append(Problem(where, text, _elsewhere(cluster, part, cpus, memory)))
    if memory > part.most_memory:
        text = (
            f"each task asks for {format_size(memory)} of memory; {part.name} has at most "
            f"{format_size(part.most_memory)} a node."
        )
        problems.append(Problem(where, text, _elsewhere(cluster, part, cpus, memory)))
    if resources.time and part.max_time and resources.time > part.max_time:
        text = f"each task asks for {resources.time}; {part.name} gives at most {part.max_time}."
        problems.append(Problem(where, text, "Ask for less, or name another partition."))
    nodes = part.nodes
    features = {word for word in re.split(r"[&|]", options.constraint or "") if word}
    there = frozenset[str]().union(*(node.features for node in nodes))
    for word in sorted(features - there):
        problems.append(unknown_name(f"feature of {part.name}'s nodes", word, there))
    gres = options.gres or (f"gpu:{resources.gpus}" if resources.gpus else "")
    if gres:
        kind, _, last = gres.rpartition(":")
        name, count = (kind, int(last)) if kind and last.isdigit() else (gres, 1)
        most = max((node.gres.get(name, 0) for node in nodes), default=0)
        if count > most:
            text = f"each task asks for {gres}; {part.name} has at most {most} of {name} a node."
            problems.append(Problem(where, text, "`scontrol show node` lists what there is."))
    if problems:
        return problems
    fits = [n for n in nodes if n.cpus >= cpus and n.memory >= memory]
    if not fits:
        text = f"no node of {part.name} has both {cpus} cores and {format_size(memory)} of memory."
        problems.append(Problem(where, text, _elsewhere(cluster, part, cpus, memory)))
    elif not any(_takes(node, options) for node in fits):
        states = ", ".join(sorted({node.trouble for node in fits}))
        text = f"all nodes of {part.name} that could run it are {states} now: it will wait."
        problems.append(Problem(where, text, warning=True))
    image = request.image(options)
    if image and image.startswith("/") and not Path(image).exists():
        text = f"there is no image {image} on this machine; it must be on the nodes."
        problems.append(Problem(where, text, warning=True))
    if tasks and cluster.max_array < 1:
        text = f"the cluster {cluster.name} has job arrays switched off (MaxArraySize=0)."
        problems.append(Problem("slurm", text, "Ask the cluster's admin to allow them."))
    return problems


def _offered(part: Partition) -> bool:
    return part.state == "UP" and not part.hidden and _open(part)


def _open(part: Partition) -> bool:
    names = set()
    for number in {os.getegid(), *os.getgroups()}:
        with contextlib.suppress(KeyError):
            names.add(grp.getgrgid(number).gr_name)
    return part.open_to(names, root=os.geteuid() == 0)


def _takes(node: Node, options: Options) -> bool:
    """Whether a node takes this job now: one that is reserved is there for its reservation."""
    return node.works or (options.reservation is not None and "reserved" in node.flags)


def _elsewhere(cluster: Cluster, part: Partition, cpus: int, memory: int) -> str:
    others = [
        other.name
        for other in usable(cluster)
        if other.name != part.name
        and any(node.cpus >= cpus and node.memory >= memory for node in other.nodes)
        and other.most_cpus >= cpus
        and other.most_memory >= memory
    ]
    if others:
        return f"slurm_partition={others[0]!r} has it" + (
            f" (also: {', '.join(others[1:])})." if others[1:] else "."
        )
    return "Ask for less."


def by_slurm(plan: Plan, part: Partition, options: Options) -> list[Problem]:
    """Let SLURM itself judge what only it knows: account, QOS, reservation.

    It plans the job for that, which costs a busy controller more than a question does: it is asked
    only where one of them is given.
    """
    problems: dict[str, Problem] = {}
    if not (options.account or options.qos or options.reservation):
        return []
    for stage in plan.stages:
        if not stage.tasks:
            continue
        request = StageRequest(stage.name, stage.resources, stage.environment)
        words = arguments(
            request, JobArray(stage.name, 0, 1, 1), "labkit-check", "/", part, options
        )
        try:
            commands.run("sbatch", "--test-only", *words, stdin="#!/bin/sh\n")
        except SlurmRefusedError as error:
            # Nodes that are down now come back; the job waits for them.
            passing = _NOW.search(str(error)) is not None
            hint = "Check the slurm_ options."
            problem = Problem("slurm", f"{error}.", hint, warning=passing)
            problems.setdefault(problem.text, problem)
        except SlurmUnavailableError as error:
            return [Problem("slurm", str(error))]
    return list(problems.values())
