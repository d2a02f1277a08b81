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
from labkit.workflows.cellprofiler import checks, illumination, modules
from labkit.workflows.cellprofiler.images import ImageSets, read_images
from labkit.workflows.cellprofiler.job import CellProfilerJob
from labkit.workflows.cellprofiler.loading import load
from labkit.workflows.cellprofiler.pipeline import Pipeline, PipelineError
from labkit.workflows.cellprofiler.plans import make_plan
from labkit.workflows.cellprofiler.prepared import Prepared
from labkit.workflows.cellprofiler.remote import on_disk
from labkit.workflows.cellprofiler.saves import saved_names
from labkit.workflows.cellprofiler.sources import Images, read_source
from labkit.workflows.cellprofiler.task_code.costs import Cost
from labkit.workflows.cellprofiler.task_code.gather import platemaps

_OWN = ("ImageNumber", "Group_")  # columns of labkit's own


class CellProfiler(Workflow):
    """Run a CellProfiler pipeline over images.

    Parameters
    ----------
    pipeline : str or Path
        ``.cppipe`` or ``.json`` file, with ExportToSpreadsheet.
    images : str, Path, DataFrame or iterable of paths
        A folder; a ``.csv`` or table in LoadData's format (see :func:`labkit.image_sets`); a
        ``.txt`` with one path a line; paths. Each may be, or name, ``s3://bucket/key``: tasks fetch
        their images before.
    illumination : str or Path, optional
        A pipeline that calculates illumination functions over all images of a plate and saves
        them. It runs first, once per plate; the analysis finds each image that it saves under
        that image's name.
    illumination_by : str or sequence of str, optional
        Metadata whose image sets share an illumination function, instead of the plate; ``"all"``
        calculates one over all images.
    plate, well, site : str, optional
        Metadata that stand for these, where they have names of their own, e.g.
        ``plate="Batch_DAPI"``.
    group_by : str or sequence of str, optional
        Metadata whose image sets stay in one task, e.g. ``["Plate", "Well"]``. Groups of the
        pipeline itself always stay together.
    data_file : str, Path or DataFrame, optional
        LoadData CSV, or such a table, whose relative paths begin at the folder ``images``.
    input_folder : str or Path, optional
        CellProfiler's Default Input Folder, where the pipeline looks for further files; without
        it, the folder of the images.
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

    def __init__(
        self,
        pipeline: str | Path,
        images: Images,
        *,
        illumination: str | Path | None = None,
        illumination_by: str | Sequence[str] | None = None,
        plate: str | None = None,
        well: str | None = None,
        site: str | None = None,
        group_by: str | Sequence[str] | None = None,
        data_file: str | Path | pd.DataFrame | None = None,
        input_folder: str | Path | None = None,
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
        self.illumination_by = _names(illumination_by) if illumination_by is not None else None
        self.place_names = {"plate": plate, "well": well, "site": site}
        self.group_by = _names(group_by or ())
        self.data_file = data_file
        self.input_folder = Path(input_folder).expanduser().resolve() if input_folder else None
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
        prepared = Prepared(
            group_by=self.group_by,
            plugins=self.plugins,
            profiles=self.profiles is not False,
            illumination_by=self.illumination_by,
            chunk_size=self.chunk_size,
            cost=self.cost,
            name=self.name,
            problems=self._check_arguments(),
        )
        try:
            prepared.plate_map = self._plate_map()
        except platemaps.PlateMapError as error:
            prepared.problems.append(Problem("profiles", f"{error}."))
        try:
            prepared.source = read_source(self.images, self.data_file)
        except RefusedError as error:
            prepared.problems += error.problems
        base = on_disk(prepared.source.base) if prepared.source is not None else None
        prepared.input_folder = self.input_folder or base
        if self.illumination_file is not None:
            prepared.illumination, prepared.illumination_sets = self._read(
                self.illumination_file, prepared
            )
        later = saved_names(prepared.illumination) if prepared.illumination else []
        prepared.pipeline, prepared.sets = self._read(self.pipeline_file, prepared, later)
        if prepared.pipeline is not None and prepared.sets is not None:
            self._check_analysis(prepared, prepared.pipeline, prepared.sets)
        if prepared.illumination is not None and prepared.illumination_sets is not None:
            self._check_illumination(prepared, prepared.illumination, prepared.illumination_sets)
        prepared.problems = list(dict.fromkeys(prepared.problems))
        return prepared

    def _plate_map(self) -> pd.DataFrame | None:
        """Return the plate map, where one was given."""
        if isinstance(self.profiles, pd.DataFrame):
            return platemaps.named(self.profiles)
        if isinstance(self.profiles, (str, Path)):
            return platemaps.read(Path(self.profiles).expanduser())
        return None

    def _read(
        self, path: str | Path, prepared: Prepared, later: Sequence[str] = ()
    ) -> tuple[Pipeline | None, ImageSets | None]:
        """Load a pipeline and make its image sets; what cannot be done is a problem."""
        table = prepared.source.table if prepared.source is not None else None
        pipeline = self._load(path, prepared, table, later)
        if pipeline is None or prepared.source is None:
            if pipeline is not None:
                prepared.problems += modules.check_modules(pipeline)
            return pipeline, None
        prepared.problems += modules.check_modules(pipeline)
        try:
            sets = read_images(pipeline, prepared.source, self.place_names)
        except RefusedError as error:
            prepared.problems += error.problems
            return pipeline, None
        if sets.loads_data and table is None:  # LoadData's own CSV: now its columns are known
            pipeline = self._load(path, prepared, sets.table, later) or pipeline
        prepared.problems += checks.check_findings(pipeline, sets)
        prepared.problems += sets.problems
        return pipeline, sets

    def _load(
        self,
        path: str | Path,
        prepared: Prepared,
        table: pd.DataFrame | None,
        later: Sequence[str],
    ) -> Pipeline | None:
        if not isinstance(path, (str, Path)):
            prepared.problems.append(Problem("pipeline", f"must be a path, not {path!r}."))
            return None
        columns: list[str] = []
        row: list[str] = []
        if table is not None:
            table = table.drop(columns=[c for c in table if str(c).startswith(_OWN)])
            table = table.head(1).assign(**{f"FileName_{name}": "later.npy" for name in later})
            columns, row = list(map(str, table.columns)), list(map(str, table.iloc[0]))
        try:
            return load(
                path,
                columns=columns,
                row=row,
                input_folder=prepared.input_folder,
                plugins=self.plugins if self.plugins and self.plugins.is_dir() else None,
            )
        except (PipelineError, OSError) as error:
            text = str(error)
            end = "" if text.endswith((".", "!")) else "."
            prepared.problems.append(Problem(Path(path).name or "pipeline", f"{text}{end}"))
            return None

    def _check_arguments(self) -> list[Problem]:
        problems = []
        if self.plugins is not None and not self.plugins.is_dir():
            problems.append(Problem("plugins", f"there is no folder {self.plugins}."))
        if self.input_folder is not None and not self.input_folder.is_dir():
            problems.append(Problem("input_folder", f"there is no folder {self.input_folder}."))
        size = self.chunk_size
        if size is not None and (not isinstance(size, int) or size < 1):
            problems.append(Problem("chunk_size", f"must be a number above zero, not {size!r}."))
        return problems

    def _check_analysis(self, prepared: Prepared, pipeline: Pipeline, sets: ImageSets) -> None:
        prepared.problems += [
            unknown_name("metadata to group by", name, sets.metadata)
            for name in self.group_by
            if sets.metadata_values(name) is None
        ]
        if self.chunk_size is None or self.chunk_size < len(sets):
            prepared.problems += modules.check_splitting(pipeline, len(sets))
        prepared.problems += modules.check_exports(pipeline, sets.table)
        prepared.problems += checks.check_plate_map(prepared.plate_map, sets)
        prepared.problems += checks.check_integrity(sets, checks.broken_images(sets))
        if prepared.illumination and saved_names(prepared.illumination) and not sets.loads_data:
            hint = "Let the analysis begin with LoadData; give images as a CSV or a table."
            text = "illumination functions reach it only through LoadData."
            prepared.problems.append(Problem(pipeline.path.name, text, hint))

    def _check_illumination(self, prepared: Prepared, pipeline: Pipeline, sets: ImageSets) -> None:
        where = pipeline.path.name
        prepared.problems += modules.check_exports(pipeline, sets.table.iloc[:1], tables=False)
        prepared.problems += illumination.check_keys(sets, self.illumination_by)
        names = saved_names(pipeline)
        if not names:
            hint = "Add SaveImages for it, as .npy or .tiff."
            prepared.problems.append(Problem(where, "it saves no illumination function.", hint))
        elif prepared.pipeline is not None and not prepared.pipeline.images_read & set(names):
            text = f"it saves {', '.join(names)}, and {prepared.pipeline.path.name} reads none."
            prepared.problems.append(Problem(where, text, "Use the same image names in both."))


def _names(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _show(images: Any) -> str:
    return repr(str(images)) if isinstance(images, (str, Path)) else f"<{type(images).__name__}>"
