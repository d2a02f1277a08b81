"""Look into an uploaded h5ad file before anything else opens it; executed by CellxGene's Python.

``python -I inspect_file.py FILE MEMORY`` prints one JSON object: the facts, and the problems
that refuse it. A file can point to other files (external links, external storage, virtual
datasets): served, it would show what its author may not see. Its arrays can be far larger than
the file. So both are looked at first, and with bounded memory.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

_MOST_OBJECTS = 100_000
_DEPTH = 20


class RefusedFileError(Exception):
    """The file is not one that labkit.publish writes."""


def walk(group: Any, depth: int = 0) -> Iterator[Any]:
    """Yield all datasets below a group.

    Raises
    ------
    RefusedFileError
        One leads out of the file, or it never ends.
    """
    if depth > _DEPTH:
        raise RefusedFileError("its groups are nested too deeply")
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise RefusedFileError(
                f"{group.name}/{name} is a link, which could lead to other files"
            )
        item = group[name]
        if isinstance(item, h5py.Group):
            yield from walk(item, depth + 1)
        elif isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise RefusedFileError(f"{item.name} has its values in another file")
            yield item
        else:
            raise RefusedFileError(f"{item.name} is neither a group nor an array")


def logical_bytes(path: Path) -> int:
    """Return what all arrays of a file take in memory, in bytes; text counts as its pointers."""
    total = 0
    with h5py.File(path, "r") as file:
        for number, item in enumerate(walk(file), 1):
            if number > _MOST_OBJECTS:
                raise RefusedFileError(f"it has more than {_MOST_OBJECTS:,} arrays")
            total += item.size * item.dtype.itemsize
    return total


def _shape(path: Path) -> dict[str, int]:
    """Return the numbers of cells and genes that X states; nothing where it states none."""
    with h5py.File(path, "r") as file:
        x = file.get("X")
        stated: Any = (
            x.shape if isinstance(x, h5py.Dataset) else x.attrs.get("shape") if x else None
        )
        try:
            cells, genes = (int(length) for length in stated)
        except (TypeError, ValueError):
            return {}
    return {"cells": max(0, cells), "genes": max(0, genes)}


def look(path: Path, memory: int) -> dict[str, Any]:
    """Return the facts of a file and what refuses it, by the rules of ``labkit.cellxgene``."""
    from labkit.viewers.cellxgene.clean import clean
    from labkit.viewers.cellxgene.errors import DataRefusedError
    from labkit.viewers.cellxgene.source import read_source

    try:
        logical = logical_bytes(path)
        if logical > memory:
            return {"logical": logical, "problems": [], **_shape(path)}
        source = read_source(path)
    except (RefusedFileError, OSError) as error:
        return {"problems": [f"The file is refused: {error}."]}
    except DataRefusedError as error:
        return {"problems": [one.text for one in error.problems]}
    cleaned = clean(source)
    problems = [one.text for one in cleaned.problems]
    problems += [f"{one.where}: not as CellxGene needs it ({one.what})" for one in cleaned.changes]
    return {
        "cells": source.obs.shape[0],
        "genes": source.var.shape[0],
        "logical": logical + source.tables,
        "embeddings": [key.removeprefix("X_") for key in cleaned.obsm],
        "columns": [str(name) for name in cleaned.obs.columns],
        "problems": problems,
    }


def main(path: str, memory: str) -> None:
    """Bound the memory, look, print."""
    resource.setrlimit(resource.RLIMIT_DATA, (int(memory), int(memory)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # -I: labkit is found from here
    try:
        report = look(Path(path), int(memory))
    except MemoryError:
        report = {"problems": ["Looking at it takes more memory than this machine has."]}
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
