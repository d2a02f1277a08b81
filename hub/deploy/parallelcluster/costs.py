"""What a cluster costs while nobody works on it, by the dated price tables."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path

from hub.labfile.parallelcluster import GIB, ParallelCluster
from hub.slurm.prices import prices
from labkit.base.units import format_size

HOURS = 730  # of a month, as AWS counts
TABLE = Path(__file__).with_name("prices.csv")
_NOTE = (
    "What is no instance is by secondary sources: check it at AWS's pages, which prices.csv names."
)


@cache
def besides() -> tuple[date, dict[str, float]]:
    """Return the day of the table of storage and network prices, and USD by item."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    day = next(line.removeprefix("# day: ") for line in lines if line.startswith("# day: "))
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return date.fromisoformat(day), {row["item"]: float(row["usd"]) for row in rows}


@dataclass(frozen=True)
class Costs:
    """The costs of an idle month.

    Attributes
    ----------
    items : tuple of (str, float or None)
        What, and USD per month; None where the table lacks it.
    day : date
        Of the older of the two price tables.
    region : str
        Whose prices they are.
    """

    items: tuple[tuple[str, float | None], ...]
    day: date
    region: str

    @property
    def total(self) -> float:
        """USD per month, of what has a price."""
        return sum(price or 0.0 for _, price in self.items)

    def lines(self) -> list[str]:
        """Write them for people."""
        unknown = any(price is None for _, price in self.items)
        lines = [
            f"While nobody works it costs about {self.total:.0f} USD a month"
            f"{' and what has no price below' if unknown else ''}"
            f" (prices of {self.region}, {self.day.day} {self.day:%B %Y}; other regions differ):",
        ]
        for what, price in self.items:
            amount = "price not known" if price is None else f"{price:.0f} USD"
            lines.append(f"  {what}: {amount}")
        lines.append(f"and {besides()[1]['home_efs']:.2f} USD a month for each GB in the homes.")
        lines.append(_NOTE)
        return lines


def idle_costs(cluster: ParallelCluster) -> Costs:
    """Return what a cluster costs in a month in which no job runs.

    Without data transfer, NAT gateways, CloudWatch and snapshots, which depend on use.
    """
    table = prices()
    day, other = besides()

    def month(instance: str, count: int = 1) -> float | None:
        hourly = table.hourly.get(instance)
        return None if hourly is None else hourly * HOURS * count

    head = cluster.head
    items: list[tuple[str, float | None]] = [(f"head node {head.instance}", month(head.instance))]
    disks = head.disk + cluster.shared
    if cluster.login:
        items.append((f"login node {cluster.login.instance}", month(cluster.login.instance)))
        items.append(("its load balancer", other["load_balancer"] * HOURS))
        disks += 40 * GIB  # ParallelCluster's own size
    items.append((f"disks, {format_size(disks)}", disks / GIB * other["disk_gp3"]))
    items.append(("the public address", other["public_address"] * HOURS))
    for queue in cluster.queues:
        if queue.min_nodes:
            what = f"{queue.min_nodes} x {queue.instances[0]} always on in {queue.name}"
            items.append((what, month(queue.instances[0], queue.min_nodes)))
    if cluster.scratch:
        size = cluster.scratch.size
        items.append((f"scratch, {format_size(size)}", size / GIB * other["scratch_fsx"]))
    return Costs(tuple(items), min(table.day, day), table.region)
