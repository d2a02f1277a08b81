"""Read a plate map and find what is wrong with it, before the job and when it is gathered."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

WELL = "well_position"
_WELLS = ("well_position", "well", "well_name", "wellname")
_PLATES = ("plate", "platename", "plate_name", "barcode", "assay_plate_barcode")
_NAME = re.compile(r"([A-Za-z]{1,2})[-_ ]?0*([0-9]{1,2})")
_SHOWN = 8


class PlateMapError(ValueError):
    """The plate map does not fit; the text says why."""


def read(path: Path) -> pd.DataFrame:
    """Read a plate map (CSV, tabs or semicolons); its columns may have any of the usual names.

    Returns
    -------
    DataFrame
        With ``well_position``, maybe ``plate``, and what is in each well.

    Raises
    ------
    PlateMapError
        It cannot be read, or has no column for the well.
    """
    try:
        table = pd.read_csv(path, sep=None, engine="python", dtype=str, encoding="utf-8-sig")
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise PlateMapError(f"the plate map cannot be read: {error}") from error
    return named(table)


def named(table: pd.DataFrame) -> pd.DataFrame:
    """Return a plate map whose columns for well and plate have our names.

    Raises
    ------
    PlateMapError
        It has no column for the well.
    """
    lower = {str(name).lower().removeprefix("metadata_"): name for name in table.columns}
    well = next((lower[name] for name in _WELLS if name in lower), None)
    if well is None:
        columns = ", ".join(map(str, table.columns))
        raise PlateMapError(f"the plate map has no column Well; it has {columns}")
    names = {well: WELL}
    plate = next((lower[name] for name in _PLATES if name in lower), None)
    if plate is not None:
        names[plate] = "plate"
    return table.rename(columns=names)


def same_well(well: str) -> str:
    """Return a well in one spelling: ``a1``, ``A-01`` and ``A01`` are one."""
    match = _NAME.fullmatch(well.strip())
    return f"{match[1].upper()}{int(match[2]):02d}" if match else well.strip()


def for_plate(table: pd.DataFrame, plate: str, wells: Iterable[str]) -> pd.DataFrame:
    """Return the rows for the wells of one plate, spelled as the images spell them.

    Parameters
    ----------
    table : DataFrame
        As :func:`read` returns it.
    plate : str
        Where the map has a column for plates, only its rows.
    wells : iterable of str
        Wells of the images.

    Raises
    ------
    PlateMapError
        Wells are not in the map, or there more than once.
    """
    where = f" of plate {plate}" if "plate" in table else ""
    if "plate" in table:
        table = table[table["plate"].astype(str) == plate].drop(columns="plate")
    spelled: Mapping[str, str] = {same_well(well): well for well in wells}
    keys = table[WELL].astype(str).map(same_well)
    table = table.assign(**{WELL: keys.map(spelled)})[keys.isin(list(spelled))]
    if lost := [well for well in spelled.values() if well not in set(table[WELL])]:
        raise PlateMapError(f"the plate map lacks wells {_listed(lost)}{where}")
    if twice := sorted(set(table[WELL][table[WELL].duplicated()])):
        raise PlateMapError(
            f"the plate map has wells {_listed(twice)}{where} more than once: give the map of one "
            "plate, or one with a column Plate"
        )
    return table


def _listed(wells: list[str]) -> str:
    more = f" and {len(wells) - _SHOWN} more" if len(wells) > _SHOWN else ""
    return ", ".join(wells[:_SHOWN]) + more
