"""Well profiles with pycytominer: aggregate, annotate, normalise, select features.

Used by the gather (copied into the run folder) and from a notebook.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from . import platemaps

# copied beside this file into the run folder, where there is no package

KEY = "ImageNumber"
STRATA = ["Metadata_Plate", "Metadata_Well"]
#: What CellProfiler measures of objects; the rest are keys, places and counts of relations.
_FEATURES = re.compile(
    r"^(AreaShape|Intensity|Texture|RadialDistribution|Granularity|Correlation|Neighbors|"
    r"Math|ObjectSkeleton|Classify|AreaOccupied|Overlap)_"
)
# Places in the image and directions are no properties of a cell.
_PLACES = re.compile(
    r"^AreaShape_(Center|BoundingBox|Orientation)|^Intensity_(Location|MaxLocation)|_Location_"
    r"|^Location_|^Neighbors_(FirstClosest|SecondClosest)ObjectNumber|ClosestObjectNumber"
)
_BATCH = 256  # features that are in memory at once
_SELECT = ["variance_threshold", "correlation_threshold", "drop_na_columns", "blocklist"]


class ProfileError(Exception):
    """Profiles cannot be made of these tables; the text says why."""


def make(
    tables: Path,
    out: Path,
    rows: Mapping[int, Mapping[str, str]],
    plate_map: Path | None = None,
    *,
    operation: str = "median",
    controls: str = "all",
    method: str = "standardize",
) -> dict[str, Any]:
    """Make well profiles and write them as Parquet.

    Parameters
    ----------
    tables : Path
        The gathered tables.
    out : Path
        Gets ``aggregated``, ``annotated``, ``normalized`` and ``selected`` ``.parquet``.
    rows : mapping of int to mapping
        The job's image sets, with ``plate`` and ``well``.
    plate_map : Path, optional
        CSV with ``Well`` (or ``well_position``) and what is in each well; with ``Plate`` where
        plates differ.
    operation : str
        ``median`` or ``mean`` over the objects of a well.
    controls : str
        Query that names the wells to normalise by, e.g. ``"Metadata_role == 'control'"``.
    method : str
        pycytominer's method of normalisation.

    Returns
    -------
    dict
        ``wells``, ``features``, ``selected`` (counts).
    """
    from pycytominer import feature_select, normalize

    places = place_table(rows)
    aggregated, features = aggregate_tables(tables, places, operation)
    out.mkdir(parents=True, exist_ok=True)
    aggregated.to_parquet(out / "aggregated.parquet", index=False)
    annotated = aggregated
    if plate_map is not None:
        annotated = _annotated(aggregated, plate_map)
    annotated.to_parquet(out / "annotated.parquet", index=False)
    meta = [name for name in annotated.columns if name.startswith("Metadata_")]
    normalized = normalize(
        annotated, features=features, meta_features=meta, samples=controls, method=method
    )
    normalized.to_parquet(out / "normalized.parquet", index=False)
    selected = normalized
    if len(normalized) > 2:
        selected = feature_select(normalized, features=features, operation=_SELECT)
    selected.to_parquet(out / "selected.parquet", index=False)
    kept = [name for name in selected.columns if not name.startswith("Metadata_")]
    return {"wells": len(aggregated), "features": len(features), "selected": len(kept)}


def place_table(rows: Mapping[int, Mapping[str, str]]) -> pd.DataFrame:
    """Return plate and well of each image set, indexed by ImageNumber."""
    places = pd.DataFrame(
        {
            "Metadata_Plate": {n: row.get("plate") or "plate" for n, row in rows.items()},
            "Metadata_Well": {n: row.get("well", "") for n, row in rows.items()},
        }
    )
    if not places["Metadata_Well"].astype(bool).any():
        raise ProfileError("the images have no metadata called Well, so there are no well profiles")
    return places


def object_tables(tables: Path) -> list[str]:
    """Return the tables with one row per object."""
    return [
        path.stem
        for path in sorted(tables.glob("*.parquet"))
        if {KEY, "ObjectNumber"} <= set(pq.read_schema(path).names)
    ]


def features_of(path: Path) -> list[str]:
    """Return the features of an object table: numbers that describe an object."""
    schema = pq.read_schema(path)
    return [
        field.name
        for field in schema
        if _FEATURES.match(field.name)
        and not _PLACES.search(field.name)
        and str(field.type) in ("double", "int64", "float")
    ]


def aggregate_tables(
    tables: Path, places: pd.DataFrame, operation: str = "median"
) -> tuple[pd.DataFrame, list[str]]:
    """Return one row per plate and well: each object's features and counts.

    Returns
    -------
    DataFrame
        ``Metadata_Plate``, ``Metadata_Well``, ``Metadata_Count_<object>``, features prefixed by
        their object (``Nuclei_AreaShape_Area``).
    list of str
        The features.
    """
    from pycytominer import aggregate

    names = object_tables(tables)
    whole = places.drop_duplicates().set_index(STRATA).sort_index()
    features: list[str] = []
    pieces: list[pd.DataFrame] = []
    for name in names:
        path = tables / f"{name}.parquet"
        mine = features_of(path)
        keys = pd.read_parquet(path, columns=[KEY])
        where = places.loc[keys[KEY]].reset_index(drop=True)
        counts = where.value_counts(STRATA).rename(f"Metadata_Count_{name}")
        pieces.append(counts.to_frame())
        for batch in _batches(mine):
            values = pd.read_parquet(path, columns=batch).astype(float).add_prefix(f"{name}_")
            wells = aggregate(
                pd.concat([where, values], axis=1),
                strata=STRATA,
                features=list(values.columns),
                operation=operation,
            )
            pieces.append(wells.set_index(STRATA))
            features += list(values.columns)
    if not features:
        raise ProfileError("no table holds measurements of objects")
    joined = pd.concat([whole, *(piece.reindex(whole.index) for piece in pieces)], axis=1)
    counted = [name for name in joined.columns if name.startswith("Metadata_Count_")]
    joined[counted] = joined[counted].fillna(0).astype(int)
    return joined.reset_index(), features


def _annotated(aggregated: pd.DataFrame, plate_map: Path) -> pd.DataFrame:
    """Add what the plate map says of each well, plate by plate."""
    from pycytominer import annotate

    try:
        whole = platemaps.read(plate_map)
        pieces: list[pd.DataFrame] = [
            annotate(
                wells,
                platemaps.for_plate(whole, str(plate), wells["Metadata_Well"]),
                join_on=["Metadata_well_position", "Metadata_Well"],
                clean_cellprofiler=False,
            )
            for plate, wells in aggregated.groupby("Metadata_Plate", sort=False)
        ]
    except platemaps.PlateMapError as error:
        raise ProfileError(str(error)) from error
    annotated: pd.DataFrame = pd.concat(pieces, ignore_index=True)
    return annotated


def _batches(names: Sequence[str]) -> list[list[str]]:
    return [list(names[start : start + _BATCH]) for start in range(0, len(names), _BATCH)]
