"""CellProfiler's own example pipelines by labkit and by one plain run, compared in every cell.

``python -m bench.cellprofiler_examples CHECKOUT WORK [words ...]``, with a checkout of
CellProfiler/examples and a folder to work in. With words only pipelines whose paths hold one of
them run. Each runs with one image set a task, or whole where a module looks across image sets;
what is done stays in WORK, and is not done again. The table goes to the output, as Markdown.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_numeric_dtype, is_string_dtype
from skimage.io import imread

import labkit
from labkit.base.problems import LabkitError
from labkit.jobs.model import State
from labkit.viewers.paths import program
from labkit.workflows.cellprofiler.job import CellProfilerJob
from tests.labkit.workflows.cellprofiler.pipelines import ONE_THREAD, VOLATILE

_LONGEST = 3600.0  # seconds of a plain run, and of a job
_ENDLESS = f"no end within {_LONGEST / 60:.0f} min"
_IMAGES = {".tif", ".tiff", ".png", ".jpg", ".jpeg", ".npy"}
_OLD = "CellProfiler3Pipelines"
# Pipelines of version 3 lie beside each other; these have their images under another name.
_IMAGES_OF = {
    "ExampleUntangleAndStraightenWorms": "ExampleStraightenWorms",
    "ExampleVitra": "ExampleVitraImages",
    "ExampleFlyURL": "ExampleFly",
}


def images_of(pipeline: Path, checkout: Path) -> Path:
    """Return the folder of a pipeline's images."""
    folder = pipeline.parent
    if folder.name == _OLD:
        name = _IMAGES_OF.get(pipeline.stem, pipeline.stem)
        folder = checkout / ("ExampleIlluminationCorrection" if "Illum" in name else name)
    return folder / "images" if (folder / "images").is_dir() else folder


def run_plainly(pipeline: Path, images: Path, out: Path) -> str:
    """Run CellProfiler once over everything; return what it says at the end."""
    if (out / "status").is_file():
        return (out / "status").read_text()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    argv = [str(program("cellprofiler", "cellprofiler")), "-c", "-r", "-p", str(pipeline)]
    argv += ["-o", str(out), "-d", str(out / "done"), "-i", str(images)]
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, errors="replace", timeout=_LONGEST, env=ONE_THREAD
        )
    except subprocess.TimeoutExpired:
        return _ENDLESS
    status = (out / "done").read_text().strip() if (out / "done").exists() else "no end"
    failed = [line for line in done.stderr.splitlines() if "Error detected" in line]
    status = "; ".join([status, *failed[:1]])
    (out / "status").write_text(status)
    return status


def run_by_labkit(pipeline: Path, images: Path, out: Path) -> tuple[CellProfilerJob | None, str]:
    """Run it as a job; return the job, and whether it ran whole, or why it was refused."""
    workflow = labkit.CellProfiler(pipeline, images, chunk_size=1, profiles=False, output=out)
    refused = [str(problem) for problem in workflow.check() if not problem.warning]
    whole = bool(refused) and all("looks across" in text for text in refused)
    if whole:
        count = len(workflow.prepared.sets)
        workflow = labkit.CellProfiler(
            pipeline, images, chunk_size=count, profiles=False, output=out
        )
        refused = [str(problem) for problem in workflow.check() if not problem.warning]
    if refused:
        return None, "; ".join(refused)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        job = workflow.submit("local")
    job.wait(_LONGEST)
    count = len(workflow.prepared.sets)
    tasks = int((job.tasks()["stage"] == "analysis").sum())
    return job, f"{count} in {tasks} {'task' if tasks == 1 else 'tasks'}"


def read_table(path: Path, text: str = "") -> pd.DataFrame:
    """Return a table of a plain run; a file that two kinds of objects share has two heads."""
    table = pd.read_csv(path, float_precision="round_trip", dtype={text: str} if text else None)
    if len(table) and "ImageNumber" not in table and "ImageNumber" in map(str, table.iloc[0]):
        table = pd.read_csv(path, float_precision="round_trip", header=[0, 1])
        table.columns = [b if a in ("", "Image") else f"{a}_{b}" for a, b in table.columns]
    return table


