"""What a pipeline that runs on arrays asks for, and what stands against it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import numpy as np

from labkit.base.problems import Problem
from labkit.workflows.cellprofiler.task_code import probe

# What reads images or writes results: arrays are given, and the results are in memory.
_INPUT = frozenset({"Images", "Metadata", "NamesAndTypes", "Groups", "LoadData"})
_OUTPUT = frozenset({"ExportToSpreadsheet", "ExportToDatabase", "SaveImages", "CreateBatchFiles"})
_TYPES = ("bool", "uint8", "uint16", "float32", "float64")


def runs(module: Any) -> bool:
    """Return whether a module runs on arrays: it neither loads images nor writes files."""
    return module.module_name not in _INPUT | _OUTPUT


def module_problems(pipeline: Any, modules: list[Any]) -> Iterator[Problem]:
    """Yield what CellProfiler has against the modules' settings, images left out."""
    subscribers = import_module("cellprofiler_core.setting.subscriber")
    for module in modules:
        place = f"module {module.module_num} ({module.module_name})"
        if module.is_aggregation_module():
            yield Problem(
                place,
                "works on all image sets together, and here is one",
                "use labkit.CellProfiler, or give its result as an image",
            )
            continue
        try:
            for setting in module.visible_settings():
                if not isinstance(
                    setting, (subscribers.ImageSubscriber, subscribers.ImageListSubscriber)
                ):
                    setting.test_valid(pipeline)  # images are given, not made by a module
            module.validate_module(pipeline)
        except Exception as error:
            yield Problem(place, probe.describe(error))


def image_problems(
    pipeline: Any, modules: list[Any], arrays: Mapping[str, np.ndarray]
) -> Iterator[Problem]:
    """Yield which images are missing, not asked for, or of a kind that CellProfiler cannot take."""
    asked = wanted(modules)
    for name in asked:
        if name not in arrays:
            given = ", ".join(arrays) or "none"
            yield Problem("images", f"{name} is missing", f"given: {given}")
    for name, array in arrays.items():
        if name not in asked:
            yield Problem(
                "images", f"the pipeline reads no {name}", f"it reads: {', '.join(asked)}"
            )
        yield from _array_problems(name, array, bool(pipeline.volumetric()))


def _array_problems(name: str, array: np.ndarray, volumetric: bool) -> Iterator[Problem]:
    place = f"image {name}"
    if array.dtype.name not in _TYPES:
        yield Problem(
            place,
            f"its values are {array.dtype.name}, whose full scale nobody knows",
            "convert it: array.astype('uint16'), or to float from 0 to 1",
        )
        return
    colour = array.ndim == 3 and array.shape[-1] == 3
    fits = array.ndim == 3 if volumetric else array.ndim == 2 or colour
    if not fits or not array.size:
        shape = "(planes, rows, columns)" if volumetric else "(rows, columns) or (rows, columns, 3)"
        yield Problem(place, f"its shape is {array.shape}", f"wanted: {shape}")
    elif array.dtype.kind == "f" and not np.isfinite(array).all():
        yield Problem(place, "it has values that are not finite", "replace them: np.nan_to_num")
    elif array.dtype.kind == "f" and (array.min() < 0 or array.max() > 1):
        warnings.warn(
            f"{name} has values from {array.min():.4g} to {array.max():.4g}. CellProfiler's "
            "thresholds expect 0 to 1: divide by the largest possible value, unless it is an "
            "illumination function.",
            stacklevel=4,
        )


def wanted(modules: list[Any]) -> list[str]:
    """Return the images that modules read and no earlier one makes, in their order."""
    names = import_module("cellprofiler_core.setting.text.alphanumeric.name.image_name._image_name")
    made: set[str] = set()
    read: dict[str, None] = {}
    for module in modules:
        read |= {name: None for name in probe.images_read(module) if name not in made}
        settings = module.visible_settings()
        made |= {str(s.value) for s in settings if isinstance(s, names.ImageName)}
    return list(read)
