"""BED files of targets and baits: read, checked against the reference, and written in one form."""

from __future__ import annotations

import gzip
import os
from collections.abc import Mapping
from pathlib import Path

from labkit.base.addresses import address_problem
from labkit.base.problems import Problem
from labkit.workflows.alignment.task_code import regions

_GZIP = b"\x1f\x8b"
#: Bases that targets may have in all: the depth of each is held in memory.
MOST = 500_000_000
_SHOWN = 5
_HINT = "A BED has contig, start (from 0) and end, and may have a name, separated by tabs."


def read_bed(
    name: str, given: object, contigs: Mapping[str, int]
) -> tuple[list[regions.Region], list[Problem]]:
    """Return the regions of a BED file, in the reference's order, and what is wrong with it.

    Parameters
    ----------
    name : str
        What it is for: ``"targets"`` or ``"baits"``.
    given : str or Path
        The file, plain or gzip.
    contigs : mapping of str to int
        Of the reference: name and length in bases.
    """
    if not isinstance(given, (str, os.PathLike)):
        return [], [Problem(name, f"must be the path of a BED file, not {given!r}.")]
    if address := address_problem(name, given):
        return [], [address]
    path = Path(given).expanduser()
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if content.startswith(_GZIP) else content).decode()
    except FileNotFoundError:
        return [], [Problem(name, f"there is no file {path}.")]
    except (OSError, EOFError, UnicodeDecodeError) as error:
        return [], [Problem(name, f"{path} cannot be read: {error}.")]
    listed: list[regions.Region] = []
    problems: list[Problem] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith(("#", "track", "browser", "@")):
            continue
        region = _region(line)
        wrong = region if isinstance(region, str) else _misplaced(region, contigs)
        if wrong:
            where = f"{name}, line {number}"
            problems.append(Problem(where, wrong, _hint(region, contigs)))
        elif isinstance(region, regions.Region):
            listed.append(region)
    if len(problems) > _SHOWN:
        text = f"… and {len(problems) - _SHOWN:,} more lines of {path.name} are wrong."
        problems = [*problems[:_SHOWN], Problem(name, text)]
    if not listed and not problems:
        problems.append(Problem(name, f"{path} has no regions.", _HINT))
    order = {contig: place for place, contig in enumerate(contigs)}
    listed.sort(key=lambda region: (order[region.contig], region.start, region.end))
    bases = sum(end - start for _, start, end in regions.merge(listed))
    if bases > MOST:
        text = f"has {bases:,} bases; at most {MOST:,} are measured, as of exomes and panels."
        problems.append(Problem(name, text))
    return listed, problems


def _region(line: str) -> regions.Region | str:
    fields = line.rstrip("\r\n").split("\t")
    if len(fields) < 3:
        fields = line.split()
    if len(fields) < 3:
        return f"has {len(fields)} fields."
    contig, start, end = fields[:3]
    if not (start.isdigit() and end.isdigit()):
        return f"has {start!r} and {end!r} for start and end."
    label = "" if len(fields) < 4 else fields[3].replace("\t", " ")
    return regions.Region(contig, int(start), int(end), label)


def _misplaced(region: regions.Region, contigs: Mapping[str, int]) -> str:
    if region.contig not in contigs:
        return f"is on {region.contig}, which the reference has not."
    if region.start >= region.end:
        return f"begins at {region.start:,} and ends at {region.end:,}."
    length = contigs[region.contig]
    if region.end > length:
        return f"ends at {region.end:,}; {region.contig} has {length:,} bases."
    return ""


def _hint(region: regions.Region | str, contigs: Mapping[str, int]) -> str:
    if isinstance(region, str):
        return _HINT
    if region.contig in contigs:
        return "Is it of another version of this genome?"
    shown = ", ".join(list(contigs)[:3])
    return f"The reference has {shown}{', …' if len(contigs) > 3 else ''}."
