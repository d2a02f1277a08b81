"""Kills on this machine: the scheduler, workers, programs, submitters, all at once."""

from __future__ import annotations

import signal
import time
from typing import Any, ClassVar

from bench.chaos.place import kill
from bench.chaos.rounds import Round


class LocalRound(Round):
    """A job of the local backend."""

    backend: ClassVar[str] = "local"
    options: ClassVar[dict[str, Any]] = {"local_cpu": 1.5}
    tasks: ClassVar[tuple[int, int]] = (20, 50)
    longest: ClassVar[float] = 0.3
    most: ClassVar[tuple[int, int]] = (20, 35)
    pause: ClassVar[tuple[float, float]] = (0.03, 0.3)
    acts: ClassVar[dict[str, float]] = {
        "worker": 6, "scheduler": 5, "submitter": 3, "program": 1.5, "all at once": 1,
        "scheduler and worker": 1, "scheduler frozen": 1, "worker frozen": 1, "index deleted": 1,
        "second submitter": 1, "cancel": 0.4, "crash worker 110": 6, "crash scheduler 200": 6,
        "crash client 400": 4, "stalled worker": 1, "jobs()": 1,
    }  # fmt: skip

    def act(self, kind: str) -> int:
        """Do one of the backend's own kinds; return how many were hit."""
        scheduler, workers = self.place.scheduler(), self.place.of("worker")
        match kind:
            case "worker":
                return int(bool(workers) and kill(self.rng.choice(workers)))
            case "program":
                programs = self.place.of("program")
                return int(bool(programs) and kill(self.rng.choice(programs)))
            case "scheduler":
                return int(bool(scheduler) and kill(scheduler or 0))
            case "scheduler and worker" if scheduler and workers:
                return kill(scheduler) + kill(self.rng.choice(workers))
            case "all at once":
                pids = [*self.place.processes(), *self.children]
                return sum(kill(pid) for pid in [*([scheduler] if scheduler else []), *pids])
            case "scheduler frozen" if scheduler:
                return self._freeze(scheduler, 1.5)
            case "worker frozen" if workers:
                return self._freeze(self.rng.choice(workers), 1.0)
        return 0

    def _freeze(self, pid: int, longest: float) -> int:
        if not kill(pid, signal.SIGSTOP):
            return 0
        time.sleep(self.rng.uniform(0.2, longest))
        ends = self.rng.random() < 0.3
        if ends:
            kill(pid)
        kill(pid, signal.SIGCONT)
        return int(ends)
