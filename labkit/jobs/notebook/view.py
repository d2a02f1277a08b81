"""What a card says of a job, worked out once for HTML and text."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING

from labkit.base.units import format_duration, format_size
from labkit.jobs import prices
from labkit.jobs.model import State
from labkit.jobs.runs.watch import Snapshot, TaskStatus

if TYPE_CHECKING:
    from labkit.jobs.job import Job

CELLS = 400  # of the task grid; beyond that a cell stands for several tasks
FAILED_SHOWN = 5
WARNINGS_SHOWN = 5
_LOG_LINES = 12
_WORST = (State.FAILED, State.RUNNING, State.PENDING, State.CANCELLED, State.SUCCEEDED)


@dataclass(frozen=True)
class Cells:
    """Neighbouring cells of the task grid in the same state."""

    state: State
    count: int
    first: int
    last: int


@dataclass(frozen=True)
class Failed:
    """A task that failed, with what one needs to know at first."""

    title: str
    text: str
    log: str


@dataclass(frozen=True)
class View:
    """A job at one moment, in words and numbers.

    Attributes
    ----------
    facts : list of (str, str)
        Rows of the card: name and value.
    shares : list of (State, float)
        Parts of the bar, from 0 to 1.
    grids : list of (str, list of Cells)
        By stage.
    hint : str
        What one may do next.
    """

    title: str
    state: State
    headline: str
    facts: list[tuple[str, str]]
    shares: list[tuple[State, float]]
    grids: list[tuple[str, list[Cells]]]
    failed: list[Failed]
    more_failed: int
    when: str
    hint: str


def view(job: Job, snapshot: Snapshot) -> View:
    """Work out what the card says."""
    total = max(1, snapshot.tasks)
    warnings = job.warnings() if snapshot.state.final else []
    failed = [task for task in snapshot.open if task.state is State.FAILED]
    return View(
        title=job.name,
        state=snapshot.state,
        headline=_headline(snapshot, len(warnings)),
        facts=[*_facts(job, snapshot), *_warnings(warnings)],
        shares=[
            (state, snapshot.count(state) / total)
            for state in (State.SUCCEEDED, State.RUNNING, State.FAILED, State.CANCELLED)
            if snapshot.count(state)
        ],
        grids=[(name, _grid(name, snapshot)) for name in snapshot.counts],
        failed=[_failure(task) for task in failed[:FAILED_SHOWN]],
        more_failed=max(0, len(failed) - FAILED_SHOWN),
        when=_clock(snapshot.at),
        hint=_hint(snapshot),
    )


def _headline(snapshot: Snapshot, warnings: int) -> str:
    parts = [
        f"{snapshot.count(state):,} {state.value.lower()}"
        for state in (
            State.SUCCEEDED, State.RUNNING, State.PENDING, State.FAILED, State.CANCELLED,
        )
        if snapshot.count(state)
    ]  # fmt: skip
    doubt = f" with {warnings:,} warning{'s' * (warnings > 1)}" if warnings else ""
    return f"{snapshot.state}{doubt}: {', '.join(parts)} of {snapshot.tasks:,} tasks"


def _facts(job: Job, snapshot: Snapshot) -> list[tuple[str, str]]:
    facts = [("Where", job.backend or "not submitted")]
    if job.note:
        facts.append(("Note", job.note))
    if snapshot.units != snapshot.tasks:
        share = snapshot.units_done / max(1, snapshot.units)
        facts.append(
            ("Done", f"{int(snapshot.units_done):,} of {snapshot.units:,} units ({share:.0%})")
        )
    if snapshot.started:
        facts.append(("Time", _time(snapshot)))
    if snapshot.retries:
        facts.append(("Attempts", f"{snapshot.attempts:,}, {snapshot.retries:,} of them again"))
    if snapshot.asked_cpu_seconds:
        share = snapshot.cpu_seconds / snapshot.asked_cpu_seconds
        facts.append(
            (
                "CPU",
                f"{format_duration(snapshot.cpu_seconds)} used of "
                f"{format_duration(snapshot.asked_cpu_seconds)} asked for ({share:.0%})",
            )
        )
    if cost := _cost(job, snapshot):
        facts.append(("Cost", cost))
    if snapshot.peak_memory:
        facts.append(
            (
                "Memory",
                f"{format_size(snapshot.peak_memory)} at most of {format_size(snapshot.memory)} "
                "asked for per task",
            )
        )
    if not snapshot.known:
        facts.append(("Unknown", f"shown as last known: {snapshot.text}"))
    elif snapshot.text and not snapshot.state.final:
        facts.append(("Waits", snapshot.text))
    facts.append(("Folder", str(job.path)))
    return facts


def _cost(job: Job, snapshot: Snapshot) -> str:
    """Return what all attempts that ended have cost, where their backends have a price."""
    backends = {one.number: one.backend for one in job.run.submissions()}
    return prices.after(
        (backends.get(number, ""), cores, memory) for number, cores, memory in snapshot.asked
    )


def _warnings(texts: list[str]) -> list[tuple[str, str]]:
    more = len(texts) - WARNINGS_SHOWN
    facts = [("Warning", text) for text in texts[:WARNINGS_SHOWN]]
    return facts + ([("", f'… and {more:,} more in job.results("problems")')] if more > 0 else [])


def _time(snapshot: Snapshot) -> str:
    assert snapshot.started is not None  # noqa: S101 -- the caller has looked
    taken = (snapshot.ended or snapshot.at) - snapshot.started
    text = (
        f"{format_duration(taken)} so far" if not snapshot.state.final else format_duration(taken)
    )
    left = time_left(snapshot)
    return text if left is None else f"{text}, about {format_duration(left)} left"


def time_left(snapshot: Snapshot) -> float | None:
    """Return about how many seconds are left; None where nobody can know yet."""
    if snapshot.state is not State.RUNNING or not snapshot.rate:
        return None
    return (snapshot.units - snapshot.units_done) / snapshot.rate


def _grid(stage: str, snapshot: Snapshot) -> list[Cells]:
    total = sum(snapshot.counts[stage].values())
    states = [State.SUCCEEDED] * total
    for task in snapshot.open:
        if task.stage == stage:
            states[task.index] = task.state
    per_cell = -(-total // CELLS) or 1
    cells = [
        min(states[start : start + per_cell], key=_WORST.index)
        for start in range(0, total, per_cell)
    ]
    runs: list[Cells] = []
    first = 0
    for state, group in groupby(cells):
        count = sum(1 for _ in group)
        last = min(total, (first + count) * per_cell) - 1
        runs.append(Cells(state, count, first * per_cell, last))
        first += count
    return runs


def _failure(task: TaskStatus) -> Failed:
    key = task.record.get("key") or str(task.index)
    attempts = f", attempt {task.attempts}" if task.attempts > 1 else ""
    log = "\n".join(task.record.get("log_tail", "").splitlines()[-_LOG_LINES:])
    return Failed(f"{task.stage} {key}: {task.reason}{attempts}", task.text, log)


def _clock(at: float) -> str:
    moment = datetime.fromtimestamp(at).astimezone()
    return moment.strftime("%Y-%m-%d %H:%M:%S %Z")


def _hint(snapshot: Snapshot) -> str:
    if not snapshot.state.final:
        return "job.wait() waits · job.cancel() ends it"
    if snapshot.state is State.SUCCEEDED:
        return "job.results()"
    reasons = {task.reason for task in snapshot.open}
    if "OUT_OF_MEMORY" in reasons:
        return 'job.failed() · job.retry(memory="x2") runs only these again'
    return "job.failed() · job.retry() runs only these again"
