"""labkit: the lab's helper library for notebooks.

``import labkit`` costs next to nothing; each part is loaded when it is first used::

    import labkit
    labkit.cellxgene(adata)        # see cells in the browser
"""

# No `from __future__ import annotations`: its name would take the function's place.
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labkit import storage
    from labkit.base.version import __version__
    from labkit.jobs.costs import costs
    from labkit.jobs.job import Job, jobs, open_job
    from labkit.jobs.model import Resources
    from labkit.portal.annotating import annotate, annotations
    from labkit.portal.datasets import publish, published
    from labkit.portal.webapps import app_logs, publish_app, published_apps
    from labkit.viewers.cellxgene import cellxgene
    from labkit.workflows.alignment import Alignment, Reference
    from labkit.workflows.alignment.variants import Variants
    from labkit.workflows.cellprofiler import (
        CellProfiler,
        image_sets,
        import_cpb,
        import_dcp,
    )
    from labkit.workflows.cellprofiler.interactive import objects2df, run_pipeline
    from labkit.workflows.command import Command

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
    "costs",
    "image_sets",
    "import_cpb",
    "import_dcp",
    "jobs",
    "objects2df",
    "open_job",
    "publish",
    "publish_app",
    "published",
    "published_apps",
    "run_pipeline",
    "storage",
]

# public name -> module that holds it; workflows are found by their entry points
_PARTS = {
    "Job": "labkit.jobs.job",
    "Reference": "labkit.workflows.alignment",
    "Resources": "labkit.jobs.model",
    "__version__": "labkit.base.version",
    "annotate": "labkit.portal.annotating",
    "annotations": "labkit.portal.annotating",
    "app_logs": "labkit.portal.webapps",
    "cellxgene": "labkit.viewers.cellxgene",
    "costs": "labkit.jobs.costs",
    "image_sets": "labkit.workflows.cellprofiler",
    "import_cpb": "labkit.workflows.cellprofiler",
    "import_dcp": "labkit.workflows.cellprofiler",
    "jobs": "labkit.jobs",
    "objects2df": "labkit.workflows.cellprofiler.interactive",
    "open_job": "labkit.jobs.job",
    "publish": "labkit.portal.datasets",
    "publish_app": "labkit.portal.webapps",
    "published": "labkit.portal.datasets",
    "published_apps": "labkit.portal.webapps",
    "run_pipeline": "labkit.workflows.cellprofiler.interactive",
    "storage": "labkit.storage",
}


def __getattr__(name: str) -> Any:
    """Load a part of labkit when it is first asked for (PEP 562)."""
    if name.startswith("_") and name not in _PARTS:
        raise AttributeError(f"module 'labkit' has no attribute {name!r}")
    if name not in _PARTS:
        plugin = import_module("labkit.jobs.plugins").find_class(name)
        if plugin is None:
            raise AttributeError(f"module 'labkit' has no attribute {name!r}; it has: {__all__}")
        return plugin.load()
    module = import_module(_PARTS[name])
    # Some public names are packages too: those that can be called, as labkit.jobs().
    part = module if _PARTS[name] == f"labkit.{name}" else getattr(module, name)
    globals()[name] = part
    return part


def __dir__() -> list[str]:
    """List the public names, so that tab completion offers them before they are loaded."""
    return sorted(__all__)
