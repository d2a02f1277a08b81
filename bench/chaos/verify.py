"""What has become of every task, and what is left that should not be."""

from __future__ import annotations

import collections
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.chaos.place import Place
from labkit.base import cgroups
from labkit.jobs.backends.local_queue import LocalQueue
from labkit.jobs.job import open_job
from labkit.jobs.model import State
from labkit.jobs.runs.gc import garbage
from labkit.jobs.runs.stages import rank
from labkit.jobs.runs.store import Run
from labkit.jobs.worker.folder import parse_name, read_json, unique_name

#: What must stay zero.
FAULTS = (
    "lost", "doubled", "records replaced", "results of another attempt", "orphans", "leftovers",
    "said what was not so", "not finished",
)  # fmt: skip


@dataclass
class Ledger:
    """Remembers records as they were first seen: none may ever change."""

    seen: dict[Path, bytes] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)
    _files: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def look(self, run: Run) -> None:
        """Read all records that are new or another file."""
        for info in run.manifest.stages:
            for index, attempt in run.folder.attempts("tasks", info.name):
                path = run.folder.record(info.name, index, attempt)
                status = path.stat()
                file = (status.st_ino, status.st_mtime_ns)
                if self._files.get(path) == file:
                    continue
                content, self._files[path] = path.read_bytes(), file
                if self.seen.setdefault(path, content) != content:
                    self.replaced.append(f"{path.name}: {self.seen[path]!r} -> {content!r}")
                    self.seen[path] = content


@dataclass(frozen=True)
class Ran:
    """A line of a task's trace."""

    what: str
    attempt: int
    pid: int
    at: float


def traces(place: Place, stage: str, key: str) -> list[Ran]:
    """Return when a task started and ended."""
    path = place.trace / f"{stage}.{key}"
    if not path.exists():
        return []
    lines = [line.split() for line in path.read_text().splitlines()]
    return [Ran(w[0], int(w[1]), int(w[2]), float(w[3])) for w in lines if len(w) == 4]


def check(place: Place, run: Run, ledger: Ledger) -> collections.Counter[str]:
    """Return how often each fault is there; the round's log says where."""
    ledger.look(run)
    faults: collections.Counter[str] = collections.Counter()
    faults["records replaced"] += len(ledger.replaced)
    for text in ledger.replaced:
        place.note(f"REPLACED {text}")
    for info in run.manifest.stages:
        for task in run.folder.tasks(info.name):
            for fault, text in _of_task(place, run, info.name, task):
                faults[fault] += 1
                place.note(f"FAULT {fault}: {info.name} {task['key']}: {text}")
    state = open_job(run).refresh().state
    if state is not State.SUCCEEDED:
        faults["not finished"] += 1
        place.note(f"FAULT the job is {state}")
    for line in place.notes():
        if line.split()[0] in ("CHANGED", "FINAL-BUT-RUNS", "JOBS-MISSES"):
            faults["said what was not so"] += 1
    return +faults


def _of_task(place: Place, run: Run, stage: str, task: dict[str, Any]) -> Iterator[tuple[str, str]]:
    index, key = task["index"], task["key"]
    records = {
        attempt: read_json(run.folder.record(stage, index, attempt)) or {}
        for number, attempt in run.folder.attempts("tasks", stage)
        if number == index
    }
    if broken := [attempt for attempt, record in records.items() if not record]:
        yield "lost", f"the records {broken} cannot be read"
        return
    ran = traces(place, stage, key)
    good = [record for record in records.values() if record["state"] == "SUCCEEDED"]
    each = collections.Counter(record["submission"] for record in good)
    if not good or max(records.values(), key=rank)["state"] != "SUCCEEDED":
        yield "lost", f"{[(a, r['state'], r.get('reason')) for a, r in records.items()]}"
        return
    if max(each.values()) > 1:
        yield "doubled", f"succeeded more than once in a submission: {dict(each)}"
    yield from _twice(run, stage, index, records, ran)
    for attempt in {line.attempt for line in ran} - set(records):
        yield "lost", f"attempt {attempt} ran and has no record"
    best = max(good, key=rank)
    result = run.folder.result(stage, key) / "out.txt"
    if not result.exists():
        yield "lost", f"no result of {best}"
    elif stage != "gather" and int(result.read_text().split()[0]) != best["attempt"]:
        yield "results of another attempt", f"{result.read_text()!r} of {best['attempt']}"
    elif stage == "gather":
        parts = [path.read_text() for path in (run.folder.results / "part").glob("*/out.txt")]
        if sorted(result.read_text().split()) != sorted("".join(parts).split()):
            yield "results of another attempt", "the gather has not what is there"


