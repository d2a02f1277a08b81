"""What an hour on AWS costs, by the dated table beside this module."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path

TABLE = Path(__file__).with_name("prices.csv")


@dataclass(frozen=True)
class Prices:
    """On-demand prices of EC2 instances with Linux.

    Attributes
    ----------
    day : date
        When AWS's price list said so.
    region : str
        Where; other regions differ, mostly upwards by up to a third.
    hourly : dict of str to float
        Instance type -> USD per hour.
    """

    day: date
    region: str
    hourly: dict[str, float]


@cache
def prices(table: Path = TABLE) -> Prices:
    """Read the table: ``# key: value`` lines, then ``instance,usd_per_hour``."""
    lines = table.read_text(encoding="utf-8").splitlines()
    notes = dict(
        line[2:].split(": ", 1) for line in lines if line.startswith("# ") and ": " in line
    )
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    hourly = {row["instance"]: float(row["usd_per_hour"]) for row in rows}
    return Prices(date.fromisoformat(notes["day"]), notes["region"], hourly)