def differences(job: CellProfilerJob, out: Path) -> list[str]:
    """Return in what a job's tables differ from a plain run's."""
    settings = json.loads((job.run.folder.files / "gather.json").read_text())
    unlike = []
    tables: dict[str, list[Path]] = {}  # a pipeline may write one of each group of images
    for path in sorted(out.rglob("*.csv")):
        name = path.stem
        for prefix in settings["prefixes"]:
            name = name.removeprefix(prefix)
        if name != "Experiment" and path.stat().st_size:
            tables.setdefault(name, []).append(path)
    for name, paths in tables.items():
        try:
            ours = job.results(name, places=False)
        except LabkitError as error:
            unlike.append(f"{name}: {error}")
            continue
        theirs = pd.concat([read_table(path) for path in paths], ignore_index=True)
        for column in theirs.columns.intersection(ours.columns):
            # Text of digits alone, e.g. a frame's number 0001: pandas would take it for a number.
            if is_string_dtype(ours[column]) and is_numeric_dtype(theirs[column]):
                texts = [read_table(path, text=column)[column] for path in paths]
                theirs[column] = pd.concat(texts, ignore_index=True)
        columns = [column for column in theirs if not column.startswith(VOLATILE)]
        # where a run has saved its own images: what lies there is compared by its name
        own = [c for c in columns if theirs[c].astype(str).str.contains(str(out)).any()]
        columns = [column for column in columns if column not in own]
        try:
            pd.testing.assert_frame_equal(
                ours[columns].reset_index(drop=True),
                theirs[columns].reset_index(drop=True),
                check_dtype=False,
                check_exact=True,
            )
        except (AssertionError, KeyError) as error:
            unlike.append(f"{name}: {' '.join(str(error).split())[:200]}")
    return unlike


def unlike_images(job: CellProfilerJob, out: Path) -> tuple[int, list[str]]:
    """Return how many images a plain run has saved, and which of them the job has not alike."""
    results: dict[str, list[Path]] = {}
    for path in (job.run.path / "results").rglob("*"):
        results.setdefault(path.name, []).append(path)
    saved = [path for path in sorted(out.rglob("*")) if path.suffix.lower() in _IMAGES]
    unlike = []
    for path in saved:
        ours = results.get(path.name, [])
        if not any(pixels(one).shape == pixels(path).shape for one in ours):
            unlike.append(f"{path.name}: not saved")
        elif not any(np.array_equal(pixels(one), pixels(path)) for one in ours):
            unlike.append(f"{path.name}: other pixels")
    return len(saved), unlike


def pixels(path: Path) -> NDArray[Any]:
    """Return what an image file holds."""
    data: NDArray[Any] = np.load(path) if path.suffix == ".npy" else imread(path)
    return data


def verdict(job: CellProfilerJob, plain: str, out: Path) -> str:
    """Return in words how a job's results compare with those of a plain run."""
    if job.state is not State.SUCCEEDED:
        return "; ".join(str(text) for text in job.failed()["text"])
    if plain != "Complete":
        return "succeeded; not compared"
    tables = len([path for path in out.rglob("*.csv") if path.stat().st_size])
    images, unlike = unlike_images(job, out)
    if unlike := [*differences(job, out), *unlike]:
        return "; ".join(unlike)
    return f"equal in {tables} tables and {images} images"


def compare(pipeline: Path, checkout: Path, work: Path) -> dict[str, Any]:
    """Run one pipeline both ways; return its row."""
    name = pipeline.relative_to(checkout).with_suffix("").as_posix()
    kept = work / "rows" / f"{name.replace('/', '.')}.json"
    if kept.is_file():
        row: dict[str, Any] = json.loads(kept.read_text())
        return row
    images = images_of(pipeline, checkout)
    plain = run_plainly(pipeline, images, work / "plain" / name)
    if plain == _ENDLESS:  # not kept: another machine may have the time
        return {"pipeline": name, "plain run": plain, "image sets": "", "labkit": "not compared"}
    job, how = run_by_labkit(pipeline, images, work / "runs")
    row = {"pipeline": name, "plain run": plain, "image sets": how, "labkit": "refused"}
    if job is not None:
        row["labkit"] = verdict(job, plain, work / "plain" / name)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(row))
    return row


def main() -> None:
    """Run the pipelines and print the table."""
    checkout, work = (Path(word).absolute() for word in sys.argv[1:3])
    words = sys.argv[3:]
    columns = ("pipeline", "image sets", "plain run", "labkit")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    for pipeline in sorted(checkout.glob("*/*.cppipe")):
        if not words or any(word in str(pipeline) for word in words):
            row = compare(pipeline, checkout, work)
            print(f"| {' | '.join(row[column] for column in columns)} |", flush=True)


if __name__ == "__main__":
    main()