def _twice(
    run: Run, stage: str, index: int, records: dict[int, dict[str, Any]], ran: list[Ran]
) -> Iterator[tuple[str, str]]:
    starts = sorted((line for line in ran if line.what == "start"), key=lambda line: line.at)
    ends = {(line.attempt, line.pid): line.at for line in ran if line.what == "end"}
    numbers = collections.Counter(line.attempt for line in starts)
    if any(count > 1 for count in numbers.values()):
        yield "doubled", f"an attempt started twice: {dict(numbers)}"
    if any(line.what == "twin" for line in ran):
        yield "doubled", f"two at once: {ran}"
    for one, other in itertools.pairwise(starts):
        if other.at < ends.get((one.attempt, one.pid), 0.0):
            yield "doubled", f"two at once: {one} {other}"
    for attempt, record in records.items():
        if record["state"] != "SUCCEEDED":
            continue
        written = run.folder.record(stage, index, attempt).stat().st_mtime
        for line in starts:
            other = records.get(line.attempt, record)
            # What depends on a task that runs again runs again, too.
            again = stage == "part" or other["submission"] == record["submission"]
            if again and line.at > written + 0.001:
                yield "doubled", f"attempt {line.attempt} ran after the success of {attempt}"


def left(place: Place, run: Run | None) -> collections.Counter[str]:
    """Return what is left: processes, folders and files, cgroups, entries of the queue."""
    found: collections.Counter[str] = collections.Counter()
    for kind in place.processes().values():
        found[f"orphans: {kind}"] += 1
    found["leftovers: temporary folders"] = sum(1 for _ in place.tmp.glob("labkit-*"))
    for path in LocalQueue().queue.iterdir():
        found[f"leftovers: {path.relative_to(place.path)}"] += 1
    if run is None:
        return +found
    suffix = unique_name(run.path, "x", 0, 0).rpartition("-")[2]
    for group, _ in cgroups.groups("memory"):
        for _, folders, _ in os.walk(group):
            found["leftovers: cgroups"] += sum(name.endswith(suffix) for name in folders)
    for aside in place.runs.glob(".*"):
        os.utime(aside, (0, 0))  # gc leaves young ones alone: somebody may be making them
    known = set(garbage(run).paths)
    for path in _unneeded(place, run):
        if path not in known:
            found[f"leftovers: {path.relative_to(place.path)}"] += 1
    return +found


def _unneeded(place: Place, run: Run) -> Iterator[Path]:
    """Return what nobody needs when a job is over; gc must know it, or it must not be there."""
    yield from place.runs.glob(".*")
    yield from (run.path / "submissions").glob(".*")
    for info in run.manifest.stages:
        yield from (run.path / "tasks" / info.name).glob(".*")
        yield from (run.path / "running" / info.name).iterdir()
        for path in (run.path / "attempts" / info.name).iterdir():
            where = parse_name(path.name)
            if where and not run.folder.record(info.name, *where).exists():
                yield path.with_name(f"{path.name} has no record")


def summed(found: collections.Counter[str]) -> collections.Counter[str]:
    """Return the faults, and what is left, by the names of :data:`FAULTS`."""
    total: collections.Counter[str] = collections.Counter()
    for name, count in found.items():
        total[name.partition(":")[0]] += count
    return collections.Counter({name: total[name] for name in FAULTS})
