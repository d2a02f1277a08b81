"""What is known of CellProfiler's modules: which look across image sets, where they write."""

from __future__ import annotations

import re

import pandas as pd

from labkit.base.problems import Problem
from labkit.workflows.cellprofiler.pipeline import Module, Pipeline

# Module -> (setting, values that look across image sets, what to do instead).
_ACROSS = {
    "CorrectIlluminationCalculate": (
        "Calculate function for each image individually, or based on all images?",
        r"All",
        "Calculate it in a pipeline of its own (illumination=), or for 'Each' image.",
    ),
    "Crop": (
        "Apply which cycle's cropping pattern?",
        r"First$",
        "Set it to 'Every'.",
    ),
    "DefineGrid": ("Define a grid for which cycle?", r"Once", "Set it to 'Each cycle'."),
    "FlipAndRotate": ("Calculate rotation", r"Only", "Set it to 'Individually'."),
    "MakeProjection": ("", "", ""),
    "SaveImages": ("When to save", r"Last cycle", "Set it to 'Every cycle'."),
    "Tile": ("Tile assembly method", r"Across cycles", "Tile within cycles."),
    "TrackObjects": ("", "", ""),
    "UntangleWorms": ("Train or untangle worms?", r"Train", "Train in an own run."),
    # these look at the whole run, groups or not
    "CalculateStatistics": ("", "", "Compute it from the results instead."),
    "LabelImages": ("", "", "Take plate, well and site from the file names."),
}
_WHOLE_RUN = frozenset({"CalculateStatistics", "LabelImages"})
_GROUP = "Group the image sets in the pipeline (Groups module, or LoadData's grouping)"

_REFUSED = {
    "CreateBatchFiles": "labkit makes the batches itself. Disable the module.",
    "ExportToDatabase": (
        "it needs a database client that this CellProfiler does not have, and would be dropped "
        "silently. Use ExportToSpreadsheet; labkit writes SQLite of it: job.results().to_sqlite()."
    ),
    "IdentifyObjectsManually": "it waits for a person. Disable the module.",
    "EditObjectsManually": "it waits for a person. Disable the module.",
}
_DEFAULT_OUTPUT = ("Default Output Folder", "Default Output Folder sub-folder")
_TOKEN = re.compile(r"\\g<(\w+)>")


def across_image_sets(pipeline: Pipeline) -> list[tuple[Module, str]]:
    """Return the modules that look across image sets, each with a hint.

    Those that a grouping of the pipeline keeps apart are left out: chunks keep groups whole.
    """
    modules = []
    for module in pipeline.enabled:
        if module.name == "RescaleIntensity":
            values = [value for _, value in module.settings]
            if {"Minimum of all images", "Maximum of all images"} & set(values):
                modules.append((module, "Take each image's own intensity."))
        elif module.name in _ACROSS:
            setting, pattern, hint = _ACROSS[module.name]
            if not setting or re.match(pattern, module.get(setting)):
                modules.append((module, hint))
    if pipeline.groups:
        return [(module, hint) for module, hint in modules if module.name in _WHOLE_RUN]
    return modules


def check_splitting(pipeline: Pipeline, count: int) -> list[Problem]:
    """Return what stands against running image sets in several processes.

    Parameters
    ----------
    count : int
        Image sets in all. One alone is never split.
    """
    if count < 2:
        return []
    across = pipeline.findings.across
    crossing = across_image_sets(pipeline)
    known = {module.number for module, _ in crossing}
    if not pipeline.groups:
        crossing += [
            (m, "") for m in pipeline.enabled if m.number in across and m.number not in known
        ]
    problems = []
    for module, hint in crossing:
        whole = f"un all in one task (chunk_size={count})."
        choice = f"R{whole}" if module.name in _WHOLE_RUN else f"{_GROUP}, or r{whole}"
        problems.append(
            Problem(
                str(module),
                "it looks across image sets, so that tasks of a part of them would give other "
                "results, or fail.",
                f"{hint} {choice}".strip(),
            )
        )
    return problems


def check_modules(pipeline: Pipeline) -> list[Problem]:
    """Return modules that cannot run in a job."""
    problems = [
        Problem(str(module), _REFUSED[module.name])
        for module in pipeline.enabled
        if module.name in _REFUSED
    ]
    load = pipeline.first("LoadData")
    if load is not None and load.yes("Process just a range of rows?"):
        hint = "Switch that off and give the rows you want."
        problems.append(Problem(str(load), "it takes only some rows of every task.", hint))
    if load is not None and not load.yes("Load images based on this data?"):
        problems.append(Problem(str(load), "it does not load images.", "Switch that on."))
    return problems


