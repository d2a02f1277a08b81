"""CellProfiler inside a notebook: a pipeline run on arrays, its measurements as DataFrames.

For the kernel ``Python 3 (cellprofiler)``, whose environment has CellProfiler itself. Nothing is
read from disk or written to it but the pipeline.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from labkit.base.problems import LabkitError, Problem, ProblemsError, unknown_name
from labkit.workflows.cellprofiler import arrays
from labkit.workflows.cellprofiler.task_code import probe

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class NotInThisKernelError(LabkitError):
    """CellProfiler is not installed in the environment of this kernel."""


class PipelineRunError(LabkitError):
    """A module of the pipeline ended with an error."""


@dataclass(frozen=True)
class PipelineResult:
    """What a pipeline made of one set of images.

    Attributes
    ----------
    measurements : cellprofiler_core.measurement.Measurements
        CellProfiler's own measurements, as its modules have them.
    images : dict of str to numpy.ndarray
        Every image by name, given and made: shape (rows, columns), (rows, columns, 3) in colour
        or (planes, rows, columns) in 3-D, values as CellProfiler has them (0 to 1).
    objects : dict of str to numpy.ndarray
        Label matrices by the objects' name, shape of the image: 0 is background, *n* is object
        *n* of the table.
    left_out : list of str
        Modules that were not run, since they read or write files.
    """

    measurements: Any = field(repr=False)
    images: dict[str, np.ndarray] = field(repr=False)
    objects: dict[str, np.ndarray] = field(repr=False)
    left_out: list[str]

    def __repr__(self) -> str:
        """Name what is in it."""
        counts = ", ".join(f"{name} ({labels.max()})" for name, labels in self.objects.items())
        return f"PipelineResult(images: {', '.join(self.images)}; objects: {counts or 'none'})"

    def table(self, objects: str) -> pd.DataFrame:
        """Return the measurements of objects, or of the image: as :func:`objects2df`."""
        return objects2df(self, objects)

    def show(self, image: str, objects: str | None = None) -> Figure:
        """Draw an image, with the outlines of objects.

        Parameters
        ----------
        image : str
            Name of an image.
        objects : str, optional
            Name of objects, whose outlines are drawn over it.

        Returns
        -------
        matplotlib.figure.Figure
            The picture: a notebook shows it.

        Raises
        ------
        LabkitError
            There is no such image, there are no such objects, or they are 3-D.
        """
        from labkit.jobs.notebook.figure import NotebookFigure

        if image not in self.images:
            raise LabkitError(str(unknown_name("image", image, list(self.images))))
        if objects is not None and objects not in self.objects:
            raise LabkitError(str(unknown_name("objects", objects, list(self.objects))))
        picture = self.images[image]
        if picture.ndim == 3 and picture.shape[-1] not in (3, 4):
            raise LabkitError(f"{image} is a volume: draw one plane of result.images[{image!r}].")
        figure = NotebookFigure(figsize=(6, 6), layout="constrained")
        axis = figure.subplots()
        colour = picture.ndim == 3
        axis.imshow(np.clip(picture, 0, 1) if colour else picture, cmap=None if colour else "gray")
        if objects is not None:
            labels = self.objects[objects]
            levels = [0.5]
            axis.contour(_edges(labels), levels=levels, colors="#e69f00", linewidths=0.6)
        axis.set_title(image if objects is None else f"{objects} on {image}")
        axis.set_axis_off()
        return figure


def run_pipeline(
    pipeline: str | os.PathLike[str],
    images: Mapping[str, Any],
    metadata: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> PipelineResult:
    r"""Run a CellProfiler pipeline on arrays, in this kernel.

    Modules that load images are left out, for the arrays take their place, and so are those that
    write files. For a folder of images use ``labkit.CellProfiler``, a job.

    Parameters
    ----------
    pipeline : path
        A ``.cppipe`` or ``.cpproj`` file.
    images : mapping of str to array
        By the name that the pipeline gives to the image (``{"OrigBlue": array}``): shape
        (rows, columns), or (rows, columns, 3) in colour, or (planes, rows, columns) for a 3-D
        pipeline. uint8 and uint16 are divided by 255 and 65535, as CellProfiler does with files;
        float is taken as it is, and should be 0 to 1.
    metadata : mapping of str to value, optional
        What the pipeline may use as ``\g<Well>``: ``{"Well": "A01"}``.
    progress : bool
        Say on stderr which module runs.

    Returns
    -------
    PipelineResult
        Measurements, images and objects.

    Raises
    ------
    NotInThisKernelError
        This kernel's environment has no CellProfiler.
    ProblemsError
        The pipeline cannot be loaded, or works on many image sets at once; an image is missing,
        not asked for, or of a kind that CellProfiler does not take. All problems at once.
    PipelineRunError
        A module failed; the message names it.
    """
    with _quiet():
        _start(Path(pipeline))
        loaded, dropped, error = probe.load(os.fspath(pipeline))
    if not error and not dropped:
        error = probe.incomplete(os.fspath(pipeline), len(loaded.modules(False)))
    if error or dropped:
        texts = [f"{entry['module']}: {entry['error']}" for entry in dropped] or [error]
        raise ProblemsError([Problem(str(pipeline), f"cannot be loaded: {t}") for t in texts])
    modules = [module for module in loaded.modules() if arrays.runs(module)]
    left_out = [module.module_name for module in loaded.modules() if not arrays.runs(module)]
    pixels = {name: np.asarray(image) for name, image in images.items()}
    problems = [
        *arrays.module_problems(loaded, modules),
        *arrays.image_problems(loaded, modules, pixels),
    ]
    if problems:
        raise ProblemsError(problems)
    for module in loaded.modules(False):
        if module not in modules:
            module.enabled = False
    return PipelineResult(
        *_run(loaded, modules, pixels, metadata or {}, progress), left_out=left_out
    )


def objects2df(measurements: Any, objects: str) -> pd.DataFrame:
    """Return what was measured of objects.

    Parameters
    ----------
    measurements : PipelineResult or cellprofiler_core.measurement.Measurements
        Of one image set.
    objects : str
        Name of the objects, ``"Nuclei"``; ``"Image"`` for what was measured of the whole image.

    Returns
    -------
    pandas.DataFrame
        One row per object, by ``ObjectNumber`` from 1 (the number in the label matrix); one row
        for ``"Image"``. Columns are CellProfiler's measurements, lengths in pixels.

    Raises
    ------
    LabkitError
        There are no such objects.
    """
    source = measurements.measurements if isinstance(measurements, PipelineResult) else measurements
    known = [name for name in source.get_object_names() if name != "Experiment"]
    if objects not in known:
        raise LabkitError(str(unknown_name("objects", objects, known)))
    names = source.get_feature_names(objects)
    columns = {name: source.get_current_measurement(objects, name) for name in names}
    if objects == "Image":
        return pd.DataFrame([columns])
    columns.pop("Number_Object_Number", None)
    rows = int(source.get_current_measurement("Image", f"Count_{objects}"))
    # CellProfiler keeps nothing at all where there is no object, or no measurement of one
    filled = {
        name: np.full(rows, np.nan) if values is None else _padded(values, rows)
        for name, values in columns.items()
    }
    return pd.DataFrame(filled, index=pd.RangeIndex(1, rows + 1, name="ObjectNumber"))


def _padded(values: Any, rows: int) -> np.ndarray:
    """Measurements of fewer values than objects lack the last ones, as in CellProfiler's tables."""
    array = np.asarray(values)
    if len(array) >= rows:
        return array[:rows]
    return np.concatenate([array, np.full(rows - len(array), np.nan)])


