"""A stage in the hands of the local scheduler: its tasks that wait, and its attempts that live."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Any

from labkit.base import process_tree
from labkit.jobs.runs.store import StageWork
from labkit.jobs.worker import reap
from labkit.jobs.worker.folder import Folder


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

    @classmethod
    def of(cls, folder: Folder, stage: str, index: int, attempt: int, beat: dict[str, Any]) -> Live:
        """Make it of a heartbeat."""
        elsewhere = beat["place"] != process_tree.place()
        return cls(
            stage,
            index,
            attempt,
            beat["pid"],
            beat["pid_start"],
            beat["cpu"],
            beat["memory"],
            beat=folder.running(stage, index, attempt) if elsewhere else None,
        )

    def gone(self) -> bool:
        """Return whether the worker has ended."""
        if self.process is not None:
            return self.process.poll() is not None
        if self.beat is not None:
            return not reap.fresh(self.beat)
        return process_tree.start_time(self.pid) != self.start

    def how(self) -> str:
        """Return how the worker has ended, where it left no record."""
        code = self.process.returncode if self.process else None
        if code is None:
            return "its worker ended and left no record"
        if code < 0:
            return f"its worker was killed by signal {-code}"
        return f"its worker ended with code {code} and could leave no record"


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
