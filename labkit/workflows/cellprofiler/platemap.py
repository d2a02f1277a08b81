"""A feature over the wells of a plate."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from labkit.base.problems import LabkitError, unknown_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from labkit.workflows.cellprofiler.job import CellProfilerJob

_WELL = re.compile(r"([A-Za-z]{1,2})[-_ ]?0*(\d{1,2})")
#: Rows and columns of the usual plates.
FORMATS = ((2, 3), (3, 4), (4, 6), (6, 8), (8, 12), (16, 24), (32, 48))
_STATISTICS = ("median", "mean", "std", "min", "max")


def parse_well(well: str) -> tuple[int, int]:
    """Return row and column, from 0, of a well such as ``"B03"``.

    Raises
    ------
    LabkitError
        It is no well of a plate.
    """
    match = _WELL.fullmatch(well.strip())
    if not match or match[2] == "0":
        raise LabkitError(f"{well!r} is no well such as B03.")
    row = 0
    for letter in match[1].upper():
        row = row * 26 + ord(letter) - 64
    return row - 1, int(match[2]) - 1


def plate_format(rows: int, columns: int) -> tuple[int, int]:
    """Return the smallest usual plate that has this many rows and columns."""
    fits = ((r, c) for r, c in FORMATS if r >= rows and c >= columns)
    return next(fits, (rows, columns))


def feature_by_well(job: CellProfilerJob, feature: str, statistic: str = "median") -> pd.DataFrame:
    """Return ``plate``, ``well`` and ``value`` of a feature.

    Raises
    ------
    LabkitError
        There is no such feature or statistic; the text lists what there is.
    """
    if statistic not in _STATISTICS:
        raise LabkitError(str(unknown_name("statistic", statistic, _STATISTICS)))
    if feature.startswith("Count_") and feature[6:] in job.tables:
        objects = job.results(feature[6:], columns=[])
        sites = job.results("Image", columns=[])[["plate", "well"]].drop_duplicates()
        counts = objects.groupby(["plate", "well"]).size().rename("value").reset_index()
        counted: pd.DataFrame = sites.merge(counts, how="left").fillna({"value": 0})
        return counted
    fitting = [name for name in job.tables if feature.startswith(f"{name}_")]
    if not fitting:
        hint = "Write <table>_<column> or Count_<table>; tables: " + ", ".join(job.tables)
        raise LabkitError(f"There is no feature {feature!r}. {hint}.")
    table = max(fitting, key=len)
    column = feature[len(table) + 1 :]
    values = job.results(table, columns=[column])
    grouped = values.groupby(["plate", "well"])[column].agg(statistic)
    table_of_wells: pd.DataFrame = grouped.rename("value").reset_index()
    return table_of_wells


def draw(values: pd.DataFrame, title: str, plate: str | None = None) -> Figure:
    """Draw one plate as a heat map; wells without a value are grey.

    Parameters
    ----------
    values : DataFrame
        ``plate``, ``well``, ``value``.
    """
    from labkit.jobs.notebook.figure import NotebookFigure

    plates = list(dict.fromkeys(values["plate"]))
    if plate is not None and plate not in plates:
        raise LabkitError(str(unknown_name("plate", plate, plates)))
    chosen = plates if plate is None else [plate]
    grids = [to_grid(values[values["plate"] == name]) for name in chosen]
    rows, columns = grids[0].shape
    width, height = 1.6 + columns * 0.42, (1.0 + rows * 0.42) * len(grids)
    figure = NotebookFigure(figsize=(max(5.0, width), max(2.5, height)), layout="constrained")
    axes = figure.subplots(len(grids), 1, squeeze=False)[:, 0]
    low = min(float(np.nanmin(grid)) for grid in grids)
    high = max(float(np.nanmax(grid)) for grid in grids)
    for axis, grid, name in zip(axes, grids, chosen, strict=True):
        axis.set_facecolor("0.85")
        shown = axis.imshow(np.ma.masked_invalid(grid), vmin=low, vmax=high, cmap="viridis")
        axis.set_xticks(range(grid.shape[1]), [str(c + 1) for c in range(grid.shape[1])])
        axis.set_yticks(range(grid.shape[0]), [_row_name(r) for r in range(grid.shape[0])])
        axis.set_title(f"{title}  {name}".strip())
        figure.colorbar(shown, ax=axis)
    return figure


def to_grid(values: pd.DataFrame) -> np.ndarray:
    """Return the wells of one plate as rows and columns; NaN where there is none."""
    places = [parse_well(well) for well in values["well"]]
    if not places:
        raise LabkitError("There is no well to draw.")
    rows, columns = plate_format(
        max(row for row, _ in places) + 1, max(column for _, column in places) + 1
    )
    grid = np.full((rows, columns), np.nan)
    for (row, column), value in zip(places, values["value"], strict=True):
        grid[row, column] = value
    return grid


def _row_name(row: int) -> str:
    return chr(65 + row) if row < 26 else chr(64 + row // 26) + chr(65 + row % 26)
