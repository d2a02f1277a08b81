"""The run folder: where everything is, and how it is written so that a reader never sees half.

``docs/reference/run-folder.md`` describes the format. Both sides use this module: the worker on
the node and labkit in the notebook.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labkit.base import files

FORMAT = 1
MANIFEST = "manifest.json"
CARRIED = ".record.json"  # a committed result's own record, beside its outputs
RESERVED = 16 * 1024  # bytes kept for a record, so that it can be written on a full disk


class Folder:
    """Paths of one run folder.

    Parameters
    ----------
    path : Path
        The run folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @property
    def manifest(self) -> Path:
        """What was asked for; never changed once written."""
        return self.path / MANIFEST

    @property
    def files(self) -> Path:
        """The plan's own files, e.g. a pipeline."""
        return self.path / "files"

    @property
    def results(self) -> Path:
        """Committed outputs: one folder per stage and task key."""
        return self.path / "results"

    def table(self, stage: str) -> Path:
        """Return the task table of a stage: JSON lines, one task each, in order of index."""
        return self.path / "stages" / f"{stage}.jsonl"

    def drivers(self, stage: str) -> Path:
        """Return the folder that has the package of a stage's driver."""
        return self.path / "drivers" / stage

    @property
    def fetcher(self) -> Path:
        """The program that fetches inputs from S3, where a task has any."""
        return self.path / "fetcher"

    def submission(self, number: int) -> Path:
        """Return the intent of a submission, written before the scheduler is called."""
        return self.path / "submissions" / f"{number:04d}.json"

    def accepted(self, number: int) -> Path:
        """Return what the scheduler answered to a submission."""
        return self.path / "submissions" / f"{number:04d}.accepted.json"

    def cancelled(self, number: int) -> Path:
        """Return the wish to cancel a submission."""
        return self.path / "submissions" / f"{number:04d}.cancelled.json"

    def epoch(self, number: int, epoch: int) -> Path:
        """Return what says which local scheduler has taken a submission over."""
        return self.path / "submissions" / f"{number:04d}.scheduler.{epoch}.json"

    def record(self, stage: str, index: int, attempt: int) -> Path:
        """Return the record of an attempt that has ended."""
        return self.path / "tasks" / stage / f"{index}.{attempt}.json"

    def reserved(self, stage: str, index: int, attempt: int) -> Path:
        """Return the disk space that is kept for a record."""
        return self.path / "tasks" / stage / f".{index}.{attempt}.reserved"

    def running(self, stage: str, index: int, attempt: int) -> Path:
        """Return the heartbeat of an attempt that runs."""
        return self.path / "running" / stage / f"{index}.{attempt}.json"

    def log(self, stage: str, index: int, attempt: int) -> Path:
        """Return the log of an attempt."""
        return self.path / "logs" / stage / f"{index}.{attempt}.log"

    def attempt(self, stage: str, index: int, attempt: int) -> Path:
        """Return the folder an attempt writes into before it is committed."""
        return self.path / "attempts" / stage / f"{index}.{attempt}"

    def result(self, stage: str, key: str) -> Path:
        """Return the folder of a task's committed outputs."""
        return self.results / stage / key

    def carried(self, stage: str, key: str) -> Path:
        """Return the record that a task's committed outputs carry."""
        return self.result(stage, key) / CARRIED

    def attempts(self, kind: str, stage: str) -> list[tuple[int, int]]:
        """Return (index, attempt) of all in ``tasks``, ``running``, ``attempts`` or ``logs``."""
        try:
            names = os.listdir(self.path / kind / stage)  # noqa: PTH208 -- names are enough
        except FileNotFoundError:
            return []
        return sorted(found for found in map(parse_name, names) if found)

    def task(self, stage: str, index: int) -> dict[str, Any]:
        """Return one line of the task table.

        Raises
        ------
        IndexError
            The stage has no such task.
        """
        with self.table(stage).open("rb") as lines:
            for number, line in enumerate(lines):
                if number == index:
                    task: dict[str, Any] = json.loads(line)
                    return task
        raise IndexError(f"stage {stage} has no task {index}")

    def tasks(self, stage: str) -> Iterator[dict[str, Any]]:
        """Return the task table of a stage."""
        with self.table(stage).open("rb") as lines:
            for line in lines:
                yield json.loads(line)