def check_exports(pipeline: Pipeline, table: pd.DataFrame, *, tables: bool = True) -> list[Problem]:
    """Return exports that would collide, leave the task's folder, or are missing.

    Parameters
    ----------
    table : DataFrame
        Image sets in LoadData's format.
    tables : bool
        Whether measurements are wanted.
    """
    problems = _locations(pipeline)
    exports, saves = pipeline.named("ExportToSpreadsheet"), pipeline.named("SaveImages")
    if tables and not exports:
        hint = "Add ExportToSpreadsheet as the last module."
        text = "no module exports measurements."
        problems.append(Problem(pipeline.path.name, text, hint, warning=bool(saves)))
    names: dict[str, Module] = {}
    for module in exports:
        for _, name in sheets(module):
            if name in names:
                other = names[name]
                text = f"it writes {name} over that of {other}."
                problems.append(Problem(str(module), text, "Give the file another name."))
            names[name] = module
    stems: dict[tuple[str, ...], Module] = {}
    for module in saves:
        problems += _saved(module, table)
        stem = tuple(
            module.get(text)
            for text in (
                "Select method for constructing file names",
                "Select image name for file prefix",
                "Enter single file name",
                "Append a suffix to the image file name?",
                "Text to append to the image name",
                "Saved file format",
                "Output file location",
            )
        )
        if stem in stems:
            text = f"it saves under the same names as {stems[stem]}."
            problems.append(Problem(str(module), text, "Append another suffix."))
        stems[stem] = module
    return problems


def _locations(pipeline: Pipeline) -> list[Problem]:
    problems = []
    for module in pipeline.named("SaveImages", "ExportToSpreadsheet", "SaveCroppedObjects"):
        place = module.get("Output file location", "Default Output Folder").split("|")
        if place[0] not in _DEFAULT_OUTPUT or ".." in place[-1]:
            text = f"it writes to '{'|'.join(place)}', outside of the job: retries would collide."
            hint = "Set it to the Default Output Folder (or a sub-folder); results are gathered."
            problems.append(Problem(str(module), text, hint))
    return problems


def sheets(module: Module) -> list[tuple[str, str]]:
    """Return object and file name of each table that one ExportToSpreadsheet writes.

    ``("*", "*.csv")`` stands for all of them, each under its own name.
    """
    prefix = module.get("Filename prefix") if module.yes("Add a prefix to file names?") else ""
    if module.yes("Export all measurement types?"):
        return [("*", f"{prefix}*.csv")]
    names: list[tuple[str, str]] = []
    for block in module.blocks("Data to export"):
        combined = block.get("Combine these object measurements with those of the previous object?")
        if combined in ("Yes", "True") and names:
            continue
        own = block.get("Use the object name for the file name?") in ("Yes", "True")
        name = f"{block['Data to export']}.csv" if own else block["File name"]
        names.append((block["Data to export"], prefix + name))
    return names


def _saved(module: Module, table: pd.DataFrame) -> list[Problem]:
    """Return what one SaveImages would write over its own files."""
    every = module.get("When to save", "Every cycle") == "Every cycle"
    if len(table) < 2 or not every:
        return []
    method = module.get("Select method for constructing file names")
    parts = [module.get("Output file location")]
    hint = r"Put metadata into the name or the folder, e.g. \g<Well>_\g<Site>."
    if method == "Sequential numbers":
        text = "its numbers begin again in every task; job.images() tells which file is which."
        return [Problem(str(module), text, warning=True)]
    if method == "Single name":
        parts.append(module.get("Enter single file name"))
        keys = pd.DataFrame(index=table.index)
    else:
        if module.yes("Append a suffix to the image file name?"):
            parts.append(module.get("Text to append to the image name"))
        channel = f"FileName_{module.get('Select image name for file prefix')}"
        if channel not in table:
            return []
        keys = pd.DataFrame({"file": table[channel]})
    for token in _TOKEN.findall(" ".join(parts)):
        if f"Metadata_{token}" in table:
            keys[token] = table[f"Metadata_{token}"].astype(str)
    doubles = int(keys.duplicated().sum()) if len(keys.columns) else len(table) - 1
    if not doubles:
        return []
    text = f"{doubles:,} of {len(table):,} images would be saved over others of the same name."
    return [Problem(str(module), text, hint)]
