"""Find plate, well and site of each image set in its metadata."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from labkit.base.problems import Problem, unknown_name

#: Names that stand for plate, well and site, in order of preference.
NAMES: dict[str, tuple[str, ...]] = {
    "plate": ("Plate", "Barcode", "PlateName", "Plate_Name", "Assay_Plate_Barcode", "PlateID"),
    "well": ("Well", "WellName", "Well_Name", "Well_Position", "Position"),
    "site": ("Site", "Field", "FieldIndex", "FOV", "Position", "Tile"),
}
_ROW, _COLUMN = ("Row", "WellRow", "Well_Row"), ("Column", "Col", "WellColumn", "Well_Column")
_SHOWN = 3


def places_of(
    table: pd.DataFrame, channels: Iterable[str], chosen: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Return ``plate``, ``well`` and ``site`` of each image set, as text; empty if unknown.

    Parameters
    ----------
    table : DataFrame
        Image sets in LoadData's format. Metadata may stand there once (``Metadata_Plate``) or for
        each channel (``Metadata_Plate_DAPI``).
    channels : iterable of str
        Image names.
    chosen : mapping of str to str, optional
        The column for some of the three, as :func:`choose` returns it.
    """
    names = list(channels)
    chosen = chosen or {}
    places = pd.DataFrame(index=table.index)
    for place, known in NAMES.items():
        if place in chosen:
            values: pd.Series | None = as_text(table[chosen[place]])
        else:
            values = find_values(table, known, names)
        places[place] = "" if values is None else values
    if not places["well"].astype(bool).any():
        row, column = find_values(table, _ROW, names), find_values(table, _COLUMN, names)
        if row is not None and column is not None:
            places["well"] = row.map(_letter) + column.str.zfill(2)
    return places


def choose(
    table: pd.DataFrame, channels: Iterable[str], wanted: Mapping[str, str | None]
) -> tuple[dict[str, str], list[Problem]]:
    """Return the column that a person named for plate, well or site, and what is wrong.

    Parameters
    ----------
    wanted : mapping of str to (str or None)
        E.g. ``{"plate": "Plate_DAPI"}``: metadata with or without ``Metadata_``, or any column.
    """
    columns = {str(column) for column in table.columns}
    chosen: dict[str, str] = {}
    problems: list[Problem] = []
    for place, name in wanted.items():
        if name is None:
            continue
        column = next((c for c in (f"Metadata_{name}", name) if c in columns), None)
        if column is None:
            short = name.removeprefix("Image_").removeprefix("Metadata_")
            column = next((c for c in (f"Metadata_{short}",) if c in columns), None)
        if column is None:
            files = ("FileName_", "PathName_", "URL_", "Group_", "ImageNumber")
            valid = [c.removeprefix("Metadata_") for c in columns if not c.startswith(files)]
            problems.append(unknown_name(f"metadata for {place}=", name, valid))
        else:
            chosen[place] = column
    if not problems:
        problems += _disagreeing(table, list(channels), chosen)
    return chosen, problems


def find_values(
    table: pd.DataFrame, names: Iterable[str], channels: Iterable[str]
) -> pd.Series | None:
    """Return the metadata with one of these names as text, whatever its case.

    Where it stands there for each channel, the channels have to agree in every image set.
    """
    lower = {str(column).lower(): str(column) for column in table.columns}
    for name in names:
        if column := lower.get(f"metadata_{name}".lower()):
            return as_text(table[column])
        parts = _per_channel(table, name, channels)
        if parts is not None and not _differing(parts):
            return _first_filled(parts)
    return None


def as_text(values: pd.Series) -> pd.Series:
    """Return values as text: whole numbers without ``.0``, what is missing as ``""``."""

    def one(value: object) -> str:
        if value is None or value is pd.NA or value != value:
            return ""
        if isinstance(value, float) and value.is_integer():
            return str(int(value))
        return str(value)

    return values.map(one)


def _per_channel(table: pd.DataFrame, name: str, channels: Iterable[str]) -> pd.DataFrame | None:
    lower = {str(column).lower(): str(column) for column in table.columns}
    keys = [f"metadata_{name}_{channel}".lower() for channel in channels]
    columns = [lower[key] for key in keys if key in lower]
    return table[columns].apply(as_text) if columns else None


def _first_filled(parts: pd.DataFrame) -> pd.Series:
    first = parts.iloc[:, 0]
    for column in parts.columns[1:]:
        first = first.where(first != "", parts[column])
    return first


def _differing(parts: pd.DataFrame) -> list[int]:
    """Return the rows in which channels that say something say different things."""
    return [
        number
        for number, values in enumerate(parts.itertuples(index=False), 1)
        if len({value for value in values if value}) > 1
    ]


def _disagreeing(
    table: pd.DataFrame, channels: list[str], chosen: Mapping[str, str]
) -> list[Problem]:
    problems = []
    lower = {str(column).lower() for column in table.columns}
    for place, names in NAMES.items():
        if place in chosen or any(f"metadata_{name}".lower() in lower for name in names):
            continue
        for name in names:
            parts = _per_channel(table, name, channels)
            rows = _differing(parts) if parts is not None else []
            if parts is not None and rows:
                listed = ", ".join(map(str, rows[:_SHOWN])) + ("…" if len(rows) > _SHOWN else "")
                text = (
                    f"the channels say different things in {len(rows):,} image sets ({listed}): "
                    f"{', '.join(map(str, parts.columns))}."
                )
                hint = f"Say which counts, e.g. {place}={str(parts.columns[0])[9:]!r}."
                problems.append(Problem(f"metadata {name}", text, hint))
    return problems


def _letter(value: str) -> str:
    """Return a plate row as a letter: ``"3"`` is C."""
    return chr(64 + int(value)) if value.isdigit() and 0 < int(value) <= 26 else value
