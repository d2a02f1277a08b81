"""Plan illumination functions: one task for each plate, and what the analysis takes from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from labkit.base.problems import Problem, unknown_name
from labkit.jobs.model import Environment, Resources, Stage, Task, safe_key, to_ranges
from labkit.workflows.cellprofiler import saves
from labkit.workflows.cellprofiler.images import ImageSets
from labkit.workflows.cellprofiler.loading import DRIVER, ENVIRONMENT
from labkit.workflows.cellprofiler.pipeline import Pipeline
from labkit.workflows.cellprofiler.task_code import costs
from labkit.workflows.cellprofiler.task_code.gather import saved

#: What a person gives where one function is meant for all images.
ALL = ("all",)
_EXTENSIONS = {"tiff": "tiff", "jpeg": "jpeg", "png": "png", "npy": "npy", "h5": "h5"}


@dataclass(frozen=True)
class Illumination:
    """The illumination stage and what the analysis takes from it.

    Attributes
    ----------
    stage : Stage
    table : DataFrame
        Its image sets.
    keys : tuple of str
        For each image set of the analysis, which function it shares.
    columns : mapping of str to list of str
        LoadData columns to add to the analysis' image sets.
    needs : mapping of str to list of str
        Key -> files that its analysis tasks need (with ``${results}``).
    """

    stage: Stage
    table: pd.DataFrame
    keys: tuple[str, ...]
    columns: Mapping[str, list[str]]
    needs: Mapping[str, list[str]]


def keys_of(sets: ImageSets, by: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return, for each image set, the name of the illumination function that it shares.

    Parameters
    ----------
    by : sequence of str or None
        Metadata whose image sets share one; None: the plate; ``("all",)``: one for all.

    Returns
    -------
    tuple of str or None
        None where it is not known for every image set.
    """
    if by is not None and tuple(by) == ALL:
        return ALL * len(sets)
    columns = [sets.metadata_values(name) for name in (by if by is not None else ("plate",))]
    values = [column for column in columns if column is not None and column.astype(bool).all()]
    if not columns or len(values) < len(columns):
        return None
    return tuple(" ".join(parts) for parts in zip(*values, strict=True))


def check_keys(sets: ImageSets, by: Sequence[str] | None) -> list[Problem]:
    """Refuse where nobody knows which image sets share an illumination function."""
    if by is not None and tuple(by) != ALL:
        unknown = [name for name in by if sets.metadata_values(name) is None]
        if unknown:
            kind = "metadata for illumination_by="
            return [unknown_name(kind, name, [*sets.metadata, "all"]) for name in unknown]
    if keys_of(sets, by) is not None:
        return []
    known = "; metadata: " + ", ".join(sets.metadata) if sets.metadata else ""
    what = "the plate" if by is None else " and ".join(by)
    text = (
        f"{what} is not known for every image set, so that images of several plates would share "
        f"one illumination function{known}."
    )
    hint = "Say plate=<metadata>; for one function over all images, illumination_by='all'."
    return [Problem("illumination", text, hint)]


def plan(
    pipeline: Pipeline, mine: ImageSets, sets: ImageSets, by: Sequence[str] | None
) -> Illumination:
    """Plan one task per plate, and where the analysis finds what it saves.

    Parameters
    ----------
    pipeline : Pipeline
        It calculates the functions and saves them.
    mine, sets : ImageSets
        Its image sets, and those of the analysis.
    by : sequence of str or None
        See :func:`keys_of`.
    """
    own_keys, keys = keys_of(mine, by), keys_of(sets, by)
    if own_keys is None or keys is None:
        raise ValueError("the workflow was not checked")
    table = pd.concat([mine.places(), mine.table], axis=1)
    described = saves.saved_images(pipeline)
    tasks: list[Task] = []
    where: dict[str, dict[str, str]] = {}
    shares = pd.Series(own_keys, index=table.index)
    for index, (name, rows) in enumerate(table.groupby(shares, sort=False)):
        shared = str(name)
        key = safe_key(shared)
        if any(task.key == key for task in tasks):  # "P 1" and "P_1"
            key = f"{key[:100]}-{index}"
        last = {str(column): str(value) for column, value in rows.iloc[-1].items()}
        where[shared] = {
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
            "shared": shared,
        }
        outputs = tuple(path.split(f"/{key}/", 1)[1] for path in where[shared].values())
        inputs = mine.remote_inputs(table.index.get_indexer(rows.index))
        tasks.append(Task(key, index, (), inputs, outputs, units=len(rows), params=params))
    stage = Stage(
        "illumination",
        tuple(tasks),
        Resources(memory=costs.MEMORY),
        Environment(ENVIRONMENT),
        driver=DRIVER,
    )
    columns: dict[str, list[str]] = {}
    for save in described:
        paths = [Path(where.get(key, {}).get(save["image"], "")) for key in keys]
        columns[f"FileName_{save['image']}"] = [path.name for path in paths]
        columns[f"PathName_{save['image']}"] = [str(path.parent) for path in paths]
    needs = {key: list(files.values()) for key, files in where.items()}
    return Illumination(stage, table, keys, columns, needs)
