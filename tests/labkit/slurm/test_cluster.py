"""What scontrol prints of nodes and partitions."""

from __future__ import annotations

from datetime import timedelta

import pytest

from labkit.slurm import cluster
from labkit.slurm.cluster import Partition, parse, parse_partitions, parse_time
from labkit.slurm.commands import UnreadableError
from labkit.slurm.nodes import BOUNDLESS, MB, Node, parse_gres, parse_nodes, record
from labkit.testing import SlurmCluster
from labkit.testing.fixtures import slurm, slurm_cluster  # noqa: F401

LINE = (
    "NodeName=c-dy-1 CPUAlloc=1 CPUEfctv=4 CPUTot=8 AvailableFeatures=dynamic,c5.xlarge"
    " Gres=gpu:t4:2(S:0) GresUsed=gpu:t4:1(IDX:0) NodeAddr=10.1.2.3 OS=Linux 6.1 #1 SMP x=y "
    " RealMemory=7782 AllocMem=1000 State={} MemSpecLimit=82 Partitions=cloud,main"
)


@pytest.mark.parametrize(
    ("state", "works", "awake", "trouble"),
    [
        ("IDLE", True, True, ""),
        ("MIXED+PLANNED", True, True, ""),
        ("MIXED+CLOUD", True, True, ""),
        ("ALLOCATED+COMPLETING", True, True, ""),
        ("IDLE+NEW_FLAG", True, True, ""),
        ("IDLE+CLOUD+POWERED_DOWN", True, False, ""),
        ("IDLE+CLOUD+POWER", True, False, ""),
        ("ALLOCATED+CLOUD+POWERING_UP", True, False, ""),
        ("MIXED+CLOUD+NOT_RESPONDING+POWERING_UP", True, False, ""),
        ("IDLE+POWERING_DOWN", True, False, ""),
        ("IDLE+POWER_DOWN", True, False, ""),
        ("DOWN+CLOUD+POWERED_DOWN", False, False, "down"),
        ("DOWN+NOT_RESPONDING", False, False, "not answering"),
        ("DOWN*", False, False, "not answering"),
        ("IDLE*+DRAIN", False, False, "not answering"),
        ("IDLE+DRAIN+POWERED_DOWN", False, False, "taken out of service"),
        ("MIXED+DRAIN", False, False, "being taken out of service"),
        ("IDLE+MAINTENANCE", False, False, "in maintenance"),
        ("MAINT", False, False, "in maintenance"),
        ("IDLE+RESERVED", False, False, "reserved"),
        ("IDLE+INVALID_REG", False, False, "wrongly configured"),
        ("FUTURE", False, False, "not there yet"),
        ("NEWSTATE", False, False, "newstate"),
    ],
)
def test_a_nodes_state_is_read_with_its_flags(
    state: str, works: bool, awake: bool, trouble: str
) -> None:
    (node,) = parse_nodes(LINE.format(state))
    assert (node.works, node.awake, node.trouble) == (works, awake, trouble)
    assert (node.cpus, node.free_cpus) == (4, 3)
    assert (node.memory, node.free_memory) == (7700 * MB, 6700 * MB)
    assert (node.gpus, node.free_gpus, node.reason, node.address) == (2, 1, "", "10.1.2.3")
    assert node.partitions == {"cloud", "main"}


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (" Reason=fan | x=y State=IDLE [root@2026-11-30T12:14:42]", "fan | x=y State=IDLE"),
        (" Reason=(Code:Inv)x [slurm@2026-11-30T12:14:42] Comment=State=IDLE", "(Code:Inv)x"),
        (" Reason=none [root@2026-11-30T12:14:42]", ""),
        (" Comment=Reason=x State=IDLE", ""),
        ("", ""),
    ],
)
def test_an_administrators_words_are_words(end: str, reason: str) -> None:
    (node,) = parse_nodes(LINE.format("DOWN") + end)
    assert (node.state, node.reason) == ("down", reason)


