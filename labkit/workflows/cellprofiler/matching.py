"""Find the image sets that Images, Metadata and NamesAndTypes would make of a list of files.

Where CellProfiler would go on silently with fewer image sets, or with channels that do not belong
together, this says so. The worker compares every result with this table.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.request import pathname2url

import pandas as pd

from labkit.base.problems import Problem
from labkit.workflows.cellprofiler.loaddata import url_to_path
from labkit.workflows.cellprofiler.pipeline import Module, Pipeline
from labkit.workflows.cellprofiler.rules import IMAGES_ONLY, Rule, RuleError, parse

_SHOWN = 8
Extractor = tuple[str, re.Pattern[str], Rule]


def match_files(pipeline: Pipeline, files: Sequence[Path]) -> tuple[pd.DataFrame, list[Problem]]:
    """Return the table of image sets (without groups) and what is wrong with it.

    Parameters
    ----------
    pipeline : Pipeline
        With Images, Metadata and NamesAndTypes modules.
    files : sequence of Path
        Absolute.
    """
    module = pipeline.first("NamesAndTypes")
    if module is None:
        hint = "Add them, or begin with LoadData."
        where = pipeline.path.name
        return pd.DataFrame(), [Problem(where, "it has neither LoadData nor NamesAndTypes.", hint)]
    problems: list[Problem] = []
    try:
        kept = _filter(pipeline, files)
        extractors = _extractors(pipeline, problems)
        rules = _channels(module)
    except RuleError as error:
        hint = "List the image sets yourself (labkit.image_sets) and begin with LoadData."
        return pd.DataFrame(), [*problems, Problem(str(module), f"{error}.", hint)]
    kept.sort(key=lambda path: pathname2url(str(path)))
    channels = {name: [p for p in kept if rule(PurePosixPath(p))] for name, rule in rules.items()}
    problems += _strays(kept, channels)
    if empty := [name for name, found in channels.items() if not found]:
        problems += [Problem(f"channel {name}", "no file matches its rule.") for name in empty]
        return pd.DataFrame(), problems
    values = {path: _metadata(path, extractors) for found in channels.values() for path in found}
    if module.get("Image set matching method") == "Metadata" and len(rules) > 1:
        sets = _by_metadata(module, channels, values, problems)
    else:
        sets = _by_order(channels, problems)
    single = _single_images(module, problems)
    sets = [{**image_set, **single} for image_set in sets]
    return _table(sets, [*rules, *single], values, extractors), problems


def _filter(pipeline: Pipeline, files: Sequence[Path]) -> list[Path]:
    images = pipeline.first("Images")
    choice = images.get("Filter images?", "Images only") if images else "No filtering"
    if choice == "No filtering":
        return list(dict.fromkeys(files))
    custom = images is not None and choice == "Custom"
    rule = parse(images.get("Select the rule criteria") if custom and images else IMAGES_ONLY)
    return [path for path in dict.fromkeys(files) if rule(PurePosixPath(path))]


def _extractors(pipeline: Pipeline, problems: list[Problem]) -> list[Extractor]:
    """Return where metadata is taken from: ``("File name", pattern, for which files)``."""
    module = pipeline.first("Metadata")
    if module is None or not module.yes("Extract metadata?"):
        return []
    extractors: list[Extractor] = []
    for block in module.blocks("Metadata extraction method"):
        method = block["Metadata extraction method"]
        if "file/folder" not in method:
            problems.append(
                Problem(
                    str(module),
                    f"'{method}' is not known to labkit: that metadata is not used for chunks.",
                    "For groups and matching by it, begin the pipeline with LoadData.",
                    warning=True,
                )
            )
            continue
        source = block.get("Metadata source", "File name")
        kind = "file" if source == "File name" else "folder"
        text = block.get(f"Regular expression to extract from {kind} name", "")
        try:
            pattern = re.compile(text)
        except re.error as error:
            raise RuleError(f"the regular expression {text!r} is wrong: {error}") from error
        every = block.get("Extract metadata from", "All images") == "All images"
        rule = parse(block["Select the filtering criteria"]) if not every else (lambda _: True)
        extractors.append((source, pattern, rule))
    return extractors


def _metadata(path: Path, extractors: list[Extractor]) -> dict[str, str]:
    values: dict[str, str] = {}
    for source, pattern, rule in extractors:
        if rule(PurePosixPath(path)):
            match = pattern.search(path.name if source == "File name" else str(path.parent))
            if match:
                values.update({k: v for k, v in match.groupdict().items() if v is not None})
    return values


def _channels(module: Module) -> dict[str, Rule]:
    """Return each channel's rule, in order."""
    if module.get("Assign a name to") == "All images":
        return {module.get("Name to assign these images"): lambda _: True}
    rules = {}
    for block in module.blocks("Select the rule criteria"):
        objects = block.get("Select the image type") == "Objects"
        key = "Name to assign these objects" if objects else "Name to assign these images"
        rules[block[key]] = parse(block["Select the rule criteria"])
    return rules


