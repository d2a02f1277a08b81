"""Figures of an alignment job: for its card and for the notebook, from the gathered tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAMED = 10  # samples that get a colour and a name of their own
_BINS = 120  # of insert sizes
_POINTS = 400  # along the genome
_INK = "#808080"  # reads on light and on dark pages
_COLOURS = {"unique": "#2f7fd0", "duplicate": "#d98324", "unmapped": "#8c8c8c"}


def read(folder: Path, table: str) -> pd.DataFrame:
    """Return a gathered table."""
    return pd.read_parquet(folder / f"{table}.parquet")


def insert_size(axes: Axes, folder: Path) -> None:
    """Draw the share of pairs by insert size, one line per sample."""
    table = read(folder, "insert_sizes")
    if len(table):
        pairs = table.groupby("insert_size")["pairs"].sum()
        sizes = pairs.index.to_numpy()
        most = 1.05 * float(sizes[int(np.searchsorted(pairs.cumsum(), 0.999 * pairs.sum()))])
        width = max(1, int(most) // _BINS)
        table["insert_size"] = table["insert_size"] // width * width + width / 2
        table = table.groupby(["sample", "insert_size"], sort=False)[["pairs"]].sum().reset_index()
        total = table.groupby("sample")["pairs"].transform("sum")
        table["share"] = table["pairs"] / total / width
        _lines(axes, table, "insert_size", "share")
        axes.set_xlim(0, most)
        axes.set_ylim(bottom=0)
    _label(axes, "Insert size", "bases", "share of pairs per base", empty=table.empty)


def coverage(axes: Axes, folder: Path) -> None:
    """Draw mean depth along the reference, contigs behind each other, one line per sample."""
    table = read(folder, "coverage")
    lengths = table.groupby("contig", sort=False)["end"].max()
    offsets = (lengths.cumsum() - lengths).rename("offset")
    table = table.join(offsets, on="contig")
    table["place"] = table["offset"] + (table["start"] + table["end"]) / 2
    step = max(1, int(lengths.sum()) // _POINTS)
    table["bin"] = (table["place"] // step) * step
    width = table["end"] - table["start"]
    sums = table.assign(weighted=table["mean_depth"] * width, width=width)
    sums = sums.groupby(["sample", "bin"], sort=False, as_index=False)[["weighted", "width"]].sum()
    sums["depth"] = sums["weighted"] / sums["width"]
    unit, scale = _unit(float(lengths.sum()))
    _lines(axes, sums.assign(bin=sums["bin"] / scale), "bin", "depth")
    for offset in offsets.iloc[1:] if len(offsets) <= _NAMED * 3 else ():
        axes.axvline(offset / scale, color=_INK, linewidth=0.5, alpha=0.5)
    axes.set_ylim(bottom=0)
    _label(axes, "Coverage", f"place on the reference ({unit})", "mean depth", empty=table.empty)


def duplicates(axes: Axes, folder: Path) -> None:
    """Draw each sample's reads: unique, duplicate, unmapped."""
    table = read(folder, "alignment").set_index("sample")
    marked = table["duplicates"].fillna(0)
    parts = {
        "unique": table["mapped"] - marked,
        "duplicate": marked,
        "unmapped": table["reads"] - table["mapped"],
    }
    left = pd.Series(0.0, index=table.index)
    for name, counts in parts.items():
        share = counts / table["reads"]
        axes.barh(table.index, share, left=left, color=_COLOURS[name], label=name)
        left = left + share
    axes.set_xlim(0, 1)
    axes.invert_yaxis()
    if len(table) > _NAMED:
        axes.set_yticks([])
        axes.set_ylabel(f"{len(table)} samples")
    _label(axes, "Duplicates, share of reads", "", "", empty=table.empty)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, **_LEGEND)


