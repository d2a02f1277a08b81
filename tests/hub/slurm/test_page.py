"""What the spawn page knows of the cluster: asked of a real SLURM, read from its own words."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import date, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from hub.labfile.schema import Profile, Settings
from hub.slurm.cloud import Queue, read_queues
from hub.slurm.cluster import Cluster, ClusterView, cluster_of
from hub.slurm.commands import run_slurm
from hub.slurm.poller import COLUMNS, parse
from hub.slurm.prices import prices
from hub.slurm.waiting import position, wait_of
from hub.spawners import partitions, profiles
from hub.spawners.base import _TEMPLATES
from labkit.slurm.commands import SlurmUnavailableError
from labkit.slurm.queue import Job
from labkit.testing import SlurmCluster

CLOUD = """\
Region: eu-central-1
Scheduling:
  Scheduler: slurm
  SlurmQueues:
    - Name: cloud
      CapacityType: ONDEMAND
      ComputeResources:
        - {Name: small, InstanceType: c5.xlarge, MinCount: 0, MaxCount: 10}
    - Name: spot
      CapacityType: SPOT
      ComputeResources:
        - Name: mixed
          Instances: [{InstanceType: m5.xlarge}, {InstanceType: m5a.xlarge}]
"""
PROFILES = (
    Profile(name="small", title="Small", cpu=2, memory=2 << 30, default=True),
    Profile(name="whole", title="Whole node", cpu=4, memory=4 << 30),
    Profile(name="large", title="Large", cpu=64, memory=4 << 30),
    Profile(name="card", title="Card", cpu=1, memory=1 << 30, gpus=1, partitions=("gpu", "main")),
)
PLACES = ("main", "gpu", "short", "shut", "closed", "cloud", "typo")


# As on ParallelCluster: nodes that are switched off and on; no program does it here.
POWER_SAVING = {
    "PrivateData": "cloud",
    "SuspendProgram": "/bin/true",
    "ResumeProgram": "/bin/true",
    "SuspendTime": 86400,
    "SuspendTimeout": 1,
    "ResumeTimeout": 300,
}


@pytest.fixture(scope="module")
def slurm() -> Iterator[SlurmCluster]:
    layout: dict[str, Any] = {
        "nodes": 4,
        "cpus": 4,
        "memory": 8000,
        "features": {"node4": "dynamic,c5.xlarge,small"},
        "gres": {"node3": "gpu:t4:1"},
        "partitions": {
            "main": {"Nodes": "node[1-2]", "MaxTime": "8:00:00", "Default": "YES"},
            "gpu": {"Nodes": "node3"},
            "short": {"Nodes": "node1", "MaxTime": "30"},
            "shut": {"Nodes": "node2", "State": "DOWN"},
            "closed": {"Nodes": "node2", "AllowGroups": "daemon"},
            "cloud": {"Nodes": "node4", "MaxTime": "2-00:00:00"},
        },
        "config": POWER_SAVING,
    }
    before = os.environ.get("SLURM_CONF")
    with SlurmCluster(**layout) as cluster:
        os.environ |= cluster.environment
        yield cluster
        if before is None:
            del os.environ["SLURM_CONF"]
        else:
            os.environ["SLURM_CONF"] = before


@pytest.fixture
def lab(tmp_path: Path) -> Settings:
    config = tmp_path / "cluster-config.yaml"
    config.write_text(CLOUD)
    return Settings.model_validate(
        {
            "target": "slurm",
            "profiles": PROFILES,
            "slurm": {
                "partitions": PLACES,
                "hub_host": "head",
                "environments": "/shared/envs",
                "time_limit": timedelta(hours=8),
                "cluster_config": str(config),
            },
        }
    )


async def until(true: Callable[[], Awaitable[Any]], seconds: float = 30) -> Any:
    end = time.monotonic() + seconds
    while not (found := await true()):
        assert time.monotonic() < end, await run_slurm("squeue", "--long")
        await asyncio.sleep(0.1)
    return found


async def look(lab: Settings) -> ClusterView:
    view = await Cluster(lab).describe()
    assert view.trouble == ""
    return view


async def jobs() -> dict[str, Job]:
    return parse(await run_slurm("squeue", "--noheader", "--array", "--all", "-o", COLUMNS.format))


def submit(slurm: SlurmCluster, *options: str) -> str:
    return slurm.command(
        "sbatch", "--parsable", "--output=/dev/null", *options, "--wrap", "sleep 600"
    )


# -- a real cluster -------------------------------------------------------------------


async def test_partitions_have_their_limits_and_what_is_free_now(
    slurm: SlurmCluster, lab: Settings
) -> None:
    view = await look(lab)
    main, gpu = view.partitions["main"], view.partitions["gpu"]
    assert main.rules.max_time == timedelta(hours=8)
    assert gpu.rules.max_time is None
    assert view.partitions["closed"].rules.groups == {"daemon"}
    assert (main.free_nodes, main.free_cores, gpu.free_gpus) == (2, 8, 1)
    job = submit(slurm, "--partition=main", "--cpus-per-task=3", "--mem=1000")
    card = submit(slurm, "--partition=gpu", "--gres=gpu:1", "--mem=500")

    async def running() -> bool:
        rows = await jobs()
        return all(rows[number].state == "RUNNING" for number in (job, card))

    await until(running)
    view = await look(lab)
    main, gpu = view.partitions["main"], view.partitions["gpu"]
    assert (main.free_nodes, main.free_cores, gpu.free_gpus) == (1, 5, 0)
    busy = next(node for node in main.nodes if node.free_cpus == 1)
    assert (busy.state, busy.free_memory) == ("mixed", 7000 << 20)
    # What one node alone must hold: 5 cores are free, but of two nodes.
    assert main.room(PROFILES[1]) == "now"
    assert view.partitions["short"].room(PROFILES[1]) == "wait"
    assert gpu.room(PROFILES[3]) == "wait"
    slurm.cancel_all()


async def test_what_cannot_start_is_explained(slurm: SlurmCluster, lab: Settings) -> None:
    found = await partitions.places(Cluster(lab), lab, PROFILES, PROFILES[0], "closed", "nobody")
    said = {place.name: place.refused for place in found.places}
    assert set(said) == set(PLACES)
    assert "small" not in said["main"]
    assert "small" not in said["cloud"]
    assert said["short"]["small"] == "It gives a job at most 30 min, and servers ask for 8 h."
    assert said["shut"]["small"] == "It starts no jobs at the moment."
    assert said["closed"]["small"] == "It is for the groups daemon."
    assert said["typo"]["small"].startswith("The cluster has no such partition")
    assert said["main"]["large"] == (
        "No node is large enough: the largest has 4 cores, 7.81 GB memory."
    )
    assert said["main"]["card"].endswith("4 cores, 7.81 GB memory, no GPU.")
    assert said["cloud"]["card"] == "It is not for the profile Card."
    assert "card" not in said["gpu"]
    assert list(found.impossible) == ["large"]
    # The last partition is refused now: another is chosen.
    assert [place.name for place in found.places if place.selected] == ["main"]
    member = await partitions.places(Cluster(lab), lab, PROFILES, PROFILES[0], "closed", "daemon")
    assert [place.name for place in member.places if place.selected] == ["closed"]
    reasons = found.impossible["large"]
    assert reasons[0].startswith("main, cloud: No node is large enough")
    assert len(reasons) == len({reason.split(": ", 1)[1] for reason in reasons})
    facts = {place.name: place.facts for place in found.places}
    assert facts["main"] == (
        "Free now: 8 of 8 cores, 2 of 2 nodes",
        "Nodes of 4 cores, 7.81 GB memory · at most 8 h",
    )
    assert facts["gpu"] == (
        "Free now: 4 of 4 cores, 1 of 1 node, 1 of 1 GPUs",
        "Nodes of 4 cores, 7.81 GB memory, 1 GPU · no time limit",
    )
    assert facts["cloud"][-1] == "c5.xlarge: a node for 0.17 USD per hour"
    assert not facts["shut"][0].startswith("Free now")
    assert found.prices == prices().day


async def test_a_waiting_server_has_its_place_its_reason_and_its_time(
    slurm: SlurmCluster, lab: Settings
) -> None:
    one = ("--partition=gpu", "--exclusive", "--time=10")
    running, first, second = (submit(slurm, *one) for _ in range(3))
    elsewhere = submit(slurm, "--partition=main", "--hold")

    async def settled() -> bool:
        rows = await jobs()
        reasons = (rows[first].reason, rows[second].reason)
        estimated = rows[first].start is not None
        return reasons == ("Resources", "Priority") and estimated

    await until(settled)
    rows, view = await jobs(), await look(lab)
    assert wait_of(rows[running], rows.values(), view) is None
    wait = wait_of(rows[first], rows.values(), view)
    assert wait is not None
    assert (wait.partition, wait.position, wait.length) == ("gpu", 1, 2)
    assert "until enough cores and memory are free" in wait.why
    assert wait.expected is not None
    assert 0 < wait.expected - time.time() < 700
    later = wait_of(rows[second], rows.values(), view)
    assert later is not None
    assert (later.position, later.why) == (2, "Other jobs are before it in the queue.")
    held = wait_of(rows[elsewhere], rows.values(), view)
    assert held is not None
    assert held.hopeless
    assert (held.position, held.hint) == (1, "Cancel and start again.")
    slurm.cancel_all()


async def test_one_partition_that_is_open_leaves_nothing_to_choose(
    slurm: SlurmCluster, lab: Settings
) -> None:
    assert lab.slurm is not None

    async def settled(partition: str) -> bool:
        slurm_section = lab.slurm.model_copy(update={"partitions": (partition,)})  # type: ignore[union-attr]
        one = lab.model_copy(update={"slurm": slurm_section})
        offered = PROFILES[:1]
        return (
            await partitions.places(Cluster(one), one, offered, offered[0], None, "nobody")
        ).settled

    assert await settled("main")
    assert not await settled("shut")


async def test_a_drained_node_is_named_with_the_administrators_reason(
    slurm: SlurmCluster, lab: Settings
) -> None:
    slurm.command(
        "scontrol", "update", "nodename=node3", "state=drain", "reason=fan | <b>broken</b>"
    )
    try:
        cluster = Cluster(lab)
        view = await cluster.describe()
        assert cluster.refusal(view, PROFILES[3], "gpu", ()) == (
            "Its nodes are out of service: node3 is taken out of service (fan | <b>broken</b>)"
        )
    finally:
        slurm.command("scontrol", "update", "nodename=node3", "state=resume")


async def test_a_node_of_the_cloud_is_offered_while_it_is_off_and_said_to_be_starting(
    slurm: SlurmCluster, lab: Settings
) -> None:
    slurm.command("scontrol", "update", "nodename=node4", "state=power_down")
    slurm.kill_node("node4")

    async def off() -> bool:
        return bool((await look(lab)).partitions["cloud"].asleep)

    await until(off)
    view = await look(lab)
    cloud = view.partitions["cloud"]
    assert cloud.room(PROFILES[1]) == "soon"
    assert (cloud.free_cores, len(cloud.awake)) == (0, 0)
    found = await partitions.places(Cluster(lab), lab, PROFILES, PROFILES[0], None, "nobody")
    place = next(place for place in found.places if place.name == "cloud")
    assert place.room["small"] == "A node has to start first: some minutes."
    assert place.facts[0] == "1 node can be started"
    job = submit(slurm, "--partition=cloud", "--mem=500")

    async def configuring() -> bool:
        return (await jobs())[job].state == "CONFIGURING"

    await until(configuring)

    async def waking() -> bool:  # SLURM switches it on a moment later
        return len((await look(lab)).partitions["cloud"].waking) == 1

    await until(waking)
    view, rows = await look(lab), await jobs()
    wait = wait_of(rows[job], rows.values(), view)
    assert wait is not None
    assert wait.title == "The node node4 is starting (AWS, c5.xlarge)"
    assert not wait.hopeless
    slurm.cancel_all()


async def test_a_silent_controller_leaves_the_last_picture_and_asks_seldom(
    slurm: SlurmCluster, lab: Settings
) -> None:
    now, asked = 1000.0, []

    async def run(program: str, *args: str, timeout: float) -> str:
        asked.append(args[-1])
        return await run_slurm(program, *args, timeout=timeout)

    cluster = Cluster(lab, run, lambda: now)
    views = await asyncio.gather(*(cluster.describe() for _ in range(50)))
    assert asked == ["config", "partition", "node"]
    assert len({id(view) for view in views}) == 1
    slurm.stop_munge()
    try:
        now += 11
        view = await cluster.describe()
        await cluster.describe()
        assert len(asked) == 6
        assert view.trouble
        assert view.at == views[0].at
        assert set(view.partitions) == set(views[0].partitions)
        fresh = await Cluster(lab).describe()
        assert (fresh.partitions, fresh.at) == ({}, None)
        nothing = await partitions.places(Cluster(lab), lab, PROFILES, PROFILES[0], None, "nobody")
        # Nothing is known, so nothing is refused but what the lab file itself says.
        assert nothing.impossible == {}
        assert all("small" not in place.refused for place in nothing.places)
    finally:
        slurm.start_munge()
    now += 11
    assert (await cluster.describe()).trouble == ""


def test_all_spawners_ask_the_same_cluster(lab: Settings) -> None:
    assert cluster_of(lab) is cluster_of(copy.deepcopy(lab))
    assert lab.slurm is not None
    other = lab.model_copy(update={"slurm": lab.slurm.model_copy(update={"account": "b"})})
    assert cluster_of(lab) is not cluster_of(other)


class Tags(HTMLParser):
    """Which elements and attributes a page has."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