def _single_images(module: Module, problems: list[Problem]) -> dict[str, Path]:
    """Return the images that every image set gets, by name; a missing one is a problem."""
    if module.get("Assign a name to") == "All images":
        return {}
    images = {}
    for block in module.blocks("Single image location"):
        objects = block.get("Select the image type") == "Objects"
        name = block["Name to assign these objects" if objects else "Name to assign this image"]
        address = block["Single image location"].split(" ")[0]
        path = Path(url_to_path(address)) if address.startswith("file:") else Path(address)
        images[name] = path
        if not path.is_file():
            hint = "Choose it again in NamesAndTypes, or begin the pipeline with LoadData."
            text = f"the image for all image sets is not there: {address or 'none was chosen'}."
            problems.append(Problem(f"channel {name}", text, hint))
    return images


def _strays(kept: list[Path], channels: dict[str, list[Path]]) -> list[Problem]:
    used = {path for files in channels.values() for path in files}
    strays = [path.name for path in kept if path not in used]
    if not strays:
        return []
    text = f"{len(strays):,} images match no channel: {', '.join(strays[:_SHOWN])}"
    more = "…" if len(strays) > _SHOWN else ""
    return [Problem("NamesAndTypes", f"{text}{more}", warning=True)]


def _by_order(channels: dict[str, list[Path]], problems: list[Problem]) -> list[dict[str, Path]]:
    """Take the first file of every channel, then the second, ...: CellProfiler's "Order"."""
    counts = {name: len(files) for name, files in channels.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        problems.append(
            Problem(
                "NamesAndTypes",
                f"channels are matched by order, but their numbers differ ({listed}): from the "
                "gap on, channels of different sites would be taken together.",
                "Match by metadata, or complete the images.",
            )
        )
    return [
        dict(zip(channels, files, strict=True)) for files in zip(*channels.values(), strict=False)
    ]


def _by_metadata(
    module: Module,
    channels: dict[str, list[Path]],
    values: dict[Path, dict[str, str]],
    problems: list[Problem],
) -> list[dict[str, Path]]:
    """Take the files together whose metadata agree; keys compare without case, as text.

    As CellProfiler does it: the first channel that has metadata for every key leads; a channel
    that lacks some keys (an illumination function of a plate) is matched by those it has.
    """
    try:
        joins: list[dict[str, str | None]] = ast.literal_eval(module.get("Match metadata"))
        lead = next((n for n in channels if all(j.get(n) is not None for j in joins)), None)
    except (ValueError, SyntaxError, AttributeError):
        joins, lead = [], None
    if not joins or lead is None:
        hint = "Match by metadata that a channel has for every key, or begin with LoadData."
        problems.append(Problem(str(module), "its metadata matching is not known.", hint))
        return []
    keyed = {name: _by_key(name, channels[name], joins, values, problems) for name in channels}
    whole: list[tuple[tuple[str, ...], dict[str, Path]]] = []
    used: set[Path] = set()
    for key, path in keyed[lead].items():
        files = {lead: path}
        for name in channels:
            own = tuple(k for k, join in zip(key, joins, strict=True) if join.get(name) is not None)
            if name != lead and own in keyed[name]:
                files[name] = keyed[name][own]
        used.update(files.values())
        if missing := [name for name in channels if name not in files]:
            text = f"left out: no image of channel {', '.join(missing)}."
            problems.append(Problem(" / ".join(key), text, warning=True))
        else:
            whole.append((tuple(part.lower() for part in key), files))
    for name, paths in keyed.items():
        for key, path in paths.items():
            if path not in used:
                text = f"left out: channel {name} is there, channel {lead} is not."
                problems.append(Problem(" / ".join(key), text, warning=True))
    return [files for _, files in sorted(whole, key=lambda item: item[0])]


def _by_key(
    name: str,
    paths: list[Path],
    joins: list[dict[str, str | None]],
    values: dict[Path, dict[str, str]],
    problems: list[Problem],
) -> dict[tuple[str, ...], Path]:
    """Return a channel's files by the metadata that it is matched by."""
    names = [str(join[name]) for join in joins if join.get(name) is not None]
    by_key: dict[tuple[str, ...], Path] = {}
    for path in paths:
        key = tuple(values[path].get(part, "") for part in names)
        if not all(key):
            text = "its name does not hold the metadata that channels are matched by."
            problems.append(Problem(path.name, text, warning=True))
            continue
        if key in by_key:
            text = f"it has the same metadata as {by_key[key].name}."
            problems.append(Problem(path.name, text, "Every place needs its own name."))
        by_key[key] = path
    return by_key


def _table(
    sets: list[dict[str, Path]],
    names: list[str],
    values: dict[Path, dict[str, str]],
    extractors: list[Extractor],
) -> pd.DataFrame:
    """Make LoadData's format of it; metadata on which the channels differ are left out."""
    keys = list(dict.fromkeys(k for _, pattern, _ in extractors for k in pattern.groupindex))
    columns: dict[str, list[object]] = {"ImageNumber": list(range(1, len(sets) + 1))}
    for name in names:
        columns[f"FileName_{name}"] = [files[name].name for files in sets]
        columns[f"PathName_{name}"] = [str(files[name].parent) for files in sets]
    for key in keys:
        column: list[object] = []
        for files in sets:
            found = {values[path].get(key) for path in files.values() if path in values}
            column.append(next(iter(found)) if len(found) == 1 else None)
        if any(value is not None for value in column):
            columns[f"Metadata_{key}"] = column
    return pd.DataFrame(columns)
