"""A CellProfiler job in the notebook: tables, images, profiles."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from labkit.base.problems import LabkitError, unknown_name
from labkit.workflows.cellprofiler.images import ImageSets
from labkit.workflows.cellprofiler.task_code.slices import numbers as from_ranges
from labkit.workflows.gather_job import GatheredJob

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ENGINES = ("pandas", "polars", "arrow")
_PROFILES = ("aggregated", "annotated", "normalized", "selected")


class CellProfilerJob(GatheredJob):
    """A submitted CellProfiler job.

    Examples
    --------
    >>> job.results("Nuclei", columns=["AreaShape_Area"])  # doctest: +SKIP
    >>> job.show(well="B03")  # doctest: +SKIP
    >>> job.heatmap("Nuclei_AreaShape_Area")  # doctest: +SKIP
    """

    def tasks_called(self, name: str) -> list[tuple[str, int]]:
        """Return the tasks of a plate, a well or an image set (by its ImageNumber)."""
        sets = self.image_sets()
        mine = (sets[["plate", "well"]] == name).any(axis=1)
        mine |= sets["ImageNumber"].astype(str) == name
        numbers = set(sets["ImageNumber"][mine])
        tasks = [
            ("analysis", int(task["index"]))
            for task in self.run.folder.tasks("analysis")
            if numbers.intersection(from_ranges(task["params"]["rows"]))
        ]
        if "illumination" in [info.name for info in self.run.manifest.stages]:
            tasks += [
                ("illumination", int(task["index"]))
                for task in self.run.folder.tasks("illumination")
                if task["params"].get("shared") == name
            ]
        return tasks or super().tasks_called(name)

    @property
    def tables(self) -> list[str]:
        """Names of the gathered tables."""
        return sorted(path.stem for path in (self.gathered / "tables").glob("*.parquet"))

    def results(
        self,
        name: str | None = None,
        *,
        engine: str = "pandas",
        columns: Sequence[str] | None = None,
        places: bool = True,
    ) -> Any:
        """Return a table over all image sets; without a name, what tables there are.

        Parameters
        ----------
        name : str
            ``"Nuclei"``, ``"Image"``, ... as the pipeline exports them.
        engine : {"pandas", "polars", "arrow"}
            pandas reads the wanted columns; polars gives a lazy frame; arrow gives a dataset,
            so that tables larger than the memory can be filtered first.
        columns : sequence of str, optional
            Only these (ImageNumber and ObjectNumber always).
        places : bool
            Add ``plate``, ``well`` and ``site`` (pandas only).

        Raises
        ------
        LabkitError
            There is no such table, column or engine; the text lists what there is.
        """
        if name is None:
            content = self.summary
            rows = [{"table": t, **about} for t, about in content["tables"].items()]
            return pd.DataFrame(rows, columns=["table", "rows", "image_sets"])
        if engine not in _ENGINES:
            raise LabkitError(str(unknown_name("engine", engine, _ENGINES)))
        path = self._table(name)
        if engine == "arrow":
            import pyarrow.dataset as dataset

            return dataset.dataset(path)
        if engine == "polars":
            try:
                import polars
            except ImportError:
                raise LabkitError(
                    "polars is not installed in this environment. Use engine='arrow', or ask for "
                    "it to be added."
                ) from None
            lazy = polars.scan_parquet(path)
            return lazy.select(list(columns)) if columns else lazy
        return self._pandas(path, columns, places)

    def _pandas(self, path: Path, columns: Sequence[str] | None, places: bool) -> pd.DataFrame:
        import pyarrow.parquet as pq

        names = pq.read_schema(path).names
        wanted = None
        if columns is not None:
            for column in columns:
                if column not in names:
                    raise LabkitError(str(unknown_name("column", column, names)))
            keys = [key for key in ("ImageNumber", "ObjectNumber") if key in names]
            wanted = list(dict.fromkeys([*keys, *columns]))
        table = pd.read_parquet(path, columns=wanted)
        if places and "ImageNumber" in table:
            where = self._places.reindex(table["ImageNumber"])
            for place in reversed(where.columns):
                if place not in table:
                    table.insert(0, place, where[place].to_numpy())
        return table

    def _table(self, name: str) -> Path:
        path = self.gathered / "tables" / f"{name}.parquet"
        if name not in self.tables:
            raise LabkitError(str(unknown_name("table", name, self.tables)))
        return path

    def to_csv(self, folder: str | Path) -> list[Path]:
        """Write every table as CSV into a folder; return the files."""
        target = Path(folder).expanduser()
        target.mkdir(parents=True, exist_ok=True)
        files = []
        for name in self.tables:
            import pyarrow.csv as pacsv
            import pyarrow.parquet as pq

            files.append(target / f"{name}.csv")
            pacsv.write_csv(pq.read_table(self._table(name)), files[-1])
        return files

    def to_sqlite(self, path: str | Path) -> Path:
        """Write every table into one SQLite file, with an index over its keys.

        Raises
        ------
        LabkitError
            The file is there already.
        """
        import sqlite3
        from contextlib import closing

        target = Path(path).expanduser()
        if target.exists():
            raise LabkitError(f"{target} is there already. Choose another name, or remove it.")
        with closing(sqlite3.connect(target)) as database:
            for name in self.tables:
                table = pd.read_parquet(self._table(name))
                table.to_sql(name, database, index=False, chunksize=10_000)
                keys = [k for k in ("ImageNumber", "ObjectNumber") if k in table]
                if keys:
                    listed = ", ".join(f'"{key}"' for key in keys)
                    quoted = name.replace('"', '""')
                    database.execute(f'CREATE INDEX "{quoted}_key" ON "{quoted}" ({listed})')
            database.commit()
        return target

    def image_sets(self) -> pd.DataFrame:
        """Return the job's image sets: places, files, metadata."""
        return pd.read_csv(
            self.run.folder.files / "images.csv",
            dtype=dict.fromkeys(("plate", "well", "site"), str),
            keep_default_na=False,
        )

    def images(self, image: str | None = None) -> pd.DataFrame:
        """Return the images that were saved, by image set: ``path``, ``image``, places.

        Parameters
        ----------
        image : str, optional
            Only those of this name in the pipeline.
        """
        table = pd.read_parquet(self.gathered / "images.parquet")
        table["path"] = [str(self.run.folder.results / path) for path in table["path"]]
        if image is not None:
            names = sorted(set(table["image"]))
            if image not in names:
                raise LabkitError(str(unknown_name("saved image", image, names)))
            table = table[table["image"] == image].reset_index(drop=True)
        return table

    def profiles(self, kind: str = "normalized") -> pd.DataFrame:
        """Return the well profiles.

        Parameters
        ----------
        kind : {"aggregated", "annotated", "normalized", "selected"}
            A step of pycytominer's.

        Raises
        ------
        LabkitError
            There are none; the text says why.
        """
        if kind not in _PROFILES:
            raise LabkitError(str(unknown_name("kind of profile", kind, _PROFILES)))
        path = self.gathered / "profiles" / f"{kind}.parquet"
        if not path.is_file():
            raise LabkitError(f"There are no profiles: {self.summary['profiles']['text']}.")
        return pd.read_parquet(path)

    def show(
        self,
        *,
        plate: str | None = None,
        well: str | None = None,
        site: str | int | None = None,
        channels: str | Sequence[str] | None = None,
        outlines: bool = True,
    ) -> Figure:
        """Show the images of one place, with the saved pictures (outlines) beside them.

        Parameters
        ----------
        plate, well, site : str, optional
            Which image set; the first that fits.
        channels : str or sequence of str, optional
            Which channels; all without it.
        outlines : bool
            Also what the pipeline saved for that image set.

        Raises
        ------
        LabkitError
            There is no such place or channel; the text lists what there is.
        """
        from labkit.workflows.cellprofiler.show import show

        wanted = [channels] if isinstance(channels, str) else channels
        return show(self, {"plate": plate, "well": well, "site": site}, wanted, outlines)

    def heatmap(
        self, feature: str, *, plate: str | None = None, statistic: str = "median"
    ) -> Figure:
        """Draw a feature over the plate.

        Parameters
        ----------
        feature : str
            ``<table>_<column>``, e.g. ``"Nuclei_AreaShape_Area"``, or ``"Count_Nuclei"``.
        plate : str, optional
            Which plate, where there are several.
        statistic : str
            Over the objects of a well: ``median``, ``mean``, ``std``, ``min``, ``max``.
        """
        from labkit.workflows.cellprofiler.platemap import draw, feature_by_well

        values = feature_by_well(self, feature, statistic)
        return draw(values, feature, plate)

    @cached_property
    def _places(self) -> pd.DataFrame:
        sets = self.image_sets().set_index("ImageNumber")
        return sets[["plate", "well", "site"]]

    @cached_property
    def _sets(self) -> ImageSets:
        return ImageSets(self.image_sets(), True)