async def test_nothing_that_slurm_says_becomes_part_of_the_page(lab: Settings) -> None:
    evil = """"'><img src=x onerror=alert(1)>&quot;</script>"""
    nodes = "\n".join(
        f"NodeName={name}1 CPUTot=4 RealMemory=9999 State=IDLE+DRAIN Partitions={name}"
        f" Reason={evil}"
        for name in ("main", "gpu")
    )
    rules = "\n".join(
        f"PartitionName={name} State=UP MaxTime=UNLIMITED AllowGroups={groups}"
        for name, groups in (("main", "ALL"), ("gpu", "ALL"), ("cloud", evil.replace(" ", "")))
    )

    async def run(program: str, *words: str, timeout: float) -> str:
        return {"config": "ClusterName=lab", "partition": rules, "node": nodes}[words[-1]]

    found = await partitions.places(Cluster(lab, run), lab, PROFILES, PROFILES[0], evil, "nobody")
    assert set(found.impossible) == {p.name for p in PROFILES}
    assert not found.settled
    for places in (found, dataclasses.replace(found, impossible={})):
        text = _TEMPLATES.get_template("profiles.html").render(
            profiles=profiles.cards(PROFILES, PROFILES[0]),
            places=places,
            contact=evil,
            server_name=evil,
        )
        tags = Tags()
        tags.feed(text)
        assert "main1 is taken out of service" in text
        assert "onerror" in text  # it is shown, as text
        assert [tag for tag, _ in tags.seen if tag in ("img", "script")] == []
        assert not any(name.startswith("on") for _, attrs in tags.seen for name in attrs)
    told = [attrs["data-refused"] for _, attrs in tags.seen if "data-refused" in attrs]
    assert any(evil in reason for row in told for reason in json.loads(row or "").values())


