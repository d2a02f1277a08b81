"""Read what a person gives as ``images=``: a folder, files, a list of files, a table."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import pandas as pd

from labkit.base.problems import Problem, RefusedError
from labkit.base.remote import is_remote as is_object
from labkit.storage.errors import StorageError
from labkit.workflows.cellprofiler import remote
from labkit.workflows.cellprofiler.loaddata import (
    FETCH,
    channels_of,
    complete,
    is_remote,
    url_to_path,
)
from labkit.workflows.cellprofiler.remote import to_address, to_path
from labkit.workflows.cellprofiler.rules import is_image

Images: TypeAlias = "str | Path | pd.DataFrame | Iterable[str | Path]"

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_SHEETS = (".xlsx", ".xls", ".ods")


@dataclass(frozen=True)
class Source:
    """What was given, as files or as a table.

    Attributes
    ----------
    table : DataFrame or None
        In LoadData's format, completed.
    base : Path or None
        CellProfiler's Default Input Folder: the one that was given, or that holds all images.
    files : list of Path
        Where a folder, files or a list of them were given.
    problems : tuple of Problem
        Warnings.
    """

    table: pd.DataFrame | None
    base: Path | None
    files: list[Path]
    problems: tuple[Problem, ...] = field(default=())


def read_source(images: Images, data_file: str | Path | pd.DataFrame | None = None) -> Source:
    """Return the table or the files that were given.

    Parameters
    ----------
    images : str, Path, DataFrame or iterable of paths
        A folder, an image, a ``.csv``, ``.tsv`` or ``.txt``, a table, paths.
    data_file : str, Path or DataFrame, optional
        A LoadData CSV, or such a table, whose relative paths begin at the folder ``images``.

    Raises
    ------
    RefusedError
        It cannot be read; the text says what to give instead.
    """
    if isinstance(images, pd.DataFrame):
        table = complete(images)
        folders = (
            local_path(f) / "x" for c in channels_of(table) for f in set(table[f"PathName_{c}"])
        )
        return Source(table, common_folder(folders), [])
    if not isinstance(images, (str, Path)) and not isinstance(images, Iterable):
        hint = "Give a folder, a CSV, a table or paths."
        raise RefusedError([Problem("images", f"{images!r} is none of these.", hint)])
    if not isinstance(images, (str, Path)):
        files = [local_path(path) for path in images]
        return Source(None, common_folder(files), files)
    path = local_path(images)
    if is_object(to_address(path)):
        return _read_remote(path, data_file)
    if not path.exists():
        raise RefusedError([Problem("images", f"there is nothing at {path}.")])
    if path.is_dir():
        if isinstance(data_file, pd.DataFrame):
            return Source(complete(data_file, path, "data_file"), path, [])
        if data_file is not None:
            return table_source(local_path(data_file), path, "data_file")
        return Source(None, path, walk(path))
    if data_file is not None:
        hint = "Give the folder that the CSV's paths begin at as images=."
        raise RefusedError([Problem("images", f"{path.name} is not a folder.", hint)])
    return _read_file(path)


def _read_remote(path: Path, data_file: str | Path | pd.DataFrame | None) -> Source:
    """Read what lies in S3: a folder, maybe with a table of its images, or a table."""
    if data_file is not None:
        if isinstance(data_file, pd.DataFrame):
            return Source(complete(data_file, path, "data_file"), path, [])
        return table_source(local_path(data_file), path, "data_file")
    if path.suffix.lower() in (".csv", ".tsv", *_SHEETS):
        return table_source(path, path.parent)
    if is_image(path.name):
        return Source(None, path.parent, [path])
    return Source(None, path, remote.walk(path))


def table_source(path: Path, base: Path, where: str = "") -> Source:
    """Read a table whose relative paths begin at ``base``; see :func:`read_table`."""
    table, problems = read_table(path, where)
    return Source(complete(table, base, path.name), base, [], problems)


def read_table(path: Path, where: str = "") -> tuple[pd.DataFrame, tuple[Problem, ...]]:
    """Read a table in LoadData's format, separated by commas, semicolons or tabs.

    Every value stays the text that it is.

    Returns
    -------
    DataFrame
    tuple of Problem
        A warning where it is not separated by commas.

    Raises
    ------
    RefusedError
        It is not there, or no such table.
    """
    where = where or path.name
    if path.suffix.lower() in _SHEETS:
        hint = "Save it as CSV (comma separated) and give that."
        raise RefusedError([Problem(where, f"{path.name} is a spreadsheet.", hint)])
    try:
        data = remote.content(to_address(path)) if is_object(to_address(path)) else None
        data = path.read_bytes() if data is None else data
        header = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline="").readline()
        separator = max(_SEPARATORS, key=header.count)
        table = pd.read_csv(
            io.BytesIO(data), sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig"
        )
    except StorageError as error:
        raise RefusedError([Problem(where, str(error))]) from error
    except FileNotFoundError:
        raise RefusedError([Problem(where, f"there is nothing at {path}.")]) from None
    except UnicodeDecodeError as error:
        hint = "Save it as CSV in UTF-8."
        raise RefusedError([Problem(where, f"{path.name} is not text in UTF-8.", hint)]) from error
    except (ValueError, pd.errors.ParserError, csv.Error, OSError) as error:
        raise RefusedError(
            [Problem(where, f"{path.name} cannot be read as CSV: {error}.")]
        ) from error
    if separator == ",":
        return table, ()
    text = f"its columns are separated by {_SEPARATORS[separator]}, and were read so."
    return table, (Problem(path.name, text, warning=True),)


def local_path(path: str | Path) -> Path:
    """Return an absolute path; ``file:///`` addresses are paths, others than S3's are refused."""
    text = str(path)
    if text.lower().startswith("file:"):
        return Path(url_to_path(text))
    if is_object(text):
        return to_path(text)
    if is_remote(text):
        raise RefusedError([Problem("images", f"{text} is not on a disk.", FETCH)])
    return Path(os.path.abspath(Path(text).expanduser()))  # noqa: PTH100 (links stay as given)


def common_folder(files: Iterable[Path]) -> Path | None:
    """Return the folder that holds all files; None without files."""
    parents = {str(path.parent) for path in files}
    return Path(os.path.commonpath(parents)) if parents else None


def walk(folder: Path) -> list[Path]:
    """Return every file below a folder, sorted."""
    return sorted(Path(parent) / name for parent, _, names in os.walk(folder) for name in names)


def _read_file(path: Path) -> Source:
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv", *_SHEETS):
        return table_source(path, path.parent)
    if is_image(path.name):
        return Source(None, path.parent, [path])
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        hint = "Give a folder, a CSV, a list of paths (.txt), a table or paths."
        raise RefusedError([Problem("images", f"{path.name} is none of these.", hint)]) from None
    files = [_listed(path.parent, line.strip()) for line in lines if line.strip()]
    return Source(None, common_folder(files), files)


def _listed(folder: Path, line: str) -> Path:
    return local_path(line if "://" in line else folder / line)
