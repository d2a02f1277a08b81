"""The stage ``reference``: make what of the reference is missing, once for all jobs.

Writes ``reference.json``: ``digest``, ``cache`` and ``remote`` (where it is), ``part`` (the
index), ``fasta``, ``longest`` and ``length`` (bases), ``contigs`` (name and length), ``versions``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from . import cache, programs


def main(task: Any) -> None:
    """Make the reference's parts."""
    settings = task.settings
    tools = programs.Tools(os.environ, task.tmp, task.tmp / "tools.log")
    folder = Path(settings["cache"]) if settings["cache"] else cache.node_folder(task.tmp.parent)
    store = cache.Cache(folder, settings["remote"], task.say)
    digest = store.add_fasta(settings["reference"], tools)
    part = store.add_index(digest, settings["aligner"], settings["preset"], tools, task.cpu)
    contigs = read_fai(Path(f"{store.fasta(digest)}.fai"))
    content = {
        "digest": digest,
        "cache": settings["cache"],
        "remote": settings["remote"],
        "part": part,
        "fasta": str(store.fasta(digest)),
        "contigs": contigs,
        "length": sum(length for _, length in contigs),
        "longest": max(length for _, length in contigs),
    }
    (task.out / "reference.json").write_text(json.dumps(content) + "\n")
    tools.write(task.out / "commands.json")


def read_fai(path: Path) -> list[tuple[str, int]]:
    """Return names and lengths of the contigs in a .fai."""
    rows = (line.split("\t") for line in path.read_text().splitlines())
    return [(row[0], int(row[1])) for row in rows]
