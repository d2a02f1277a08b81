"""The records and heartbeats of one stage, read as they come."""

# 10,000 records and 1,000 heartbeats are looked at: names and stats, no Path for each.
# ruff: noqa: PTH116, PTH118, PTH123, PTH208
from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from labkit.jobs.runs.manifest import StageInfo
from labkit.jobs.runs.store import Run
from labkit.jobs.worker.folder import parse_name

_TRUSTED = 10.0  # seconds: a network disk shows an old time of change for a while
_RACY = 2.0  # seconds in which a folder may change twice within one tick of its clock


class StageView:
    """The records and heartbeats of one stage, read as they come.

    Attributes
    ----------
    last, successes : dict of int to dict
        By task, its last record, and the last one of a success.
    beats : dict of int to dict
        By task, the heartbeat of an attempt that has no record.
    """

    def __init__(self, run: Run, info: StageInfo) -> None:
        self.info = info
        self._records = str(run.path / "tasks" / info.name)
        self._running = str(run.path / "running" / info.name)
        self._seen: set[str] = set()
        self._changed = -1
        self._looked = 0.0
        self._stats: dict[str, tuple[int, int]] = {}
        self.last: dict[int, dict[str, Any]] = {}
        self.successes: dict[int, dict[str, Any]] = {}
        self.attempts: Counter[int] = Counter()
        self.beats: dict[int, dict[str, Any]] = {}
        self.cpu_seconds = 0.0
        self.asked_cpu_seconds = 0.0
        self.asked: dict[int, tuple[float, float]] = {}
        self.peak = 0
        self.memory = info.resources.memory
        self.started: float | None = None
        self.ended: float | None = None

    def read(self) -> None:
        """Read what is new."""
        try:
            changed = os.stat(self._records).st_mtime_ns
        except OSError:
            return
        looked = time.time()
        old = looked - self._looked > _TRUSTED
        if old or changed != self._changed or self._looked * 1e9 - changed < _RACY * 1e9:
            for name in os.listdir(self._records):
                if name in self._seen or parse_name(name) is None:
                    continue
                record = _read(os.path.join(self._records, name))
                if record is not None:
                    self._take(name, record)
            self._changed, self._looked = changed, looked
        self._read_beats()

    @property
    def retries(self) -> int:
        """Attempts that were not their task's first."""
        again = sum(index in self.attempts for index in self.beats)
        return self.attempts.total() - len(self.attempts) + again

    def _take(self, name: str, record: dict[str, Any]) -> None:
        self._seen.add(name)
        index = record["index"]
        self.attempts[index] += 1
        kinds = [self.last, self.successes] if record["state"] == "SUCCEEDED" else [self.last]
        for records in kinds:
            if index not in records or _age(record) > _age(records[index]):
                records[index] = record
        self.cpu_seconds += record.get("cpu_seconds", 0.0)
        self.asked_cpu_seconds += record.get("cpu", 0.0) * record.get("seconds", 0.0)
        self._add_asked(record)
        self.peak = max(self.peak, record.get("peak_rss", 0))
        self.memory = max(self.memory, record.get("memory", 0))
        if started := record.get("started"):
            self.started = min(started, self.started or started)
        self.ended = max(record.get("ended", 0.0), self.ended or 0.0)

    def _add_asked(self, record: dict[str, Any]) -> None:
        """Add the core seconds and byte seconds that an attempt asked for to its submission's."""
        submission, seconds = record.get("submission", 1), record.get("seconds", 0.0)
        cores, memory = self.asked.get(submission, (0.0, 0.0))
        cores += record.get("cpu", 0.0) * seconds
        memory += record.get("memory", 0) * seconds
        self.asked = {**self.asked, submission: (cores, memory)}  # others may read the old one

    def _read_beats(self) -> None:
        beats: dict[int, dict[str, Any]] = {}
        stats: dict[str, tuple[int, int]] = {}
        try:
            entries = list(os.scandir(self._running))
        except OSError:
            entries = []
        for entry in entries:
            found = parse_name(entry.name)
            if found is None or entry.name in self._seen:
                continue
            try:
                status = entry.stat()
            except OSError:
                continue
            stats[entry.name] = mark = (status.st_mtime_ns, status.st_ino)
            old = self.beats.get(found[0])
            if old is not None and self._stats.get(entry.name) == mark:
                beats[found[0]] = old
            elif (beat := _read(entry.path)) is not None:
                beats[found[0]] = beat
        self.beats, self._stats = beats, stats


def rank(record: Mapping[str, Any]) -> tuple[bool, int, int]:
    """Return what orders the records of a task that count: the highest says what became of it.

    A success counts more than what was written of another attempt later, be it that it was taken
    for lost meanwhile; a later submission counts more than an earlier one.
    """
    return record["state"] == "SUCCEEDED", *_age(record)


def _age(record: Mapping[str, Any]) -> tuple[int, int]:
    return record.get("submission", 0), record["attempt"]


def _read(path: str) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            data: dict[str, Any] = json.loads(file.read())
    except (OSError, ValueError):
        return None
    return data
