"""Time-outs of a start, verdicts of its log, the list of servers, more time: without a cluster."""

from __future__ import annotations

from datetime import timedelta

import pytest

from hub.labfile.slurm import Slurm
from hub.slurm import extend as extending
from hub.slurm.job.announce import UNREACHED
from hub.slurm.listing import server_jobs
from hub.slurm.poller import COLUMNS
from hub.slurm.start_limits import StartLimits
from hub.slurm.unreached import UnreachedHub
from labkit.base.problems import ProblemsError
from labkit.slurm.exit_reasons import how, over_memory
from labkit.slurm.queue import Job


def job(state: str, **more: object) -> Job:
    return Job(**{"id": "7", "state": state, "partition": "main", "host": "node1", **more})  # type: ignore[arg-type]


def limits(waited: float = 0.0) -> tuple[StartLimits, list[float]]:
    now = [1000.0]
    section = Slurm.model_validate(
        {
            "partitions": ["main"],
            "hub_host": "head",
            "environments": "/shared",
            "queue_timeout": "10m",
            "boot_timeout": "20m",
        }
    )
    return StartLimits(section, waited, clock=lambda: now[0]), now


def test_the_queue_has_a_time_out_of_its_own() -> None:
    start, now = limits()
    now[0] += 599
    assert start.verdict(job("PENDING", reason="Resources")) == ""
    now[0] += 1
    said = start.verdict(job("PENDING", reason="Resources"))
    assert "waited in the queue of the partition main for 10 min" in said
    assert "waits until enough cores and memory are free" in said


def test_a_node_that_boots_has_one_and_the_queue_takes_nothing_of_it() -> None:
    start, now = limits()
    now[0] += 599
    assert start.verdict(job("CONFIGURING")) == ""
    now[0] += 1199
    assert start.verdict(job("CONFIGURING")) == ""
    now[0] += 1
    assert (
        start.verdict(job("CONFIGURING"))
        == "the node node1 was not ready 20 min after it was chosen"
    )
    assert "the server did not answer within 20 min" in start.verdict(job("RUNNING"))


def test_what_it_waited_under_an_earlier_hub_counts() -> None:
    start, _ = limits(waited=601)
    assert start.verdict(job("PENDING", reason="Priority"))


def line(seconds: int) -> str:
    return f"labhub: {UNREACHED} at http://head:8081/hub/api for {seconds} s: Connection refused\n"


def test_a_node_that_does_not_reach_the_hub_is_believed_after_some_seconds() -> None:
    watch = UnreachedHub()
    assert watch.verdict("a word\n" + line(0)) == ""
    assert watch.verdict(line(0) + line(4)) == ""
    said = watch.verdict(line(0) + line(4) + line(9))
    assert said == "its node does not reach the hub at http://head:8081/hub/api: Connection refused"


def test_what_was_written_while_the_hub_was_away_is_no_wonder() -> None:
    watch = UnreachedHub(resumed=True)
    assert watch.verdict("") == ""
    assert watch.verdict(line(60)) == ""
    assert watch.verdict(line(60) + line(65)) == ""
    assert watch.verdict(line(60) + line(70))


def test_every_server_is_listed_with_what_slurm_says() -> None:
    rows = {
        "1": job("RUNNING", id="1", end=1360.0),
        "2": job("PENDING", id="2", reason="Priority", host="n/a"),
        "3": job("SUSPENDED", id="3", end=1060.0),
        "4": job("FAILED", id="4", reason="JobLaunchFailure"),
        "5": job("CONFIGURING", id="5"),
        "7": job("FAILED", id="7", reason="JobLaunchFailure", start=100.0, end=700.0),
        "9": job("RUNNING", id="9", user="stranger"),
    }
    servers = {(f"u{n}", ""): str(n) for n in (1, 2, 3, 4, 5, 6, 7)}
    shown = {one.user: one for one in server_jobs(servers, rows, clock=lambda: 1000.0)}
    assert [shown[f"u{n}"].state for n in (1, 2, 3, 4, 5, 6)] == [
        "runs",
        "waits",
        "suspended",
        "ended",
        "node starts",
        "unknown",
    ]
    assert (shown["u1"].left, shown["u1"].time_left, shown["u1"].node) == (360.0, "6 min", "node1")
    assert shown["u2"].reason == "Other jobs are before it in the queue. (Priority)"
    assert shown["u2"].node == ""
    assert "home" in shown["u4"].reason
    assert "it was killed on the node node1" in shown["u7"].reason


