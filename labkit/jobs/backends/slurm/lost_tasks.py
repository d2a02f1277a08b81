"""Tasks that SLURM has ended and that left no record: say why, and keep it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from labkit.base import files
from labkit.jobs.model import Sighting
from labkit.jobs.runs.store import Run, Submission
from labkit.jobs.worker import reap
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
    """

    stage: str
    index: int
    sighting: Sighting
    at: float
    job: str


def explain(
    run: Run, submission: Submission, lost: Iterable[LostTask], grace: float
) -> dict[tuple[str, int], Sighting]:
    """Return what is to be said of those that have no record.

    SLURM forgets a job after some minutes (MinJobAge). So after ``grace`` seconds, in which a
    shared disk may still bring the task's own record, one is written in its place.

    Raises
    ------
    OSError
        The run folder cannot be read or written.
    """
    sightings: dict[tuple[str, int], Sighting] = {}
    recorded: dict[str, set[int]] = {}
    for task in lost:
        if task.stage not in recorded:
            recorded[task.stage] = _recorded(run, submission, task.stage)
        if task.index in recorded[task.stage]:
            continue
        text = task.sighting.text
        if said := _last_line(run.path / "logs" / task.stage / f"slurm-{task.job}.out"):
            text = f"{text}: {said}"
        sighting = replace(task.sighting, text=text)
        sightings[task.stage, task.index] = sighting
        if time.time() - task.at > grace:
            _record(run, submission, replace(task, sighting=sighting))
    return sightings


def _recorded(run: Run, submission: Submission, stage: str) -> set[int]:
    """Return the tasks that have a record of this submission, or of a later one."""
    attempts = run.folder.attempts("tasks", stage)
    if submission.number == 1:
        return {index for index, _ in attempts}
    return {
        index
        for index, attempt in attempts
        if (read_json(run.folder.record(stage, index, attempt)) or {}).get("submission", 0)
        >= submission.number
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
    run.write_record(reap.record(beat, where, submission.number, verdict, "slurm"))


def _last_line(path: Path) -> str:
    lines = files.tail(path, most=_TAIL).splitlines()
    return next((line.strip()[:_SHOWN] for line in reversed(lines) if line.strip()), "")
