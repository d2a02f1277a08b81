"""Make the plan of a CellProfiler job: stages, tasks, and the files they need."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from labkit.jobs.backends import base as backends
from labkit.jobs.model import Environment, Resources, Stage, Task, safe_key, to_ranges
from labkit.jobs.plan import Plan
from labkit.viewers.paths import EnvironmentMissingError, program
from labkit.workflows.cellprofiler import illumination, saves
from labkit.workflows.cellprofiler.chunks import Chunks, plan_chunks
from labkit.workflows.cellprofiler.illumination import Illumination
from labkit.workflows.cellprofiler.images import ImageSets
from labkit.workflows.cellprofiler.loading import DRIVER, ENVIRONMENT, folder_digest, support_files
from labkit.workflows.cellprofiler.pipeline import Pipeline
from labkit.workflows.cellprofiler.prepared import Prepared, group_keys, image_digest
from labkit.workflows.cellprofiler.task_code import costs

_GATHER = DRIVER.with_name("collect.py")
GATHER_KEY = "plate"
_GATHER_MEMORY = 1024**3
_GATHER_UNIT = 2 * 1024**2  # bytes of tables and profiles, about, per image set
_GATHER_MOST = 4 * 1024**3
_MAY_SKIP = ("FlagImage",)


def make_plan(prepared: Prepared, backend: str) -> Plan:
    """Return the plan of a workflow whose check found nothing but warnings."""
    pipeline, sets = prepared.pipeline, prepared.sets
    if pipeline is None or sets is None:
        raise ValueError("the workflow was not checked")
    light = None
    if prepared.illumination is not None and prepared.illumination_sets is not None:
        light = illumination.plan(
            prepared.illumination, prepared.illumination_sets, sets, prepared.illumination_by
        )
    places = sets.places()
    images = image_digest(sets)
    chunks = _chunks(prepared, pipeline, sets, images, light, backend)
    analysis = _analysis(prepared, sets, chunks, light)
    table = pd.concat([places, sets.table], axis=1)
    if light:
        table = table.assign(**dict(light.columns))
    files: dict[str, str | bytes | Path] = {
        _file("analysis"): pipeline.text,
        "analysis.json": json.dumps(_settings(prepared, pipeline, sets, "analysis", light)),
        "images.csv": table.to_csv(index=False),
    }
    stages = [analysis]
    if light and prepared.illumination and prepared.illumination_sets:
        stages.insert(0, light.stage)
        files[_file("illumination")] = prepared.illumination.text
        files["illumination.json"] = json.dumps(
            _settings(
                prepared, prepared.illumination, prepared.illumination_sets, "illumination", None
            )
        )
        files["illumination.csv"] = light.table.to_csv(index=False)
    plate_map = prepared.plate_map
    if plate_map is not None:
        files["platemap.csv"] = plate_map.to_csv(index=False)
    files["gather.json"] = json.dumps(_gather_settings(prepared, pipeline, analysis))
    stages.append(_gather(analysis, backends.get(backend).limits().memory))
    version = pipeline.findings.version
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
            "plugin_code": folder_digest(prepared.plugins) if prepared.plugins else "",
            "input_files": _input_files(prepared),
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
    plates = list(light.keys) if light else None
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
        key = f"{numbers[rows[0]]:06d}"
        params = {
            "settings": "analysis.json",
            "rows": to_ranges(int(numbers[row]) for row in rows),
            "needs": list(light.needs.get(light.keys[rows[0]], [])) if light else [],
            "row": {"plate": _brief(plates[row] for row in rows)}
            | {"well": _brief(wells[row] for row in rows)},
        }
        inputs = sets.remote_inputs(rows)
        tasks.append(Task(key, index, (), inputs, ("parts.json",), units=len(rows), params=params))
    memory = prepared.cost_now.memory
    return Stage(
        "analysis",
        tuple(tasks),
        Resources(memory=max(1024**3, int(memory * 1.3)) if memory else costs.MEMORY),
        Environment(ENVIRONMENT),
        depends_on=("illumination",) if light else (),
        tolerate_failures=True,  # plates whose illumination failed say so; the others run
        driver=DRIVER,
    )


def _brief(values: Iterable[str]) -> str:
    """Return the values of a task, for people: ``"A01, A02"`` or ``"A01 to B03"``."""
    distinct = list(dict.fromkeys(values))
    return ", ".join(distinct) if len(distinct) <= 4 else f"{distinct[0]} to {distinct[-1]}"


def _input_files(prepared: Prepared) -> dict[str, str]:
    """Return the SHA-256 of each file of the input folder that a pipeline names."""
    folder = prepared.input_folder
    files = {
        path
        for pipeline in (prepared.pipeline, prepared.illumination)
        if pipeline is not None
        for path in support_files(pipeline, folder)
    }
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


def _settings(
    prepared: Prepared,
    pipeline: Pipeline,
    sets: ImageSets,
    stage: str,
    light: Illumination | None,
) -> dict[str, Any]:
    """Return what all tasks of a stage share."""
    return {
        "pipeline": _file(stage),
        "table": "images.csv" if stage == "analysis" else "illumination.csv",
        "loads_data": sets.loads_data,
        "modules": {str(module.number): module.name for module in pipeline.enabled},
        "may_skip": bool(pipeline.named(*_MAY_SKIP)),
        "grouped": bool(pipeline.groups),
        "whole": stage == "illumination",
        "plugins": str(prepared.plugins or ""),
        "input_folder": str(prepared.input_folder or ""),
        "expand": [name for name in light.columns if name.startswith("Path")] if light else [],
        **saves.tables(pipeline),
    }


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
        "may_skip": bool(pipeline.named(*_MAY_SKIP)),
        "profiles": prepared.profiles,
        "fingerprint": costs.fingerprint(pipeline),
        "costs": str(costs.place()),
    }


def _file(stage: str) -> str:
    """Return a pipeline's name in the run folder."""
    return f"{stage}.cppipe"
