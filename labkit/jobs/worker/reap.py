"""What is left of an attempt whose worker was killed: its processes, groups and files, a record."""

from __future__ import annotations

import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from labkit.base import cgroups, process_tree
from labkit.jobs.worker import cgroup, commit
from labkit.jobs.worker.folder import (
    Folder,
    mark,
    read_json,
    read_json_anew,
    unique_name,
    write_record,
)

_SILENCE = 45.0  # seconds: a heartbeat comes every ten


def fresh(beat: Path) -> bool:
    """Return whether a heartbeat is young enough for its worker to live."""
    try:
        return time.time() - beat.stat().st_mtime < _SILENCE
    except OSError:
        return False


def lives(beat: dict[str, Any], path: Path) -> bool:
    """Return whether a heartbeat's worker lives; from elsewhere its age has to tell."""
    if beat["place"] == process_tree.place():
        return bool(process_tree.start_time(beat["pid"]) == beat["pid_start"])
    return fresh(path)


def clear(run: Path, stage: str, index: int, attempt: int) -> None:
    """End what still lives of an attempt on this machine, and remove what only it needed."""
    name = mark(run, stage, index, attempt)
    while leftover := process_tree.marked("LABKIT_ATTEMPT", name):
        process_tree.kill(leftover)
        time.sleep(0.02)
    unique = unique_name(run, stage, index, attempt)
    for group, _ in cgroups.groups("memory"):
        if (group / unique).is_dir():
            cgroup.remove(group / unique)
    shutil.rmtree(Path(os.environ.get("TMPDIR") or "/tmp") / unique, ignore_errors=True)  # noqa: S108


def sweep_machine(folder: Folder) -> None:
    """Clear what dead attempts of a run have left on this machine.

    Where SLURM has killed an element with its worker, whoever found that out was on another node.
    """
    parts = unique_name(folder.path, "", 0, 0).split("-")
    ours = re.compile(rf"{'-'.join(map(re.escape, parts[:2]))}-(.+)-(\d+)-(\d+)-{parts[-1]}")
    places = [Path(os.environ.get("TMPDIR") or "/tmp")]  # noqa: S108
    places += [group for group, _ in cgroups.groups("memory")]
    for place in places:
        for name in _own(place):
            match = ours.fullmatch(name)
            if match is None:
                continue
            where = (match[1], int(match[2]), int(match[3]))
            path = folder.running(*where)  # written before the folder and the group are made
            beat = read_json(path)
            if beat is None or not lives(beat, path):
                clear(folder.path, *where)


def _own(place: Path) -> list[str]:
    """Return the names of our own folders: in /tmp others may choose names as they like."""
    own = []
    with suppress(OSError), os.scandir(place) as entries:  # not ours to read: nothing of ours
        for entry in entries:
            with suppress(FileNotFoundError):  # gone meanwhile
                owner = os.lstat(entry.path).st_uid
                if owner == os.geteuid() and entry.is_dir(follow_symlinks=False):
                    own.append(entry.name)
    return own


def settled(
    folder: Folder, beat: dict[str, Any], stage: str, index: int, attempt: int
) -> dict[str, Any] | None:
    """Return the record of an attempt whose worker has ended, if there is one.

    A worker that was killed right after its commit has left it with its result: it is put in its
    place now.

    Parameters
    ----------
    folder : Folder
        The run folder.
    beat : dict
        The attempt's last heartbeat, or empty.
    stage, index, attempt
        Which attempt.
    """
    key = beat.get("key") or folder.task(stage, index)["key"]
    carried = commit.publish_carried(folder, stage, key)
    if carried is not None and (carried["index"], carried["attempt"]) == (index, attempt):
        return carried
    return read_json(folder.record(stage, index, attempt))


def no_turn(
    folder: Folder, stage: str, index: int, attempt: int, submission: int, since: int
) -> dict[str, Any]:
    """Return how an attempt ends that must not run; empty where it may.

    Parameters
    ----------
    submission : int
        Who asked for the attempt.
    since : int
        The first submission whose success counts.
    """
    if other := earlier_lives(folder, stage, index, attempt, submission):
        text = f"attempt {other} of this task still runs"
        return {"state": "CANCELLED", "reason": "SUPERSEDED", "text": text, "began": False}
    if commit.success(folder, stage, index, since):
        text = "another attempt had finished before"
        return {"state": "CANCELLED", "reason": "SUPERSEDED", "text": text, "began": False}
    return {}


def earlier_lives(folder: Folder, stage: str, index: int, attempt: int, submission: int) -> int:
    """See to it that no earlier attempt of a task runs, or begins any more.

    An attempt runs only when each one before it has its record: so no two ever run at once, be it
    that two machines, or SLURM, have started both. What has left no record and is dead gets one.

    Returns
    -------
    int
        The number of one that lives; 0 where none does.
    """
    for number in range(1, attempt):
        where = (stage, index, number)
        path = folder.running(*where)
        if not commit.claimed(folder, *where):
            continue
        if read_json(folder.record(*where)):
            _tidy(folder, *where)
            continue
        beat = read_json_anew(path) or {}
        if beat and lives(beat, path):
            return number
        clear(folder.path, *where)
        if settled(folder, beat, *where) is None:
            verdict = ("FAILED", "LOST", "its worker ended and left no record")
            if not beat:
                verdict = ("CANCELLED", "SUPERSEDED", "a later attempt began before it")
            made = record(beat, where, beat.get("submission", submission), verdict, "worker")
            if not beat:
                made["began"] = False
            write_record(folder.record(*where), made)
            late = read_json_anew(path)
            if late is not None and lives(late, path):
                return number
        _tidy(folder, *where)
    return 0


def _tidy(folder: Folder, stage: str, index: int, attempt: int) -> None:
    """Remove what a dead attempt needs no more: whoever wrote its record may have been killed."""
    path = folder.running(stage, index, attempt)
    beat = read_json(path)
    if beat is None or not lives(beat, path):
        for left in (folder.reserved(stage, index, attempt), path):
            left.unlink(missing_ok=True)


def record(
    beat: dict[str, Any],
    where: tuple[str, int, int],
    submission: int,
    verdict: tuple[str, str, str],
    by: str,
) -> dict[str, Any]:
    """Return the record of an attempt that could not write its own.

    Parameters
    ----------
    beat : dict
        Its last heartbeat, or empty.
    where : tuple of (str, int, int)
        Stage, index, attempt.
    submission : int
        Number of the submission.
    verdict : tuple of (str, str, str)
        State, reason and text.
    by : str
        Who writes it.
    """
    (stage, index, attempt), (state, reason, text) = where, verdict
    made = {
        **beat,
        "stage": stage,
        "index": index,
        "attempt": attempt,
        "submission": submission,
        "state": state,
        "reason": reason,
        "text": text,
        "ended": round(time.time(), 3),
        "by": by,
    }
    if "started" in beat:
        made["seconds"] = round(max(0.0, made["ended"] - beat["started"]), 3)
    return made
