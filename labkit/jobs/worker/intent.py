"""What the intents of a run's submissions say of one task."""

from __future__ import annotations

import os
from typing import Any

from labkit.jobs.worker.folder import Folder, read_json


def numbers(ranges: str) -> list[int]:
    """Return the numbers of ``"0-4,7"``."""
    found: list[int] = []
    for part in filter(None, ranges.split(",")):
        first, _, last = part.partition("-")
        found.extend(range(int(first), int(last or first) + 1))
    return found


def success_since(work: dict[str, Any], submission: int, index: int) -> int:
    """Return the first submission whose success of a task counts for this one.

    Parameters
    ----------
    work : dict
        What the submission's intent says of the task's stage.
    submission : int
        Number of the submission.
    index : int
        The task.
    """
    for since, tasks in work.get("since", {}).items():
        if index in numbers(tasks):
            return int(since)
    return submission


def later(folder: Folder, stage: str, index: int, submission: int) -> int:
    """Return the number of a later submission that has a task; 0 where none has.

    A scheduler may start again what it had said to be over: it has lost what it knew since. By
    then the task belongs to the later submission.
    """
    names = os.listdir(folder.path / "submissions")  # noqa: PTH208 -- names are enough
    for name in names:
        number = name[:-5]
        if not (name.endswith(".json") and number.isdigit() and int(number) > submission):
            continue
        intent = read_json(folder.submission(int(number))) or {"stages": ()}
        for work in intent["stages"]:
            if work["name"] == stage and index in numbers(work["tasks"]):
                return int(number)
    return 0
