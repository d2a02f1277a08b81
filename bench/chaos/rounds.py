"""A round: a job, those who ask for it, and what is done to them."""

from __future__ import annotations

import collections
import random
import shutil
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from bench.chaos import verify
from bench.chaos.place import Place, exit_code, fork, kill, wait_for
from bench.chaos.verify import Ledger
from bench.chaos.work import Work, canceller, lister, submitter
from labkit.jobs.runs.store import Run

SETTLED = 10.0  # seconds until what has ended must be gone


@dataclass
class Round(ABC):
    """One job, amid kills.

    Attributes
    ----------
    place : Path
        Its folder; kept where there was a fault.
    rng : Random
        Draws the work, the moments and the kinds of kills.
    patience : float
        Seconds until the job must be over.
    kills : Counter
        What was done, by kind.
    """

    folder: Path
    rng: random.Random
    patience: float = 400.0
    kills: collections.Counter[str] = field(default_factory=collections.Counter)

    backend: ClassVar[str]
    options: ClassVar[dict[str, Any]] = {}
    #: How often each kind is drawn.
    acts: ClassVar[dict[str, float]]
    tasks: ClassVar[tuple[int, int]]
    longest: ClassVar[float]
    most: ClassVar[tuple[int, int]]
    pause: ClassVar[tuple[float, float]]

    def __str__(self) -> str:
        return self.work.kind

    @abstractmethod
    def act(self, kind: str) -> int:
        """Do one of the backend's own kinds; return how many were hit."""

    def between(self) -> None:  # noqa: B027 -- not every backend has something to do
        """Do what must be done between two kills."""

    def prepare(self, place: Place) -> None:  # noqa: B027
        """Do what must be done before the first submit."""

    def clean(self) -> None:  # noqa: B027
        """Undo it."""

    def settle(self) -> None:  # noqa: B027
        """Bring back what was stopped, and wait until the backend has nothing more of the job."""

    def play(self) -> collections.Counter[str]:
        """Play it; return the faults."""
        self.place = Place(self.folder)
        self.prepare(self.place)
        try:
            return self._play()
        finally:
            self.clean()

    def _play(self) -> collections.Counter[str]:
        self.ledger = Ledger()
        self.work = Work.drawn(self.rng, *self.tasks, self.longest)
        self.most_now = self.rng.randint(*self.most)
        self.children: dict[int, str] = {}
        began = time.monotonic()
        self._submit("client")
        over = False
        while not over and time.monotonic() < began + self.patience:
            time.sleep(self.rng.uniform(*self.pause))
            over = self._reap_children()
            if run := self.place.run():
                with suppress(OSError):
                    self.ledger.look(run)
            if not over:
                if "client" not in self.children.values():
                    self._submit("client")
                self.between()
                if self.kills.total() < self.most_now:
                    self._draw()
        return self._verdict(over)

    def _draw(self) -> None:
        kind = self.rng.choices(list(self.acts), list(self.acts.values()))[0]
        match kind:
            case "submitter":
                client = next((p for p, k in self.children.items() if k == "client"), 0)
                count = int(bool(client) and kill(client))
            case "second submitter":
                self._submit("twin")
                count = 0
            case "cancel":
                run = self.place.run()
                if run is not None:
                    self.children[fork(canceller, run.path)] = "cancel"
                count = 0
            case "jobs()":
                self.children[fork(lister, self.place)] = "jobs"
                count = 0
            case "index deleted":
                with suppress(OSError):
                    (self.place.path / "state/labkit/jobs/index.sqlite").unlink()
                count = 0
            case _ if kind.startswith("crash "):
                _, role, last = kind.split()
                self.place.order(role, f"{self.rng.randint(1, int(last))} kill")
                return  # counted by those who obey
            case "stalled worker":
                where, seconds = self.rng.randint(1, 20), self.rng.uniform(0.3, 1.5)
                self.place.order("worker", f"{where} {seconds:.2f}")
                return
            case _:
                count = self.act(kind)
                if count:
                    self.kills[kind] += count
                return
        self.kills[kind] += count

    def _submit(self, role: str) -> None:
        words = (self.place, self.work, self.backend, self.patience, self.options)
        self.children[fork(submitter, *words)] = role

    def _reap_children(self) -> bool:
        """Return whether a submitter says that all is done."""
        done = False
        for pid, role in list(self.children.items()):
            code = exit_code(pid)
            if code is None:
                continue
            del self.children[pid]
            done = done or (role in ("client", "twin") and code == 0)
        return done

    def _verdict(self, over: bool) -> collections.Counter[str]:
        for path in self.place.orders.glob("crash.*"):
            path.unlink(missing_ok=True)
        points = self.place.orders / "points"
        for line in points.read_text().splitlines() if points.exists() else ():
            role, _, what, *_ = line.split()
            self.kills[f"{role} at a file operation"] += what == "kill"
        wait_for(lambda: self._reap_children() or not self.children, 5.0)
        for pid in list(self.children):
            kill(pid)
        wait_for(lambda: self._reap_children() or not self.children, 5.0)
        self.settle()
        faults: collections.Counter[str] = collections.Counter()
        if not over:
            faults["not finished"] += 1
        paths = self.place.run_folders()
        if len(paths) != 1:
            faults["doubled: run folders"] += len(paths) - 1
        run = Run(paths[0]) if paths else None
        if run is not None:
            faults += verify.check(self.place, run, self.ledger)
        wait_for(lambda: not verify.left(self.place, run), SETTLED)
        faults += verify.left(self.place, run)
        self.place.end()
        if not faults:
            shutil.rmtree(self.place.path, ignore_errors=True)
        return faults
