"""What backends share whose tasks run in containers on rented machines: Batch and Kubernetes."""

from __future__ import annotations

from collections.abc import Mapping

from labkit.base.units import GB
from labkit.jobs.model import Container, Environment, Limits

#: The largest common machines; a queue's or cluster's own may be smaller.
LARGEST = Limits(192, 1536 * GB, None, "192 cores and 1.5 TB of memory", None, shared=True)


def image_of(place: Environment | Container | None, images: Mapping[str, str]) -> str:
    """Return the image of a stage; empty where the lab names none."""
    if isinstance(place, Container):
        return place.image
    return images.get(place.name if place else "worker", "")
