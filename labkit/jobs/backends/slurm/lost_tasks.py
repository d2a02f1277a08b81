"""Tasks that SLURM has ended and that left no record: say why, and keep it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from labkit.base import files
from labkit.jobs.model import Sighting, State
from labkit.jobs.runs.intent import success_since
from labkit.jobs.runs.store import Run, Submission
from labkit.jobs.worker import commit, reap
from labkit.jobs.worker.folder import read_json

_TAIL = 2000  # bytes
_SHOWN = 200  # characters


@dataclass(frozen=True)
class LostTask:
    """A task whose job has ended badly.

    Attributes
    ----------
    at : float
        When, in seconds since 1970.
    job : str
        ``<array job>_<element>``.
    began : bool
        Whether it ever had a node.
    """

    stage: str
    index: int
    sighting: Sighting
    at: float
    job: str
    began: bool = True


# (run folder, submission) -> (stage, index) -> when it was first seen lost, on the monotonic clock
_SEEN: dict[tuple[str, int], dict[tuple[str, int], float]] = {}


def explain(
    run: Run, submission: Submission, lost: Iterable[LostTask], grace: float
) -> dict[tuple[str, int], Sighting]:
    """Return what is to be said of those that have no record.

    A shared disk may still bring the task's own record, and a node that SLURM has given up may
    still run it: until ``grace`` seconds have passed and no heartbeat lives it is not said to have
    failed. Then a record is written in its place: SLURM forgets a job after some minutes
    (MinJobAge), and a worker that wakes up after all finds it and ends.

    Raises
    ------
    OSError
        The run folder cannot be read.
    """
    sightings: dict[tuple[str, int], Sighting] = {}
    key, now = (str(run.path), submission.number), time.monotonic()
    before, seen = _SEEN.get(key, {}), dict[tuple[str, int], float]()
    living: dict[str, set[int]] = {}
    recorded: dict[str, set[int]] = {}
    for task in lost:
        if task.stage not in recorded:  # heartbeats first, as a worker makes them first
            living[task.stage] = _living(run, task.stage)
            recorded[task.stage] = _recorded(run, submission, task.stage)
        if task.index in recorded[task.stage]:
            continue
        text = task.sighting.text
        if said := _last_line(run.path / "logs" / task.stage / f"slurm-{task.job}.out"):
            text = f"{text}: {said}"
        sighting = replace(task.sighting, text=text)
        since = seen[task.stage, task.index] = before.get((task.stage, task.index), now)
        over = now - since > grace or time.time() - task.at > grace  # by our clock, or SLURM's
        if task.index in living[task.stage]:
            sighting = Sighting(State.RUNNING, text=f"{text}; its program still runs")
        elif over:
            _record(run, submission, replace(task, sighting=sighting))
        elif task.began:
            wait = "whether it has left a record is known in a minute"
            sighting = Sighting(State.RUNNING, text=f"{text}; {wait}")
        sightings[task.stage, task.index] = sighting
    _SEEN[key] = seen
    return sightings


def _living(run: Run, stage: str) -> set[int]:
    """Return the tasks of which an attempt lives that has no record."""
    living = set()
    for index, attempt in run.folder.attempts("running", stage):
        path = run.folder.running(stage, index, attempt)
        beat = read_json(path)
        ended = run.folder.record(stage, index, attempt).exists()
        if beat and not ended and reap.lives(beat, path):
            living.add(index)
    return living


def _recorded(run: Run, submission: Submission, stage: str) -> set[int]:
    """Return the tasks that have a record that counts for this submission, or a later one's."""
    attempts = run.folder.attempts("tasks", stage)
    if submission.number == 1:
        return {index for index, _ in attempts}
    since = success_since([submission]).get(stage, {})
    told = ((index, read_json(run.folder.record(stage, index, n)) or {}) for index, n in attempts)
    return {
        index
        for index, record in told
        if record.get("submission", 0) >= submission.number
        or (record and commit.succeeded(record, since.get(index, submission.number)))
    }


def _record(run: Run, submission: Submission, task: LostTask) -> None:
    folder, number = run.folder, 1
    while (
        folder.record(task.stage, task.index, number).exists()
        or folder.attempt(task.stage, task.index, number + 1).exists()
    ):
        number += 1
    where = (task.stage, task.index, number)
    beat = read_json(folder.running(*where)) or {}
    sighting = task.sighting
    verdict = (str(sighting.state), str(sighting.reason or ""), sighting.text)
    with suppress(OSError):  # a full disk: it has failed all the same, and is recorded later
        run.write_record(reap.record(beat, where, submission.number, verdict, "slurm"))


def _last_line(path: Path) -> str:
    lines = files.tail(path, most=_TAIL).splitlines()
    return next((line.strip()[:_SHOWN] for line in reversed(lines) if line.strip()), "")
