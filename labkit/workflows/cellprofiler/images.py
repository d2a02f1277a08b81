r"""From a folder, a list, a LoadData CSV or a DataFrame to the table of image sets.

The table has one row per image set, in CellProfiler's own order, with ``ImageNumber`` (from 1),
``FileName_<channel>`` and ``PathName_<channel>`` (absolute), ``Metadata_*`` and, where the
pipeline groups, ``Group_Number`` and ``Group_Index``. That is LoadData's format, so the table can
be saved and used again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import pandas as pd

from labkit.base.problems import Problem, RefusedError, unknown_name
from labkit.workflows.cellprofiler.matching import match_files
from labkit.workflows.cellprofiler.pipeline import Pipeline

Images: TypeAlias = "str | Path | pd.DataFrame | Iterable[str | Path]"

#: Names that stand for plate, well and site, in order of preference.
PLATE = ("Plate", "Barcode", "PlateName", "Plate_Name", "Assay_Plate_Barcode", "PlateID")
WELL = ("Well", "WellName", "Well_Name", "Position")
SITE = ("Site", "Field", "FieldIndex", "FOV", "Position", "Tile")
_LOOKED_AT = 5  # image sets, where files cannot be read
_ROW, _COLUMN = ("Row", "WellRow", "Well_Row"), ("Column", "Col", "WellColumn", "Well_Column")


@dataclass(frozen=True)
class ImageSets:
    """The image sets of an analysis.

    Attributes
    ----------
    table : DataFrame
        One row per image set, see above.
    loads_data : bool
        Whether CellProfiler gets it as a LoadData CSV (else as a list of files).
    groups : tuple of str
        The pipeline's own grouping (without ``Metadata_``).
    problems : tuple of Problem
        What was found while the table was made.
    """

    table: pd.DataFrame = field(repr=False)
    loads_data: bool
    groups: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        return len(self.table)

    @property
    def channels(self) -> list[str]:
        """Image names, such as ``DNA``."""
        return channels_of(self.table)

    @property
    def metadata(self) -> list[str]:
        """Metadata names, without ``Metadata_``."""
        prefix = "Metadata_"
        return [name[len(prefix) :] for name in self.table.columns if name.startswith(prefix)]

    @property
    def megapixels(self) -> float:
        """Millions of pixels of the first image set that can be read; 1.0 where none can."""
        from PIL import Image

        for _, files in self.paths().head(_LOOKED_AT).iterrows():
            pixels = 0
            try:
                for path in files:
                    with Image.open(path) as image:
                        pixels += image.width * image.height
            except (OSError, ValueError):  # cut off, or a format that only CellProfiler reads
                continue
            return pixels / 1e6
        return 1.0

    def places(self) -> pd.DataFrame:
        """Return ``plate``, ``well`` and ``site`` of each image set, as text; empty if unknown."""
        table = self.table
        places = pd.DataFrame(index=table.index)
        for place, names in (("plate", PLATE), ("well", WELL), ("site", SITE)):
            column = find_column(table, names)
            places[place] = as_text(table[column]) if column else ""
        row, column = find_column(table, _ROW), find_column(table, _COLUMN)
        if row and column and not find_column(table, WELL):
            numbers = as_text(table[column]).str.zfill(2)
            letters = as_text(table[row]).map(lambda value: _letter(value))
            places["well"] = letters + numbers
        return places

    def paths(self) -> pd.DataFrame:
        """Return the absolute path of each image: one column per channel, one row per set."""
        table = self.table
        return pd.DataFrame(
            {
                name: [
                    os.path.join(folder, file)  # noqa: PTH118 (fast: once per image)
                    for folder, file in zip(
                        table[f"PathName_{name}"], table[f"FileName_{name}"], strict=True
                    )
                ]
                for name in self.channels
            },
            index=table.index,
        )


def channels_of(table: pd.DataFrame) -> list[str]:
    """Return the image names of a table in LoadData's format."""
    return [name[9:] for name in table.columns if str(name).startswith("FileName_")]


def find_column(table: pd.DataFrame, names: Iterable[str]) -> str | None:
    """Return the metadata column with one of these names, whatever its case."""
    lower = {str(column).lower(): str(column) for column in table.columns}
    return next(
        (lower[key] for name in names for key in (f"metadata_{name}".lower(),) if key in lower),
        None,
    )


def as_text(values: pd.Series) -> pd.Series:
    """Return values as text: whole numbers without ``.0``, what is missing as ``""``."""

    def one(value: object) -> str:
        if value is None or value is pd.NA or value != value:
            return ""
        if isinstance(value, float) and value.is_integer():
            return str(int(value))
        return str(value)

    return values.map(one)


def _letter(value: str) -> str:
    """Return a plate row as a letter: ``"3"`` is C."""
    return chr(64 + int(value)) if value.isdigit() and 0 < int(value) <= 26 else value