def _start(pipeline: Path) -> None:
    """Make CellProfiler ready for this process.

    Raises
    ------
    NotInThisKernelError
        It is not installed here.
    ProblemsError
        There is no such pipeline.
    """
    try:
        preferences = import_module("cellprofiler_core.preferences")
    except ModuleNotFoundError:
        raise NotInThisKernelError(
            "This kernel has no CellProfiler. Next step: choose Kernel > Change Kernel > Python 3 "
            "(cellprofiler), or send a job, from any kernel: labkit.CellProfiler(pipeline, "
            "images=...).submit()."
        ) from None
    if not pipeline.is_file():
        raise ProblemsError([Problem(str(pipeline), "there is no such file")])
    preferences.set_awt_headless(True)
    preferences.set_headless()
    if probe.needs_java(os.fspath(pipeline)):
        import_module("cellprofiler_core.utilities.java").start_java()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what CellProfiler logs while it is loaded, such as that there is no MySQL."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _run(
    pipeline: Any,
    modules: list[Any],
    arrays: Mapping[str, np.ndarray],
    metadata: Mapping[str, Any],
    progress: bool,
) -> tuple[Any, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Run modules one by one on one image set; return measurements, images and label matrices."""
    core = "cellprofiler_core."
    measurements = import_module(core + "measurement").Measurements(mode="memory")
    image_class = import_module(core + "image").Image
    image_list = import_module(core + "image").ImageSetList()
    objects = import_module(core + "object").ObjectSet()
    workspace_class = import_module(core + "workspace").Workspace
    measurements.image_set_number = 1
    facts = {"Group_Number": 1, "Group_Index": 1}
    facts |= {f"Metadata_{name}": value for name, value in metadata.items()}
    for name, value in facts.items():
        measurements.add_measurement("Image", name, value, image_set_number=1)
    dimensions = 3 if pipeline.volumetric() else 2
    for name, array in arrays.items():
        measurements.add(name, image_class(array, dimensions=dimensions))

    def workspace(module: Any) -> Any:
        return workspace_class(pipeline, module, measurements, objects, measurements, image_list)

    started = time.monotonic()
    for number, module in enumerate(modules, 1):
        if progress:
            sys.stderr.write(f"\r{number} of {len(modules)}: {module.module_name:<40}")
            sys.stderr.flush()
        module.show_window = False
        here = workspace(module)
        try:
            if number == 1 and not _prepare(modules, workspace):
                raise PipelineRunError("a module says that it cannot begin")
            module.run(here)
        except Exception as error:
            raise PipelineRunError(
                f"Module {module.module_num} ({module.module_name}) failed: {probe.describe(error)}"
            ) from error
    if progress:
        seconds = time.monotonic() - started
        sys.stderr.write(f"\r{len(modules)} modules in {seconds:.1f} s{'':<40}\n")
    images = {name: measurements.get_image(name).pixel_data for name in measurements.names}
    labels = {name: objects.get_objects(name).segmented for name in objects.object_names}
    return measurements, images, labels


def _prepare(modules: list[Any], workspace: Any) -> bool:
    """Let each module make ready, as CellProfiler does before the first image set."""
    return all(
        module.prepare_run(workspace(module))
        and module.prepare_group(workspace(module), {}, [1]) is not False
        for module in modules
    )


def _edges(labels: np.ndarray) -> np.ndarray:
    """Return 1 on the pixels of an object that touch another or the background, else 0."""
    edge = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        differ = np.diff(labels, axis=axis) != 0
        before = [slice(None)] * 2
        after = [slice(None)] * 2
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        edge[tuple(before)] |= differ
        edge[tuple(after)] |= differ
    return (edge & (labels > 0)).astype(float)
