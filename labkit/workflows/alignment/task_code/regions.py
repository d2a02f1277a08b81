"""Regions of a genome: targets and baits of a capture, and how well reads cover them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from . import windows

#: Depths that the share of bases with at least so many reads is told of.
DEPTHS = (1, 10, 20, 30, 100)


class Region(NamedTuple):
    """A line of a BED file: from 0, half open."""

    contig: str
    start: int
    end: int
    name: str = ""


def write(path: Path, listed: Iterable[Sequence[object]]) -> None:
    """Write regions as BED."""
    with path.open("w", encoding="utf-8") as file:
        for region in listed:
            print(*region, sep="\t", file=file)


def read(path: Path) -> list[Region]:
    """Read what :func:`write` wrote."""
    listed = []
    for line in path.read_text(encoding="utf-8").splitlines():
        contig, start, end, *name = line.split("\t")
        listed.append(Region(contig, int(start), int(end), *name))
    return listed


def merge(listed: Iterable[Region]) -> list[tuple[str, int, int]]:
    """Join regions that overlap or touch, so that no base is counted twice.

    Parameters
    ----------
    listed : iterable of Region
        Those of a contig together, by start.
    """
    merged: list[tuple[str, int, int]] = []
    for contig, start, end, _ in listed:
        if merged and merged[-1][0] == contig and start <= merged[-1][2]:
            merged[-1] = (contig, merged[-1][1], max(merged[-1][2], end))
        else:
            merged.append((contig, start, end))
    return merged


def collect(source: int, listed: Sequence[Region], target: Path) -> None:
    """Write the coverage of regions, and of all their bases together.

    Parameters
    ----------
    source : int
        End of a pipe: contig, position from 1, depth, as ``samtools depth -b`` writes it of the
        merged regions.
    listed : sequence of Region
        In the reference's order.
    target : Path
        For one line per region; a file of the same name with ``.json`` has the sums. See
        ``layout.py``.
    """
    numpy = import_module("numpy")
    depth = _Depth(merge(listed))
    for block in windows.whole_lines(source):
        for contig, position, counts in windows.contigs_of(block):
            depth.add(contig, position - 1, counts)
    shares = [f"covered_{least}" for least in DEPTHS]
    with target.open("w", encoding="utf-8") as file:
        print("contig", "start", "end", "name", "mean_depth", "lowest_depth", *shares, sep="\t",
              file=file)  # fmt: skip
        for region in listed:
            part = depth.of(region)
            covered = [f"{float(numpy.mean(part >= least)):.6f}" for least in DEPTHS]
            mean = f"{float(part.mean()):.4f}"
            print(*region, mean, int(part.min()), *covered, sep="\t", file=file)
    every = depth.values
    sums = {
        "regions": len(listed),
        "bases": int(every.size),
        "mean_depth": float(every.mean()),
        "median_depth": float(numpy.median(every)),
        **{
            share: float(numpy.mean(every >= least))
            for share, least in zip(shares, DEPTHS)  # noqa: B905 -- Python 3.9
        },
    }
    target.with_suffix(".json").write_text(json.dumps(sums, indent=1) + "\n")


class _Depth:
    """The depth of each base of merged regions, one after the other."""

    def __init__(self, merged: Sequence[tuple[str, int, int]]) -> None:
        numpy = import_module("numpy")
        self.values: Any = numpy.zeros(sum(end - start for _, start, end in merged), "int32")
        self._starts: dict[str, Any] = {}
        self._offsets: dict[str, Any] = {}
        places: dict[str, tuple[list[int], list[int]]] = {}
        offset = 0
        for contig, start, end in merged:
            starts, offsets = places.setdefault(contig, ([], []))
            starts.append(start)
            offsets.append(offset)
            offset += end - start
        for contig, (starts, offsets) in places.items():
            self._starts[contig] = numpy.array(starts, "int64")
            self._offsets[contig] = numpy.array(offsets, "int64")

    def _place(self, contig: str, position: Any) -> Any:
        """Return where positions (from 0) that lie in a region are."""
        numpy = import_module("numpy")
        region = numpy.searchsorted(self._starts[contig], position, "right") - 1
        return self._offsets[contig][region] + position - self._starts[contig][region]

    def add(self, contig: str, position: Any, counts: Any) -> None:
        """Take the depth of positions (from 0) of a contig."""
        self.values[self._place(contig, position)] = counts

    def of(self, region: Region) -> Any:
        """Return the depth of each base of a region."""
        begin = int(self._place(region.contig, region.start))
        return self.values[begin : begin + region.end - region.start]
