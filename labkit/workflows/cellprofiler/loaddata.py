"""Complete a table in the format of CellProfiler's LoadData, and say what is wrong with it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pandas as pd

from labkit.base.problems import Problem, RefusedError
from labkit.base.remote import is_remote as is_object
from labkit.workflows.cellprofiler.places import as_text
from labkit.workflows.cellprofiler.remote import on_disk, to_address

_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_LOOKED_AT = 5  # image sets
_SHOWN = 5
#: What to do about images that are not on a disk here.
FETCH = "Fetch the images to a folder that the job can read."


def channels_of(table: pd.DataFrame) -> list[str]:
    """Return the image names of a table in LoadData's format."""
    return [name[9:] for name in table.columns if str(name).startswith("FileName_")]


def complete(given: pd.DataFrame, base: Path | None = None, name: str = "") -> pd.DataFrame:
    """Return a table in LoadData's format with absolute paths and one name for each column.

    Parameters
    ----------
    given : DataFrame
        ``FileName_<channel>`` and ``PathName_<channel>`` (or ``URL_<channel>`` with ``file:``
        addresses), each maybe with ``Image_`` before it, and ``Metadata_*``.
    base : Path, optional
        Folder that relative paths begin at.
    name : str
        The table's file, for messages.

    Raises
    ------
    RefusedError
        With everything that is wrong.
    """
    table = given.rename(columns=lambda name: re.sub(r"^Image_(?=\w+_)", "", str(name)))
    table = table.drop(columns=[name for name in ("ImageNumber",) if name in table])
    table = table.drop(columns=[name for name in table if str(name).startswith("Group_")])
    table = _with_files_of_addresses(table.reset_index(drop=True))
    problems: list[Problem] = []
    relative = False
    for channel in channels_of(table):
        folder = as_text(table.get(f"PathName_{channel}", pd.Series("", index=table.index)))
        file = as_text(table[f"FileName_{channel}"])
        problems += _nameless(channel, file)
        given_paths = [os.path.join(*pair) for pair in zip(folder, file, strict=True)]  # noqa: PTH118
        relative = relative or any(":" not in p and not os.path.isabs(p) for p in given_paths)  # noqa: PTH117
        full = [to_address(_absolute(base, path)) for path in given_paths]
        if remote := [path for path in full if is_remote(path) and not is_object(path)]:
            problems.append(Problem(f"channel {channel}", f"{remote[0]} is not on a disk.", FETCH))
        table[f"PathName_{channel}"] = [os.path.dirname(path) for path in full]  # noqa: PTH120
        table[f"FileName_{channel}"] = [os.path.basename(path) for path in full]  # noqa: PTH119
    if not channels_of(table):
        columns = ", ".join(map(str, given.columns[:_SHOWN]))
        hint = "It needs FileName_<channel> and PathName_<channel>; see labkit.image_sets()."
        text = f"the table has no FileName_ column; it has {columns}."
        problems.append(Problem("images", text, hint))
    if not len(table):
        problems.append(Problem("images", "the table has no rows."))
    if not problems and relative and on_disk(base) is base:
        problems += _nowhere(table, base, name)
    if problems:
        raise RefusedError(problems)
    return table


def url_to_path(url: str) -> str:
    """Return the path of a ``file:`` address."""
    return url2pathname(urlsplit(url).path)


def is_remote(path: str) -> bool:
    """Return whether this is an address of something that is not on a disk here."""
    return _REMOTE.match(path) is not None and not path.lower().startswith("file:")


def _with_files_of_addresses(table: pd.DataFrame) -> pd.DataFrame:
    """Turn URL_ columns into FileName_ and PathName_; CellProfiler prefers them, too."""
    for column in [str(name) for name in table.columns]:
        if not column.startswith("URL_"):
            continue
        urls = as_text(table[column])
        paths = [url_to_path(u) if u.lower().startswith("file:") else u for u in urls]
        name = column.removeprefix("URL_")
        table[f"PathName_{name}"] = [os.path.dirname(path) for path in paths]  # noqa: PTH120
        table[f"FileName_{name}"] = [os.path.basename(path) for path in paths]  # noqa: PTH119
        table = table.drop(columns=[column])
    return table


def _nameless(channel: str, files: pd.Series) -> list[Problem]:
    rows = [str(number) for number, file in enumerate(files, 1) if not file.strip()]
    if not rows:
        return []
    listed = ", ".join(rows[:_SHOWN]) + ("…" if len(rows) > _SHOWN else "")
    text = f"FileName_{channel} is empty in {len(rows):,} image sets (row {listed})."
    return [Problem(f"channel {channel}", text, "Complete or leave out these rows.")]


def _nowhere(table: pd.DataFrame, base: Path | None, name: str) -> list[Problem]:
    """Return the hint that is wanted where relative paths begin at the wrong folder."""
    first = table.head(_LOOKED_AT)
    paths = [
        os.path.join(folder, file)  # noqa: PTH118
        for channel in channels_of(table)
        for folder, file in zip(
            first[f"PathName_{channel}"], first[f"FileName_{channel}"], strict=True
        )
    ]
    if any(os.path.exists(path) for path in paths):  # noqa: PTH110
        return []
    begin = base or Path.cwd()
    text = f"its paths are relative, and not one of the first images is there ({paths[0]})."
    hint = f"They begin at {begin}; else give images=<folder>, data_file=<the CSV>."
    return [Problem(name or "images", text, hint)]


def _absolute(base: Path | None, path: str) -> str:
    if path.lower().startswith("file:"):
        return url_to_path(path)
    if is_remote(path):
        return path
    return os.path.abspath(os.path.join(base or Path.cwd(), path))  # noqa: PTH100, PTH118
