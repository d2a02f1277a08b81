"""AWS Batch's documented rules, as the emulator has them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from labkit.testing.batch import rules

SPOT = [
    {"onStatusReason": "Host EC2*", "action": "RETRY"},
    {"onReason": "*", "action": "EXIT"},
]


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("Host EC2*", "Host EC2 (instance i-1) terminated.", True),
        ("host ec2*", "Host EC2 (instance i-1) terminated.", True),
        ("Host EC2", "Host EC2 (instance i-1) terminated.", False),
        ("*", "", True),
        ("13*", "137", True),
        ("1", "137", False),
    ],
)
def test_patterns(pattern: str, text: str, fits: bool) -> None:
    assert rules.matches(pattern, text) is fits


@pytest.mark.parametrize(
    ("strategy", "end", "again"),
    [
        ([], (1, "", rules.EXITED), True),
        (SPOT, (None, "", "Host EC2 (instance i-1) terminated."), True),
        (SPOT, (1, "", rules.EXITED), False),
        ([{"onExitCode": "1", "action": "exit"}], (2, "", rules.EXITED), True),
        (
            [{"onExitCode": "1*", "onReason": "Out*", "action": "RETRY"}, *SPOT],
            (137, "x", ""),
            False,
        ),
        ([{"onExitCode": "*", "action": "EXIT"}], (None, "", "Task failed to start"), False),
    ],
)
def test_what_is_tried_again(strategy: list[dict[str, str]], end: Any, again: bool) -> None:
    assert rules.is_retried(strategy, *end) is again


def request(**more: Any) -> dict[str, Any]:
    return {"jobName": "a-job", **more}


def dependencies(count: int) -> list[dict[str, str]]:
    return [{"jobId": "plain"} for _ in range(count)]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (request(), ""),
        (request(jobName="a job"), "name"),
        (request(jobName="a" * 129), "name"),
        (request(arrayProperties={"size": 1}), "between 2 and 10000"),
        (request(arrayProperties={"size": 10_001}), "between 2 and 10000"),
        (request(arrayProperties={"size": 10_000}), ""),
        (request(dependsOn=dependencies(20)), ""),
        (request(dependsOn=dependencies(21)), "20 jobs"),
        (request(dependsOn=[{"jobId": "none"}]), "does not exist"),
        (request(dependsOn=[{"type": "SEQUENTIAL"}]), "SEQUENTIAL"),
        (request(arrayProperties={"size": 3}, dependsOn=[{"type": "SEQUENTIAL"}]), ""),
        (request(dependsOn=[{"jobId": "three", "type": "N_TO_N"}]), "N_TO_N"),
        (
            request(arrayProperties={"size": 4}, dependsOn=[{"jobId": "three", "type": "N_TO_N"}]),
            "N_TO_N",
        ),
        (
            request(arrayProperties={"size": 3}, dependsOn=[{"jobId": "three", "type": "N_TO_N"}]),
            "",
        ),
        (request(retryStrategy={"attempts": 11}), "between 1 and 10"),
        (request(retryStrategy={"evaluateOnExit": SPOT * 3}), "5 rules"),
        (request(retryStrategy={"evaluateOnExit": [{"action": "EXIT"}]}), "a pattern"),
        (
            request(retryStrategy={"evaluateOnExit": [{"onReason": "a*b", "action": "EXIT"}]}),
            "asterisk",
        ),
        (request(containerOverrides={"command": ["x" * 8192]}), "Overrides"),
        (request(parameters={"a": "x" * 31_000}), "larger"),
        (request(timeout={"attemptDurationSeconds": 59}), "at least 60"),
    ],
)
def test_what_is_refused(asked: dict[str, Any], why: str) -> None:
    jobs = {"plain": SimpleNamespace(size=None), "three": SimpleNamespace(size=3)}
    refusal = rules.refusal(asked, jobs)
    assert (why in refusal) if why else (refusal == "")
