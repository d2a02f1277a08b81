"""SLURM's codes in words."""

from __future__ import annotations

import pytest

from labkit.slurm import states
from labkit.slurm.exit_reasons import how
from labkit.slurm.reasons import aws_reason, why


@pytest.mark.parametrize(
    ("code", "says", "hopeless"),
    [
        ("Priority", "before it in the queue", False),
        ("(Resources)", "It is next", False),
        ("ReqNodeNotAvail,_UnavailableNodes:node[1-3]", "not available", False),
        ("Nodes required for job are DOWN, DRAINED or reserved", "not available", False),
        ("QOSMaxCpuPerUserLimit", "Your jobs of this kind", False),
        ("QOSMaxCpuPerJobLimit", "more than a job of this kind may", True),
        ("AssocGrpCPUMinutesLimit", "used up its time", False),
        ("AssocGrpCpuLimit", "as much as they may together", False),
        ("AssocMaxJobsLimit", "As many of your jobs run", False),
        ("AssocMaxSubmitJobLimit", "in the queue already", False),
        ("MaxCpuPerAccount", "Your account's jobs", False),
        ("PartitionTimeLimit", "more time than the partition gives", True),
        ("JobHeldAdmin", "An administrator holds it", True),
        ("BadConstraints", "No node of the cluster", True),
        ("QOSNewLimit", "(QOS) is reached", False),
        ("AssocNewLimit", "A limit of your account is reached", False),
        ("None", "has not looked at it yet", False),
        ("SomethingNew", "The cluster says: SomethingNew.", False),
        ("<script>alert(1)</script>", "The cluster says: scriptalert1script.", False),
        ("", "The cluster says: nothing.", False),
    ],
)
def test_every_reason_has_words(code: str, says: str, hopeless: bool) -> None:
    reason = why(code)
    assert says in reason.text
    assert reason.hopeless == hopeless
    assert reason.hint or not hopeless


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("TIMEOUT", "it reached its time limit (8h)"),
        ("OUT_OF_MEMORY", "it used more memory than it has (2 GB)"),
        ("NODE_FAIL", "the node node1 failed"),
        ("NEW_STATE", "its job ended as NEW_STATE"),
        ("", "its job is not in SLURM's queue any more"),
    ],
)
def test_an_end_is_told_in_words(state: str, words: str) -> None:
    assert how(state, memory="2 GB", limit="8h", node="node1") == words


def test_every_end_has_words_with_and_without_details() -> None:
    for state in states.ENDED:
        assert "ended as" not in how(state)
        assert not set("{}()") & set(how(state))


def test_what_aws_says_is_told() -> None:
    assert "none of these instances free" in aws_reason("(Code:InsufficientCapacity)x")
    assert aws_reason("(Code:VcpuLimitExceeded)x").startswith("the lab's limit at AWS")
    assert aws_reason("(Code:NewThing)x") == "AWS did not start it (NewThing)"
    assert aws_reason("fan broken") == ""