# -- words and numbers ----------------------------------------------------------------


async def test_what_aws_has_refused_is_said_instead_of_slurms_words(lab: Settings) -> None:
    reason = "(Code:InsufficientInstanceCapacity)Failure when resuming nodes"
    node = "NodeName=c1 CPUTot=4 RealMemory=7782 State=DOWN+POWERING_UP Partitions=cloud"
    nodes = f"{node} Reason={reason}"
    rules = "PartitionName=cloud State=UP MaxTime=UNLIMITED"

    async def run(program: str, *words: str, timeout: float) -> str:
        return {"config": "ClusterName=lab", "partition": rules, "node": nodes}[words[-1]]

    cluster = Cluster(lab, run)
    view = await cluster.describe()
    assert cluster.refusal(view, PROFILES[0], "cloud", ()) == (
        "AWS has none of these instances free; the cluster tries again after some minutes"
    )
    job = row("1", partition="cloud")._replace(reason="ReqNodeNotAvail,_X:c1")
    wait = wait_of(job, [job], view)
    assert wait is not None
    assert "not there: AWS has none of these instances free" in wait.why


async def test_an_answer_that_is_none_is_trouble_not_an_error(lab: Settings) -> None:
    async def broken(*_: str, timeout: float) -> str:
        return "scontrol: error: nonsense"

    async def gone(*_: str, timeout: float) -> str:
        raise SlurmUnavailableError("sinfo did not answer within 5 s")

    assert "no configuration" in (await Cluster(lab, broken).describe()).trouble
    assert "did not answer" in (await Cluster(lab, gone).describe()).trouble


