"""Make room: what failed and superseded attempts have left, or whole runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from labkit.jobs.runs.index import Index
from labkit.jobs.runs.store import Run


@dataclass(frozen=True)
class Garbage:
    """What could go of one run.

    Attributes
    ----------
    run : Run
        Its run.
    paths : tuple of Path
        Folders.
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
            shutil.rmtree(path, ignore_errors=True)
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
        yield from (run.path / "attempts" / info.name).iterdir()


def folder_size(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            try:
                total += (Path(root) / name).lstat().st_size
            except OSError:
                continue
    return total