def test_memory_that_nobody_counts_is_boundless() -> None:
    line = "NodeName=n1 CPUTot=4 RealMemory=1 State=IDLE Partitions=main"
    assert parse_nodes(line)[0].memory == MB
    (node,) = parse_nodes(line, counts_memory=False)
    assert node.memory == node.free_memory == BOUNDLESS


def test_scontrols_lines_are_read_whatever_they_hold() -> None:
    row = record("NodeName=n1 OS=Linux 6.1 #1 SMP x=y Gres=gpu:a100:2(S:0-1) State=IDLE State=DOWN")
    assert (row["Gres"], row["State"]) == ("gpu:a100:2(S:0-1)", "IDLE")


@pytest.mark.parametrize(
    ("gres", "count"),
    [
        ("(null)", {}),
        ("gpu", {"gpu": 1}),
        ("gpu:3", {"gpu": 3}),
        ("gpu:a100:8(S:0-1)", {"gpu": 8, "gpu:a100": 8}),
        ("gpu:t4:2(S:0),gpu:1,licence:5", {"gpu": 3, "gpu:t4": 2, "licence": 5}),
        ("gpu:tesla:2(IDX:0-1),gpu:t4:1", {"gpu": 3, "gpu:tesla": 2, "gpu:t4": 1}),
        ("gpu:t4:0(IDX:N/A)", {"gpu": 0, "gpu:t4": 0}),
        ("mps:200,nvme", {"mps": 200, "nvme": 1}),
    ],
)
def test_generic_resources_are_counted(gres: str, count: dict[str, int]) -> None:
    assert parse_gres(gres) == count


def test_lengths_of_time_are_read_as_slurm_writes_them() -> None:
    assert parse_time("30:00") == timedelta(minutes=30)
    assert parse_time("2-12:00:00") == timedelta(days=2, hours=12)
    assert parse_time("UNLIMITED") is None
    with pytest.raises(UnreadableError, match="no length of time"):
        parse_time("soon")


@pytest.mark.parametrize(
    "text",
    ["scontrol: error", "NodeName=n1 State=IDLE", "NodeName=n1 CPUTot=x RealMemory=1 State=IDLE"],
)
def test_an_answer_that_is_none_is_not_guessed_at(text: str) -> None:
    with pytest.raises(UnreadableError):
        parse_nodes(text)
    with pytest.raises(UnreadableError):
        parse_partitions(text)
    with pytest.raises(UnreadableError):
        parse(text, "")


def test_a_partitions_rules_are_read() -> None:
    (part,) = parse_partitions(
        "PartitionName=a AllowGroups=x,y AllowAccounts=ALL DenyQos=q Default=YES MaxTime=1:00:00"
        " DefaultTime=NONE Hidden=YES RootOnly=NO State=UP MaxCPUsPerNode=2 MaxMemPerCPU=100",
        [Node("n1", 4, 1000 * MB, partitions=frozenset({"a"}))],
    )
    assert (part.groups, part.accounts, part.denied_qos) == ({"x", "y"}, None, {"q"})
    assert (part.default, part.hidden, part.max_time) == (True, True, timedelta(hours=1))
    assert part.time_limit == timedelta(hours=1)
    assert (part.most_cpus, part.most_memory, part.cores) == (2, 400 * MB, 2)
    assert (part.open_to({"x"}), part.open_to({"z"}), part.open_to((), root=True)) == (
        True, False, True,
    )  # fmt: skip
    assert not Partition("b", root_only=True).open_to({"x"})


def test_a_real_cluster_is_read(slurm: SlurmCluster) -> None:  # noqa: F811
    have = cluster.current()
    main = have.default
    assert main is not None
    assert (main.name, main.max_time, main.most_cpus) == ("main", None, 16)
    assert (main.most_memory, main.cores, have.counts_memory) == (16_000 * MB, 64, True)
    assert [node.name for node in main.nodes] == list(slurm.nodes)
    assert all(node.awake and node.free_cpus == 16 for node in main.nodes)
    assert have.max_array > 1
    assert have.name == cluster.name()
