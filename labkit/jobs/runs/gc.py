"""Make room: what failed and superseded attempts have left, or whole runs."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from labkit.jobs.runs.index import Index
from labkit.jobs.runs.store import Run
from labkit.jobs.worker import reap
from labkit.jobs.worker.folder import read_json

_SUBMITTED = 3600.0  # seconds after which a run folder that is being made no longer is


@dataclass(frozen=True)
class Garbage:
    """What could go of one run.

    Attributes
    ----------
    run : Run
        Its run.
    paths : tuple of Path
        Folders, and files.
    size : int
        Bytes.
    whole : bool
        The run folder itself, with its results.
    """

    run: Run
    paths: tuple[Path, ...]
    size: int
    whole: bool

    def remove(self) -> None:
        """Delete it."""
        for path in self.paths:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        if self.whole:
            Index().forget(self.run)


def garbage(run: Run, *, whole: bool = False) -> Garbage:
    """Return what could go of a run that has ended.

    Parameters
    ----------
    whole : bool
        All of it; else what attempts wrote that were not committed. Records, logs and results
        stay then.
    """
    paths = [run.path] if whole else list(_left(run))
    return Garbage(run, tuple(paths), sum(map(folder_size, paths)), whole)


def _left(run: Run) -> Iterator[Path]:
    for info in run.manifest.stages:
        yield from (run.path / "attempts" / info.name).glob("*")
        for kind in ("tasks", "running"):  # what was being written when its writer was killed
            yield from (run.path / kind / info.name).glob(".*")
        yield from _dead_heartbeats(run, info.name)
    yield from (run.path / "submissions").glob(".*")
    for aside in run.path.parent.glob(f".{run.path.name}.*"):  # a submit that was killed
        if time.time() - aside.stat().st_mtime > _SUBMITTED:
            yield aside


def _dead_heartbeats(run: Run, stage: str) -> Iterator[Path]:
    """Return those of dead workers, whose record was written by one that was killed then."""
    for index, attempt in run.folder.attempts("running", stage):
        path = run.folder.running(stage, index, attempt)
        beat = read_json(path)
        if beat is None or "place" not in beat or not reap.lives(beat, path):
            yield path


def folder_size(folder: Path) -> int:
    """Return the bytes of all files below a folder, or of a file."""
    total = 0 if folder.is_dir() else folder.lstat().st_size
    for root, _, files in os.walk(folder):
        for name in files:
            try:
                total += (Path(root) / name).lstat().st_size
            except OSError:
                continue
    return total
