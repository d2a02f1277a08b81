"""A submission in the hands of the local scheduler: what is left, what lives, what has ended."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from labkit.base import process_tree
from labkit.jobs.backends.local_epoch import Epoch
from labkit.jobs.backends.local_stage import Live, StageLeft
from labkit.jobs.model import Reason, State, to_ranges
from labkit.jobs.runs.stages import rank
from labkit.jobs.runs.store import Run, Submission
from labkit.jobs.worker import commit, reap
from labkit.jobs.worker.folder import read_json, read_json_anew, write_record
from labkit.jobs.worker.retry import retry_memory

log = logging.getLogger("labkit.scheduler")


class TakenOverError(Exception):
    """Another machine's scheduler has the submission now."""


class Job:
    """One submission that the scheduler runs.

    Parameters
    ----------
    run, submission
        The run, and which of its submissions.
    most : int
        Bytes of memory one task can have at most.
    queue : Path
        The local queue that has it.

    Raises
    ------
    LabkitError
        The run folder is gone.
    OSError
        The run folder cannot be read, or cannot be written.
    """

    def __init__(self, run: Run, submission: Submission, most: int, queue: Path) -> None:
        self.run = run
        self.most = most
        self.submission = submission
        self.path = run.manifest.path
        self.envs = run.manifest.envs
        self.stages = {work.name: StageLeft(work) for work in self.submission.stages}
        self.attempts: dict[tuple[str, int], int] = {}
        self.used: dict[tuple[str, int], int] = {}
        self.memory: dict[tuple[str, int], int] = {}
        self.cancelled = False
        self.waits_since: float | None = None
        self.waits_for = ""
        # First of all: what an earlier scheduler claims from now on, it gives back.
        self._epoch = Epoch.begin(run.folder, submission.number, queue)
        self.sweep()
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
        """Find out what has become of each task: nothing may be lost, nothing doubled.

        A worker goes from claim to heartbeat to record, and so does this: whatever it does
        meanwhile, the attempt is seen in one of them.
        """
        stage, folder = left.work.name, self.run.folder
        claims = folder.attempts("attempts", stage)
        beats = self._beats(stage, folder.attempts("running", stage))
        listed = set(folder.attempts("tasks", stage))
        records = {where: self._record(stage, *where) for where in sorted(listed)}
        for where in [where for where, record in records.items() if record is None]:
            records[where] = reap.settled(folder, {}, stage, *where)  # emptied by a power cut
        # What was only claimed may have begun since.
        mine = set(left.work.tasks)
        started = [where for where in claims if where not in beats and where not in listed]
        beats |= self._beats(stage, started)
        for where in started:
            if where not in beats and where[0] in mine:
                self._revoke(left, *where)
                records[where] = self._record(stage, *where)
                beats |= self._beats(stage, [where])
        for index, attempt in (*claims, *beats, *listed):
            task = (stage, index)
            self.attempts[task] = max(attempt, self.attempts.get(task, 0))
        ended: dict[int, dict[str, Any]] = {}
        for (index, _), record in records.items():
            if record is None or not self._counts(left, record):
                continue
            if record.get("began") is False:
                continue  # the one before it decides
            if index not in ended or rank(record) > rank(ended[index]):
                ended[index] = record
            if record["submission"] == self.submission.number:
                self._count(record)
        lost = []
        for (index, attempt), beat in beats.items():
            if records.get((index, attempt)) is not None:
                self._clear(stage, index, attempt)  # its worker was killed at its very end
                continue
            if beat.get("submission") != self.submission.number:
                continue
            live = Live.of(folder, stage, index, attempt, beat)
            if live.gone():
                lost.append(live)
            else:
                left.live[index] = live
        gone = {live.index for live in lost}
        for index in left.work.tasks:
            if index in left.live or index in gone:
                continue
            if index not in ended:
                left.todo.append(index)
            else:
                self._after(left, ended[index])
        for live in lost:
            self._settle(left, live, "its worker ended while no scheduler ran")

    def _clear(self, stage: str, index: int, attempt: int) -> None:
        reap.clear(self.run.path, stage, index, attempt)
        self.run.sweep(stage, index, attempt)

    def _beats(
        self, stage: str, attempts: Iterable[tuple[int, int]]
    ) -> dict[tuple[int, int], dict[str, Any]]:
        beats = {where: read_json(self.run.folder.running(stage, *where)) for where in attempts}
        return {where: beat for where, beat in beats.items() if beat is not None}

    def _record(self, stage: str, index: int, attempt: int) -> dict[str, Any] | None:
        return read_json(self.run.folder.record(stage, index, attempt))

    def _counts(self, left: StageLeft, record: dict[str, Any]) -> bool:
        """Return whether a record says what has become of a task of this submission."""
        mine: bool = record.get("submission") == self.submission.number
        return mine or commit.succeeded(record, self._since(left, record["index"]))

    def _since(self, left: StageLeft, index: int) -> int:
        """Return the first submission whose success of a task counts."""
        return left.work.since.get(index, self.submission.number)

    def _count(self, record: dict[str, Any]) -> None:
        if record.get("began") is False:
            return
        where = (record["stage"], record["index"])
        self.used[where] = self.used.get(where, 0) + 1

    def _revoke(self, left: StageLeft, index: int, attempt: int) -> None:
        """Take back what an earlier scheduler claimed and whose worker has not begun.

        The record stands in its way: a worker that begins after all finds it and ends. One that
        begins in this very moment is killed. It counts as no attempt of the task's retries.
        """
        where = (left.work.name, index, attempt)
        beat = self.run.folder.running(*where)
        reap.clear(self.run.path, *where)
        if read_json_anew(beat) is not None:
            return
        verdict = (str(State.FAILED), str(Reason.LOST), "its scheduler ended before it could begin")
        record = reap.record({}, where, self.submission.number, verdict, "scheduler")
        record["began"] = False
        write_record(self.run.folder.record(*where), record)
        late = read_json_anew(beat)
        if late is not None and reap.lives(late, beat):  # on another machine: until it ends
            left.live[index] = Live.of(self.run.folder, *where, late)
        else:
            self.run.sweep(*where)

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
        """Claim a task's next attempt, before its worker starts; return its number.

        Raises
        ------
        OSError
            The run folder cannot be written.
        TakenOverError
            Another machine's scheduler has it now. Either that one has seen this claim, or this
            one sees its epoch.
        """
        where = (left.work.name, index)
        number = self.attempts.get(where, 0) + 1
        while commit.claimed(self.run.folder, *where, number) or not self._make(*where, number):
            number += 1  # another scheduler's
        self.attempts[where] = number
        if not self._epoch.is_newest():
            self.unclaim(left, index)
            raise TakenOverError
        return number

    def _make(self, stage: str, index: int, attempt: int) -> bool:
        try:
            self.run.folder.attempt(stage, index, attempt).mkdir()
        except FileExistsError:
            return False
        return True

    def unclaim(self, left: StageLeft, index: int) -> None:
        """Give a claim back: its worker could not be started."""
        where = (left.work.name, index)
        with contextlib.suppress(OSError):
            self.run.folder.attempt(*where, self.attempts[where]).rmdir()
        self.attempts[where] -= 1

    def attend(self) -> None:
        """Do what was asked for meanwhile, and take note of workers that have ended.

        Raises
        ------
        OSError
            The run folder cannot be read or written.
        TakenOverError
            Another machine's scheduler has it now.
        """
        if not self._epoch.is_newest():
            raise TakenOverError
        if not self.cancelled and self.run.folder.cancelled(self.submission.number).exists():
            self.cancel()
        self._reap_workers()

    def surrender(self) -> None:
        """End the workers of this machine, and record how: another scheduler has the job now.

        That one cannot end them, and would wait for their heartbeats.
        """
        own = [live for live in self.live if live.beat is None]
        for live in own:
            process_tree.end(live.pid, 0)
            process_tree.kill([live.pid])
        for live in own:
            if live.process is not None:
                live.process.wait()
            with contextlib.suppress(OSError):  # then the other one does, when they are silent
                self._settle(self.stages[live.stage], live, "another machine's scheduler has it")

    def sweep(self) -> None:
        """Clear what dead attempts have left on this machine, where it could not be cleared."""
        with contextlib.suppress(OSError):
            reap.sweep_machine(self.run.folder)

    def cancel(self) -> None:
        """Drop what waits and end what lives."""
        self.cancelled = True
        for left in self.stages.values():
            left.todo.clear()
            for live in left.live.values():
                if live.beat is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(live.pid, signal.SIGTERM)

    def _reap_workers(self) -> None:
        for left in self.stages.values():
            for live in list(left.live.values()):
                if live.gone():
                    self._settle(left, live, live.how())
            for record in list(left.unrecorded):
                left.unrecorded.remove(record)
                self._write(left, record)

    def _settle(self, left: StageLeft, live: Live, text: str) -> None:
        """Find out how an attempt has ended. It stays known until that could be read."""
        where = (live.stage, live.index, live.attempt)
        folder = self.run.folder
        record = read_json(folder.record(*where))
        beat = {} if record else read_json(folder.running(*where)) or {}
        if record is None:
            record = reap.settled(folder, beat, *where)
            if record is not None:  # its worker was killed after its commit
                reap.clear(self.run.path, *where)
        if record is not None and record["submission"] == self.submission.number:
            self._count(record)
        if record is None or record["state"] != State.SUCCEEDED:
            # Its worker may have found another attempt's success, and left.
            record = commit.success(folder, *where[:2], self._since(left, live.index)) or record
        if record is not None:
            self.run.sweep(*where)
            left.live.pop(live.index, None)
            if record.get("began") is False or not self._counts(left, record):
                self._once_more(left, live.index)
            else:
                self._after(left, record)
        elif beat.get("pid", live.pid) != live.pid and reap.lives(beat, folder.running(*where)):
            left.live[live.index] = Live.of(folder, *where, beat)
        else:
            self._reap(left, live, beat, text)
            left.live.pop(live.index, None)

    def _once_more(self, left: StageLeft, index: int) -> None:
        """Wait for the attempt that lives, or start the next: the last one had no turn."""
        stage, folder = left.work.name, self.run.folder
        for attempt in range(1, self.attempts[stage, index] + 1):
            beat = folder.running(stage, index, attempt)
            told = read_json_anew(beat)
            ended = read_json(folder.record(stage, index, attempt)) is not None
            if told is not None and not ended and reap.lives(told, beat):
                left.live[index] = Live.of(folder, stage, index, attempt, told)
                return
        if not self.cancelled:
            left.todo.append(index)

    def _reap(self, left: StageLeft, live: Live, beat: dict[str, Any], text: str) -> None:
        """Write the record of an attempt whose worker could not, once nothing of it lives."""
        placed = (live.stage, live.index, live.attempt)
        reap.clear(self.run.path, *placed)
        reason = Reason.DISK_FULL if self._disk_full() else Reason.LOST
        verdict = (str(State.FAILED), str(reason), text)
        if self.cancelled:
            verdict = (str(State.CANCELLED), str(Reason.CANCELLED), "cancelled")
        record = reap.record(beat, placed, self.submission.number, verdict, "scheduler")
        record["memory"] = live.memory
        self._count(record)
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
