"""Results of a job for a folder in S3 or on a disk, as CellProfiler itself would have left them."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from labkit import storage
from labkit.workflows.cellprofiler.job import CellProfilerJob


def deliver(job: CellProfilerJob, output: str) -> list[str]:
    """Copy tables as CSV, and the images that were saved, to a folder.

    What has the same names there is replaced: delivering twice is delivering once.

    Parameters
    ----------
    job : CellProfilerJob
        It has been gathered.
    output : str
        ``s3://bucket/folder/``, or a folder.

    Returns
    -------
    list of str
        What was written, relative to ``output``.

    Raises
    ------
    StorageError
        Something cannot be written.
    """
    target = f"{output.rstrip('/')}/"
    with tempfile.TemporaryDirectory(prefix="labkit-deliver-") as folder:
        tables = job.to_csv(folder)
        storage.copy(f"{folder}/", target)
    names = [path.name for path in tables]
    images = [Path(path) for path in sorted(set(job.images()["path"]))]
    # results/analysis/<task>/part-<n>/<what the pipeline says>
    results = job.run.folder.results
    parts = {path: path.relative_to(results).parts for path in images}
    own = {path: "/".join(where[3:]) for path, where in parts.items()}
    count = Counter(own.values())
    for path, name in own.items():
        if count[name] > 1:  # several tasks saved it: each keeps its own
            name = f"{parts[path][1]}/{name}"
        storage.copy(path, f"{target}{name}")
        names.append(name)
    return names