def mark(run: Path, stage: str, index: int, attempt: int) -> str:
    """Return what all processes of an attempt carry as LABKIT_ATTEMPT in their environment."""
    return f"{run}:{stage}:{index}.{attempt}"


def unique_name(run: Path, stage: str, index: int, attempt: int) -> str:
    """Return the name of an attempt's temporary folder and cgroup: found again after a crash.

    The same work may run from two folders at once, so the folder's path is part of it.
    """
    place = hashlib.sha256(os.fsencode(run)).hexdigest()[:12]
    return f"labkit-{run.name.rpartition('-')[2]}-{stage}-{index}-{attempt}-{place}"


def make_private(path: Path) -> None:
    """Make a folder for us alone, in a place where others may write, too.

    Raises
    ------
    PermissionError
        Something of somebody else has that name, or a link.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise PermissionError(
                f"{path} is there and is no folder of ours: remove it, or set TMPDIR"
            ) from None
        path.chmod(0o700)


def parse_name(name: str) -> tuple[int, int] | None:
    """Return (index, attempt) of ``"12.1.json"``, ``"12.1.log"`` or ``"12.1"``; else None."""
    parts = name.split(".")
    if len(parts) < 2 or not (parts[0].isdigit() and parts[1].isdigit()):
        return None
    if len(parts) > 3 or (len(parts) == 3 and parts[2] not in ("json", "log")):
        return None
    return int(parts[0]), int(parts[1])


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a JSON file, None where it is missing or not (yet) whole."""
    try:
        with path.open("rb") as file:
            data: dict[str, Any] = json.loads(file.read())
    except FileNotFoundError:
        return None
    except ValueError:
        return None
    return data


def read_json_anew(path: Path) -> dict[str, Any] | None:
    """Return a JSON file as its server has it now.

    A network disk remembers for half a minute that a name was not there, unless the folder is
    opened in between.
    """
    os.close(os.open(path.parent, os.O_RDONLY))
    return read_json(path)


def write_json(
    path: Path, data: dict[str, Any], *, exclusive: bool = False, sync: bool = False
) -> bool:
    """Write a JSON file, all or nothing.

    Parameters
    ----------
    exclusive : bool
        Leave a file that is there alone.
    sync : bool
        Return only when it is on the disk.

    Returns
    -------
    bool
        Whether it was written.
    """
    content = json.dumps(data, separators=(",", ":")) + "\n"
    return files.write_atomic(path, content, exclusive=exclusive, sync=sync)


def publish(finished: Path, place: Path) -> bool:
    """Put a finished record into its place; never over another record.

    What a power cut left there (an empty file) is no record.

    Returns
    -------
    bool
        Whether it is there now.
    """
    if files.put_in_place(finished, place, exclusive=True):
        return True
    if read_json(place) is not None:
        return False
    place.unlink(missing_ok=True)
    return files.put_in_place(finished, place, exclusive=True)


def write_record(place: Path, record: dict[str, Any]) -> bool:
    """Write a record; never over another.

    Returns
    -------
    bool
        Whether it was written.
    """
    with files.temporary_beside(place) as temporary:
        fill(temporary, record)
        written = publish(temporary, place)
    if written:
        files.sync_path(place.parent)
    return written


def reserve(path: Path) -> None:
    """Claim the disk space of a record now, while there is some.

    Raises
    ------
    FileExistsError
        Another worker has this attempt.
    """
    with path.open("xb") as file:
        file.write(b" " * RESERVED)
        file.flush()


def fill(path: Path, data: dict[str, Any]) -> None:
    """Write a record into the space that was reserved for it; needs no more disk.

    It is on the disk afterwards: a record is a promise.
    """
    text = json.dumps(data, separators=(",", ":")).encode()
    if len(text) >= RESERVED:
        tail = data.get("log_tail", "")
        data = {**data, "log_tail": tail[-1000:], "text": data.get("text", "")[-1000:]}
        data["units_failed"] = data.get("units_failed", [])[:20]
        text = json.dumps(data, separators=(",", ":")).encode()
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(text + b"\n")
        file.flush()
        os.ftruncate(file.fileno(), len(text) + 1)
    files.sync_path(path)
