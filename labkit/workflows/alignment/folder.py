"""A sample sheet of a folder of FASTQ files, by their names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from labkit.base.problems import Problem

_SUFFIX = re.compile(r"\.f(?:ast)?q(?:\.gz)?$", re.IGNORECASE)
# bcl-convert and bcl2fastq: <sample>_S<number>_L<lane>_R<mate>_001; the lane may be missing.
_ILLUMINA = re.compile(
    r"(?P<sample>.+)_S\d+(?:_L(?P<lane>\d{3}))?_(?P<read>[RI][123])(?:_(?P<part>\d{3}))?"
)
# Archives, sequencing centres and people: s_1, s.R1, s_L002_R2, s_R1_001.
_PLAIN = re.compile(
    r"(?P<sample>.+?)(?:[._-]L(?P<lane>\d{3}))?[._-](?P<read>R?[12])(?:_(?P<part>\d{3}))?"
)
_UNDETERMINED = "Undetermined"
_OFF_LIMITS = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class _Name:
    """What a file's name says."""

    sample: str
    lane: str
    read: str  # "1", "2", "I1", ...; empty where it does not say
    part: str


def read_folder(folder: Path) -> tuple[list[dict[str, str]], list[Problem]]:
    """Return the rows of a sample sheet of the FASTQ files in a folder, and below it.

    ``<sample>_S1_L001_R1_001.fastq.gz``, ``<sample>_R1.fq.gz``, ``<sample>_1.fastq`` and the like
    are first mates, where there is a second one beside them. A file whose name tells no mate is a
    sample of single reads. Index reads (I1, I2) and reads that belong to no sample (Undetermined)
    are left out, with a warning.

    Parameters
    ----------
    folder : Path
        The folder.
    """
    paths = sorted(
        Path(place) / name
        for place, _, names in os.walk(folder, followlinks=True)
        for name in names
        if _SUFFIX.search(name) and not name.startswith(".")
    )
    if not paths:
        text = f"there are no FASTQ files (.fastq, .fq, also .gz) in {folder}."
        return [], [Problem("samples", text)]
    names = {path: _read_name(path, paths) for path in paths}
    left_out = [path for path, name in names.items() if _is_extra(name)]
    problems = []
    if left_out:
        text = f"{len(left_out)} files are left out: index reads, or of no sample, e.g. "
        problems.append(Problem("samples", f"{text}{left_out[0].name}.", warning=True))
    lanes: dict[tuple[Path, str, str, str], dict[str, Path]] = {}
    for path, name in names.items():
        if path not in left_out:
            key = (path.parent, name.sample, name.lane, name.part)
            lanes.setdefault(key, {})[name.read] = path
    rows = []
    for (_, sample, lane, part), reads in lanes.items():
        first = reads.get("1") or reads.get("")
        if first is None:
            text = f"{reads['2'].name} has no first mates beside it."
            problems.append(Problem("samples", text, "Copy the other file there, too."))
            continue
        rows.append(
            {
                "sample": _OFF_LIMITS.sub("-", sample).lstrip("._-") or "sample",
                "lane": "-".join(filter(None, (f"L{lane}" if lane else "", part))),
                "fastq_1": str(first),
                "fastq_2": str(reads.get("2", "")),
            }
        )
    return _name_lanes(rows), problems


def _is_extra(name: _Name) -> bool:
    return name.read.startswith("I") or name.sample == _UNDETERMINED


def _read_name(path: Path, paths: Iterable[Path]) -> _Name:
    stem = _SUFFIX.sub("", path.name)
    if match := _ILLUMINA.fullmatch(stem):
        read = match["read"].removeprefix("R")
        return _Name(match["sample"], match["lane"] or "", read, _part(match))
    match = _PLAIN.fullmatch(stem)
    if match:
        mate = match["read"][-1]
        start, end = match.span("read")
        other = f"{stem[: end - 1]}{3 - int(mate)}{stem[end:]}{path.name[len(stem) :]}"
        # "sample_1" alone may well be the first of several samples
        if path.with_name(other) in paths or stem[start:end].startswith("R"):
            return _Name(match["sample"], match["lane"] or "", mate, _part(match))
    return _Name(stem, "", "", "")


def _part(match: re.Match[str]) -> str:
    """Return which part of a lane a file is; most lanes are in one."""
    return "" if match["part"] in (None, "001") else match["part"]


def _name_lanes(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Give lanes names that differ: a sample in two folders was sequenced twice."""
    seen: dict[str, set[str]] = {}
    for row in rows:
        taken = seen.setdefault(row["sample"], set())
        name = lane = row["lane"] or "L1"
        number = 1
        while name in taken:
            number += 1
            name = f"{lane}-run{number}"
        row["lane"] = name
        taken.add(name)
    return rows
