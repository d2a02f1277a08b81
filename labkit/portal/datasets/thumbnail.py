"""A picture of the cells for the catalogue: the UMAP, coloured by cell type or cluster."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from labkit.portal.datasets.rules import is_thumbnail

if TYPE_CHECKING:
    from labkit.viewers.cellxgene.clean import Cleaned

# The first that is there is drawn, and coloured by.
_EMBEDDINGS = ("X_umap", "X_tsne", "X_draw_graph_fa", "X_scvi", "X_pca")
_COLUMNS = ("cell_type", "celltype", "bulk_labels", "leiden", "louvain", "cluster", "clusters")
_MOST_CELLS = 50_000
_MOST_COLOURS = 40
_SIZE = (4.0, 3.0)  # inches
_DPI = 120
_GREY = "#5b6b77"


def choose_color(cleaned: Cleaned) -> str | None:
    """Return the column of ``obs`` to colour by: cell types, else clusters, else categories."""
    fitting = [
        name
        for name in cleaned.obs.columns
        if isinstance(cleaned.obs[name].dtype, pd.CategoricalDtype)
        and 2 <= len(cleaned.obs[name].cat.categories) <= _MOST_COLOURS
    ]
    return next((name for name in (*_COLUMNS, *fitting) if name in fitting), None)


def draw(cleaned: Cleaned, color: str | None) -> bytes | None:
    """Draw the cells.

    Parameters
    ----------
    cleaned : Cleaned
        Tables and embeddings.
    color : str or None
        Column of ``obs``; categories in the colours of ``uns`` where it has them, numbers in
        viridis; None is one colour for all.

    Returns
    -------
    bytes or None
        A PNG; None where it would be larger than a catalogue takes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    key = next((name for name in _EMBEDDINGS if name in cleaned.obsm), next(iter(cleaned.obsm)))
    points = np.asarray(cleaned.obsm[key][:, :2], dtype="float64")
    # In an order of chance: the last group must not cover the others.
    chosen = np.random.default_rng(0).permutation(len(points))[:_MOST_CELLS]
    chosen = chosen[np.isfinite(points[chosen]).all(axis=1)]
    figure = Figure(figsize=_SIZE, dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.02, 0.02, 0.96, 0.96))
    axes.set_axis_off()
    colours = _colours(cleaned, color)
    axes.scatter(
        points[chosen, 0],
        points[chosen, 1],
        c=colours[chosen] if colours is not None else _GREY,
        s=float(np.clip(12_000 / max(1, len(chosen)), 0.3, 14)),
        linewidths=0,
        alpha=0.85,
        cmap="viridis" if colours is not None and colours.ndim == 1 else None,
    )
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=_DPI, metadata={"Software": None})
    content = out.getvalue()
    return content if is_thumbnail(content) else None


def _colours(cleaned: Cleaned, color: str | None) -> np.ndarray[Any, Any] | None:
    """Return a colour (red, green, blue) or a number for each cell."""
    if color is None:
        return None
    column = cleaned.obs[color]
    if pd.api.types.is_numeric_dtype(column.dtype):
        return column.to_numpy(dtype="float64", na_value=np.nan)
    if not isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype("category")
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    count = len(column.cat.categories)
    own = cleaned.uns.get(f"{color}_colors")
    if own is not None and len(own) >= count:
        palette = [to_rgb(one) for one in own[:count]]
    elif count <= 20:
        palette = [colormaps["tab20"](i)[:3] for i in range(count)]
    else:
        palette = [colormaps["hsv"](i / count)[:3] for i in range(count)]
    table = np.array([*palette, to_rgb("#c8ced2")])  # the last is for cells without one
    colours: np.ndarray[Any, Any] = table[column.cat.codes.to_numpy()]
    return colours
