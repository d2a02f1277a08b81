"""Calls of AWS Batch: few, told in our words, and never sent twice where twice is too often."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from labkit.jobs.backends.base import BackendError, SubmitRefusedError
from labkit.storage.client import asking, client
from labkit.storage.errors import StorageError, code_of

_A_SECOND = 20  # calls of this process; Batch takes 50 a second of the whole account
_DESCRIBED = 100  # jobs of one DescribeJobs
_TRIES = 6  # of a SubmitJob that was throttled: Batch surely did not take it
_THROTTLED = frozenset({"TooManyRequestsException", "ThrottlingException", "Throttling"})
_GROUP = "/aws/batch/job"
_LINES = 10  # of a log's end
_SHOWN = 200  # characters
_lock = threading.Lock()
_next = 0.0


def _wait_turn() -> None:
    global _next  # of all threads
    with _lock:
        now = time.monotonic()
        turn = max(now, _next)
        _next = turn + 1 / _A_SECOND
    time.sleep(turn - now)


def call(operation: str, **request: Any) -> dict[str, Any]:
    """Call an operation that may be repeated, e.g. ``"describe_jobs"``.

    Raises
    ------
    BackendError
        Batch could not be asked, or did not do it.
    """
    _wait_turn()
    try:
        with asking("AWS Batch"):
            answer: dict[str, Any] = getattr(client("batch"), operation)(**request)
            return answer
    except StorageError as error:
        raise BackendError(str(error)) from error


def pages(operation: str, key: str, **request: Any) -> Iterator[dict[str, Any]]:
    """Return what all pages of an operation have under a key.

    Raises
    ------
    BackendError
        Batch could not be asked.
    """
    token: dict[str, str] = {}
    while True:
        answer = call(operation, **request, **token)
        yield from answer.get(key, ())
        if not answer.get("nextToken"):
            return
        token = {"nextToken": answer["nextToken"]}


def describe(ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return what Batch says of jobs, by id; those that it has forgotten are missing.

    Raises
    ------
    BackendError
        Batch could not be asked.
    """
    jobs = {}
    for first in range(0, len(ids), _DESCRIBED):
        answer = call("describe_jobs", jobs=list(ids[first : first + _DESCRIBED]))
        jobs.update({job["jobId"]: job for job in answer["jobs"]})
    return jobs


@lru_cache(1000)
def last_words(job: str) -> str:
    """Return the last line that a job that has ended wrote to CloudWatch; empty where it cannot."""
    try:
        stream = describe([job])[job]["container"]["logStreamName"]
        with asking("CloudWatch"):
            events = client("logs").get_log_events(
                logGroupName=_GROUP, logStreamName=stream, limit=_LINES
            )["events"]
    except (BackendError, StorageError, KeyError):
        return ""
    lines = [str(event["message"]).strip() for event in events]
    return next((line[:_SHOWN] for line in reversed(lines) if line), "")


def submit(request: Mapping[str, Any]) -> str:
    """Submit a job and return its id.

    It is sent once: boto3 itself would send it again when an answer is lost, and run it twice.

    Raises
    ------
    SubmitRefusedError
        Batch said no.
    BackendError
        Nobody knows whether Batch has it.
    """
    for number in range(_TRIES):
        _wait_turn()
        try:
            with asking("AWS Batch"):
                return str(client("batch", once=True).submit_job(**request)["jobId"])
        except StorageError as error:
            code = code_of(error)
            if code in _THROTTLED and number + 1 < _TRIES:
                time.sleep(0.5 * 2**number)
                continue
            if code in ("ClientException", "AccessDeniedException", "ValidationException"):
                raise SubmitRefusedError(f"AWS Batch refused it: {error}") from error
            raise BackendError(str(error)) from error
    raise AssertionError("it is left in the loop")
