"""Find a task by what a person calls it: its key, a value of its row, its number."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from labkit.base.problems import LabkitError
from labkit.jobs.model import State, safe_key
from labkit.jobs.runs.store import Run

if TYPE_CHECKING:
    from labkit.jobs.job import Job

Place = tuple[str, int]  # stage and index of a task
_SHOWN = 5


def find(job: Job, name: str | None, stage: str | None) -> Place:
    """Return the stage and index of a task.

    Parameters
    ----------
    job : Job
        Its job.
    name : str or None
        What a person calls the task. Where several are called so, one that failed goes before one
        that runs, and a later stage before an earlier one. None: the first that failed, else the
        first that runs.
    stage : str or None
        Only of this stage.

    Raises
    ------
    LabkitError
        There is no such stage or task; the text names some that there are.
    """
    stages = [info.name for info in job.run.manifest.stages]
    if stage is not None and stage not in stages:
        raise LabkitError(f"There is no stage {stage!r}; there are: {', '.join(stages)}.")
    wanted = [stage] if stage else stages
    still = {(task.stage, task.index): task.state for task in job.refresh().open}
    if name is None:
        return min(
            (place for place in still if place[0] in wanted),
            key=lambda place: _urgency(still.get(place)),
            default=(wanted[0], 0),
        )
    name = str(name)
    places = with_key(job.run, name, wanted) or [
        place for place in job.tasks_called(name) if place[0] in wanted
    ]
    if not places:
        raise LabkitError(_unknown(job.run, name, wanted))
    places.sort(key=lambda place: (-stages.index(place[0]), place[1]))
    return min(places, key=lambda place: _urgency(still.get(place)))


def _urgency(state: State | None) -> int:
    order = (State.FAILED, State.RUNNING, State.PENDING)
    return order.index(state) if state in order else len(order)


def with_key(run: Run, key: str, stages: Collection[str]) -> list[Place]:
    """Return the task of the first stage that has one of this very key."""
    for stage in stages:
        for task in run.folder.tasks(stage):
            if task["key"] == key:
                return [(stage, task["index"])]
    return []


def called(run: Run, name: str) -> list[Place]:
    """Return the tasks that have a name in their row, or a key made of it, or it as their number.

    Parameters
    ----------
    run : Run
        The run.
    name : str
        A value of any column; of a path its last part does, of a list any item.
    """
    wanted, key = _plain(name), safe_key(name)
    by_row: list[Place] = []
    by_key: list[Place] = []
    by_number: list[Place] = []
    for info in run.manifest.stages:
        for task in run.folder.tasks(info.name):
            place = info.name, int(task["index"])
            if wanted in _row_names(task):
                by_row.append(place)
            if task["key"] == key:
                by_key.append(place)
            if str(task["index"]) == wanted:
                by_number.append(place)
    return by_row or by_key or by_number


def _row_names(task: dict[str, Any]) -> Iterator[str]:
    for value in task.get("params", {}).get("row", {}).values():
        for item in value if isinstance(value, list) else [value]:
            text = _plain(str(item))
            yield text
            if "/" in text:
                yield text.rstrip("/").rpartition("/")[2]


def _plain(text: str) -> str:
    """Return text in one form: an accent is one character on Linux, and two on a Mac's disk."""
    return unicodedata.normalize("NFC", text).strip()


def _unknown(run: Run, name: str, stages: Sequence[str]) -> str:
    keys = list(dict.fromkeys(task["key"] for stage in stages for task in run.folder.tasks(stage)))
    near = get_close_matches(name, keys, n=_SHOWN) or keys[:_SHOWN]
    return (
        f"There is no task {name!r} in {', '.join(stages)}. There are {len(keys):,}, e.g. "
        f"{', '.join(near)}; job.tasks() lists all."
    )
