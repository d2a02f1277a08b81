r"""From a folder, a list, a LoadData CSV or a DataFrame to the table of image sets.

The table has one row per image set, in CellProfiler's own order, with ``ImageNumber`` (from 1),
``FileName_<channel>`` and ``PathName_<channel>`` (absolute), ``Metadata_*`` and, where the
pipeline groups, ``Group_Number`` and ``Group_Index``. That is LoadData's format, so the table can
be saved and used again.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from labkit.base.problems import Problem, RefusedError, unknown_name
from labkit.base.remote import is_remote
from labkit.jobs.model import literal
from labkit.storage.entry import Entry
from labkit.storage.errors import StorageError
from labkit.workflows.cellprofiler import remote
from labkit.workflows.cellprofiler.loaddata import channels_of
from labkit.workflows.cellprofiler.matching import match_files
from labkit.workflows.cellprofiler.pipeline import Pipeline
from labkit.workflows.cellprofiler.places import NAMES, as_text, choose, find_values, places_of
from labkit.workflows.cellprofiler.sources import Source, local_path, table_source, walk

_LOOKED_AT = 5  # image sets, where files cannot be read


@dataclass(frozen=True)
class ImageSets:
    """The image sets of an analysis.

    Attributes
    ----------
    table : DataFrame
        One row per image set, see above.
    loads_data : bool
        Whether CellProfiler gets it as a LoadData CSV (else as a list of files).
    groups : tuple of str
        The pipeline's own grouping (without ``Metadata_``).
    problems : tuple of Problem
        What was found while the table was made.
    place_columns : mapping of str to str
        The columns of plate, well and site, where a person named them.
    """

    table: pd.DataFrame = field(repr=False)
    loads_data: bool
    groups: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    place_columns: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def channels(self) -> list[str]:
        """Image names, such as ``DNA``."""
        return channels_of(self.table)

    @property
    def metadata(self) -> list[str]:
        """Metadata names, without ``Metadata_``."""
        prefix = "Metadata_"
        return [name[len(prefix) :] for name in self.table.columns if name.startswith(prefix)]

    @property
    def megapixels(self) -> float:
        """Millions of pixels of the first image set that can be read; 1.0 where none can."""
        from PIL import Image

        for _, files in self.paths().head(_LOOKED_AT).iterrows():
            pixels = 0
            try:
                for path in files:
                    file = io.BytesIO(remote.content(path)) if is_remote(path) else path
                    with Image.open(file) as image:
                        pixels += image.width * image.height
            except (OSError, ValueError):  # cut off, or a format that only CellProfiler reads
                continue
            return pixels / 1e6
        return 1.0

    @cached_property
    def remote(self) -> dict[str, Entry | StorageError]:
        """The images that lie in S3, or why one cannot be read; asked for once."""
        addresses = [path for path in set(self.paths().to_numpy().ravel()) if is_remote(path)]
        if not addresses:
            return {}
        from labkit.storage.looking import look_all

        return look_all(sorted(addresses))

    def remote_inputs(self, rows: Iterable[int]) -> tuple[str, ...]:
        """Return the images in S3 that some rows need and that are there, as a task's inputs."""
        addresses = self.paths().iloc[list(rows)].to_numpy().ravel()
        return tuple(
            literal(address)
            for address in dict.fromkeys(addresses)
            if isinstance(self.remote.get(address), Entry)
        )

    def places(self) -> pd.DataFrame:
        """Return ``plate``, ``well`` and ``site`` of each image set, as text; empty if unknown."""
        return places_of(self.table, self.channels, self.place_columns)

    def metadata_values(self, name: str) -> pd.Series | None:
        """Return metadata as text, one value per image set; None where there is none.

        Parameters
        ----------
        name : str
            As it is called in the table, or ``Plate``, ``Well`` or ``Site`` for what stands for
            it, or the name that is there for each channel.
        """
        place = name.lower()
        if f"Metadata_{name}" in self.table and place not in self.place_columns:
            return as_text(self.table[f"Metadata_{name}"])
        if place in NAMES:
            values = self.places()[place]
            return values if values.astype(bool).any() else None
        return find_values(self.table, (name,), self.channels)

    def paths(self) -> pd.DataFrame:
        """Return the absolute path of each image: one column per channel, one row per set."""
        table = self.table
        return pd.DataFrame(
            {
                name: [
                    os.path.join(folder, file)  # noqa: PTH118 (fast: once per image)
                    for folder, file in zip(
                        table[f"PathName_{name}"], table[f"FileName_{name}"], strict=True
                    )
                ]
                for name in self.channels
            },
            index=table.index,
        )


