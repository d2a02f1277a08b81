"""What an attempt must find before, must have written after, and how it is committed."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from labkit.base import files
from labkit.base.remote import is_remote
from labkit.jobs.worker.attempt import Attempt, AttemptFailed
from labkit.jobs.worker.folder import CARRIED, Folder, publish, read_json, read_json_anew

_NAMED = 5  # files named in a message


def check_inputs(attempt: Attempt) -> None:
    """Fail where a declared input cannot be read; those in S3 are fetched later."""
    paths = map(attempt.expand, attempt.task.get("inputs", ()))
    missing = [path for path in paths if not (is_remote(path) or os.access(path, os.R_OK))]
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


def commit(
    folder: Folder, attempt: Attempt, record: dict[str, Any], written: Path, since: int
) -> None:
    """Rename the attempt's folder to the task's result; it carries its record along.

    From this one step on the task has its result and its record, whoever dies. An earlier result
    (a partial one, or that of a gather that runs again) is moved aside, never deleted. Of two
    attempts of which each would count the first one does.

    Parameters
    ----------
    folder : Folder
        The run folder.
    attempt : Attempt
        What has ended well.
    record : dict
        Its record.
    written : Path
        The file that has the record, on the same disk.
    since : int
        The first submission whose success counts.

    Raises
    ------
    AttemptFailed
        Another attempt was first, or has this one's place.
    OSError
        The result cannot be put in its place.
    """
    where = (attempt.stage, attempt.index, attempt.number)
    if read_json_anew(folder.record(*where)) is not None:
        raise AttemptFailed("SUPERSEDED", "it was given up as lost, and another has its place")
    if success(folder, attempt.stage, attempt.index, since) is not None:
        raise AttemptFailed("SUPERSEDED", "another attempt had finished before")
    place = folder.result(attempt.stage, attempt.key)
    place.parent.mkdir(parents=True, exist_ok=True)
    _carry(written, attempt.out / CARRIED)
    files.sync_tree(attempt.out)
    for number in range(100):
        try:
            attempt.out.rename(place)
        except OSError:
            if not place.exists():
                raise
            other = publish_carried(folder, attempt.stage, attempt.key)
            if other is not None and _same(other, record):
                return  # a network disk did it and lost the answer
            if other is not None and succeeded(other, since):
                raise AttemptFailed("SUPERSEDED", "another attempt had finished before") from None
            aside = attempt.out.with_name(f"{attempt.out.name}.before{number or ''}")
            if not aside.exists():
                place.rename(aside)
        else:
            files.sync_path(place.parent)
            return
    raise AttemptFailed("STORAGE", f"{place} cannot be replaced")


def publish_carried(folder: Folder, stage: str, key: str) -> dict[str, Any] | None:
    """See to it that a committed result's record is in its place among the records.

    Its worker may have been killed between the two.

    Returns
    -------
    dict or None
        The record; None where the result carries none, or its attempt has another record, which
        then counts.
    """
    carried = folder.carried(stage, key)
    record = read_json(carried)
    if record is None:
        return None
    place = folder.record(stage, record["index"], record["attempt"])
    recorded = read_json(place)
    if recorded is None:
        with files.temporary_beside(place) as temporary:
            _carry(carried, temporary)
            publish(temporary, place)
        files.sync_path(place.parent)
        recorded = read_json(place)
    return recorded if recorded is not None and _same(recorded, record) else None


def success(folder: Folder, stage: str, index: int, since: int) -> dict[str, Any] | None:
    """Return the record of an attempt that has succeeded for this submission, or a later one."""
    for record in records_of(folder, stage, index):
        if succeeded(record, since):
            return record
    return None


def records_of(folder: Folder, stage: str, index: int) -> list[dict[str, Any]]:
    """Return the records of a task's attempts, looked for by name: no listing of 10,000 files."""
    found = []
    number = 1
    while (record := read_json(folder.record(stage, index, number))) is not None or claimed(
        folder, stage, index, number
    ):
        if record is not None:
            found.append(record)
        number += 1
    return found


def claim(folder: Folder, stage: str, index: int) -> int:
    """Claim a task's next attempt by making its folder: of two at once each has its own.

    Returns
    -------
    int
        Its number.
    """
    number = 1
    while True:
        if not claimed(folder, stage, index, number):
            try:
                folder.attempt(stage, index, number).mkdir()
            except FileExistsError:
                pass
            else:
                return number
        number += 1


def claimed(folder: Folder, stage: str, index: int, attempt: int) -> bool:
    """Return whether somebody has this attempt, ended or not."""
    where = (stage, index, attempt)
    places = (folder.attempt(*where), folder.running(*where), folder.record(*where))
    return any(place.exists() for place in places)


def _carry(written: Path, place: Path) -> None:
    """Give a record a second name: needs no space on a full disk."""
    place.unlink(missing_ok=True)  # a partial result that was copied brings its own
    try:
        os.link(written, place)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        files.write_atomic(place, written.read_bytes(), sync=True)


def succeeded(record: dict[str, Any], since: int) -> bool:
    """Return whether a record says so for the submission ``since``, or a later one."""
    return bool(record["state"] == "SUCCEEDED" and record.get("submission", 0) >= since)


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    names = ("index", "attempt", "submission", "state", "result", "pid", "started")
    return all(one.get(name) == other.get(name) for name in names)


def _empty(path: Path) -> bool:
    if path.is_dir():
        return not any(path.iterdir())
    return path.stat().st_size == 0
