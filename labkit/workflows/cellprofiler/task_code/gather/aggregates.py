"""Means of image numbers in the Image table, e.g. of the image that holds an object's parent.

CellProfiler takes them over the numbers of its own process. Which objects have no parent (0), and
so how they shift, is in the objects' table alone: they are taken anew from there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .tables import AGGREGATE, KEY, is_number

_WAYS: dict[str, Callable[[Any], Any]] = {"Mean": np.mean, "Median": np.median, "StDev": np.std}


def renew(folder: Path) -> list[str]:
    """Take the aggregated image numbers of the Image table anew from the objects' tables.

    Parameters
    ----------
    folder : Path
        The gathered tables.

    Returns
    -------
    list of str
        Columns that cannot be known, since the objects' table lacks what they were made of; they
        are null.
    """
    file = folder / "Image.parquet"
    if not file.is_file():
        return []
    names = [name for name in pq.read_schema(file).names if AGGREGATE.match(name)]
    names = [name for name in names if is_number(name.partition("_")[2])]
    if not names:
        return []
    image, unknown = pq.read_table(file), []
    for name in names:
        values = _values(folder, name, image[KEY].to_pylist())
        if values is None:
            unknown.append(name)
            values = [None] * len(image)
        place = image.column_names.index(name)
        image = image.set_column(place, name, pa.array(values, pa.float64()))
    pq.write_table(image, file, compression="zstd")
    return unknown


def _values(folder: Path, name: str, numbers: list[int]) -> list[float | None] | None:
    """Return a column's values by image set; None where they cannot be known."""
    way, _, rest = name.partition("_")
    for table, feature in _sources(folder, rest):
        columns = pq.read_table(table, columns=[KEY, feature])
        keys = columns[KEY].to_numpy()
        values = columns[feature].cast(pa.float64()).to_numpy()
        order = np.argsort(keys, kind="stable")
        keys, values = keys[order], values[order]
        distinct, starts = np.unique(keys, return_index=True)
        by_image = dict(zip(distinct.tolist(), np.split(values, starts[1:]), strict=True))
        return [_one(_WAYS[way], by_image.get(number)) for number in numbers]
    return None


def _one(way: Callable[[Any], Any], values: Any) -> float | None:
    finite = values[np.isfinite(values)] if values is not None else ()
    return float(way(finite)) if len(finite) else None


def _sources(folder: Path, rest: str) -> Iterator[tuple[Path, str]]:
    """Yield the tables that have what a column was made of: ``<objects>_<feature>``."""
    for table in sorted(folder.glob("*.parquet")):
        columns = pq.read_schema(table).names
        if KEY not in columns or table.stem == "Image":
            continue
        feature = re.sub(rf"^{re.escape(table.stem)}_", "", rest)
        # a table of its own, or one that several kinds of objects share
        yield from ((table, name) for name in (feature, rest) if name in columns)
