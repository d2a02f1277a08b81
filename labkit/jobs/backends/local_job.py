"""A submission in the hands of the local scheduler: what is left, what lives, what has ended."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Any

from labkit.base import process_tree
from labkit.jobs.model import Reason, State, to_ranges
from labkit.jobs.runs.store import Run, StageWork, Submission
from labkit.jobs.worker import reap
from labkit.jobs.worker.folder import read_json
from labkit.jobs.worker.retry import retry_memory

log = logging.getLogger("labkit.supervisor")


@dataclass
class Live:
    """An attempt whose worker lives.

    Attributes
    ----------
    process : Popen or None
        None: an earlier scheduler started it.
    beat : Path or None
        Its heartbeat, where its pid means nothing here: another machine or process namespace that
        shares this home.
    """

    stage: str
    index: int
    attempt: int
    pid: int
    start: int
    cpu: float
    memory: int
    process: Popen[bytes] | None = None
    beat: Path | None = None

    def gone(self) -> bool:
        """Return whether the worker has ended."""
        if self.process is not None:
            return self.process.poll() is not None
        if self.beat is not None:
            return not reap.fresh(self.beat)
        return process_tree.start_time(self.pid) != self.start


@dataclass
class StageLeft:
    """What is left of a stage."""

    work: StageWork
    todo: deque[int] = field(default_factory=deque)
    live: dict[int, Live] = field(default_factory=dict)
    unrecorded: list[dict[str, Any]] = field(default_factory=list)
    failed: int = 0

    @property
    def over(self) -> bool:
        """Whether all its tasks have ended, as far as this submission goes."""
        return not (self.todo or self.live or self.unrecorded)


class Job:
    """One submission that the scheduler runs.

    Parameters
    ----------
    run, number
        The run and the number of the submission.
    most : int
        Bytes of memory one task can have at most.

    Raises
    ------
    LabkitError, LookupError
        The run folder is gone, or has no such submission.
    """

    def __init__(self, run: Run, number: int, most: int) -> None:
        self.run = run
        self.most = most
        found = [s for s in run.submissions() if s.number == number]
        if not found:
            raise LookupError(f"{run.path} has no submission {number}")
        self.submission: Submission = found[0]
        self.path = run.manifest.path
        self.envs = run.manifest.envs
        self.stages = {work.name: StageLeft(work) for work in self.submission.stages}
        self.attempts: dict[tuple[str, int], int] = {}
        self.used: dict[tuple[str, int], int] = {}
        self.memory: dict[tuple[str, int], int] = {}
        self.cancelled = False
        self.waits_since: float | None = None
        self.waits_for = ""
        for left in self.stages.values():
            self._load(left)

    @property
    def over(self) -> bool:
        """Whether nothing of it is left."""
        return all(left.over for left in self.stages.values())

    @property
    def live(self) -> list[Live]:
        """All attempts that live."""
        return [live for left in self.stages.values() for live in left.live.values()]

    def _load(self, left: StageLeft) -> None:
        """Find out what has become of each task: nothing may be lost, nothing doubled."""
        stage, folder = left.work.name, self.run.folder
        for kind in ("tasks", "attempts", "running"):
            for index, attempt in folder.attempts(kind, stage):
                where = (stage, index)
                self.attempts[where] = max(attempt, self.attempts.get(where, 0))
        ended: dict[int, dict[str, Any]] = {}
        for index, attempt in folder.attempts("tasks", stage):
            record = read_json(folder.record(stage, index, attempt))
            if record and record.get("submission") == self.submission.number:
                ended[index] = record  # rising attempts: the last one stays
                self.used[stage, index] = self.used.get((stage, index), 0) + 1
        lost = []
        for index, attempt in folder.attempts("running", stage):
            beat = read_json(folder.running(stage, index, attempt))
            if beat is None or beat.get("submission") != self.submission.number:
                continue
            if folder.record(stage, index, attempt).exists():
                continue
            live = Live(
                stage, index, attempt, beat["pid"], beat["pid_start"], beat["cpu"], beat["memory"]
            )
            if beat["place"] != process_tree.place():
                live.beat = folder.running(stage, index, attempt)
            if live.gone():
                lost.append(live)
            else:
                left.live[index] = live
                self.attempts[stage, index] = attempt
        gone = {live.index for live in lost}
        for index in left.work.tasks:
            if index in left.live or index in gone:
                continue
            if index not in ended:
                left.todo.append(index)
            else:
                self._after(left, ended[index])
        for live in lost:
            self.reap_attempt(live, "its worker ended while no scheduler ran")

    def next_stage_tasks(self) -> StageLeft | None:
        """Return a stage that has a task to start now."""
        for left in self.stages.values():
            if not left.todo:
                continue
            before = [self.stages[name] for name in left.work.depends_on if name in self.stages]
            if not all(stage.over for stage in before):
                continue
            if any(stage.failed for stage in before) and not left.work.tolerate_failures:
                left.failed += len(left.todo)
                left.todo.clear()  # readers derive DEPENDENCY from the records
                continue
            return left
        return None

    def asked(self, left: StageLeft, index: int) -> tuple[float, int]:
        """Return cores and bytes of a task's next attempt."""
        memory = self.memory.get((left.work.name, index), left.work.resources.memory)
        return left.work.resources.cpu, memory

    def claim(self, left: StageLeft, index: int) -> int:
        """Return the number of a task's next attempt."""
        where = (left.work.name, index)
        self.attempts[where] = self.attempts.get(where, 0) + 1
        return self.attempts[where]

    def cancel(self) -> None:
        """Drop what waits and end what lives."""
        self.cancelled = True
        for left in self.stages.values():
            left.todo.clear()
            for live in left.live.values():
                if live.beat is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(live.pid, signal.SIGTERM)

    def reap(self) -> bool:
        """Take note of workers that have ended; True where there were any."""
        found = False
        for left in self.stages.values():
            for index, live in list(left.live.items()):
                if not live.gone():
                    continue
                found = True
                del left.live[index]
                folder = self.run.folder
                record = read_json(folder.record(live.stage, index, live.attempt))
                where = (live.stage, index)
                if record is None:
                    self.reap_attempt(live, _how(live))
                else:
                    self.used[where] = self.used.get(where, 0) + 1
                    self._after(left, record)
            for record in list(left.unrecorded):
                left.unrecorded.remove(record)
                self._write(left, record)
        return found

    def reap_attempt(self, live: Live, text: str) -> None:
        """Write the record of an attempt whose worker could not, once nothing of it lives."""
        left = self.stages[live.stage]
        where = (live.stage, live.index)
        self.used[where] = self.used.get(where, 0) + 1
        reap.clear(self.run.path, live.stage, live.index, live.attempt)
        beat = read_json(self.run.folder.running(live.stage, live.index, live.attempt)) or {}
        reason = Reason.DISK_FULL if self._disk_full() else Reason.LOST
        verdict = (str(State.FAILED), str(reason), text)
        if self.cancelled:
            verdict = (str(State.CANCELLED), str(Reason.CANCELLED), "cancelled")
        placed = (live.stage, live.index, live.attempt)
        record = reap.record(beat, placed, self.submission.number, verdict, "supervisor")
        record["memory"] = live.memory
        self._write(left, record)

    def _write(self, left: StageLeft, record: dict[str, Any]) -> None:
        try:
            if not self.run.write_record(record):
                where = (record["stage"], record["index"], record["attempt"])
                record = read_json(self.run.folder.record(*where)) or record
        except OSError as error:
            if error.errno != errno.ENOSPC:
                log.warning("%s cannot be recorded: %s", record, error)
            left.unrecorded.append(record)  # tried again with the next look
            return
        self._after(left, record)

    def _after(self, left: StageLeft, record: dict[str, Any]) -> None:
        """Decide on another attempt after a record."""
        if record["state"] == State.SUCCEEDED:
            return
        where = (left.work.name, record["index"])
        memory = retry_memory(
            record.get("reason", ""),
            record.get("memory", left.work.resources.memory),
            self.used.get(where, 1),
            left.work.retries,
            self.most,
        )
        if memory is None or self.cancelled:
            left.failed += 1
            return
        self.memory[where] = memory
        left.todo.append(record["index"])

    def _disk_full(self) -> bool:
        try:
            disk = os.statvfs(self.run.path)
        except OSError:
            return False
        return disk.f_bavail * disk.f_frsize < 1024**2

    def status(self) -> dict[str, Any]:
        """Return what a reader needs to know of this submission."""
        return {
            "text": self.waits_for,
            "stages": {
                name: {
                    "pending": to_ranges([*left.todo, *(r["index"] for r in left.unrecorded)]),
                    "running": to_ranges(left.live),
                }
                for name, left in self.stages.items()
            },
        }


def _how(live: Live) -> str:
    code = live.process.returncode if live.process else None
    if code is None:
        return "its worker ended and left no record"
    if code < 0:
        return f"its worker was killed by signal {-code}"
    return f"its worker ended with code {code} and could leave no record"
