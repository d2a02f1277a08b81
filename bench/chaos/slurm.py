"""Kills on a real SLURM: its daemons, with and without their state, elements, workers, munged."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import ClassVar

from bench.chaos import verify
from bench.chaos.place import kill, wait_for
from bench.chaos.rounds import Round
from labkit.base.problems import LabkitError
from labkit.jobs.backends.slurm import held
from labkit.jobs.backends.slurm.backend import SlurmBackend
from labkit.testing import SlurmCluster

GRACE = 3.0  # seconds; there is no network disk that shows files late
_PUSHED = 8.0  # seconds between two tries to start what SLURM lets wait
_started: SlurmCluster | None = None


@contextmanager
def cluster() -> Iterator[None]:
    """Start a cluster for all rounds."""
    global _started
    SlurmBackend.grace = GRACE  # type: ignore[misc]
    held._PAUSE, held._TRIES = GRACE, 1000
    with SlurmCluster(nodes=4, cpus=4, memory=8000) as started:
        os.environ.update(started.environment)
        _started = started
        yield


class SlurmRound(Round):
    """A job of the SLURM backend."""

    backend: ClassVar[str] = "slurm"
    tasks: ClassVar[tuple[int, int]] = (24, 40)
    longest: ClassVar[float] = 1.0
    most: ClassVar[tuple[int, int]] = (40, 60)
    pause: ClassVar[tuple[float, float]] = (0.05, 0.3)
    acts: ClassVar[dict[str, float]] = {
        "worker": 12, "task": 8, "element": 6, "slurmctld": 1.5, "slurmctld stopped": 0.5,
        "slurmctld without its state": 0.3, "node": 1, "slurmd": 1.5, "munged": 0.7, "requeue": 4,
        "submitter": 3, "second submitter": 1, "cancel": 0.3, "crash client 700": 3,
        "crash worker 110": 5, "crash element 60": 3, "jobs()": 1, "index deleted": 0.5,
    }  # fmt: skip

    @property
    def _cluster(self) -> SlurmCluster:
        assert _started is not None
        return _started

    def act(self, kind: str) -> int:
        """Do one of the backend's own kinds; return how many were hit."""
        match kind:
            case "worker" | "element":
                pids = self.place.of(kind)
                return int(bool(pids) and kill(self.rng.choice(pids)))
            case "task":
                return self._kill_group()
            case "slurmctld" | "slurmctld stopped" | "slurmctld without its state":
                return self._stop_controller(kind)
            case "node" | "slurmd":
                return self._kill_node(jobs=kind == "node")
            case "munged":
                self._cluster.stop_munge()
                time.sleep(self.rng.uniform(0.5, 2.0))
                self._cluster.start_munge()
                return 1
            case "requeue":
                running = self._squeue("-t", "R", "-o", "%i")
                if running:
                    chosen = self.rng.choice(running)
                    return int(
                        not self._cluster.command("scontrol", "requeue", chosen, check=False)
                    )
        return 0

    def _kill_group(self) -> int:
        """Kill an element with its worker and program in one moment."""
        workers = self.place.of("worker")
        with suppress(ProcessLookupError, PermissionError):
            if workers:
                os.killpg(os.getpgid(self.rng.choice(workers)), 9)
                return 1
        return 0

    def _stop_controller(self, kind: str) -> int:
        self._cluster.stop_controller(kill=kind != "slurmctld stopped")
        time.sleep(self.rng.uniform(0.1, 1.5))
        if kind == "slurmctld without its state":  # its disk is lost: it counts jobs from 1 again
            shutil.rmtree(self._cluster.folder / "state")
            (self._cluster.folder / "state").mkdir(mode=0o700)
        self._cluster.start_controller()
        return 1

    def _kill_node(self, *, jobs: bool) -> int:
        node = self.rng.choice(self._cluster.nodes)
        self._cluster.kill_node(node, jobs=jobs)
        if self.rng.random() < 0.6:
            words = (f"NodeName={node}", "State=DOWN", "Reason=chaos")
            self._cluster.command("scontrol", "update", *words, check=False)
        time.sleep(self.rng.uniform(0.2, 1.5))
        self._cluster.start_node(node, wait=False)
        return 1

    def _squeue(self, *words: str) -> list[str]:
        with suppress(LabkitError, OSError):
            return self._cluster.command("squeue", "-h", "-r", *words, check=False).splitlines()
        return []

    def between(self) -> None:
        """Resume nodes, and start what SLURM would let wait for two minutes."""
        now = time.monotonic()
        self._pushed: dict[str, float] = getattr(self, "_pushed", {})
        if now - self._pushed.get("nodes", 0.0) > _PUSHED / 2:
            self._pushed["nodes"] = now
            self._resume()
            for line in self._squeue("-t", "PD", "-o", "%i %r"):
                job, _, reason = line.partition(" ")
                if "BeginTime" in reason and now - self._pushed.get(job, 0.0) > _PUSHED:
                    self._pushed[job] = now
                    words = (f"JobId={job}", "StartTime=now+2")
                    self._cluster.command("scontrol", "update", *words, check=False)

    def _resume(self) -> None:
        for node in self._cluster.nodes:
            words = (f"NodeName={node}", "State=RESUME")
            self._cluster.command("scontrol", "update", *words, check=False)

    def settle(self) -> None:
        """Bring the cluster back, and wait until it has nothing more of the job."""
        self._cluster.repair()
        self._resume()
        if not wait_for(lambda: not self._squeue("-o", "%i"), 20.0):
            # SLURM's own: slurmctld was killed, and has forgotten that they ended.
            ghosts = not self.place.processes()
            self.place.note(f"{'ghosts' if ghosts else 'LEFT'} {self._squeue('-o', '%i %T %j %r')}")
        run = self.place.run()
        wait_for(lambda: not verify.left(self.place, run), 10.0)
        with suppress(Exception):
            self._cluster.cancel_all()
        with suppress(Exception):
            self._cluster.wait_idle(30.0)