def image_sets(folder: str | Path, pattern: str) -> pd.DataFrame:
    r"""List image sets by a pattern of the file names, as a table for ``images=``.

    Parameters
    ----------
    folder : str or Path
        Searched with all its folders.
    pattern : str
        A regular expression that the end of the path below ``folder`` must match, with a named
        group ``Channel`` and groups for the rest, e.g.
        ``r"(?P<Plate>\w+)/(?P<Well>[A-P]\d\d)_s(?P<Site>\d+)_(?P<Channel>\w+)\.tif"``.

    Returns
    -------
    DataFrame
        One row per image set: ``FileName_*`` and ``PathName_*`` per channel, ``Metadata_*``.

    Raises
    ------
    RefusedError
        Nothing matches, channels are missing, or two files claim one place: all are named.
    """
    top = Path(folder).expanduser().resolve()
    try:
        expression = re.compile(f"(?:{pattern})$")
    except re.error as error:
        raise RefusedError([Problem("pattern", f"it is no regular expression: {error}")]) from error
    keys = [name for name in expression.groupindex if name != "Channel"]
    if "Channel" not in expression.groupindex:
        hint = r"Write e.g. (?P<Channel>\w+) where the channel stands."
        raise RefusedError([Problem("pattern", "it has no group called Channel.", hint)])
    found: dict[tuple[str, ...], dict[str, Path]] = {}
    problems = []
    channels: dict[str, None] = {}
    for path in walk(top):
        match = expression.search(str(path.relative_to(top)))
        if not match:
            continue
        channel = match["Channel"]
        channels.setdefault(channel)
        files = found.setdefault(tuple(match[key] or "" for key in keys), {})
        if channel in files:
            problems.append(
                Problem(path.name, f"it claims the same place as {files[channel].name}.")
            )
        files[channel] = path
    if not found:
        problems.append(Problem(str(top), "no file there matches the pattern."))
    rows = []
    for key, files in sorted(found.items()):
        for channel in channels:
            if channel not in files:
                where = ", ".join(f"{k} {v}" for k, v in zip(keys, key, strict=True))
                problems.append(Problem(where, f"channel {channel} is missing."))
        rows.append(
            {f"FileName_{name}": path.name for name, path in files.items()}
            | {f"PathName_{name}": str(path.parent) for name, path in files.items()}
            | {f"Metadata_{k}": v for k, v in zip(keys, key, strict=True)}
        )
    if problems:
        raise RefusedError(problems)
    order = [f"{kind}_{name}" for name in channels for kind in ("FileName", "PathName")]
    return pd.DataFrame(rows)[[*order, *(f"Metadata_{key}" for key in keys)]]


def walk(folder: Path) -> list[Path]:
    """Return every file below a folder, sorted."""
    return sorted(Path(parent) / name for parent, _, names in os.walk(folder) for name in names)


def read_images(
    pipeline: Pipeline, images: Images, data_file: str | Path | None = None
) -> ImageSets:
    """Make the table of image sets that a pipeline will see.

    Parameters
    ----------
    pipeline : Pipeline
        Its LoadData, or its Images, Metadata, NamesAndTypes and Groups modules, decide.
    images : str, Path, DataFrame or iterable of paths
        A folder, a ``.csv`` (LoadData's format), a ``.txt`` with one path a line, a table, paths.
    data_file : str or Path, optional
        A LoadData CSV whose relative paths begin at the folder ``images``.

    Raises
    ------
    RefusedError
        There is nothing to work on; what is wrong with single image sets is in ``problems``.
    """
    table, base, files = _source(images, data_file)
    if pipeline.loads_data:
        if table is None:
            table, base = _pipelines_own_csv(pipeline, base, files)
        return _loaddata(pipeline, table, base)
    if odd := [path for path in files if "\n" in str(path) or "\r" in str(path)]:
        text = "its name holds a line break, which a list of files cannot carry."
        raise RefusedError([Problem(repr(path.name), text, "Rename it.") for path in odd])
    if table is not None:
        sets = _loaddata(pipeline, table, base)
        files = sorted({Path(path) for column in sets.paths().items() for path in column[1]})
    sets_table, problems = match_files(pipeline, files)
    if not len(sets_table):
        raise RefusedError(
            [
                *problems,
                Problem(
                    "images",
                    f"no image set is found among {len(files):,} files.",
                    "Compare their names with the pipeline's NamesAndTypes.",
                ),
            ]
        )
    return _grouped(ImageSets(sets_table, False, pipeline.groups, tuple(problems)))


