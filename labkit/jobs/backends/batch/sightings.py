"""What AWS Batch says of tasks that have left no record (yet), in our words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from labkit.jobs.backends.batch import calls
from labkit.jobs.model import Reason, Sighting, Sightings, State
from labkit.jobs.runs.intent import success_since
from labkit.jobs.runs.stages import rank
from labkit.jobs.runs.store import Run, Submission
from labkit.jobs.worker import commit
from labkit.jobs.worker.folder import read_json
from labkit.jobs.worker.retry import TRANSIENT

_ASKED = 5  # failed tasks of an array whose log is looked into
_FINAL = frozenset({"SUCCEEDED", "FAILED"})
_ALIVE = {
    "SUBMITTED": (State.PENDING, "Batch has it."),
    "PENDING": (State.PENDING, "It waits for a stage before it."),
    "RUNNABLE": (State.PENDING, "It waits for a machine."),
    "STARTING": (State.PENDING, "Its machine and image are being made ready."),
    "RUNNING": (State.RUNNING, ""),
}
# What a job's statusReason begins with while it waits -> what that means, and what to do.
_WAITS = {
    "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT": "no machine of the queue is that large: ask for "
    "less (cpu=, memory=), or choose another batch_queue",
    "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE": "the queue's compute environment may not "
    "grow that far: ask for less, or have its limit (maxvCpus) raised",
    "MISCONFIGURATION": "the queue's compute environment is not set up right: ask its "
    "administrator",
    "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY": "AWS has no such machine free now: it goes on "
    "waiting, and other instance types or regions may have some",
    "ACCOUNT": "a limit of the account is reached: ask its administrator",
}
# What the reason of a failed job begins with -> ours.
_ENDED = {
    "Host EC2": Reason.SPOT_RECLAIM,
    "Dependent Job failed": Reason.DEPENDENCY,
    "Job attempt duration exceeded timeout": Reason.TIMEOUT,
    "OutOfMemoryError": Reason.OUT_OF_MEMORY,
    "CannotPull": Reason.INPUT,
    "CannotStart": Reason.INPUT,
    "CannotCreate": Reason.INPUT,
    "cancelled by labkit": Reason.CANCELLED,
}


def sightings(
    run: Run, submissions: Sequence[Submission], jobs: Mapping[str, Mapping[str, Any]]
) -> Sightings:
    """Return what is to be said of a run's tasks.

    Parameters
    ----------
    run : Run
        The run folder, with all records that there are.
    submissions : sequence of Submission
        Those that were handed over.
    jobs : mapping
        Batch's answer by id, from before the records were brought.

    Raises
    ------
    BackendError
        Batch could not be asked for an array's failed elements.
    """
    tasks: dict[tuple[str, int], Sighting] = {}
    texts: list[str] = []
    for submission in submissions:
        works = {work.name: work for work in submission.stages}
        recorded = {name: _recorded(run, submission, name) for name in works}
        for handle in (submission.handle or {})["jobs"]:
            job = jobs.get(handle["id"])
            if job is None:
                continue
            stage, start = handle["stage"], handle["start"]
            indices = works[stage].tasks[start : start + handle["count"]]
            alive = job["status"] not in _FINAL
            missing = [i for i in indices if not _is_over(recorded[stage].get(i), alive=alive)]
            if alive and (text := _waits(job)):
                texts.append(text)
            for index, sighting in _of_job(job, missing, indices, recorded[stage]):
                if not (submission.cancelled and sighting.state.final):
                    tasks[stage, index] = sighting
    return Sightings(known=True, tasks=tasks, text="; ".join(dict.fromkeys(texts)))


def is_settled(run: Run, submissions: Sequence[Submission]) -> bool:
    """Return whether records tell how every task has ended, so that nobody need be asked."""
    return all(
        _is_over(recorded.get(index), alive=True)
        for submission in submissions
        for work in submission.stages
        for recorded in [_recorded(run, submission, work.name)]
        for index in work.tasks
    )


def _recorded(run: Run, submission: Submission, stage: str) -> dict[int, dict[str, Any]]:
    """Return the record that counts of each task of a stage: a success, or one not older."""
    since = success_since([submission]).get(stage, {})
    last: dict[int, dict[str, Any]] = {}
    for index, attempt in run.folder.attempts("tasks", stage):
        record = read_json(run.folder.record(stage, index, attempt))
        if record is None or not (
            record.get("submission", 0) >= submission.number
            or commit.succeeded(record, since.get(index, submission.number))
        ):
            continue
        if index not in last or rank(record) > rank(last[index]):
            last[index] = record
    return last


def _is_over(record: Mapping[str, Any] | None, *, alive: bool) -> bool:
    """Return whether a record says all: while its job lives, Batch may try once more."""
    return record is not None and not (alive and record.get("reason") in TRANSIENT)


def _of_job(
    job: Mapping[str, Any],
    missing: Sequence[int],
    indices: Sequence[int],
    recorded: Mapping[int, Mapping[str, Any]],
) -> Iterator[tuple[int, Sighting]]:
    if not missing:
        return
    is_array = "arrayProperties" in job
    failed: dict[int, Sighting] = {}
    if not is_array:
        if job["status"] == "FAILED":
            failed[indices[0]] = _ended(job)
    elif _failures(job) > sum(
        recorded[i]["state"] != "SUCCEEDED" for i in indices if i in recorded
    ):
        for child in calls.pages(
            "list_jobs", "jobSummaryList", arrayJobId=job["jobId"], jobStatus="FAILED"
        ):
            failed[indices[child["arrayProperties"]["index"]]] = _ended(child)
    asked = 0
    for index in missing:
        if index in failed:
            sighting = failed[index]
            if sighting.reason == Reason.LOST and index not in recorded and asked < _ASKED:
                asked += 1
                element = f":{indices.index(index)}" if is_array else ""
                if said := calls.last_words(f"{job['jobId']}{element}"):
                    sighting = replace(sighting, text=f"{sighting.text}; it said: {said}")
            if index not in recorded:
                yield index, sighting
        elif job["status"] not in _FINAL:
            state, text = _ALIVE[job["status"]]
            # Which elements of an array run is told by their heartbeats.
            yield index, Sighting(State.PENDING if is_array else state, text=text)


def _failures(job: Mapping[str, Any]) -> int:
    return int(job["arrayProperties"].get("statusSummary", {}).get("FAILED", 0))


def _ended(job: Mapping[str, Any]) -> Sighting:
    why = str(job.get("container", {}).get("reason") or "")
    status = str(job.get("statusReason") or "")
    for text in (why, status):
        for start, reason in _ENDED.items():
            if text.startswith(start):
                final = reason in (Reason.DEPENDENCY, Reason.CANCELLED)
                return Sighting(State.CANCELLED if final else State.FAILED, reason, text)
    code = job.get("container", {}).get("exitCode")
    text = "; ".join(filter(None, [why, status, f"exit code {code}" if code is not None else ""]))
    return Sighting(State.FAILED, Reason.LOST, f"Batch says: {text}")


def _waits(job: Mapping[str, Any]) -> str:
    """Return why a job that waits may wait for ever."""
    reason = str(job.get("statusReason") or "")
    for start, text in _WAITS.items():
        if reason.startswith(start):
            return text
    return ""