@pytest.mark.parametrize(
    ("state", "reason", "words"),
    [
        ("COMPLETING", "TimeLimit", "it reached its time limit (8 h)"),
        ("FAILED", "JobLaunchFailure", "its owner's home (/home/ada) is missing there"),
        ("PREEMPTED", "None", "it had to give way to a job with higher priority"),
        ("OUT_OF_MEMORY", "None", "it used more memory than it has (2 GB)"),
        ("NODE_FAIL", "None", "the node node1 failed"),
        ("CANCELLED", "None", "its job was cancelled"),
    ],
)
def test_an_end_has_its_reason(state: str, reason: str, words: str) -> None:
    said = how(state, reason=reason, limit="8 h", memory="2 GB", node="node1", home="/home/ada")
    assert words in said


STEPD = "slurmstepd-node1: error: "


@pytest.mark.parametrize(
    ("ran", "log", "words"),
    [
        (2.0, "", "its owner's home (/home/ada) is missing there"),
        (600.0, "", "it was killed on the node node1, mostly because its own memory (2 GB)"),
        (600.0, "7.batch exceeded memory limit\n", "it was killed on the node node1"),
        (
            2.0,
            f"{STEPD}StepId=6.batch exceeded memory limit (747200512 > 536870912), being killed\n",
            "its owner's home (/home/ada) is missing there",
        ),
        (
            600.0,
            f"{STEPD}StepId=7.batch exceeded memory limit (747200512 > 536870912), being killed\n",
            "it used more memory than it has (2 GB)",
        ),
        (
            2.0,
            f"a word\n{STEPD}Detected 1 oom-kill event(s) in StepId=7.batch.\n",
            "it used more memory than it has (2 GB)",
        ),
    ],
)
def test_a_server_that_a_signal_killed_is_not_said_to_have_failed_to_start(
    ran: float, log: str, words: str
) -> None:
    """SLURM gives both the reason JobLaunchFailure."""
    said = how(
        "FAILED",
        reason="JobLaunchFailure",
        ran=ran,
        over_memory=over_memory(log, "7"),
        memory="2 GB",
        node="node1",
        home="/home/ada",
    )
    assert words in said


class Scontrol:
    """A job of an hour in a partition of at most two."""

    def __init__(self) -> None:
        self.updates: list[tuple[str, ...]] = []

    async def __call__(self, program: str, *words: str) -> str:
        if program == "squeue":
            row = job("RUNNING", user="ada", reason="None", start=1000.0, end=4600.0)
            fields = {**row._asdict(), "submitted": "1", "start": "1000", "end": "4600"}
            return "|".join(str(fields[name]) for name in COLUMNS.names)
        if words[0] == "update":
            self.updates.append(words)
            return ""
        return "PartitionName=main State=UP MaxTime=02:00:00\n"


async def test_more_time_ends_at_the_partitions_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    scontrol = Scontrol()
    monkeypatch.setattr(extending, "run_slurm", scontrol)
    with pytest.raises(ProblemsError) as refused:
        await extending.extend("7", timedelta(minutes=61))
    assert "gives a job at most 2 h" in str(refused.value)
    assert "at most 60 min more" in str(refused.value) or "at most 1 h more" in str(refused.value)
    assert scontrol.updates == []
    assert await extending.extend("7", timedelta(hours=1)) == 8200.0
    assert scontrol.updates == [("update", "JobId=7", "TimeLimit=+60")]