def _source(
    images: Images, data_file: str | Path | None
) -> tuple[pd.DataFrame | None, Path | None, list[Path]]:
    """Return the table, the folder that relative paths begin at, and the files."""
    if isinstance(images, pd.DataFrame):
        return images.copy(), None, []
    if not isinstance(images, (str, Path)) and not isinstance(images, Iterable):
        hint = "Give a folder, a CSV, a table or paths."
        raise RefusedError([Problem("images", f"{images!r} is none of these.", hint)])
    if not isinstance(images, (str, Path)):
        paths = [Path(os.path.abspath(Path(path).expanduser())) for path in images]  # noqa: PTH100
        return None, None, paths
    path = Path(os.path.abspath(Path(images).expanduser()))  # noqa: PTH100 (links stay as given)
    if not path.exists():
        raise RefusedError([Problem("images", f"there is nothing at {path}.")])
    if path.is_dir():
        if data_file is not None:
            return _read_csv(Path(data_file).expanduser()), path, []
        return None, path, walk(path)
    if path.suffix.lower() == ".csv":
        return _read_csv(path), path.parent, []
    lines = path.read_text().splitlines()
    paths = [path.parent / line.strip() for line in lines if line.strip()]
    return None, path.parent, paths


def _read_csv(path: Path) -> pd.DataFrame:
    """Read a LoadData CSV; every value stays the text that it is."""
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise RefusedError([Problem("data_file", f"there is nothing at {path}.")]) from None
    except (ValueError, pd.errors.ParserError) as error:
        raise RefusedError([Problem(path.name, f"it cannot be read as CSV: {error}.")]) from error


def _pipelines_own_csv(
    pipeline: Pipeline, base: Path | None, files: list[Path]
) -> tuple[pd.DataFrame, Path | None]:
    """Find the CSV that LoadData names, among the given files."""
    load = pipeline.first("LoadData")
    name = load.get("Name of the file") if load else ""
    found = [path for path in files if path.name == name]
    if not found:
        hint = "Give the CSV as images=, or beside the folder as data_file=."
        raise RefusedError([Problem("images", f"LoadData's file {name!r} is not there.", hint)])
    return _read_csv(found[0]), base


def _loaddata(pipeline: Pipeline, table: pd.DataFrame, base: Path | None) -> ImageSets:
    """Check and complete a table in LoadData's format."""
    table = table.rename(columns=lambda name: re.sub(r"^Image_(?=\w+_)", "", str(name)))
    table = table.drop(columns=[name for name in ("ImageNumber",) if name in table])
    table = table.drop(columns=[name for name in table if str(name).startswith("Group_")])
    table = table.reset_index(drop=True)
    problems = []
    for name in channels_of(table):
        folder = table.get(f"PathName_{name}", pd.Series("", index=table.index)).astype(str)
        file = table[f"FileName_{name}"].astype(str)
        full = [_absolute(base, folder, file) for folder, file in zip(folder, file, strict=True)]
        if remote := [path for path in full if "://" in path or ":/" in path[:8]]:
            hint = "Fetch the images to a folder that the job can read."
            problems.append(Problem(f"channel {name}", f"{remote[0]} is not on a disk.", hint))
        table[f"PathName_{name}"] = [os.path.dirname(path) for path in full]  # noqa: PTH120
        table[f"FileName_{name}"] = [os.path.basename(path) for path in full]  # noqa: PTH119
    if not channels_of(table):
        hint = "It needs FileName_<channel> and PathName_<channel>; see labkit.image_sets()."
        problems.append(Problem("images", "the table has no FileName_ column.", hint))
    if not len(table):
        problems.append(Problem("images", "the table has no rows."))
    if problems:
        raise RefusedError(problems)
    table.insert(0, "ImageNumber", range(1, len(table) + 1))
    return _grouped(ImageSets(table, True, pipeline.groups))


def _absolute(base: Path | None, folder: str, file: str) -> str:
    path = os.path.join(folder, file)  # noqa: PTH118
    if "://" in path:
        return path
    return os.path.abspath(os.path.join(base or Path.cwd(), path))  # noqa: PTH100, PTH118


def _grouped(sets: ImageSets) -> ImageSets:
    """Give the groups the numbers that CellProfiler gives them: sorted by their key.

    Its Groups module puts the image sets of a group one after another; LoadData leaves them.
    """
    table = sets.table
    if not sets.groups:
        table["Group_Number"] = 1
        table["Group_Index"] = range(1, len(table) + 1)
        table["Group_Length"] = len(table)
        return sets
    if missing := [name for name in sets.groups if f"Metadata_{name}" not in table]:
        known = sets.metadata
        raise RefusedError([unknown_name("metadata to group by", name, known) for name in missing])
    keys = [as_text(table[f"Metadata_{name}"]) for name in sets.groups]
    key = list(zip(*keys, strict=True))
    number = {group: place for place, group in enumerate(sorted(set(key)), 1)}
    table["Group_Number"] = [number[group] for group in key]
    if not sets.loads_data:
        table = table.sort_values("Group_Number", kind="stable").reset_index(drop=True)
        table["ImageNumber"] = range(1, len(table) + 1)
    grouped = table.groupby("Group_Number")
    table["Group_Index"] = grouped.cumcount() + 1
    table["Group_Length"] = grouped["ImageNumber"].transform("size")
    return ImageSets(table, sets.loads_data, sets.groups, sets.problems)