def row(number: str, state: str = "PENDING", priority: int = 10, partition: str = "main") -> Job:
    return Job(
        id=number,
        state=state,
        reason="Priority",
        partition=partition,
        user="ada",
        priority=priority,
    )


def test_the_place_in_the_queue_goes_by_priority_then_by_number() -> None:
    mine = row("12", priority=10)
    others = [
        mine,
        row("9", "RUNNING"),
        row("13", priority=10),
        row("20", priority=99),
        row("8_4", priority=10),
        row("14", partition="gpu"),
        row("11", partition="gpu,main"),
    ]
    assert position(mine, others) == (4, 5)
    assert position(row("12"), []) == (1, 1)


def test_an_estimate_in_the_past_is_not_shown() -> None:
    job = Job(id="1", state="PENDING", reason="Resources", partition="main", start=100.0)
    wait = wait_of(job, [job], ClusterView(), clock=lambda: 101.0)
    assert wait is not None
    assert wait.expected is None


# -- ParallelCluster ------------------------------------------------------------------


def test_queues_are_read_from_the_clusters_own_configuration(tmp_path: Path) -> None:
    file = tmp_path / "cluster-config.yaml"
    assert read_queues(file) == {}
    file.write_text(CLOUD)
    queues = read_queues(file)
    assert queues["cloud"] == Queue("cloud", False, ("c5.xlarge",))
    assert queues["spot"] == Queue("spot", True, ("m5.xlarge", "m5a.xlarge"))
    table = prices()
    assert queues["cloud"].cost(table) == (0.17, 0.17)
    assert queues["spot"].cost(table) == (0.172, 0.192)
    assert Queue("new", False, ("c5.xlarge", "z99.huge")).cost(table) is None


@pytest.mark.parametrize(
    "text", ["", "[", "Scheduling: 3", "Scheduling: {SlurmQueues: [{Name: a}]}", "!!python/x 1"]
)
def test_a_strange_configuration_costs_the_prices_and_nothing_else(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "cluster-config.yaml"
    file.write_text(text)
    assert read_queues(file) == {}
    assert "tells nothing of the cluster's instances" in caplog.text


def test_the_price_table_is_dated_and_plausible() -> None:
    table = prices()
    assert date(2026, 1, 1) < table.day <= date.today()
    assert table.region == "us-east-1"
    assert len(table.hourly) > 300
    assert all(0 < price < 120 for price in table.hourly.values())
    for family in ("c5", "m6i", "r7a"):  # twice the size, twice the price
        small, large = table.hourly[f"{family}.xlarge"], table.hourly[f"{family}.2xlarge"]
        assert large == pytest.approx(2 * small, rel=0.01)
