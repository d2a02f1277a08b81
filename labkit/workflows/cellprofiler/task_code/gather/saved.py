"""Tell which saved image belongs to which image set."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

_TOKEN = re.compile(r"\\g<(\w+)>")
_TABLES = {".csv", ".json"}


def index(
    folder: Path, numbers: Sequence[int], rows: Mapping[int, Mapping[str, str]], saves: Any
) -> list[dict[str, Any]]:
    """List the images that one process saved.

    Parameters
    ----------
    folder : Path
        The part's folder.
    numbers : sequence of int
        ImageNumbers in the order of the process.
    rows : mapping of int to mapping
        The job's table of image sets.
    saves : list of dict
        The pipeline's SaveImages modules, as ``plans.py`` describes them.

    Returns
    -------
    list of dict
        ``ImageNumber`` (None where nobody knows), ``image`` (name in the pipeline), ``path``.
    """
    files = {
        str(path.relative_to(folder)): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix.lower() not in _TABLES
    }
    by_stem: dict[str, list[str]] = {}
    for name in files:
        by_stem.setdefault(str(PurePosixPath(name).with_suffix("")), []).append(name)
    found = []
    for save in saves:
        for local, number in enumerate(numbers, 1):
            stem = stem_of(save, rows[number], local)
            for name in by_stem.get(stem, ()):
                if name in files:
                    entry = {"ImageNumber": number, "image": save["image"]}
                    found.append({**entry, "path": str(files.pop(name))})
    found += [{"ImageNumber": None, "image": "", "path": str(path)} for path in files.values()]
    return found


def stem_of(save: Mapping[str, Any], row: Mapping[str, str], local: int) -> str:
    """Return the name, without its ending, that SaveImages gives to an image."""

    def fill(text: str) -> str:
        return _TOKEN.sub(lambda match: row.get(f"Metadata_{match[1]}", ""), text)

    if save["method"] == "Single name":
        name = fill(save["name"])
    elif save["method"] == "Sequential numbers":
        name = f"{fill(save['name'])}{local:0{save['digits']}d}"
    else:
        stem = PurePosixPath(row.get(f"FileName_{save['channel']}", "")).stem
        name = stem + fill(save["suffix"])
    place = PurePosixPath(fill(save["place"])) / name
    return str(place)
