"""What an image set costs: remembered from earlier runs, or estimated."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labkit.workflows.cellprofiler.pipeline import Pipeline

#: Seconds until the first module of the first image set, when nothing was measured yet.
STARTUP = 3.5
#: Seconds per module and image set, and per module and million pixels, when nothing was measured
#: yet. Of three pipelines that were (0.1 to 9 million pixels, with and without Crop) these guess
#: within a factor of four, either way.
_PER_MODULE = 0.05
_PER_MEGAPIXEL = 0.05
#: Bytes of one task before anything was measured.
MEMORY = 3 * 1024**3 // 2
_KEPT = 500


@dataclass(frozen=True)
class Cost:
    """What running a pipeline costs.

    Attributes
    ----------
    startup : float
        CPU seconds of a process before and after its image sets (F).
    image_set : float
        CPU seconds of one image set (P).
    memory : int
        Peak bytes of a process; 0 when it was not measured.
    image_sets : int
        How many it was measured on; 0 is an estimate.
    measured : float
        When, in seconds since 1970.
    """

    startup: float
    image_set: float
    memory: int = 0
    image_sets: int = 0
    measured: float = 0.0

    def share(self, size: int) -> float:
        """Return which share of a task of ``size`` image sets is start-up."""
        return self.startup / (self.startup + size * self.image_set)

    def __str__(self) -> str:
        text = f"start-up {self.startup:.1f} s, image set {self.image_set:.2f} s"
        if not self.image_sets:
            return f"{text} (estimated: this pipeline was never run here)"
        return f"{text} (measured on {self.image_sets:,} image sets)"


def fingerprint(pipeline: Pipeline) -> str:
    """Return what a cost belongs to: the pipeline without notes and window settings."""
    text = repr([(m.name, m.settings) for m in pipeline.enabled])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def place() -> Path:
    """Return the file that costs are remembered in."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "labkit" / "cellprofiler-costs.json"


def estimate(pipeline: Pipeline, megapixels: float = 1.0) -> Cost:
    """Guess the cost of a pipeline that was never run.

    Parameters
    ----------
    megapixels : float
        Millions of pixels of an image set, all channels together.
    """
    heavy = re.compile(r"Texture|Granularity|Zernike|Quality|Neighbors|Distribution|Watershed")
    weight = sum(5 if heavy.search(module.name) else 1 for module in pipeline.enabled)
    return Cost(STARTUP, max(0.3, weight * (_PER_MODULE + _PER_MEGAPIXEL * megapixels)))


def recall(pipeline: Pipeline, megapixels: float = 1.0) -> Cost:
    """Return the measured cost of a pipeline, or an estimate (see :func:`estimate`)."""
    cost = _read().get(fingerprint(pipeline))
    if cost is None:
        return estimate(pipeline, megapixels)
    try:
        return Cost(**cost)
    except TypeError:
        return estimate(pipeline, megapixels)


def remember(key: str, cost: Cost, file: Path | None = None) -> None:
    """Keep a measured cost for the next run; the file is only a convenience and may be deleted.

    Parameters
    ----------
    key : str
        See :func:`fingerprint`.
    file : Path, optional
        Instead of :func:`place`.
    """
    _keep(key, asdict(cost), file)


def combine(measurements: list[dict[str, float]]) -> Cost | None:
    """Make one cost of the facts that tasks recorded.

    Parameters
    ----------
    measurements : list of dict
        ``startup`` and ``working`` (CPU seconds), ``image_sets``, ``memory`` (bytes) of a task.
    """
    whole = [m for m in measurements if m.get("image_sets")]
    count = sum(m["image_sets"] for m in whole)
    if not count:
        return None
    startup = sorted(m["startup"] for m in whole)[len(whole) // 2]
    working = sum(m["working"] for m in whole)
    memory = max(int(m.get("memory", 0)) for m in whole)
    return Cost(startup, max(0.01, working / count), memory, int(count), time.time())


def _keep(key: str, entry: dict[str, Any], file: Path | None = None) -> None:
    path = file or place()
    costs = _read(path) | {key: entry}
    recent = sorted(costs.items(), key=lambda item: item[1].get("measured", 0))[-_KEPT:]
    path.parent.mkdir(parents=True, exist_ok=True)
    # Of its own: this module runs in run folders, where there is no labkit.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(dict(recent), indent=1))
    temporary.replace(path)


def _read(file: Path | None = None) -> dict[str, dict[str, Any]]:
    try:
        data = json.loads((file or place()).read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(data, dict):
        return {}
    return {key: entry for key, entry in data.items() if isinstance(entry, dict)}


def recall_size(content: str) -> int | None:
    """Return how many image sets a task of this same work had when it was planned before."""
    size = _read().get(f"size:{content}", {}).get("size")
    return size if isinstance(size, int) and size > 0 else None


def remember_size(content: str, size: int) -> None:
    """Keep how the same work was split: split otherwise, it would be another job."""
    if recall_size(content) != size:
        _keep(f"size:{content}", {"size": size, "measured": time.time()})
