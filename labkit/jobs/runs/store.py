"""Run folders as labkit sees them: create once, lock, submissions, records."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from labkit.base import files
from labkit.base.problems import LabkitError
from labkit.jobs.plan import Plan
from labkit.jobs.runs import drivers, worker_copy
from labkit.jobs.runs.intent import StageWork, Submission
from labkit.jobs.runs.manifest import Manifest, job_key, now, run_name, submission_name, task_line
from labkit.jobs.worker.folder import Folder, read_json, write_json, write_record

__all__ = ["Run", "StageWork", "Submission", "unreadable"]

_LOCK_TIMEOUT = 60.0  # seconds


class Run:
    """One run folder.

    Parameters
    ----------
    path : Path
        The folder; it must have a manifest.

    Attributes
    ----------
    folder : Folder
        Its paths.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path).absolute()
        self.folder = Folder(self.path)

    def __hash__(self) -> int:
        return hash(self.path)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and other.path == self.path

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @classmethod
    def create(cls, plan: Plan, root: Path) -> Run:
        """Make the run folder of a plan, or open the one that is there.

        It is written aside and renamed to its place: whoever sees it sees all of it, and of two
        at once the second opens the first's.

        Raises
        ------
        LabkitError
            The place cannot be written.
        """
        tables = {
            stage.name: "".join(f"{task_line(task)}\n" for task in stage.tasks)
            for stage in plan.stages
        }
        key = job_key(plan, tables, root)
        run = cls(root / run_name(plan.name, key))
        if run.folder.manifest.exists():
            return run
        aside = run.path.with_name(f".{run.path.name}.{os.getpid()}.{time.monotonic_ns()}")
        try:
            aside.mkdir(parents=True, mode=0o700)
            _fill(Folder(aside), plan, tables, Manifest.of(plan, key))
            files.sync_tree(aside)
            try:
                aside.rename(run.path)
                files.sync_path(root)
            except OSError:
                if not run.folder.manifest.exists():
                    raise
        except OSError as error:
            raise LabkitError(
                f"The run folder {run.path} cannot be made: {error.strerror or error}. "
                "Choose another place with output=, or make room there."
            ) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return run

    @cached_property
    def manifest(self) -> Manifest:
        """What was asked for.

        Raises
        ------
        LabkitError
            It is gone, or is no manifest, or cannot be read now.
        """
        try:
            data = read_json(self.folder.manifest)
        except OSError as error:
            raise unreadable(self.path, error) from error
        if data is None:
            raise LabkitError(
                f"{self.path} is no run folder (any more): its manifest.json is missing or broken."
            )
        return Manifest.from_json(data)

    @property
    def key(self) -> str:
        """Key of the job."""
        return self.manifest.key

    @contextmanager
    def lock(self, timeout: float = _LOCK_TIMEOUT) -> Iterator[None]:
        """Hold the run against other submitters; ends with the process that holds it.

        Raises
        ------
        LabkitError
            Another one holds it for longer than ``timeout`` seconds.
        """
        with ExitStack() as held:
            self._hold(held, timeout)
            yield

    def _hold(self, held: ExitStack, timeout: float) -> None:
        try:
            held.enter_context(files.locked(self.path / ".lock", timeout, "the run folder"))
        except files.LockTimeoutError as error:
            raise LabkitError(str(error)) from None
        except OSError as error:
            raise LabkitError(f"{self.path} cannot be written: {error.strerror}.") from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise LabkitError(
                f"{self.path} cannot be written: {error.strerror or error}. "
                "Make room there, or wait until its disk is back, and ask again."
            ) from error

    def submissions(self) -> list[Submission]:
        """Return all submissions, the first first."""
        try:
            names = {entry.name for entry in os.scandir(self.path / "submissions")}
        except FileNotFoundError:
            return []
        found = []
        for name in sorted(names):
            if not (name.endswith(".json") and name[:-5].isdigit()):
                continue
            number = int(name[:-5])
            intent = read_json(self.folder.submission(number))
            if intent is None:
                continue
            handle = read_json(self.folder.accepted(number))
            cancelled = self.folder.cancelled(number).name in names
            found.append(Submission.from_json(intent, handle, cancelled))
        return found

    def intend(
        self, backend: str, stages: Sequence[StageWork], options: Mapping[str, Any]
    ) -> Submission:
        """Record the intent of the next submission; the caller holds the lock.

        Raises
        ------
        LabkitError
            The run folder is somebody else's: its worker would run as you.
        """
        owner = self.path.stat()
        if owner.st_uid != os.geteuid() or owner.st_mode & 0o022:
            raise LabkitError(
                f"{self.path} belongs to somebody else, or others may write into it: what lies "
                "there would run in your name. Choose another place with output=."
            )
        names = os.listdir(self.path / "submissions")  # noqa: PTH208 -- names are enough
        # Also of one that a power cut left empty: its number is somebody's.
        number = max((int(name[:4]) for name in names if name[:4].isdigit()), default=0) + 1
        submission = Submission(
            number=number,
            name=submission_name(self.manifest, self.path, number),
            backend=backend,
            options=options,
            created=now(),
            stages=tuple(stages),
        )
        path = self.folder.submission(number)
        with self._writing():
            mine = write_json(path, submission.to_json(), exclusive=True, sync=True)
        if not mine:  # a disk without locks
            raise LabkitError(f"{self.path} was submitted by another process just now: ask again.")
        return submission

    def accept(self, submission: Submission, handle: Mapping[str, Any]) -> None:
        """Record that the backend has the submission."""
        with self._writing():
            write_json(self.folder.accepted(submission.number), dict(handle), sync=True)

    def started(self, submission: Submission) -> bool:
        """Return whether a task of the submission has ever started."""
        for work in submission.stages:
            for kind, place in (("running", self.folder.running), ("tasks", self.folder.record)):
                for index, attempt in reversed(self.folder.attempts(kind, work.name)):
                    told = read_json(place(work.name, index, attempt)) or {}
                    if told.get("submission") == submission.number:
                        return True
        return False

    def set_results_aside(self) -> None:
        """Move all results to ``results.before-<n>``, so that none is taken for a new one.

        The caller holds the lock, and no task runs.
        """
        number = 1
        while (aside := self.path / f"results.before-{number}").exists():
            number += 1
        self.folder.results.rename(aside)
        for info in self.manifest.stages:
            (self.folder.results / info.name).mkdir(parents=True)

    def request_cancel(self, submission: Submission) -> None:
        """Record the wish to cancel a submission, before the backend is asked."""
        with self._writing():
            write_json(self.folder.cancelled(submission.number), {"at": now()}, sync=True)

    def write_record(self, record: Mapping[str, Any]) -> bool:
        """Write the record of an attempt that could not write its own; never over one.

        Parameters
        ----------
        record : mapping
            As in docs/reference/run-folder.md; ``stage``, ``index``, ``attempt``, ``state``.

        Returns
        -------
        bool
            Whether it was written.
        """
        stage, index, attempt = record["stage"], record["index"], record["attempt"]
        written = write_record(self.folder.record(stage, index, attempt), dict(record))
        self.sweep(stage, index, attempt)
        return written

    def sweep(self, stage: str, index: int, attempt: int) -> None:
        """Remove what an attempt that has ended needs no more; what it wrote stays."""
        with suppress(OSError):
            self.folder.attempt(stage, index, attempt).rmdir()  # it wrote nothing
        self.folder.reserved(stage, index, attempt).unlink(missing_ok=True)
        self.folder.running(stage, index, attempt).unlink(missing_ok=True)


