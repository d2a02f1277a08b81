"""Everything that can be known before anything is started, all at once and with names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd

from labkit.base.problems import Problem
from labkit.storage.entry import Entry
from labkit.storage.errors import StorageError
from labkit.workflows.cellprofiler.images import ImageSets
from labkit.workflows.cellprofiler.pipeline import Pipeline
from labkit.workflows.cellprofiler.task_code import integrity
from labkit.workflows.cellprofiler.task_code.gather import platemaps

# A pipeline of an older CellProfiler may choose columns that this one does not measure.
_NO_COLUMN = re.compile(r"\w+\|\w+ is not one of the choices")
_READERS = 16
_SHOWN = 10


def check_findings(pipeline: Pipeline, sets: ImageSets | None = None) -> list[Problem]:
    """Return what CellProfiler itself has against a pipeline.

    Parameters
    ----------
    sets : ImageSets, optional
        What LoadData will give; for the hint where an image is missing.
    """
    where, findings = pipeline.path.name, pipeline.findings
    problems = []
    if findings.error:
        problems.append(Problem(where, f"CellProfiler cannot run it: {findings.error}."))
    for drop in findings.dropped:
        text = f"CellProfiler cannot load it and would leave it out: {drop['error']}."
        hint = "Give the folder of its plugin (plugins=), or disable the module."
        problems.append(Problem(drop["module"], text, hint))
    if not findings.dropped:  # what follows from a missing module would only hide it
        for bad in findings.invalid:
            place = f"{bad['module']} (module {bad['number']})"
            if bad["module"] == "ExportToSpreadsheet" and _NO_COLUMN.match(bad["error"]):
                text = f"a chosen column is not measured, and left out: {bad['error']}."
                problems.append(Problem(place, text, warning=True))
                continue
            text = f"CellProfiler does not accept its settings: {bad['error'].rstrip('.')}."
            problems.append(Problem(place, text, _hint(pipeline, bad, sets)))
    if findings.embedded:
        text = f"the list of {findings.embedded:,} files that it carries is not used."
        problems.append(Problem(where, text, "images= says what is run.", warning=True))
    return problems


def _hint(pipeline: Pipeline, bad: Mapping[str, Any], sets: ImageSets | None) -> str:
    """Say which columns are missing where a module asks for an image that is not there."""
    module = next((m for m in pipeline.enabled if m.number == bad["number"]), None)
    if module is None or sets is None or not sets.loads_data:
        return ""
    missing = [name for name in module.reads if name in bad["error"] and name not in sets.channels]
    if not missing:
        return ""
    columns = ", ".join(f"FileName_{name} and PathName_{name}" for name in missing)
    have = ", ".join(sets.channels)
    return f"The images have {have}. Add {columns}, or correct the name in the pipeline."


def check_plate_map(plate_map: pd.DataFrame | None, sets: ImageSets) -> list[Problem]:
    """Refuse a plate map that lacks wells, or has one more than once."""
    places = sets.places()
    if plate_map is None or not places["well"].astype(bool).any():
        return []
    problems = []
    for plate, wells in places.groupby("plate", sort=False)["well"]:
        try:
            platemaps.for_plate(plate_map, str(plate) or "plate", dict.fromkeys(wells))
        except platemaps.PlateMapError as error:
            problems.append(Problem("profiles", f"{error}."))
    return problems


def broken_images(sets: ImageSets) -> dict[int, list[tuple[str, str]]]:
    """Find images that cannot be read whole.

    Returns
    -------
    dict of int to list of (str, str)
        Row of the table -> path and what is wrong, only for rows with something wrong.
    """
    paths = sets.paths()
    unique = sorted(set(paths.to_numpy().ravel()))
    problems = {path: _remote_problem(entry) for path, entry in sets.remote.items()}
    here = [path for path in unique if path not in problems]
    with ThreadPoolExecutor(_READERS) as readers:
        problems.update(
            zip(here, readers.map(lambda p: integrity.problem(Path(p)), here), strict=True)
        )
    bad: dict[int, list[tuple[str, str]]] = {}
    if not any(problems.values()):
        return bad
    for row, *files in paths.itertuples():
        wrong = [(path, text) for path in files if (text := problems[path])]
        if wrong:
            bad[int(row)] = wrong
    return bad


def _remote_problem(entry: Entry | StorageError) -> str | None:
    """Say what is wrong with an image in S3 that is not read here: the node looks closer."""
    if isinstance(entry, StorageError):
        return str(entry).rstrip(".")
    return None if entry.size else "the file is empty"


def check_integrity(sets: ImageSets, broken: dict[int, list[tuple[str, str]]]) -> list[Problem]:
    """Return a warning per image set that will fail; refuse where all would."""
    if broken and len(broken) == len(sets):
        path, text = next(iter(broken.values()))[0]
        return [Problem("images", f"not one image set is whole; e.g. {path}: {text}.")]
    places = sets.places()
    problems = []
    for row, wrong in list(broken.items())[:_SHOWN]:
        place = "  ".join(f"{k} {v}" for k, v in places.loc[row].items() if v)
        files = "; ".join(f"{Path(path).name}: {text}" for path, text in wrong)
        where = f"image set {row + 1}" + (f" ({place})" if place else "")
        problems.append(Problem(where, f"it will fail, the others run. {files}.", warning=True))
    if len(broken) > _SHOWN:
        text = f"{len(broken) - _SHOWN:,} more image sets will fail."
        problems.append(Problem("images", text, warning=True))
    return problems
