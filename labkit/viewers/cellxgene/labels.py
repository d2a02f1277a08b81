"""Labels and gene sets that the user makes in CellxGene: where they are kept, reading them."""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from labkit.viewers.paths import private_folder

_LABELS = "cell-labels.csv"
_GENE_SETS = "gene-sets.csv"
_NAMES = "cell-names.csv"  # the cells' own names, where CellxGene needed others


def folder_for(
    title: str, cells: pd.Index[str], base: Path | None, taken: Collection[Path]
) -> Path:
    """Return the folder for labels of these cells: the same for the same cells, run after run.

    Parameters
    ----------
    title : str
        The data's title; the safe part of it goes into the folder's name.
    cells : pandas.Index
        Names of the cells.
    base : Path or None
        The user's choice; None is ``~/cellxgene-annotations``.
    taken : collection of Path
        Folders that running viewers write to: two must not write the same files.
    """
    if base is not None:
        return base
    names = hashlib.blake2b("\n".join(cells).encode(), digest_size=4).hexdigest()
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", title).strip(".-")[:60] or "data"
    root = Path.home() / "cellxgene-annotations"
    folder, number = root / f"{safe}-{names}", 1
    while folder in taken:
        number += 1
        folder = root / f"{safe}-{names}-{number}"
    return folder


def prepare(
    folder: Path, columns: Collection[str], cells: pd.Index[str], shown: pd.Index[str]
) -> tuple[dict[str, str], list[str]]:
    """Make the folder and take out labels that the data now has itself.

    CellxGene answers 500 to everything when a label has the name of a column of ``obs``, as
    happens after ``adata.obs["type"] = card.labels()["type"]``.

    Parameters
    ----------
    folder : Path
        The folder.
    columns : collection of str
        Columns of ``obs``.
    cells, shown : pandas.Index
        Names of the cells, and the names that CellxGene shows them by, in the same order.

    Returns
    -------
    files : dict
        The two files, as CellxGene's configuration names them.
    notes : list of str
        What was taken out and where the file before is kept.
    """
    private_folder(folder)
    names = folder / _NAMES
    if list(cells) == list(shown):
        names.unlink(missing_ok=True)
    else:
        pd.DataFrame({"shown": shown, "cell": cells}).to_csv(names, index=False)
    path = folder / _LABELS
    notes = []
    if path.exists():
        kept = _table(path)
        double = [name for name in kept.columns if name in columns]
        if double:
            backup = folder / f"cell-labels-{time.strftime('%Y-%m-%dT%H-%M-%S')}.csv"
            shutil.copy2(path, backup)
            kept.drop(columns=double).to_csv(path)
            notes.append(
                f"The labels {', '.join(double)} are columns of obs now and are shown from there; "
                f"the file before is kept as {backup}."
            )
    return {"file": str(path), "gene_sets_file": str(folder / _GENE_SETS)}, notes


def read(folder: Path) -> pd.DataFrame:
    """Return the labels made so far: one row per cell, one column per set of labels.

    Cells whose names were not unique come in the data's order under their own names, so that a
    column can be assigned to ``obs`` as it is.
    """
    path = folder / _LABELS
    if not path.exists() or path.stat().st_size == 0:
        return pd.DataFrame()
    table = _table(path)
    names = folder / _NAMES
    if names.exists():
        cells = pd.read_csv(names, dtype=str, keep_default_na=False)
        table = table.reindex(cells["shown"])
        table.index = pd.Index(cells["cell"].to_numpy(dtype=object))
    return table


def _table(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path, dtype=str, comment="#", keep_default_na=False)
    index = table.columns[0]
    table = table.set_index(index).astype("category")
    table.index = table.index.astype(object).rename(None)
    return table
