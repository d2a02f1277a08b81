"""CellProfiler jobs: from images to tables, pictures and profiles of a plate."""

from labkit.workflows.cellprofiler.images import image_sets
from labkit.workflows.cellprofiler.requests import import_cpb, import_dcp
from labkit.workflows.cellprofiler.workflow import CellProfiler

__all__ = ["CellProfiler", "image_sets", "import_cpb", "import_dcp"]
