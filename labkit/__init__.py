"""labkit: the lab's helper library for notebooks.

``import labkit`` costs next to nothing; each part is loaded when it is first used::

    import labkit
    labkit.cellxgene(adata)        # see cells in the browser
"""

# No `from __future__ import annotations`: its name would take the function's place.
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labkit.annotating import annotate, annotations
    from labkit.job import Job, jobs, open_job
    from labkit.model import Resources
    from labkit.publishing import publish, published
    from labkit.viewers.cellxgene import cellxgene
    from labkit.webapps import app_logs, publish_app, published_apps
    from labkit.workflows.alignment import Alignment, Reference
    from labkit.workflows.alignment.variants import Variants
    from labkit.workflows.cellprofiler import CellProfiler, image_sets
    from labkit.workflows.command import Command

__version__ = "0.1.0"

__all__ = [
    "Alignment",
    "CellProfiler",
    "Command",
    "Job",
    "Reference",
    "Resources",
    "Variants",
    "__version__",
    "annotate",
    "annotations",
    "app_logs",
    "cellxgene",
    "image_sets",
    "jobs",
    "open_job",
    "publish",
    "publish_app",
    "published",
    "published_apps",
]

# public name -> module that holds it
_PARTS = {
    "Alignment": "labkit.workflows.alignment",
    "CellProfiler": "labkit.workflows.cellprofiler",
    "Command": "labkit.workflows.command",
    "Job": "labkit.job",
    "Reference": "labkit.workflows.alignment",
    "Resources": "labkit.model",
    "Variants": "labkit.workflows.alignment.variants",
    "annotate": "labkit.annotating",
    "annotations": "labkit.annotating",
    "app_logs": "labkit.webapps",
    "cellxgene": "labkit.viewers.cellxgene",
    "image_sets": "labkit.workflows.cellprofiler",
    "jobs": "labkit.job",
    "open_job": "labkit.job",
    "publish": "labkit.publishing",
    "publish_app": "labkit.webapps",
    "published": "labkit.publishing",
    "published_apps": "labkit.webapps",
}


def __getattr__(name: str) -> Any:
    """Load a part of labkit when it is first asked for (PEP 562)."""
    if name not in _PARTS:
        raise AttributeError(f"module 'labkit' has no attribute {name!r}; it has: {__all__}")
    part = getattr(import_module(_PARTS[name]), name)
    globals()[name] = part
    return part


def __dir__() -> list[str]:
    """List the public names, so that tab completion offers them before they are loaded."""
    return sorted(__all__)
