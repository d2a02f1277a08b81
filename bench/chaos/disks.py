"""Kills while the disk of the runs, of the queue or of temporary files is full or read-only."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from bench.chaos.local import LocalRound
from bench.chaos.place import Place, exit_code, fork
from labkit.base.problems import LabkitError
from labkit.jobs.job import jobs

WHICH = ("runs", "state", "tmp")
HOW = ("full", "read-only")


class DiskRound(LocalRound):
    """A job of the local backend, on a disk that fails six times; needs the right to mount."""

    options: ClassVar[dict[str, Any]] = {"local_cpu": 1.0}
    most: ClassVar[tuple[int, int]] = (8, 14)
    acts: ClassVar[dict[str, float]] = {"worker": 3, "scheduler": 3, "submitter": 1}
    failures: ClassVar[int] = 6

    def __init__(self, folder: Path, rng: random.Random, which: str, how: str) -> None:
        super().__init__(folder, rng)
        self.which, self.how = which, how
        self._failed = 0
        self._next = 0.0

    def __str__(self) -> str:
        return f"{self.which} {self.how}, {self.work.kind}"

    def prepare(self, place: Place) -> None:
        """Mount the small disk in the place of the folder."""
        self._disk = place.path / self.which
        words = ["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(self._disk)]
        subprocess.run(words, check=True)

    def between(self) -> None:
        """Let the disk fail for a moment, amid kills, and look at all jobs meanwhile."""
        if self._failed >= self.failures or time.monotonic() < self._next:
            return
        self._failed += 1
        with self._failing():
            for kind in self.rng.choices(("scheduler", "worker"), k=2):
                time.sleep(self.rng.uniform(0.1, 0.5))
                self.kills[kind] += self.act(kind)
            looker = fork(_look)
            while exit_code(looker) is None:
                time.sleep(0.02)
        self._next = time.monotonic() + self.rng.uniform(0.3, 0.8)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        filler = self._disk / "filler"
        if self.how == "full":
            with filler.open("ab", buffering=0) as file:
                for size in (65536, 4096, 1):
                    with suppress(OSError):
                        while True:
                            file.write(b"x" * size)
        else:
            self._remount("ro")
        try:
            yield
        finally:
            if self.how == "full":
                filler.unlink()
            else:
                self._remount("rw")

    def _remount(self, mode: str) -> None:
        # Busy while somebody writes: then it does not fail this time.
        subprocess.run(["mount", "-o", f"remount,{mode}", str(self._disk)], capture_output=True)

    def settle(self) -> None:
        """Leave the disk well."""
        self._remount("rw")

    def clean(self) -> None:
        """Unmount the disk."""
        os.chdir("/")
        subprocess.run(["umount", "-l", str(self._disk)], check=True)


def _look() -> None:
    """Ask for all jobs; what is said in words is well."""
    with suppress(LabkitError):
        jobs()
