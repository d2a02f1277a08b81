"""What an attempt must find before, must have written after, and how it is committed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from labkit.jobs.worker.attempt import Attempt, AttemptFailed
from labkit.jobs.worker.folder import Folder, read_json

_NAMED = 5  # files named in a message


def check_inputs(attempt: Attempt) -> None:
    """Fail where a declared input cannot be read."""
    paths = map(attempt.expand, attempt.task.get("inputs", ()))
    missing = [path for path in paths if not os.access(path, os.R_OK)]
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise AttemptFailed("INPUT", "cannot read " + ", ".join(missing[:_NAMED]) + more)


def check_outputs(attempt: Attempt) -> None:
    """Fail where a declared output is missing or empty, whatever the exit code was."""
    if not attempt.out.is_dir():
        raise AttemptFailed("STORAGE", f"{attempt.out} has vanished")
    bad = []
    for pattern in map(attempt.expand, attempt.task.get("outputs", ())):
        found = list(attempt.out.glob(pattern))
        if not found:
            bad.append(f"{pattern} was not written")
        bad += [f"{path.relative_to(attempt.out)} is empty" for path in found if _empty(path)]
    if bad:
        raise AttemptFailed("CHECK", "the program said it was well, but " + "; ".join(bad[:_NAMED]))


def commit(folder: Folder, attempt: Attempt, submission: int) -> str:
    """Rename the attempt's folder to the task's result, and return where that is.

    An earlier result (a partial one, or that of a gather that runs again) is moved aside, never
    deleted. Of two attempts of one submission the first one counts.
    """
    records = records_of(folder, attempt.stage, attempt.index)
    if any(r["state"] == "SUCCEEDED" and r["submission"] >= submission for r in records):
        raise AttemptFailed("SUPERSEDED", "another attempt had finished before")
    place = folder.result(attempt.stage, attempt.key)
    place.parent.mkdir(parents=True, exist_ok=True)
    for number in range(100):
        try:
            attempt.out.rename(place)
            return str(place.relative_to(folder.path))
        except OSError:
            if not place.exists():
                raise
            aside = attempt.out.with_name(f"{attempt.out.name}.before{number or ''}")
            if not aside.exists():
                place.rename(aside)
    raise AttemptFailed("STORAGE", f"{place} cannot be replaced")


def records_of(folder: Folder, stage: str, index: int) -> list[dict[str, Any]]:
    """Return the records of a task's attempts, looked for by name: no listing of 10,000 files."""
    found = []
    number = 1
    while (record := read_json(folder.record(stage, index, number))) is not None or folder.attempt(
        stage, index, number
    ).exists():
        if record is not None:
            found.append(record)
        number += 1
    return found


def _empty(path: Path) -> bool:
    if path.is_dir():
        return not any(path.iterdir())
    return path.stat().st_size == 0
