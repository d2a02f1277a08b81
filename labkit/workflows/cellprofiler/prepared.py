"""What a CellProfiler job was asked for, and what was read of it before the submit."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from labkit.base.problems import Problem
from labkit.storage.entry import Entry
from labkit.workflows.cellprofiler.images import ImageSets
from labkit.workflows.cellprofiler.pipeline import Pipeline
from labkit.workflows.cellprofiler.sources import Source
from labkit.workflows.cellprofiler.task_code.costs import Cost, recall


@dataclass
class Prepared:
    """What was asked for and read, once for check, plan and submit.

    Attributes
    ----------
    group_by : sequence of str
        Metadata whose image sets stay in one task.
    plugins : Path or None
        Folder of CellProfiler plugins.
    profiles : bool
        Whether well profiles are made.
    illumination_by : tuple of str or None
        Metadata whose image sets share an illumination function; None: the plate.
    chunk_size : int or None
        Image sets per task, as given.
    cost : Cost or None
        To size tasks by, as given.
    name : str or None
        Of the job, as given.
    problems : list of Problem
        Everything that is wrong.
    pipeline, illumination : Pipeline or None
        None where they could not be read, or there is none.
    sets, illumination_sets : ImageSets or None
        Image sets of each.
    source : Source or None
        What was given as images.
    input_folder : Path or None
        CellProfiler's Default Input Folder.
    plate_map : DataFrame or None
        It annotates the profiles.
    """

    group_by: Sequence[str]
    plugins: Path | None
    profiles: bool
    illumination_by: tuple[str, ...] | None
    chunk_size: int | None
    cost: Cost | None
    name: str | None
    problems: list[Problem] = field(default_factory=list)
    pipeline: Pipeline | None = None
    illumination: Pipeline | None = None
    sets: ImageSets | None = None
    illumination_sets: ImageSets | None = None
    source: Source | None = None
    input_folder: Path | None = None
    plate_map: pd.DataFrame | None = None

    @property
    def cost_now(self) -> Cost:
        """What tasks are sized by: given, measured in an earlier run, or estimated."""
        if self.cost is not None or self.pipeline is None:
            return self.cost or Cost(1.0, 1.0)
        return recall(self.pipeline, self.sets.megapixels if self.sets is not None else 1.0)


def group_keys(sets: ImageSets, group_by: Sequence[str]) -> list[object]:
    """Return what must stay in one task, for each image set.

    Where the pipeline groups too, image sets stay together that either keeps together.
    """
    wanted = list(group_by)
    if sets.groups:
        both = [name for name in wanted if name in sets.groups]
        wanted = both if wanted else list(sets.groups)
        if group_by and not wanted:
            return [0] * len(sets)
    if not wanted:
        return list(range(len(sets)))
    columns = [sets.metadata_values(name) for name in wanted]
    return list(zip(*[column for column in columns if column is not None], strict=True))


def image_digest(sets: ImageSets) -> str:
    """Return path, size and time of change of all images, as one hash."""
    digest = hashlib.sha256()
    for path in sorted(set(sets.paths().to_numpy().ravel())):
        entry = sets.remote.get(path)
        if isinstance(entry, Entry):
            digest.update(f"{path}\0{entry.size}\0{entry.version}\n".encode())
            continue
        try:
            status = Path(path).stat()
            digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{path}\0missing\n".encode())
    return digest.hexdigest()