def image_sets(folder: str | Path, pattern: str) -> pd.DataFrame:
    r"""List image sets by a pattern of the file names, as a table for ``images=``.

    Parameters
    ----------
    folder : str or Path
        Searched with all its folders; it may be ``s3://bucket/folder``.
    pattern : str
        A regular expression that the end of the path below ``folder`` must match, with a named
        group ``Channel`` and groups for the rest, e.g.
        ``r"(?P<Plate>\w+)/(?P<Well>[A-P]\d\d)_s(?P<Site>\d+)_(?P<Channel>\w+)\.tif"``.

    Returns
    -------
    DataFrame
        One row per image set: ``FileName_*`` and ``PathName_*`` per channel, ``Metadata_*``.

    Raises
    ------
    RefusedError
        Nothing matches, channels are missing, or two files claim one place: all are named.
    """
    there = is_remote(str(folder))
    top = remote.to_path(str(folder)) if there else Path(folder).expanduser().resolve()
    try:
        expression = re.compile(f"(?:{pattern})$")
    except re.error as error:
        raise RefusedError([Problem("pattern", f"it is no regular expression: {error}")]) from error
    keys = [name for name in expression.groupindex if name != "Channel"]
    if "Channel" not in expression.groupindex:
        hint = r"Write e.g. (?P<Channel>\w+) where the channel stands."
        raise RefusedError([Problem("pattern", "it has no group called Channel.", hint)])
    sets: dict[tuple[str, ...], dict[str, Path]] = {}
    problems = []
    channels: dict[str, None] = {}
    for path in remote.walk(top) if there else walk(top):
        match = expression.search(str(path.relative_to(top)))
        if not match:
            continue
        channel = match["Channel"]
        channels.setdefault(channel)
        files = sets.setdefault(tuple(match[key] or "" for key in keys), {})
        if channel in files:
            problems.append(
                Problem(path.name, f"it claims the same place as {files[channel].name}.")
            )
        files[channel] = path
    if not sets:
        problems.append(Problem(str(top), "no file there matches the pattern."))
    rows = []
    for key, files in sorted(sets.items()):
        for channel in channels:
            if channel not in files:
                where = ", ".join(f"{k} {v}" for k, v in zip(keys, key, strict=True))
                problems.append(Problem(where, f"channel {channel} is missing."))
        rows.append(
            {f"FileName_{name}": path.name for name, path in files.items()}
            | {f"PathName_{name}": remote.to_address(path.parent) for name, path in files.items()}
            | {f"Metadata_{k}": v for k, v in zip(keys, key, strict=True)}
        )
    if problems:
        raise RefusedError(problems)
    order = [f"{kind}_{name}" for name in channels for kind in ("FileName", "PathName")]
    return pd.DataFrame(rows)[[*order, *(f"Metadata_{key}" for key in keys)]]


def read_images(
    pipeline: Pipeline, source: Source, places: Mapping[str, str | None] | None = None
) -> ImageSets:
    """Make the table of image sets that a pipeline will see.

    Parameters
    ----------
    pipeline : Pipeline
        Its LoadData, or its Images, Metadata, NamesAndTypes and Groups modules, decide.
    source : Source
        What a person gave, see :func:`labkit.workflows.cellprofiler.sources.read_source`.
    places : mapping of str to (str or None), optional
        The metadata for ``plate``, ``well`` and ``site``, where a person named them.

    Raises
    ------
    RefusedError
        There is nothing to work on; what is wrong with single image sets is in ``problems``.
    """
    if pipeline.loads_data:
        if source.table is None:
            source = _pipelines_own_csv(pipeline, source)
        table = source.table.copy() if source.table is not None else pd.DataFrame()
        table.insert(0, "ImageNumber", range(1, len(table) + 1))
        sets = ImageSets(table, True, pipeline.groups, source.problems)
        return _with_places(_grouped(sets), places)
    files = source.files
    if source.table is not None:
        listed = ImageSets(source.table, True).paths()
        files = sorted({local_path(path) for column in listed.items() for path in column[1]})
    if odd := [path for path in files if "\n" in str(path) or "\r" in str(path)]:
        text = "its name holds a line break, which a list of files cannot carry."
        raise RefusedError([Problem(repr(path.name), text, "Rename it.") for path in odd])
    sets_table, problems = match_files(pipeline, files)
    if not len(sets_table):
        raise RefusedError(
            [
                *problems,
                Problem(
                    "images",
                    f"no image set is found among {len(files):,} files.",
                    "Compare their names with the pipeline's NamesAndTypes.",
                ),
            ]
        )
    for name in channels_of(sets_table):
        folders = sets_table[f"PathName_{name}"]
        sets_table[f"PathName_{name}"] = [remote.to_address(folder) for folder in folders]
    all_problems = (*source.problems, *problems)
    sets = ImageSets(sets_table, False, pipeline.groups, all_problems)
    return _with_places(_grouped(sets), places)


def _with_places(sets: ImageSets, places: Mapping[str, str | None] | None) -> ImageSets:
    chosen, problems = choose(sets.table, sets.channels, places or {})
    return replace(sets, place_columns=chosen, problems=(*sets.problems, *problems))


def _pipelines_own_csv(pipeline: Pipeline, source: Source) -> Source:
    """Find the CSV that LoadData names, among the given files."""
    load = pipeline.first("LoadData")
    name = load.get("Name of the file") if load else ""
    matching = [path for path in source.files if path.name == name]
    if not matching:
        hint = "Give the CSV as images=, or beside the folder as data_file=."
        raise RefusedError([Problem("images", f"LoadData's file {name!r} is not there.", hint)])
    return table_source(matching[0], source.base or matching[0].parent)


def _grouped(sets: ImageSets) -> ImageSets:
    """Give the groups the numbers that CellProfiler gives them: sorted by their key.

    Its Groups module puts the image sets of a group one after another; LoadData leaves them.
    """
    table = sets.table
    if not sets.groups:
        table["Group_Number"] = 1
        table["Group_Index"] = range(1, len(table) + 1)
        table["Group_Length"] = len(table)
        return sets
    if missing := [name for name in sets.groups if f"Metadata_{name}" not in table]:
        known = sets.metadata
        raise RefusedError([unknown_name("metadata to group by", name, known) for name in missing])
    keys = [as_text(table[f"Metadata_{name}"]) for name in sets.groups]
    key = list(zip(*keys, strict=True))
    number = {group: place for place, group in enumerate(sorted(set(key)), 1)}
    table["Group_Number"] = [number[group] for group in key]
    if not sets.loads_data:
        table = table.sort_values("Group_Number", kind="stable").reset_index(drop=True)
        table["ImageNumber"] = range(1, len(table) + 1)
    grouped = table.groupby("Group_Number")
    table["Group_Index"] = grouped.cumcount() + 1
    table["Group_Length"] = grouped["ImageNumber"].transform("size")
    return replace(sets, table=table)
