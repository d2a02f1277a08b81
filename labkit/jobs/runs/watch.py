"""What has become of a run: its records, its heartbeats and what the backend says, put together."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from labkit.jobs.model import Reason, Sighting, Sightings, State
from labkit.jobs.runs.intent import success_since
from labkit.jobs.runs.manifest import StageInfo
from labkit.jobs.runs.stages import StageView
from labkit.jobs.runs.store import Run, Submission
from labkit.jobs.worker import reap

_ENOUGH = 3  # units that must have been done before their pace is believed
_TIMEOUT = 60.0  # seconds after which less is believed too
# run folder -> (submission, stage, index) -> when a task was first missing, on the monotonic clock
_MISSING: dict[str, dict[tuple[int, str, int], float]] = {}


@dataclass(slots=True)
class TaskStatus:
    """One task as it is now.

    Attributes
    ----------
    record : mapping
        Its last record, or its heartbeat while it runs; empty before.
    attempts : int
        Attempts so far.
    """

    stage: str
    index: int
    state: State
    reason: str = ""
    text: str = ""
    attempts: int = 0
    record: dict[str, Any] = field(default_factory=dict)


@dataclass
class Snapshot:
    """A run at one moment.

    Attributes
    ----------
    state : State
        Of the whole job.
    known : bool
        False: the backend could not be asked, and this is what was known before.
    text : str
        What the backend says, or why it could not be asked.
    at : float
        Seconds since 1970.
    counts : mapping of str to Counter of State
        By stage.
    open : list of TaskStatus
        Tasks that have not succeeded.
    units, units_done : int, float
        Progress, e.g. in image sets; parts of one count where a program tells them.
    cpu_seconds, asked_cpu_seconds : float
        CPU time of all attempts that ended, and their time times the cores they asked for.
    peak_memory, memory, cpu : int, int, float
        The largest task's peak and what one task asked for.
    attempts, retries : int
        Attempts of all tasks so far, and how many of them were not the first.
    started, ended : float or None
        Seconds since 1970.
    rate : float
        Units per second of late; 0 where nobody can know yet.
    asked : tuple of (int, float, float)
        Submission, core seconds and byte seconds that its attempts asked for.
    """

    state: State
    known: bool
    text: str
    at: float
    counts: dict[str, Counter[State]]
    open: list[TaskStatus]
    units: int
    units_done: float
    cpu_seconds: float
    asked_cpu_seconds: float
    peak_memory: int
    memory: int
    attempts: int
    retries: int
    started: float | None
    ended: float | None
    rate: float = 0.0
    asked: tuple[tuple[int, float, float], ...] = ()

    @property
    def tasks(self) -> int:
        """Number of tasks."""
        return sum(sum(counter.values()) for counter in self.counts.values())

    def count(self, state: State) -> int:
        """Return how many tasks are in a state."""
        return sum(counter[state] for counter in self.counts.values())


class Watch:
    """Follows one run; each look reads only what is new.

    Parameters
    ----------
    run : Run
        The run.
    grace : float
        Seconds that a task may be missing, at the backend and in the records, before it is LOST.
    """

    def __init__(self, run: Run, grace: float = 0.0) -> None:
        self.run = run
        self._grace = grace
        # What one watch of this process has waited for, the next need not wait for again.
        self._missing = _MISSING.setdefault(str(run.path), {})
        #: Seconds until all that is missing now counts as lost; 0 where nothing is.
        self.unsettled = 0.0
        self._before: dict[tuple[str, int], TaskStatus] = {}
        self._first: tuple[float, float] | None = None
        self.stages = {info.name: StageView(run, info) for info in run.manifest.stages}

    def look(self, sightings: Sightings) -> Snapshot:
        """Return what the run is now.

        Parameters
        ----------
        sightings : Sightings
            What the backend says; asked *before* this look, so that a task that ended in between
            has left its record.
        """
        self.unsettled = 0.0
        for view in self.stages.values():
            view.read()
        submissions = self.run.submissions()
        latest, since = _latest(submissions), success_since(submissions)
        counts: dict[str, Counter[State]] = {}
        tasks: list[TaskStatus] = []
        done = 0.0
        for view in self.stages.values():
            name = view.info.name
            left = [
                index
                for index in range(view.info.tasks)
                if not succeeded(view.successes.get(index), since.get(name, {}).get(index, 0))
            ]
            counter = counts[name] = Counter[State]()
            for status in self._open(view, left, latest.get(name, {}), sightings, tasks):
                counter[status.state] += 1
                done += _units_done(status)
                tasks.append(status)
            counter[State.SUCCEEDED] += view.info.tasks - len(left)
            done += _succeeded_units(view, left)
        self._before = {(task.stage, task.index): task for task in tasks}
        return self._snapshot(counts, tasks, sightings, done)

    def _open(
        self,
        view: StageView,
        left: list[int],
        latest: dict[int, Submission],
        sightings: Sightings,
        tasks: list[TaskStatus],
    ) -> Iterator[TaskStatus]:
        """Return the tasks of a stage that have not succeeded."""
        blocked = _blocked(view.info, tasks)
        for index in left:
            attempts, record = view.attempts[index], view.last.get(index, {})
            status = TaskStatus(
                view.info.name, index, State.PENDING, attempts=attempts, record=record
            )
            self._derive(status, view, latest.get(index), sightings, blocked)
            yield status

    def _derive(
        self,
        status: TaskStatus,
        view: StageView,
        submission: Submission | None,
        sightings: Sightings,
        blocked: str,
    ) -> None:
        """Find the state of a task that has not succeeded. Records first, the backend second."""
        where = (status.stage, status.index)
        record = status.record
        ended = (
            bool(record) and submission is not None and (record["submission"] >= submission.number)
        )
        beat = view.beats.get(status.index)
        sighting = sightings.tasks.get(where)
        if sighting is not None and not sighting.state.final:
            if submission is not None:
                self._missing.pop((submission.number, *where), None)
            status.state, status.text = sighting.state, sighting.text
            if beat is not None:
                status.state, status.record = State.RUNNING, beat
                status.attempts += 1
        elif beat is not None and sightings.known and self._lives(status, beat):
            # Whatever its backend has forgotten or given up, and however an earlier attempt ended.
            if submission is not None:
                self._missing.pop((submission.number, *where), None)
                status.text = "It is being cancelled." if submission.cancelled else ""
            status.state, status.record = State.RUNNING, beat
            status.attempts += 1
        elif ended:
            status.state = State(record["state"])
            status.reason = record.get("reason", "")
            status.text = record.get("text", "")
        elif submission is None:
            status.text = "not submitted yet"
        elif submission.cancelled and (sightings.known or submission.handle is None):
            status.state, status.reason = State.CANCELLED, Reason.CANCELLED
        elif sighting is not None:
            _set(status, sighting)
        elif not sightings.known:
            self._unknown(status, beat)
        elif submission.handle is None:
            status.text = "recorded, not handed over yet: submit again"
        elif blocked:
            status.state, status.reason = State.CANCELLED, Reason.DEPENDENCY
            status.text = blocked
        else:
            self._lost(status, submission, beat)

    def _unknown(self, status: TaskStatus, beat: dict[str, Any] | None) -> None:
        """Keep what was known: a query that fails says nothing."""
        before = self._before.get((status.stage, status.index))
        if beat is not None:
            status.state, status.record = State.RUNNING, beat
        elif before is not None:
            status.state, status.reason, status.text = before.state, before.reason, before.text

    def _lost(
        self, status: TaskStatus, submission: Submission, beat: dict[str, Any] | None
    ) -> None:
        where = (submission.number, status.stage, status.index)
        since = self._missing.setdefault(where, time.monotonic())
        left = since + self._grace - time.monotonic()
        if left > 0:
            self.unsettled = max(self.unsettled, left)
            self._unknown(status, beat)
            return
        status.state, status.reason = State.FAILED, Reason.LOST
        status.text = "the backend no longer has it, and it left no record"
        if beat is not None:
            status.record = beat

    def _lives(self, status: TaskStatus, beat: dict[str, Any]) -> bool:
        path = self.run.folder.running(status.stage, status.index, beat.get("attempt", 0))
        return "place" in beat and reap.lives(beat, path)

    def _snapshot(
        self,
        counts: dict[str, Counter[State]],
        tasks: list[TaskStatus],
        sightings: Sightings,
        done: float,
    ) -> Snapshot:
        views = list(self.stages.values())
        units = sum(view.info.units for view in views)
        starts = [view.started for view in views if view.started]
        starts += [beat["started"] for view in views for beat in view.beats.values()]
        ends = [view.ended for view in views if view.ended]
        peaks = [beat.get("peak_rss", 0) for view in views for beat in view.beats.values()]
        state = _job_state(counts)
        return Snapshot(
            state=state,
            known=sightings.known,
            text=sightings.text,
            at=time.time(),
            counts=counts,
            open=tasks,
            units=units,
            units_done=min(done, units),
            cpu_seconds=sum(view.cpu_seconds for view in views),
            asked_cpu_seconds=sum(view.asked_cpu_seconds for view in views),
            peak_memory=max([*peaks, *(view.peak for view in views)], default=0),
            memory=max((view.memory for view in views), default=0),
            attempts=sum(view.attempts.total() + len(view.beats) for view in views),
            retries=sum(view.retries for view in views),
            started=min(starts, default=None),
            ended=max(ends, default=None) if state.final else None,
            rate=self._rate(done, min(starts, default=None)),
            asked=tuple((number, *used) for view in views for number, used in view.asked.items()),
        )

    def _rate(self, done: float, started: float | None) -> float:
        """Return units per second since this watch began, or since the start while that is young.

        After a retry the run's own start tells nothing.
        """
        now = time.time()
        if self._first is None:
            self._first = (now, done)
        since, before = self._first
        if done - before >= _ENOUGH or (done > before and now - since > _TIMEOUT):
            return (done - before) / max(1e-3, now - since)
        return done / max(1e-3, now - started) if started and done else 0.0


def _latest(submissions: list[Submission]) -> dict[str, dict[int, Submission]]:
    """Return by stage and index the last submission that has the task."""
    latest: dict[str, dict[int, Submission]] = {}
    for submission in submissions:
        for work in submission.stages:
            latest.setdefault(work.name, {}).update(dict.fromkeys(work.tasks, submission))
    return latest


def succeeded(success: dict[str, Any] | None, since: int) -> bool:
    """Return whether a task's last success counts.

    Parameters
    ----------
    since : int
        The first submission whose success does.
    """
    return success is not None and success.get("submission", 0) >= since


def _succeeded_units(view: StageView, left: list[int]) -> int:
    if not left:
        return view.info.units
    if view.info.units == view.info.tasks:
        return view.info.tasks - len(left)
    still = set(left)
    return sum(
        record.get("units", 1) for index, record in view.successes.items() if index not in still
    )


def _blocked(info: StageInfo, tasks: list[TaskStatus]) -> str:
    """Return why a stage will never start, where that is so."""
    if info.tolerate_failures:
        return ""
    for stage in info.depends_on:
        left = [task for task in tasks if task.stage == stage]
        if left and all(task.state.final for task in left):
            return f"{len(left)} tasks of stage {stage} did not succeed"
    return ""


def _set(status: TaskStatus, sighting: Sighting) -> None:
    status.state = sighting.state
    status.reason = sighting.reason or ""
    status.text = sighting.text


def _units_done(status: TaskStatus) -> float:
    if status.state is State.PENDING:
        return 0
    done: float = status.record.get("units_done", 0)
    if status.record.get("units_failed"):  # a partial result: all the others are done
        done = status.record.get("units", 1) - len(status.record["units_failed"])
    return done if status.state is State.RUNNING or "units_failed" in status.record else 0


def _job_state(counts: dict[str, Counter[State]]) -> State:
    total = sum(counts.values(), Counter[State]())
    if total[State.RUNNING]:
        return State.RUNNING
    if total[State.PENDING]:
        begun = total.total() > total[State.PENDING]
        return State.RUNNING if begun else State.PENDING
    if total[State.FAILED]:
        return State.FAILED
    return State.CANCELLED if total[State.CANCELLED] else State.SUCCEEDED
