"""Make the plan of a CellProfiler job: stages, tasks, and the files they need."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from labkit.jobs.backends import base as backends
from labkit.jobs.model import Environment, Resources, Stage, Task, safe_key, to_ranges
from labkit.jobs.plan import Plan
from labkit.viewers.paths import EnvironmentMissingError, program
from labkit.workflows.cellprofiler import costs, saves
from labkit.workflows.cellprofiler.checks import ENVIRONMENT
from labkit.workflows.cellprofiler.chunks import Chunks, plan_chunks
from labkit.workflows.cellprofiler.gather import saved
from labkit.workflows.cellprofiler.images import ImageSets
from labkit.workflows.cellprofiler.pipeline import Pipeline
from labkit.workflows.cellprofiler.prepared import Prepared, group_keys, image_digest

_HERE = Path(__file__).parent
_DRIVER = (
    _HERE / "task_code" / "driver.py",
    _HERE / "task_code" / "listen.py",
    _HERE / "task_code" / "slices.py",
    _HERE / "integrity.py",
)
_GATHER = (
    _HERE / "gather" / "collect.py",
    _HERE / "gather" / "gather.py",
    _HERE / "gather" / "tables.py",
    _HERE / "gather" / "saved.py",
    _HERE / "gather" / "profiles.py",
    _HERE / "costs.py",
)
GATHER_KEY = "plate"
_GATHER_MEMORY = 1024**3
_GATHER_UNIT = 2 * 1024**2  # bytes of tables and profiles, about, per image set
_GATHER_MOST = 4 * 1024**3
_MAY_SKIP = ("FlagImage",)
_EXTENSIONS = {"tiff": "tiff", "jpeg": "jpeg", "png": "png", "npy": "npy", "h5": "h5"}


@dataclass(frozen=True)
class Illumination:
    """The illumination stage and what the analysis takes from it.

    Attributes
    ----------
    stage : Stage
    table : DataFrame
        Its image sets.
    columns : mapping of str to list of str
        LoadData columns to add to the analysis' image sets.
    needs : mapping of str to list of str
        Plate -> files that its analysis tasks need (with ``${results}``).
    """

    stage: Stage
    table: pd.DataFrame
    columns: Mapping[str, list[str]]
    needs: Mapping[str, list[str]]


def make_plan(prepared: Prepared, backend: str) -> Plan:
    """Return the plan of a workflow whose check found nothing but warnings."""
    pipeline, sets = prepared.pipeline, prepared.sets
    if pipeline is None or sets is None:
        raise ValueError("the workflow was not checked")
    light = _illumination(prepared, sets)
    places = sets.places()
    images = image_digest(sets)
    chunks = _chunks(prepared, pipeline, sets, images, light, backend)
    analysis = _analysis(prepared, sets, chunks, light)
    table = pd.concat([places, sets.table], axis=1)
    if light:
        table = table.assign(**dict(light.columns))
    files: dict[str, str | bytes | Path] = {
        _file(pipeline, "analysis"): pipeline.path,
        "analysis.json": json.dumps(_settings(prepared, pipeline, sets, "analysis", light)),
        "images.csv": table.to_csv(index=False),
    }
    stages = [analysis]
    if light and prepared.illumination and prepared.illumination_sets:
        stages.insert(0, light.stage)
        files[_file(prepared.illumination, "illumination")] = prepared.illumination.path
        files["illumination.json"] = json.dumps(
            _settings(
                prepared, prepared.illumination, prepared.illumination_sets, "illumination", None
            )
        )
        files["illumination.csv"] = light.table.to_csv(index=False)
    plate_map = _plate_map(prepared)
    if plate_map is not None:
        files["platemap.csv"] = plate_map.to_csv(index=False)
    files["gather.json"] = json.dumps(_gather_settings(prepared, pipeline, analysis))
    stages.append(_gather(analysis, backends.get(backend).limits().memory))
    version = prepared.probe.version if prepared.probe else ""
    return Plan(
        name=safe_key(prepared.name or f"cellprofiler-{pipeline.path.stem}")[:60],
        tool=f"cellprofiler {version}".strip(),
        stages=tuple(stages),
        parameters={
            "pipeline": pipeline.path.name,
            "image_sets": len(sets),
            "channels": sets.channels,
            "group_by": list(prepared.group_by),
            "images": images,
            "plugins": str(prepared.plugins or ""),
        },
        files=files,
        notes=(chunks.note,),
    )


def _chunks(
    prepared: Prepared,
    pipeline: Pipeline,
    sets: ImageSets,
    images: str,
    light: Illumination | None,
    backend: str,
) -> Chunks:
    """Split; the same work is split as it was before, so that it is found again."""
    keys = group_keys(sets, prepared.group_by)
    plates = list(sets.places()["plate"]) if light else None
    content = hashlib.sha256(
        repr((pipeline.digest, images, prepared.group_by, bool(light))).encode()
    ).hexdigest()
    size = prepared.chunk_size or costs.recall_size(content)
    limits = backends.get(backend).limits()
    chunks = plan_chunks(keys, prepared.cost_now, limits.cores, size, plates, limits.shared)
    if prepared.chunk_size is None:
        costs.remember_size(content, chunks.size)
    return chunks


def _analysis(
    prepared: Prepared,
    sets: ImageSets,
    chunks: Chunks,
    light: Illumination | None,
) -> Stage:
    numbers = list(sets.table["ImageNumber"])
    places = sets.places()
    plates, wells = list(places["plate"]), list(places["well"])
    tasks = []
    for index, rows in enumerate(chunks.rows):
        plate = plates[rows[0]]
        key = f"{numbers[rows[0]]:06d}"
        params = {
            "settings": "analysis.json",
            "rows": to_ranges(int(numbers[row]) for row in rows),
            "needs": list(light.needs.get(plate, [])) if light else [],
            "row": {"plate": _brief(plates[row] for row in rows)}
            | {"well": _brief(wells[row] for row in rows)},
        }
        tasks.append(Task(key, index, outputs=("parts.json",), units=len(rows), params=params))
    memory = prepared.cost_now.memory
    return Stage(
        "analysis",
        tuple(tasks),
        Resources(memory=max(1024**3, int(memory * 1.3)) if memory else costs.MEMORY),
        Environment(ENVIRONMENT),
        depends_on=("illumination",) if light else (),
        tolerate_failures=True,  # plates whose illumination failed say so; the others run
        driver=_DRIVER,
    )


def _brief(values: Iterable[str]) -> str:
    """Return the values of a task, for people: ``"A01, A02"`` or ``"A01 to B03"``."""
    found = list(dict.fromkeys(values))
    return ", ".join(found) if len(found) <= 4 else f"{found[0]} to {found[-1]}"


def _settings(
    prepared: Prepared,
    pipeline: Pipeline,
    sets: ImageSets,
    stage: str,
    light: Illumination | None,
) -> dict[str, Any]:
    """Return what all tasks of a stage share."""
    return {
        "pipeline": _file(pipeline, stage),
        "table": "images.csv" if stage == "analysis" else "illumination.csv",
        "loads_data": sets.loads_data,
        "modules": {str(module.number): module.name for module in pipeline.enabled},
        "may_skip": bool(pipeline.named(*_MAY_SKIP)),
        "grouped": bool(pipeline.groups),
        "whole": stage == "illumination",
        "plugins": str(prepared.plugins or ""),
        "expand": [name for name in light.columns if name.startswith("Path")] if light else [],
        **saves.tables(pipeline),
    }


def _illumination(prepared: Prepared, sets: ImageSets) -> Illumination | None:
    """Plan one task per plate, and where the analysis finds what it saves."""
    pipeline, mine = prepared.illumination, prepared.illumination_sets
    if pipeline is None or mine is None:
        return None
    places = mine.places()
    table = pd.concat([places, mine.table], axis=1)
    described = saves.saved_images(pipeline)
    tasks: list[Task] = []
    where: dict[str, dict[str, str]] = {}
    for index, (name, rows) in enumerate(table.groupby("plate", sort=False)):
        plate = str(name)
        key = safe_key(plate or "all")
        if any(task.key == key for task in tasks):  # "P 1" and "P_1"
            key = f"{key[:100]}-{index}"
        last = {str(column): str(value) for column, value in rows.iloc[-1].items()}
        where[plate] = {
            save["image"]: (
                f"${{results}}/illumination/{key}/part-1/{saved.stem_of(save, last, len(rows))}"
                f".{_EXTENSIONS.get(save['format'], save['format'])}"
            )
            for save in described
        }
        params = {
            "settings": "illumination.json",
            "rows": to_ranges(map(int, rows["ImageNumber"])),
            "needs": [],
        }
        outputs = tuple(path.split(f"/{key}/", 1)[1] for path in where[plate].values())
        tasks.append(Task(key, index, outputs=outputs, units=len(rows), params=params))
    stage = Stage(
        "illumination",
        tuple(tasks),
        Resources(memory=costs.MEMORY),
        Environment(ENVIRONMENT),
        driver=_DRIVER,
    )
    columns: dict[str, list[str]] = {}
    plates = list(sets.places()["plate"])
    for save in described:
        paths = [Path(where.get(plate, {}).get(save["image"], "")) for plate in plates]
        columns[f"FileName_{save['image']}"] = [path.name for path in paths]
        columns[f"PathName_{save['image']}"] = [str(path.parent) for path in paths]
    needs = {plate: list(files.values()) for plate, files in where.items()}
    return Illumination(stage, table, columns, needs)


def _gather(analysis: Stage, most: int) -> Stage:
    """Return the gather; it works with less memory, too: what it does not hold waits on disk."""
    units = sum(task.units for task in analysis.tasks)
    memory = min(_GATHER_MEMORY + units * _GATHER_UNIT, _GATHER_MOST, most * 3 // 4)
    try:
        program("notebook", "python")
        environment, python = Environment("notebook"), "python"
    except EnvironmentMissingError:
        environment, python = None, sys.executable
    task = Task(
        GATHER_KEY,
        0,
        argv=(python,),
        outputs=("gather.json",),
        params={"image_sets": units},
    )
    return Stage(
        "gather",
        (task,),
        Resources(memory=memory),
        environment,
        depends_on=("analysis",),
        tolerate_failures=True,
        driver=_GATHER,
    )


def _gather_settings(prepared: Prepared, pipeline: Pipeline, analysis: Stage) -> dict[str, Any]:
    exported = saves.tables(pipeline)
    return {
        "tasks": [{"key": t.key, "rows": t.params["rows"]} for t in analysis.tasks],
        "saves": saves.saved_images(pipeline),
        "prefixes": exported["prefixes"],
        "delimiter": exported["delimiter"],
        "profiles": prepared.profiles is not False,
        "fingerprint": costs.fingerprint(pipeline),
        "costs": str(costs.place()),
    }


def _plate_map(prepared: Prepared) -> pd.DataFrame | None:
    if isinstance(prepared.profiles, pd.DataFrame):
        return prepared.profiles
    if isinstance(prepared.profiles, (str, Path)):
        return pd.read_csv(prepared.profiles, sep=None, engine="python", dtype=str)
    return None


def _file(pipeline: Pipeline, stage: str) -> str:
    """Return a pipeline's name in the run folder."""
    suffix = pipeline.path.suffix if re.fullmatch(r"\.\w+", pipeline.path.suffix) else ".cppipe"
    return f"{stage}{suffix}"
