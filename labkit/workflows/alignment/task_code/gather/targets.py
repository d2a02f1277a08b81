"""What was measured on targets and baits, as rows of tables."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from .. import layout
from . import metrics

_TEXTS = ("contig", "name")
_COUNTS = ("start", "end", "lowest_depth")


def read_sums(folder: Path) -> list[dict[str, Any]]:
    """Return a row for targets and one for baits, of those that there are."""
    rows = []
    for kind in _measured(folder):
        usable = int((folder / layout.USABLE).read_text())
        on = int((folder / layout.region_metrics(kind, "reads.txt")).read_text())
        sums = metrics.read_json(folder / layout.region_metrics(kind, "json"))
        rows.append(
            {
                "intervals": kind,
                **sums,
                "reads": usable,
                "reads_on": on,
                "on_fraction": metrics.share(on, usable),
            }
        )
    return rows


def read_regions(folder: Path) -> list[dict[str, Any]]:
    """Return a row for each target and each bait."""
    rows = []
    for kind in _measured(folder):
        path = folder / layout.region_metrics(kind, "tsv")
        with path.open(newline="", encoding="utf-8") as file:
            for line in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
                row: dict[str, Any] = {"intervals": kind}
                for name, value in line.items():
                    number = int if name in _COUNTS else float
                    row[name] = value if name in _TEXTS else number(value)
                rows.append(row)
    return rows


def doubts(folder: Path) -> list[str]:
    """Return what makes a capture doubtful."""
    return [
        f"not one of {row['reads']:,} reads lies on the {row['intervals']}: of another genome?"
        for row in read_sums(folder)
        if row["reads"] and not row["reads_on"]
    ]


def _measured(folder: Path) -> list[str]:
    return [k for k in layout.REGIONS if (folder / layout.region_metrics(k, "json")).is_file()]
