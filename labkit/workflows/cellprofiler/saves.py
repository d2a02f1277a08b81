"""Describe what a pipeline exports, in plain JSON for the tasks and the gather."""

from __future__ import annotations

import re
from typing import Any

from labkit.workflows.cellprofiler.modules import sheets
from labkit.workflows.cellprofiler.pipeline import Module, Pipeline

_TOKEN = re.compile(r"\\g<\w+>")


def saved_images(pipeline: Pipeline) -> list[dict[str, Any]]:
    """Return each SaveImages module: which image, and how its file is named."""
    return [
        {
            "module": module.number,
            "image": module.get("Select the image to save"),
            "method": module.get("Select method for constructing file names"),
            "channel": module.get("Select image name for file prefix"),
            "name": module.get("Enter single file name"),
            "digits": int(module.get("Number of digits", "4") or 4),
            "suffix": _suffix(module),
            "format": module.get("Saved file format"),
            "place": _place(module),
        }
        for module in pipeline.named("SaveImages")
    ]


def saved_names(pipeline: Pipeline) -> list[str]:
    """Return the names of the images that a pipeline saves."""
    return [module.get("Select the image to save") for module in pipeline.named("SaveImages")]


def tables(pipeline: Pipeline) -> dict[str, Any]:
    """Return which tables are exported, how they are parted, and which is the Image table.

    Returns
    -------
    dict
        ``tables`` and ``image_tables``: patterns of file names; ``prefixes``; ``delimiter``.
    """
    names: list[str] = []
    images: list[str] = []
    prefixes: list[str] = []
    delimiter = ","
    for module in pipeline.named("ExportToSpreadsheet"):
        if "Tab" in module.get("Select the column delimiter"):
            delimiter = "\t"
        if module.yes("Add a prefix to file names?"):
            prefixes.append(module.get("Filename prefix"))
        for obj, file in sheets(module):
            pattern = _TOKEN.sub("*", file)
            if obj == "*":
                pattern = pattern.replace("*.csv", "Image.csv")
            names.append(pattern)
            if obj in ("Image", "*"):
                images.append(pattern)
    return {
        "tables": names,
        "image_tables": images,
        "prefixes": prefixes,
        "delimiter": delimiter,
    }


def _suffix(module: Module) -> str:
    if not module.yes("Append a suffix to the image file name?"):
        return ""
    return module.get("Text to append to the image name")


def _place(module: Module) -> str:
    kind, _, folder = module.get("Output file location", "Default Output Folder").partition("|")
    return folder if kind.endswith("sub-folder") and folder != "None" else ""