def recalibration(axes: Axes, folder: Path) -> None:
    """Draw empirical against reported quality, before recalibration, one line per sample."""
    table = read(folder, "recalibration")
    counts = table.groupby(["sample", "reported"], as_index=False)[["bases", "errors"]].sum()
    counts = counts[counts["bases"] >= 1000]
    counts["empirical"] = -10 * np.log10((counts["errors"] + 1) / (counts["bases"] + 2))
    _lines(axes, counts, "reported", "empirical", marker="o")
    if len(counts):
        ends = [counts["reported"].min(), counts["reported"].max()]
        axes.plot(ends, ends, color=_INK, linewidth=0.8, linestyle="--")
    _label(axes, "Base quality", "reported (Phred)", "from errors seen", empty=counts.empty)


def depth(axes: Axes, folder: Path) -> None:
    """Draw the share of the reference that is covered at least so deep, one line per sample."""
    table = read(folder, "depth_histogram").sort_values("depth", ascending=False)
    length = read(folder, "contigs").groupby("sample")["length"].sum()
    table["bases"] = table.groupby("sample")["bases"].cumsum() / table["sample"].map(length)
    _lines(axes, table.sort_values("depth"), "depth", "bases")
    axes.set_ylim(0, 1.02)
    _label(axes, "Depth", "depth", "share of the reference at least so deep", empty=table.empty)


def quality(axes: Axes, folder: Path) -> None:
    """Draw the share of mismatches by cycle, one line per sample."""
    table = read(folder, "cycles")
    _lines(axes, table, "cycle", "error_rate")
    axes.set_ylim(bottom=0)
    _label(axes, "Mismatches", "cycle", "share of bases", empty=table.empty)


PLOTS: dict[str, Callable[[Any, Path], None]] = {
    "insert_size": insert_size,
    "coverage": coverage,
    "duplicates": duplicates,
    "depth": depth,
    "mismatches": quality,
    "recalibration": recalibration,
}


def draw(folder: Path, names: Sequence[str], kind: type[Figure] = Figure) -> Figure:
    """Return a figure with these plots side by side; without names, what the card shows.

    Parameters
    ----------
    folder : Path
        With the gathered tables.
    names : sequence of str
        Of :data:`PLOTS`.
    kind : type
        Of figure.
    """
    names = names or summary(folder)
    columns = 2 if len(names) in (2, 4) else min(3, len(names))
    rows = -(-len(names) // columns)
    figure = kind(figsize=(9.2, 2.8 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, name in zip(axes, names, strict=False):
        PLOTS[name](axis, folder)
    for axis in axes[len(names) :]:
        axis.remove()
    return figure


def summary(folder: Path) -> list[str]:
    """Return the names of what the card shows; with recalibration, what it found too."""
    names = ["insert_size", "coverage", "duplicates"]
    return [*names, "recalibration"] if len(read(folder, "recalibration")) else names


_LEGEND: dict[str, Any] = {"fontsize": 7, "frameon": False, "labelcolor": _INK}


def _lines(axes: Axes, table: pd.DataFrame, x: str, y: str, marker: str = "") -> None:
    """Draw a line per sample; of many samples only a cloud of them."""
    samples = list(dict.fromkeys(table["sample"]))
    few = len(samples) <= _NAMED
    for number, (sample, rows) in enumerate(table.groupby("sample", sort=False)):
        style: dict[str, Any] = {"color": f"C{number}", "label": sample} if few else {}
        style = style or {"color": "C0", "alpha": max(0.05, 3 / len(samples))}
        axes.plot(rows[x], rows[y], linewidth=1.0, marker=marker, markersize=3, **style)
    if 1 < len(samples) <= _NAMED:
        axes.legend(**_LEGEND)


def _label(axes: Axes, title: str, x: str, y: str, *, empty: bool) -> None:
    axes.set_title(title, fontsize=9, color=_INK, loc="left")
    axes.set_xlabel(x, fontsize=8, color=_INK)
    axes.set_ylabel(axes.get_ylabel() or y, fontsize=8, color=_INK)
    axes.tick_params(labelsize=7, colors=_INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_INK)
    if empty:
        axes.text(0.5, 0.5, "none", ha="center", color=_INK, transform=axes.transAxes)


def _unit(length: float) -> tuple[str, float]:
    for unit, scale in (("Mb", 1e6), ("kb", 1e3)):
        if length >= 3 * scale:
            return unit, scale
    return "bases", 1.0
