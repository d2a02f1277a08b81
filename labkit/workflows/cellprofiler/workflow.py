"""``labkit.CellProfiler``: a plate of images through a pipeline, in tasks that fit the machine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from labkit.base.problems import Problem, RefusedError, unknown_name
from labkit.jobs.job import Job
from labkit.jobs.plan import Plan
from labkit.workflows.base import Workflow
from labkit.workflows.cellprofiler import checks, modules
from labkit.workflows.cellprofiler.costs import Cost
from labkit.workflows.cellprofiler.images import Images, ImageSets, read_images
from labkit.workflows.cellprofiler.job import CellProfilerJob
from labkit.workflows.cellprofiler.pipeline import Pipeline, PipelineError
from labkit.workflows.cellprofiler.plans import make_plan
from labkit.workflows.cellprofiler.prepared import Prepared


class CellProfiler(Workflow):
    """Run a CellProfiler pipeline over images.

    Parameters
    ----------
    pipeline : str or Path
        ``.cppipe`` or ``.json`` file, with ExportToSpreadsheet.
    images : str, Path, DataFrame or iterable of paths
        A folder; a ``.csv`` or table in LoadData's format (see :func:`labkit.image_sets`); a
        ``.txt`` with one path a line; paths.
    illumination : str or Path, optional
        A pipeline that calculates illumination functions over all images of a plate and saves
        them. It runs first, once per plate; the analysis finds each image that it saves under
        that image's name.
    group_by : str or sequence of str, optional
        Metadata whose image sets stay in one task, e.g. ``["Plate", "Well"]``. Groups of the
        pipeline itself always stay together.
    data_file : str or Path, optional
        LoadData CSV whose relative paths begin at the folder ``images``.
    output : str or Path, optional
        Folder that the run folder is made in.
    plugins : str or Path, optional
        Folder of CellProfiler plugins.
    profiles : bool, str, Path or DataFrame
        Whether well profiles are made (pycytominer). A plate map (CSV or table with a column
        ``Well``) annotates them.
    chunk_size : int, optional
        Image sets per task. Without it, it is chosen from the measured cost.
    cost : Cost, optional
        Cost to size tasks by, instead of the remembered one.
    name : str, optional
        Name of the job; without it, the pipeline's.

    Examples
    --------
    >>> job = labkit.CellProfiler("analysis.cppipe", "plate1/", group_by="Well").submit()
    >>> job.results("Nuclei")
    """

    job_class: ClassVar[type[Job]] = CellProfilerJob
    default_environment: ClassVar[str | None] = checks.ENVIRONMENT

    def __init__(
        self,
        pipeline: str | Path,
        images: Images,
        *,
        illumination: str | Path | None = None,
        group_by: str | Sequence[str] | None = None,
        data_file: str | Path | None = None,
        output: str | Path | None = None,
        plugins: str | Path | None = None,
        profiles: bool | str | Path | pd.DataFrame = True,
        chunk_size: int | None = None,
        cost: Cost | None = None,
        name: str | None = None,
    ) -> None:
        self.pipeline_file = pipeline
        self.images = images
        self.illumination_file = illumination
        self.group_by = (group_by,) if isinstance(group_by, str) else tuple(group_by or ())
        self.data_file = data_file
        self.output = str(output) if output is not None else None
        self.plugins = Path(plugins).expanduser().resolve() if plugins is not None else None
        self.profiles = profiles
        self.chunk_size = chunk_size
        self.cost = cost
        self.name = name

    def __repr__(self) -> str:
        return f"CellProfiler({str(self.pipeline_file)!r}, {_show(self.images)})"

    def check(self) -> list[Problem]:
        """Read pipeline and images and return everything that is wrong with them, by name."""
        return list(self.prepared.problems)

    def build(self, backend: str) -> Plan:
        """Return the plan: illumination per plate, analysis in chunks, gather."""
        return make_plan(self.prepared, backend)

    @cached_property
    def prepared(self) -> Prepared:
        """Everything that can be read and checked before the submit."""
        found = Prepared(
            group_by=self.group_by,
            plugins=self.plugins,
            profiles=self.profiles,
            chunk_size=self.chunk_size,
            cost=self.cost,
            name=self.name,
        )
        found.pipeline = self._read_pipeline(self.pipeline_file, found)
        if self.illumination_file is not None:
            found.illumination = self._read_pipeline(self.illumination_file, found)
        found.problems += self._check_arguments()
        if found.pipeline is not None:
            found.sets = self._read_images(found.pipeline, found)
        if found.illumination is not None:
            found.illumination_sets = self._read_images(found.illumination, found)
        if found.pipeline is not None and found.sets is not None:
            self._check_analysis(found, found.pipeline, found.sets)
        if found.illumination is not None and found.illumination_sets is not None:
            self._check_illumination(found, found.illumination, found.illumination_sets)
        found.problems = list(dict.fromkeys(found.problems))
        return found

    def _read_pipeline(self, path: str | Path, found: Prepared) -> Pipeline | None:
        if not isinstance(path, (str, Path)):
            found.problems.append(Problem("pipeline", f"must be a path, not {path!r}."))
            return None
        try:
            pipeline = Pipeline.read(path)
        except (PipelineError, OSError) as error:
            found.problems.append(Problem(Path(path).name or "pipeline", f"{error}."))
            return None
        found.problems += modules.check_modules(pipeline)
        return pipeline

    def _read_images(self, pipeline: Pipeline, found: Prepared) -> ImageSets | None:
        try:
            sets = read_images(pipeline, self.images, self.data_file)
        except RefusedError as error:
            found.problems += error.problems
            return None
        found.problems += sets.problems
        return sets

    def _check_arguments(self) -> list[Problem]:
        problems = []
        if self.plugins is not None and not self.plugins.is_dir():
            problems.append(Problem("plugins", f"there is no folder {self.plugins}."))
        size = self.chunk_size
        if size is not None and (not isinstance(size, int) or size < 1):
            problems.append(Problem("chunk_size", f"must be a number above zero, not {size!r}."))
        if isinstance(self.profiles, (str, Path)) and not Path(self.profiles).is_file():
            problems.append(Problem("profiles", f"there is no plate map at {self.profiles}."))
        return problems

    def _check_analysis(self, found: Prepared, pipeline: Pipeline, sets: ImageSets) -> None:
        found.problems += [
            unknown_name("metadata to group by", name, sets.metadata)
            for name in self.group_by
            if name not in sets.metadata
        ]
        later = saved_names(found.illumination) if found.illumination else []
        table = sets.table
        if sets.loads_data:
            table = table.assign(
                **{f"{kind}_{name}": "later.npy" for name in later for kind in ("FileName",)}
            )
        found.probe = checks.probe(pipeline, table if sets.loads_data else None, self.plugins)
        found.problems += checks.check_probe(pipeline, found.probe)
        if not found.probe.ran:
            found.problems += checks.check_channels(pipeline, sets, later)
        if self.chunk_size is None or self.chunk_size < len(sets):
            found.problems += modules.check_splitting(pipeline, len(sets), found.probe.across)
        found.problems += modules.check_exports(pipeline, sets.table)
        found.problems += checks.check_integrity(sets, checks.broken_images(sets))
        if later and not sets.loads_data:
            hint = "Let the analysis begin with LoadData; give images as a CSV or a table."
            text = "illumination functions reach it only through LoadData."
            found.problems.append(Problem(pipeline.path.name, text, hint))

    def _check_illumination(self, found: Prepared, pipeline: Pipeline, sets: ImageSets) -> None:
        where = pipeline.path.name
        probe = checks.probe(pipeline, sets.table if sets.loads_data else None, self.plugins)
        found.problems += checks.check_probe(pipeline, probe)
        found.problems += modules.check_exports(pipeline, sets.table.iloc[:1], tables=False)
        names = saved_names(pipeline)
        if not names:
            hint = "Add SaveImages for it, as .npy or .tiff."
            found.problems.append(Problem(where, "it saves no illumination function.", hint))
        elif found.pipeline is not None:
            used = set(found.pipeline.used_images)
            if not used & set(names):
                text = f"it saves {', '.join(names)}, and {found.pipeline.path.name} reads none."
                found.problems.append(Problem(where, text, "Use the same image names in both."))


def saved_names(pipeline: Pipeline) -> list[str]:
    """Return the names of the images that a pipeline saves."""
    return [m.get("Select the image to save") for m in pipeline.named("SaveImages")]


def _show(images: Any) -> str:
    return repr(str(images)) if isinstance(images, (str, Path)) else f"<{type(images).__name__}>"
