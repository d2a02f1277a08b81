"""What AWS Batch's documentation promises of a job, as functions: limits, retries, patterns."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

SMALLEST_ARRAY, LARGEST_ARRAY = 2, 10_000
MOST_DEPENDENCIES = 20
MOST_ATTEMPTS = 10
MOST_RULES = 5
MOST_DESCRIBED = 100
LARGEST_JOB = 30 * 1024  # bytes of a SubmitJob
LARGEST_OVERRIDES = 8192  # characters
SHORTEST_TIMEOUT = 60  # seconds
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_PATTERN = re.compile(r"[A-Za-z0-9.:\s/_-]*\*?")

EXITED = "Essential container in task exited"
TIMED_OUT = "Job attempt duration exceeded timeout"
DEPENDENCY_FAILED = "Dependent Job failed"


def refusal(request: Mapping[str, Any], jobs: Mapping[str, Any]) -> str:
    """Return why AWS would refuse a SubmitJob; empty where it would not.

    Parameters
    ----------
    request : mapping
        The call's body.
    jobs : mapping
        Jobs that there are, by id; each has ``size``.
    """
    name = str(request.get("jobName", ""))
    if not _NAME.fullmatch(name):
        return f"Job name should match valid pattern: {name!r}"
    if len(json.dumps(request)) > LARGEST_JOB:
        return f"The request is larger than {LARGEST_JOB} bytes"
    if len(json.dumps(request.get("containerOverrides") or {})) > LARGEST_OVERRIDES:
        return f"Container Overrides length must be at most {LARGEST_OVERRIDES}"
    size = (request.get("arrayProperties") or {}).get("size")
    if size is not None and not SMALLEST_ARRAY <= size <= LARGEST_ARRAY:
        return f"Array size must be between {SMALLEST_ARRAY} and {LARGEST_ARRAY}, not {size}"
    timeout = (request.get("timeout") or {}).get("attemptDurationSeconds")
    if timeout is not None and timeout < SHORTEST_TIMEOUT:
        return f"attemptDurationSeconds must be at least {SHORTEST_TIMEOUT}"
    return _of_dependencies(request, size, jobs) or _of_retries(request.get("retryStrategy") or {})


def _of_dependencies(request: Mapping[str, Any], size: int | None, jobs: Mapping[str, Any]) -> str:
    dependencies = request.get("dependsOn") or []
    if len(dependencies) > MOST_DEPENDENCIES:
        return f"A job can depend on {MOST_DEPENDENCIES} jobs at most"
    for dependency in dependencies:
        kind, other = dependency.get("type"), dependency.get("jobId")
        if kind == "SEQUENTIAL":
            if size is None or other is not None:
                return "SEQUENTIAL is for array jobs, without a jobId"
        elif other not in jobs:
            return f"Job {other} does not exist"
        elif kind == "N_TO_N" and (size is None or jobs[other].size != size):
            return "N_TO_N is for array jobs of the same size"
    return ""


def _of_retries(strategy: Mapping[str, Any]) -> str:
    attempts = strategy.get("attempts", 1)
    if not 1 <= attempts <= MOST_ATTEMPTS:
        return f"attempts must be between 1 and {MOST_ATTEMPTS}, not {attempts}"
    rules = strategy.get("evaluateOnExit") or []
    if len(rules) > MOST_RULES:
        return f"evaluateOnExit can have {MOST_RULES} rules at most"
    for rule in rules:
        patterns = {name: value for name, value in rule.items() if name != "action"}
        if str(rule.get("action", "")).upper() not in ("RETRY", "EXIT") or not patterns:
            return "A rule of evaluateOnExit has an action (RETRY or EXIT) and a pattern"
        for value in patterns.values():
            if len(value) > 512 or not _PATTERN.fullmatch(value):
                return f"{value!r} is no pattern: an asterisk may stand at the end alone"
    return ""


def matches(pattern: str, text: str) -> bool:
    """Return whether a pattern of evaluateOnExit fits: capitals do not count, ``*`` at its end."""
    pattern, text = pattern.lower(), text.lower()
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern


def is_retried(
    rules: Sequence[Mapping[str, str]], exit_code: int | None, reason: str, status_reason: str
) -> bool:
    """Return whether a failed attempt is made again, where attempts are left.

    Parameters
    ----------
    rules : sequence of mapping
        evaluateOnExit; the first one all of whose patterns fit decides. Where none fits, or there
        are none, Batch tries again.
    exit_code : int or None
        The container's; None: it never told.
    reason : str
        The container's reason.
    status_reason : str
        The attempt's.
    """
    texts = {
        "onExitCode": "" if exit_code is None else str(exit_code),
        "onReason": reason,
        "onStatusReason": status_reason,
    }
    for rule in rules:
        if all(matches(rule[name], text) for name, text in texts.items() if name in rule):
            return rule["action"].upper() == "RETRY"
    return True
