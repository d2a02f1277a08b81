"""Cut a task's image sets out of the job's table, as CellProfiler wants them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

Row = dict[str, str]
#: Columns of the job's table that are labkit's own.
OWN = ("ImageNumber", "Group_Number", "Group_Index", "Group_Length", "plate", "well", "site")


def numbers(text: str) -> list[int]:
    """Return the numbers of ``"1-4,7"``."""
    values: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        values.extend(range(int(first), int(last or first) + 1))
    return values


def read_rows(table: Path, wanted: Iterable[int]) -> dict[int, Row]:
    """Read some image sets of the job's table, by ImageNumber."""
    wanted = set(wanted)
    rows = {}
    with table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            number = int(row["ImageNumber"])
            if number in wanted:
                rows[number] = row
    return rows


def channels(row: Mapping[str, str]) -> list[str]:
    """Return the image names of a row."""
    return [name[9:] for name in row if name.startswith("FileName_")]


def images(row: Mapping[str, str]) -> dict[str, Path]:
    """Return the path of each channel's image."""
    return {n: Path(row[f"PathName_{n}"]) / row[f"FileName_{n}"] for n in channels(row)}


def use_copies(row: Row, tmp: Path) -> None:
    """Let a row name the copies that the worker has fetched, where its images lie in S3.

    Parameters
    ----------
    row : dict
        An image set; it is changed.
    tmp : Path
        The task's temporary folder: the copies lie below its ``inputs``, by bucket and key.
    """
    for name in channels(row):
        folder = row[f"PathName_{name}"]
        if folder.startswith("s3://"):
            row[f"PathName_{name}"] = str(tmp / "inputs" / folder[5:])


def write_data_file(path: Path, rows: Sequence[Row]) -> None:
    """Write a LoadData CSV."""
    names = [name for name in rows[0] if name not in OWN]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def write_file_list(path: Path, rows: Sequence[Row]) -> None:
    """Write a list of files, one a line."""
    files = dict.fromkeys(str(file) for row in rows for file in images(row).values())
    path.write_text("".join(f"{file}\n" for file in files), encoding="utf-8")


def compare(table: Path, rows: Sequence[Row], delimiter: str) -> tuple[set[int], str]:
    """Compare the Image table that CellProfiler wrote with what it was given.

    Returns
    -------
    set of int
        Local image numbers (from 1) that have a row.
    str
        What is wrong, or ``""``: another file, an image set too many or twice.
    """
    numbers: set[int] = set()
    with table.open(newline="", encoding="utf-8", errors="replace") as file:
        for got in csv.DictReader(file, delimiter=delimiter):
            try:
                number = int(float(got["ImageNumber"]))
            except (KeyError, TypeError, ValueError):
                return numbers, f"{table.name} has no ImageNumber"
            if not 1 <= number <= len(rows):
                return numbers, f"{table.name} has image set {number}, of {len(rows)}"
            if number in numbers:
                return numbers, f"{table.name} has image set {number} twice"
            numbers.add(number)
            for name in channels(rows[number - 1]):
                wanted, actual = rows[number - 1][f"FileName_{name}"], got.get(f"FileName_{name}")
                if actual is not None and actual != wanted:
                    text = f"image set {number}: CellProfiler took {actual} as {name}, not {wanted}"
                    return numbers, text
    return numbers, ""
