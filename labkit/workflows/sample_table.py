"""The table that a command runs over: a DataFrame, a CSV or TSV file, or a list of rows."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from labkit.base.addresses import address_problem
from labkit.base.problems import Problem


def read(over: Any) -> tuple[list[dict[str, Any]], Path | None, list[Problem]]:
    """Return the rows of a table.

    Values of a CSV stay text (``"007"`` is no number). Lists stay lists: several arguments.

    Parameters
    ----------
    over : DataFrame, path, iterable of mappings, or None
        None: one row without columns.

    Returns
    -------
    tuple
        Rows, the folder of the file (None without one), problems.
    """
    if over is None:
        return [{}], None, []
    if isinstance(over, str | os.PathLike):
        return _read_file(Path(over).expanduser())
    if hasattr(over, "to_dict") and hasattr(over, "columns"):  # pandas
        rows = over.to_dict("records")
    elif hasattr(over, "iter_rows"):  # polars
        rows = list(over.iter_rows(named=True))
    else:
        rows = list(over) if isinstance(over, Iterable) else [over]
        if isinstance(over, Mapping) or not all(isinstance(row, Mapping) for row in rows):
            problem = Problem(
                "over", "is no table.", "Give a DataFrame, a CSV file or a list of dictionaries."
            )
            return [], None, [problem]
    return [{str(name): _plain(value) for name, value in row.items()} for row in rows], None, []


def _read_file(path: Path) -> tuple[list[dict[str, Any]], Path | None, list[Problem]]:
    if address := address_problem("over", path):
        return [], None, [address]
    if not path.is_file():
        return [], None, [Problem("over", f"there is no file {path} in {Path.cwd()}.")]
    problems = []
    rows: list[dict[str, Any]] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            head = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter=_delimiter(path, head))
            for row in reader:
                if None in row or None in row.values():
                    problems.append(
                        Problem(
                            f"{path.name}, line {reader.line_num}",
                            f"has not the {len(reader.fieldnames or [])} fields of the head.",
                        )
                    )
                    continue
                rows.append(dict(row))
    except (UnicodeDecodeError, csv.Error) as error:
        problems.append(Problem(str(path), f"cannot be read as a table: {error}."))
    return rows, path.parent, problems


def _delimiter(path: Path, head: str) -> str:
    """Return what separates columns: Excel writes semicolons where a comma is a decimal mark."""
    if path.suffix in (".tsv", ".txt"):
        return "\t"
    return ";" if ";" in head and "," not in head else ","


def _plain(value: Any) -> Any:
    """Return text, or a list of texts; missing values become empty."""
    if isinstance(value, list | tuple):
        return [str(item) for item in value]
    if value is None or value != value or str(value) == "<NA>":
        return ""
    return str(value)
