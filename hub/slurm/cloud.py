"""What AWS ParallelCluster's own configuration says of its queues."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from hub.slurm.prices import Prices

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Queue:
    """A queue, which SLURM knows as a partition.

    Attributes
    ----------
    name : str
        Its name.
    spot : bool
        Whether its instances are spot instances, which AWS may take away.
    instances : tuple of str
        Its instance types.
    """

    name: str
    spot: bool
    instances: tuple[str, ...]

    def cost(self, prices: Prices) -> tuple[float, float] | None:
        """Return the lowest and the highest on-demand price of its instances, USD per hour.

        None where the table lacks one of them.
        """
        found = [prices.hourly.get(name) for name in self.instances]
        known = [price for price in found if price is not None]
        return (min(known), max(known)) if known and len(known) == len(found) else None


def read_queues(file: Path) -> dict[str, Queue]:
    """Read the queues of a ParallelCluster (version 3) configuration.

    Returns
    -------
    dict
        By name. Empty where there is no such file, or it cannot be read: the page then
        shows neither instances nor prices.
    """
    try:
        document = YAML(typ="safe").load(file.read_text(encoding="utf-8"))
        entries = document["Scheduling"]["SlurmQueues"]
        return {queue.name: queue for queue in map(_queue, entries)}
    except FileNotFoundError:
        return {}
    except (OSError, YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s tells nothing of the cluster's instances: %r", file, error)
        return {}


def _queue(entry: dict[str, Any]) -> Queue:
    instances = dict.fromkeys(
        name for resource in entry["ComputeResources"] for name in _instances(resource)
    )
    spot = str(entry.get("CapacityType", "ONDEMAND")).upper() == "SPOT"
    return Queue(str(entry["Name"]), spot, tuple(instances))


def _instances(resource: dict[str, Any]) -> Iterable[str]:
    if "InstanceType" in resource:
        return [str(resource["InstanceType"])]
    return [str(item["InstanceType"]) for item in resource["Instances"]]