def unreadable(path: Path, error: OSError) -> LabkitError:
    """Return what is said of a run folder that is there and cannot be read."""
    return LabkitError(
        f"{path} cannot be read: {error.strerror or error}. Is its disk there, and is it yours? "
        "Its job is as it was once it can be read again."
    )


def _fill(folder: Folder, plan: Plan, tables: Mapping[str, str], manifest: Manifest) -> None:
    for name in ("submissions", "stages", "files", "results", "worker"):
        (folder.path / name).mkdir(parents=True)
    for stage in plan.stages:
        for kind in ("tasks", "running", "logs", "attempts", "results"):
            (folder.path / kind / stage.name).mkdir(parents=True)
        folder.table(stage.name).write_text(tables[stage.name], encoding="utf-8")
        if stage.driver:
            drivers.copy(stage.driver, folder.drivers(stage.name))
    for name, content in plan.files.items():
        place = folder.files / name
        if not place.resolve().is_relative_to(folder.files.resolve()):
            raise ValueError(f"{name!r} would lie outside of the run folder")
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copy(content, place)
        elif isinstance(content, bytes):
            place.write_bytes(content)
        else:
            place.write_text(content, encoding="utf-8")
    worker_copy.write(folder.path / "worker")
    worker_copy.write_fetcher(folder.fetcher, plan.remote_inputs)
    write_json(folder.manifest, manifest.to_json())
