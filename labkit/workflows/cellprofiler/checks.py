"""Everything that can be known before anything is started, all at once and with names."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from labkit.base.problems import Problem
from labkit.viewers.paths import EnvironmentMissingError, program
from labkit.workflows.cellprofiler import integrity
from labkit.workflows.cellprofiler.images import ImageSets
from labkit.workflows.cellprofiler.pipeline import INPUT_MODULES, Pipeline

ENVIRONMENT = "cellprofiler"
_PROBE = Path(__file__).parent / "task_code" / "probe.py"
_PROBE_TIMEOUT = 120.0  # seconds
_READERS = 16
_SHOWN = 10


@dataclass(frozen=True)
class Probe:
    """What CellProfiler itself says of a pipeline.

    Attributes
    ----------
    ran : bool
        False where the environment is not here; then the rest is empty.
    version : str
        Of CellProfiler.
    dropped, invalid : tuple of dict
        Modules that it cannot load, and modules whose settings it does not accept.
    across : tuple of int
        Numbers of modules that aggregate over image sets.
    error : str
        Why the pipeline could not be loaded at all.
    """

    ran: bool
    version: str = ""
    dropped: tuple[dict[str, Any], ...] = ()
    invalid: tuple[dict[str, Any], ...] = ()
    across: tuple[int, ...] = ()
    error: str = ""


def probe(pipeline: Pipeline, table: pd.DataFrame | None, plugins: Path | None) -> Probe:
    """Load the pipeline with the real CellProfiler (about three seconds, once per pipeline).

    Parameters
    ----------
    table : DataFrame or None
        Image sets, whose columns LoadData needs to know.
    """
    header = tuple(table.columns) if table is not None else ()
    first = tuple(map(str, table.iloc[0])) if table is not None and len(table) else ()
    return _probe(str(pipeline.path), pipeline.digest, header, first, plugins)


@lru_cache(maxsize=64)
def _probe(
    path: str, digest: str, header: tuple[str, ...], row: tuple[str, ...], plugins: Path | None
) -> Probe:
    del digest  # only tells one state of the file from another in the cache
    try:
        python = program(ENVIRONMENT, "python")
    except EnvironmentMissingError:
        return Probe(False)
    argv = [str(python), "-I", str(_PROBE), path]
    with tempfile.TemporaryDirectory(prefix="labkit-probe-") as folder:
        if header:
            data = Path(folder) / "one.csv"
            pd.DataFrame([row], columns=list(header)).to_csv(data, index=False)
            argv += ["--data-file", str(data)]
        if plugins:
            argv += ["--plugins", str(plugins)]
        try:
            done = subprocess.run(
                argv,
                capture_output=True,
                text=True,
                timeout=_PROBE_TIMEOUT,
                cwd=folder,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return Probe(True, error=f"CellProfiler could not be asked: {error}")
    lines = [line[6:] for line in done.stdout.splitlines() if line.startswith("PROBE ")]
    if not lines:
        return Probe(True, error=f"CellProfiler could not be asked: {done.stderr[-500:]}")
    found = json.loads(lines[-1])
    return Probe(
        True,
        found["version"],
        tuple(found["dropped"]),
        tuple(f for f in found["invalid"] if f["module"] not in (*INPUT_MODULES, "LoadData")),
        tuple(found["across"]),
        found["error"],
    )


def check_probe(pipeline: Pipeline, found: Probe) -> list[Problem]:
    """Return what CellProfiler itself has against a pipeline."""
    where = pipeline.path.name
    if not found.ran:
        text = "it was not loaded with CellProfiler: that environment is not on this machine."
        return [Problem(where, text, warning=True)]
    problems = []
    if found.error:
        problems.append(Problem(where, f"CellProfiler cannot load it: {found.error}."))
    for drop in found.dropped:
        text = f"CellProfiler cannot load it and would leave it out: {drop['error']}."
        hint = "Give the folder of its plugin (plugins=), or disable the module."
        problems.append(Problem(drop["module"], text, hint))
    if not found.dropped:  # what follows from a missing module would only hide it
        for bad in found.invalid:
            text = f"CellProfiler does not accept its settings: {bad['error']}."
            problems.append(Problem(f"{bad['module']} (module {bad['number']})", text))
    return problems


def check_channels(pipeline: Pipeline, sets: ImageSets, later: Sequence[str] = ()) -> list[Problem]:
    """Return images that modules read and nobody provides.

    Parameters
    ----------
    later : sequence of str
        Names that an illumination pipeline will make.
    """
    offered = {*sets.channels, *later, *pipeline.made}
    for column in sets.table.columns:
        if str(column).startswith("ObjectsFileName_"):
            offered.add(str(column).removeprefix("ObjectsFileName_"))
    return [
        Problem(
            f"channel {name}",
            f"{module} reads it, but the images have {', '.join(sets.channels)}.",
            f"Add FileName_{name} and PathName_{name}, or correct the name in the pipeline.",
        )
        for name, module in pipeline.used_images.items()
        if name not in offered
    ]


def broken_images(sets: ImageSets) -> dict[int, list[tuple[str, str]]]:
    """Find images that cannot be read whole.

    Returns
    -------
    dict of int to list of (str, str)
        Row of the table -> path and what is wrong, only for rows with something wrong.
    """
    paths = sets.paths()
    unique = sorted(set(paths.to_numpy().ravel()))
    with ThreadPoolExecutor(_READERS) as readers:
        found = dict(
            zip(unique, readers.map(lambda p: integrity.problem(Path(p)), unique), strict=True)
        )
    bad: dict[int, list[tuple[str, str]]] = {}
    if not any(found.values()):
        return bad
    for row, *files in paths.itertuples():
        wrong = [(path, text) for path in files if (text := found[path])]
        if wrong:
            bad[int(row)] = wrong
    return bad


def check_integrity(sets: ImageSets, broken: dict[int, list[tuple[str, str]]]) -> list[Problem]:
    """Return a warning per image set that will fail; refuse where all would."""
    if broken and len(broken) == len(sets):
        path, text = next(iter(broken.values()))[0]
        return [Problem("images", f"not one image set is whole; e.g. {path}: {text}.")]
    places = sets.places()
    problems = []
    for row, wrong in list(broken.items())[:_SHOWN]:
        place = "  ".join(f"{k} {v}" for k, v in places.loc[row].items() if v)
        files = "; ".join(f"{Path(path).name}: {text}" for path, text in wrong)
        where = f"image set {row + 1}" + (f" ({place})" if place else "")
        problems.append(Problem(where, f"it will fail, the others run. {files}.", warning=True))
    if len(broken) > _SHOWN:
        text = f"{len(broken) - _SHOWN:,} more image sets will fail."
        problems.append(Problem("images", text, warning=True))
    return problems
